"""How long events are kept: the old ones are deleted in small batches, beside other work."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.ledger.queries import UsageQueries


@dataclass(frozen=True, slots=True)
class RetentionOptions:
    """Times are seconds.

    keep: how long an event is kept after its start; longer than any budget's period, for what
        a budget has spent is read from these events.
    every: how often is looked.
    batch: the most events deleted by one statement.
    pause: between two statements, so that others get their turn.
    """

    keep: float = 90 * 86_400.0
    every: float = 3600.0
    batch: int = 2000
    pause: float = 0.1


class Retention:
    """Deletes events past their time. Any number of replicas may do so at once."""

    def __init__(self, queries: UsageQueries, clock: Clock, options: RetentionOptions) -> None:
        self._queries = queries
        self._clock = clock
        self._options = options

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
        end_us = round((self._clock.wall() - options.keep) * 1e6)
        total = 0
        while True:
            deleted = await self._queries.delete_before(end_us, options.batch)
            total += deleted
            if deleted < options.batch:
                return total
            await asyncio.sleep(options.pause)
