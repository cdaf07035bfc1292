"""Why a decision is as it is: every candidate with its score or its exclusion."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from trunkline import v1
from trunkline_server.routing.draws import Case
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.pools import Pool, in_scope
from trunkline_server.routing.query import Query
from trunkline_server.routing.rules import Rule, TooSlow, rules_of
from trunkline_server.routing.snapshot import Deployment, Snapshot
from trunkline_server.routing.strategies import STRATEGIES

if TYPE_CHECKING:
    from trunkline_server.routing.plan import Plan

LIMIT = 100

# So many decisions a pool keeps ready: a large pool has many targets, each chosen seldom.
_CARDS = 1_024

# So many candidates' cards a snapshot keeps for each strategy, or twice as many as it has
# deployments: models that are passed through are unbounded in number.
_CANDIDATES = 4_096

_NO_LUCK = Random(0)  # noqa: S311 - never drawn from
_SCORE = itemgetter(0)

# What the request costs at most by price (its identity): the candidates of a call share few.
_Costs = dict[int, tuple[int, int, int]]


class _Excluded(NamedTuple):
    row: Deployment
    reason: v1.ExclusionReason.ValueType
    detail: str


def explain(
    snapshot: Snapshot, health: HealthTable, now: float, chosen: "Plan", *, in_full: bool = False
) -> list[v1.Candidate]:
    """The candidates of a plan just made: targets by rank, other eligible ones, excluded ones.

    The other eligible ones stand by score. At most 100 in all: of a larger route the first
    ones in its order, before they are sorted. Scores come with the parts they are made of;
    `in_full` adds what else is known of each candidate, with a weight of zero.
    """
    response = v1.RouteResponse()
    explain_into(response, snapshot, health, now, chosen, in_full=in_full)
    return list(response.candidates)


def explain_into(
    response: v1.RouteResponse,
    snapshot: Snapshot,
    health: HealthTable,
    now: float,
    chosen: "Plan",
    *,
    in_full: bool = False,
) -> None:
    """Writes the candidates straight into a response, which spares copying each of them."""
    query, targets = chosen.query, chosen.targets
    if chosen.pool.excluded or query.max_latency_ms > 0 or health.blocked(now):
        others, excluded = _apart(snapshot, health, now, chosen)
    else:
        others, excluded = _others(chosen), []
    # Nothing is drawn here: scores are the part of a strategy that needs no luck.
    case = Case(chosen.pool, query, health, now, _NO_LUCK, 0, frozenset())
    strategy = STRATEGIES[chosen.strategy]
    # The cards of a fixed strategy hold scores and parts: scores are needed only to sort by.
    fixed = strategy.fixed and not in_full
    field = [*targets, *others]
    needed = not fixed or len(others) > 1
    scores = strategy.scores(field, case) if needed else [0.0] * len(field)
    scored = _in_order(scores, field, len(targets))
    counts = {} if fixed else strategy.counts(chosen.route)
    cards = snapshot.cards[chosen.strategy if fixed else v1.STRATEGY_UNSPECIFIED]
    costs: _Costs = {}
    add = response.candidates.add
    for rank, (score, row) in enumerate(scored, 1):
        candidate = add()
        card = cards.get(row.name)
        if card is None:
            card = _keep(_card(row), cards, snapshot)
            if fixed:
                (card.score,) = strategy.scores([row], case)
                weights = strategy.counts(chosen.route)
                _add_parts(card, row, case, weights, weights)
        candidate.CopyFrom(card)
        _update(candidate, row, case, costs)
        if rank <= len(targets):
            candidate.rank = rank
        if not fixed:
            candidate.score = score
            _add_parts(candidate, row, case, _PARTS if in_full else counts, counts)
    cards = snapshot.cards[v1.STRATEGY_UNSPECIFIED]
    for row, reason, detail in excluded[: LIMIT - len(scored)]:
        candidate = add()
        candidate.CopyFrom(cards.get(row.name) or _keep(_card(row), cards, snapshot))
        _update(candidate, row, case, costs)
        candidate.exclusion.reason = reason
        candidate.exclusion.detail = detail


def repeats(pool: Pool, query: Query) -> bool:
    """Whether decision and candidates, unless they are told in full, are the same for the same
    targets as long as all members of the pool are sound."""
    strategy = query.strategy or pool.route.strategy or v1.STRATEGY_PRIORITY
    moves = not STRATEGIES[strategy].fixed or query.max_latency_ms > 0
    return not (moves or pool.excluded)


def decision(snapshot: Snapshot, chosen: "Plan", target: Deployment) -> v1.Decision:
    """The decision for one target of a plan, without candidates."""
    made = v1.Decision()
    decide_into(made, snapshot, chosen, target)
    return made


def decide_into(made: v1.Decision, snapshot: Snapshot, chosen: "Plan", target: Deployment) -> None:
    """Writes the decision into an empty message.

    All but the amounts is the same for every call of the pool, and kept there.
    """
    query, cards = chosen.query, chosen.pool.cards
    card = cards.get((target.name, chosen.strategy))
    if card is None:
        card = v1.Decision(
            provider=target.provider,
            deployment=target.name,
            provider_model=target.provider_model,
            model=query.model if query.model in snapshot.models else target.model,
            route=chosen.route.name,
            strategy=chosen.strategy,
            snapshot_version=snapshot.version,
            candidate_count=chosen.candidate_count,
            estimated_cost=_no_amounts(target),
        )
        if len(cards) < _CARDS:
            cards[target.name, chosen.strategy] = card
    made.CopyFrom(card)
    price = target.price
    if price is not None and query.units is not None:
        made.estimated_cost.total = price.most(query.units, snapshot.built_at)
    elif price is not None:
        cost = made.estimated_cost
        cost.input, cost.output, cost.total = price.estimate_parts(
            query.input_tokens, query.output_tokens, snapshot.built_at
        )


def _in_order(
    scores: Sequence[float], field: Sequence[Deployment], targets: int
) -> list[tuple[float, Deployment]]:
    """So many targets as they stand, then the others by score."""
    scored = list(zip(scores, field, strict=True))
    if len(scored) > targets + 1:
        # Stable: equal scores stay in the route's order.
        scored[targets:] = sorted(scored[targets:], key=_SCORE, reverse=True)
    return scored


def _others(chosen: "Plan") -> list[Deployment]:
    """The members of a pool beside the targets, when all of them are eligible."""
    members = chosen.pool.members
    if len(chosen.targets) == len(members):
        return []
    planned = {id(row) for row in chosen.targets}
    rest = (row for row in members if id(row) not in planned)
    return list(islice(rest, max(LIMIT - len(planned), 0)))


def _apart(
    snapshot: Snapshot, health: HealthTable, now: float, chosen: "Plan"
) -> tuple[list[Deployment], list[_Excluded]]:
    """The eligible candidates beside the targets, and the excluded ones with their reasons."""
    query = chosen.query
    planned = {id(row) for row in chosen.targets}
    room = max(LIMIT - len(planned), 0)
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
    return others, excluded


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
    elif (used_up := health.used_up(slot, now))[0]:
        kind, seconds = used_up
        what = kind.replace("_", " ")
        detail = f"its vendor said that its {what} are used up for another {seconds:.1f} s"
        return _Excluded(row, v1.EXCLUSION_REASON_QUOTA, detail)
    else:
        detail = "its circuit breaker is half-open and all trial calls are under way"
    return _Excluded(row, v1.EXCLUSION_REASON_CIRCUIT_OPEN, detail)


def _card(row: Deployment) -> v1.Candidate:
    """What a candidate says while its circuit is closed, without the amounts of its cost."""
    return v1.Candidate(
        provider=row.provider,
        deployment=row.name,
        provider_model=row.provider_model,
        region=row.region,
        circuit_state=v1.CIRCUIT_STATE_CLOSED,
        estimated_cost=_no_amounts(row),
    )


def _no_amounts(row: Deployment) -> v1.Cost:
    return v1.Cost(estimated=True, unpriced=row.price is None)


def _keep(card: v1.Candidate, cards: dict[str, v1.Candidate], snapshot: Snapshot) -> v1.Candidate:
    if len(cards) >= max(_CANDIDATES, 2 * len(snapshot.deployments)):
        cards.clear()
    cards[card.deployment] = card
    return card


def _update(candidate: v1.Candidate, row: Deployment, case: Case, costs: _Costs) -> None:
    """Writes what is of this moment and this request into the copy of a card."""
    state = case.health.state(row.slot, case.now)
    if state != v1.CIRCUIT_STATE_CLOSED:
        candidate.circuit_state = state
    price = row.price
    if price is None:
        return
    amounts = costs.get(id(price))
    if amounts is None:
        query = case.query
        amounts = costs[id(price)] = price.estimate_parts(
            query.input_tokens, query.output_tokens, case.pool.priced_at
        )
    cost = candidate.estimated_cost
    cost.input, cost.output, cost.total = amounts


def _add_parts(
    candidate: v1.Candidate,
    row: Deployment,
    case: Case,
    names: Iterable[str],
    counts: Mapping[str, float],
) -> None:
    """What is known of a candidate, each with its own unit; what is unknown is left out."""
    add = candidate.parts.add
    for name in names:
        value = _PARTS[name](candidate, row, case)
        if value is not None:
            add(name=name, value=value, weight=counts.get(name, 0.0))


def _latency(_candidate: v1.Candidate, row: Deployment, case: Case) -> float | None:
    health = case.health
    known = health.first_token(row.slot) if case.query.stream else health.latency(row.slot)
    return None if known is None else known * 1000.0


def _cost(candidate: v1.Candidate, _row: Deployment, _case: Case) -> float | None:
    cost = candidate.estimated_cost
    return None if cost.unpriced else float(cost.total)


def _tokens_left(left: Mapping[str, float]) -> float | None:
    """Of several kinds the one of which least is left."""
    return min((amount for kind, amount in left.items() if kind != "requests"), default=None)


# Every ingredient that a score may have, in its own unit; None where it is unknown.
_PARTS: Mapping[str, Callable[[v1.Candidate, Deployment, Case], float | None]] = {
    "cost": _cost,
    "latency": _latency,
    "availability": lambda _, row, case: case.health.success_rate(row.slot, case.now),
    "quality": lambda _, row, _case: row.quality,
    "weight": lambda _, row, _case: row.weight,
    "priority": lambda _, row, _case: row.priority,
    "in_flight": lambda _, row, case: case.health.in_flight(row.slot),
    "requests_left": lambda _, row, case: case.health.quota_left(row.slot, case.now).get(
        "requests"
    ),
    "tokens_left": lambda _, row, case: _tokens_left(case.health.quota_left(row.slot, case.now)),
    "unneeded_capabilities": lambda _, row, case: len(row.capabilities - case.pool.needed),
}
