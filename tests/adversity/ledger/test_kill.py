"""kill -9 at seeded moments: what was committed is there, once."""

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.mortal import mortal
from tests.unit.ledger.world import Watch, event, read_all
from trunkline.admin import v1 as admin
from trunkline_server.clock import SystemClock
from trunkline_server.ledger.directory import Quarantine, orphans
from trunkline_server.ledger.ledger import Ledger, LedgerOptions
from trunkline_server.ledger.queries import UsageFilter
from trunkline_server.ledger.reader import JournalReader
from trunkline_server.store.address import open_database
from trunkline_server.store.migrate import upgrade
from trunkline_server.store.usage_sqlite import SqliteUsage

ROOT = Path(__file__).parents[3]
ROUNDS = 50
# Numbers of a round's events begin at a multiple of this.
STRIDE = 1_000_000


class Nursery:
    """The program that bears writers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> list[str]:
        assert self._process.stdout is not None
        raw = await self._process.stdout.readline()
        assert raw, "the nursery has ended"
        return raw.decode().split()

    async def life(self, order: str, acks: int, seconds: float) -> set[int]:
        """Bears a writer, and kills it some time after so many commits; what it committed."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n".encode())
        word, pid = await self.line()
        assert word == "born"
        committed: set[int] = set()

        async def listen() -> None:
            while len(committed) < acks:
                committed.add(int((await self.line())[1]))

        await listen()
        await asyncio.sleep(seconds)
        os.kill(int(pid), signal.SIGKILL)
        while True:
            word, number = await self.line()
            if word == "dead":
                assert number == str(int(signal.SIGKILL)), "the writer ended by itself"
                return committed
            committed.add(int(number))


@asynccontextmanager
async def nursery() -> AsyncGenerator[Nursery]:
    process = await asyncio.create_subprocess_exec(
        *mortal([sys.executable, "-m", "tests.adversity.ledger.nursery"]),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    made = Nursery(process)
    try:
        assert await made.line() == ["ready"]
        yield made
    finally:
        process.kill()
        await process.wait()


def replay(root: Path, watch: Watch) -> list[int]:
    """The numbers of all events that crashed writers have left."""
    numbers: list[int] = []
    for directory in orphans(root):
        reader = JournalReader(directory, Quarantine(root), watch)
        reader.recover()
        events = map(admin.UsageEvent.FromString, read_all(reader))
        numbers += [int(each.event_id, 16) for each in events]
        directory.remove()
    return numbers


@pytest.mark.parametrize("sync", ["none", "group"])
async def test_every_committed_event_is_replayed_exactly_once(tmp_path: Path, sync: str) -> None:
    rng = random.Random(29)
    total = 0
    async with nursery() as writers:
        for number in range(ROUNDS):
            first = number * STRIDE
            order = f"{tmp_path} {first} {sync} -"
            committed = await writers.life(order, rng.randrange(1, 60), rng.random() * 0.01)
            watch = Watch()
            replayed = Counter(replay(tmp_path, watch))
            assert set(replayed.values()) == {1}
            assert committed <= set(replayed)
            # They were written in order: what is there has no gap.
            assert sorted(replayed) == list(range(first, first + len(replayed)))
            assert not watch.all("damaged")
            total += len(committed)
    assert total > ROUNDS


async def test_what_killed_writers_shipped_and_left_is_in_the_store_once(tmp_path: Path) -> None:
    rng = random.Random(31)
    dsn = f"sqlite:///{tmp_path / 'state.db'}"
    await upgrade(dsn, "dsn")
    journals = tmp_path / "journals"
    committed: set[int] = set()
    async with nursery() as writers:
        for number in range(ROUNDS):
            order = f"{journals} {number * STRIDE} none {dsn}"
            committed |= await writers.life(order, rng.randrange(1, 200), rng.random() * 0.02)
    database = await open_database(dsn, "dsn")
    table = SqliteUsage(database)
    shipped_before = await database.fetch("SELECT count(*) AS n FROM usage_events")
    ledger = Ledger(journals, table, SystemClock(), Watch(), LedgerOptions())
    assert await ledger.shipper.drain(60)
    await ledger.close()
    kept = [each async for batch in table.scan(UsageFilter()) for each in batch]
    numbers = Counter(int(each.event_id, 16) for each in kept)
    await database.close()
    assert shipped_before[0]["n"] > 0, "no writer lived long enough to ship"
    assert set(numbers.values()) == {1}
    assert committed <= set(numbers)
    for each in kept:
        assert each.end_time_unix_us == event(int(each.event_id, 16)).end_time_unix_us
    # All is shipped: no journal is left.
    assert list(journals.glob("w-*")) == []
