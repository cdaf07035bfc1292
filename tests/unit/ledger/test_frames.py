"""Records: what was framed is read back, and damage costs no more than what it touches."""

import random
import struct
import zlib

import pytest

from trunkline_server.ledger.frames import HEAD_BYTES, MAGIC, MAX_PAYLOAD, frame, scan

PAYLOADS = [b"one", b"second event", b"\x00" * 5, "dritte \u00e4".encode(), b"5"]
JOURNAL = b"".join(map(frame, PAYLOADS))
STARTS = [sum(HEAD_BYTES + len(p) for p in PAYLOADS[:number]) for number in range(6)]


def test_a_record_is_laid_out_as_the_format_says() -> None:
    assert frame(b"abc") == b"\xffT\xfe1" + struct.pack("<II", 3, zlib.crc32(b"abc", 3)) + b"abc"


@pytest.mark.parametrize("size", [0, MAX_PAYLOAD + 1])
def test_what_no_reader_would_take_is_not_framed(size: int) -> None:
    with pytest.raises(ValueError, match="a record holds 1 to"):
        frame(b"x" * size)


def test_the_largest_record_is_read_back() -> None:
    largest = random.Random(3).randbytes(MAX_PAYLOAD)
    assert scan(frame(largest) + JOURNAL, 99).payloads == [largest, *PAYLOADS]


@pytest.mark.parametrize("limit", range(1, 8))
def test_a_limit_ends_the_reading_between_records(limit: int) -> None:
    found = scan(JOURNAL, limit)
    assert found.payloads == PAYLOADS[:limit]
    assert found.end == STARTS[min(limit, 5)]


@pytest.mark.parametrize("length", range(len(JOURNAL) + 1))
def test_a_journal_cut_anywhere_keeps_every_whole_record(length: int) -> None:
    whole = sum(start <= length for start in STARTS[1:])
    found = scan(JOURNAL[:length], 99)
    assert found.payloads == PAYLOADS[:whole]
    assert found.end == STARTS[whole]
    assert not found.damaged


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("position", range(len(JOURNAL)))
def test_a_flipped_bit_costs_one_record_and_is_noticed(position: int, bit: int) -> None:
    data = bytearray(JOURNAL)
    data[position] ^= 1 << bit
    hit = sum(start <= position for start in STARTS[1:])
    found = scan(bytes(data), 99)
    assert found.payloads == PAYLOADS[:hit] + PAYLOADS[hit + 1 :]
    if hit < 4:
        assert found.damaged == [(STARTS[hit], STARTS[hit + 1])]
    else:
        # Nothing after it says whether it is damaged or has not been written whole.
        assert found.end == STARTS[4]


@pytest.mark.parametrize("seed", range(50))
def test_rubbish_between_records_is_passed_over(seed: int) -> None:
    rng = random.Random(seed)
    data, expected, damaged = b"", [], []
    for payload in PAYLOADS:
        # Rubbish with the marks of records in it, whole heads too.
        rubbish = b"".join(
            rng.choice([MAGIC, rng.randbytes(rng.randrange(9)), MAGIC + struct.pack("<II", 9, 7)])
            for _ in range(rng.randrange(4))
        )
        if rubbish:
            damaged.append((len(data), len(data) + len(rubbish)))
        data += rubbish + frame(payload)
        expected.append(payload)
    found = scan(data, 99)
    assert found.payloads == expected
    assert found.damaged == damaged
    assert found.end == len(data)


def test_zeros_as_a_crashed_file_system_leaves_them_are_no_records() -> None:
    found = scan(JOURNAL + bytes(4096), 99)
    assert found.payloads == PAYLOADS
    assert found.end == len(JOURNAL)


def test_text_within_an_event_cannot_pose_as_a_record() -> None:
    with pytest.raises(UnicodeDecodeError):
        MAGIC.decode()
