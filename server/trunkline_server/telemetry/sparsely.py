"""Log lines that come as often as calls, told a few times a minute."""

import time
from collections.abc import Callable

_SECONDS = 10.0


class Sparsely:
    """Lets the first of many through at once, and then a sum each ten seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._next = float("-inf")
        self._since = 0

    def due(self, count: int) -> int:
        """How many to tell of now: all since the last time, or 0 if it is too soon."""
        self._since += count
        now = self._now()
        if now < self._next:
            return 0
        self._next = now + _SECONDS
        told, self._since = self._since, 0
        return told
