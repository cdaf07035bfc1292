"""How long a streamed answer may keep the router waiting."""

import asyncio
from collections.abc import Callable
from types import TracebackType


class Patience:
    """How long a stream may keep the router waiting: for its first byte, for the next chunk,
    and in all. Seconds. As a context, it raises TimeoutError inside when that is exceeded.

    Setting a timer costs more than a chunk may: one that rings too early is left standing, and
    set anew when it rings.
    """

    def __init__(
        self, remaining: float, first_byte_timeout: float, left: Callable[[], float]
    ) -> None:
        """`left` says how much time there is by now."""
        self._left = left
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._deadline = now + remaining
        self._what = "first byte"
        self._seconds = first_byte_timeout or remaining
        self._due = now + min(self._seconds, remaining)
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._set_timer()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def until_deadline(self) -> None:
        """Only the deadline counts."""
        self._due = self._deadline

    def for_next_chunk(self, seconds: float) -> None:
        """The next chunk has `seconds`; zero means until the deadline."""
        self._what = "next chunk"
        self._seconds = seconds
        if seconds:
            self._due = min(self._loop.time() + seconds, self._deadline)
            if self._due < self._rings_at:
                self._timer.cancel()
                self._set_timer()

    def exceeded(self) -> tuple[str, float]:
        """What did not come, and the seconds it had."""
        return self._what, self._seconds

    def _set_timer(self) -> None:
        self._rings_at = self._due
        self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        if self._deadline <= self._due <= now and (left := self._left()) > 0:
            # It was the deadline that counted, and it has moved.
            self._due = self._deadline = now + left
        if self._due <= now:
            self._timeout.reschedule(now)
        else:
            self._set_timer()
