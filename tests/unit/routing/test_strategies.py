"""Each strategy: exact orders where there is one, seeded statistics where there is chance."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pytest

from tests.unit.routing.tables import BUILT_AT, deployment, flat, one_route
from trunkline import v1
from trunkline_server.routing.health import BreakerPolicy, HealthTable
from trunkline_server.routing.plan import explain, plan
from trunkline_server.routing.query import Query
from trunkline_server.routing.snapshot import BalanceWeights, Deployment, Snapshot

ROUNDS = 6_000
Strategy: TypeAlias = v1.Strategy.ValueType


class Bed:
    """A route under one strategy, with health to set."""

    def __init__(
        self,
        members: Sequence[Deployment],
        strategy: Strategy,
        max_targets: int = 3,
        balance: BalanceWeights | None = None,
    ) -> None:
        self.snapshot = one_route(members, strategy, max_targets, balance or BalanceWeights())
        self.health = HealthTable(
            [row.name for row in members], BreakerPolicy(consecutive_failures=1, min_calls=10**6)
        )
        self.rng = random.Random(7)

    def measure(self, slot: int, latency: float, first_token: float | None = None) -> None:
        self.health.begin(slot, 0.0)
        self.health.succeed(slot, 0.0, latency, first_token)

    def pause(self, *slots: int) -> None:
        for slot in slots:
            self.health.begin(slot, 0.0)
            self.health.fail(slot, 0.0, cooldown=True, retry_after=60.0)

    def slots(self, **query: object) -> list[int]:
        asked = Query("m", **query)  # type: ignore[arg-type] # Checked by use.
        return [row.slot for row in plan(self.snapshot, asked, self.health, 0.0, self.rng).targets]

    def firsts(self, rounds: int = ROUNDS, **query: object) -> Counter[int]:
        return Counter(self.slots(**query)[0] for _ in range(rounds))


def within(seen: int, rounds: int, chance: float) -> bool:
    """Whether a count is within four and a half standard deviations of its expectation."""
    deviation: float = (rounds * chance * (1 - chance)) ** 0.5
    return abs(seen - rounds * chance) <= 4.5 * deviation


# Priority.


def test_priority_goes_by_number_then_by_weight() -> None:
    bed = Bed(
        [
            deployment(0, priority=5),
            deployment(1, priority=-1, weight=3.0),
            deployment(2, priority=-1, weight=1.0),
            deployment(3, priority=0),
        ],
        v1.STRATEGY_PRIORITY,
        max_targets=4,
    )
    orders = Counter(tuple(bed.slots()) for _ in range(ROUNDS))
    assert set(orders) == {(1, 2, 3, 0), (2, 1, 3, 0)}
    assert within(orders[1, 2, 3, 0], ROUNDS, 0.75)


def test_priority_falls_to_the_next_number_when_the_first_is_unavailable() -> None:
    bed = Bed([deployment(0), deployment(1, priority=1)], v1.STRATEGY_PRIORITY)
    bed.pause(0)
    assert bed.slots() == [1]


# Weighted.


def test_weighted_first_targets_follow_the_weights() -> None:
    weights = [1.0, 2.0, 3.0, 4.0]
    members = [deployment(slot, weight=weight) for slot, weight in enumerate(weights)]
    seen = Bed(members, v1.STRATEGY_WEIGHTED).firsts()
    for slot, weight in enumerate(weights):
        assert within(seen[slot], ROUNDS, weight / 10)


def test_weighted_fallbacks_follow_the_weights_of_those_left() -> None:
    members = [deployment(slot, weight=weight) for slot, weight in enumerate([98.0, 1.0, 1.0])]
    bed = Bed(members, v1.STRATEGY_WEIGHTED)
    seconds = Counter(order[1] for order in (bed.slots() for _ in range(ROUNDS)) if order[0] == 0)
    assert within(seconds[1], seconds.total(), 0.5)


# Round robin.


def test_round_robin_takes_turns_and_falls_back_in_the_same_order() -> None:
    bed = Bed([deployment(slot) for slot in range(4)], v1.STRATEGY_ROUND_ROBIN, max_targets=2)
    orders = [bed.slots() for _ in range(6)]
    assert orders == [[0, 1], [1, 2], [2, 3], [3, 0], [0, 1], [1, 2]]


def test_round_robin_skips_the_unavailable_without_favouring_their_neighbours() -> None:
    bed = Bed([deployment(slot) for slot in range(5)], v1.STRATEGY_ROUND_ROBIN)
    bed.pause(1, 2)
    assert bed.firsts(300) == {0: 100, 3: 100, 4: 100}


def test_round_robin_is_fair_to_queries_that_may_use_different_members() -> None:
    members = [
        deployment(slot, capabilities=frozenset({"chat"} | ({"tools"} if slot == 2 else set())))
        for slot in range(3)
    ]
    bed = Bed(members, v1.STRATEGY_ROUND_ROBIN)
    seen: Counter[int] = Counter()
    for _ in range(300):
        seen.update(bed.slots()[:1])
        assert bed.slots(capabilities=frozenset({"tools"})) == [2]
    assert seen == {0: 100, 1: 100, 2: 100}


def test_round_robin_goes_on_where_it_was_after_a_reload() -> None:
    members = [deployment(slot) for slot in range(3)]
    bed = Bed(members, v1.STRATEGY_ROUND_ROBIN)
    assert bed.slots()[0] == 0
    bed.health = HealthTable([row.name for row in members], previous=bed.health)
    bed.snapshot = one_route(members, v1.STRATEGY_ROUND_ROBIN)
    assert bed.slots()[0] == 1


def test_round_robin_is_fair_when_nearly_all_of_a_large_route_is_broken() -> None:
    bed = Bed([deployment(slot) for slot in range(500)], v1.STRATEGY_ROUND_ROBIN)
    bed.pause(*(slot for slot in range(500) if slot not in {7, 250, 251}))
    assert bed.firsts(30) == {7: 10, 250: 10, 251: 10}


def test_a_dry_run_takes_no_turn() -> None:
    bed = Bed([deployment(slot) for slot in range(3)], v1.STRATEGY_ROUND_ROBIN)
    for _ in range(5):
        dry = plan(bed.snapshot, Query("m"), bed.health, 0.0, bed.rng, dry_run=True)
        assert dry.targets[0].slot == 0
    assert bed.slots()[0] == 0
    assert bed.slots()[0] == 1


# Least latency.


def test_least_latency_prefers_the_quicker_of_two() -> None:
    bed = Bed([deployment(0), deployment(1)], v1.STRATEGY_LEAST_LATENCY)
    bed.measure(0, 0.5)
    bed.measure(1, 0.2)
    assert [bed.slots() for _ in range(50)] == [[1, 0]] * 50


def test_least_latency_weighs_the_calls_in_flight() -> None:
    bed = Bed([deployment(0), deployment(1)], v1.STRATEGY_LEAST_LATENCY)
    bed.measure(0, 0.5)
    bed.measure(1, 0.2)
    bed.health.begin(1, 0.0)
    bed.health.begin(1, 0.0)
    assert bed.slots() == [0, 1], "0.2 s times 3 is more than 0.5 s"


def test_least_latency_is_two_choices_not_the_global_best() -> None:
    """Of four by rank, the best of a random pair is rank 1, 2, 3 in 3, 2, 1 of 6 pairs."""
    bed = Bed([deployment(slot) for slot in range(4)], v1.STRATEGY_LEAST_LATENCY)
    for slot in range(4):
        bed.measure(slot, 0.1 * (slot + 1))
    seen = bed.firsts()
    assert seen[3] == 0
    for slot in range(3):
        assert within(seen[slot], ROUNDS, (3 - slot) / 6)


def test_least_latency_explores_the_unmeasured() -> None:
    bed = Bed([deployment(0), deployment(1)], v1.STRATEGY_LEAST_LATENCY)
    bed.measure(0, 0.001)
    assert bed.slots()[0] == 1
    bed.health.begin(1, 0.0)
    assert bed.slots()[0] == 0, "one exploring call at a time"


def test_least_latency_of_streams_goes_by_first_token() -> None:
    bed = Bed([deployment(0), deployment(1)], v1.STRATEGY_LEAST_LATENCY)
    bed.measure(0, 9.0, 0.1)
    bed.measure(1, 3.0, 0.9)
    assert bed.slots(stream=True) == [0, 1]
    assert bed.slots() == [1, 0]


# Highest availability.


def availability_bed(size: int, failures: Callable[[int], int]) -> Bed:
    bed = Bed([deployment(slot) for slot in range(size)], v1.STRATEGY_HIGHEST_AVAILABILITY)
    bed.health = HealthTable(
        [f"d{slot}" for slot in range(size)],
        BreakerPolicy(consecutive_failures=10**6, min_calls=10**6),
    )
    for slot in range(size):
        for _ in range(failures(slot)):
            bed.health.begin(slot, 0.0)
            bed.health.fail(slot, 0.0)
    return bed


def test_highest_availability_is_exact_in_a_small_pool() -> None:
    bed = availability_bed(12, lambda slot: (slot * 5) % 12)
    # Slots with 0, 1 and 2 failures: 5 is its own inverse modulo 12.
    assert [bed.slots() for _ in range(20)] == [[0, 5, 10]] * 20


def test_highest_availability_is_even_among_equals() -> None:
    seen = availability_bed(4, lambda slot: int(slot == 3)).firsts()
    assert seen[3] == 0
    for slot in range(3):
        assert within(seen[slot], ROUNDS, 1 / 3)


def test_highest_availability_avoids_the_bad_part_of_a_large_pool() -> None:
    bed = availability_bed(1_000, lambda slot: int(slot % 4 == 0))
    seen = bed.firsts()
    bad = sum(count for slot, count in seen.items() if slot % 4 == 0)
    assert bad <= 3, "all of eight candidates are bad once in 65,000 times"
    assert len(seen) > 700, "no herd"


# Feature based.


def test_feature_based_leaves_rare_capabilities_to_those_who_need_them() -> None:
    bed = Bed(
        [
            deployment(0, capabilities=frozenset({"chat", "tools", "vision", "audio"})),
            deployment(1, capabilities=frozenset({"chat", "tools"})),
            deployment(2, capabilities=frozenset({"chat", "vision", "tools"})),
        ],
        v1.STRATEGY_FEATURE_BASED,
    )
    assert bed.slots() == [1, 2, 0]
    assert bed.slots(capabilities=frozenset({"vision"})) == [2, 0]
    assert bed.slots(capabilities=frozenset({"audio"})) == [0]


def test_feature_based_goes_by_weight_among_equals() -> None:
    members = [deployment(0, weight=1.0), deployment(1, weight=3.0)]
    assert within(Bed(members, v1.STRATEGY_FEATURE_BASED).firsts()[1], ROUNDS, 0.75)


# Balanced.


ONLY = {
    "cost": BalanceWeights(1.0, 0.0, 0.0, 0.0),
    "latency": BalanceWeights(0.0, 1.0, 0.0, 0.0),
    "availability": BalanceWeights(0.0, 0.0, 1.0, 0.0),
    "quality": BalanceWeights(0.0, 0.0, 0.0, 1.0),
}


@pytest.mark.parametrize(
    ("ingredient", "expected"),
    [
        ("cost", [1, 0, 2]),
        ("latency", [2, 1, 0]),
        ("availability", [0, 2, 1]),
        ("quality", [1, 2, 0]),
    ],
)
def test_balanced_with_one_ingredient_orders_by_it(ingredient: str, expected: list[int]) -> None:
    members = [
        deployment(0, price=flat("2", "2"), quality=0.1),
        deployment(1, price=flat("1", "1"), quality=0.9),
        deployment(2, price=None, quality=0.5),
    ]
    bed = Bed(members, v1.STRATEGY_BALANCED, balance=ONLY[ingredient])
    bed.health = HealthTable(
        ["d0", "d1", "d2"], BreakerPolicy(consecutive_failures=99, min_calls=99)
    )
    for slot, latency in enumerate([0.9, 0.5, 0.1]):
        bed.measure(slot, latency)
    for slot in (1, 1, 2):
        bed.health.begin(slot, 0.0)
        bed.health.fail(slot, 0.0)
    assert bed.slots(input_tokens=10, output_tokens=10) == expected


def test_balanced_scores_are_the_weighted_sum() -> None:
    members = [
        deployment(0, price=flat("2", "2"), quality=0.5),
        deployment(1, price=flat("1", "1"), quality=1.0),
    ]
    bed = Bed(members, v1.STRATEGY_BALANCED)
    bed.measure(0, 0.1)
    bed.measure(1, 0.4)
    query = Query("m", 100, 100)
    chosen = plan(bed.snapshot, query, bed.health, 0.0, bed.rng)
    scores = {row.deployment: row.score for row in explain(bed.snapshot, bed.health, 0.0, chosen)}
    assert scores["d0"] == pytest.approx(0.4 * 0.5 + 0.3 * 1.0 + 0.2 * 1.0 + 0.1 * 0.5)
    assert scores["d1"] == pytest.approx(0.4 * 1.0 + 0.3 * 0.25 + 0.2 * 1.0 + 0.1 * 1.0)
    assert [row.slot for row in chosen.targets] == [1, 0]


def test_balanced_without_any_price_or_with_free_models() -> None:
    unpriced = Bed([deployment(0, quality=0.1), deployment(1, quality=0.2)], v1.STRATEGY_BALANCED)
    assert unpriced.slots() == [1, 0]
    free = Bed(
        [deployment(0, price=flat("1", "1")), deployment(1, price=flat("0", "0"))],
        v1.STRATEGY_BALANCED,
    )
    assert free.slots() == [1, 0]


def test_balanced_of_a_large_pool_is_mostly_of_its_better_part() -> None:
    members = [deployment(slot, quality=slot / 1_000) for slot in range(1_000)]
    seen = Bed(members, v1.STRATEGY_BALANCED, balance=ONLY["quality"]).firsts(2_000)
    mean = sum(slot * count for slot, count in seen.items()) / 2_000
    # The best of eight evenly drawn ones is at eight ninths on average; deviation 0.1.
    assert abs(mean / 1_000 - 8 / 9) < 4.5 * 0.1 / 2_000**0.5 + 0.01


# All of them.


ALL = sorted(set(v1.Strategy.values()) - {v1.STRATEGY_UNSPECIFIED})


@pytest.mark.parametrize("strategy", ALL, ids=v1.Strategy.Name)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 13, 40, 200])
@pytest.mark.parametrize("want", [1, 3, 8])
def test_plans_hold_distinct_available_members_and_as_many_as_can_be(
    strategy: Strategy, size: int, want: int
) -> None:
    rng = random.Random(size * 10 + want)
    members = [
        deployment(
            slot,
            price=rng.choice((None, flat("1", "2"), flat("2", "1"))),
            weight=rng.choice((0.0, 1.0, 100.0)),
            priority=rng.randrange(3),
        )
        for slot in range(size)
    ]
    for share in (0.0, 0.3, 0.7, 0.95, 1.0):
        bed = Bed(members, strategy, max_targets=want)
        paused = {slot for slot in range(size) if rng.random() < share}
        bed.pause(*paused)
        fit = size - len(paused)
        for _ in range(20):
            chosen = plan(bed.snapshot, Query("m", 10, 10), bed.health, 0.0, bed.rng)
            slots = [row.slot for row in chosen.targets]
            assert len(set(slots)) == len(slots) == min(want, fit or size)
            assert chosen.forced is (fit == 0)
            if fit:
                assert not paused.intersection(slots)


@pytest.mark.parametrize("strategy", ALL, ids=v1.Strategy.Name)
def test_no_fallback_means_one_target(strategy: Strategy) -> None:
    bed = Bed([deployment(slot) for slot in range(5)], strategy)
    assert len(bed.slots(no_fallback=True)) == 1


def test_the_query_overrides_the_strategy_and_priority_is_the_default() -> None:
    members = [deployment(0, price=flat("2", "2")), deployment(1, price=flat("1", "1"), priority=1)]
    bed = Bed(members, v1.STRATEGY_UNSPECIFIED)
    assert bed.slots(input_tokens=5) == [0, 1]
    assert bed.slots(input_tokens=5, strategy=v1.STRATEGY_LOWEST_COST) == [1, 0]
    whole = Snapshot("v", members, {}, {}, {}, BUILT_AT)
    health = HealthTable(["d0", "d1"])
    assert plan(whole, Query(""), health, 0.0, bed.rng).strategy == v1.STRATEGY_BALANCED
