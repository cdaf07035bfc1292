"""PolicyService: roles, bindings and policies, and what they would decide."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.governance.access.access import Access
from trunkline_server.governance.addresses import IpAddress, Networks
from trunkline_server.governance.identity.principal import Kind, Principal
from trunkline_server.rpc.admin.calls import Call
from trunkline_server.rpc.admin.crud import crud
from trunkline_server.rpc.admin.handlers import Methods
from trunkline_server.rpc.admin.kinds import BINDINGS, KEYS, POLICIES, ROLES
from trunkline_server.rpc.admin.resources import ResourceEngine


@dataclass(frozen=True, slots=True)
class _Supposed:
    """The facts of a call that is not made."""

    come_from: IpAddress | None
    labels: Mapping[str, str]

    def address(self) -> IpAddress | None:
        return self.come_from

    def label(self, name: str) -> str:
        return self.labels.get(name, "")


class PolicyServicer:
    """PolicyService. `access` gives the rules in force."""

    def __init__(self, engine: ResourceEngine, access: Callable[[], Access]) -> None:
        self._engine = engine
        self._access = access

    def methods(self) -> Methods:
        """PolicyService."""
        return {
            **crud(self._engine, ROLES),
            **crud(self._engine, BINDINGS),
            **crud(self._engine, POLICIES),
            "TestAccess": self._test,
        }

    async def _test(self, call: Call, request: admin.TestAccessRequest) -> admin.TestAccessResponse:
        call.permit("admin.policies.read", "policies")
        if not request.permission:
            raise invalid("permission", "is empty")
        principal = await self._caller(call, request.caller)
        now = call.now_us() / 1e6
        if request.HasField("time"):
            now = request.time.seconds + request.time.nanos / 1e9
        facts = _Supposed(_address(request.address), dict(request.labels))
        try:
            permit = self._access().decide(
                principal, request.permission, request.target, now, facts
            )
        except TrunklineError as error:
            if error.reason != v1.ERROR_REASON_AUTHORIZATION:
                raise
            return admin.TestAccessResponse(
                rule=error.metadata.get("rule", ""), message=error.message
            )
        clauses = () if permit.constraint is None else permit.constraint.clauses
        return admin.TestAccessResponse(
            allowed=True,
            deployment_rules=[clause.rule for clause in clauses],
            tier=permit.tier_name,
            roles=sorted(permit.roles),
        )

    async def _caller(self, call: Call, caller: admin.AccessCaller) -> Principal:
        match caller.WhichOneof("caller"):
            case "key":
                return _of_key(await self._engine.get(call, KEYS, caller.key))
            case "attributes":
                return _described(caller.attributes)
            case _:
                raise invalid("caller", "is not set")


def _of_key(key: admin.Key) -> Principal:
    return Principal(
        kind=Kind.KEY,
        name=key.name,
        source=f"keys[{key.name}]",
        tenant=key.tenant,
        project=key.project,
        user=key.user,
        service=key.service,
        roles=frozenset(key.roles),
        scopes=frozenset(key.scopes) or None,
        tier=key.tier,
        models=tuple(key.models) or ("*",),
        routes=tuple(key.routes) or ("*",),
        networks=Networks(tuple(key.networks)) if key.networks else None,
    )


def _described(who: admin.CallerAttributes) -> Principal:
    try:
        kind = Kind(who.kind or Kind.TOKEN)
    except ValueError:
        known = ", ".join(Kind)
        raise invalid("caller.attributes.kind", f"is none of {known}") from None
    return Principal(
        kind=kind,
        name=who.name or "test",
        source="test",
        tenant=who.tenant,
        project=who.project,
        user=who.user,
        service=who.service,
        roles=frozenset(who.roles),
        scopes=frozenset(who.scopes) or None,
        tier=who.tier,
        models=tuple(who.models) or ("*",),
        routes=tuple(who.routes) or ("*",),
    )


def _address(text: str) -> IpAddress | None:
    if not text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        raise invalid("address", "is no IP address") from None
