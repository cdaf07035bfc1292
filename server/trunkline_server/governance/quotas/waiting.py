"""Lines of callers that wait for room under a limit: first come, first served, and bounded."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Line:
    """The callers that wait for one subject of one limit. Only the first of them tries."""

    __slots__ = ("_freed", "_lock", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self._lock = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def turn(self, until: float) -> AsyncGenerator[None]:
        """Waits for the first place, until a moment of the loop's time at most.

        Raises TimeoutError if it does not come in time.
        """
        self.waiting += 1
        try:
            async with asyncio.timeout_at(until):
                await self._lock.acquire()
            try:
                yield
            finally:
                self._lock.release()
        finally:
            self.waiting -= 1

    async def pause(self, seconds: float) -> None:
        """Waits this long, or until something was given back."""
        self._freed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._freed.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """Something was given back: the first one may try again."""
        self._freed.set()
