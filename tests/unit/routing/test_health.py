"""Health: averages, pauses, what is unavailable, and what survives a reload."""

import math
import random

import pytest

from trunkline import v1
from trunkline_server.routing.health import BreakerPolicy, HealthTable

NEVER_OPENS = BreakerPolicy(consecutive_failures=10**9, min_calls=10**9)


def table(size: int = 1, policy: BreakerPolicy | None = None) -> HealthTable:
    return HealthTable([f"d{slot}" for slot in range(size)], policy or BreakerPolicy())


def ok(health: HealthTable, now: float, latency: float = 1.0, slot: int = 0) -> None:
    health.begin(slot, now)
    health.succeed(slot, now, latency)


def bad(health: HealthTable, now: float, slot: int = 0, **details: float | bool) -> None:
    health.begin(slot, now)
    health.fail(slot, now, **details)  # type: ignore[arg-type] # Passed through by name.


def test_an_unused_deployment_is_available_and_unmeasured() -> None:
    health = table()
    assert health.available(0, 5.0)
    assert health.state(0, 5.0) == v1.CIRCUIT_STATE_CLOSED
    assert health.latency(0) is None
    assert health.first_token(0) is None
    assert health.success_rate(0) == 1.0
    assert health.in_flight(0) == 0
    assert health.cooldown_remaining(0, 5.0) == 0.0
    assert health.latency_percentile(0, 0.5) is None
    assert health.loads([0], 5.0) == [0.0]
    assert not health.blocked(5.0)


def test_names_are_distinct() -> None:
    with pytest.raises(ValueError, match="same name"):
        HealthTable(["a", "a"])


def test_in_flight_follows_begin_and_every_end() -> None:
    health = table()
    for _ in range(3):
        health.begin(0, 0.0)
    assert health.in_flight(0) == 3
    health.succeed(0, 1.0, 1.0)
    health.fail(0, 1.0)
    health.neutral(0, 1.0)
    assert health.in_flight(0) == 0
    health.neutral(0, 1.0)
    assert health.in_flight(0) == 0


def test_the_mean_latency_is_weighted_by_age() -> None:
    health = table(policy=BreakerPolicy(ewma_seconds=10.0))
    ok(health, 0.0, 1.0)
    assert health.latency(0) == 1.0
    ok(health, 0.0, 3.0)
    assert health.latency(0) == 2.0
    ok(health, 10.0 * math.log(2.0), 8.0)
    # The two old samples count half each: (0.5 * 1 + 0.5 * 3 + 8) / 2.
    assert health.latency(0) == pytest.approx(5.0)


def test_after_a_very_long_silence_the_next_sample_is_the_mean() -> None:
    health = table()
    ok(health, 0.0, 7.0)
    ok(health, 1e9, 2.0)
    assert health.latency(0) == 2.0
    assert health.success_rate(0) == 1.0


def test_first_token_is_apart_from_latency() -> None:
    health = table()
    health.begin(0, 0.0)
    health.succeed(0, 0.0, 9.0, 0.2)
    assert health.latency(0) == 9.0
    assert health.first_token(0) == pytest.approx(0.2)
    assert health.loads([0], 0.0) == [9.0]
    assert health.loads([0], 0.0, stream=True) == pytest.approx([0.2])


def test_streams_compare_whole_latency_until_a_first_token_is_measured() -> None:
    health = table()
    ok(health, 0.0, 4.0)
    assert health.loads([0], 0.0, stream=True) == [4.0]


def test_the_peak_rises_at_once_and_falls_with_time() -> None:
    health = table(policy=BreakerPolicy(ewma_seconds=10.0))
    ok(health, 0.0, 1.0)
    ok(health, 0.0, 5.0)
    assert health.loads([0], 0.0) == [5.0]
    ok(health, 0.0, 1.0)
    assert health.loads([0], 0.0) == [5.0], "a lower sample does not hide a peak at once"
    half = 10.0 * math.log(2.0)
    assert health.loads([0], half) == pytest.approx([2.5])
    ok(health, half, 1.0)
    assert health.loads([0], half) == pytest.approx([3.0]), "half of 5 and half of 1"


def test_load_counts_the_calls_in_flight() -> None:
    health = table()
    ok(health, 0.0, 2.0)
    health.begin(0, 0.0)
    health.begin(0, 0.0)
    assert health.loads([0], 0.0) == [6.0]


def test_a_newcomer_under_measurement_is_not_flooded() -> None:
    health = table(2)
    ok(health, 0.0, 30.0, slot=1)
    health.begin(0, 0.0)
    unmeasured, slow = health.loads([0, 1], 0.0)
    assert unmeasured > slow


def test_a_failure_can_raise_the_peak_but_improves_nothing() -> None:
    health = table(policy=NEVER_OPENS)
    ok(health, 0.0, 2.0)
    bad(health, 0.0, latency=0.001)
    assert health.loads([0], 0.0) == [2.0]
    bad(health, 0.0, latency=30.0)
    assert health.loads([0], 0.0) == [30.0]
    assert health.latency(0) == 2.0, "the mean is that of answers"


def test_failing_fast_before_any_success_is_not_a_measured_latency() -> None:
    health = table(policy=NEVER_OPENS)
    bad(health, 0.0, latency=0.001)
    assert health.latency(0) is None


def test_success_rate_counts_one_imagined_success_and_forgives_with_time() -> None:
    health = table(policy=NEVER_OPENS)
    for _ in range(3):
        bad(health, 0.0)
    assert health.success_rate(0) == pytest.approx(1 / 4)
    ok(health, 0.0)
    assert health.success_rate(0) == pytest.approx(2 / 5)
    assert health.success_rate(0, 0.0) == pytest.approx(2 / 5)
    assert 0.4 < health.success_rate(0, 30.0) < 0.8
    assert health.success_rate(0, 3_000.0) == pytest.approx(1.0)
    assert health.success_rates([0], 0.0) == [health.success_rate(0, 0.0)]


def test_percentiles_are_those_of_the_last_64_and_need_20() -> None:
    health = table()
    for sample in range(19):
        ok(health, 0.0, float(sample))
    assert health.latency_percentile(0, 0.5) is None
    ok(health, 0.0, 19.0)
    assert health.latency_percentile(0, 0.5) == 9.0
    assert health.latency_percentile(0, 0.95) == 18.0
    assert health.latency_percentile(0, 1.0) == 19.0
    assert health.latency_percentile(0, 0.0) == 0.0
    assert health.latency_percentile(0, 0.5, first_token=True) is None
    for sample in range(100, 164):
        ok(health, 0.0, float(sample))
    assert health.latency_percentile(0, 0.0) == 100.0
    assert health.latency_percentile(0, 1.0) == 163.0


# Pauses.


def test_a_pause_lasts_as_long_as_the_vendor_asked() -> None:
    health = table()
    bad(health, 100.0, cooldown=True, retry_after=42.0)
    assert health.cooldown_remaining(0, 100.0) == 42.0
    assert not health.available(0, 141.9)
    assert 0 in health.blocked(141.9)
    assert health.available(0, 142.0)
    assert 0 not in health.blocked(142.0)


def test_without_a_wish_the_pause_is_the_default_and_every_wish_is_bounded() -> None:
    health = table(2, BreakerPolicy(default_cooldown=7.0, max_cooldown=60.0))
    bad(health, 0.0, cooldown=True)
    assert health.cooldown_remaining(0, 0.0) == 7.0
    bad(health, 0.0, slot=1, cooldown=True, retry_after=86_400.0)
    assert health.cooldown_remaining(1, 0.0) == 60.0


def test_a_wish_for_no_pause_or_a_nonsensical_one_is_none() -> None:
    health = table()
    bad(health, 0.0, cooldown=True, retry_after=-3.0)
    assert health.available(0, 0.0)


def test_without_cooldown_a_wish_is_not_a_pause() -> None:
    health = table()
    bad(health, 0.0, retry_after=42.0)
    assert health.available(0, 0.0)


def test_success_does_not_end_a_pause() -> None:
    health = table()
    bad(health, 0.0, cooldown=True, retry_after=20.0)
    ok(health, 1.0)
    assert health.cooldown_remaining(0, 1.0) == 19.0


@pytest.mark.parametrize("seed", range(20))
def test_nothing_shortens_a_pause(seed: int) -> None:
    rng = random.Random(seed)
    health = table(policy=NEVER_OPENS)
    now = ends = 0.0
    for _ in range(300):
        now += rng.random() * 2
        match rng.randrange(4):
            case 0:
                ok(health, now)
            case 1:
                bad(health, now)
            case 2:
                health.begin(0, now)
                health.neutral(0, now)
            case _:
                wish = rng.choice((None, 0.0, 0.5, 3.0, 10.0, 1_000.0))
                health.begin(0, now)
                health.fail(0, now, cooldown=True, retry_after=wish)
                pause = 5.0 if wish is None else min(wish, 300.0)
                ends = max(ends, now + pause)
        assert health.cooldown_remaining(0, now) == pytest.approx(max(ends - now, 0.0))
        assert (0 in health.blocked(now)) is (now < ends)


# What is unavailable.


@pytest.mark.parametrize("seed", range(20))
def test_the_set_of_unavailable_slots_agrees_with_each_slot(seed: int) -> None:
    """`blocked` is kept up to date step by step; `available` computes afresh."""
    rng = random.Random(seed)
    health = table(8, BreakerPolicy(consecutive_failures=2, open_seconds=3.0, max_cooldown=9.0))
    flying: list[int] = []
    now = 0.0
    seen: dict[int, frozenset[int]] = {}
    for _ in range(2_000):
        now += rng.choice((0.0, 0.1, 1.0))
        slot = rng.randrange(8)
        if rng.random() < 0.5 and len(flying) < 20:
            health.begin(slot, now)
            flying.append(slot)
        elif flying:
            slot = flying.pop(rng.randrange(len(flying)))
            match rng.randrange(5):
                case 0 | 1:
                    health.fail(slot, now)
                case 2:
                    health.fail(slot, now, cooldown=True, retry_after=rng.random() * 5)
                case 3:
                    health.succeed(slot, now, 1.0)
                case _:
                    health.neutral(slot, now)
        blocked = frozenset(health.blocked(now))
        assert blocked == {slot for slot in range(8) if not health.available(slot, now)}
        assert seen.setdefault(health.epoch, blocked) == blocked, "one epoch, one set"
    assert len(seen) > 50


def test_half_open_places_are_taken_and_given_back() -> None:
    health = table(policy=BreakerPolicy(consecutive_failures=1, half_open_calls=2))
    bad(health, 0.0)
    assert health.state(0, 0.0) == v1.CIRCUIT_STATE_OPEN
    assert health.open_remaining(0, 4.0) == 6.0
    assert health.state(0, 10.0) == v1.CIRCUIT_STATE_HALF_OPEN
    health.begin(0, 10.0)
    assert 0 not in health.blocked(10.0)
    health.begin(0, 10.0)
    assert 0 in health.blocked(10.0)
    health.neutral(0, 10.5)
    assert 0 not in health.blocked(10.5)
    health.begin(0, 11.0)
    health.succeed(0, 12.0, 1.0)
    assert 0 in health.blocked(12.0), "a place that gave a verdict is not taken twice"
    health.succeed(0, 12.0, 1.0)
    assert health.state(0, 12.0) == v1.CIRCUIT_STATE_CLOSED
    assert 0 not in health.blocked(12.0)


def test_the_agenda_stays_small_in_a_storm() -> None:
    health = table(2, NEVER_OPENS)
    for step in range(5_000):
        bad(health, step * 0.001, cooldown=True, retry_after=20.0 + step * 0.01)
    assert len(health._agenda) == 1
    last = 4.999 + 20.0 + 49.99
    assert 0 in health.blocked(last - 0.001)
    assert 0 not in health.blocked(last + 0.001)


# Reload.


def test_state_is_carried_over_by_name() -> None:
    old = HealthTable(["a", "b", "c"])
    ok(old, 0.0, 2.0, slot=0)
    bad(old, 0.0, slot=1, cooldown=True, retry_after=50.0)
    ok(old, 0.0, 9.0, slot=2)
    new = HealthTable(["x", "b", "a"], previous=old)
    assert new.latency(0) is None
    assert new.latency(2) == 2.0
    assert new.loads([0, 2], 0.0) == [0.0, 2.0]
    assert new.cooldown_remaining(1, 0.0) == 50.0
    assert set(new.blocked(0.0)) == {1}
    assert new.success_rates([0, 1, 2], 0.0) == [1.0, 0.5, 1.0]
    assert set(new.blocked(50.0)) == set()


def test_calls_begun_before_a_reload_end_in_the_new_table() -> None:
    policy = BreakerPolicy(consecutive_failures=1)
    old = HealthTable(["a", "b"], policy)
    for _ in range(3):
        old.begin(1, 0.0)
    new = HealthTable(["b", "a"], policy, old)
    assert new.in_flight(0) == 3
    old.neutral(1, 1.0)
    old.succeed(1, 1.0, 0.5)
    assert (new.in_flight(0), new.in_flight(1)) == (1, 0)
    assert new.loads([0, 1], 1.0) == [1.0, 0.0]
    old.fail(1, 1.0)
    assert new.in_flight(0) == 0
    assert set(new.blocked(1.0)) == {0}
    assert new.success_rates([0, 1], 1.0) == [pytest.approx(2 / 3), 1.0]


def test_a_table_can_be_taken_over_twice() -> None:
    first = HealthTable(["a", "b"])
    bad(first, 0.0, slot=1, cooldown=True, retry_after=10.0)
    HealthTable(["b", "a"], previous=first)
    third = HealthTable(["z", "y", "b"], previous=first)
    assert set(third.blocked(0.0)) == {2}
    assert set(third.blocked(10.0)) == set()


def test_turns_are_carried_over() -> None:
    old = HealthTable(["a"])
    old.set_turn("r", 3)
    assert HealthTable(["b"], previous=old).turn("r") == 3


def test_unused_deployments_cost_next_to_nothing() -> None:
    import tracemalloc  # noqa: PLC0415 - only here, because it slows everything.

    names = [f"d{slot}" for slot in range(10_000)]
    tracemalloc.start()
    try:
        health = HealthTable(names)
        unused, _ = tracemalloc.get_traced_memory()
        for slot in range(0, 10_000, 10):
            ok(health, 0.0, slot=slot)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert unused < 2_000_000
    assert (used - unused) / 1_000 < 1_500, "bytes for each deployment in use"
