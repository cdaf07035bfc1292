"""One call to the control plane: who makes it, what it may do, and what it leaves in the trail."""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import NoReturn

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.audit.chain import Act
from trunkline_server.rpc.admin.ports import Change, Gate, Trail, Visitor

_NOTHING: Mapping[str, str] = {}


class Call:
    """A call whose caller is known. `operation` is its method, such as KeyService.RotateKey."""

    def __init__(
        self,
        operation: str,
        request_id: str,
        visitor: Visitor,
        *,
        gate: Gate,
        trail: Trail,
        clock: Clock,
    ) -> None:
        self.operation = operation
        self.request_id = request_id
        self.visitor = visitor
        self._gate = gate
        self._trail = trail
        self._clock = clock

    def permit(self, permission: str, target: str, tenant: str = "") -> None:
        """Raises TrunklineError with AUTHORIZATION, and records the denial, unless the caller
        has a permission on a target, which stands under its tenant if it has one.

        The caller is told of the target as it was named, not of the tenant that it turned out
        to belong to.
        """
        full = located(target, tenant)
        try:
            self._gate.check(self.visitor, permission, full)
        except TrunklineError as error:
            self._denied(error, permission, full, tenant)
            if full != target:
                self._gate.check(self.visitor, permission, target)
            raise

    def record(
        self,
        action: str,
        target: str,
        tenant: str = "",
        *,
        before: bytes | None = None,
        after: bytes | None = None,
        outcome: str = "ok",
        details: Mapping[str, str] = _NOTHING,
    ) -> None:
        """Puts an act into the audit trail: digests of what a resource was and is, and details
        without secrets. Raises what Trail.record raises: the act must then not happen."""
        act = self._act(action, target, tenant, details)
        self._trail.record(
            replace(act, outcome=outcome, before=_digest(before), after=_digest(after))
        )

    async def record_within(
        self,
        change: Change,
        action: str,
        target: str,
        tenant: str = "",
        *,
        before: bytes | None = None,
        after: bytes | None = None,
        details: Mapping[str, str] = _NOTHING,
    ) -> None:
        """As `record`, and as a part of a change: both hold, or neither."""
        act = self._act(action, target, tenant, details)
        await self._trail.record_within(
            change, replace(act, before=_digest(before), after=_digest(after))
        )

    def _act(self, action: str, target: str, tenant: str, details: Mapping[str, str]) -> Act:
        principal = self.visitor.principal
        address = self.visitor.facts.address()
        return Act(
            at=self.now_us(),
            actor=principal.source,
            action=action,
            resource=located(target, tenant),
            tenant=tenant,
            address="" if address is None else str(address),
            request_id=self.request_id,
            details={"caller": principal.name, "method": self.operation, **details},
        )

    def now_us(self) -> int:
        """The time, in microseconds since the Unix epoch."""
        return round(self._clock.wall() * 1e6)

    def _denied(self, error: TrunklineError, permission: str, full: str, tenant: str) -> None:
        rule = error.metadata.get("rule", "")
        target = full.removeprefix(f"tenants/{tenant}/") if tenant else full
        self.record(permission, target, tenant, outcome="denied", details={"rule": rule})


def _digest(body: bytes | None) -> bytes | None:
    return None if body is None else sha256(body).digest()


def located(target: str, tenant: str) -> str:
    """A resource as permissions name it: under its tenant, if it has one."""
    return f"tenants/{tenant}/{target}" if tenant else target


def missing(kind: str, name: str) -> TrunklineError:
    """The error for a resource that is not there."""
    return _about(v1.ERROR_REASON_NOT_FOUND, kind, name, "does not exist")


def taken(kind: str, name: str) -> TrunklineError:
    """The error for a name that is taken."""
    return _about(v1.ERROR_REASON_ALREADY_EXISTS, kind, name, "exists already")


def stale(kind: str, name: str) -> TrunklineError:
    """The error for an etag that is not the present one."""
    return _about(v1.ERROR_REASON_ABORTED, kind, name, "was changed meanwhile: read it again")


def unmet(message: str, **metadata: str) -> NoReturn:
    """Raises the error for what cannot be done as things are."""
    raise TrunklineError(v1.ERROR_REASON_FAILED_PRECONDITION, message, metadata=metadata)


def _about(reason: v1.ErrorReason.ValueType, kind: str, name: str, problem: str) -> TrunklineError:
    metadata = {"kind": kind, "name": name}
    return TrunklineError(reason, f"{kind} {name!r} {problem}", metadata=metadata)
