"""AuditService: reading, verifying and exporting the audit trail."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import orjson

from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server import pages
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.governance.audit.checkpoints import Checkpoint
from trunkline_server.governance.audit.export import to_line
from trunkline_server.governance.audit.ports import AuditQuery, AuditStore, Head, Record
from trunkline_server.governance.audit.verify import verify
from trunkline_server.rpc.admin.calls import Call
from trunkline_server.rpc.admin.handlers import Methods
from trunkline_server.rpc.admin.ports import Checkpoints

_HASH_BYTES = 32
_MAX_CHECKPOINTS = 1000
_PIECE = 1 << 16


class Audit:
    """AuditService. `checkpoints` None means that this replica keeps none."""

    def __init__(self, store: AuditStore, checkpoints: Checkpoints | None) -> None:
        self._store = store
        self._checkpoints = checkpoints

    def methods(self) -> Methods:
        """AuditService."""
        return {
            "ListAuditEntries": self._list,
            "VerifyAudit": self._verify,
            "ExportAudit": self._export,
            "CreateAuditCheckpoint": self._create_checkpoint,
            "ListAuditCheckpoints": self._list_checkpoints,
        }

    async def _list(
        self, call: Call, request: admin.ListAuditEntriesRequest
    ) -> admin.ListAuditEntriesResponse:
        call.permit("admin.audit.read", "audit", request.tenant)
        size = pages.size_of(request.page_size)
        since = request.start_time.ToMicroseconds() if request.HasField("start_time") else 0
        until = request.end_time.ToMicroseconds() if request.HasField("end_time") else 2**62
        question = (
            *("audit", request.tenant, request.actor, request.action, request.resource),
            *(since, until),
        )
        before = pages.read_token(request.page_token, *question)
        records = await self._store.find(
            AuditQuery(
                tenant=request.tenant,
                actor=request.actor,
                action=request.action,
                resource=request.resource,
                since=since,
                until=until,
                before_seq=2**62 if before is None else before,
                limit=size + 1,
            )
        )
        page = records[:size]
        more = len(records) > size
        return admin.ListAuditEntriesResponse(
            entries=[_entry(record) for record in page],
            next_page_token=pages.write_token(page[-1].seq, *question) if more else "",
        )

    async def _verify(
        self, call: Call, request: admin.VerifyAuditRequest
    ) -> admin.VerifyAuditResponse:
        call.permit("admin.audit.verify", "audit")
        known = [*await self._read_checkpoints(), *_given(request.checkpoints)]
        found = await verify(self._store.stream, known)
        response = admin.VerifyAuditResponse(
            sound=found.sound,
            sound_count=found.head.count,
            sound_hash=found.head.hash,
            checkpoints_compared=found.checkpoints,
        )
        if found.finding is not None:
            response.fault = admin.AuditFault.Value(f"AUDIT_FAULT_{found.finding.fault.name}")
            response.fault_seq = found.finding.seq
        return response

    async def _export(
        self, call: Call, request: admin.ExportAuditRequest
    ) -> AsyncIterator[admin.ExportAuditResponse]:
        call.permit("admin.audit.read", "audit")
        call.record("admin.audit.export", "audit")
        since = request.start_time.ToMicroseconds() if request.HasField("start_time") else 0
        piece = bytearray()
        async for record in self._store.stream(since=since):
            piece += to_line(record)
            if len(piece) >= _PIECE:
                yield admin.ExportAuditResponse(data=bytes(piece))
                piece.clear()
        if piece:
            yield admin.ExportAuditResponse(data=bytes(piece))

    async def _create_checkpoint(
        self, call: Call, request: admin.CreateAuditCheckpointRequest
    ) -> admin.CreateAuditCheckpointResponse:
        call.permit("admin.audit.checkpoint", "audit")
        head = await self._store.head()
        at = call.now_us()
        made = Checkpoint(head, at)
        if self._checkpoints is not None:
            try:
                made = await asyncio.to_thread(self._checkpoints.add, head, at)
            except OSError as error:
                raise _unreadable(f"{error.strerror}") from error
        return admin.CreateAuditCheckpointResponse(checkpoint=_told(made))

    async def _list_checkpoints(
        self, call: Call, request: admin.ListAuditCheckpointsRequest
    ) -> admin.ListAuditCheckpointsResponse:
        call.permit("admin.audit.read", "audit")
        size = pages.size_of(request.page_size)
        kept = await self._read_checkpoints()
        # By their place in the file, to which lines are only added.
        before = pages.read_token(request.page_token, "checkpoints")
        end = len(kept) if before is None else min(before, len(kept))
        start = max(0, end - size)
        return admin.ListAuditCheckpointsResponse(
            checkpoints=[_told(each) for each in reversed(kept[start:end])],
            next_page_token=pages.write_token(start, "checkpoints") if start else "",
        )

    async def _read_checkpoints(self) -> Sequence[Checkpoint]:
        if self._checkpoints is None:
            return ()
        try:
            return await asyncio.to_thread(self._checkpoints.read)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise _unreadable(f"{error.strerror}") from error
        except ValueError as error:
            raise _unreadable(str(error)) from error


def _unreadable(problem: str) -> TrunklineError:
    return TrunklineError(
        v1.ERROR_REASON_FAILED_PRECONDITION, f"the file of checkpoints: {problem}"
    )


def _given(checkpoints: Sequence[admin.AuditCheckpoint]) -> list[Checkpoint]:
    if len(checkpoints) > _MAX_CHECKPOINTS:
        raise invalid("checkpoints", f"are more than {_MAX_CHECKPOINTS}")
    for place, each in enumerate(checkpoints):
        if len(each.hash) != _HASH_BYTES or each.count < 0:
            raise invalid(f"checkpoints[{place}]", "has no count, or no hash of 32 bytes")
    return [Checkpoint(Head(each.count, each.hash), 0) for each in checkpoints]


def _told(checkpoint: Checkpoint) -> admin.AuditCheckpoint:
    told = admin.AuditCheckpoint(
        count=checkpoint.head.count, hash=checkpoint.head.hash, signature=checkpoint.signature
    )
    told.time.FromMicroseconds(checkpoint.at)
    return told


def _entry(record: Record) -> admin.AuditEntry:
    entry = admin.AuditEntry(
        seq=record.seq,
        tenant=record.tenant,
        actor=record.actor,
        action=record.action,
        resource=record.resource,
        before_digest=record.before or b"",
        after_digest=record.after or b"",
        details={name: str(value) for name, value in orjson.loads(record.details).items()},
        prev_hash=record.prev_hash,
        hash=record.hash,
    )
    entry.time.FromMicroseconds(record.at)
    return entry
