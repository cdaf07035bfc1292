"""Data classification: what a label demands of masking and of where a call may go.

Pure functions over configured data. Labels are ordered: of several the strictest is the
call's, and what each of the laxer ones demands holds as well.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trunkline_server.errors import invalid

# The key of CallContext.labels that says what a call's data is.
LABEL_KEY = "data_classification"


@dataclass(frozen=True, slots=True)
class LabelPolicy:
    """One label's demands.

    `residency`: regions of which the data may be processed in any; empty: everywhere.
    `allowed_providers` empty: all but the denied. `raised_by`: types of personal data whose
    presence makes a call at least this label.
    """

    label: str
    mask: bool = False
    residency: frozenset[str] = frozenset()
    allowed_providers: frozenset[str] = frozenset()
    denied_providers: frozenset[str] = frozenset()
    may_cache: bool = True
    may_store_text: bool = True
    raised_by: frozenset[str] = frozenset()


# In order, the strictest last.
DEFAULT_LABELS: tuple[LabelPolicy, ...] = (
    LabelPolicy("public"),
    LabelPolicy("internal"),
    LabelPolicy("confidential", mask=True),
    LabelPolicy("restricted", mask=True, may_cache=False, may_store_text=False),
)


@dataclass(frozen=True, slots=True)
class Constraints:
    """What holds for one call. None of `residency` and `providers` restricts nothing; an empty
    set leaves nothing: the call can go nowhere."""

    label: str
    mask: bool
    residency: frozenset[str] | None
    providers: frozenset[str] | None
    denied_providers: frozenset[str]
    may_cache: bool
    may_store_text: bool

    def permits(self, provider: str, residency: frozenset[str]) -> bool:
        """Whether a deployment may take the call: `residency` is where it processes data. One
        that processes in several places may only use those that are permitted."""
        if provider in self.denied_providers:
            return False
        if self.providers is not None and provider not in self.providers:
            return False
        return self.residency is None or (bool(residency) and residency <= self.residency)


class Classification:
    """The configured labels."""

    def __init__(
        self, policies: Sequence[LabelPolicy] = DEFAULT_LABELS, default: str = "internal"
    ) -> None:
        """`default` is the label of calls that name none. Raises ValueError for labels that
        come twice and a default that is none of them."""
        self._ranks = {policy.label: rank for rank, policy in enumerate(policies)}
        self._policies = tuple(policies)
        if len(self._ranks) < len(policies):
            raise ValueError("a label is configured twice")
        if default not in self._ranks:
            raise ValueError(f"the default label {default!r} is not configured")
        self._default = default
        self._raising: Mapping[str, int] = {
            kind: rank for rank, policy in enumerate(policies) for kind in policy.raised_by
        }
        self._by_rank = tuple(
            _combined(policies[: rank + 1], policy) for rank, policy in enumerate(policies)
        )

    def constraints(self, labels: Mapping[str, str], found: Iterable[str] = ()) -> Constraints:
        """What holds for a call with these context labels, in which these types were found.

        Raises TrunklineError for a label that is not configured.
        """
        named = labels.get(LABEL_KEY) or self._default
        rank = self._ranks.get(named)
        if rank is None:
            raise invalid(
                f"context.labels[{LABEL_KEY}]",
                f"is no label; configured are {', '.join(self._ranks)}",
            )
        for kind in found:
            rank = max(rank, self._raising.get(kind, 0))
        return self._by_rank[rank]


def _combined(policies: Sequence[LabelPolicy], last: LabelPolicy) -> Constraints:
    """The demands of a label and of all laxer ones."""
    return Constraints(
        label=last.label,
        mask=any(policy.mask for policy in policies),
        residency=_common(policy.residency for policy in policies),
        providers=_common(policy.allowed_providers for policy in policies),
        denied_providers=frozenset().union(*(policy.denied_providers for policy in policies)),
        may_cache=all(policy.may_cache for policy in policies),
        may_store_text=all(policy.may_store_text for policy in policies),
    )


def _common(sets: Iterable[frozenset[str]]) -> frozenset[str] | None:
    """What is in all sets that are not empty; None if all are."""
    common: frozenset[str] | None = None
    for some in sets:
        if some:
            common = some if common is None else common & some
    return common
