"""Random draws without replacement from a pool, whose cost does not grow with the pool."""

from bisect import bisect_right, insort
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.query import Query
from trunkline_server.routing.snapshot import Deployment

# How many unfit members one decision may meet before it gives up on probing.
PROBES = 32

# Strategies that score candidates score all of a pool up to this size, and of a larger one
# a random sample: d choices. The best of 12 random candidates is, on average, better than
# twelve thirteenths of the pool.
SCORE_ALL = 16
SAMPLE = 12


@dataclass(slots=True)
class Case:
    """One decision: from which pool, what is asked, and how many members are wanted.

    `unfit` holds the slots that must not be chosen now. `probes` is how many more of them
    may be met; a strategy that ends with none left has not seen the whole pool.
    `take_turn` is False for a dry run.
    """

    pool: Pool
    query: Query
    health: HealthTable
    now: float
    rng: Random
    want: int
    unfit: Container[int]
    take_turn: bool = True
    probes: int = PROBES


class Lottery:
    """Members drawn in proportion to weight; those of weight 0 after all others, in order."""

    __slots__ = ("_bounds", "_members")

    def __init__(self, members: Sequence[Deployment]) -> None:
        self._members = members
        self._bounds = list(accumulate(row.weight for row in members))

    def draw(self, picks: list[Deployment], case: Case) -> None:
        """Adds fit members to the picks until enough are picked or none is left."""
        members, bounds, unfit, rng = self._members, self._bounds, case.unfit, case.rng
        want = min(case.want - len(picks), len(members)) + len(picks)
        gone: list[int] = []
        while len(picks) < want and len(gone) < len(members) and case.probes:
            place = _place(bounds, gone, rng.random()) if gone else self._first(rng.random())
            insort(gone, place)
            row = members[place]
            if row.slot in unfit:
                case.probes -= 1
            else:
                picks.append(row)

    def _first(self, chance: float) -> int:
        bounds = self._bounds
        place = bisect_right(bounds, chance * bounds[-1])
        return place if place < len(bounds) else _first_left([])


def _place(bounds: Sequence[float], gone: Sequence[int], chance: float) -> int:
    """The place that a chance from 0 to 1 falls on when those gone (sorted) have no share.

    The shares that are gone are cut out of the line of weights, so no draw is in vain.
    """
    total = bounds[-1]
    left = total - sum(bounds[place] - (bounds[place - 1] if place else 0.0) for place in gone)
    # What is left of rounding when all weight is gone is no weight.
    if left <= total * 1e-12:
        return _first_left(gone)
    point = chance * left
    for place in gone:
        start = bounds[place - 1] if place else 0.0
        if point < start:
            break
        point += bounds[place] - start
    drawn = bisect_right(bounds, point)
    return _first_left(gone) if drawn >= len(bounds) or drawn in gone else drawn


def _first_left(gone: Sequence[int]) -> int:
    for expected, place in enumerate(gone):
        if place != expected:
            return expected
    return len(gone)


class Urn:
    """The members of a case's pool, drawn with equal chances."""

    __slots__ = ("_case", "_gone", "_members")

    def __init__(self, case: Case) -> None:
        self._members = case.pool.members
        self._case = case
        self._gone: list[int] = []

    def draw(self) -> Deployment | None:
        """Another fit member; None when none is left or the case's probes are used up."""
        members, case, gone = self._members, self._case, self._gone
        while len(gone) < len(members) and case.probes:
            place = int(case.rng.random() * (len(members) - len(gone)))
            for taken in gone:
                if place < taken:
                    break
                place += 1
            insort(gone, place)
            row = members[place]
            if row.slot not in case.unfit:
                return row
            case.probes -= 1
        return None


def field_of(case: Case) -> list[Deployment]:
    """The fit members that a scoring strategy compares: all of a small pool, else a sample.

    When the sample holds fewer than are wanted, the case's probes are declared used up.
    """
    members, unfit = case.pool.members, case.unfit
    count = len(members)
    if count <= max(SCORE_ALL, 4 * case.want):
        return [row for row in members if row.slot not in unfit]
    chance = case.rng.random
    size = max(SAMPLE, 2 * case.want)
    # A dict drops the repeated ones and keeps the order of the draws.
    places = dict.fromkeys([int(chance() * count) for _ in range(size)])
    if len(places) < case.want:
        places.update(dict.fromkeys(range(case.want)))
    found = [row for row in map(members.__getitem__, places) if row.slot not in unfit]
    if len(found) < case.want:
        case.probes = 0
    return found
