"""Events as they happen, for whoever watches in this process."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from trunkline.admin import v1 as admin

Wanted = Callable[[admin.UsageEvent], bool]


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """An event, and how many just before it were dropped since the watcher was too slow."""

    event: admin.UsageEvent
    dropped: int


class Watcher(AsyncIterator[LiveEvent]):
    """One watcher's queue."""

    def __init__(self, wanted: Wanted, size: int) -> None:
        self._wanted = wanted
        self._size = size
        self._queue: deque[LiveEvent] = deque()
        self._dropped = 0
        self._arrived = asyncio.Event()

    def offer(self, event: admin.UsageEvent) -> None:
        """Queues an event if it is wanted, or counts it as dropped when the queue is full."""
        if not self._wanted(event):
            return
        if len(self._queue) >= self._size:
            self._dropped += 1
            return
        self._queue.append(LiveEvent(event, self._dropped))
        self._dropped = 0
        self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LiveEvent:
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()


class LiveEvents:
    """Hands events to any number of watchers; costs next to nothing while there is none."""

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []

    def publish(self, payload: bytes) -> None:
        """Offers a serialised event to each watcher."""
        if self._watchers:
            event = admin.UsageEvent.FromString(payload)
            for watcher in self._watchers:
                watcher.offer(event)

    @contextmanager
    def watch(self, wanted: Wanted, size: int = 1000) -> Generator[Watcher]:
        """The wanted events from now on, without end; at most `size` wait for the watcher."""
        watcher = Watcher(wanted, size)
        self._watchers.append(watcher)
        try:
            yield watcher
        finally:
            self._watchers.remove(watcher)
