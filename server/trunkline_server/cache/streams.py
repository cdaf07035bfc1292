"""Identical streams at the same time: one upstream, every caller from the start of it."""

import asyncio
from collections.abc import Awaitable, Callable

from trunkline import v1
from trunkline_server.cache.answers import Answer
from trunkline_server.cache.broadcast import Broadcast, Event, Reader
from trunkline_server.cache.flights import (
    Extend,
    Key,
    Running,
    Tasks,
    deadline_passed,
    personal,
)
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError

# Sends events into the broadcast; or sends none and gives the answer it found.
Perform = Callable[[Broadcast], Awaitable[Answer | None]]
Take = Callable[[Event], Awaitable[None]]
# What takes the events, told whether they come from this call's own work.
Deliver = Callable[[bool], Take]


class Streams:
    """The streams under way, by key. `window` and `bound` are those of Broadcast."""

    def __init__(self, clock: Clock, tasks: Tasks, window: int, bound: int) -> None:
        self._clock = clock
        self._tasks = tasks
        self._window = window
        self._bound = bound
        self._running: dict[Key, tuple[Running[Answer | None], Broadcast]] = {}

    def __len__(self) -> int:
        return len(self._running)

    async def relay(
        self,
        key: Key,
        deadline: float,
        perform: Perform,
        deliver: Deliver,
        extend: Extend | None = None,
    ) -> tuple[Answer | None, bool]:
        """Hands every event to what `deliver` gives. Tells what was found in place of events,
        and whether this call's own work it was.

        Raises what the work raised; TrunklineError with TIMEOUT at the deadline (monotonic
        seconds). A stream that another's trouble breaks after this call got its beginning is
        STREAM_INTERRUPTED.
        """
        while True:
            under_way = self._running.get(key)
            leads = under_way is None
            running, broadcast = under_way or self._begin(key, deadline, perform, extend)
            reader = broadcast.attach()
            try:
                await self._read(key, running, reader, deadline, deliver(leads))
                return running.task.result(), leads
            except TrunklineError as error:
                if leads:
                    raise
                if self._clock.monotonic() >= deadline:
                    raise deadline_passed() from error
                if not personal(error):
                    raise error.shortened() from error
                if reader.begun:
                    raise TrunklineError(
                        v1.ERROR_REASON_STREAM_INTERRUPTED,
                        "the answer broke off: it was shared, and the call that it was made for "
                        "failed",
                        metadata={"cause": v1.ErrorReason.Name(error.reason)},
                    ) from error

    def _begin(
        self, key: Key, deadline: float, perform: Perform, extend: Extend | None
    ) -> tuple[Running[Answer | None], Broadcast]:
        broadcast = Broadcast(self._window, self._bound, lambda: self._forget(key, broadcast))
        task = self._tasks.start(self._carry(key, broadcast, perform))
        begun = self._running[key] = (Running(task, deadline, extend), broadcast)
        return begun

    async def _carry(self, key: Key, broadcast: Broadcast, perform: Perform) -> Answer | None:
        error: BaseException | None = None
        try:
            return await perform(broadcast)
        except asyncio.CancelledError:
            error = TrunklineError(
                v1.ERROR_REASON_SERVICE_UNAVAILABLE, "the router gave up the shared stream"
            )
            raise
        except BaseException as failure:
            error = failure
            raise
        finally:
            # Before anybody hears of the end: who comes now begins anew.
            self._forget(key, broadcast)
            broadcast.finish(error)

    async def _read(
        self,
        key: Key,
        running: Running[Answer | None],
        reader: Reader,
        deadline: float,
        take: Take,
    ) -> None:
        running.join(deadline)
        timer = asyncio.timeout(deadline - self._clock.monotonic())
        try:
            async with timer:
                while (event := await reader.next()) is not None:
                    await take(event)
        except TimeoutError:
            if timer.expired():
                raise deadline_passed() from None
            raise
        finally:
            if running.waiting == 1:
                # Nobody may join what is about to be cancelled.
                self._forget(key, reader.broadcast)
            reader.close()
            await running.leave()

    def _forget(self, key: Key, broadcast: Broadcast) -> None:
        under_way = self._running.get(key)
        if under_way is not None and under_way[1] is broadcast:
            del self._running[key]
