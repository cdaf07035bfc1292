"""The cheapest first, against estimating every deployment and sorting."""

import random
from decimal import Decimal

import pytest

from tests.unit.routing.tables import BUILT_AT, deployment, flat, one_route, random_price, tiered
from trunkline import v1
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.plan import plan
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.query import Query
from trunkline_server.routing.rates import Rates, Version
from trunkline_server.routing.snapshot import Deployment, Snapshot

LAST = 2**70


def cost(row: Deployment, query: Query) -> int:
    """What the contract orders by; unpriced last."""
    if row.price is None:
        return LAST
    return row.price.estimate(query.input_tokens, query.output_tokens, BUILT_AT)


def table(prices: list[Price | None], max_targets: int = 3) -> tuple[Snapshot, HealthTable]:
    rows = [deployment(slot, price=price) for slot, price in enumerate(prices)]
    snapshot = one_route(rows, v1.STRATEGY_LOWEST_COST, max_targets)
    return snapshot, HealthTable([row.name for row in rows])


def random_sizes(rng: random.Random) -> tuple[int, int]:
    return (
        rng.choice((0, 1, 7, 500, 1_000, 1_001, 32_000, 128_001, rng.randrange(400_000))),
        rng.choice((0, 1, 16, 1_000, rng.randrange(64_000))),
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [1, 2, 7, 40, 300])
def test_orders_are_those_of_the_naive_sort(seed: int, size: int) -> None:
    rng = random.Random(f"{seed}/{size}")
    snapshot, health = table([random_price(rng) for _ in range(size)])
    rows = snapshot.models["m"].members
    for _ in range(30):
        query = Query("m", *random_sizes(rng))
        if not (query.input_tokens or query.output_tokens):
            continue
        unfit = {slot for slot in range(size) if rng.random() < rng.choice((0.0, 0.2))}
        for slot in unfit:
            health.begin(slot, 0.0)
            health.fail(slot, 0.0, cooldown=True, retry_after=1.0)
        chosen = plan(snapshot, query, health, 0.0, rng)
        fit = [row for row in rows if row.slot not in health.blocked(0.0)]
        if fit:
            naive = sorted(cost(row, query) for row in fit)
            assert [cost(row, query) for row in chosen.targets] == naive[: len(chosen.targets)]
            assert len(chosen.targets) == min(3, len(fit))
        health = HealthTable([row.name for row in rows])


@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_different_prices_are_still_exact(seed: int) -> None:
    """Rates drawn apart from one another, so that the cheapest changes with the mix."""
    rng = random.Random(seed)
    prices: list[Price | None] = [
        Price.flat(
            Rates(
                input=Decimal(rng.randint(1, 100_000)) / 1_000,
                output=Decimal(rng.randint(1, 100_000)) / 1_000,
                per_request=Decimal(rng.choice((0, 0, 0, 1))) / 1_000,
            )
        )
        for _ in range(1_000)
    ]
    snapshot, health = table(prices)
    rows = snapshot.models["m"].members
    for _ in range(40):
        query = Query("m", rng.randrange(1, 20_000), rng.randrange(5_000))
        chosen = plan(snapshot, query, health, 0.0, rng)
        naive = sorted(cost(row, query) for row in rows)
        assert [cost(row, query) for row in chosen.targets] == naive[:3]


def test_the_mix_of_input_and_output_decides() -> None:
    snapshot, health = table([flat("1", "10"), flat("3", "4")])
    rng = random.Random(1)
    reading = plan(snapshot, Query("m", 10_000, 10), health, 0.0, rng)
    writing = plan(snapshot, Query("m", 10, 10_000), health, 0.0, rng)
    assert [row.slot for row in reading.targets] == [0, 1]
    assert [row.slot for row in writing.targets] == [1, 0]


def test_the_tier_that_the_input_reaches_decides() -> None:
    snapshot, health = table([tiered(("1", "1"), 1_000, ("9", "9")), flat("2", "2")])
    rng = random.Random(1)
    for tokens, expected in ((1_000, [0, 1]), (1_001, [1, 0])):
        chosen = plan(snapshot, Query("m", tokens, 5), health, 0.0, rng)
        assert [row.slot for row in chosen.targets] == expected


def test_a_charge_per_request_counts() -> None:
    snapshot, health = table([flat("1", "1", per_request="0.01"), flat("2", "2")])
    rng = random.Random(1)
    small = plan(snapshot, Query("m", 100, 100), health, 0.0, rng)
    large = plan(snapshot, Query("m", 100_000, 100), health, 0.0, rng)
    assert [row.slot for row in small.targets] == [1, 0]
    assert [row.slot for row in large.targets] == [0, 1]


def test_equal_prices_share_the_calls_and_unpriced_come_last() -> None:
    snapshot, health = table([None, flat("1", "1"), flat("1", "1"), flat("5", "5")], 4)
    rng = random.Random(1)
    firsts = {1: 0, 2: 0}
    for _ in range(1_000):
        chosen = plan(snapshot, Query("m", 10, 10), health, 0.0, rng)
        slots = [row.slot for row in chosen.targets]
        firsts[slots[0]] += 1
        assert slots[2:] == [3, 0]
    assert 430 < firsts[1] < 570


def test_a_request_of_unknown_size_goes_by_an_ordinary_mix() -> None:
    snapshot, health = table([flat("5", "5"), flat("1", "1")])
    chosen = plan(snapshot, Query("m"), health, 0.0, random.Random(1))
    assert [row.slot for row in chosen.targets] == [1, 0]


def test_prices_are_those_of_the_snapshot_time() -> None:
    dear, cheap = Rates(input=Decimal(9), output=Decimal(9)), Rates(input=Decimal(1))
    falls = Price([Version(dear), Version(cheap, start=BUILT_AT)])
    rises = Price([Version(cheap), Version(dear, start=BUILT_AT)])
    snapshot, health = table([rises, falls])
    chosen = plan(snapshot, Query("m", 10, 10), health, 0.0, random.Random(1))
    assert [row.slot for row in chosen.targets] == [1, 0]
