"""Access decisions in the audit trail, as many as are asked for."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.access.access import Facts
from trunkline_server.governance.audit.chain import Act
from trunkline_server.governance.audit.writer import AuditWriter
from trunkline_server.governance.identity.principal import Principal

Level = Literal["none", "denied", "all"]


class DecisionAudit:
    """Records who was let in and who was not.

    A decision is recorded before it takes effect: where the trail has no room and the writer is
    told to deny, `granted` raises and the call fails. A denial never fails to deny: where there
    is no room for it, it is counted as lost.
    """

    def __init__(
        self,
        writer: AuditWriter,
        clock: Clock,
        level: Level,
        redact: Callable[[str], str] = str,
    ) -> None:
        """`redact` takes personal data out of what callers name: entries are never deleted."""
        self._redact = redact
        self._writer = writer
        self._clock = clock
        self.records_grants = level == "all"
        self.records_denials = level != "none"

    def granted(
        self, principal: Principal, permission: str, target: str, *, facts: Facts, request_id: str
    ) -> None:
        """Records that a caller may do something, if grants are recorded."""
        if self.records_grants:
            act = self._act(principal, permission, target)
            self._writer.record(_located(act, facts, self._redact(request_id)))

    def denied(
        self,
        error: TrunklineError,
        principal: Principal | None,
        permission: str,
        target: str,
        *,
        facts: Facts,
        request_id: str,
    ) -> None:
        """Records that a caller, None while unknown, was refused, if denials are recorded."""
        if self.records_denials:
            # Without a rule it is who calls that was not clear.
            rule = error.metadata.get("rule") or error.message
            act = self._act(principal, permission, target)
            act = replace(act, outcome="denied", details={**act.details, "rule": rule})
            self._writer.record(_located(act, facts, self._redact(request_id)), expendable=True)

    def _act(self, principal: Principal | None, permission: str, target: str) -> Act:
        target = self._redact(target)
        at = round(self._clock.wall() * 1e6)
        if principal is None:
            return Act(at=at, actor="unknown", action=permission, resource=target)
        return Act(
            at=at,
            actor=principal.source,
            action=permission,
            resource=target,
            tenant=principal.tenant,
            details={"caller": principal.name},
        )


def _located(act: Act, facts: Facts, request_id: str) -> Act:
    address = facts.address()
    return replace(act, address="" if address is None else str(address), request_id=request_id)
