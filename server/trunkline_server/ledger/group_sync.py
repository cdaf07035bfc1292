"""Group commit: many writers wait for one fdatasync, which runs in a thread."""

import asyncio
import os
from collections.abc import Callable, Sequence

from trunkline_server.ledger.directory import JournalDirectory

# Takes the records that may not have reached the disk, and why.
Failed = Callable[[list[bytes], str], None]


class GroupSync:
    """Makes what was written durable, one sync at a time.

    A sync begins with the first write; what is written while it runs waits for the next one.
    Once a sync has failed, the kernel may have dropped the pages and call the next one a
    success, so that the records have to be written again, to another file.
    """

    def __init__(self, directory: JournalDirectory, failed: Failed) -> None:
        self._directory = directory
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._file: int | None = None
        self._retired: list[int] = []
        self._unsynced: list[bytes] = []
        self._running: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None

    def written(self, file: int, records: Sequence[bytes]) -> None:
        """Notes what was written to `file`, and has it synced."""
        if self._file is None:
            self._file = file
        self._unsynced += records
        if self._running is None:
            self._begin()

    def retire(self, file: int) -> None:
        """Closes a file after the next sync, which still covers it."""
        self._retired.append(file)
        self._file = None

    async def wait(self) -> None:
        """Returns when all that has been written up to now is durable, or has failed."""
        if self._unsynced:
            if self._next is None:
                self._next = self._loop.create_future()
            waited = self._next
        elif self._running is not None:
            waited = self._running
        else:
            return
        # A caller that goes away must not take the others' sync along.
        await asyncio.shield(waited)

    async def settled(self) -> None:
        """Returns when no sync runs; closes retired files."""
        while self._running is not None:
            await asyncio.shield(self._running)
        for file in self._retired:
            os.close(file)
        self._retired.clear()

    def _begin(self) -> None:
        records, self._unsynced = self._unsynced, []
        retired, self._retired = self._retired, []
        self._running = self._next or self._loop.create_future()
        self._next = None
        job = self._loop.run_in_executor(None, _sync, self._directory, self._file, retired)
        job.add_done_callback(lambda done: self._ended(done, records))

    def _ended(self, job: "asyncio.Future[None]", records: list[bytes]) -> None:
        ended, self._running = self._running, None
        error = job.exception()
        if error is not None:
            records, self._unsynced = records + self._unsynced, []
            self._file = None
            problem = error.strerror if isinstance(error, OSError) else None
            self._failed(records, problem or str(error))
        elif self._unsynced:
            self._begin()
        if ended is not None:
            ended.set_result(None)
        if self._running is None and self._next is not None:
            self._next.set_result(None)
            self._next = None


def _sync(directory: JournalDirectory, file: int | None, retired: Sequence[int]) -> None:
    """Syncs the present file and the retired ones, and closes the latter. Raises OSError."""
    try:
        for each in retired:
            os.fdatasync(each)
        if file is not None:
            os.fdatasync(file)
        if retired:
            # Another file was begun in their place; its name must be durable too.
            directory.sync_names()
    finally:
        for each in retired:
            os.close(each)
