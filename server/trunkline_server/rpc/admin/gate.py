"""The gate by the router's own identities and access rules."""

from trunkline_server.clock import Clock
from trunkline_server.governance.access.access import Access
from trunkline_server.governance.addresses import Callers, IpAddress
from trunkline_server.governance.identity.identity import Identity
from trunkline_server.rpc.admin.ports import Context, Visitor
from trunkline_server.rpc.metadata import read_authorization, read_forwarded_for


class PeerFacts:
    """What access rules may ask of a call to the control plane; it has no labels."""

    def __init__(self, context: Context, callers: Callers) -> None:
        self._context = context
        self._callers = callers

    def address(self) -> IpAddress | None:
        forwarded = read_forwarded_for(self._context.invocation_metadata())
        return self._callers.address(self._context.peer(), forwarded)

    def label(self, name: str) -> str:
        return ""


class AccessGate:
    """A Gate. A reload replaces `identity`, `access` and `callers`.

    Where nothing is configured by which callers could be told apart, everyone is anonymous, and
    may do what the roles of anonymous callers permit: nothing here, unless someone gave them
    more.
    """

    def __init__(
        self, identity: Identity, access: Access, clock: Clock, callers: Callers | None = None
    ) -> None:
        """`callers` finds the addresses of those who come by a proxy."""
        self.identity = identity
        self.access = access
        self._clock = clock
        self.callers = callers or Callers()

    async def identify(self, context: Context) -> Visitor:
        """As Gate.identify."""
        principal = await self.identity.authenticate_in_time(
            read_authorization(context.invocation_metadata()),
            context.auth_context,
            self._clock.wall,
        )
        return Visitor(principal, PeerFacts(context, self.callers))

    def check(self, visitor: Visitor, permission: str, target: str) -> None:
        """As Gate.check."""
        now = self._clock.wall()
        self.access.decide(visitor.principal, permission, target, now, visitor.facts)
