"""The journal's reader: events in batches, each until it is in the store."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from trunkline_server.ledger.directory import Cursor, JournalDirectory, Quarantine
from trunkline_server.ledger.frames import HEAD_BYTES, MAX_PAYLOAD, Findings, scan
from trunkline_server.ledger.ports import LedgerWatch

# Read at once: a batch of events, roughly.
_CHUNK = 64 << 10
_UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class Batch:
    """Some events in the order in which they were written, serialised; and where they end."""

    payloads: list[bytes]
    end: Cursor


class JournalReader:
    """Reads the segments of one directory, damaged ones too, and deletes them once shipped.

    Bytes that are no record are put into quarantine, told to the watch once, and passed over.
    `active` gives the number of the segment that may still grow; None: all are complete.
    `freed` hears of the sizes of deleted segments.
    """

    def __init__(
        self,
        directory: JournalDirectory,
        quarantine: Quarantine,
        watch: LedgerWatch,
        *,
        active: Callable[[], int] | None = None,
        freed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.directory = directory
        self._quarantine = quarantine
        self._watch = watch
        self._active = active
        self._freed = freed
        self._cursor = directory.cursor()
        for number in directory.segments():
            if number < self._cursor.segment:
                # Shipped whole; the process ended before it could delete it.
                directory.segment(number).unlink()

    @property
    def complete(self) -> bool:
        """Whether nobody writes here any more."""
        return self._active is None

    def waiting(self) -> int:
        """The bytes that are not known to be in the store."""
        return max(self.bytes_on_disk() - self._cursor.offset, 0)

    def bytes_on_disk(self) -> int:
        """The sizes of its segments together."""
        directory = self.directory
        return sum(directory.segment(number).stat().st_size for number in directory.segments())

    def recover(self) -> None:
        """Cuts off the torn end that a process leaves which died while it wrote, and tells of
        it, and of damage near it. Raises OSError.

        That end can only be in the last segment; damage elsewhere is told when it is read.
        """
        for number in self.directory.segments()[-1:]:
            start = self._cursor.offset if number == self._cursor.segment else 0
            position, at_end = Cursor(number, start), False
            while not at_end:
                found, at_end = self._scan(position, _UNLIMITED)
                position = Cursor(number, position.offset + found.end)
            if self._put_tail_aside(position):
                os.truncate(self.directory.segment(number), position.offset)

    def read(self, limit: int) -> Batch | None:
        """Up to `limit` events that are not known to be in the store; None when there are none.

        The same ones again until `shipped` is told of them. Raises OSError.
        """
        while True:
            cursor = self._cursor
            number = self._first_segment()
            if number is None:
                return None
            if number != cursor.segment:
                self._cursor = cursor = Cursor(number)
            # Asked before reading: what is complete now stays as it will be read.
            growing = self._active is not None and number >= self._active()
            found, at_end = self._scan(cursor, limit)
            end = Cursor(number, cursor.offset + found.end)
            if found.payloads:
                return Batch(found.payloads, end)
            if growing or not at_end:
                return None
            self._put_tail_aside(end)
            self._finish(number)

    def shipped(self, batch: Batch) -> None:
        """Notes durably that a batch is in the store. Raises OSError; then the batch will be
        read again."""
        self.directory.move_cursor(batch.end)
        self._cursor = batch.end

    def _first_segment(self) -> int | None:
        numbers = self.directory.segments()
        return next((number for number in numbers if number >= self._cursor.segment), None)

    def _scan(self, start: Cursor, limit: int) -> tuple[Findings, bool]:
        """What is in a segment from `start` on; and whether that is all, up to its end.

        Puts damage aside.
        """
        name = self.directory.segment(start.segment)
        size = _CHUNK
        with name.open("rb") as file:
            while True:
                file.seek(start.offset)
                data = file.read(size)
                found = scan(data, limit)
                at_end = len(data) < size and len(found.payloads) < limit
                if found.payloads or at_end:
                    break
                # A record larger than what was read, or a long stretch of damage.
                size = max(2 * size, HEAD_BYTES + MAX_PAYLOAD)
        for begin, end in found.damaged:
            self._put_aside(Cursor(start.segment, start.offset + begin), data[begin:end], False)
        return found, at_end

    def _put_tail_aside(self, start: Cursor) -> bool:
        """Puts aside what follows the last record of a complete segment, if anything does."""
        with self.directory.segment(start.segment).open("rb") as file:
            file.seek(start.offset)
            tail = file.read()
        if tail:
            self._put_aside(start, tail, True)
        return bool(tail)

    def _put_aside(self, place: Cursor, data: bytes, torn: bool) -> None:
        name = f"{self.directory.name}-{place.segment}-{place.offset}.bin"
        if not self._quarantine.keep(name, data):
            return
        segment = str(self.directory.segment(place.segment))
        if torn:
            self._watch.torn(segment, len(data))
        else:
            self._watch.damaged(segment, place.offset, len(data))

    def put_record_aside(self, event_name: str, payload: bytes, problem: str) -> None:
        """Keeps a whole record that nobody can take. Raises OSError."""
        if self._quarantine.keep(f"{self.directory.name}-{event_name}.event", payload):
            self._watch.unreadable(self.directory.name, problem)

    def _finish(self, number: int) -> None:
        """Deletes a segment whose events are all in the store."""
        self._cursor = Cursor(number + 1)
        self.directory.move_cursor(self._cursor)
        path = self.directory.segment(number)
        size = path.stat().st_size
        path.unlink()
        self._freed(size)
