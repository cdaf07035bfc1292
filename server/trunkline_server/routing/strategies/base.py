"""What a strategy is: it prepares once per pool, picks per decision, and can say why."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from trunkline_server.routing.draws import Case
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.snapshot import Deployment, Route

Ready = TypeVar("Ready")


class Strategy(ABC, Generic[Ready]):
    """Orders a pool for one decision. Strategies hold no state of their own.

    `fixed` says that a score and its parts follow from the member's configuration alone.
    """

    fixed = False

    @abstractmethod
    def counts(self, route: Route, /) -> Mapping[str, float]:
        """The parts of the score, and how much each counts on a route."""

    @abstractmethod
    def prepare(self, pool: Pool) -> Ready:
        """What picking needs and what depends on the pool alone."""

    @abstractmethod
    def pick(self, ready: Ready, case: Case, /) -> list[Deployment]:
        """Up to `case.want` distinct fit members, the preferred first.

        Its work is bounded whatever the size of the pool. When it ends with no probes left,
        it has not seen the whole pool.
        """

    @abstractmethod
    def scores(self, members: Sequence[Deployment], case: Case, /) -> list[float]:
        """The members' scores, compared with one another; higher is better."""

    def choose(self, case: Case) -> list[Deployment]:
        """Picks from the case's pool."""
        return self.pick(self.ready(case.pool), case)

    def ready(self, pool: Pool) -> Ready:
        """What the strategy has of a pool, which is prepared on its first use."""
        ready: Ready | None = pool.prepared.get(self)
        if ready is None:
            ready = pool.prepared[self] = self.prepare(pool)
        return ready


class Direct(Strategy[Pool]):
    """A strategy that picks from the pool itself, without anything to prepare."""

    def prepare(self, pool: Pool) -> Pool:
        return pool


def tiers(members: Sequence[Deployment], ranks: Sequence[int]) -> list[list[Deployment]]:
    """The members grouped by rank, the lowest first, each group in the members' order."""
    groups: dict[int, list[Deployment]] = {}
    for row, rank in zip(members, ranks, strict=True):
        groups.setdefault(rank, []).append(row)
    return [groups[rank] for rank in sorted(groups)]
