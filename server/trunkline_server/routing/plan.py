"""The decision: which deployments a call is tried on, and in which order.

Pure but for what is passed in: the same snapshot, health, time and seed give the same plan.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NoReturn

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.draws import PROBES, Case
from trunkline_server.routing.explain import decision, explain
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.pools import Pool, pool_of
from trunkline_server.routing.query import Query
from trunkline_server.routing.rules import TooSlow, broken_by
from trunkline_server.routing.snapshot import Deployment, Route, Snapshot
from trunkline_server.routing.strategies import STRATEGIES
from trunkline_server.routing.warm import warm_first

__all__ = ["Plan", "decision", "explain", "plan"]

# When more than this share of a pool may be unavailable, probing for the others is in vain.
_MOSTLY = 0.9

# Of so many unavailable ones the least bad is sought; of more, among a random sample.
_LEAST_BAD_OF = 64

# A refusal names so many of the rules that stand in its way.
_TOLD_RULES = 3

_NONE: frozenset[int] = frozenset()


@dataclass(slots=True)
class Plan:
    """The targets in the order in which they are tried. Nothing changes it once it is made.

    `candidate_count` counts those considered, the excluded ones included. `forced` says that
    everything was unavailable and the least bad is tried.
    """

    route: Route
    strategy: v1.Strategy.ValueType
    targets: tuple[Deployment, ...]
    candidate_count: int
    forced: bool
    pool: Pool
    query: Query


def plan(
    snapshot: Snapshot,
    query: Query,
    health: HealthTable,
    now: float,
    rng: Random,
    *,
    dry_run: bool = False,
    pool: Pool | None = None,
) -> Plan:
    """Orders up to the route's `max_targets` distinct deployments for a query.

    `now` is monotonic seconds. A dry run takes no turn in a rotation. `pool` is the query's, if
    it is known already.

    Raises MODEL_NOT_FOUND; AUTHORIZATION and INVALID_REQUEST as `pool_of` does;
    NO_ELIGIBLE_DEPLOYMENT, with the count of each exclusion reason as metadata, and as `rule`
    the names of the rules that its constraints stand for; and
    CONTEXT_LENGTH_EXCEEDED when that was the only one.
    """
    if pool is None:
        pool = pool_of(snapshot, query)
    if not pool.members:
        _raise_none_eligible(pool, query, 0)
    route = pool.route
    strategy = query.strategy or route.strategy or v1.STRATEGY_PRIORITY
    choose = STRATEGIES[strategy].choose
    want = 1 if query.no_fallback else route.max_targets
    blocked = health.blocked(now)
    ceiling = TooSlow(query, health, blocked) if query.max_latency_ms > 0 else None
    case = Case(
        pool, query, health, now, rng, want, blocked if ceiling is None else ceiling, not dry_run
    )
    targets: Sequence[Deployment] = ()
    if len(blocked) < _MOSTLY * len(pool.members):
        targets = choose(case)
    else:
        case.probes = 0
    if not case.probes:
        # Too many members are unfit: choose from those alone that are not.
        case.pool = pool.live(health, now) if ceiling is None else pool.without(ceiling)
        case.unfit, case.probes = _NONE, PROBES
        targets = choose(case) if case.pool.members else ()
    if query.warmth is not None and targets:
        targets = warm_first(case, targets, query.warmth)
    forced = not targets
    if not targets:
        targets = _least_bad(pool, case, ceiling)
    return Plan(route, strategy, tuple(targets), pool.considered, forced, pool, query)


def _least_bad(pool: Pool, case: Case, ceiling: TooSlow | None) -> list[Deployment]:
    """The unavailable members that are soonest available again, the more reliable first."""
    members: Sequence[Deployment] = pool.members
    if ceiling is not None:
        members = [row for row in members if not ceiling.slow(row.slot)]
        if not members:
            _raise_none_eligible(pool, case.query, len(pool.members))
    if len(members) > _LEAST_BAD_OF:
        count = len(members)
        places = dict.fromkeys(int(case.rng.random() * count) for _ in range(_LEAST_BAD_OF))
        members = [members[place] for place in places]
    health, now = case.health, case.now
    keys = [
        (health.open_remaining(row.slot, now), -health.success_rate(row.slot, now))
        for row in members
    ]
    order = sorted(range(len(members)), key=keys.__getitem__)
    return [members[place] for place in order[: case.want]]


def _raise_none_eligible(pool: Pool, query: Query, slow: int) -> NoReturn:
    counts = dict(pool.excluded)
    if slow:
        counts[v1.EXCLUSION_REASON_LATENCY] = slow
    if set(counts) == {v1.EXCLUSION_REASON_CONTEXT_LENGTH}:
        largest = max(row.context_tokens for row in pool.route.members)
        raise TrunklineError(
            v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
            f"{query.input_tokens + query.output_tokens} tokens exceed the largest context, "
            f"of {largest}",
            metadata={"model": query.model[:128], "context_tokens": str(largest)},
        )
    causes = {
        v1.ExclusionReason.Name(reason).removeprefix("EXCLUSION_REASON_").lower(): str(number)
        for reason, number in sorted(counts.items())
    }
    told = ", ".join(f"{name} {number}" for name, number in causes.items()) or "it has none"
    if v1.EXCLUSION_REASON_POLICY in counts:
        causes["rule"] = _broken(pool, query)
        told += f" ({causes['rule']})"
    raise TrunklineError(
        v1.ERROR_REASON_NO_ELIGIBLE_DEPLOYMENT,
        f"every deployment of the model is excluded: {told}",
        metadata=causes,
    )


def _broken(pool: Pool, query: Query) -> str:
    """The names of the rules that keep deployments out, the first few, by commas."""
    names: dict[str, None] = {}
    for row in pool.route.members:
        name = broken_by(row, query.constraints)
        if name:
            names[name] = None
            if len(names) == _TOLD_RULES:
                break
    return ", ".join(names)
