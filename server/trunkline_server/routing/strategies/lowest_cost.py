"""By the estimated cost of this request, the cheapest first; unpriced last.

Which price is the cheapest depends on the mix of input and output. Members are grouped by
equal price. For a class of similar requests (the same price tiers, nearly the same share of
output) the groups stand in the order of the least that one token can cost there; a decision
walks that order, computes exact estimates, and stops when no later group can be cheaper than
the best one found. So it is exact, and looks at the few prices that come close.

Only when more than 64 different prices lie within one class's margin of the cheapest (a few
per cent) can a cheaper one be missed, and then by no more than that margin.
"""

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush, nsmallest
from itertools import count

from trunkline_server.routing.costs import Tariffs, sizes
from trunkline_server.routing.draws import Case, Lottery
from trunkline_server.routing.lru import Lru
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.snapshot import Deployment, Route
from trunkline_server.routing.strategies.base import Strategy

# The score of what has no price: below every other.
_UNPRICED = -float(2**63)

_CLASSES = 64  # Of the share of output in all tokens.
# What floating-point sums may be wrong by, and estimates by being rounded.
_SAFE = 1.0 - 1e-6

_KEPT = 64  # Groups kept of each order.
_ORDERS = 512  # Orders kept for each pool.

# One group in an order: the least that a token can cost in nanos, the price, its members.
_Entry = tuple[float, Price, Lottery]


class CostOrder:
    """The groups of a pool by price, and their orders by class of request."""

    __slots__ = ("groups", "orders", "tariffs", "unpriced")

    def __init__(self, pool: Pool) -> None:
        self.tariffs = Tariffs(pool.members, pool.priced_at)
        by_price: dict[Price, list[Deployment]] = {}
        unpriced: list[Deployment] = []
        for row in pool.members:
            if row.price is None:
                unpriced.append(row)
            else:
                by_price.setdefault(row.price, []).append(row)
        self.groups = [(price, Lottery(rows)) for price, rows in by_price.items()]
        self.unpriced = Lottery(unpriced)
        self.orders: Lru[tuple[int, int], list[_Entry]] = Lru(_ORDERS)

    def order(self, inputs: int, outputs: int) -> list[_Entry]:
        """The groups that can be the cheapest for such a request, by their least cost."""
        band = self.tariffs.band(inputs)
        share = outputs * _CLASSES // (inputs + outputs)
        order = self.orders.get((band, share))
        if order is None:
            order = self._make_order(band, share)
            self.orders.put((band, share), order)
        return order

    def _make_order(self, band: int, share: int) -> list[_Entry]:
        entries: list[_Entry] = []
        for price, lottery in self.groups:
            line = self.tariffs.line(price, band)
            per_input = line.per_input - line.slack
            least = min(
                per_input + (line.per_output - per_input) * edge / _CLASSES
                for edge in (share, share + 1)
            )
            entries.append((max(least, 0.0) * _SAFE, price, lottery))
        return nsmallest(_KEPT, entries, key=lambda entry: entry[0])


class LowestCost(Strategy[CostOrder]):
    def counts(self, _route: Route, /) -> Mapping[str, float]:
        return {"cost": 1.0}

    def prepare(self, pool: Pool) -> CostOrder:
        return CostOrder(pool)

    def pick(self, ready: CostOrder, case: Case, /) -> list[Deployment]:
        inputs, outputs = sizes(case)
        order = ready.order(inputs, outputs)
        tokens, at = inputs + outputs, ready.tariffs.at
        picks: list[Deployment] = []
        close: list[tuple[int, int, Lottery]] = []  # Estimated groups, a heap.
        serial = count()
        place = 0
        while len(picks) < case.want and case.probes:
            while place < len(order) and (not close or order[place][0] * tokens <= close[0][0]):
                _, price, lottery = order[place]
                heappush(close, (price.estimate(inputs, outputs, at), next(serial), lottery))
                place += 1
            if not close:
                break
            heappop(close)[2].draw(picks, case)
        if len(picks) < case.want and case.probes:
            ready.unpriced.draw(picks, case)
        return picks

    def scores(self, members: Sequence[Deployment], case: Case, /) -> list[float]:
        inputs, outputs = sizes(case)
        return [
            _UNPRICED
            if row.price is None
            else -float(row.price.estimate(inputs, outputs, case.pool.priced_at))
            for row in members
        ]
