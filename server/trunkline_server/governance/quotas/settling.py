"""Settles what calls took of the shared counters: in the background, in batches, with retries."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from trunkline_server.clock import Clock
from trunkline_server.governance.quotas.ports import (
    CountersRefusedError,
    CountersUnavailableError,
    Operation,
    RateCharge,
    SharedCounters,
    SpendSettlement,
)
from trunkline_server.governance.quotas.shared import tag_of

_BATCH = 64
# An operation that is refused so often by itself is given up: it would hold up all others.
_MAX_REFUSALS = 5
_RETRY_SECONDS = 0.1
_MAX_RETRY_SECONDS = 2.0


@dataclass(slots=True, eq=False)
class _Pending:
    operation: Operation
    since: float
    on_result: Callable[[int], None] | None


class Settler:
    """Carries out operations soon, in order of arrival.

    What fails is tried again until it succeeds, but for corrections of rates, which are not
    idempotent, and what is refused again and again. At most `max_pending` wait: then the
    oldest are dropped. `on_lost` hears how many were given up; reservations among them expire
    by themselves.
    """

    def __init__(
        self,
        counters: SharedCounters,
        clock: Clock,
        replica: str,
        on_lost: Callable[[int], None],
        *,
        max_pending: int = 20_000,
    ) -> None:
        self.replica = replica  # Makes holders unique over all replicas.
        self._counters = counters
        self._clock = clock
        self._on_lost = on_lost
        self._max_pending = max_pending
        self._pending: deque[_Pending] = deque()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def put(
        self,
        operation: Operation,
        on_result: Callable[[int], None] | None = None,
        since: float | None = None,
    ) -> None:
        """Takes an operation; `on_result` hears its result. Never blocks, never raises.

        `since` is the monotonic moment at which it was due, by default now.
        """
        if len(self._pending) >= self._max_pending:
            self._pending.popleft()
            self._on_lost(1)
        began = self._clock.monotonic() if since is None else since
        self._pending.append(_Pending(operation, began, on_result))
        if self._task is None or self._task.done():
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._work(), name="settler")

    def nudge(self) -> None:
        """The counters are back: try now."""
        self._wake.set()

    async def drain(self, seconds: float) -> bool:
        """Whether all was carried out within this many seconds."""
        if self._task is not None and not self._task.done():
            self._wake.set()
            await asyncio.wait([self._task], timeout=seconds)
        return not self._pending

    async def close(self) -> None:
        """Stops; what is pending stays undone."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _work(self) -> None:
        pause, refusals = _RETRY_SECONDS, 0
        while self._pending:
            # After a refusal one by one, to find what is refused.
            batch = self._next_batch(1 if refusals else _BATCH)
            now = self._clock.monotonic()
            for one in batch:
                if isinstance(one.operation, SpendSettlement):
                    one.operation.age = now - one.since
            try:
                results = await self._counters.settle([one.operation for one in batch])
            except CountersUnavailableError as error:
                refusals = refusals + 1 if isinstance(error, CountersRefusedError) else 0
                if refusals > _MAX_REFUSALS:
                    self._on_lost(len(batch))
                    continue
                self._put_back(batch)
                await self._rest(pause)
                pause = min(2.0 * pause, _MAX_RETRY_SECONDS)
                continue
            pause, refusals = _RETRY_SECONDS, 0
            for one, result in zip(batch, results, strict=True):
                if one.on_result is not None:
                    one.on_result(result)

    def _put_back(self, batch: list[_Pending]) -> None:
        again = [one for one in batch if not isinstance(one.operation, RateCharge)]
        self._pending.extendleft(reversed(again))

    async def _rest(self, seconds: float) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _next_batch(self, most: int) -> list[_Pending]:
        """The oldest operations, as many as one script can carry out, and `most` at most."""
        pending = self._pending
        batch = [pending.popleft()]
        tag = tag_of(batch[0].operation.key) if self._counters.clustered else None
        while pending and len(batch) < most:
            if tag is not None and tag_of(pending[0].operation.key) != tag:
                break
            batch.append(pending.popleft())
        return batch
