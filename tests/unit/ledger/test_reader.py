"""The reader: every event until it is shipped, every damage told once, every journal taken over."""

import random
from pathlib import Path

import pytest

from tests.unit.ledger.world import Watch, payload, read_all
from trunkline_server.ledger.directory import Cursor, JournalDirectory, Quarantine, orphans
from trunkline_server.ledger.frames import frame
from trunkline_server.ledger.journal import Journal, JournalOptions
from trunkline_server.ledger.reader import JournalReader

SEGMENTS = [[payload(n) for n in range(4)], [payload(n) for n in range(4, 9)], [payload(9)]]
FLAT = [each for segment in SEGMENTS for each in segment]


@pytest.fixture
def directory(tmp_path: Path) -> JournalDirectory:
    """The journal of a worker that is no more."""
    made = JournalDirectory.create(tmp_path)
    for number, payloads in enumerate(SEGMENTS, 1):
        made.segment(number).write_bytes(b"".join(map(frame, payloads)))
    return made


def reader(directory: JournalDirectory, watch: Watch | None = None) -> JournalReader:
    return JournalReader(directory, Quarantine(directory.path.parent), watch or Watch())


def quarantined(directory: JournalDirectory) -> list[bytes]:
    kept = sorted(directory.path.parent.glob("quarantine/*"))
    return [path.read_bytes() for path in kept]


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_every_event_comes_in_order_and_what_is_shipped_goes(
    directory: JournalDirectory, limit: int
) -> None:
    reading = reader(directory)
    assert reading.waiting() == sum(len(frame(each)) for each in FLAT)
    assert read_all(reading, limit) == FLAT
    assert directory.segments() == []
    assert reading.waiting() == 0
    assert reading.read(limit) is None


def test_what_is_not_marked_as_shipped_comes_again(directory: JournalDirectory) -> None:
    reading = reader(directory)
    first = reading.read(3)
    assert first is not None
    assert reading.read(3) == first
    reading.shipped(first)
    # Another process, with the cursor that the first one left.
    assert read_all(reader(directory)) == FLAT[3:]


@pytest.mark.parametrize("damage", [b"", b"rubbish", b"7 7 deadbeef", b"\xff" * 40, b"7 7"])
def test_a_damaged_cursor_means_that_all_is_shipped_again(
    directory: JournalDirectory, damage: bytes
) -> None:
    directory.move_cursor(Cursor(2, 0))
    (directory.path / "cursor").write_bytes(damage)
    assert directory.cursor() == Cursor()
    assert read_all(reader(directory)) == FLAT


def test_segments_before_the_cursor_were_shipped_and_go(directory: JournalDirectory) -> None:
    # The process ended between moving the cursor and deleting the segment.
    directory.move_cursor(Cursor(2, 0))
    assert read_all(reader(directory)) == FLAT[4:]
    assert directory.segments() == []


@pytest.mark.parametrize("seed", range(40))
def test_every_byte_comes_back_as_an_event_or_stands_in_quarantine(
    directory: JournalDirectory, seed: int
) -> None:
    rng = random.Random(seed)
    lost = 0
    damaged: list[bytes] = []
    for number in directory.segments():
        records = [frame(each) for each in SEGMENTS[number - 1]]
        for place, record in enumerate(records):
            if rng.random() < 0.3:
                spoiled = bytearray(record)
                spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
                records[place] = bytes(spoiled)
                damaged.append(records[place])
                lost += 1
        directory.segment(number).write_bytes(b"".join(records))
    watch = Watch()
    reading = reader(directory, watch)
    if seed % 2:
        reading.recover()
    events = read_all(reading, rng.randrange(1, 5))
    assert len(events) == len(FLAT) - lost
    assert events == [each for each in FLAT if each in events]
    # Neighbouring damage is one stretch; nothing of it is missing, and nothing came twice.
    assert sorted(b"".join(quarantined(directory))) == sorted(b"".join(damaged))
    stretches = watch.all("damaged") + watch.all("torn")
    assert len(stretches) == len(quarantined(directory))
    assert sum(int(str(row[-1])) for row in stretches) == sum(map(len, damaged))


@pytest.mark.parametrize("cut", range(1, len(frame(payload(9)))))
def test_a_torn_end_is_cut_off_at_the_start_and_told(directory: JournalDirectory, cut: int) -> None:
    whole = directory.segment(3).read_bytes()
    directory.segment(3).write_bytes(whole[:cut])
    watch = Watch()
    reading = reader(directory, watch)
    reading.recover()
    assert watch.told == [("torn", directory.segment(3).name, cut)]
    assert quarantined(directory) == [whole[:cut]]
    assert directory.segment(3).stat().st_size == 0
    assert read_all(reading) == FLAT[:-1]
    assert len(watch.told) == 1


def test_a_cursor_beyond_the_end_means_that_nothing_is_left(directory: JournalDirectory) -> None:
    # The machine died: the cursor survived, and some of what had been shipped did not.
    size = directory.segment(3).stat().st_size
    directory.move_cursor(Cursor(3, size + 100))
    watch = Watch()
    reading = reader(directory, watch)
    reading.recover()
    assert directory.segment(3).stat().st_size == size
    assert read_all(reading) == []
    assert watch.told == []


def test_damage_longer_than_a_read_is_passed_over(directory: JournalDirectory) -> None:
    rubbish = random.Random(1).randbytes(3 << 20)
    data = frame(payload(1)) + rubbish + frame(payload(2))
    directory.segment(1).write_bytes(data)
    watch = Watch()
    assert read_all(reader(directory, watch))[:2] == [payload(1), payload(2)]
    assert quarantined(directory) == [rubbish]
    assert watch.names() == ["damaged"]


def test_a_directory_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    held = JournalDirectory.create(tmp_path)
    assert list(orphans(tmp_path)) == []
    assert JournalDirectory.claim(held.path) is None
    held.release()
    (taken,) = orphans(tmp_path)
    assert taken.path == held.path
    assert list(orphans(tmp_path)) == []
    taken.remove()
    assert not held.path.exists()
    assert JournalDirectory.claim(held.path) is None


def test_only_workers_directories_are_taken_over(tmp_path: Path) -> None:
    Quarantine(tmp_path).keep("some", b"bytes")
    (tmp_path / "w-but-a-file").write_text("")
    assert list(orphans(tmp_path)) == []
    assert list(orphans(tmp_path / "missing")) == []


def test_the_same_bytes_are_put_aside_once(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    assert quarantine.keep("some", b"bytes")
    assert not quarantine.keep("some", b"bytes")
    assert (tmp_path / "quarantine" / "some").read_bytes() == b"bytes"


async def test_a_journal_taken_over_is_never_appended_to(directory: JournalDirectory) -> None:
    directory.segment(3).write_bytes(b"half a record")
    journal = Journal(directory, JournalOptions(), Watch())
    assert journal.active_segment == 4
    journal.append(payload(99))
    await journal.close()
    directory.move_cursor(Cursor(7, 0))
    journal = Journal(directory, JournalOptions(), Watch())
    assert journal.active_segment == 8
    await journal.close()


def test_files_are_the_owners_alone(directory: JournalDirectory) -> None:
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert (directory.path / "lock").stat().st_mode & 0o077 == 0
