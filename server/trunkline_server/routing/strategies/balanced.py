"""By a weighted score of cost, latency, availability and quality, each from 0 to 1.

Cost and latency are measured against the best of the candidates compared: half the score at
twice the best. An unpriced candidate scores 0 for cost; an unmeasured one 1 for latency, so
that it is measured. Exact for pools of up to 16; beyond, the best of a random sample of 12.
"""

from collections.abc import Mapping, Sequence

from trunkline_server.routing.draws import Case, field_of
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.snapshot import Deployment, Route
from trunkline_server.routing.strategies.base import Direct
from trunkline_server.routing.strategies.highest_availability import best_first
from trunkline_server.routing.strategies.lowest_cost import sizes


class Balanced(Direct):
    def counts(self, route: Route, /) -> Mapping[str, float]:
        balance = route.balance
        return {
            "cost": balance.cost,
            "latency": balance.latency,
            "availability": balance.availability,
            "quality": balance.quality,
        }

    def pick(self, ready: Pool, case: Case, /) -> list[Deployment]:
        field = field_of(case)
        return best_first(field, self.scores(field, case), case)

    def scores(self, members: Sequence[Deployment], case: Case, /) -> list[float]:
        pool, health, now = case.pool, case.health, case.now
        balance = pool.route.balance
        inputs, outputs = sizes(case)
        at, stream = pool.priced_at, case.query.stream
        costs = [
            None if row.price is None else row.price.estimate(inputs, outputs, at)
            for row in members
        ]
        loads = [health.load(row.slot, now, stream) for row in members]
        cheapest = min([cost for cost in costs if cost is not None], default=0)
        quickest = min([load for load in loads if load], default=0.0)
        return [
            (0.0 if cost is None else balance.cost * (cheapest / cost if cost else 1.0))
            + balance.latency * (quickest / load if load else 1.0)
            + balance.availability * health.success_rate(row.slot, now)
            + balance.quality * row.quality
            for row, cost, load in zip(members, costs, loads, strict=True)
        ]
