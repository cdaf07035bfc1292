"""The better of two random ones, by peak-sensitive latency and load.

Two choices keep a herd from running to the one best deployment, which is no longer the best
when the herd arrives. The loser stays in the race against another random one for the next
place in the plan. Unmeasured deployments win, so that they are measured.
"""

from collections.abc import Mapping, Sequence

from trunkline_server.routing.draws import Case, Urn
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.snapshot import Deployment, Route
from trunkline_server.routing.strategies.base import Direct


class LeastLatency(Direct):
    def counts(self, _route: Route, /) -> Mapping[str, float]:
        return {"latency": 1.0, "in_flight": 1.0}

    def pick(self, ready: Pool, case: Case, /) -> list[Deployment]:
        urn = Urn(case)
        load, now, stream = case.health.load, case.now, case.query.stream
        picks: list[Deployment] = []
        best = urn.draw()
        best_load = load(best.slot, now, stream) if best is not None else 0.0
        while best is not None and len(picks) < case.want:
            other = urn.draw()
            if other is None:
                picks.append(best)
                break
            other_load = load(other.slot, now, stream)
            if other_load < best_load:
                picks.append(other)
            else:
                picks.append(best)
                best, best_load = other, other_load
        return picks

    def scores(self, members: Sequence[Deployment], case: Case, /) -> list[float]:
        load, now, stream = case.health.load, case.now, case.query.stream
        return [-1000.0 * load(row.slot, now, stream) for row in members]
