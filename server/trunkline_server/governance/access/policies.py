"""Attribute rules: who may do what, with what, when and from where.

Denials override: a call is denied when any `deny` policy applies, whatever others allow, so that
the order of policies, which a store does not keep, means nothing. Where the default is `deny`,
one `allow` policy must apply as well.

A condition on the call is judged at once. A condition on its deployment (provider, deployment,
region, residency, and the model where routing is yet to choose it) is handed to routing as part
of a Constraint.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum

from trunkline_server.governance.access.constraints import Clause, Patterns, Selection, Traits
from trunkline_server.governance.access.schedule import Window
from trunkline_server.governance.addresses import Networks
from trunkline_server.governance.identity.principal import ROUTE_PREFIX, Principal
from trunkline_server.governance.patterns import any_of

DEFAULT_RULE = "access.default"


class Effect(StrEnum):
    """What a policy does where it applies."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Situation:
    """All that is known of a call before routing: `target` as for Access.decide, the caller's
    effective `roles` and `tier`, the `labels` that policies ask for, and which of the windows
    and networks that policies name hold it."""

    principal: Principal
    permission: str
    target: str
    roles: frozenset[str]
    tier: str
    labels: Mapping[str, str]
    windows: frozenset[Window]
    networks: frozenset[Networks]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What must hold, all of it; None asks nothing.

    Texts are shell patterns, one of which must match: of names (`caller` is the principal's), of
    any of the caller's roles, of a call's labels. `*` matches what is empty too. `model` is the
    public model that serves the call, or the name by which it was asked for; `route` is empty
    unless a route was asked for. Times are in one of the windows, addresses in the networks.
    """

    caller: Patterns | None = None
    kind: Patterns | None = None
    tenant: Patterns | None = None
    project: Patterns | None = None
    user: Patterns | None = None
    service: Patterns | None = None
    tier: Patterns | None = None
    role: Patterns | None = None
    permission: Patterns | None = None
    model: Patterns | None = None
    route: Patterns | None = None
    labels: Mapping[str, Patterns] = field(default_factory=dict, hash=False)
    windows: tuple[Window, ...] | None = None
    networks: Networks | None = None
    provider: Patterns | None = None
    deployment: Patterns | None = None
    region: Patterns | None = None
    residency: Patterns | None = None

    @property
    def empty(self) -> bool:
        """Whether it asks nothing."""
        return all(getattr(self, one.name) in (None, {}) for one in fields(self))

    def judge(self, call: Situation) -> Traits | None:
        """The traits with which a deployment fulfils them, once all that is asked of the call
        holds; None if it does not."""
        if not (self._names_fit(call) and self._surroundings_fit(call)):
            return None
        model = self.model
        if model is not None:
            named = call.target and not call.target.startswith(ROUTE_PREFIX)
            if named and any_of(model)(call.target):
                model = None
            elif named and "/" not in call.target:
                # A public name: the models of its deployments have no other.
                return None
        return Traits(self.provider, self.deployment, self.region, self.residency, model)

    def _names_fit(self, call: Situation) -> bool:
        who = call.principal
        target = call.target
        route = target[len(ROUTE_PREFIX) :] if target.startswith(ROUTE_PREFIX) else ""
        for patterns, values in (
            (self.caller, (who.name,)),
            (self.kind, (who.kind,)),
            (self.tenant, (who.tenant,)),
            (self.project, (who.project,)),
            (self.user, (who.user,)),
            (self.service, (who.service,)),
            (self.tier, (call.tier,)),
            (self.role, call.roles),
            (self.permission, (call.permission,)),
            (self.route, (route,)),
        ):
            if patterns is not None and not any(map(any_of(patterns), values)):
                return False
        return True

    def _surroundings_fit(self, call: Situation) -> bool:
        for name, patterns in self.labels.items():
            if not any_of(patterns)(call.labels.get(name, "")):
                return False
        if self.windows is not None and call.windows.isdisjoint(self.windows):
            return False
        return self.networks is None or self.networks in call.networks


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Allows or denies what fulfils `when`, but not what fulfils `unless`.

    A policy that names no permission is for inference alone.
    """

    name: str
    effect: Effect
    when: Conditions = Conditions()
    unless: Conditions = Conditions()

    @property
    def rule(self) -> str:
        """Its name in denials."""
        return f"policies[{self.name}].{self.effect}"

    def judge(self, call: Situation) -> Selection | None:
        """The deployments with which it applies to a call; None if it does with none."""
        if self.when.permission is None and not call.permission.startswith("inference."):
            return None
        traits = self.when.judge(call)
        if traits is None:
            return None
        unless = None if self.unless.empty else self.unless.judge(call)
        if unless is not None and unless.any:
            return None
        return Selection(traits, unless)


class Policies:
    """The policies in force, and all that they ask of a call."""

    def __init__(self, policies: Iterable[Policy] = (), default: Effect = Effect.ALLOW) -> None:
        """Raises ValueError for an `allow` policy where all is allowed: it would do nothing."""
        ordered = sorted(policies, key=lambda policy: policy.name)
        self._denying = [one for one in ordered if one.effect is Effect.DENY]
        self._allowing = [one for one in ordered if one.effect is Effect.ALLOW]
        self._default = default
        if self._allowing and default is Effect.ALLOW:
            raise ValueError(
                f"policies[{self._allowing[0].name}] allows what is allowed already, while "
                "access.default is allow"
            )
        asked = [part for policy in ordered for part in (policy.when, policy.unless)]
        self.labels = tuple(sorted({name for part in asked for name in part.labels}))
        self.windows = tuple({window for part in asked for window in part.windows or ()})
        self.networks = tuple({part.networks for part in asked if part.networks is not None})

    def judge(self, call: Situation) -> str | list[Clause]:
        """The rule that denies a call, or what its deployment must fulfil."""
        clauses = []
        for policy in self._denying:
            selection = policy.judge(call)
            if selection is None:
                continue
            if selection.any:
                return policy.rule
            clauses.append(Clause(policy.rule, (selection,), forbids=True))
        if self._default is Effect.DENY and call.permission.startswith("inference."):
            judged = (policy.judge(call) for policy in self._allowing)
            allowed = tuple(selection for selection in judged if selection is not None)
            if not allowed:
                return DEFAULT_RULE
            if not any(selection.any for selection in allowed):
                clauses.append(Clause(DEFAULT_RULE, allowed))
        return clauses
