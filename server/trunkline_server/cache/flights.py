"""Identical calls at the same time: one does the work, the others wait for it.

The work runs in a task of its own, so that no caller's going away fails another's call: it goes
on while anyone waits and is cancelled when nobody does, which closes the upstream.

What befalls the caller whose work it is (its deadline, its budget, its rights) is no answer to
the others: the next of them does the work anew, each at most once and within its own deadline.
Every other failure is theirs as well. If each of them tried again, a vendor in trouble would
get the whole crowd at once, and the attempt loop has done the retrying already.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError

T = TypeVar("T")

Key = tuple[str, bytes]  # Scope and digest.
Extend = Callable[[float], None]

_PERSONAL = frozenset(
    {
        v1.ERROR_REASON_AUTHENTICATION,
        v1.ERROR_REASON_AUTHORIZATION,
        v1.ERROR_REASON_CANCELLED,
        v1.ERROR_REASON_OVERLOADED,
        v1.ERROR_REASON_QUOTA_EXCEEDED,
        v1.ERROR_REASON_RATE_LIMIT,
        v1.ERROR_REASON_TIMEOUT,
    }
)

# How long a caller that goes last waits for its work to unwind: closing a socket takes less.
_UNWIND_SECONDS = 1.0


def personal(error: TrunklineError) -> bool:
    """Whether a failure is that of the one caller and says nothing to others who want the same.

    A provider's limits, as against the caller's own, concern everyone.
    """
    return error.reason in _PERSONAL and error.metadata.get("scope") != "provider"


def deadline_passed() -> TrunklineError:
    """The failure of one that waited too long, for another's work or its own."""
    return TrunklineError(
        v1.ERROR_REASON_TIMEOUT, "the deadline passed before the answer was there"
    )


class Tasks:
    """The tasks under way, held so that none is lost and all can be ended."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs a coroutine as a task whose failure is for those who wait for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def wait(self) -> None:
        """Waits until those of now are over."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Cancels them all and waits until they have unwound."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Known to whoever waited; nobody may have.
            task.exception()


class Running(Generic[T]):
    """One piece of work under way, and the calls that wait for it.

    `horizon` is the furthest deadline among those who ever joined, in monotonic seconds;
    `extend` is told whenever it moves.
    """

    __slots__ = ("_alarms", "_extend", "horizon", "task", "waiting")

    def __init__(self, task: asyncio.Task[T], horizon: float, extend: Extend | None) -> None:
        self.task = task
        self.waiting = 0
        self.horizon = horizon
        self._extend = extend
        self._alarms: dict[asyncio.Future[None], None] = {}  # In order of arrival.
        task.add_done_callback(self._done)

    def join(self, deadline: float) -> None:
        """One more waits, until its own deadline."""
        self.waiting += 1
        if deadline > self.horizon:
            self.horizon = deadline
            if self._extend is not None:
                self._extend(deadline)

    async def result(self, seconds: float) -> T:
        """The result, once it is there; TIMEOUT if that takes longer.

        Each who waits has a future of its own, so that cancelling one touches no other.
        """
        loop = asyncio.get_running_loop()
        alarm: asyncio.Future[None] = loop.create_future()
        self._alarms[alarm] = None
        timer = loop.call_later(seconds, _ring, alarm)
        try:
            await alarm
        finally:
            timer.cancel()
            del self._alarms[alarm]
        if not self.task.done():
            raise deadline_passed()
        return self.task.result()

    async def leave(self) -> None:
        """One waits no more; the last one ends the work if it is not done."""
        self.waiting -= 1
        if self.waiting or self.task.done():
            return
        self.task.cancel()
        # The books of the work are closed, and its caller can be told, once it has unwound.
        await asyncio.wait((self.task,), timeout=_UNWIND_SECONDS)

    def _done(self, _: asyncio.Task[T]) -> None:
        for alarm in self._alarms:
            _ring(alarm)


def _ring(alarm: asyncio.Future[None]) -> None:
    if not alarm.done():
        alarm.set_result(None)


class Flights(Generic[T]):
    """The pieces of unary work under way, by key."""

    def __init__(self, clock: Clock, tasks: Tasks) -> None:
        self._clock = clock
        self._tasks = tasks
        self._running: dict[Key, Running[T]] = {}

    def __len__(self) -> int:
        return len(self._running)

    async def run(
        self,
        key: Key,
        deadline: float,
        work: Callable[[], Awaitable[T]],
        extend: Extend | None = None,
    ) -> tuple[T, bool]:
        """The result, and whether this call's own work made it.

        Raises what the work raised; TrunklineError with TIMEOUT at the deadline (monotonic
        seconds). `extend` hears of later deadlines among those who join this call's work.
        """
        while True:
            flight = self._running.get(key)
            leads = flight is None
            if flight is None:
                task = self._tasks.start(self._carry(key, work))
                flight = self._running[key] = Running(task, deadline, extend)
            try:
                return await self._wait(key, flight, deadline), leads
            except TrunklineError as error:
                if leads:
                    raise
                if not personal(error):
                    raise error.shortened() from error
                if self._clock.monotonic() >= deadline:
                    raise deadline_passed() from error

    async def _carry(self, key: Key, work: Callable[[], Awaitable[T]]) -> T:
        task = asyncio.current_task()
        try:
            return await work()
        finally:
            # Before anybody hears of the result: who comes now begins anew.
            flight = self._running.get(key)
            if flight is not None and flight.task is task:
                del self._running[key]

    async def _wait(self, key: Key, flight: Running[T], deadline: float) -> T:
        flight.join(deadline)
        try:
            return await flight.result(deadline - self._clock.monotonic())
        finally:
            if flight.waiting == 1 and self._running.get(key) is flight:
                # Nobody may join what is about to be cancelled.
                del self._running[key]
            await flight.leave()
