"""The writer: one write a turn, commits that hold, disks that fill up and recover."""

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.ledger.world import Watch, payload, read_all, reader_of, sizes
from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.ledger.directory import JournalDirectory
from trunkline_server.ledger.frames import HEAD_BYTES, MAX_PAYLOAD
from trunkline_server.ledger.journal import Journal, JournalOptions


@asynccontextmanager
async def journal_in(
    root: Path, watch: Watch | None = None, **options: Any
) -> AsyncGenerator[Journal]:
    options.setdefault("retry_seconds", 0.01)
    journal = Journal(JournalDirectory.create(root), JournalOptions(**options), watch or Watch())
    yield journal
    await journal.close()


class Disk:
    """Stands between the journal and the kernel: counts, and fails when told to.

    `room` is how many more bytes can be written; None: no bound.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes: list[int] = []
        self.syncs = 0
        self.room: int | None = None
        self.error = errno.ENOSPC
        self.sync_failures = 0
        self.during_sync: Callable[[], None] = lambda: None
        self._write, self._sync = os.write, os.fdatasync
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)

    def write(self, file: int, data: bytes | memoryview) -> int:
        if self.room == 0:
            raise OSError(self.error, os.strerror(self.error))
        written = self._write(file, data if self.room is None else data[: self.room])
        if self.room is not None:
            self.room -= written
        self.writes.append(written)
        return written

    def fdatasync(self, file: int) -> None:
        self.during_sync()
        self.syncs += 1
        if self.sync_failures:
            self.sync_failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._sync(file)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def test_all_events_of_one_turn_are_one_write(tmp_path: Path, disk: Disk) -> None:
    watch = Watch()
    async with journal_in(tmp_path, watch) as journal:
        payloads = [payload(number) for number in range(100)]
        for each in payloads:
            journal.append(each)
        assert disk.writes == []
        await asyncio.sleep(0)
        assert disk.writes == [sum(map(len, payloads)) + 100 * HEAD_BYTES]
        assert journal.bytes_on_disk == disk.writes[0]
        assert read_all(reader_of(journal, tmp_path, watch)) == payloads


async def test_a_commit_writes_all_that_was_appended_and_no_more_than_once(
    tmp_path: Path, disk: Disk
) -> None:
    async with journal_in(tmp_path) as journal:
        journal.append(payload(1))
        journal.append(payload(2))
        await journal.committed()
        assert len(disk.writes) == 1
        assert sizes(journal.directory.path) == [disk.writes[0]]
        await journal.committed()
        await asyncio.sleep(0)
        assert len(disk.writes) == 1
        assert disk.syncs == 0


async def test_segments_are_bounded_and_none_splits_a_record(tmp_path: Path) -> None:
    watch = Watch()
    async with journal_in(tmp_path, watch, segment_bytes=1000) as journal:
        payloads = [payload(number, size=300) for number in range(20)]
        for each in payloads:
            journal.append(each)
            await journal.committed()
        record = len(payloads[0]) + HEAD_BYTES
        each_holds = -(-1000 // record)
        assert sizes(journal.directory.path) == [each_holds * record] * (20 // each_holds) + (
            [20 % each_holds * record] if 20 % each_holds else []
        )
        reader = reader_of(journal, tmp_path, watch)
        assert read_all(reader) == payloads
        # What is shipped has gone, but for the segment that may still grow.
        assert len(sizes(journal.directory.path)) == 1
        assert journal.bytes_on_disk == sum(sizes(journal.directory.path))


async def test_an_oversized_event_is_refused_and_harms_no_other(tmp_path: Path) -> None:
    watch = Watch()
    async with journal_in(tmp_path, watch) as journal:
        journal.append(payload(1))
        with pytest.raises(ValueError, match="a record holds"):
            journal.append(b"x" * (MAX_PAYLOAD + 1))
        await journal.committed()
        assert read_all(reader_of(journal, tmp_path, watch)) == [payload(1)]


async def test_a_group_commit_returns_after_a_sync_that_began_after_its_write(
    tmp_path: Path, disk: Disk
) -> None:
    async with journal_in(tmp_path, sync="group") as journal:
        started: list[int] = []
        disk.during_sync = lambda: started.append(len(disk.writes))
        written_at: list[int] = []

        async def commit(number: int) -> None:
            await asyncio.sleep(0.001 * (number % 7))
            journal.append(payload(number))
            commit_of = asyncio.ensure_future(journal.committed())
            await asyncio.sleep(0)
            written = len(disk.writes)
            await commit_of
            assert max(started) >= written
            written_at.append(number)

        await asyncio.gather(*map(commit, range(50)))
        assert sorted(written_at) == list(range(50))
        # Shared: far fewer syncs than commits.
        assert 1 <= disk.syncs < 50


async def test_a_caller_that_goes_away_does_not_end_the_others_wait(
    tmp_path: Path, disk: Disk
) -> None:
    async with journal_in(tmp_path, sync="group") as journal:
        journal.append(payload(1))
        one, other = (asyncio.create_task(journal.committed()) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        await other
        assert one.cancelled()
        assert disk.syncs >= 1


@pytest.mark.parametrize("on_full", ["deny", "allow"])
async def test_after_a_failed_sync_the_events_are_written_anew_elsewhere(
    tmp_path: Path, disk: Disk, on_full: str
) -> None:
    watch = Watch()
    async with journal_in(tmp_path, watch, sync="group", on_full=on_full) as journal:
        disk.sync_failures = 1
        journal.append(payload(1))
        if on_full == "deny":
            with pytest.raises(TrunklineError) as caught:
                await journal.committed()
            assert caught.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
        else:
            await journal.committed()
        assert watch.told == [("failed", os.strerror(errno.EIO))]
        await watch.mended.wait()
        await journal.committed()
        assert watch.all("recovered") == [(1,)]
        # Twice in the journal, in two segments: the store tells them apart by their id.
        assert read_all(reader_of(journal, tmp_path, watch)) == [payload(1), payload(1)]
        assert journal.active_segment == 2


async def test_a_full_disk_denies_calls_and_loses_nothing(tmp_path: Path, disk: Disk) -> None:
    watch = Watch()
    async with journal_in(tmp_path, watch, on_full="deny", retry_seconds=0.02) as journal:
        journal.admit()
        journal.append(payload(1))
        await journal.committed()
        # Room for one record and a part of the next.
        disk.room = len(payload(2)) + HEAD_BYTES + 9
        for number in (2, 3, 4):
            journal.append(payload(number))
        with pytest.raises(TrunklineError) as caught:
            await journal.committed()
        assert caught.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
        assert caught.value.retry_after == 0.02
        assert caught.value.metadata == {"dependency": "ledger"}
        assert os.strerror(errno.ENOSPC) in caught.value.message
        with pytest.raises(TrunklineError):
            journal.admit()
        assert read_all(reader_of(journal, tmp_path, watch)) == [payload(1), payload(2)]
        attempts = len(disk.writes)
        journal.append(payload(5))
        with pytest.raises(TrunklineError):
            await journal.committed()
        # A disk that is known to be full is not tried for each call.
        assert len(disk.writes) == attempts
        disk.room = None
        await watch.mended.wait()
        journal.admit()
        await journal.committed()
        assert watch.told == [("failed", os.strerror(errno.ENOSPC)), ("recovered", 3)]
        # The record that was begun goes on where it ended, in the same segment.
        assert read_all(reader_of(journal, tmp_path, watch)) == [payload(n) for n in (3, 4, 5)]
        assert journal.active_segment == 1


async def test_allowed_calls_keep_a_bounded_memory_and_tell_of_every_loss(
    tmp_path: Path, disk: Disk
) -> None:
    watch = Watch()
    record = len(payload(0)) + HEAD_BYTES
    options = {"on_full": "allow", "memory_bytes": 10 * record}
    async with journal_in(tmp_path, watch, **options) as journal:
        disk.room = 0
        for number in range(15):
            journal.append(payload(number))
            await journal.committed()
            journal.admit()
        assert watch.all("lost") == [(1,)] * 5
        disk.room = None
        await watch.mended.wait()
        assert watch.all("recovered") == [(10,)]
        assert read_all(reader_of(journal, tmp_path, watch)) == [payload(n) for n in range(10)]


async def test_a_burst_larger_than_the_memory_is_written_and_not_lost(
    tmp_path: Path, disk: Disk
) -> None:
    watch = Watch()
    record = len(payload(0)) + HEAD_BYTES
    async with journal_in(tmp_path, watch, memory_bytes=10 * record) as journal:
        for number in range(25):
            journal.append(payload(number))
        await journal.committed()
        assert read_all(reader_of(journal, tmp_path, watch)) == [payload(n) for n in range(25)]
        assert disk.writes == [10 * record, 10 * record, 5 * record]
        assert watch.told == []


async def test_another_fault_of_the_disk_moves_on_to_a_new_segment(
    tmp_path: Path, disk: Disk
) -> None:
    watch = Watch()
    async with journal_in(tmp_path, watch) as journal:
        disk.room, disk.error = 20, errno.EIO
        journal.append(payload(1))
        with pytest.raises(TrunklineError):
            await journal.committed()
        disk.room = None
        await watch.mended.wait()
        reader = reader_of(journal, tmp_path, watch)
        assert read_all(reader) == [payload(1)]
        # What had been written of it before is put aside, and told.
        assert watch.all("torn") == [("00000000000000000001.seg", 20)]
        assert journal.active_segment == 2


async def test_a_journal_that_grew_too_large_is_a_full_disk_until_it_is_shipped(
    tmp_path: Path,
) -> None:
    watch = Watch()
    record = len(payload(0)) + HEAD_BYTES
    bounds = {"max_bytes": 3 * record, "segment_bytes": record}
    async with journal_in(tmp_path, watch, **bounds) as journal:
        for number in range(3):
            journal.append(payload(number))
            await journal.committed()
        journal.append(payload(3))
        with pytest.raises(TrunklineError, match="max_bytes"):
            await journal.committed()
        reader = reader_of(journal, tmp_path, watch)
        assert read_all(reader) == [payload(number) for number in range(3)]
        await watch.mended.wait()
        assert read_all(reader) == [payload(3)]


async def test_closing_writes_the_rest_and_counts_what_cannot_be_written(
    tmp_path: Path, disk: Disk
) -> None:
    watch = Watch()
    async with journal_in(tmp_path, watch, sync="group") as journal:
        journal.append(payload(1))
    assert disk.syncs >= 1
    assert read_all(reader_of(journal, tmp_path, watch)) == [payload(1)]
    async with journal_in(tmp_path, watch) as journal:
        disk.room = 0
        journal.append(payload(2))
        journal.append(payload(3))
    assert watch.all("lost") == [(2,)]
    # No timer of a closed journal goes on.
    disk.room = None
    await asyncio.sleep(0.03)
    assert watch.names() == ["failed", "lost"]


async def test_a_directory_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("no directory")
    with pytest.raises(OSError, match="file"):
        JournalDirectory.create(place)
