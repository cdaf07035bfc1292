"""Limits in process: against a token bucket in exact fractions, and by their promises."""

import random
from fractions import Fraction

import pytest

from tests.unit.governance.world import SetClock, admit, demand, governor, refuse
from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.quotas.rules import Demand, Limit, Measure


def limit(name: str = "l", measure: Measure = Measure.REQUESTS, **changes: object) -> Limit:
    fields: dict[str, object] = {"scope": "key", "amount": 60} | changes
    return Limit(name=name, measure=measure, **fields)  # type: ignore[arg-type]  # Of a test's own.


class Bucket:
    """The oracle: a bucket of tokens that refills all the time, in exact arithmetic."""

    def __init__(self, rate: Fraction, size: int) -> None:
        self.rate = rate
        self.size = Fraction(size)
        self.level = Fraction(size)
        self.now = Fraction(0)

    def pass_to(self, now: Fraction) -> None:
        self.level = min(self.size, self.level + (now - self.now) * self.rate)
        self.now = now

    def take(self, units: int) -> bool:
        if self.level < units:
            return False
        self.level -= units
        return True

    def correct(self, back: int) -> None:
        self.level = min(self.size, self.level + back)


@pytest.mark.parametrize("seed", range(20))
def test_rates_decide_as_a_token_bucket(seed: int) -> None:
    rng = random.Random(seed)
    # Powers of two, which floats hold exactly: every decision must agree, the closest too.
    amount, burst = 60 * 2 ** rng.randrange(5), rng.randrange(1, 40)
    clock = SetClock()
    start = clock.now
    door = governor(clock, limit(measure=Measure.TOKENS, amount=amount, burst=burst))
    oracle = Bucket(Fraction(amount, 60), burst)
    verdicts = set()
    for _ in range(400):
        clock.advance(rng.randrange(64) / 64 * rng.choice((0.0, 2**-6, 1.0)))
        oracle.pass_to(Fraction(clock.now - start))
        units = rng.randrange(1, 12)
        if oracle.take(units):
            grant = admit(door, demand(tokens=units))
            verdicts.add(True)
            if rng.random() < 0.5:
                truth = rng.randrange(0, 2 * units)
                grant.settle(truth, 0)
                oracle.correct(units - truth)
        else:
            refuse(door, demand(tokens=units))
            verdicts.add(False)
    assert verdicts == {True, False}


@pytest.mark.parametrize("seed", range(10))
def test_no_window_sees_more_than_the_rate_and_the_burst(seed: int) -> None:
    rng = random.Random(seed)
    amount, burst = rng.randrange(1, 5000), rng.randrange(5, 50)
    clock = SetClock()
    door = governor(clock, limit(measure=Measure.TOKENS, amount=amount, burst=burst))
    admitted: list[tuple[float, int]] = []
    for _ in range(300):
        clock.advance(rng.expovariate(amount / 60))
        units = rng.randrange(1, burst + 1)
        try:
            admit(door, demand(tokens=units))
        except TrunklineError:
            continue
        admitted.append((clock.now, units))
    assert admitted
    for first in range(len(admitted)):
        total = 0
        for when, units in admitted[first:]:
            total += units
            assert total <= burst + amount / 60 * (when - admitted[first][0]) + 1e-3


@pytest.mark.parametrize("seed", range(20))
def test_retrying_exactly_after_the_wait_succeeds_and_not_before(seed: int) -> None:
    rng = random.Random(seed)
    clock = SetClock()
    rules = [
        limit("a", amount=rng.randrange(1, 100), per=rng.choice(("second", "minute", "hour"))),
        limit("b", Measure.TOKENS, amount=rng.randrange(100, 10**6), scope="tenant"),
        limit("c", amount=rng.randrange(1, 1000), per="day", scope="user", burst=3),
    ]
    door = governor(clock, *rules)
    denied = 0
    for _ in range(300):
        clock.advance(rng.random() * 0.5)
        wish = demand(tokens=rng.randrange(0, 100))
        try:
            admit(door, wish)
            continue
        except TrunklineError as error:
            wait = error.retry_after
        assert wait is not None
        denied += 1
        clock.advance(wait * 0.999)
        if wait > 0.01:
            refuse(door, wish)
        clock.advance(wait * 0.001)
        admit(door, wish)
    assert denied > 3


def test_the_default_burst_is_the_amount_and_refills_evenly() -> None:
    clock = SetClock()
    door = governor(clock, limit(amount=7, per="second"))
    for _ in range(7):
        admit(door, demand())
    assert refuse(door, demand()).retry_after == pytest.approx(1 / 7, abs=1e-5)
    clock.advance(1.0)
    for _ in range(7):
        admit(door, demand())
    refuse(door, demand())


def test_a_denial_names_the_limit_the_scope_and_the_subject() -> None:
    door = governor(SetClock(), limit("per-user", scope="user", amount=1))
    admit(door, demand())
    error = refuse(door, demand())
    assert error.reason == v1.ERROR_REASON_RATE_LIMIT
    assert error.metadata == {
        "limit": "per-user",
        "measure": "requests",
        "scope": "user",
        "subject": "u1",
        "user": "u1",
    }
    assert "per-user" in error.message


def test_what_can_never_pass_is_refused_without_a_wait() -> None:
    door = governor(SetClock(), limit(measure=Measure.TOKENS, amount=100))
    error = refuse(door, demand(tokens=101))
    assert error.retry_after is None
    assert "101" in error.message
    admit(door, demand(tokens=100))


def test_a_denial_takes_nothing_of_the_other_limits() -> None:
    clock = SetClock()
    door = governor(clock, limit("wide", amount=2), limit("narrow", amount=1, scope="user"))
    admit(door, demand())
    refuse(door, demand())
    refuse(door, demand())
    admit(door, demand(user="u2"))


def test_the_longest_wait_is_told() -> None:
    door = governor(
        SetClock(), limit("short", amount=1, per="second"), limit("long", amount=1, per="hour")
    )
    admit(door, demand())
    error = refuse(door, demand())
    assert error.metadata["limit"] == "long"
    assert error.retry_after == pytest.approx(3600.0)


def test_slots_are_freed_once_by_settle_or_cancel() -> None:
    door = governor(SetClock(), limit(measure=Measure.CONCURRENCY, amount=2))
    first, second = admit(door, demand()), admit(door, demand())
    error = refuse(door, demand())
    assert error.retry_after is None
    first.settle(0, 0)
    first.settle(0, 0)
    first.cancel()
    third = admit(door, demand())
    refuse(door, demand())
    second.cancel()
    third.settle(5, 5)
    admit(door, demand())


def test_a_cancelled_call_gives_its_tokens_back_and_counts_as_a_request() -> None:
    door = governor(
        SetClock(), limit("r", amount=2), limit("t", Measure.TOKENS, amount=100, scope="tenant")
    )
    admit(door, demand(tokens=100)).cancel()
    admit(door, demand(tokens=100)).cancel()
    assert refuse(door, demand(tokens=100)).metadata["limit"] == "r"


@pytest.mark.parametrize("scope", ["key", "user", "project", "tenant", "model"])
def test_each_subject_of_a_scope_has_a_limit_of_its_own(scope: str) -> None:
    door = governor(SetClock(), limit(scope=scope, amount=1))
    admit(door, demand())
    refuse(door, demand())
    admit(door, demand(**{scope: "other"}))
    # Who is not known is not limited.
    for _ in range(3):
        admit(door, demand(**{scope: ""}))


def test_users_of_two_tenants_are_two_users_and_a_model_is_one() -> None:
    clock = SetClock()
    door = governor(clock, limit(scope="user", amount=1))
    admit(door, demand())
    admit(door, demand(tenant="t2"))
    door = governor(clock, limit(scope="model", amount=1))
    admit(door, demand())
    refuse(door, demand(tenant="t2"))


def test_patterns_choose_whom_a_limit_is_for() -> None:
    match = {"model": ("gpt-*", "o1"), "tenant": ("t1",)}
    door = governor(SetClock(), limit(amount=1, match=match))
    for _ in range(2):
        admit(door, demand(model="claude"))
        admit(door, demand(model="gpt-5", tenant="t2"))
    admit(door, demand(model="gpt-5"))
    refuse(door, demand(model="o1"))


def test_limits_of_providers_hold_for_attempts_alone() -> None:
    door = governor(SetClock(), limit(scope="provider", amount=1))
    for _ in range(3):
        admit(door, demand())
    attempt = demand(provider="openai")
    door.admit_attempt(attempt)
    with pytest.raises(TrunklineError) as caught:
        door.admit_attempt(attempt)
    assert caught.value.metadata["provider"] == "openai"
    door.admit_attempt(demand(provider="other"))


def test_new_settings_keep_the_counts_of_unchanged_limits() -> None:
    door = governor(SetClock(), limit("same", amount=1), limit("gone", amount=1, scope="user"))
    admit(door, demand())
    door.configure([limit("same", amount=1), limit("new", amount=9, scope="tenant")], [])
    assert refuse(door, demand()).metadata["limit"] == "same"
    admit(door, demand(key="k2"))
    door.configure([limit("same", amount=2)], [])
    admit(door, demand())


def test_idle_subjects_are_forgotten_and_busy_ones_are_not() -> None:
    clock = SetClock()
    door = governor(clock, limit(amount=1, per="hour"))
    admit(door, demand(key="busy"))
    for number in range(5000):
        clock.advance(1e-4)
        admit(door, demand(key=f"k{number}"))
    refuse(door, demand(key="busy"))
    refuse(door, demand(key="k4999"))


def test_two_limits_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="'l'"):
        governor(SetClock(), limit(), limit(scope="user"))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"per": "week"}, "per"),
        ({"burst": 0}, "burst"),
        ({"scope": "service"}, "scope"),
        ({"match": {"colour": ("red",)}}, "match.colour"),
        ({"match": {"model": ()}}, "match.model"),
        ({"max_wait": -1.0}, "max_wait"),
        ({"max_wait": float("nan")}, "max_wait"),
        ({"max_waiting": 0}, "max_waiting"),
        ({"name": ""}, "name"),
    ],
)
def test_a_wrong_limit_is_named(changes: dict[str, object], field: str) -> None:
    fields: dict[str, object] = {"name": "l", "measure": Measure.REQUESTS, "scope": "key"}
    with pytest.raises(ValueError, match=f"^{field} "):
        Limit(**(fields | {"amount": 1} | changes))  # type: ignore[arg-type]  # Of a test's own.


def test_a_call_without_rules_is_granted_without_more() -> None:
    door = governor(SetClock())
    wish = Demand()
    assert door.admit(wish) is door.admit(wish)
