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
PROBES = 12

# Strategies that score candidates score all of a pool up to this size, and of a larger one
# a random sample: d choices. The best of 8 random candidates is, on average, better than
# eight ninths of the pool, and which it is changes from call to call, so no herd forms.
SCORE_ALL = 12
SAMPLE = 8


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
        """Adds fit members to the picks until enough are picked or none is left.

        Asked for only while some are wanted and probes are left.
        """
        members, bounds, unfit, rng = self._members, self._bounds, case.unfit, case.rng
        if len(members) == 1:
            # Nothing to draw: in most tables a tier of priority has one member.
            if members[0].slot not in unfit:
                picks.append(members[0])
            else:
                case.probes -= 1
            return
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


def draw_evenly(case: Case, number: int) -> list[Deployment]:
    """Up to so many fit members of the case's pool, drawn with equal chances."""
    members, unfit, chance = case.pool.members, case.unfit, case.rng.random
    left = len(members)
    drawn: list[Deployment] = []
    gone: list[int] = []
    while left and len(drawn) < number and case.probes:
        place = int(chance() * left)
        for taken in gone:
            if place < taken:
                break
            place += 1
        insort(gone, place)
        left -= 1
        row = members[place]
        if row.slot in unfit:
            case.probes -= 1
        else:
            drawn.append(row)
    return drawn


def field_of(case: Case) -> list[int]:
    """The places of the fit members that a scoring strategy compares.

    All of a small pool, else a sample. When the sample holds fewer than are wanted, the
    case's probes are declared used up.
    """
    slots, unfit = case.pool.slots, case.unfit
    count = len(slots)
    if _scored_whole(case):
        return [place for place, slot in enumerate(slots) if slot not in unfit]
    chance = case.rng.random
    # A dict drops the repeated ones and keeps the order of the draws.
    sample = dict.fromkeys([int(chance() * count) for _ in range(max(SAMPLE, 2 * case.want))])
    if len(sample) < case.want:
        sample.update(dict.fromkeys(range(case.want)))
    found = [place for place in sample if slots[place] not in unfit] if unfit else list(sample)
    if len(found) < case.want:
        case.probes = 0
    return found


def best_first(places: Sequence[int], scores: Sequence[float], case: Case) -> list[Deployment]:
    """The wanted number of members by score, the highest first; at random among equals.

    The places are those of `field_of`: a sample stands in random order already.
    """
    members = case.pool.members
    if _scored_whole(case):
        chance = case.rng.random
        chances = [chance() for _ in places]
        ranked = sorted(zip(scores, chances, places, strict=True), reverse=True)
        return [members[place] for _, _, place in ranked[: case.want]]
    order = sorted(range(len(places)), key=scores.__getitem__, reverse=True)
    return [members[places[number]] for number in order[: case.want]]


def _scored_whole(case: Case) -> bool:
    return len(case.pool.slots) <= max(SCORE_ALL, 4 * case.want)
