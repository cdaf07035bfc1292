"""Retention: what is past its time goes, in batches with pauses, again and again."""

import asyncio

from tests.support.virtual_time import EPOCH, VirtualClock, run
from tests.unit.ledger.world import Watch, away
from trunkline_server.ledger.ports import NullWatch
from trunkline_server.ledger.retention import Retention, RetentionOptions


class Times:
    """A store of events of which only the start is known."""

    def __init__(self, starts: list[float]) -> None:
        self.starts = sorted(starts)
        self.statements: list[tuple[float, int]] = []
        self.failures = 0

    async def delete_before(self, end_us: int, limit: int) -> int:
        if self.failures:
            self.failures -= 1
            raise away()
        gone = [start for start in self.starts if start * 1e6 < end_us][:limit]
        del self.starts[: len(gone)]
        self.statements.append((VirtualClock().monotonic(), len(gone)))
        return len(gone)


OPTIONS = RetentionOptions(keep=1000.0, every=500.0, batch=10, pause=0.5)


def test_what_is_past_its_time_goes_in_batches_with_pauses() -> None:
    async def main() -> None:
        store = Times([EPOCH - 1000.0 - n for n in range(1, 26)] + [EPOCH - 1000.0, EPOCH])
        retention = Retention(store, VirtualClock(), OPTIONS, NullWatch())  # type: ignore[arg-type]  # a part
        assert await retention.sweep() == 25
        assert store.statements == [(0.0, 10), (0.5, 10), (1.0, 5)]
        assert store.starts == [EPOCH - 1000.0, EPOCH]

    run(main)


def test_it_goes_on_with_time_and_after_an_outage() -> None:
    async def main() -> None:
        store = Times([EPOCH + n * 100.0 for n in range(20)])
        store.failures = 1
        retention = Retention(store, VirtualClock(), OPTIONS, NullWatch())  # type: ignore[arg-type]  # a part
        running = asyncio.create_task(retention.run())
        await asyncio.sleep(2100.0)
        # Looked at 0 (away), 500, 1000, 1500 and 2000: by then all before 1000 is too old.
        assert store.starts == [EPOCH + n * 100.0 for n in range(10, 20)]
        assert not running.done()
        running.cancel()

    run(main)


class Adjusted(VirtualClock):
    """A clock that somebody sets."""

    set_by = 0.0

    def wall(self) -> float:
        return super().wall() + self.set_by


def test_a_clock_set_forward_deletes_nothing_before_the_next_look() -> None:
    async def main() -> None:
        starts = [EPOCH + n * 100.0 for n in range(10)]
        store, clock, watch = Times(list(starts)), Adjusted(), Watch()
        retention = Retention(store, clock, OPTIONS, watch)  # type: ignore[arg-type]  # a part
        assert await retention.sweep() == 0
        clock.set_by = 86_400.0 * 365
        assert await retention.sweep() == 0
        assert watch.told == [("clock_jumped", 86_400.0 * 365)]
        # Put right in time, it has cost nothing.
        clock.set_by = 0.0
        assert await retention.sweep() == 0
        assert store.starts == starts
        # Left as it is, it is believed.
        clock.set_by = 5000.0
        assert await retention.sweep() == 0
        assert await retention.sweep() == 10

    run(main)


def test_a_clock_set_back_deletes_nothing_and_is_no_matter() -> None:
    async def main() -> None:
        store, clock, watch = Times([EPOCH - 2000.0, EPOCH - 1500.0]), Adjusted(), Watch()
        retention = Retention(store, clock, OPTIONS, watch)  # type: ignore[arg-type]  # a part
        clock.set_by = -86_400.0
        assert await retention.sweep() == 0
        assert watch.told == []
        clock.set_by = -86_400.0 + 300.0
        assert await retention.sweep() == 0
        assert len(store.starts) == 2

    run(main)
