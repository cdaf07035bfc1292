"""By configured priority, the lowest number first; by weight among equals."""

from collections.abc import Mapping, Sequence

from trunkline_server.routing.draws import Case, Lottery
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.snapshot import Deployment, Route
from trunkline_server.routing.strategies.base import Strategy, tiers


class Tiered(Strategy[list[Lottery]]):
    """Lotteries in order: the next one is drawn from when the one before is used up."""

    def pick(self, ready: list[Lottery], case: Case, /) -> list[Deployment]:
        picks: list[Deployment] = []
        for lottery in ready:
            lottery.draw(picks, case)
            if len(picks) >= case.want or not case.probes:
                break
        return picks


class Priority(Tiered):
    fixed = True

    def counts(self, _route: Route, /) -> Mapping[str, float]:
        return {"priority": 1.0}

    def prepare(self, pool: Pool) -> list[Lottery]:
        ranks = [row.priority for row in pool.members]
        return [Lottery(tier) for tier in tiers(pool.members, ranks)]

    def scores(self, members: Sequence[Deployment], case: Case, /) -> list[float]:
        return [float(-row.priority) for row in members]
