"""Figures, ratios and the queueing model, against what is known of them."""

import math
import random

import pytest
from bench.common.stats import Figure, figure, ratio
from bench.queueing import Service, StoreUse, simulate, store_capacity, workers_for


def test_a_figure_is_the_median_with_its_range() -> None:
    found = figure([3.0, 100.0, 1.0, 2.0, 4.0])
    assert (found.median, found.low, found.high) == (3.0, 1.0, 100.0)
    assert found.show() == "3 (1-100)"
    assert Figure((1234.5,)).show(1) == "1,234.5"


def test_no_figure_without_a_sample() -> None:
    with pytest.raises(ValueError, match="sample"):
        figure([])


def test_ratios_are_taken_round_by_round() -> None:
    """A slow second round falls on both and leaves the ratio alone."""
    found = ratio(Figure((10.0, 100.0, 10.0)), Figure((5.0, 50.0, 5.0)))
    assert found.samples == (2.0, 2.0, 2.0)


def test_rounds_must_match() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio(Figure((1.0, 2.0)), Figure((1.0,)))


def exponential(mean: float) -> Service:
    """Quantiles of the exponential distribution; the last is cut off."""
    shape = [-math.log(1 - min(part / 100, 0.9995)) for part in range(101)]
    return Service.of(shape, mean)


def test_a_service_keeps_its_mean() -> None:
    service = Service.of([1.0, 2.0, 9.0], 3.0)
    assert service.mean == pytest.approx(3.0)
    rng = random.Random(5)
    drawn = [service.draw(rng) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(3.0, rel=0.02)
    assert min(drawn) >= min(service.quantiles)
    assert max(drawn) <= max(service.quantiles)


@pytest.mark.parametrize(("shape", "mean"), [([1.0], 1.0), ([1.0, 2.0], 0.0)])
def test_a_service_needs_a_shape_and_a_mean(shape: list[float], mean: float) -> None:
    with pytest.raises(ValueError, match="service time"):
        Service.of(shape, mean)


def test_one_server_waits_as_cramer_and_lundberg_say() -> None:
    """M/D/1: P(wait > t) tends to C exp(-theta t), where lambda (e^theta - 1) = theta and
    C = (1 - rho) / (rho e^theta - 1), for a service of 1."""
    rho = 0.8
    low, high = 1e-6, 2.0
    for _ in range(60):
        theta = (low + high) / 2
        low, high = (theta, high) if rho * (math.exp(theta) - 1) < theta else (low, theta)
    constant = (1 - rho) / (rho * math.exp(low) - 1)
    expected = math.log(constant / 0.01) / low
    found = simulate(1000.0 * rho, 1, Service([1.0] * 101), arrivals=400_000)
    assert found.wait_p99 == pytest.approx(expected, rel=0.06)
    assert found.stay_p50 > 1.0


def test_many_servers_wait_as_erlang_c_says() -> None:
    """M/M/k: P(wait > t) = C(k, a) exp(-(k mu - lambda) t)."""
    servers, load = 4, 3.2
    offered = load**servers / math.factorial(servers) * servers / (servers - load)
    waits = offered / (sum(load**n / math.factorial(n) for n in range(servers)) + offered)
    # lambda and mu in calls per millisecond.
    expected = math.log(waits / 0.01) / (servers - load)
    found = simulate(1000.0 * load, servers, exponential(1.0), arrivals=400_000)
    assert found.wait_p99 == pytest.approx(expected, rel=0.15)


def test_the_same_seed_gives_the_same_waits() -> None:
    service = exponential(1.0)
    assert simulate(700.0, 1, service, arrivals=5_000) == simulate(
        700.0, 1, service, arrivals=5_000
    )


def test_workers_are_enough_and_not_too_many() -> None:
    service = exponential(1.0)
    workers = workers_for(10_000.0, service)
    # At 70 %: ten busy workers need more than fourteen places.
    assert 14 < workers <= 20
    assert workers_for(20_000.0, service) < 2 * workers + 1


def test_stores_are_sized_by_what_a_call_takes() -> None:
    """70 us of Redis at 10,000 calls/s are 0.7 s of CPU a second: one core at 70 %."""
    table = store_capacity(
        {"Redis": StoreUse(70.0, 3.0, 500.0), "Postgres": StoreUse(0.0, 2.0, 0.0)}
    )
    rows = {row[0]: list(row[1:]) for row in table.rows}
    assert rows["10,000 calls/s, Redis"] == ["30,000", "5.0", "1.0", "1", "0.04"]
    assert rows["100,000 calls/s, Redis"] == ["300,000", "50.0", "10.0", "10", "0.40"]
    assert rows["10,000 calls/s, Postgres"][0] == "20,000"
