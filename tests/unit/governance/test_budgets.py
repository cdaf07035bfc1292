"""Budgets in process: against sums kept by hand, over periods, seeds and orphans."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pytest

from tests.unit.governance.world import DAY, MARCH, Heard, SetClock, admit, demand, governor, refuse
from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.quotas.budgets import SpendGate
from trunkline_server.governance.quotas.gates import DRY
from trunkline_server.governance.quotas.governor import Governor, Grant
from trunkline_server.governance.quotas.outage import OutageModes
from trunkline_server.governance.quotas.ports import NEVER
from trunkline_server.governance.quotas.rules import MAX_NANOS, Budget, OnOutage, Period

SUBJECT = ("t1", "t1")


def budget(**changes: object) -> Budget:
    fields: dict[str, object] = {"name": "b", "scope": "tenant", "amount": 1000} | changes
    return Budget(**fields)  # type: ignore[arg-type]  # Of a test's own.


def spend_gate(clock: SetClock, declared: Budget) -> SpendGate:
    return SpendGate(declared, clock, lambda *_: None)


@pytest.mark.parametrize("seed", range(20))
def test_the_counter_is_what_was_settled_and_is_reserved(seed: int) -> None:
    rng = random.Random(seed)
    clock = SetClock()
    gate = spend_gate(clock, budget())
    held: dict[int, int] = {}
    spent = 0
    done: list[int] = []
    refused = 0
    for _ in range(500):
        clock.advance(rng.random())
        amount = rng.randrange(0, 120)
        if rng.random() < 0.6:
            room = spent + sum(held.values()) + amount <= 1000
            wait = gate.wait(SUBJECT, demand(cost=amount), clock.now)
            assert (wait == 0.0) == room
            if room:
                held[gate.reserve(SUBJECT, amount, clock.now + 1e9)] = amount
            else:
                refused += 1
        elif held:
            one = rng.choice(list(held))
            worst = held.pop(one)
            truth = rng.randrange(0, worst // 8 + 1)
            gate.settle(one, truth)
            spent += truth
            done.append(one)
        if done and rng.random() < 0.3:
            gate.settle(rng.choice(done), 77)
            gate.cancel(rng.choice(done))
        counter = gate.counter(SUBJECT)
        assert (counter.used, counter.reserved) == (spent + sum(held.values()), sum(held.values()))
        assert counter.used <= 1000
    assert refused


def test_truth_above_the_worst_case_counts_in_full() -> None:
    clock = SetClock()
    door = governor(clock, budget())
    admit(door, demand(cost=900)).settle(10, 1100)
    error = refuse(door, demand(cost=1))
    assert error.reason == v1.ERROR_REASON_QUOTA_EXCEEDED
    assert error.metadata["budget"] == "b"
    assert (error.metadata["scope"], error.metadata["subject"]) == ("tenant", "t1")


def test_what_is_more_than_the_budget_is_refused_without_a_wait() -> None:
    door = governor(SetClock(), budget())
    assert refuse(door, demand(cost=1001)).retry_after is None


@pytest.mark.parametrize(
    ("period", "start", "ends"),
    [
        (Period.DAILY, datetime(2026, 3, 1, 23, 59, 58, tzinfo=UTC), "2026-03-02"),
        (Period.MONTHLY, datetime(2026, 2, 28, 12, tzinfo=UTC), "2026-03-01"),
        (Period.MONTHLY, datetime(2028, 2, 29, 23, 59, tzinfo=UTC), "2028-03-01"),
        (Period.MONTHLY, datetime(2026, 12, 31, 1, 2, 3, tzinfo=UTC), "2027-01-01"),
    ],
)
def test_a_calendar_budget_begins_anew_exactly_when_it_says(
    period: Period, start: datetime, ends: str
) -> None:
    clock = SetClock(start.timestamp())
    door = governor(clock, budget(period=period))
    admit(door, demand(cost=1000)).settle(0, 1000)
    wait = refuse(door, demand(cost=1)).retry_after
    assert wait is not None
    end = datetime.fromisoformat(ends).replace(tzinfo=UTC)
    assert clock.wall() + wait == pytest.approx(end.timestamp(), abs=1e-5)
    clock.advance(wait - 0.01)
    refuse(door, demand(cost=1))
    clock.advance(0.01)
    admit(door, demand(cost=1000))


def test_a_late_settlement_counts_for_the_period_of_its_reservation() -> None:
    clock = SetClock(MARCH + DAY - 1)
    door = governor(clock, budget(period=Period.DAILY))
    late = admit(door, demand(cost=1000))
    clock.advance(2.0)
    admit(door, demand(cost=600))
    late.settle(0, 1000)
    admit(door, demand(cost=400))
    refuse(door, demand(cost=1))


def test_a_clock_set_back_finds_the_spend_of_the_day_before() -> None:
    clock = SetClock(MARCH + DAY - 1)
    door = governor(clock, budget(period=Period.DAILY))
    admit(door, demand(cost=700)).settle(0, 700)
    clock.offset += 2.0
    admit(door, demand(cost=1000)).settle(0, 1000)
    clock.offset -= 2.0
    refuse(door, demand(cost=301))
    admit(door, demand(cost=300))


@pytest.mark.parametrize("seed", range(10))
def test_no_rolling_window_sees_more_than_the_amount(seed: int) -> None:
    rng = random.Random(seed)
    clock = SetClock()
    window = rng.choice((10, 60, 3600))
    gate = spend_gate(clock, budget(period=Period.ROLLING, window=window))
    events: list[tuple[float, int]] = []
    checked = 0
    for _ in range(400):
        clock.advance(rng.random() * window / 20)
        cost = rng.randrange(1, 200)
        wait = gate.wait(SUBJECT, demand(cost=cost), clock.now)
        if wait > 0.0 and wait > window / 100:
            checked += 1
            clock.advance(wait)
            wait = gate.wait(SUBJECT, demand(cost=cost), clock.now)
            assert wait == 0.0
        if wait:
            continue
        truth = rng.randrange(0, cost + 1)
        gate.settle(gate.reserve(SUBJECT, cost, clock.now + 1e9), truth)
        events.append((clock.now, truth))
        assert sum(one for when, one in events if when > clock.now - window) <= 1000
    assert checked
    # What has left the window by two steps is surely gone.
    clock.advance(window * 1.2)
    assert gate.counter(SUBJECT).used == 0


def test_an_orphan_expires_and_its_late_settlement_counts_once() -> None:
    clock = SetClock()
    gate = spend_gate(clock, budget())
    orphan = gate.reserve(SUBJECT, 1000, clock.now + 5.0)
    clock.advance(15.0)
    assert gate.wait(SUBJECT, demand(cost=1000), clock.now) == 0.0
    gate.settle(orphan, 400)
    gate.settle(orphan, 400)
    assert gate.wait(SUBJECT, demand(cost=601), clock.now) != 0.0
    assert gate.wait(SUBJECT, demand(cost=600), clock.now) == 0.0


def test_thresholds_are_announced_once_per_period() -> None:
    clock, heard = SetClock(), Heard()
    door = governor(clock, budget(period=Period.DAILY, thresholds=(0.9, 0.5)), audience=heard)
    admit(door, demand(cost=1000)).cancel()
    assert heard.thresholds == []
    for _ in range(10):
        admit(door, demand(cost=100)).settle(0, 100)
    assert heard.thresholds == [("b", "t1", 0.5), ("b", "t1", 0.9)]
    clock.advance(DAY)
    admit(door, demand(cost=1000)).settle(0, 500)
    assert heard.thresholds[2:] == [("b", "t1", 0.5)]


def test_a_raised_budget_keeps_what_was_spent() -> None:
    door = governor(SetClock(), budget())
    admit(door, demand(cost=1000)).settle(0, 1000)
    door.configure([], [budget(amount=1500)])
    refuse(door, demand(cost=501))
    admit(door, demand(cost=500))


def test_service_and_project_have_budgets_of_their_own() -> None:
    door = governor(SetClock(), budget(scope="service"), budget(name="p", scope="project"))
    admit(door, demand(cost=600))
    assert refuse(door, demand(cost=600)).metadata["scope"] in {"service", "project"}
    assert refuse(door, demand(cost=600, service="s2")).metadata["scope"] == "project"
    admit(door, demand(cost=600, service="s2", project="p2"))


class Sums:
    """A ledger with sums, that can be away or slow."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.asked: list[tuple[str, str, str, list[float], float]] = []
        self.error: Exception | None = None

    async def spent(
        self,
        scope: str,
        tenant: str,
        subject: str,
        starts: Sequence[float],
        end: float,
        *,
        match: Mapping[str, Sequence[str]],
    ) -> Sequence[int]:
        self.asked.append((scope, tenant, subject, list(starts), end))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return [self.total] + [0] * (len(starts) - 1)


def seeded(clock: SetClock, sums: Sums, **changes: object) -> Governor:
    modes = changes.pop("modes", None)
    assert modes is None or isinstance(modes, OutageModes)
    return Governor(
        [], [budget(**changes)], clock=clock, audience=Heard(), source=sums, modes=modes
    )


async def enter(door: Governor, cost: int) -> Grant:
    grant = door.admit(demand(cost=cost))
    return grant if isinstance(grant, Grant) else await grant


async def test_a_counter_begins_with_the_sum_of_the_ledger_asked_for_once() -> None:
    clock, sums = SetClock(MARCH + 100.0), Sums(900)
    door = seeded(clock, sums, period=Period.MONTHLY)
    outcomes = await asyncio.gather(*(enter(door, 30) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(one, Grant) for one in outcomes) == 3
    assert sums.asked == [("tenant", "t1", "t1", [MARCH], MARCH + 100.0)]
    # From now on, and in periods that begin while it runs, nothing is asked.
    assert isinstance(door.admit(demand(cost=10)), Grant)
    clock.advance(31 * DAY)
    assert isinstance(door.admit(demand(cost=1000)), Grant)
    assert len(sums.asked) == 1


async def test_a_rolling_counter_begins_with_the_sums_of_its_steps() -> None:
    clock, sums = SetClock(MARCH + 100.0), Sums(800)
    door = seeded(clock, sums, period=Period.ROLLING, window=300)
    with pytest.raises(TrunklineError) as caught:
        await enter(door, 300)
    starts = sums.asked[0][3]
    assert len(starts) == 31
    assert starts[0] <= MARCH - 200.0 < starts[1]
    assert caught.value.retry_after is not None
    clock.advance(caught.value.retry_after)
    await enter(door, 300)


async def test_a_ledger_that_is_away_does_not_stop_calls() -> None:
    clock, sums = SetClock(), Sums(900)
    clock.advance(5.0)
    sums.error = OSError("the database is away")
    door = seeded(clock, sums, period=Period.ROLLING, window=300)
    (await enter(door, 50)).settle(0, 50)
    asked = len(sums.asked)
    assert isinstance(door.admit(demand(cost=10)), Grant)
    # A while later it is back, and its sum is added to what was spent meanwhile.
    sums.error = None
    clock.advance(2.0)
    with pytest.raises(TrunklineError):
        await enter(door, 60)
    assert len(sums.asked) == asked + 1
    await enter(door, 40)


async def test_a_budget_that_must_not_go_unseeded_says_that_it_is_unavailable() -> None:
    clock, sums = SetClock(), Sums(0)
    sums.error = OSError("the database is away")
    modes = OutageModes(budgets=OnOutage.DENY)
    door = seeded(clock, sums, period=Period.ROLLING, window=300, modes=modes)
    with pytest.raises(TrunklineError) as caught:
        await enter(door, 1)
    assert caught.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE


def test_an_unseeded_counter_is_dry_and_never_is_never() -> None:
    clock = SetClock()
    clock.advance(1.0)
    declared = budget(period=Period.ROLLING, window=60)
    gate = SpendGate(declared, clock, lambda *_: None, seeds=True)
    assert gate.wait(SUBJECT, demand(cost=1), clock.now) == DRY
    gate.seed(SUBJECT, [])
    assert gate.wait(SUBJECT, demand(cost=1001), clock.now) == NEVER


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": MAX_NANOS + 1}, "amount"),
        ({"scope": "user"}, "scope"),
        ({"period": Period.ROLLING}, "window"),
        ({"period": Period.DAILY, "window": 60}, "window"),
        ({"thresholds": (0.5, 1.5)}, "thresholds"),
        ({"thresholds": (0.0,)}, "thresholds"),
    ],
)
def test_a_wrong_budget_is_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} "):
        budget(**changes)
