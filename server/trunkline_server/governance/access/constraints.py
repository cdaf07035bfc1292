"""What access rules ask of the deployment that serves a call, for routing to respect.

A rule on a region cannot be judged before routing has chosen, and choosing first only to refuse
would fail calls that another deployment could serve. Such rules become a Constraint: routing
leaves out what it excludes. Constraints are values: equal ones exclude the same, so that they
may stand in the key under which routing remembers its pools.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from trunkline_server.governance.patterns import any_of

Patterns = tuple[str, ...]


class Deployment(Protocol):
    """What rules may ask of a deployment; routing's own rows fit."""

    @property
    def name(self) -> str:
        """Its configured name."""
        ...

    @property
    def provider(self) -> str:
        """Its provider's configured name."""
        ...

    @property
    def model(self) -> str:
        """Its public model."""
        ...

    @property
    def region(self) -> str:
        """Where it is, or empty."""
        ...

    @property
    def residency(self) -> Collection[str]:
        """Where its data is processed, in lower case."""
        ...


@dataclass(frozen=True, slots=True)
class Traits:
    """Shell patterns that a deployment must fit, one of each that is given; none given is any.

    Of several residencies one has to fit.
    """

    provider: Patterns | None = None
    deployment: Patterns | None = None
    region: Patterns | None = None
    residency: Patterns | None = None
    model: Patterns | None = None

    @property
    def any(self) -> bool:
        """Whether every deployment fits."""
        return self == _ANY

    def fit(self, row: Deployment) -> bool:
        """Whether a deployment has these traits."""
        for patterns, values in (
            (self.provider, (row.provider,)),
            (self.deployment, (row.name,)),
            (self.region, (row.region,)),
            (self.residency, row.residency),
            (self.model, (row.model,)),
        ):
            if patterns is not None and not any(map(any_of(patterns), values)):
                return False
        return True


_ANY = Traits()


@dataclass(frozen=True, slots=True)
class Selection:
    """The deployments with some traits, without those with others."""

    traits: Traits
    unless: Traits | None = None

    @property
    def any(self) -> bool:
        """Whether it takes every deployment."""
        return self.traits.any and self.unless is None

    def takes(self, row: Deployment) -> bool:
        """Whether a deployment is among them."""
        return self.traits.fit(row) and (self.unless is None or not self.unless.fit(row))


@dataclass(frozen=True, slots=True)
class Clause:
    """One rule: a deployment must be in one of the selections, or, if `forbids`, in none."""

    rule: str
    selections: tuple[Selection, ...]
    forbids: bool = False

    def excludes(self, row: Deployment) -> bool:
        """Whether the rule keeps a deployment out."""
        return any(selection.takes(row) for selection in self.selections) is self.forbids


@dataclass(frozen=True, slots=True)
class Constraint:
    """All rules that a call puts on its deployment. The hash is computed once: routing looks its
    pools up by it at every call."""

    clauses: tuple[Clause, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(self.clauses))

    def __hash__(self) -> int:
        return self._hash

    def excludes(self, row: Deployment) -> str:
        """The first rule that keeps a deployment out, such as `policies[eu-only].deny`; empty
        if none does."""
        for clause in self.clauses:
            if clause.excludes(row):
                return clause.rule
        return ""
