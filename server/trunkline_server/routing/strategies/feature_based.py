"""By how closely the capabilities fit: those with the fewest unneeded ones first.

Rare capabilities so stay free for those who need them. By weight among equals.
"""

from collections.abc import Mapping, Sequence

from trunkline_server.routing.draws import Case, Lottery
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.snapshot import Deployment, Route
from trunkline_server.routing.strategies.base import tiers
from trunkline_server.routing.strategies.priority import Tiered


class FeatureBased(Tiered):
    def counts(self, _route: Route, /) -> Mapping[str, float]:
        return {"unneeded_capabilities": 1.0}

    def prepare(self, pool: Pool) -> list[Lottery]:
        ranks = [len(row.capabilities - pool.needed) for row in pool.members]
        return [Lottery(tier) for tier in tiers(pool.members, ranks)]

    def scores(self, members: Sequence[Deployment], case: Case, /) -> list[float]:
        return [-float(len(row.capabilities - case.pool.needed)) for row in members]
