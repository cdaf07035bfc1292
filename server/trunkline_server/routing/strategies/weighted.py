"""At random, in proportion to configured weight; fallbacks likewise from those left."""

from collections.abc import Mapping, Sequence

from trunkline_server.routing.draws import Case, Lottery
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.snapshot import Deployment, Route
from trunkline_server.routing.strategies.base import Strategy


class Weighted(Strategy[Lottery]):
    fixed = True

    def counts(self, _route: Route, /) -> Mapping[str, float]:
        return {"weight": 1.0}

    def prepare(self, pool: Pool) -> Lottery:
        return Lottery(pool.members)

    def pick(self, ready: Lottery, case: Case, /) -> list[Deployment]:
        picks: list[Deployment] = []
        ready.draw(picks, case)
        return picks

    def scores(self, members: Sequence[Deployment], case: Case, /) -> list[float]:
        return [row.weight for row in members]
