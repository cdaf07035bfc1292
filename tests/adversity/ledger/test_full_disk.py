"""A disk that is really full, while calls come: the declared mode, and back."""

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.ledger.world import MemorySink, Watch, payload
from trunkline import v1
from trunkline_server.clock import SystemClock
from trunkline_server.errors import TrunklineError
from trunkline_server.ledger.journal import JournalOptions
from trunkline_server.ledger.ledger import Ledger, LedgerOptions
from trunkline_server.ledger.shipper import ShipperOptions

DISK_BYTES = 512 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    done = subprocess.run(mount, check=False, capture_output=True)
    if done.returncode:
        pytest.skip("a file system can only be mounted by root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Takes up all room but some."""
    filler = disk / "filler"
    free = os.statvfs(disk)
    filler.write_bytes(bytes(max(free.f_bavail * free.f_frsize - leave, 0)))
    return filler


@pytest.mark.parametrize("sync", ["none", "group"])
@pytest.mark.parametrize("on_full", ["deny", "allow"])
async def test_calls_on_a_full_disk_meet_the_declared_mode_and_none_is_lost(
    small_disk: Path, on_full: str, sync: str
) -> None:
    sink, watch = MemorySink(), Watch()
    journal = JournalOptions(
        sync="group" if sync == "group" else "none",
        on_full="deny" if on_full == "deny" else "allow",
        segment_bytes=8192,
        retry_seconds=0.01,
    )
    # Nothing is shipped before the disk has room again.
    options = LedgerOptions(journal, ShipperOptions(batch_events=50, poll=0.001))
    ledger = Ledger(small_disk / "journal", sink, SystemClock(), watch, options)
    filler = fill(small_disk, 16 * 4096)
    answered: set[int] = set()
    denied: set[int] = set()
    failed: dict[int, int] = {}

    async def call(number: int) -> None:
        try:
            ledger.journal.admit()
        except TrunklineError:
            # Turned away before it spent anything.
            denied.add(number)
            return
        await asyncio.sleep(0.001 * (number % 5))
        ledger.write(payload(number, size=200))
        try:
            await ledger.journal.committed()
        except TrunklineError as error:
            failed[number] = error.reason
            return
        answered.add(number)

    for start in range(0, 1000, 50):
        await asyncio.gather(*map(call, range(start, start + 50)))
    assert watch.names().count("failed") == 1
    assert "space" in str(watch.all("failed")[0][0])
    if on_full == "deny":
        assert denied
        assert failed
        assert set(failed.values()) == {v1.ERROR_REASON_SERVICE_UNAVAILABLE}
    else:
        assert len(answered) == 1000
    os.unlink(filler)  # noqa: PTH108 # A single system call, as an operator's rm is.
    await watch.mended.wait()
    ledger.journal.admit()
    await call(2000)
    assert 2000 in answered
    assert await ledger.shipper.drain(30)
    await ledger.close()
    numbers = {int(key, 16) for key in sink.kept}
    assert answered <= numbers
    assert not denied & numbers
    # What was spent on calls that failed for want of a journal is in the books too.
    assert numbers == set(range(1000)) - denied | {2000}
    assert not watch.all("lost")
    assert not watch.all("damaged")


async def test_a_process_that_dies_on_a_full_disk_leaves_a_torn_end_and_no_more(
    small_disk: Path,
) -> None:
    sink, watch = MemorySink(), Watch()
    options = LedgerOptions(JournalOptions(segment_bytes=1 << 20, retry_seconds=60.0))
    ledger = Ledger(small_disk / "journal", sink, SystemClock(), watch, options)
    filler = fill(small_disk, 3 * 4096)
    answered = 0
    while ledger.journal.problem is None:
        ledger.write(payload(answered, size=300))
        try:
            await ledger.journal.committed()
        except TrunklineError:
            break
        answered += 1
    # As kill -9 leaves it: nothing more is written, and the lock is free.
    ledger.journal.directory.release()
    os.unlink(filler)  # noqa: PTH108 # As above.
    again = Ledger(small_disk / "journal", sink, SystemClock(), watch, options)
    assert len(watch.all("torn")) == 1
    assert await again.shipper.drain(30)
    await again.close()
    assert {int(key, 16) for key in sink.kept} == set(range(answered))


async def test_recovery_on_a_full_disk_starts_all_the_same(small_disk: Path) -> None:
    sink, watch = MemorySink(), Watch()
    options = LedgerOptions(JournalOptions(retry_seconds=0.01))
    ledger = Ledger(small_disk / "journal", sink, SystemClock(), watch, options)
    for number in range(20):
        ledger.write(payload(number))
    await ledger.journal.committed()
    directory = ledger.journal.directory
    with directory.segment(1).open("ab") as segment:
        segment.write(b"half a record")
    directory.release()
    filler = fill(small_disk, 0)
    again = Ledger(small_disk / "journal", sink, SystemClock(), watch, options)
    assert watch.all("unreadable") == [(os.strerror(errno.ENOSPC),)]
    os.unlink(filler)  # noqa: PTH108 # As above.
    assert await again.shipper.drain(30)
    await again.close()
    assert {int(key, 16) for key in sink.kept} == set(range(20))
    assert len(watch.all("torn")) == 1
