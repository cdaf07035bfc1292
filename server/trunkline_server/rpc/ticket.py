"""What is known of a call to the contract's methods while it is served."""

from typing import Any

import grpc

from trunkline import v1
from trunkline_server.engine.call import Call
from trunkline_server.engine.requests import Request
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.addresses import Callers, IpAddress
from trunkline_server.governance.audit.decisions import DecisionAudit
from trunkline_server.governance.identity.principal import Principal
from trunkline_server.rpc.metadata import read_forwarded_for

Context = grpc.aio.ServicerContext[Any, Any]

# Failures that say who was not let in.
_DENIALS = frozenset({v1.ERROR_REASON_AUTHENTICATION, v1.ERROR_REASON_AUTHORIZATION})


class Ticket:
    """What is known of a call while it is served; the call itself once it is admitted. To access
    rules, the facts of it that only some of them ask for."""

    __slots__ = (
        "_callers",
        "call",
        "caller",
        "context",
        "now",
        "operation",
        "permission",
        "request",
        "target",
    )

    def __init__(self, operation: str, permission: str, context: Context, callers: Callers) -> None:
        self.operation = operation
        self.permission = permission
        self.context = context
        self._callers = callers
        self.caller: Principal | None = None
        self.target = ""
        self.request: Request | v1.RouteRequest | None = None
        self.call: Call | None = None
        # When it was asked who calls, in Unix seconds.
        self.now = 0.0

    @property
    def id(self) -> str:
        """The call's id; empty before it is admitted."""
        return "" if self.call is None else self.call.id

    @property
    def name(self) -> str:
        """The caller's name; empty while it is unknown."""
        return "" if self.caller is None else self.caller.name

    def address(self) -> IpAddress | None:
        """As governance.access.access.Facts."""
        context = self.context
        forwarded = read_forwarded_for(context.invocation_metadata())
        return self._callers.address(context.peer(), forwarded)

    def label(self, name: str) -> str:
        """As governance.access.access.Facts."""
        return "" if self.request is None else self.request.context.labels.get(name, "")

    def report(self) -> v1.CallReport | None:
        """What the call did before it failed, if it called anyone."""
        return self.call.report() if self.call is not None and self.call.attempts else None

    def record_grant(self, audit: DecisionAudit, caller: Principal, request_id: str = "") -> None:
        """Has the audit trail hear that the caller was let in, if it wants to."""
        if audit.records_grants:
            audit.granted(caller, self.permission, self.target, facts=self, request_id=request_id)

    def record_denial(self, audit: DecisionAudit, error: TrunklineError) -> None:
        """Has the audit trail hear of a failure, if it says who was not let in."""
        # Where routing found nothing because of access rules, it names them too.
        if error.reason in _DENIALS or "rule" in error.metadata:
            audit.denied(
                error,
                self.caller,
                self.permission,
                self.target,
                facts=self,
                request_id=self.id,
            )
