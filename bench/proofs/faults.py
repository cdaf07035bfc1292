"""What goes wrong under a router: each fault is brought about and mended on real servers."""

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.fault_proxy import FaultProxy
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer
from tests.support.server_process import ServerProcess

from bench.proofs.base import BenchError, Stage
from bench.proofs.unbilled import migrated
from bench.proofs.world import World

SLOW_SECONDS = 5.0
_DISK_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A router's world and what can be done to it."""

    world: World
    redis: RedisServer
    postgres: PostgresServer
    # Between the router and Redis.
    proxy: FaultProxy
    # A small file system with the journal, or None.
    disk: Path | None


Act = Callable[[Surroundings], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and how it is mended."""

    name: str
    strike: Act
    mend: Act


async def _kill(server: ServerProcess) -> None:
    await asyncio.to_thread(server.kill)


async def _start(server: ServerProcess) -> None:
    server.launch()
    await asyncio.to_thread(server.wait)


async def _slow(around: Surroundings, seconds: float) -> None:
    around.proxy.delay = seconds
    if not seconds:
        # Replies that wait already would still come late; they are of connections given up.
        around.proxy.cut()


async def _fill(around: Surroundings) -> None:
    if around.disk is None:
        raise AssertionError("there is no small disk")
    filler = around.disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


async def _clear(around: Surroundings) -> None:
    if around.disk is not None:
        os.unlink(around.disk / "filler")  # noqa: PTH108 - one system call, as an operator's rm


REDIS_DEAD = Fault("Redis dead", lambda on: _kill(on.redis), lambda on: _start(on.redis))
REDIS_SLOW = Fault(
    f"Redis slow, {SLOW_SECONDS:g} s a reply",
    lambda on: _slow(on, SLOW_SECONDS),
    lambda on: _slow(on, 0.0),
)
POSTGRES_DEAD = Fault(
    "Postgres dead", lambda on: _kill(on.postgres), lambda on: _start(on.postgres)
)


async def _freeze(around: Surroundings) -> None:
    around.postgres.pause()


async def _thaw(around: Surroundings) -> None:
    around.postgres.resume()


POSTGRES_FROZEN = Fault("Postgres frozen", _freeze, _thaw)
DISK_FULL = Fault("disk full", _fill, _clear)


@asynccontextmanager
async def surroundings(
    stage: Stage, name: str, fault: Fault, **sections: dict[str, str]
) -> AsyncGenerator[Surroundings]:
    """Servers for one fault. `sections` are more of `state` and `ledger`.

    Raises BenchError where a small disk is needed and cannot be mounted.
    """
    folder = stage.folder(name)
    async with AsyncExitStack() as stack:
        redis = RedisServer(stage.redis_program)
        stack.callback(redis.close)
        redis.start()
        postgres = PostgresServer(stage.postgres_programs)
        stack.callback(postgres.close)
        postgres.start()
        proxy = await stack.enter_async_context(FaultProxy(redis.host, redis.port))
        ledger = dict(sections.get("ledger", {}))
        disk = None
        if fault is DISK_FULL:
            disk = folder / "disk"
            disk.mkdir()
            mount(disk)
            stack.callback(unmount, disk)
            ledger["journal"] = str(disk / "journal")
        world = World(
            folder=folder,
            upstream=stage.upstream.address,
            database=postgres.dsn(),
            # The proxy shares this process with the callers, and is late when they are many.
            redis=f"redis://{proxy.address}" if fault is REDIS_SLOW else redis.url,
            state=sections.get("state", {}),
            ledger=ledger,
        )
        await migrated(world)
        yield Surroundings(world, redis, postgres, proxy, disk)


def mount(place: Path) -> None:
    """Mounts a small file system. Raises BenchError."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise BenchError(f"a small file system can only be mounted by root: {done.stderr!r}")


def unmount(place: Path) -> None:
    """Undoes `mount`."""
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # noqa: S607 - wherever it is
