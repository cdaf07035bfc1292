"""AuditService: the trail as it is listed, verified, exported and checkpointed."""

from dataclasses import replace

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.support.admin_server import CallError, Client
from tests.support.admin_world import World
from trunkline.admin import v1 as admin
from trunkline_server.governance.audit.chain import Act, linking
from trunkline_server.governance.audit.export import from_lines


@pytest.fixture
async def filled(world: World) -> World:
    """Nine entries, a second apart, about two tenants in turn."""
    await world.audit.append(
        linking(
            Act(
                at=place * 1_000_000,
                actor=f"keys[k{place % 3}]",
                action="admin.keys.create" if place % 2 else "admin.tenants.update",
                resource=f"keys/{place}",
                tenant="acme" if place % 2 else "globex",
                before=None,
                after=bytes([place]) * 32,
                details={"n": str(place)},
            )
            for place in range(1, 10)
        )
    )
    return world


async def seqs(root: Client, **asked: object) -> list[list[int]]:
    pages: list[list[int]] = []
    token = ""
    while not pages or token:
        answer = await root("AuditService.ListAuditEntries", page_token=token, **asked)
        pages.append([entry.seq for entry in answer.entries])
        token = answer.next_page_token
    return pages


async def test_entries_the_newest_first(root: Client, filled: World) -> None:
    assert await seqs(root, page_size=4) == [[9, 8, 7, 6], [5, 4, 3, 2], [1]]
    assert await seqs(root, page_size=3) == [[9, 8, 7], [6, 5, 4], [3, 2, 1]]
    assert await seqs(root, tenant="acme") == [[9, 7, 5, 3, 1]]
    assert await seqs(root, actor="keys[k0]") == [[9, 6, 3]]
    assert await seqs(root, action="admin.tenants") == [[8, 6, 4, 2]]
    assert await seqs(root, resource="keys/7") == [[7]]
    times = {"start_time": Timestamp(seconds=3), "end_time": Timestamp(seconds=5)}
    assert await seqs(root, **times) == [[4, 3]]
    (entry,) = (await root("AuditService.ListAuditEntries", page_size=1)).entries
    last = filled.audit.records[-1]
    assert (entry.hash, entry.prev_hash, entry.after_digest) == (
        last.hash,
        last.prev_hash,
        bytes([9]) * 32,
    )
    assert (entry.before_digest, entry.time.seconds, entry.details["n"]) == (b"", 9, "9")


async def test_a_token_belongs_to_its_question(root: Client, filled: World) -> None:
    token = (await root("AuditService.ListAuditEntries", page_size=2)).next_page_token
    for fields in ({"tenant": "acme", "page_token": token}, {"page_token": "rubbish"}):
        with pytest.raises(CallError) as caught:
            await root("AuditService.ListAuditEntries", **fields)
        assert caught.value.violations[0][0] == "page_token"
    with pytest.raises(CallError) as caught:
        await root("AuditService.ListAuditEntries", page_size=-1)
    assert caught.value.violations == [("page_size", "must not be negative")]


async def test_a_sound_trail_is_found_to_be_so(root: Client, filled: World) -> None:
    made = (await root("AuditService.CreateAuditCheckpoint")).checkpoint
    assert (made.count, made.hash) == (9, filled.audit.records[-1].hash)
    found = await root("AuditService.VerifyAudit", checkpoints=[made])
    assert (found.sound, found.sound_count, found.sound_hash) == (True, 9, made.hash)
    assert (found.checkpoints_compared, found.fault, found.fault_seq) == (1, 0, 0)


@pytest.mark.parametrize(
    ("tamper", "fault", "seq"),
    [
        (lambda r: [*r[:4], replace(r[4], actor="x"), *r[5:]], "EDITED", 5),
        (lambda r: [*r[:4], *r[5:]], "DELETED", 5),
        (lambda r: [*r[:4], r[5], r[4], *r[6:]], "REORDERED", 5),
        (lambda r: r[:7], "TRUNCATED", 8),
    ],
)
async def test_tampering_is_told(
    root: Client, filled: World, tamper: object, fault: str, seq: int
) -> None:
    await root("AuditService.CreateAuditCheckpoint")
    filled.audit.records = tamper(filled.audit.records)  # type: ignore[operator] # One of those above.
    found = await root("AuditService.VerifyAudit")
    assert not found.sound
    assert admin.AuditFault.Name(found.fault) == f"AUDIT_FAULT_{fault}"
    assert found.fault_seq == seq
    assert found.sound_count == seq - 1


async def test_an_export_is_the_trail(root: Client, filled: World) -> None:
    data = b"".join([each.data async for each in root.stream("AuditService.ExportAudit")])
    assert list(from_lines(data.splitlines())) == filled.audit.records
    stream = root.stream("AuditService.ExportAudit", start_time=Timestamp(seconds=8))
    later = b"".join([each.data async for each in stream])
    assert [record.seq for record in from_lines(later.splitlines())] == [8, 9]
    assert [act.action for act in filled.acts] == ["admin.audit.export"] * 2


async def test_checkpoints_the_newest_first(root: Client, filled: World) -> None:
    assert not (await root("AuditService.ListAuditCheckpoints")).checkpoints
    for _ in range(5):
        await root("AuditService.CreateAuditCheckpoint")
        filled.clock.now += 1
    seen: list[list[int]] = []
    token = ""
    while not seen or token:
        answer = await root("AuditService.ListAuditCheckpoints", page_size=2, page_token=token)
        seen.append([each.time.seconds - 1_800_000_000 for each in answer.checkpoints])
        token = answer.next_page_token
    assert seen == [[4, 3], [2, 1], [0]]


async def test_a_damaged_file_of_checkpoints_is_told(root: Client, filled: World) -> None:
    filled.checkpoints.path.write_bytes(b"no checkpoint\n")
    for method in ("ListAuditCheckpoints", "VerifyAudit"):
        with pytest.raises(CallError) as caught:
            await root(f"AuditService.{method}")
        assert caught.value.code == "FAILED_PRECONDITION"
        assert caught.value.message.endswith("line 1: this is no checkpoint")


async def test_checkpoints_that_are_none(root: Client) -> None:
    for given in (admin.AuditCheckpoint(count=1), admin.AuditCheckpoint(count=-1, hash=bytes(32))):
        with pytest.raises(CallError) as caught:
            await root("AuditService.VerifyAudit", checkpoints=[given])
        assert caught.value.violations[0][0] == "checkpoints[0]"


async def test_auditors_only(root: Client) -> None:
    for method in ("VerifyAudit", "CreateAuditCheckpoint"):
        with pytest.raises(CallError) as caught:
            await root.as_("reader")(f"AuditService.{method}")
        assert caught.value.code == "PERMISSION_DENIED"
    with pytest.raises(CallError) as caught:
        _ = [each async for each in root.as_("nobody").stream("AuditService.ExportAudit")]
    assert caught.value.code == "PERMISSION_DENIED"
