"""One streamed answer for many readers, each at its own pace and each from its start.

The events are kept as they come. Nobody waits for a slow reader: the fastest one sets the pace,
so that a lone reader slows the upstream down as it would without all this, and one that lags
behind others costs only memory. That is bounded: beyond the bound the stream's beginning is let
go, nobody may join any more, the answer is not kept, and a reader that still needed the
beginning loses the stream.
"""

import asyncio
from collections.abc import Callable

from trunkline import v1
from trunkline_server.errors import TrunklineError

# A start or an end, as the work sent it, or one serialised delta event.
Event = v1.StreamStart | bytes | v1.StreamEnd

# Bytes that a delta event takes in memory beyond its own.
_HEADER = 41


class Broadcast:
    """The events so far, and who reads them.

    The work may be `window` bytes ahead of the fastest reader; `bound` bytes, which is more,
    are kept at most. `outgrown` is called once, when they no longer suffice.
    """

    def __init__(self, window: int, bound: int, outgrown: Callable[[], None]) -> None:
        self.start: v1.StreamStart | None = None
        self.end: v1.StreamEnd | None = None
        self.deltas: list[bytes] = []
        self.whole = True
        self.over = False
        self.error: BaseException | None = None
        self._window = window
        self._bound = bound
        self._outgrown = outgrown
        self._readers: dict[Reader, None] = {}  # In the order in which they came.
        self._base = 0  # How many deltas were let go.
        self._held = 0  # Bytes of those kept.
        self._sent = 0  # Bytes of all.
        self._fastest = 0  # Bytes that the fastest reader has taken.
        self._room: asyncio.Future[None] | None = None

    async def send(self, event: v1.StreamGenerateResponse) -> None:
        """Takes the next event from the work; returns when there is room for another."""
        kind = event.WhichOneof("event")
        if kind == "start":
            self.start = event.start
        elif kind == "end":
            self.end = event.end
        else:
            self._append(event.SerializeToString())
        self._wake()
        while self._sent - self._fastest > self._window and self._readers:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def finish(self, error: BaseException | None) -> None:
        """No more events come: all is sent, or the work failed."""
        self.over = True
        self.error = error
        self._wake()

    def attach(self) -> "Reader":
        """A reader from the start."""
        reader = Reader(self)
        self._readers[reader] = None
        return reader

    def detach(self, reader: "Reader") -> None:
        """Forgets a reader."""
        self._readers.pop(reader, None)
        self._fastest = max((each.taken for each in self._readers), default=self._sent)
        self._make_room()

    def delta(self, number: int) -> bytes | None:
        """A delta by its number from 0; None while it is to come."""
        place = number - self._base
        return self.deltas[place] if place < len(self.deltas) else None

    def advanced(self, reader: "Reader") -> None:
        """A reader has taken another delta."""
        if reader.taken > self._fastest:
            self._fastest = reader.taken
            self._make_room()

    def _append(self, raw: bytes) -> None:
        size = len(raw) + _HEADER
        self.deltas.append(raw)
        self._held += size
        self._sent += size
        if self._held > self._bound:
            if self.whole:
                self.whole = False
                self._outgrown()
            self._trim()

    def _trim(self) -> None:
        while self._held > self._bound and self._readers:
            slowest = min(reader.position for reader in self._readers)
            if slowest > self._base:
                gone = self.deltas[: slowest - self._base]
                del self.deltas[: len(gone)]
                self._base = slowest
                self._held -= sum(len(raw) + _HEADER for raw in gone)
                continue
            last = [reader for reader in self._readers if reader.position == slowest]
            if len(last) == len(self._readers):
                return
            for reader in last:
                reader.lost = True
                reader.wake()
                self.detach(reader)

    def _make_room(self) -> None:
        room = self._room
        if room is not None and self._sent - self._fastest <= self._window:
            self._room = None
            if not room.done():
                room.set_result(None)

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()


class Reader:
    """One reader's place in a broadcast."""

    __slots__ = ("_ended", "_news", "begun", "broadcast", "lost", "position", "taken")

    def __init__(self, broadcast: Broadcast) -> None:
        self.broadcast = broadcast
        self._news: asyncio.Future[None] | None = None
        self._ended = False
        self.begun = False
        self.lost = False
        self.position = 0
        self.taken = 0

    async def next(self) -> Event | None:
        """The next event; None after the last. Raises what ended the work, and
        STREAM_INTERRUPTED for a reader that fell too far behind."""
        while True:
            event = self._ready()
            if event is not None:
                return event
            if self.lost:
                raise TrunklineError(
                    v1.ERROR_REASON_STREAM_INTERRUPTED,
                    "read too slowly: others took the same answer far faster",
                )
            if self.broadcast.over:
                if self.broadcast.error is not None:
                    raise self.broadcast.error
                return None
            self._news = asyncio.get_running_loop().create_future()
            await self._news

    def wake(self) -> None:
        """There may be news."""
        news = self._news
        if news is not None:
            self._news = None
            if not news.done():
                news.set_result(None)

    def close(self) -> None:
        """Reads no more."""
        self.broadcast.detach(self)

    def _ready(self) -> Event | None:
        broadcast = self.broadcast
        if self.lost:
            return None
        if not self.begun:
            self.begun = broadcast.start is not None
            return broadcast.start
        delta = broadcast.delta(self.position)
        if delta is not None:
            self.position += 1
            self.taken += len(delta) + _HEADER
            broadcast.advanced(self)
            return delta
        if self._ended:
            return None
        self._ended = broadcast.end is not None
        return broadcast.end
