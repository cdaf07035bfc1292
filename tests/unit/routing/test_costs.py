"""Prices as lines, against the prices themselves."""

import math
import random

import pytest

from tests.unit.routing.tables import BUILT_AT, deployment, random_price, tiered
from trunkline_server.routing.costs import Tariffs


@pytest.mark.parametrize("seed", range(10))
def test_lines_give_the_estimates_to_about_a_nano(seed: int) -> None:
    rng = random.Random(seed)
    rows = [deployment(slot, price=random_price(rng)) for slot in range(40)]
    tariffs = Tariffs(rows, BUILT_AT)
    for _ in range(60):
        inputs = rng.choice((0, 1_000, 1_001, 32_000, 32_001, rng.randrange(500_000)))
        outputs = rng.choice((0, 1, rng.randrange(64_000)))
        places = rng.choice((range(40), rng.sample(range(40), 5)))
        # Of an own object, so that either of the two ways meets a stretch first.
        of_rows = Tariffs(rows, BUILT_AT).costs_of([rows[i] for i in places], inputs, outputs)
        assert of_rows == tariffs.costs(places, inputs, outputs)
        for place, cost in zip(places, of_rows, strict=True):
            price = rows[place].price
            if price is None:
                assert cost == math.inf
            else:
                assert cost == pytest.approx(price.estimate(inputs, outputs, BUILT_AT), abs=1.5)


def test_a_stretch_of_a_single_size_has_a_line_too() -> None:
    rows = [
        deployment(0, price=tiered(("1", "1"), 999, ("2", "3"))),
        deployment(1, price=tiered(("4", "4"), 1_000, ("5", "5"))),
    ]
    tariffs = Tariffs(rows, BUILT_AT)
    for inputs in (999, 1_000, 1_001):
        expected = [
            row.price.estimate(inputs, 7, BUILT_AT) for row in rows if row.price is not None
        ]
        assert tariffs.costs([0, 1], inputs, 7) == pytest.approx(expected, abs=1.5)
