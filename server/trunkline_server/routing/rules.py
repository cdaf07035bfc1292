"""The filters that a query sets: those of the table, and the one of measured latency."""

from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

from trunkline import v1
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.query import Constraint, Query
from trunkline_server.routing.snapshot import Deployment


class Rule(NamedTuple):
    """One filter as one query sets it."""

    reason: v1.ExclusionReason.ValueType
    excludes: Callable[[Deployment], bool]
    detail: Callable[[Deployment], str]


def needed(query: Query) -> frozenset[str]:
    """The capabilities that a query demands, its kind and streaming among them."""
    asked = query.capabilities | {query.kind} if query.kind else query.capabilities
    return asked | {"streaming"} if query.stream else asked


def rules_of(query: Query, at: float) -> list[Rule]:
    """The static filters that a query sets, in the order in which they are reported."""
    rules = [
        Rule(
            v1.EXCLUSION_REASON_DISABLED,
            lambda row: not row.enabled,
            lambda _row: "it is switched off or being drained",
        )
    ]
    if query.allowed_providers or query.denied_providers:
        rules.append(_provider_rule(query))
    if query.constraints:
        rules.append(_policy_rule(query.constraints))
    rules.append(_capability_rule(needed(query)))
    tokens = query.input_tokens + query.output_tokens
    if tokens:
        rules.append(
            Rule(
                v1.EXCLUSION_REASON_CONTEXT_LENGTH,
                lambda row: 0 < row.context_tokens < tokens,
                lambda row: f"{tokens} tokens exceed its context of {row.context_tokens}",
            )
        )
    if query.data_residency:
        rules.append(_residency_rule(query.data_residency.lower()))
    if query.max_cost_per_token > 0:
        rules.append(_price_rule(query.max_cost_per_token, at))
    floor = query.min_quality
    if floor > 0:
        rules.append(
            Rule(
                v1.EXCLUSION_REASON_QUALITY,
                lambda row: row.quality < floor,
                lambda row: f"its quality of {row.quality:g} is below {floor:g}",
            )
        )
    return rules


def _provider_rule(query: Query) -> Rule:
    allowed, denied = frozenset(query.allowed_providers), frozenset(query.denied_providers)
    return Rule(
        v1.EXCLUSION_REASON_PROVIDER,
        lambda row: row.provider in denied or (bool(allowed) and row.provider not in allowed),
        lambda row: (
            f"provider {row.provider} is denied"
            if row.provider in denied
            else f"provider {row.provider} is not among the allowed"
        ),
    )


def broken_by(row: Deployment, constraints: Iterable[Constraint]) -> str:
    """The name of the first rule among constraints that keeps a deployment out, or empty."""
    for constraint in constraints:
        name = constraint.excludes(row)
        if name:
            return name
    return ""


def _policy_rule(constraints: tuple[Constraint, ...]) -> Rule:
    return Rule(
        v1.EXCLUSION_REASON_POLICY,
        lambda row: bool(broken_by(row, constraints)),
        lambda row: broken_by(row, constraints),
    )


def _capability_rule(names: frozenset[str]) -> Rule:
    return Rule(
        v1.EXCLUSION_REASON_CAPABILITY,
        lambda row: not names <= row.capabilities,
        lambda row: f"it lacks {', '.join(sorted(names - row.capabilities))}",
    )


def _residency_rule(residency: str) -> Rule:
    return Rule(
        v1.EXCLUSION_REASON_DATA_RESIDENCY,
        lambda row: residency not in row.residency,
        lambda row: (
            f"it processes data in {', '.join(sorted(row.residency))}, not in {residency}"
            if row.residency
            else f"where it processes data is not configured; {residency} is required"
        ),
    )


def _price_rule(ceiling: float, at: float) -> Rule:
    return Rule(
        v1.EXCLUSION_REASON_PRICE,
        lambda row: row.price is None or row.price.per_token(at) > ceiling,
        lambda row: (
            "its price is unknown and there is a ceiling"
            if row.price is None
            else f"up to {row.price.per_token(at):g} USD per token exceeds {ceiling:g}"
        ),
    )


class TooSlow:
    """The slots that are unavailable or have been slower than a query's ceiling.

    A deployment that is not yet measured is not slow.
    """

    __slots__ = ("_blocked", "_ceiling", "_known")

    def __init__(self, query: Query, health: HealthTable, blocked: Container[int]) -> None:
        self._blocked = blocked
        self._ceiling = query.max_latency_ms / 1000.0
        self._known = health.first_token if query.stream else health.latency

    def slow(self, slot: int) -> bool:
        known = self._known(slot)
        return known is not None and known > self._ceiling

    def __contains__(self, slot: object) -> bool:
        return slot in self._blocked or (isinstance(slot, int) and self.slow(slot))
