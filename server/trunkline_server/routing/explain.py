"""Why a decision is as it is: every candidate with its score or its exclusion."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from trunkline import v1
from trunkline_server.routing.draws import Case
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.pools import in_scope, pool_of
from trunkline_server.routing.query import Query
from trunkline_server.routing.rules import Rule, TooSlow, rules_of
from trunkline_server.routing.snapshot import Deployment, Snapshot
from trunkline_server.routing.strategies import STRATEGIES

if TYPE_CHECKING:
    from trunkline_server.routing.plan import Plan

LIMIT = 100


class _Excluded(NamedTuple):
    row: Deployment
    reason: v1.ExclusionReason.ValueType
    detail: str


def explain(
    snapshot: Snapshot, query: Query, health: HealthTable, now: float, chosen: "Plan"
) -> list[v1.Candidate]:
    """The candidates of a plan just made: targets by rank, other eligible ones, excluded ones.

    The other eligible ones stand by score. At most 100 in all: of a larger route the first
    ones in its order, before they are sorted.
    """
    targets = chosen.targets
    planned = {id(row) for row in targets}
    room = max(LIMIT - len(targets), 0)
    others: list[Deployment] = []
    excluded: list[_Excluded] = []
    rules = rules_of(query, snapshot.built_at)
    ceiling = TooSlow(query, health, health.blocked(now)) if query.max_latency_ms > 0 else None
    for _, row in in_scope(snapshot, query, chosen.route):
        if id(row) in planned:
            continue
        if len(others) >= room:
            break
        exclusion = _static(row, rules) or _dynamic(row, query, health, now, ceiling)
        if exclusion is None:
            others.append(row)
        elif len(excluded) < room:
            excluded.append(exclusion)
    field = [*targets, *others]
    # Nothing is drawn here: scores are the part of a strategy that needs no luck.
    case = Case(pool_of(snapshot, query), query, health, now, Random(0), 0, frozenset())  # noqa: S311 - see above.
    strategy = STRATEGIES[chosen.strategy]
    counts = strategy.counts(chosen.route)
    answer = []
    for row, score in zip(field, strategy.scores(field, case), strict=True):
        candidate = _candidate(snapshot, query, health, now, row)
        candidate.score = score
        candidate.parts.extend(_parts(candidate, row, case, counts))
        answer.append(candidate)
    answer[len(targets) :] = sorted(answer[len(targets) :], key=lambda row: -row.score)
    for rank, candidate in enumerate(answer[: len(targets)], 1):
        candidate.rank = rank
    for row, reason, detail in excluded[: LIMIT - len(answer)]:
        candidate = _candidate(snapshot, query, health, now, row)
        candidate.exclusion.reason = reason
        candidate.exclusion.detail = detail
        answer.append(candidate)
    return answer


def decision(snapshot: Snapshot, query: Query, chosen: "Plan", target: Deployment) -> v1.Decision:
    """The decision for one target of a plan, without candidates."""
    return v1.Decision(
        provider=target.provider,
        deployment=target.name,
        provider_model=target.provider_model,
        model=query.model if query.model in snapshot.models else target.model,
        route=chosen.route.name,
        strategy=chosen.strategy,
        snapshot_version=snapshot.version,
        estimated_cost=_estimate(snapshot, query, target),
        candidate_count=chosen.candidate_count,
    )


def _static(row: Deployment, rules: Sequence[Rule]) -> _Excluded | None:
    for rule in rules:
        if rule.excludes(row):
            return _Excluded(row, rule.reason, rule.detail(row))
    return None


def _dynamic(
    row: Deployment, query: Query, health: HealthTable, now: float, ceiling: TooSlow | None
) -> _Excluded | None:
    slot = row.slot
    if ceiling is not None and ceiling.slow(slot):
        seconds = (health.first_token(slot) if query.stream else health.latency(slot)) or 0.0
        return _Excluded(
            row,
            v1.EXCLUSION_REASON_LATENCY,
            f"{seconds * 1000:.0f} ms {'to the first token ' if query.stream else ''}"
            f"exceed {query.max_latency_ms} ms",
        )
    if health.available(slot, now):
        return None
    pause = health.cooldown_remaining(slot, now)
    state = health.state(slot, now)
    if state == v1.CIRCUIT_STATE_OPEN:
        left = health.open_remaining(slot, now)
        detail = f"its circuit breaker is open for another {left:.1f} s"
    elif pause > 0:
        detail = f"it asked for a pause that lasts another {pause:.1f} s"
        return _Excluded(row, v1.EXCLUSION_REASON_COOLDOWN, detail)
    else:
        detail = "its circuit breaker is half-open and all trial calls are under way"
    return _Excluded(row, v1.EXCLUSION_REASON_CIRCUIT_OPEN, detail)


def _candidate(
    snapshot: Snapshot, query: Query, health: HealthTable, now: float, row: Deployment
) -> v1.Candidate:
    return v1.Candidate(
        provider=row.provider,
        deployment=row.name,
        provider_model=row.provider_model,
        region=row.region,
        estimated_cost=_estimate(snapshot, query, row),
        circuit_state=health.state(row.slot, now),
    )


def _estimate(snapshot: Snapshot, query: Query, row: Deployment) -> v1.Cost:
    """What the request costs there at most; a charge per request is in the total alone."""
    if row.price is None:
        return v1.Cost(unpriced=True, estimated=True)
    at, inputs = snapshot.built_at, query.input_tokens
    total = row.price.estimate(inputs, query.output_tokens, at)
    without_output = row.price.estimate(inputs, 0, at)
    return v1.Cost(
        input=without_output - row.price.estimate(0, 0, at),
        output=total - without_output,
        total=total,
        estimated=True,
    )


def _parts(
    candidate: v1.Candidate, row: Deployment, case: Case, counts: Mapping[str, float]
) -> list[v1.ScorePart]:
    """What is known of a candidate, each with its own unit; what is unknown is left out."""
    health, slot, stream = case.health, row.slot, case.query.stream
    latency = health.first_token(slot) if stream else health.latency(slot)
    values: dict[str, float] = {}
    if not candidate.estimated_cost.unpriced:
        values["cost"] = candidate.estimated_cost.total
    if latency is not None:
        values["latency"] = latency * 1000.0
    values["availability"] = health.success_rate(slot, case.now)
    values["quality"] = row.quality
    values["weight"] = row.weight
    values["priority"] = row.priority
    values["in_flight"] = health.in_flight(slot)
    values["unneeded_capabilities"] = len(row.capabilities - case.pool.needed)
    return [
        v1.ScorePart(name=name, value=value, weight=counts.get(name, 0.0))
        for name, value in values.items()
    ]
