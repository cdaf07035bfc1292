"""Sums of the ledger, with which spend counters begin."""

import asyncio

from trunkline_server.clock import Clock
from trunkline_server.governance.quotas.gates import Subject
from trunkline_server.governance.quotas.periods import Span, seed_starts
from trunkline_server.governance.quotas.ports import SpendSource
from trunkline_server.governance.quotas.rules import Budget

Amounts = list[tuple[int, int]]

# A source that failed is left alone for this long, in seconds.
_PAUSE = 1.0


class Seeds:
    """Asks the source once for each counter, however many calls wait for it.

    `timeout` bounds the wait in seconds. Without a source every counter begins at nothing.
    """

    def __init__(self, source: SpendSource | None, clock: Clock, timeout: float) -> None:
        self._source = source
        self._clock = clock
        self._timeout = timeout
        self._asking: dict[tuple[str, Subject, str], asyncio.Task[Amounts | None]] = {}
        self._away_until = 0.0

    @property
    def present(self) -> bool:
        """Whether there is a source to ask."""
        return self._source is not None

    async def amounts(self, budget: Budget, subject: Subject, span: Span) -> Amounts | None:
        """What was settled in each bucket in force, as (bucket, nanos); None if the source
        did not tell in time."""
        if self._source is None:
            return []
        if self._clock.monotonic() < self._away_until:
            return None
        key = (budget.name, subject, span.name)
        task = self._asking.get(key)
        if task is None:
            asking = self._ask(self._source, budget, subject, span)
            task = self._asking[key] = asyncio.get_running_loop().create_task(asking)
            task.add_done_callback(lambda _: self._asking.pop(key))
        return await asyncio.shield(task)

    async def _ask(
        self, source: SpendSource, budget: Budget, subject: Subject, span: Span
    ) -> Amounts | None:
        wall = self._clock.wall()
        buckets, starts = seed_starts(budget, span, wall)
        tenant, name = subject
        try:
            async with asyncio.timeout(self._timeout):
                sums = await source.spent(
                    budget.scope, tenant, name, starts, wall, match=budget.match
                )
        except Exception:  # noqa: BLE001 - Whatever ails the ledger, calls go on by the declared mode.
            self._away_until = self._clock.monotonic() + _PAUSE
            return None
        return list(zip(buckets, sums, strict=True))
