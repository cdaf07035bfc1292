"""Which deployments of a route a query may use: its static filters, remembered.

The filters that do not change with time make a `Pool`. Pools are remembered in the snapshot
under a key that says exactly which deployments pass: of the context, price and quality a
query asks for, only the place among the route's own values matters.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import not_
from typing import Any, NamedTuple, TypeAlias

from trunkline import v1
from trunkline_server.errors import TrunklineError, Violation, invalid_fields
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.query import Query
from trunkline_server.routing.rules import needed, rules_of
from trunkline_server.routing.snapshot import Deployment, Route, Snapshot, near

PoolKey: TypeAlias = tuple[Hashable, ...]


class RouteIndex(NamedTuple):
    """A route and the distinct values, ascending, that its filters compare with."""

    route: Route
    contexts: Sequence[int]
    prices: Sequence[float]
    qualities: Sequence[float]


@dataclass(slots=True, eq=False)
class Pool:
    """The members of a route that pass the static filters, in the route's order.

    `slots` are those of the members, side by side for decisions that read many of them;
    `positions` are their places among the route's members. `needed` are the capabilities
    that were asked for. `considered` counts the candidates before the filters, `excluded`
    those that each rule took. `prepared` is what strategies compute once per pool, and
    `cards` what decisions for a target say whatever the call, by its name and the strategy.
    """

    key: PoolKey
    route: Route
    members: tuple[Deployment, ...]
    slots: "array[int]"
    positions: Sequence[int]
    needed: frozenset[str]
    priced_at: float
    considered: int
    excluded: Mapping[v1.ExclusionReason.ValueType, int]
    prepared: dict[object, Any] = field(default_factory=dict)
    cards: dict[tuple[str, int], v1.Decision] = field(default_factory=dict)
    _live: "tuple[HealthTable, int, Pool] | None" = None

    def without(self, unfit: Container[int]) -> "Pool":
        """The pool without the members whose slots are unfit.

        One pass over the members, in C when `unfit` is a set: 10,000 take about 0.5 ms.
        """
        fit = list(map(not_, map(unfit.__contains__, self.slots)))
        return Pool(
            key=self.key,
            route=self.route,
            members=tuple(compress(self.members, fit)),
            slots=array("q", compress(self.slots, fit)),
            positions=tuple(compress(self.positions, fit)),
            needed=self.needed,
            priced_at=self.priced_at,
            considered=self.considered,
            excluded=self.excluded,
        )

    def live(self, health: HealthTable, now: float) -> "Pool":
        """The pool without its unavailable members, remembered until one more or less is."""
        blocked = health.blocked(now)
        live = self._live
        if live is None or live[0] is not health or live[1] != health.epoch:
            live = self._live = (health, health.epoch, self.without(blocked))
        return live[2]


def pool_of(snapshot: Snapshot, query: Query) -> Pool:
    """The pool of a query.

    Raises MODEL_NOT_FOUND; AUTHORIZATION when the caller's key may use none of the route's
    models; INVALID_REQUEST for a capability or provider that the snapshot does not know.
    """
    model = query.model
    index = snapshot.indexes.get(model)
    if index is None:
        index = _index(snapshot, query)
    tokens = query.input_tokens + query.output_tokens
    ceiling, quality, residency = (
        query.max_cost_per_token,
        query.min_quality,
        query.data_residency,
    )
    key = (
        model,
        query.kind,
        query.stream,
        query.capabilities,
        bisect_left(index.contexts, tokens) if tokens else 0,
        bisect_right(index.prices, ceiling) if ceiling > 0 else -1,
        bisect_left(index.qualities, quality) if quality > 0 else 0,
        residency.lower() if residency else "",
        query.allowed_providers,
        query.denied_providers,
        query.models,
        query.constraints,
    )
    pool = snapshot.pools.get(key)
    if pool is None:
        pool = _build(snapshot, query, index.route, key)
        snapshot.pools.put(key, pool, 1 + len(pool.members))
    return pool


def _index(snapshot: Snapshot, query: Query) -> RouteIndex:
    route = snapshot.resolve(query.model, query.models)
    at = snapshot.built_at
    index = RouteIndex(
        route,
        sorted({row.context_tokens for row in route.members if row.context_tokens}),
        sorted({row.price.per_token(at) for row in route.members if row.price is not None}),
        sorted({row.quality for row in route.members}),
    )
    snapshot.indexes.put(query.model, index)
    return index


def _build(snapshot: Snapshot, query: Query, route: Route, key: PoolKey) -> Pool:
    _check_names(snapshot, query)
    candidates = list(in_scope(snapshot, query, route))
    if route.members and not candidates:
        raise TrunklineError(
            v1.ERROR_REASON_AUTHORIZATION,
            "the caller's key may not use this model",
            metadata={"model": query.model[:128], "rule": "models"},
        )
    rules = rules_of(query, snapshot.built_at)
    members: list[Deployment] = []
    positions: list[int] = []
    excluded: Counter[v1.ExclusionReason.ValueType] = Counter()
    for position, row in candidates:
        for rule in rules:
            if rule.excludes(row):
                excluded[rule.reason] += 1
                break
        else:
            members.append(row)
            positions.append(position)
    return Pool(
        key=key,
        route=route,
        members=tuple(members) if len(members) < len(route.members) else route.members,
        slots=array("q", [row.slot for row in members]),
        positions=positions if len(members) < len(route.members) else range(len(members)),
        needed=needed(query),
        priced_at=snapshot.built_at,
        considered=len(candidates),
        excluded=dict(excluded),
    )


def in_scope(snapshot: Snapshot, query: Query, route: Route) -> Iterable[tuple[int, Deployment]]:
    """The members that the caller's key may use, each with its place in the route.

    A key that names the requested model may use the whole of that model's route; otherwise
    each member's own public model decides. Others are not candidates and are never shown.
    """
    members = enumerate(route.members)
    allowed = query.models
    if allowed is None or (query.model in snapshot.models and query.model in allowed):
        return members
    if query.model in snapshot.models:
        return ()
    return ((position, row) for position, row in members if row.model in allowed)


def _check_names(snapshot: Snapshot, query: Query) -> None:
    """Raises INVALID_REQUEST for names that nothing in the snapshot carries."""
    violations = [
        _unknown("requirements.capabilities", "capability", name, snapshot.capabilities)
        for name in sorted(query.capabilities - snapshot.capabilities)
    ]
    for field_name, names in (
        ("routing.allowed_providers", query.allowed_providers),
        ("routing.denied_providers", query.denied_providers),
    ):
        violations += [
            _unknown(f"{field_name}[{place}]", "provider", name, snapshot.provider_names)
            for place, name in enumerate(names)
            if name not in snapshot.provider_names
        ]
    if violations:
        raise invalid_fields(violations)


def _unknown(path: str, kind: str, name: str, known: frozenset[str]) -> Violation:
    matches = ", ".join(near(name, known))
    hint = f"; did you mean {matches}?" if matches else ""
    return Violation(path, f"no {kind} is called {name[:64]!r}{hint}")
