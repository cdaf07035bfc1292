"""Prices by image, hour, character and search, against sums done in exact decimals."""

import random
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pytest

from trunkline import v1
from trunkline_server.routing.pricing import Price, cost_of
from trunkline_server.routing.rates import Rates

D = Decimal


def usage(**counts: Any) -> v1.Usage:
    return v1.Usage(source=v1.USAGE_SOURCE_PROVIDER, **counts)


def nanos(usd: Decimal) -> int:
    return int((usd * 10**9).quantize(D(1), rounding=ROUND_HALF_EVEN))


def test_any_mixture_is_exact() -> None:
    rng = random.Random(5)
    for _ in range(2_000):
        rates: dict[str, Any] = {
            name: D(rng.randrange(10**4)) / D(10) ** rng.randrange(7)
            for name in (
                *("input_audio_hour", "output_audio_hour", "input_characters", "search_unit"),
            )
        }
        price = Price.flat(Rates(**rates, image=D("0.019")))
        counts = {
            name: rng.randrange(10**4)
            for name in ("input_audio_ms", "output_audio_ms", "input_characters", "search_units")
        }
        images = rng.randrange(1, 10)
        # Thirds of a nano are told apart: the sum is rounded once.
        exact = (
            rates["input_audio_hour"] * counts["input_audio_ms"] / 3_600_000
            + rates["output_audio_hour"] * counts["output_audio_ms"] / 3_600_000
            + rates["input_characters"] * counts["input_characters"] / 10**6
            + rates["search_unit"] * counts["search_units"]
            + D("0.019") * images
        )
        cost = price.cost(usage(**counts, output_images=images), 0.0)
        assert abs(cost.total - nanos(exact)) <= (exact * 10**9 % 1 == D("0.5"))
        assert price.most(usage(**counts, output_images=images), 0.0) in {
            cost.total,
            cost.total + 1,
        }


IMAGES = Rates(
    image=D("0.04"),
    images=(("hd", D("0.08")), ("1024x1792", D("0.07")), ("hd/1024x1792", D("0.12"))),
)


@pytest.mark.parametrize(
    ("variant", "usd", "most"),
    [
        ("", "0.04", "0.12"),
        ("hd/1024x1792", "0.12", "0.12"),
        ("hd/", "0.08", "0.12"),
        ("hd/512x512", "0.08", "0.08"),
        ("/1024x1792", "0.07", "0.12"),
        ("standard/1024x1792", "0.07", "0.07"),
        ("standard/", "0.04", "0.04"),
    ],
)
def test_images_by_how_they_are_made(variant: str, usd: str, most: str) -> None:
    price = Price.flat(IMAGES)
    made = usage(output_images=3, image_variant=variant)
    assert price.cost(made, 0.0).total == nanos(3 * D(usd))
    assert price.most(made, 0.0) == nanos(3 * D(most))
    assert price.dearest_image(0.0) == nanos(D("0.12"))


def test_a_way_that_has_no_price_is_unpriced() -> None:
    price = Price.flat(Rates(images=(("hd", D(1)),)))
    assert price.cost(usage(output_images=1, image_variant="low/"), 0.0).unpriced


@pytest.mark.parametrize(
    ("rates", "counts"),
    [
        (Rates(input=D(1), output=D(1)), {"input_audio_ms": 5}),
        (Rates(input=D(1)), {"output_images": 1}),
        (Rates(image=D(1)), {"input_tokens": 5}),
        (Rates(input_audio_hour=D(1)), {"input_characters": 5}),
        (Rates(input=D(1)), {"input_tokens": 5, "output_tokens": 1, "output_images": 1}),
    ],
)
def test_what_nothing_charges_is_unpriced(rates: Rates, counts: dict[str, Any]) -> None:
    cost = Price.flat(rates).cost(usage(**counts), 0.0)
    assert cost == v1.Cost(unpriced=True)


def test_units_and_tokens_that_a_price_has_no_rate_for_are_in_the_price_of_the_others() -> None:
    by_image = Price.flat(Rates(image=D("0.04")))
    assert by_image.cost(usage(output_images=1, input_tokens=9, output_tokens=9), 0.0).total == (
        40_000_000
    )
    by_token = Price.flat(Rates(input=D(5), output=D(40), input_image=D(10)))
    drawn = usage(
        input_tokens=110, input_image_tokens=100, output_tokens=1, output_images=1,
    )  # fmt: skip
    assert by_token.cost(drawn, 0.0).total == 10 * 5_000 + 100 * 10_000 + 40_000


def test_searches_without_a_price_leave_the_rest() -> None:
    price = Price.flat(Rates(input=D(1), output=D(2)))
    cost = price.cost(usage(input_tokens=10, output_tokens=10, search_units=2), 0.0)
    assert cost.unpriced
    assert cost.total == 30_000


def test_images_from_the_cache_are_charged_once() -> None:
    price = Price.flat(Rates(input=D(10), cached_input=D(1), input_image=D(20), output=D(0)))
    seen = usage(input_tokens=1000, cached_input_tokens=950, input_image_tokens=900)
    assert price.cost(seen, 0.0).input == 950 * 1_000 + 50 * 20_000


def test_comparisons_of_prices_without_tokens() -> None:
    dear, cheap = Price.flat(Rates(image=D("0.08"))), Price.flat(Rates(image=D("0.04")))
    assert dear.estimate(100, 0, 0.0) > cheap.estimate(100, 0, 0.0) > 0
    assert cheap.per_token(0.0) == 0.0
    assert not cheap.charges_tokens(0.0)


def test_what_was_counted_here_is_no_estimate() -> None:
    price = Price.flat(Rates(image=D("0.04")))
    made = v1.Usage(output_images=1, source=v1.USAGE_SOURCE_COUNTED)
    assert cost_of(price, made, 0.0) == v1.Cost(output=40_000_000, total=40_000_000)
    made.source = v1.USAGE_SOURCE_ESTIMATE
    assert cost_of(price, made, 0.0).estimated


@pytest.mark.parametrize("rates", [{}, {"cached_input": D(1)}, {"images": (("hd", D(-1)),)}])
def test_rates_that_make_no_price(rates: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="rate"):
        Rates(**rates)
