"""Roles: which permissions a caller has, and on what."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from trunkline_server.governance.access.constraints import Clause, Selection, Traits
from trunkline_server.governance.identity.principal import ROUTE_PREFIX
from trunkline_server.governance.patterns import any_of

# Permissions begin so where their target is a model or a route, and not a resource.
INFERENCE = "inference."
_EVERYTHING = ("*",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Permissions on some targets; all are shell patterns, of which one must match.

    A permission is `inference.` and the method, such as `inference.generate`, or `admin.`, the
    kind and the act, such as `admin.providers.write`. `models` and `routes` are public names
    and bound inference; `resources` are names such as `providers/openai` and bound the rest.
    """

    permissions: tuple[str, ...]
    models: tuple[str, ...] = _EVERYTHING
    routes: tuple[str, ...] = _EVERYTHING
    resources: tuple[str, ...] = _EVERYTHING


@dataclass(frozen=True, slots=True)
class Role:
    """Grants under a name."""

    name: str
    grants: tuple[Grant, ...]


# Roles that are there without being configured; one of the same name replaces them.
BUILT_IN = (
    Role("caller", (Grant(permissions=("inference.*",)),)),
    Role("viewer", (Grant(permissions=("admin.*.read",)),)),
    Role("auditor", (Grant(permissions=("admin.audit.*", "admin.usage.read")),)),
    Role("admin", (Grant(permissions=("inference.*", "admin.*")),)),
)


class Roles:
    """The roles in force. `default` are those of callers to whom nobody gave any."""

    def __init__(self, roles: Iterable[Role] = (), default: Iterable[str] = ("caller",)) -> None:
        self._roles: Mapping[str, Role] = {role.name: role for role in (*BUILT_IN, *roles)}
        self._default = frozenset(default)
        unknown = sorted(self._default - self._roles.keys())
        if unknown:
            raise ValueError(f"no role is called {unknown[0]!r}")

    def effective(self, given: frozenset[str]) -> frozenset[str]:
        """The roles that count for a caller."""
        return given or self._default

    def judge(self, given: frozenset[str], permission: str, target: str) -> str | Clause | None:
        """What effective roles say of a permission on a target; names that are no role's say
        nothing.

        None permits it. A rule's name denies it. A Clause permits it with the deployments that
        it leaves. The target is as for Access.decide.
        """
        named = ",".join(sorted(given))
        held = [
            grant
            for name in given
            if name in self._roles
            for grant in self._roles[name].grants
            if any_of(grant.permissions)(permission)
        ]
        if not held:
            return f"roles[{named}].permissions"
        if not permission.startswith(INFERENCE):
            permitted = any(any_of(grant.resources)(target) for grant in held)
            return None if permitted else f"roles[{named}].resources"
        kind = "routes" if target.startswith(ROUTE_PREFIX) else "models"
        verdict = judge_names(f"roles[{named}]", ((g.models, g.routes) for g in held), target)
        return f"roles[{named}].{kind}" if verdict is False else verdict


def judge_names(
    rule: str, bounds: Iterable[tuple[tuple[str, ...], tuple[str, ...]]], target: str
) -> Literal[False] | Clause | None:
    """What bounds, of which one must permit it, say of a model named as in
    GenerateRequest.model; each is patterns of models and of routes.

    None permits it and False denies it. Where routing is yet to choose the model, a Clause
    permits it with the deployments of permitted models.
    """
    selections = []
    for models, routes in bounds:
        if target.startswith(ROUTE_PREFIX):
            if not any_of(routes)(target[len(ROUTE_PREFIX) :]):
                continue
        elif target:
            if any_of(models)(target):
                return None
            continue
        if "*" in models:
            return None
        selections.append(Selection(Traits(model=models)))
    return Clause(f"{rule}.models", tuple(selections)) if selections else False
