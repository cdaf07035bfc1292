"""A time limit for a single await, at a fraction of what asyncio.timeout costs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class _Bell:
    """Cancels a task when its time is up."""

    __slots__ = ("_more", "_task", "rung", "timer")

    def __init__(
        self, task: "asyncio.Task[object]", seconds: float, more: Callable[[], float] | None
    ) -> None:
        self._task = task
        self._more = more
        self.rung = False
        self._set(seconds)

    def _set(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.timer = (
            loop.call_later(seconds, self._ring) if seconds > 0 else loop.call_soon(self._ring)
        )

    def _ring(self) -> None:
        if self._more is not None and (seconds := self._more()) > 0:
            self._set(seconds)
            return
        self.rung = True
        self._task.cancel()


async def within(seconds: float, work: Awaitable[T], more: Callable[[], float] | None = None) -> T:
    """What `work` gives, if it does within `seconds`; it may always run until it first waits.
    When the time is up, `more` says how much there is besides by now.

    Raises TimeoutError in place of the cancellation that ends `work` when the time is up. A
    cancellation from outside stays one, also if it comes at the same time, and what `work`
    raises or gives after all is passed on: as `async with asyncio.timeout(seconds)` has it.
    """
    task = asyncio.current_task()
    if task is None:
        raise AssertionError("a time limit is set inside a task")
    cancelling = task.cancelling()
    bell = _Bell(task, seconds, more)
    try:
        result = await work
    except BaseException as error:
        if not bell.rung:
            raise
        # The bell's own cancellation is taken back; one from outside still counts.
        only_late = task.uncancel() <= cancelling
        if only_late and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error
        raise
    finally:
        bell.timer.cancel()
    if bell.rung:
        task.uncancel()
    return result
