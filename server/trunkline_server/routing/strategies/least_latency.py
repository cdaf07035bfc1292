"""The better of two random ones, by peak-sensitive latency and load.

Two choices keep a herd from running to the one best deployment, which is no longer the best
when the herd arrives. The loser stays in the race against another random one for the next
place in the plan. Unmeasured deployments win, so that they are measured.
"""

from collections.abc import Mapping, Sequence

from trunkline_server.routing.draws import Case, draw_evenly
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.snapshot import Deployment, Route
from trunkline_server.routing.strategies.base import Direct


class LeastLatency(Direct):
    def counts(self, _route: Route, /) -> Mapping[str, float]:
        return {"latency": 1.0, "in_flight": 1.0}

    def pick(self, _ready: Pool, case: Case, /) -> list[Deployment]:
        drawn = draw_evenly(case, case.want + 1)
        if not drawn:
            return drawn
        loads = case.health.loads([row.slot for row in drawn], case.now, case.query.stream)
        picks: list[Deployment] = []
        best, best_load = drawn[0], loads[0]
        for other, load in zip(drawn[1:], loads[1:], strict=True):
            if load < best_load:
                picks.append(other)
            else:
                picks.append(best)
                best, best_load = other, load
        if len(picks) < case.want:
            picks.append(best)
        return picks

    def scores(self, members: Sequence[Deployment], case: Case, /) -> list[float]:
        loads = case.health.loads([row.slot for row in members], case.now, case.query.stream)
        return [-1000.0 * load for load in loads]
