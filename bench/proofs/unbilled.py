"""Nothing unbilled: kill -9 at seeded moments under load, and the books compared afterwards."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import asyncpg  # type: ignore[import-untyped] # It ships no marker of its types.
from tests.support.postgres_server import PostgresServer
from tests.support.process import RouterProcess
from tests.support.redis_server import RedisServer

from bench.proofs.base import BenchError, Result, Stage, Table
from bench.proofs.books import Tally, events_since, judge, missing
from bench.proofs.callers import Crowd, Fate, Told, serves
from bench.proofs.world import World

ROUNDS = 200
_CALLERS, _CALLS = 12, 72
_WORKERS = 2
# How long the books may take to be whole after a round. Seconds.
_SETTLE = 60.0
_LOOK = 0.1
# After so many kills of workers the router itself is killed: its supervisor would otherwise wait
# longer and longer before it starts a worker that keeps dying.
_KILLS_BEFORE_ALL = 4


class Victim(StrEnum):
    """What is killed in a round."""

    WORKER = "one of two workers"
    ROUTER = "router and workers"
    POSTGRES = "Postgres"
    REDIS = "Redis"


@dataclass(slots=True)
class _Servers:
    """What the router needs. `postgres` None: the ledger is in SQLite."""

    redis: RedisServer
    postgres: PostgresServer | None


@dataclass(slots=True)
class _Campaign:
    """Rounds against one router, which is replaced when it is killed itself."""

    name: str
    world: World
    servers: _Servers
    router: RouterProcess | None = None
    running: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> RouterProcess:
        """The router, started if there is none."""
        if self.router is None:
            self.router = await self.running.enter_async_context(
                self.world.router(workers=_WORKERS)
            )
        return self.router

    async def stop(self) -> None:
        """Ends the router in order."""
        if self.router is not None:
            self.router.send(signal.SIGTERM)
            await self.router.process.wait()
            await self.forget()

    async def forget(self) -> None:
        """Takes note that the router is gone."""
        self.router = None
        await self.running.aclose()
        self.running = AsyncExitStack()


async def run(stage: Stage) -> Result:
    """As the module says."""
    rounds = stage.options.rounds or ROUNDS
    totals: dict[tuple[str, Victim], Tally] = {}
    counts: dict[tuple[str, Victim], int] = {}
    # Postgres can only be killed where the ledger is in it.
    split = {"Postgres": rounds - rounds * 2 // 5, "SQLite": rounds * 2 // 5}
    begun = time.monotonic()
    overall: dict[str, Tally] = {}
    for name, count in split.items():
        async with _campaign(stage, name) as campaign:
            victims = list(_victims(count, campaign.servers.postgres is not None))
            everything: list[Told] = []
            start_us = round(time.time() * 1e6)
            for number, victim in enumerate(victims):
                rng = stage.rng("unbilled", name, number)
                told, tally = await _round(campaign, f"{name}-{number}", victim, rng)
                everything += told
                totals.setdefault((name, victim), Tally()).add(tally)
                counts[name, victim] = counts.get((name, victim), 0) + 1
                _progress(name, number, count, victim, tally)
            await campaign.stop()
            events = await events_since(campaign.world.database, start_us)
            # Once more, over all of it: what a later recovery booked twice would show here.
            overall[name] = judge(everything, events, died=True)
    return _result(totals, counts, overall, time.monotonic() - begun)


def _victims(count: int, with_postgres: bool) -> Sequence[Victim]:
    """The victims of a campaign's rounds, in turn."""
    cycle = [Victim.WORKER, Victim.REDIS]
    if with_postgres:
        cycle.insert(1, Victim.POSTGRES)
    found, kills = [], 0
    for number in range(count):
        victim = cycle[number % len(cycle)]
        if victim is Victim.WORKER:
            kills += 1
            if kills % _KILLS_BEFORE_ALL == 0:
                victim = Victim.ROUTER
        found.append(victim)
    return found


@asynccontextmanager
async def _campaign(stage: Stage, name: str) -> AsyncGenerator[_Campaign]:
    folder = stage.folder(f"unbilled-{name}")
    async with AsyncExitStack() as stack:
        redis = RedisServer(stage.redis_program)
        stack.callback(redis.close)
        redis.start()
        postgres = None
        database = f"sqlite:///{folder}/usage.db"
        if name == "Postgres":
            postgres = PostgresServer(stage.postgres_programs)
            stack.callback(postgres.close)
            postgres.start()
            database = postgres.dsn()
        world = World(
            folder=folder, upstream=stage.upstream.address, database=database, redis=redis.url
        )
        if postgres is not None:
            await migrated(world)
        campaign = _Campaign(name, world, _Servers(redis, postgres))
        stack.push_async_callback(campaign.forget)
        yield campaign


async def migrated(world: World) -> None:
    """Makes the tables of a database that an operator migrates. Raises BenchError."""
    process = await asyncio.create_subprocess_exec(
        *world.command("migrate", str(world.config())),
        env={**os.environ, **world.environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise BenchError(f"trunkline migrate: {output.decode(errors='replace')}")


async def _round(
    campaign: _Campaign, name: str, victim: Victim, rng: random.Random
) -> tuple[list[Told], Tally]:
    """One load with one kill in it, and the books after it."""
    router = await campaign.start()
    # Both workers may be about to start anew.
    deadline = time.monotonic() + _SETTLE
    while not await serves(router.address):
        if time.monotonic() > deadline:
            raise BenchError(f"no worker has come back: {router.log[-5:]}")
        await asyncio.sleep(_LOOK)
    start_us = round(time.time() * 1e6) - 1_000_000
    moment, pause = rng.randrange(5, _CALLS - 15), rng.uniform(0.0, 0.02)
    due = asyncio.Event()

    def began(number: int) -> None:
        if number >= moment:
            due.set()

    async def kill() -> None:
        await due.wait()
        await asyncio.sleep(pause)
        await _kill(campaign, router, victim, rng)

    killing = asyncio.create_task(kill())
    told = await Crowd(name, _CALLERS, _CALLS).call(router.address, rng, began)
    await killing
    if victim is Victim.ROUTER:
        await campaign.forget()
        await campaign.start()
    died = victim in {Victim.WORKER, Victim.ROUTER}
    deadline = time.monotonic() + _SETTLE
    while True:
        try:
            events = await events_since(campaign.world.database, start_us)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            events = []
        if not missing(told, events, died=died) or time.monotonic() > deadline:
            return told, judge(told, events, died=died)
        await asyncio.sleep(_LOOK)


async def _kill(
    campaign: _Campaign, router: RouterProcess, victim: Victim, rng: random.Random
) -> None:
    """Kills, and starts again what nobody else does."""
    if victim in {Victim.POSTGRES, Victim.REDIS}:
        server = campaign.servers.redis if victim is Victim.REDIS else campaign.servers.postgres
        if server is None:
            raise AssertionError("a server that is not there was to be killed")
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(rng.uniform(0.0, 0.4))
        server.launch()
        await asyncio.to_thread(server.wait)
        return
    workers = _children(router.process.pid)
    if victim is Victim.WORKER:
        workers = workers and [rng.choice(workers)]
    else:
        os.kill(router.process.pid, signal.SIGKILL)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def _progress(name: str, number: int, count: int, victim: Victim, tally: Tally) -> None:
    fates = ", ".join(f"{fate} {seen}" for fate, seen in sorted(tally.fates.items()))
    verdict = f"BROKEN: {tally.broken[:3]}" if tally.broken else "held"
    print(f"  {name} {number + 1}/{count}: {victim}: {fates}: {verdict}", flush=True)


def _result(
    totals: dict[tuple[str, Victim], Tally],
    counts: dict[tuple[str, Victim], int],
    overall: dict[str, Tally],
    seconds: float,
) -> Result:
    columns = [
        *("ledger in", "killed", "rounds", "calls", "answered", "refused", "left", "cut off"),
        *("tokens told", "booked", "nanos told", "booked", "broken"),
    ]
    rows, broken = [], []
    all_of_it = Tally()
    for (name, victim), tally in totals.items():
        rows.append([name, str(victim), *_cells(counts[name, victim], tally)])
        broken += tally.broken
        all_of_it.add(tally)
    rows.append(["both", "all", *_cells(sum(counts.values()), all_of_it)])
    for name, tally in overall.items():
        broken += [f"in the end, {name}: {each}" for each in tally.broken]
        if (tally.told_tokens, tally.told_nanos) != (tally.booked_tokens, tally.booked_nanos):
            broken.append(f"{name}: the sums differ in the end")
    figures = {
        "rounds": sum(counts.values()),
        "calls": all_of_it.calls,
        "answered": all_of_it.fates[Fate.ANSWERED],
        "left": all_of_it.fates[Fate.LEFT],
        "left_booked": all_of_it.left_booked,
        "cut": all_of_it.fates[Fate.CUT],
        "cut_booked": all_of_it.cut_booked,
        "told": [all_of_it.told_tokens, all_of_it.told_nanos],
        "booked": [all_of_it.booked_tokens, all_of_it.booked_nanos],
        "seconds": round(seconds, 1),
    }
    note = (
        f"Of {figures['left']} calls that their callers left, {figures['left_booked']} are booked;"
        f" of {figures['cut']} that were cut off, {figures['cut_booked']}: the others had not"
        " reached the router, or ended with their worker before anything of them did."
    )
    return Result([Table(columns, rows)], figures, broken, [note])


def _cells(rounds: int, tally: Tally) -> list[str]:
    fates = [tally.fates[fate] for fate in (Fate.ANSWERED, Fate.REFUSED, Fate.LEFT, Fate.CUT)]
    sums = (tally.told_tokens, tally.booked_tokens, tally.told_nanos, tally.booked_nanos)
    return [f"{number:,}" for number in (rounds, tally.calls, *fates, *sums, len(tally.broken))]
