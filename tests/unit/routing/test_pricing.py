"""Prices against sums done by hand in Decimal."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pytest

from trunkline import v1
from trunkline_server.routing.pricing import Price, cost_of
from trunkline_server.routing.rates import Rates, Tier, Version

D = Decimal
NANO = D("1e-9")
LONG_AGO = 0.0


def usage(**counts: Any) -> v1.Usage:
    return v1.Usage(**counts, source=v1.USAGE_SOURCE_PROVIDER)


def usd(amount: D) -> int:
    """An exact amount in USD as nanos, rounded half to even."""
    return int(amount.quantize(NANO, rounding=ROUND_HALF_EVEN) / NANO)


def unix(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


PLAIN = Rates(input=D("2.5"), output=D(10))
FULL = Rates(
    input=D(4),
    output=D(16),
    cached_input=D("0.4"),
    cache_write=D(5),
    cache_write_1h=D(8),
    reasoning=D(20),
    input_audio=D(40),
    output_audio=D(80),
    cached_input_audio=D("2.5"),
)


def test_two_rates() -> None:
    cost = Price.flat(PLAIN).cost(usage(input_tokens=1234, output_tokens=567), LONG_AGO)
    assert cost == v1.Cost(input=3_085_000, output=5_670_000, total=8_755_000)


@pytest.mark.parametrize(
    ("counts", "input_usd", "output_usd"),
    [
        pytest.param({"input_tokens": 100, "cached_input_tokens": 90}, "76e-6", "0", id="cached"),
        pytest.param(
            {"input_tokens": 100, "cache_write_tokens": 60}, "460e-6", "0", id="cache-write"
        ),
        pytest.param(
            {"input_tokens": 100, "cache_write_tokens": 60, "cache_write_1h_tokens": 50},
            # 40 plain at 4, 10 short at 5, 50 long at 8.
            "610e-6",
            "0",
            id="cache-write-1h",
        ),
        pytest.param(
            {"input_tokens": 100, "input_audio_tokens": 30}, "1480e-6", "0", id="audio-in"
        ),
        pytest.param(
            {
                "input_tokens": 100,
                "input_audio_tokens": 30,
                "cached_input_tokens": 50,
                "cached_input_audio_tokens": 20,
            },
            # 40 plain at 4, 10 audio at 40, 30 cached at 0.4, 20 cached audio at 2.5.
            "622e-6",
            "0",
            id="cached-audio",
        ),
        pytest.param(
            {"output_tokens": 100, "output_audio_tokens": 25, "reasoning_tokens": 15},
            # 60 at 16, 25 at 80, 15 at 20.
            "0",
            "3260e-6",
            id="output-parts",
        ),
    ],
)
def test_parts_are_charged_once(counts: dict[str, int], input_usd: str, output_usd: str) -> None:
    cost = Price.flat(FULL).cost(usage(**counts), LONG_AGO)
    assert (cost.input, cost.output) == (usd(D(input_usd)), usd(D(output_usd)))
    assert cost.total == cost.input + cost.output


@pytest.mark.parametrize(
    ("rates", "counts", "input_usd"),
    [
        (PLAIN, {"input_tokens": 100, "cached_input_tokens": 90}, "250e-6"),
        (
            Rates(input=D(3), output=D(15), cache_write=D("3.75")),
            {"input_tokens": 100, "cache_write_tokens": 100, "cache_write_1h_tokens": 40},
            "375e-6",
        ),
        (
            Rates(input=D(1), output=D(1), cached_input=D("0.1"), input_audio=D(7)),
            {
                "input_tokens": 10,
                "cached_input_tokens": 10,
                "input_audio_tokens": 10,
                "cached_input_audio_tokens": 10,
            },
            "70e-6",
        ),
        (
            Rates(input=D(1), output=D(1), cached_input=D("0.1")),
            {
                "input_tokens": 10,
                "cached_input_tokens": 10,
                "input_audio_tokens": 10,
                "cached_input_audio_tokens": 10,
            },
            "1e-6",
        ),
    ],
    ids=["cached-as-input", "1h-as-write", "cached-audio-as-dearer", "cached-audio-as-cached"],
)
def test_kinds_not_priced_apart(rates: Rates, counts: dict[str, int], input_usd: str) -> None:
    assert Price.flat(rates).cost(usage(**counts), LONG_AGO).input == usd(D(input_usd))


def test_parts_beyond_their_total_are_charged_as_reported() -> None:
    # A vendor that counts cached tokens outside its total, unnormalised: never less than its
    # own parts, and never a negative rest.
    cost = Price.flat(FULL).cost(usage(input_tokens=10, cached_input_tokens=100), LONG_AGO)
    assert cost.input == usd(D("40e-6"))


@pytest.mark.parametrize(
    ("tokens", "rate"), [(199_999, 1), (200_000, 1), (200_001, 2), (500_000, 2), (500_001, 4)]
)
def test_long_context_tiers_reprice_the_whole_request(tokens: int, rate: int) -> None:
    price = Price(
        [
            Version(
                Rates(input=D(1), output=D(10)),
                # Out of order on purpose.
                tiers=(
                    Tier(500_000, Rates(input=D(4), output=D(40))),
                    Tier(200_000, Rates(input=D(2), output=D(20))),
                ),
            )
        ]
    )
    cost = price.cost(usage(input_tokens=tokens, output_tokens=3), LONG_AGO)
    assert cost.input == usd(D(tokens * rate) / 10**6)
    assert cost.output == usd(D(30 * rate) / 10**6)
    assert price.estimate(tokens, 3, LONG_AGO) == cost.total
    assert price.per_token(LONG_AGO) == pytest.approx(10e-6)


def test_versions_by_date() -> None:
    price = Price(
        [
            Version(Rates(input=D(10), output=D(40))),
            Version(Rates(input=D(2), output=D(8)), start=unix("2025-06-10")),
            Version(Rates(input=D(3), output=D(9)), start=unix("2026-01-01")),
        ]
    )
    million = usage(input_tokens=10**6)
    seen = [
        price.cost(million, unix(moment)).total
        for moment in (
            "2024-01-01",
            "2025-06-09T23:59:59.999",
            "2025-06-10",
            "2025-12-31T23:59:59",
            "2026-01-01",
        )
    ]
    assert seen == [usd(D(dollars)) for dollars in (10, 10, 2, 2, 3)]
    assert price.rates(unix("2025-07-01")).output == D(8)


def test_versions_by_time_of_day() -> None:
    hour = 3600.0
    price = Price(
        [
            Version(Rates(input=D(1), output=D(1)), daily=(0.5 * hour, 16.5 * hour)),
            Version(Rates(input=D(2), output=D(2)), daily=(22 * hour, 0.25 * hour)),
        ]
    )
    million = usage(input_tokens=10**6)
    seen = {
        clock: price.cost(million, unix(f"2026-03-01T{clock}")).total
        for clock in ("00:00", "00:20", "00:30", "16:29:59", "16:30", "21:59:59", "22:00", "23:59")
    }
    assert seen == {
        "00:00": usd(D(2)),
        "00:20": usd(D(1)),  # No version holds: the first one counts.
        "00:30": usd(D(1)),
        "16:29:59": usd(D(1)),
        "16:30": usd(D(1)),
        "21:59:59": usd(D(1)),
        "22:00": usd(D(2)),
        "23:59": usd(D(2)),
    }


def test_before_the_first_start_the_first_version_counts() -> None:
    price = Price(
        [
            Version(Rates(input=D(5), output=D(5)), start=unix("2026-01-01")),
            Version(Rates(input=D(6), output=D(6)), start=unix("2026-02-01")),
        ]
    )
    assert price.rates(LONG_AGO).input == D(5)


@pytest.mark.parametrize(
    ("rate", "tokens", "nanos"),
    [
        ("0.0005", 1, 0),  # Half a nano: to the even zero.
        ("0.0015", 1, 2),
        ("0.0025", 1, 2),
        ("0.0025000001", 1, 3),
        ("0.18000000000000002", 10**6, 180_000_000),
        ("1e-18", 10**15, 1),
    ],
)
def test_amounts_are_rounded_half_to_even_once(rate: str, tokens: int, nanos: int) -> None:
    price = Price.flat(Rates(input=D(rate), output=D(0)))
    assert price.cost(usage(input_tokens=tokens), LONG_AGO).input == nanos


def test_the_total_is_rounded_from_the_exact_sum() -> None:
    # 0.4 + 0.4 + 0.4 nanos: each rounds to nothing, the whole to one.
    price = Price.flat(Rates(input=D("0.0004"), output=D("0.0004"), per_request=D("0.4e-9")))
    cost = price.cost(usage(input_tokens=1, output_tokens=1), LONG_AGO)
    assert cost == v1.Cost(input=0, output=0, total=1)


def test_requests_are_charged_beside_tokens() -> None:
    price = Price.flat(Rates(input=D(1), output=D(1), per_request=D("0.005")))
    cost = price.cost(usage(input_tokens=1000, output_tokens=1000), LONG_AGO)
    assert cost == v1.Cost(input=10**6, output=10**6, total=7 * 10**6)


def test_a_kind_without_a_rate_is_unpriced_not_free() -> None:
    embedding = Price.flat(Rates(input=D("0.02")))
    assert embedding.cost(usage(input_tokens=50), LONG_AGO) == v1.Cost(input=1000, total=1000)
    spent = embedding.cost(usage(input_tokens=50, output_tokens=1), LONG_AGO)
    assert spent == v1.Cost(unpriced=True)
    assert embedding.estimate(50, 10, LONG_AGO) == 1200


def test_zero_is_a_price() -> None:
    free = Price.flat(Rates(input=D(0), output=D(0)))
    assert free.cost(usage(input_tokens=50, output_tokens=9), LONG_AGO) == v1.Cost()


def test_an_amount_beyond_the_contract_is_unpriced() -> None:
    price = Price.flat(PLAIN)
    assert price.cost(usage(input_tokens=2**62), LONG_AGO) == v1.Cost(unpriced=True)


def test_cost_of() -> None:
    price = Price.flat(PLAIN)
    counted = usage(input_tokens=4, output_tokens=1)
    assert cost_of(None, counted, LONG_AGO) == v1.Cost(unpriced=True)
    assert cost_of(price, counted, LONG_AGO) == v1.Cost(input=10_000, output=10_000, total=20_000)
    counted.source = v1.USAGE_SOURCE_ESTIMATE
    assert cost_of(price, counted, LONG_AGO).estimated
    assert cost_of(None, counted, LONG_AGO) == v1.Cost(unpriced=True, estimated=True)
    per_call = Price.flat(Rates(input=D(1), output=D(1), per_request=D(1)))
    assert cost_of(per_call, v1.Usage(), LONG_AGO) == v1.Cost()
    assert cost_of(None, v1.Usage(), LONG_AGO) == v1.Cost()


def test_estimates_are_upper_bounds_of_uncached_text() -> None:
    rng = random.Random(11)
    price = Price.flat(
        Rates(input=D("1.1"), output=D("4.4"), cached_input=D("0.1"), reasoning=D(9))
    )
    for _ in range(200):
        counts = usage(
            input_tokens=rng.randrange(10**6), output_tokens=(output := rng.randrange(10**5))
        )
        counts.cached_input_tokens = rng.randrange(counts.input_tokens + 1)
        counts.reasoning_tokens = rng.randrange(output + 1)
        assert price.cost(counts, LONG_AGO).total <= price.estimate(
            counts.input_tokens, output, LONG_AGO
        )


def random_usage(rng: random.Random) -> v1.Usage:
    """A consistent usage: every part within its total, no two parts overlapping wrongly."""
    plain, audio, cached, both, short, long = (rng.randrange(10**5) for _ in range(6))
    text, thought, spoken = (rng.randrange(10**4) for _ in range(3))
    return usage(
        input_tokens=plain + audio + cached + both + short + long,
        cached_input_tokens=cached + both,
        input_audio_tokens=audio + both,
        cached_input_audio_tokens=both,
        cache_write_tokens=short + long,
        cache_write_1h_tokens=long,
        output_tokens=text + thought + spoken,
        reasoning_tokens=thought,
        output_audio_tokens=spoken,
    )


def random_rates(rng: random.Random) -> Rates:
    def rate() -> D:
        return D(rng.randrange(10**9)) / D(10) ** rng.randrange(6, 16)

    def maybe() -> D | None:
        return rate() if rng.random() < 0.6 else None

    return Rates(rate(), rate(), maybe(), maybe(), maybe(), maybe(), maybe(), maybe(), maybe())


def added(first: v1.Usage, second: v1.Usage) -> v1.Usage:
    total = v1.Usage(source=first.source)
    for field in v1.Usage.DESCRIPTOR.fields:
        if field.name != "source":
            setattr(total, field.name, getattr(first, field.name) + getattr(second, field.name))
    return total


@pytest.mark.parametrize("seed", range(5))
def test_cost_is_additive_and_monotone_within_rounding(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        price = Price.flat(random_rates(rng))
        first, second = random_usage(rng), random_usage(rng)
        one, two = price.cost(first, LONG_AGO), price.cost(second, LONG_AGO)
        both = price.cost(added(first, second), LONG_AGO)
        for part in ("input", "output", "total"):
            # Each of the three amounts is rounded by at most half a nano.
            assert abs(getattr(both, part) - getattr(one, part) - getattr(two, part)) <= 1
            assert getattr(both, part) >= max(getattr(one, part), getattr(two, part))
        assert abs(both.total - both.input - both.output) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_cost_is_exact(seed: int) -> None:
    """Against the disjoint kinds, each times its rate in Decimal."""
    rng = random.Random(seed)
    for _ in range(60):
        rates = random_rates(rng)
        counts = random_usage(rng)
        inp = rates.input or D(0)

        def first(*choices: D | None) -> D:
            return next(choice for choice in choices if choice is not None)

        apart = [rate for rate in (rates.cached_input, rates.input_audio) if rate is not None]
        both = counts.cached_input_audio_tokens
        long = counts.cache_write_1h_tokens
        kinds = [
            (both, first(rates.cached_input_audio, max(apart) if apart else inp)),
            (counts.cached_input_tokens - both, first(rates.cached_input, inp)),
            (counts.input_audio_tokens - both, first(rates.input_audio, inp)),
            (long, first(rates.cache_write_1h, rates.cache_write, inp)),
            (counts.cache_write_tokens - long, first(rates.cache_write, inp)),
        ]
        kinds.append((counts.input_tokens - sum(count for count, _ in kinds), inp))
        expected = sum((count * rate for count, rate in kinds), D(0)) / 10**6
        cost = Price.flat(rates).cost(counts, LONG_AGO)
        assert cost.input == usd(expected)


def test_versions_compare_by_what_they_charge() -> None:
    assert Price.flat(PLAIN) == Price.flat(Rates(input=D("2.50"), output=D("10.0")))
    assert hash(Price.flat(PLAIN)) == hash(Price.flat(Rates(input=D("2.50"), output=D("10.0"))))
    assert Price.flat(PLAIN) != Price.flat(FULL)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Rates, "a price needs a rate for input or for output"),
        (lambda: Rates(input=D(-1)), "input: a rate is a number, zero or more, not -1"),
        (lambda: Rates(output=D("NaN")), "output: a rate is a number, zero or more, not NaN"),
        (lambda: Price([]), "a price needs at least one version"),
        (lambda: Price.flat(Rates(input=D("1e-19"))), "1E-19 is finer than prices are held"),
    ],
)
def test_wrong_prices_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("seed", range(5))
def test_an_estimate_in_parts_adds_up_to_the_estimate(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        request = Decimal(rng.choice(("0", "0.0000000014", "0.01")))
        price = Price.flat(Rates(input=Decimal(rng.randrange(1, 9999)) / 1000, per_request=request))
        inputs, outputs = rng.randrange(10_000), rng.randrange(10_000)
        of_input, of_output, total = price.estimate_parts(inputs, outputs, 0.0)
        assert total == price.estimate(inputs, outputs, 0.0)
        free = price.estimate(0, 0, 0.0)
        assert of_input == price.estimate(inputs, 0, 0.0) - free
        assert total == of_input + of_output + free
