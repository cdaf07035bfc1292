"""Where the beginning of a prompt is worth the detour."""

import random
from decimal import Decimal

import pytest

from tests.unit.routing.tables import BUILT_AT, Away, deployment
from trunkline import v1
from trunkline_server.routing.health import BreakerPolicy, HealthTable
from trunkline_server.routing.plan import plan
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.query import Query
from trunkline_server.routing.rates import Rates
from trunkline_server.routing.snapshot import Deployment, Route, Snapshot
from trunkline_server.routing.warm import Warmth

NOW = 100.0


def price(input_rate: str, cached: str | None = "0.1", output: str = "8") -> Price:
    return Price.flat(
        Rates(
            input=Decimal(input_rate),
            output=Decimal(output),
            cached_input=None if cached is None else Decimal(cached),
        )
    )


class Fleet:
    """Some deployments of one model, and calls under way at them."""

    def __init__(
        self,
        *rows: Deployment,
        strategy: v1.Strategy.ValueType = v1.STRATEGY_ROUND_ROBIN,
        max_targets: int = 3,
    ) -> None:
        route = Route("", strategy, rows, max_targets=max_targets)
        self.snapshot = Snapshot("s", rows, {"m": route}, {}, {}, BUILT_AT)
        self.health = HealthTable([row.name for row in rows], BreakerPolicy())

    def busy(self, slot: int, calls: int) -> None:
        for _ in range(calls):
            self.health.begin(slot, NOW)

    def chosen(self, tokens: dict[str, int] | None, **fields: object) -> list[str]:
        load = fields.pop("load", 0.5)
        assert isinstance(load, float)
        query = Query("m", 10_000, 100, **fields)  # type: ignore[arg-type]  # By name.
        if tokens is not None:
            query.warmth = Warmth(tokens, load)
        made = plan(self.snapshot, query, self.health, NOW, random.Random(1))
        return [row.name for row in made.targets]


def rows(*prices: Price | None, **changes: object) -> list[Deployment]:
    return [deployment(slot, price=each, **changes) for slot, each in enumerate(prices)]


def test_the_warm_one_goes_first_and_the_others_follow_in_their_order() -> None:
    fleet = Fleet(*rows(price("1"), price("1"), price("1")))
    assert fleet.chosen(None) == ["d0", "d1", "d2"]
    # The rotation goes on by itself.
    assert fleet.chosen({"d0": 4_096}) == ["d0", "d1", "d2"]
    assert fleet.chosen({"d0": 4_096}) == ["d0", "d2", "d1"]
    assert fleet.chosen({"d1": 512, "d0": 4_096}) == ["d0", "d1", "d2"]


def test_one_beyond_the_plan_takes_a_place_in_it() -> None:
    fleet = Fleet(*rows(price("1"), price("1"), price("1")), max_targets=1)
    assert fleet.chosen({"d2": 4_096}) == ["d2"]


@pytest.mark.parametrize(
    ("dearer", "first"),
    [
        # 10,000 tokens cost 10 mills at the first; at the second 5,120 of them are cached.
        ("1.90", "d1"),
        ("2.00", "d0"),
    ],
)
def test_it_pays_only_while_the_rest_is_not_dearer(dearer: str, first: str) -> None:
    fleet = Fleet(*rows(price("1"), price(dearer)), strategy=v1.STRATEGY_LOWEST_COST)
    assert fleet.chosen({"d1": 5_120})[0] == first


def test_no_price_for_cached_tokens_is_no_reason_to_go_there() -> None:
    fleet = Fleet(*rows(price("1", None), price("1", None), None))
    assert fleet.chosen({"d1": 9_000, "d2": 9_000})[0] == "d0"


def test_load_weighs_against_it() -> None:
    fleet = Fleet(*rows(price("1"), price("1")))
    fleet.busy(1, 3)
    # 3 more calls than the idlest, of 1.5 on average: a whole prompt's price at a weight of 0.5.
    assert fleet.chosen({"d1": 5_120}, load=0.5)[0] == "d0"
    fleet.health.set_turn("", 0)
    assert fleet.chosen({"d1": 5_120}, load=0.1)[0] == "d1"


def test_it_must_be_fit_and_allowed() -> None:
    table = rows(price("1"), price("1"))
    fleet = Fleet(*table)
    for _ in range(10):
        fleet.health.begin(1, NOW)
        fleet.health.fail(1, NOW, latency=0.1, retry_after=None, cooldown=False)
    assert fleet.chosen({"d1": 5_120}) == ["d0"]
    fleet = Fleet(*table)
    assert fleet.chosen({"d1": 5_120}, denied_providers=("p1",)) == ["d0"]
    away = Away(frozenset({"p1"}))
    assert fleet.chosen({"d1": 5_120}, constraints=(away,)) == ["d0"]
    assert fleet.chosen({"gone": 5_120})[0] in {"d0", "d1"}


def test_it_overrides_no_priority_and_wakes_no_reserve() -> None:
    one, two = rows(price("1"), price("1"))
    second = deployment(1, price=two.price, priority=1)
    fleet = Fleet(one, second, strategy=v1.STRATEGY_PRIORITY)
    assert fleet.chosen({"d1": 9_000})[0] == "d0"
    reserve = deployment(1, price=two.price, weight=0.0)
    assert Fleet(one, reserve).chosen({"d1": 9_000})[0] == "d0"
