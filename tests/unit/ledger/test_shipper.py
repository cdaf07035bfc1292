"""Shipping: everything reaches the store once, whatever the store does on the way."""

import os
import random
from asyncio import sleep
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.virtual_time import EPOCH, VirtualClock, run
from tests.unit.ledger.world import MemorySink, Watch, event, payload
from trunkline_server.ledger.directory import JournalDirectory
from trunkline_server.ledger.journal import JournalOptions
from trunkline_server.ledger.ledger import Ledger, LedgerOptions
from trunkline_server.ledger.shipper import ShipperOptions


class World:
    """A ledger on virtual time over a store that can be told to fail."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.sink = MemorySink()
        self.watch = Watch()
        self.options = LedgerOptions(
            JournalOptions(segment_bytes=500), ShipperOptions(batch_events=8, **options)
        )

    def open(self) -> Ledger:
        return Ledger(self.root, self.sink, VirtualClock(), self.watch, self.options)

    def came(self) -> list[int]:
        """The numbers of the events in the store, in the order of arrival."""
        return [int(key, 16) for key in self.sink.kept]


def die(ledger: Ledger) -> None:
    """Ends a ledger as kill -9 does: nothing more is written or noted, and its lock is free."""
    if ledger._shipping is not None:
        ledger._shipping.cancel()
    if ledger.journal._file is not None:
        os.close(ledger.journal._file)
    ledger.journal.directory.release()
    ledger.shipper.release()


def write(ledger: Ledger, numbers: range) -> None:
    for number in numbers:
        ledger.write(payload(number))


def test_everything_is_shipped_in_order_and_once(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def main() -> None:
        ledger = world.open()
        write(ledger, range(50))
        await ledger.journal.committed()
        assert await ledger.shipper.drain(60)
        await ledger.close()

    run(main)
    assert world.came() == list(range(50))
    assert set(world.sink.came.values()) == {1}
    assert max(world.sink.batches) <= 8
    assert sum(int(str(row[0])) for row in world.watch.all("shipped")) == 50
    # Nothing is left of a process that shipped all and closed in order.
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_store_that_is_away_gets_all_of_it_later(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def main() -> None:
        ledger = world.open()
        world.sink.failures = ["away"] * 5 + ["lost answer", "away", "", "lost answer"]
        write(ledger, range(40))
        ledger.start()
        await sleep(100.0)
        await ledger.close()

    run(main)
    assert world.came() == list(range(40))
    # The answer to two batches was lost: they came twice, and the store kept them once.
    assert set(world.sink.came.values()) == {1, 2}
    assert world.watch.all("shipping") == [(False,), (True,)]
    failures = [row[1] for row in world.watch.all("ship_failed")]
    assert failures == [1, 2, 3, 4, 5, 6, 7, 1]
    assert "the store is away" in str(world.watch.all("ship_failed")[0][0])


def test_failures_are_followed_by_growing_pauses(tmp_path: Path) -> None:
    world = World(tmp_path, backoff_base=0.1, backoff_max=2.0)
    times: list[float] = []

    async def main() -> None:
        ledger = world.open()
        world.sink.failures = ["away"] * 12
        watch = world.watch.ship_failed

        def failed(problem: str, failures: int) -> None:
            times.append(VirtualClock().monotonic())
            watch(problem, failures)

        world.watch.ship_failed = failed  # type: ignore[method-assign]  # spies on one method
        write(ledger, range(3))
        ledger.start()
        await sleep(100.0)
        await ledger.close()

    run(main)
    pauses = [after - before for before, after in pairwise(times)]
    for number, pause in enumerate(pauses, 1):
        ceiling = min(0.1 * 2**number, 2.0)
        assert ceiling / 2 <= pause <= ceiling


def test_a_store_that_does_not_answer_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    world = World(tmp_path, timeout=3.0)

    async def main() -> None:
        ledger = world.open()
        insert = world.sink.insert

        async def stuck(events: Any) -> None:
            world.sink.insert = insert  # type: ignore[method-assign]  # once only
            await sleep(3600)

        world.sink.insert = stuck  # type: ignore[method-assign]  # a store that hangs
        write(ledger, range(3))
        ledger.start()
        await sleep(100.0)
        await ledger.close()

    run(main)
    ((problem, _),) = world.watch.all("ship_failed")
    assert "no answer within 3 s" in str(problem)
    # The next try waited no longer than for the answer and a pause.
    lags = [float(str(row[1])) for row in world.watch.all("lag")]
    assert 3.0 <= max(lags) < 4.0
    assert world.came() == [0, 1, 2]


def test_an_event_that_no_store_takes_is_put_aside_alone(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.sink.refused = {f"{number:032x}" for number in (3, 4, 17)}

    async def main() -> None:
        ledger = world.open()
        write(ledger, range(20))
        ledger.write(b"\xff\xff no event")
        write(ledger, range(20, 25))
        await ledger.journal.committed()
        assert await ledger.shipper.drain(60)
        await ledger.close()

    run(main)
    assert world.came() == [number for number in range(25) if number not in {3, 4, 17}]
    problems = [row[0] for row in world.watch.all("unreadable")]
    assert sorted(problems, key=str) == ["a value is out of range"] * 3 + ["it is no usage event"]
    aside = {path.read_bytes() for path in (tmp_path / "quarantine").iterdir()}
    assert aside == {payload(3), payload(4), payload(17), b"\xff\xff no event"}


def test_the_next_process_ships_what_a_crashed_one_left(tmp_path: Path) -> None:
    world = World(tmp_path)
    left: list[JournalDirectory] = []

    async def crash() -> None:
        ledger = world.open()
        write(ledger, range(30))
        await ledger.journal.committed()
        # The first batch reaches the store; the process ends before it can note that.
        await world.sink.insert([event(number) for number in range(8)])
        left.append(ledger.journal.directory)
        die(ledger)

    async def restart() -> None:
        ledger = world.open()
        assert world.watch.all("adopted") == [(left[0].name, len(left[0].segments()))]
        assert ledger.journal.bytes_on_disk == sum(
            path.stat().st_size for path in left[0].path.glob("*.seg")
        )
        write(ledger, range(30, 40))
        assert await ledger.shipper.drain(60)
        assert ledger.journal.bytes_on_disk < 500 * 2
        await ledger.close()

    run(crash)
    run(restart)
    assert sorted(world.came()) == list(range(40))
    assert [world.sink.came[f"{number:032x}"] for number in (0, 7, 8, 39)] == [2, 2, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == []


def test_what_cannot_be_shipped_at_the_end_waits_for_the_next_process(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def end() -> None:
        ledger = world.open()
        ledger.start()
        world.sink.failures = ["away"] * 1000
        write(ledger, range(10))
        await ledger.close(2.0)

    async def begin() -> None:
        world.sink.failures = []
        ledger = world.open()
        assert await ledger.shipper.drain(60)
        await ledger.close()

    run(end)
    assert not world.sink.kept
    run(begin)
    assert world.came() == list(range(10))


def test_the_lag_is_the_age_of_the_oldest_event_that_waits(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def main() -> None:
        ledger = world.open()
        write(ledger, range(5))
        await ledger.journal.committed()
        world.sink.failures = ["away"]
        await sleep(100.0)
        assert not await ledger.shipper.ship()
        size, seconds = world.watch.all("lag")[-1]
        assert size == ledger.journal.bytes_on_disk
        assert seconds == pytest.approx(VirtualClock().wall() - EPOCH, abs=0.01)
        assert await ledger.shipper.drain(60)
        assert world.watch.all("lag")[-1] == (0, 0.0)
        await ledger.close()

    run(main)


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_failures_crashes_and_restarts_ships_all_exactly_once(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    world = World(tmp_path)
    written = 0

    async def life() -> None:
        nonlocal written
        ledger = world.open()
        ledger.start()
        for _ in range(rng.randrange(1, 6)):
            amount = rng.randrange(1, 30)
            write(ledger, range(written, written + amount))
            await ledger.journal.committed()
            written += amount
            world.sink.failures += rng.choices(["", "away", "lost answer"], k=rng.randrange(4))
            await sleep(rng.random() * 2)
        if rng.random() < 0.5:
            await ledger.close(rng.random())
        else:
            die(ledger)

    async def last() -> None:
        world.sink.failures = []
        ledger = world.open()
        assert await ledger.shipper.drain(60)
        await ledger.close()

    for _ in range(rng.randrange(2, 5)):
        run(life)
    run(last)
    assert sorted(world.came()) == list(range(written))
    assert [path.name for path in tmp_path.iterdir()] == []
