"""By a weighted score of cost, latency, availability and quality, each from 0 to 1.

Cost and latency are measured against the best of the candidates compared: half the score at
twice the best. An unpriced candidate scores 0 for cost; an unmeasured one 1 for latency, so
that it is measured. Exact for pools of up to 12; beyond, the best of a random sample of 8.
"""

from array import array
from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

from trunkline_server.routing.costs import Tariffs, sizes
from trunkline_server.routing.draws import Case, best_first, field_of
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.snapshot import Deployment, Route
from trunkline_server.routing.strategies.base import Strategy


class _Ready(NamedTuple):
    """What scoring reads of a pool's members beside their slots, by their places."""

    weights: tuple[float, float, float, float]
    tariffs: Tariffs
    qualities: "array[float]"


class Balanced(Strategy[_Ready]):
    def counts(self, route: Route, /) -> Mapping[str, float]:
        balance = route.balance
        return {
            "cost": balance.cost,
            "latency": balance.latency,
            "availability": balance.availability,
            "quality": balance.quality,
        }

    def prepare(self, pool: Pool) -> _Ready:
        balance = pool.route.balance
        return _Ready(
            (balance.cost, balance.latency, balance.availability, balance.quality),
            Tariffs(pool.members, pool.priced_at),
            array("d", [row.quality for row in pool.members]),
        )

    def pick(self, ready: _Ready, case: Case, /) -> list[Deployment]:
        places = field_of(case)
        if not places:
            return []
        slots: Sequence[int] = case.pool.slots
        qualities: Sequence[float] = ready.qualities
        if len(places) < len(slots):
            slots = [slots[place] for place in places]
            qualities = [qualities[place] for place in places]
        costs = ready.tariffs.costs(places, *sizes(case))
        return best_first(places, _scores(ready.weights, costs, slots, qualities, case), case)

    def scores(self, members: Sequence[Deployment], case: Case, /) -> list[float]:
        if not members:
            return []
        ready = self.ready(case.pool)
        costs = ready.tariffs.costs_of(members, *sizes(case))
        slots = [row.slot for row in members]
        return _scores(ready.weights, costs, slots, [row.quality for row in members], case)


def _scores(
    weights: tuple[float, float, float, float],
    costs: Sequence[float],
    slots: Sequence[int],
    qualities: Sequence[float],
    case: Case,
) -> list[float]:
    by_cost, by_latency, by_rate, by_quality = weights
    health, now = case.health, case.now
    loads = health.loads(slots, now, case.query.stream)
    rates = health.success_rates(slots, now)
    least = min(costs)
    cheapest = by_cost * least if least < inf else 0.0
    quickest = by_latency * min(filter(None, loads), default=0.0)
    return [
        (cheapest / cost if cost else by_cost)
        + (quickest / load if load else by_latency)
        + by_rate * rate
        + by_quality * quality
        for cost, load, rate, quality in zip(costs, loads, rates, qualities, strict=True)
    ]
