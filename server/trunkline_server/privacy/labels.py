"""Data classification: what a label demands of masking and of where a call may go.

Pure functions over configured data. Labels are ordered: of several the strictest is the
call's, and what each of the laxer ones demands holds as well.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from trunkline_server.errors import invalid

# The key of CallContext.labels that says what a call's data is.
LABEL_KEY = "data_classification"


class Place(Protocol):
    """What labels ask of a deployment; routing's own rows fit."""

    @property
    def provider(self) -> str:
        """Its provider's configured name."""
        ...

    @property
    def residency(self) -> Collection[str]:
        """Where it processes data, in lower case."""
        ...


@dataclass(frozen=True, slots=True)
class LabelPolicy:
    """One label's demands.

    `residency`: regions of which the data may be processed in any; empty: everywhere.
    `allowed_providers` empty: all but the denied. Without `may_store_text` answers are not
    cached either. `raised_by`: types of personal data whose presence makes a call at least
    this label.
    """

    label: str
    mask: bool = False
    residency: frozenset[str] = frozenset()
    allowed_providers: frozenset[str] = frozenset()
    denied_providers: frozenset[str] = frozenset()
    may_cache: bool = True
    may_store_text: bool = True
    raised_by: frozenset[str] = frozenset()

    @property
    def restricts(self) -> bool:
        """Whether a deployment may have to be left out."""
        return bool(self.residency or self.allowed_providers or self.denied_providers)

    def excludes(self, row: Place) -> str:
        """The name of the demand that keeps a deployment out, such as
        `labels[restricted].residency`; empty if none does.

        One that processes data in several places may only use those that are permitted, and
        one of which that is not known may not be used where it counts.
        """
        if row.provider in self.denied_providers:
            return f"labels[{self.label}].denied_providers"
        if self.allowed_providers and row.provider not in self.allowed_providers:
            return f"labels[{self.label}].allowed_providers"
        if self.residency and not (row.residency and self.residency.issuperset(row.residency)):
            return f"labels[{self.label}].residency"
        return ""


class Fence:
    """Where calls of one label may go; a routing.query.Constraint.

    Equal to itself alone: there is one for each label, for as long as a configuration is in
    force, and its hash costs nothing.
    """

    __slots__ = ("_policies",)

    def __init__(self, policies: Iterable[LabelPolicy]) -> None:
        self._policies = tuple(policies)

    def excludes(self, row: Place) -> str:
        """The name of the demand that keeps a deployment out; empty if none does."""
        for policy in self._policies:
            name = policy.excludes(row)
            if name:
                return name
        return ""


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """What holds for calls of one label: its demands and those of all laxer ones.

    `examines` says that the text of a call has to be searched: to mask it, or because what is
    found may raise the call to a stricter label. `constraints` has a Fence, or nothing.
    """

    label: str
    rank: int
    mask: bool
    may_cache: bool
    may_store_text: bool
    examines: bool
    constraints: tuple[Fence, ...]


class Classification:
    """The configured labels, the strictest last."""

    def __init__(self, policies: Sequence[LabelPolicy], default: str) -> None:
        """`default` is the label of calls that name none. Raises ValueError for labels that
        come twice and a default that is none of them."""
        levels = [_level(policies, rank) for rank in range(len(policies))]
        self._levels = {level.label: level for level in levels}
        if len(self._levels) < len(policies):
            raise ValueError("a label is configured twice")
        if default not in self._levels:
            raise ValueError(f"the default label {default!r} is not configured")
        self.default = self._levels[default]
        self._raising = {
            kind: level
            for policy, level in zip(policies, levels, strict=True)
            for kind in policy.raised_by
        }

    @property
    def levels(self) -> Collection[Level]:
        """All of them, the strictest last."""
        return self._levels.values()

    def level(self, labels: Mapping[str, str]) -> Level:
        """What holds for a call with these context labels.

        Raises TrunklineError for a label that is not configured.
        """
        named = labels.get(LABEL_KEY)
        if not named:
            return self.default
        level = self._levels.get(named)
        if level is None:
            raise invalid(
                f"context.labels[{LABEL_KEY}]",
                f"is no label; configured are {', '.join(self._levels)}",
            )
        return level

    def raised(self, level: Level, found: Iterable[str]) -> Level:
        """What holds once these types of personal data were found in a call: never less."""
        for kind in found:
            other = self._raising.get(kind)
            if other is not None and other.rank > level.rank:
                level = other
        return level


def _level(policies: Sequence[LabelPolicy], rank: int) -> Level:
    """The demands of a label and of all laxer ones."""
    own, stricter = policies[: rank + 1], policies[rank + 1 :]
    mask = any(policy.mask for policy in own)
    may_store_text = all(policy.may_store_text for policy in own)
    # The label's own demand is told before that of a laxer one which is broken too.
    restricting = [policy for policy in reversed(own) if policy.restricts]
    return Level(
        label=policies[rank].label,
        rank=rank,
        mask=mask,
        may_cache=may_store_text and all(policy.may_cache for policy in own),
        may_store_text=may_store_text,
        examines=mask or any(policy.raised_by for policy in stricter),
        constraints=(Fence(restricting),) if restricting else (),
    )
