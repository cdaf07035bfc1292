"""A small journal cut and spoiled at every byte: what is whole is shipped, what is not is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.ledger.world import MemorySink, Watch, payload
from trunkline_server.clock import SystemClock
from trunkline_server.ledger.directory import JournalDirectory
from trunkline_server.ledger.frames import frame
from trunkline_server.ledger.ledger import Ledger, LedgerOptions

RECORDS = [frame(payload(number, size=number)) for number in range(3)]
WHOLE = b"".join(RECORDS)
ENDS = [sum(map(len, RECORDS[: number + 1])) for number in range(3)]


def spoiled() -> Iterator[tuple[bytes, set[int]]]:
    """Each spoiled journal, and the numbers of the events that are whole in it."""
    for length in range(len(WHOLE)):
        yield WHOLE[:length], {number for number in range(3) if ENDS[number] <= length}
    for position in range(len(WHOLE)):
        data = bytearray(WHOLE)
        data[position] ^= 1 << position % 8
        hit = sum(end <= position for end in ENDS)
        yield bytes(data), set(range(3)) - {hit}


@pytest.mark.parametrize("last", [False, True], ids=["with a sound one after", "the last"])
async def test_every_cut_and_every_flip_costs_what_it_touches_and_is_told(
    tmp_path: Path, last: bool
) -> None:
    for number, (data, whole) in enumerate(spoiled()):
        root = tmp_path / str(number)
        dead = JournalDirectory.create(root)
        dead.segment(1).write_bytes(data)
        if not last:
            dead.segment(2).write_bytes(frame(payload(99)))
        dead.release()
        sink, watch = MemorySink(), Watch()
        ledger = Ledger(root, sink, SystemClock(), watch, LedgerOptions())
        if last:
            at_start = list(watch.told)
        assert await ledger.shipper.drain(30)
        await ledger.close()
        expected = whole if last else whole | {99}
        assert {int(key, 16) for key in sink.kept} == expected
        assert set(sink.came.values()) <= {1}
        kept = sum(len(RECORDS[each]) for each in whole)
        aside = [path.read_bytes() for path in root.glob("quarantine/*")]
        # Told once, and not a byte of it is gone.
        told = [row for row in watch.told if row[0] in {"torn", "damaged"}]
        assert len(told) == len(aside) == (len(data) > kept)
        assert sum(map(len, aside)) == len(data) - kept
        if last:
            # At the start, before anything is shipped.
            assert [row for row in at_start if row[0] in {"torn", "damaged"}] == told
