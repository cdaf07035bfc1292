"""How long events are kept: the old ones are deleted in small batches, beside other work."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.ledger.ports import LedgerWatch
from trunkline_server.ledger.queries import UsageQueries


@dataclass(frozen=True, slots=True)
class RetentionOptions:
    """Times are seconds.

    keep: how long an event is kept after its start; longer than any budget's period, for what
        a budget has spent is read from these events.
    every: how often is looked.
    batch: the most events deleted by one statement.
    pause: between two statements, so that others get their turn.
    jump: a wall clock that has gone further than the monotonic one, by more than this since the
        last look, is not believed before the next one: set forward by mistake, it would have
        everything deleted at once.
    """

    keep: float = 90 * 86_400.0
    every: float = 3600.0
    batch: int = 2000
    pause: float = 0.1
    jump: float = 600.0


class Retention:
    """Deletes events past their time. Any number of replicas may do so at once."""

    def __init__(
        self, queries: UsageQueries, clock: Clock, options: RetentionOptions, watch: LedgerWatch
    ) -> None:
        self._queries = queries
        self._clock = clock
        self._options = options
        self._watch = watch
        # From monotonic seconds to the wall clock's, as of the last look.
        self._offset = clock.wall() - clock.monotonic()

    async def run(self) -> None:
        """Deletes until cancelled; what fails is done the next time."""
        while True:
            # A store that is away is told by whoever ships to it.
            with suppress(TrunklineError):
                await self.sweep()
            await asyncio.sleep(self._options.every)

    async def sweep(self) -> int:
        """Deletes all that is past its time now; how many events that were."""
        options = self._options
        offset = self._clock.wall() - self._clock.monotonic()
        ahead, self._offset = offset - self._offset, offset
        if ahead > options.jump:
            self._watch.clock_jumped(ahead)
            return 0
        end_us = round((self._clock.wall() - options.keep) * 1e6)
        total = 0
        while True:
            deleted = await self._queries.delete_before(end_us, options.batch)
            total += deleted
            if deleted < options.batch:
                return total
            await asyncio.sleep(options.pause)
