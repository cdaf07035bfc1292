"""By observed success rate, best first; at random among equals.

Exact for pools of up to 12; beyond, the best of a random sample of 8. That keeps the cost
flat and spreads calls over the healthy part of a large pool.
"""

from collections.abc import Mapping, Sequence

from trunkline_server.routing.draws import Case, best_first, field_of
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.snapshot import Deployment, Route
from trunkline_server.routing.strategies.base import Direct


class HighestAvailability(Direct):
    def counts(self, _route: Route, /) -> Mapping[str, float]:
        return {"availability": 1.0}

    def pick(self, ready: Pool, case: Case, /) -> list[Deployment]:
        places = field_of(case)
        slots = [ready.slots[place] for place in places]
        return best_first(places, case.health.success_rates(slots, case.now), case)

    def scores(self, members: Sequence[Deployment], case: Case, /) -> list[float]:
        return case.health.success_rates([row.slot for row in members], case.now)
