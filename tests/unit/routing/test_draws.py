"""Draws: exact shares, without replacement, with bounded probing."""

import random
from collections import Counter
from itertools import permutations

import pytest

from tests.unit.routing.tables import deployment, one_route
from trunkline_server.routing.draws import PROBES, Case, Lottery, best_first, draw_evenly, field_of
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.pools import pool_of
from trunkline_server.routing.query import Query
from trunkline_server.routing.snapshot import Deployment

DRAWS = 20_000


def case_of(
    members: list[Deployment], want: int, unfit: set[int] | None = None, seed: int = 1
) -> Case:
    query = Query("m")
    pool = pool_of(one_route(members), query)
    health = HealthTable([row.name for row in members])
    return Case(pool, query, health, 0.0, random.Random(seed), want, unfit or set())


def weighted(*weights: float) -> list[Deployment]:
    return [deployment(slot, weight=weight) for slot, weight in enumerate(weights)]


def order_chances(weights: list[float]) -> dict[tuple[int, ...], float]:
    """The chance of every whole order, by the definition of draws without replacement."""
    chances = {}
    for order in permutations(range(len(weights))):
        chance, left = 1.0, sum(weights)
        for place in order:
            chance *= weights[place] / left
            left -= weights[place]
        chances[order] = chance
    return chances


@pytest.mark.parametrize("weights", [[1, 1, 1], [5, 2, 1], [1, 1, 1, 97], [0.1, 0.2, 3.0, 0.7]])
def test_orders_come_as_often_as_their_weights_say(weights: list[float]) -> None:
    members = weighted(*weights)
    lottery = Lottery(members)
    case = case_of(members, want=len(members))
    seen: Counter[tuple[int, ...]] = Counter()
    for _ in range(DRAWS):
        picks: list[Deployment] = []
        lottery.draw(picks, case)
        seen[tuple(row.slot for row in picks)] += 1
    for order, chance in order_chances(weights).items():
        expected = DRAWS * chance
        deviation = (DRAWS * chance * (1 - chance)) ** 0.5
        assert abs(seen[order] - expected) <= 4.5 * deviation + 1, order


def test_weight_zero_comes_after_all_others_in_order() -> None:
    members = weighted(0, 3, 0, 1)
    lottery = Lottery(members)
    case = case_of(members, want=4)
    for _ in range(200):
        picks: list[Deployment] = []
        lottery.draw(picks, case)
        slots = [row.slot for row in picks]
        assert set(slots[:2]) == {1, 3}
        assert slots[2:] == [0, 2]


def test_only_weight_zero_is_still_drawn() -> None:
    members = weighted(0, 0)
    picks: list[Deployment] = []
    Lottery(members).draw(picks, case_of(members, want=2))
    assert [row.slot for row in picks] == [0, 1]


def test_unfit_members_are_left_out_and_their_share_falls_to_the_others() -> None:
    members = weighted(6, 1, 2)
    lottery = Lottery(members)
    case = case_of(members, want=1, unfit={0})
    seen: Counter[int] = Counter()
    for _ in range(DRAWS):
        case.probes = PROBES
        picks: list[Deployment] = []
        lottery.draw(picks, case)
        seen[picks[0].slot] += 1
    assert seen[0] == 0
    assert abs(seen[1] - DRAWS / 3) < 4.5 * (DRAWS * 2 / 9) ** 0.5


def test_probing_stops_at_its_bound() -> None:
    members = weighted(*[1.0] * 100)
    case = case_of(members, want=1, unfit=set(range(100)))
    picks: list[Deployment] = []
    Lottery(members).draw(picks, case)
    assert picks == []
    assert case.probes == 0
    case.probes = PROBES
    assert draw_evenly(case, 3) == []
    assert case.probes == 0


def test_even_draws_are_distinct_and_even() -> None:
    members = weighted(1, 100, 1, 1, 1)
    case = case_of(members, want=3)
    seen: Counter[int] = Counter()
    for _ in range(DRAWS):
        slots = [row.slot for row in draw_evenly(case, 3)]
        assert len(set(slots)) == 3
        seen.update(slots)
    for slot in range(5):
        assert abs(seen[slot] - DRAWS * 0.6) < 4.5 * (DRAWS * 0.24) ** 0.5
    assert len(draw_evenly(case, 9)) == 5


def test_small_fields_are_whole_and_large_ones_are_fair_samples() -> None:
    small = case_of(weighted(*[1.0] * 12), want=3, unfit={4})
    assert field_of(small) == [place for place in range(12) if place != 4]
    large = case_of(weighted(*[1.0] * 40), want=3)
    seen: Counter[int] = Counter()
    for _ in range(DRAWS):
        places = field_of(large)
        assert len(set(places)) == len(places) <= 8
        seen.update(places)
    chance = 1 - (39 / 40) ** 8
    for place in range(40):
        assert abs(seen[place] - DRAWS * chance) < 4.5 * (DRAWS * chance * (1 - chance)) ** 0.5


def test_a_sample_never_holds_fewer_than_wanted_while_all_are_fit() -> None:
    for seed in range(300):
        case = case_of(weighted(*[1.0] * 37), want=9, seed=seed)
        assert len(field_of(case)) >= 9
        assert case.probes


def test_a_sample_of_one_and_the_same_is_topped_up() -> None:
    class Stuck(random.Random):
        def random(self) -> float:
            return 0.5

    case = case_of(weighted(*[1.0] * 40), want=3)
    case.rng = Stuck()
    assert field_of(case) == [20, 0, 1, 2]


def test_a_sample_short_of_fit_ones_asks_for_the_whole_pool() -> None:
    case = case_of(weighted(*[1.0] * 40), want=3, unfit=set(range(39)))
    field_of(case)
    assert case.probes == 0


def test_equal_scores_are_ordered_at_random() -> None:
    case = case_of(weighted(1, 1, 1), want=1)
    seen = Counter(best_first([0, 1, 2], [0.5, 0.9, 0.9], case)[0].slot for _ in range(2_000))
    assert seen[0] == 0
    assert 850 < seen[1] < 1_150


def test_equal_scores_of_a_sample_are_ordered_at_random() -> None:
    case = case_of(weighted(*[1.0] * 20), want=1)
    seen: Counter[int] = Counter()
    for _ in range(DRAWS):
        places = field_of(case)
        scores = [float(place >= 10) for place in places]
        if any(scores):
            seen[best_first(places, scores, case)[0].slot] += 1
    assert sorted(seen) == list(range(10, 20))
    rounds = seen.total()
    for count in seen.values():
        assert abs(count - rounds * 0.1) < 4.5 * (rounds * 0.09) ** 0.5
