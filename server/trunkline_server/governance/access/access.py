"""Whether a caller may do something: scopes, roles, tiers, policies and addresses at once.

What follows from a configuration is worked out once for each kind of call and remembered; most
calls cost a look into a dict.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.access.bindings import Binding
from trunkline_server.governance.access.constraints import Clause, Constraint
from trunkline_server.governance.access.policies import Policies, Situation
from trunkline_server.governance.access.roles import INFERENCE, Roles, judge_names
from trunkline_server.governance.access.schedule import Window
from trunkline_server.governance.access.tiers import Tier
from trunkline_server.governance.addresses import IpAddress, Networks
from trunkline_server.governance.identity.principal import ROUTE_PREFIX, Principal
from trunkline_server.governance.patterns import any_of

# Verdicts and addresses remembered; all go when there are more. Longer targets are nobody's
# model and are judged anew, so that they cannot fill the memory.
_REMEMBERED = 16_384
_MAX_TARGET = 256
# What is quoted of a target.
_QUOTED = 128
# Windows begin and end at whole minutes.
_MINUTE = 60.0

_NO_LABELS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRules:
    """What holds for everyone of a tenant: the tier of those who have none, roles on top of
    their own, and the networks they must come from. A suspended one may do nothing."""

    name: str
    tier: str = ""
    roles: frozenset[str] = frozenset()
    networks: Networks | None = None
    suspended: bool = False


class Facts(Protocol):
    """What only some configurations ask of a call; asked for only by them."""

    def address(self) -> IpAddress | None:
        """Where it comes from."""
        ...

    def label(self, name: str) -> str:
        """One of its labels, such as its data classification; empty without."""
        ...


@dataclass(frozen=True, slots=True)
class Permit:
    """What a call that is permitted must keep to.

    `constraints` are for routing: one that stands for all rules, or none. `tier`, if not None,
    bounds the request: see Tier.check. `tier_name` and `roles` are those that counted.
    """

    constraints: tuple[Constraint, ...]
    tier: Tier | None
    tier_name: str
    roles: frozenset[str]

    @property
    def constraint(self) -> Constraint | None:
        """The one constraint, if there is one."""
        return self.constraints[0] if self.constraints else None


class _Verdict(NamedTuple):
    # None: `rule` denies it.
    permit: Permit | None
    rule: str
    # What the caller's address must be in, with the rule that says so.
    networks: tuple[tuple[str, Networks], ...]


class Access:
    """The access rules of a configuration. A reload makes another."""

    def __init__(
        self,
        *,
        roles: Roles | None = None,
        tiers: Iterable[Tier] = (),
        default_tier: str = "",
        tenants: Iterable[TenantRules] = (),
        bindings: Iterable[Binding] = (),
        known_tenants_only: bool = False,
        policies: Policies | None = None,
    ) -> None:
        """`known_tenants_only` denies callers whose tenant is not among `tenants`, such as those
        that a token names. Raises ValueError for a tier or role that is not there."""
        self._roles = roles or Roles()
        self._tiers = {tier.name: tier for tier in tiers}
        self._default_tier = default_tier
        self._tenants = {tenant.name: tenant for tenant in tenants}
        self._bindings = tuple(bindings)
        self._known_tenants_only = known_tenants_only
        self._policies = policies or Policies()
        for name in (default_tier, *(tenant.tier for tenant in self._tenants.values())):
            if name and name not in self._tiers:
                raise ValueError(f"no tier is called {name!r}")
        # What policies read beside the caller, the permission and the target.
        self._labels = self._policies.labels
        self._varies = bool(self._labels or self._policies.windows or self._policies.networks)
        self._verdicts: dict[Hashable, _Verdict] = {}
        self._minute = (0.0, 0.0, frozenset[Window]())
        self._located: dict[IpAddress | None, frozenset[Networks]] = {}

    def decide(
        self, principal: Principal, permission: str, target: str, now: float, facts: Facts
    ) -> Permit:
        """What a caller must keep to who may do something, at `now` in Unix seconds.

        For permissions of inference the target is named as GenerateRequest.model, for others it
        is a resource such as `providers/openai`. Raises TrunklineError with AUTHORIZATION whose
        metadata name the rule.
        """
        key: Hashable = (principal, permission, target)
        if self._varies:
            labels = tuple([facts.label(name) for name in self._labels])
            key = (key, labels, self._windows(now), self._networks(facts))
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._judge(principal, permission, target, now, facts)
            self._remember(key, target, verdict)
        for rule, networks in verdict.networks:
            if not networks.holds(facts.address()):
                raise denial(principal, permission, target, rule)
        if verdict.permit is None:
            raise denial(principal, permission, target, verdict.rule)
        return verdict.permit

    def _remember(self, key: Hashable, target: str, verdict: _Verdict) -> None:
        if len(target) > _MAX_TARGET:
            return
        if len(self._verdicts) >= _REMEMBERED:
            self._verdicts.clear()
        self._verdicts[key] = verdict

    def _judge(
        self, principal: Principal, permission: str, target: str, now: float, facts: Facts
    ) -> _Verdict:
        tenant = self._tenants.get(principal.tenant)
        roles = self._roles.effective(principal.roles)
        if tenant is not None:
            roles |= tenant.roles
        roles = roles.union(*(one.roles for one in self._bindings if one.fits(principal)))
        tier = principal.tier or (tenant.tier if tenant is not None else "") or self._default_tier
        call = Situation(
            principal,
            permission,
            target,
            roles,
            tier,
            {name: facts.label(name) for name in self._labels} if self._labels else _NO_LABELS,
            self._windows(now),
            self._networks(facts),
        )
        judged = self._permit(call, tenant)
        return _Verdict(
            permit=None if isinstance(judged, str) else judged,
            rule=judged if isinstance(judged, str) else "",
            networks=_networks_of(principal, tenant),
        )

    def _permit(self, call: Situation, tenant: TenantRules | None) -> Permit | str:
        """The permit, or the rule that denies it: who it is, what the caller was given, what
        was paid for, what policies say."""
        principal = call.principal
        if tenant is None and principal.tenant and self._known_tenants_only:
            return f"tenants[{principal.tenant}]"
        if tenant is not None and tenant.suspended:
            return f"tenants[{tenant.name}].suspended"
        if principal.scopes is not None and not any_of(tuple(principal.scopes))(call.permission):
            return f"{principal.source}.scopes"
        by_roles = self._roles.judge(call.roles, call.permission, call.target)
        if isinstance(by_roles, str):
            return by_roles
        clauses = [] if by_roles is None else [by_roles]
        tier = self._tiers.get(call.tier)
        if call.permission.startswith(INFERENCE):
            by_names = _judge_names(call, tier)
            if isinstance(by_names, str):
                return by_names
            clauses += by_names
        by_policies = self._policies.judge(call)
        if isinstance(by_policies, str):
            return by_policies
        clauses += by_policies
        return Permit(
            constraints=(Constraint(tuple(clauses)),) if clauses else (),
            tier=tier if tier is not None and tier.bounds_requests else None,
            tier_name=call.tier,
            roles=call.roles,
        )

    def _windows(self, now: float) -> frozenset[Window]:
        """The windows that policies name and that hold a moment; worked out once a minute."""
        if not self._policies.windows:
            return frozenset()
        start, end, active = self._minute
        if not start <= now < end:
            start = now // _MINUTE * _MINUTE
            active = frozenset(one for one in self._policies.windows if one.holds(now))
            self._minute = (start, start + _MINUTE, active)
        return active

    def _networks(self, facts: Facts) -> frozenset[Networks]:
        """The networks that policies name and that hold the call's address."""
        if not self._policies.networks:
            return frozenset()
        address = facts.address()
        found = self._located.get(address)
        if found is None:
            found = frozenset(one for one in self._policies.networks if one.holds(address))
            if len(self._located) >= _REMEMBERED:
                self._located.clear()
            self._located[address] = found
        return found


def _networks_of(
    principal: Principal, tenant: TenantRules | None
) -> tuple[tuple[str, Networks], ...]:
    """The networks that a caller's address must be in, each with the rule that says so."""
    found = []
    if principal.networks is not None:
        found.append((f"{principal.source}.networks", principal.networks))
    if tenant is not None and tenant.networks is not None:
        found.append((f"tenants[{tenant.name}].networks", tenant.networks))
    return tuple(found)


def _judge_names(call: Situation, tier: Tier | None) -> str | list[Clause]:
    """What the caller's own patterns and its tier say of a model: the rule that denies it, or
    what its deployment must fulfil."""
    kind = "routes" if call.target.startswith(ROUTE_PREFIX) else "models"
    if not call.principal.permits(call.target):
        return f"{call.principal.source}.{kind}"
    if tier is None:
        # What a tier allows that a token names and nobody has configured is not known.
        return f"tiers[{call.tier}]" if call.tier else []
    verdict = judge_names(f"tiers[{tier.name}]", [(tier.models, tier.routes)], call.target)
    if verdict is False:
        return f"tiers[{tier.name}].{kind}"
    return [] if verdict is None else [verdict]


def denial(principal: Principal, permission: str, target: str, rule: str) -> TrunklineError:
    """The error for what a rule denies."""
    shown = target[:_QUOTED]
    who = f"the {principal.kind} {principal.name!r}"
    if permission.startswith(INFERENCE):
        what, told = "model", f"{who} may not use {shown!r}"
    else:
        what, told = "resource", f"{who} has no permission {permission} on {shown!r}"
    metadata = {principal.kind.value: principal.name, "permission": permission, what: shown}
    return TrunklineError(
        v1.ERROR_REASON_AUTHORIZATION,
        f"{told}: {rule}",
        metadata={**metadata, "rule": rule},
    )
