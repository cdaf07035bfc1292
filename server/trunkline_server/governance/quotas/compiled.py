"""Limits and budgets, prepared at load for what a call asks: which of them apply, to whom."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from operator import attrgetter

from trunkline_server.governance.quotas.gates import Gate, Subject
from trunkline_server.governance.quotas.rules import TENANT_SCOPES, Budget, Demand, Limit
from trunkline_server.governance.quotas.shared import SharedBudget, SharedLimit

SubjectOf = Callable[[Demand], Subject | None]
_MAX_MATCHES = 10_000


class Compiled:
    """One rule in force.

    `gate` decides in this process, by itself or from leases; if it is None, `shared` claims
    from the shared counters. `fallback` decides while they are away.
    """

    __slots__ = (
        "fallback",
        "gate",
        "max_wait",
        "max_waiting",
        "rule",
        "share",
        "shared",
        "subject_of",
    )

    def __init__(
        self,
        rule: Limit | Budget,
        gate: Gate | None,
        shared: SharedLimit | SharedBudget | None,
    ) -> None:
        self.rule = rule
        self.gate = gate
        self.shared = shared
        self.fallback: Gate | None = None
        self.share = 1.0  # Of this replica, in the fallback.
        self.subject_of = subject_of(rule)
        self.max_wait = rule.max_wait if isinstance(rule, Limit) else 0.0
        self.max_waiting = rule.max_waiting if isinstance(rule, Limit) else 0

    def recovered(self) -> None:
        """The shared counters are back.

        A budget's next fallback begins with what they then hold. A limit's goes on with what it
        has admitted: else every short outage would admit the replica's share anew.
        """
        if isinstance(self.rule, Budget):
            self.fallback = None


def subject_of(rule: Limit | Budget) -> SubjectOf:
    """Tells whom a rule counts a demand for, None if it does not apply."""
    scope = _scope_of(rule.scope)
    return _matching(rule, scope) if rule.match else scope


def matches(patterns: Sequence[str], value: str) -> bool:
    """Whether a value is one of those that shell patterns describe."""
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def _scope_of(scope: str) -> SubjectOf:
    name_of = attrgetter(scope)
    if scope in TENANT_SCOPES:

        def in_tenant(demand: Demand) -> Subject | None:
            name = name_of(demand)
            return (demand.tenant, name) if name else None

        return in_tenant

    def alone(demand: Demand) -> Subject | None:
        name = name_of(demand)
        return ("", name) if name else None

    return alone


def _matching(rule: Limit | Budget, scope: SubjectOf) -> SubjectOf:
    fields = tuple(rule.match)
    patterns = tuple(rule.match.values())
    # A tuple of values even for one field.
    values_of = attrgetter(*fields, fields[0])
    known: dict[tuple[str, ...], bool] = {}

    def matched(demand: Demand) -> Subject | None:
        values = values_of(demand)
        verdict = known.get(values)
        if verdict is None:
            verdict = all(map(matches, patterns, values))
            if len(known) >= _MAX_MATCHES:
                known.clear()
            known[values] = verdict
        return scope(demand) if verdict else None

    return matched
