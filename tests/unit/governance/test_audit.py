"""The chain of the audit trail, its checkpoints and its export, without a database."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from trunkline_server.governance.audit.chain import Act, hash_of, linking, seal
from trunkline_server.governance.audit.checkpoints import (
    Checkpoint,
    CheckpointError,
    CheckpointFile,
    read_checkpoints,
)
from trunkline_server.governance.audit.export import ExportError, from_lines, to_line
from trunkline_server.governance.audit.ports import GENESIS, Head, Record
from trunkline_server.governance.audit.verify import Fault, Finding, verify_lines

Chain = list[Record]


def acts(count: int) -> list[Act]:
    return [
        Act(
            at=1_767_225_600_000_000 + number,
            actor="keys[root]",
            action="admin.providers.update",
            resource=f"providers/p{number}",
            before=None if number == 0 else bytes([number] * 32),
            after=bytes([number + 1] * 32),
            address="10.0.0.1",
            request_id=f"r-{number}",
            details={"field": "price"},
        )
        for number in range(count)
    ]


def chain(count: int = 10) -> Chain:
    return list(linking(acts(count))(Head()))


def verdict(records: Chain, *checkpoints: Checkpoint) -> Finding | None:
    return verify_lines(lambda: iter(records), checkpoints).finding


def renumbered(records: Chain) -> Chain:
    return [replace(record, seq=place) for place, record in enumerate(records, 1)]


def documented_hash(record: Record) -> bytes:
    """By the documentation of the encoding, not by its code."""

    def sized(data: bytes | None) -> bytes:
        return b"\xff" * 4 if data is None else len(data).to_bytes(4, "big") + data

    encoded = b"trunkline audit 1\0" + record.prev_hash
    encoded += record.seq.to_bytes(8, "big", signed=True)
    encoded += record.at.to_bytes(8, "big", signed=True)
    for text in (record.tenant, record.actor, record.action, record.resource):
        encoded += sized(text.encode())
    encoded += sized(record.before) + sized(record.after) + sized(record.details.encode())
    return hashlib.sha256(encoded).digest()


def test_entries_are_chained_as_documented() -> None:
    records = chain()
    before = GENESIS
    for place, record in enumerate(records, 1):
        assert (record.seq, record.prev_hash) == (place, before)
        assert record.hash == documented_hash(record)
        before = record.hash
    assert json.loads(records[3].details) == {
        "address": "10.0.0.1",
        "field": "price",
        "id": json.loads(records[3].details)["id"],
        "outcome": "ok",
        "request_id": "r-3",
    }


def test_fields_cannot_lend_each_other_their_ends() -> None:
    base = seal(acts(1)[0], Head())
    one = replace(base, tenant="ab", actor="c", before=b"", after=None)
    assert hash_of(one) != hash_of(replace(one, tenant="a", actor="bc"))
    assert hash_of(one) != hash_of(replace(one, before=None, after=b""))


def test_texts_are_made_fit_for_every_database() -> None:
    act = Act(at=1, actor="a\x00b", action="x" * 5000, resource="\ud800", details={"k": "v\x00"})
    record = seal(act, Head())
    assert record.actor == "a\ufffdb"
    assert len(record.action) == 1024
    assert record.resource == "?"
    assert "\\u0000" not in record.details
    # An act does not pass for another by its details.
    forged = seal(Act(at=1, actor="a", action="b", id="real", details={"id": "fake"}), Head())
    assert json.loads(forged.details)["id"] == "real"


def test_an_untouched_chain_is_sound() -> None:
    records = chain()
    result = verify_lines(lambda: iter(records))
    assert (result.sound, result.head) == (True, Head(10, records[-1].hash))
    assert verify_lines(lambda: iter([])).head == Head()


FORGED = Act(at=1, actor="keys[mallory]", action="admin.keys.create")


def rehashed(record: Record, **changes: object) -> Record:
    changed = replace(record, **changes)  # type: ignore[arg-type] # Fields by name.
    return replace(changed, hash=hash_of(changed))


def insert_forged(records: Chain) -> Chain:
    """With a hash that is right, after the entry before; the others as they were."""
    forged = seal(FORGED, Head(4, records[3].hash))
    return renumbered([*records[:4], forged, *records[4:]])


TAMPERINGS: list[tuple[str, Callable[[Chain], Chain], Finding]] = [
    (
        "a text is edited",
        lambda r: [*r[:4], replace(r[4], actor="keys[nobody]"), *r[5:]],
        Finding(Fault.EDITED, 5),
    ),
    (
        "a time is edited",
        lambda r: [*r[:4], replace(r[4], at=r[4].at + 1), *r[5:]],
        Finding(Fault.EDITED, 5),
    ),
    (
        "a digest is taken away",
        lambda r: [*r[:4], replace(r[4], before=None), *r[5:]],
        Finding(Fault.EDITED, 5),
    ),
    (
        "details are edited",
        lambda r: [*r[:4], replace(r[4], details=r[4].details + " "), *r[5:]],
        Finding(Fault.EDITED, 5),
    ),
    (
        "the first is edited",
        lambda r: [replace(r[0], actor="x"), *r[1:]],
        Finding(Fault.EDITED, 1),
    ),
    (
        "the last is edited",
        lambda r: [*r[:9], replace(r[9], actor="x")],
        Finding(Fault.EDITED, 10),
    ),
    (
        "an entry is edited and hashed anew",
        lambda r: [*r[:4], rehashed(r[4], actor="x"), *r[5:]],
        Finding(Fault.EDITED, 5),
    ),
    (
        "an entry is edited to follow another, and hashed anew",
        lambda r: [*r[:4], rehashed(r[4], prev_hash=r[1].hash), *r[5:]],
        Finding(Fault.EDITED, 5),
    ),
    (
        "a hash is edited",
        lambda r: [*r[:4], replace(r[4], hash=bytes(32)), *r[5:]],
        Finding(Fault.EDITED, 5),
    ),
    (
        "numbers are edited",
        lambda r: [*r[:4], *(replace(one, seq=one.seq + 7) for one in r[4:])],
        Finding(Fault.EDITED, 5),
    ),
    ("one is deleted", lambda r: [*r[:4], *r[5:]], Finding(Fault.DELETED, 5)),
    ("the first is deleted", lambda r: r[1:], Finding(Fault.DELETED, 1)),
    ("some are deleted", lambda r: [*r[:2], *r[7:]], Finding(Fault.DELETED, 3)),
    (
        "one is deleted and the gap closed",
        lambda r: renumbered([*r[:4], *r[5:]]),
        Finding(Fault.DELETED, 5),
    ),
    (
        "some are deleted and the gap closed",
        lambda r: renumbered([*r[:2], *r[7:]]),
        Finding(Fault.DELETED, 3),
    ),
    ("one is inserted", insert_forged, Finding(Fault.INSERTED, 5)),
    (
        "one is inserted without a good hash",
        lambda r: renumbered([*r[:4], replace(r[8], actor="x"), *r[4:]]),
        Finding(Fault.INSERTED, 5),
    ),
    (
        "an earlier one is copied",
        lambda r: renumbered([*r[:6], r[2], *r[6:]]),
        Finding(Fault.INSERTED, 7),
    ),
    (
        "two change places",
        lambda r: renumbered([*r[:4], r[5], r[4], *r[6:]]),
        Finding(Fault.REORDERED, 5),
    ),
    (
        "two far from each other change places",
        lambda r: renumbered([*r[:2], r[8], *r[3:8], r[2], r[9]]),
        Finding(Fault.REORDERED, 3),
    ),
    (
        "one moves to the end",
        lambda r: renumbered([*r[:4], *r[5:], r[4]]),
        Finding(Fault.REORDERED, 5),
    ),
    (
        "lines change places",
        lambda r: [*r[:4], r[5], r[4], *r[6:]],
        Finding(Fault.REORDERED, 5),
    ),
    ("a line is doubled", lambda r: [*r[:5], *r[4:]], Finding(Fault.INSERTED, 6)),
]


@pytest.mark.parametrize(
    ("tamper", "finding"),
    [case[1:] for case in TAMPERINGS],
    ids=[case[0].replace(" ", "-") for case in TAMPERINGS],
)
def test_tampering_is_found_and_named(tamper: Callable[[Chain], Chain], finding: Finding) -> None:
    assert verdict(tamper(chain())) == finding
    # As it is in an export.
    exported = [to_line(record) for record in tamper(chain())]
    assert verify_lines(lambda: from_lines(exported)).finding == finding


def test_whatever_is_done_to_one_entry_is_found() -> None:
    """Every bit matters: fields of random entries are changed at random."""
    rng = random.Random(7)
    records = chain(30)
    for _ in range(300):
        place = rng.randrange(30)
        record = records[place]
        name = rng.choice(["tenant", "actor", "action", "resource", "at", "details", "prev_hash"])
        value = getattr(record, name)
        if isinstance(value, int):
            changed = replace(record, at=value ^ 1 << rng.randrange(50))
        elif isinstance(value, bytes):
            spot = rng.randrange(32)
            flipped = bytes([value[spot] ^ 1 << rng.randrange(8)])
            changed = replace(record, prev_hash=value[:spot] + flipped + value[spot + 1 :])
        else:
            changed = replace(record, **{name: value + chr(rng.randrange(32, 0x3000))})
        assert verdict([*records[:place], changed, *records[place + 1 :]]) == Finding(
            Fault.EDITED, place + 1
        )


def checkpoint(records: Chain, count: int) -> Checkpoint:
    return Checkpoint(Head(count, records[count - 1].hash if count else GENESIS), 7)


@pytest.mark.parametrize("left", [0, 3, 9])
def test_a_cut_end_is_found_by_a_checkpoint_alone(left: int) -> None:
    records = chain()
    assert verdict(records[:left]) is None
    known = [checkpoint(records, count) for count in (2, 10)]
    assert verdict(records[:left], *known) == Finding(Fault.TRUNCATED, left + 1)
    assert verdict(records, *known) is None


def test_a_chain_written_anew_is_found_by_a_checkpoint_alone() -> None:
    records = chain()
    anew = list(linking([*acts(6), FORGED, *acts(10)[7:]])(Head()))
    # Acts are made with ids of their own, so that the chains differ from the first entry on.
    assert verdict(anew) is None
    assert verdict(anew, checkpoint(records, 8)) == Finding(Fault.REWRITTEN, 1)
    shared = [*records[:6], *linking([FORGED])(Head(6, records[5].hash))]
    assert verdict(shared, checkpoint(records, 4), checkpoint(records, 7)) == Finding(
        Fault.REWRITTEN, 5
    )
    # The first that is wrong counts, whichever way it is found.
    edited_later = [*anew[:9], replace(anew[9], actor="x")]
    assert verdict(edited_later, checkpoint(records, 8)) == Finding(Fault.REWRITTEN, 1)
    edited_before = [*records[:4], rehashed(records[4], actor="x"), *records[5:]]
    assert verdict(edited_before, checkpoint(records, 5)) == Finding(Fault.EDITED, 5)
    # Cut off, and gone on from there.
    assert verdict(shared, checkpoint(records, 10)) == Finding(Fault.TRUNCATED, 8)


def test_checkpoints_are_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints"
    records = chain()
    made = CheckpointFile(path, b"key").add(Head(3, records[2].hash), 1)
    CheckpointFile(path, b"key").add(Head(10, records[9].hash), 2)
    with path.open("rb") as lines:
        found = read_checkpoints(lines, b"key")
    assert found[0] == made
    assert [(one.head.count, one.at) for one in found] == [(3, 1), (10, 2)]
    assert verify_lines(lambda: iter(records), found).checkpoints == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_checkpoint_that_was_cut_short_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints"
    file = CheckpointFile(path)
    file.add(Head(1, b"\1" * 32), 1)
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole + whole[:length])
        with path.open("rb") as lines:
            assert len(read_checkpoints(lines)) == 1
    file.add(Head(2, b"\2" * 32), 2)
    with path.open("rb") as lines:
        assert [one.head.count for one in read_checkpoints(lines)] == [1, 2]


def edited(text: bytes) -> Iterator[bytes]:
    yield text.replace(b'"count":3', b'"count":2')
    yield text.replace(b'"at":1', b'"at":2')
    yield text.replace(b"0303", b"0404", 1)
    unsigned = json.loads(text)
    unsigned["signature"] = ""
    yield json.dumps(unsigned).encode() + b"\n"


def test_a_checkpoint_that_was_made_up_is_refused() -> None:
    line = Checkpoint(Head(3, b"\3" * 32), 1).signed(b"key").line()
    assert read_checkpoints([line], b"key")
    for text in edited(line):
        assert text != line
        with pytest.raises(CheckpointError, match="line 1: the signature"):
            read_checkpoints([text], b"key")
    with pytest.raises(CheckpointError, match="signature"):
        read_checkpoints([line], b"another key")


@pytest.mark.parametrize("line", [b"{}\n", b"[]\n", b"nonsense\n", b'{"count":1}\n'])
def test_lines_that_are_no_checkpoints(line: bytes) -> None:
    with pytest.raises(CheckpointError, match="line 1: this is no checkpoint"):
        read_checkpoints([line])


def test_an_export_is_the_entries_byte_for_byte() -> None:
    records = chain()
    lines = [to_line(record) for record in records]
    assert list(from_lines(lines)) == records
    first = json.loads(lines[0])
    assert (first["seq"], first["before"], first["prev_hash"]) == (1, None, "00" * 32)


@pytest.mark.parametrize("line", [b"{}", b"[]", b"\xff", b'{"seq": "x"}'])
def test_lines_that_are_no_entries(line: bytes) -> None:
    good = to_line(chain(1)[0])
    with pytest.raises(ExportError, match="line 2: this is no entry"):
        list(from_lines([good, line]))
    wrong = json.dumps({**json.loads(good), "actor": 7}).encode()
    with pytest.raises(ExportError, match="line 1"):
        list(from_lines([wrong]))
