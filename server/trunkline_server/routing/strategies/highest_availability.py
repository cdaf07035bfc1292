"""By observed success rate, best first; at random among equals.

Exact for pools of up to 16; beyond, the best of a random sample of 12. That keeps the cost
flat and spreads calls over the healthy part of a large pool.
"""

from collections.abc import Mapping, Sequence

from trunkline_server.routing.draws import Case, field_of
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.snapshot import Deployment, Route
from trunkline_server.routing.strategies.base import Direct


class HighestAvailability(Direct):
    def counts(self, _route: Route, /) -> Mapping[str, float]:
        return {"availability": 1.0}

    def pick(self, ready: Pool, case: Case, /) -> list[Deployment]:
        field = field_of(case)
        return best_first(field, self.scores(field, case), case)

    def scores(self, members: Sequence[Deployment], case: Case, /) -> list[float]:
        rate, now = case.health.success_rate, case.now
        return [rate(row.slot, now) for row in members]


def best_first(
    members: Sequence[Deployment], scores: Sequence[float], case: Case
) -> list[Deployment]:
    """The wanted number of members by score, the highest first; at random among equals."""
    chance = case.rng.random
    keys = [(-score, chance()) for score in scores]
    order = sorted(range(len(members)), key=keys.__getitem__)
    return [members[place] for place in order[: case.want]]
