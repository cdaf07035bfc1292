"""The journal's writer: events on disk before the answer leaves.

`append` only puts an event into memory. What has been appended in one turn of the event loop
is written by one write(2): at the end of the turn, or at once when somebody awaits
`committed`, for a write into the page cache takes less time than waking a task up. With sync
"group" the callers who await at the same time share one fdatasync, in a thread.
"""

import asyncio
import errno
import os
from dataclasses import dataclass
from typing import Literal

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.ledger.directory import JournalDirectory
from trunkline_server.ledger.frames import frame
from trunkline_server.ledger.group_sync import GroupSync
from trunkline_server.ledger.ports import LedgerWatch

# The disk or a quota is full: the segment itself is sound, and goes on when there is room.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_TOO_MUCH = "as many events wait to be shipped as max_bytes allows"


@dataclass(frozen=True, slots=True)
class JournalOptions:
    """How the journal is kept.

    sync: "none" survives the end of the process, kill -9 included; "group" survives the end
        of the machine, at the price of waiting for the disk.
    on_full: what becomes of calls while nothing can be written: "deny" fails them, "allow"
        answers them and keeps their events in memory.
    segment_bytes: the size from which on a new segment is begun.
    max_bytes: the most that may wait on disk; more counts as a full disk.
    memory_bytes: the most that may wait in memory; events beyond are dropped and counted.
    retry_seconds: how often a disk that refused a write is tried again.
    """

    sync: Literal["none", "group"] = "none"
    on_full: Literal["deny", "allow"] = "deny"
    segment_bytes: int = 16 << 20
    max_bytes: int = 4 << 30
    memory_bytes: int = 16 << 20
    retry_seconds: float = 1.0


class Journal:
    """Appends events to the segments of one directory. Made and used on one event loop.

    `waiting` are the bytes of other directories that wait on the same disk.
    """

    def __init__(
        self,
        directory: JournalDirectory,
        options: JournalOptions,
        watch: LedgerWatch,
        waiting: int = 0,
    ) -> None:
        self.directory = directory
        self._options = options
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        # Records not yet written; of the first, `_begun` bytes are in the segment already.
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._begun = 0
        self._scheduled = False
        self._problem: str | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._on_disk = waiting
        self._sync = GroupSync(directory, self._unsynced) if options.sync == "group" else None
        numbers = [*directory.segments(), directory.cursor().segment]
        self._number = max(numbers) + 1
        self._file: int | None = directory.open_new(self._number)
        self._size = 0
        if self._sync is not None:
            directory.sync_names()

    @property
    def active_segment(self) -> int:
        """The number of the segment that may still grow."""
        return self._number

    @property
    def bytes_on_disk(self) -> int:
        """What has been written and not been freed."""
        return self._on_disk

    @property
    def problem(self) -> str | None:
        """Why nothing can be written at present, or None."""
        return self._problem

    def append(self, event: bytes) -> None:
        """Takes a serialised event. It is written within this turn of the event loop."""
        record = frame(event)
        if self._pending_bytes + len(record) > self._options.memory_bytes:
            if self._problem is None:
                self._write()
            if self._problem is not None:
                self._watch.lost(1)
                return
        self._pending.append(record)
        self._pending_bytes += len(record)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn_ends)

    async def committed(self) -> None:
        """Returns when all that has been appended is as safe as `sync` promises.

        While the disk refuses, raises SERVICE_UNAVAILABLE under "deny", and returns at once
        under "allow": the events then wait in memory.
        """
        if self._pending and self._problem is None:
            self._write()
        if self._problem is not None:
            self.admit()
        elif self._sync is not None:
            await self._sync.wait()
            self.admit()

    def admit(self) -> None:
        """Raises SERVICE_UNAVAILABLE while calls have to be denied, since they could not be
        accounted for."""
        if self._problem is not None and self._options.on_full == "deny":
            raise self._refusal()

    def freed(self, size: int) -> None:
        """Notes that so many bytes have left the disk."""
        self._on_disk -= size

    async def close(self) -> None:
        """Writes what is pending, and closes the segment.

        Events that the disk still refuses are counted as lost.
        """
        self._write()
        if self._sync is not None and self._problem is None:
            await self._sync.wait()
        if self._retry is not None:
            self._retry.cancel()
        if self._pending:
            self._watch.lost(len(self._pending))
            self._pending.clear()
        if self._sync is not None:
            await self._sync.settled()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _turn_ends(self) -> None:
        self._scheduled = False
        if self._pending and self._problem is None:
            self._write()

    def _write(self) -> None:
        """Writes what is pending, or enters the state of trouble."""
        if not self._pending:
            return
        try:
            if self._on_disk + self._pending_bytes > self._options.max_bytes:
                raise OSError(errno.EDQUOT, _TOO_MUCH)
            file = self._segment()
            data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
            while self._begun < len(data):
                written = os.write(file, memoryview(data)[self._begun :] if self._begun else data)
                self._begun += written
                self._size += written
                self._on_disk += written
        except OSError as error:
            self._failed(error)
            return
        if self._sync is not None:
            self._sync.written(file, self._pending)
        waited = len(self._pending)
        self._pending = []
        self._pending_bytes = self._begun = 0
        if self._problem is not None:
            self._problem = None
            self._watch.journal_recovered(waited)

    def _segment(self) -> int:
        """The file to write to; a new one when the present one is large enough.

        A record that is half written stays where it was begun.
        """
        file = self._file
        if file is not None and (self._begun or self._size < self._options.segment_bytes):
            return file
        new = self.directory.open_new(self._number + 1)
        self._number += 1
        self._size = 0
        self._file = new
        if file is not None:
            self._retire(file)
        return new

    def _failed(self, error: OSError) -> None:
        """Enters the state of trouble, or stays in it."""
        # Whole records that did get written need not be written again.
        whole = 0
        while whole < len(self._pending) and self._begun >= len(self._pending[whole]):
            self._begun -= len(self._pending[whole])
            whole += 1
        done, self._pending = self._pending[:whole], self._pending[whole:]
        self._pending_bytes -= sum(map(len, done))
        if self._file is not None:
            if done and self._sync is not None:
                self._sync.written(self._file, done)
            if error.errno not in _FULL:
                # A segment that failed otherwise is not trusted with more.
                self._retire(self._file)
                self._file, self._begun = None, 0
        self._enter(error.strerror or str(error))

    def _unsynced(self, records: list[bytes], problem: str) -> None:
        """Takes back records that may not have reached the disk, to write them once more."""
        self._pending[:0] = records
        self._pending_bytes += sum(map(len, records))
        if self._file is not None:
            os.close(self._file)
            self._file, self._begun = None, 0
        self._enter(problem)

    def _retire(self, file: int) -> None:
        if self._sync is None:
            os.close(file)
        else:
            self._sync.retire(file)

    def _enter(self, problem: str) -> None:
        if self._problem is None:
            self._watch.journal_failed(problem)
        self._problem = problem
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._loop.call_later(self._options.retry_seconds, self._try_again)

    def _try_again(self) -> None:
        if self._pending:
            self._write()
        elif self._problem is not None:
            self._problem = None
            self._watch.journal_recovered(0)

    def _refusal(self) -> TrunklineError:
        return TrunklineError(
            v1.ERROR_REASON_SERVICE_UNAVAILABLE,
            f"the usage journal cannot be written: {self._problem}",
            metadata={"dependency": "ledger"},
            retry_after=self._options.retry_seconds,
        )
