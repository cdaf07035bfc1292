"""Explanations agree with the plans they explain."""

import random

import pytest

from tests.unit.routing.tables import (
    Away,
    deployment,
    flat,
    one_route,
    random_query,
    random_table,
)
from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.health import BreakerPolicy, HealthTable
from trunkline_server.routing.plan import explain, plan
from trunkline_server.routing.pools import pool_of
from trunkline_server.routing.query import Query
from trunkline_server.routing.snapshot import Snapshot

ALL = sorted(set(v1.Strategy.values()) - {v1.STRATEGY_UNSPECIFIED})


def told(
    snapshot: Snapshot,
    query: Query,
    health: HealthTable,
    now: float = 0.0,
    *,
    in_full: bool = False,
) -> list[v1.Candidate]:
    chosen = plan(snapshot, query, health, now, random.Random(3))
    return explain(snapshot, health, now, chosen, in_full=in_full)


def stir(health: HealthTable, size: int, rng: random.Random) -> None:
    """Gives some deployments a past: good, slow, failing, pausing."""
    for slot in range(size):
        for _ in range(rng.randrange(4)):
            health.begin(slot, 0.0)
            match rng.randrange(4):
                case 0:
                    health.fail(slot, 0.0)
                case 1:
                    health.fail(slot, 0.0, cooldown=True)
                case _:
                    health.succeed(slot, 0.0, rng.random(), rng.random() / 2)


@pytest.mark.parametrize("strategy", ALL, ids=v1.Strategy.Name)
@pytest.mark.parametrize("seed", range(6))
def test_plan_and_explanation_agree(seed: int, strategy: v1.Strategy.ValueType) -> None:
    rng = random.Random(seed)
    rows = random_table(50, rng)
    snapshot = one_route(rows, strategy)
    health = HealthTable([row.name for row in rows], BreakerPolicy(consecutive_failures=2))
    stir(health, 50, rng)
    explained = 0
    for _ in range(40):
        query = random_query(rng)
        query.max_latency_ms = rng.choice((0, 300))
        try:
            chosen = plan(snapshot, query, health, 0.0, rng)
        except TrunklineError:
            continue
        candidates = explain(snapshot, health, 0.0, chosen)
        explained += 1
        assert len(candidates) == chosen.candidate_count == 50
        assert len({row.deployment for row in candidates}) == 50
        ranked = [row for row in candidates if row.rank]
        assert [row.rank for row in ranked] == list(range(1, len(chosen.targets) + 1))
        assert [row.deployment for row in ranked] == [row.name for row in chosen.targets]
        assert candidates[: len(ranked)] == ranked
        others = [row for row in candidates[len(ranked) :] if not row.exclusion.reason]
        assert [row.score for row in others] == sorted((row.score for row in others), reverse=True)
        assert candidates[len(ranked) : len(ranked) + len(others)] == others
        check_exclusions(snapshot, query, health, candidates[len(ranked) + len(others) :])
        if not chosen.forced:
            fit = {row.name for row in pool_of(snapshot, query).members}
            for row in ranked + others:
                assert row.deployment in fit
                assert health.available(int(row.deployment[1:]), 0.0)
    assert explained > 5


def check_exclusions(
    snapshot: Snapshot, query: Query, health: HealthTable, excluded: list[v1.Candidate]
) -> None:
    """Each one fails a static filter, or its health says what its reason says."""
    fit = {row.name for row in pool_of(snapshot, query).members}
    for row in excluded:
        slot = int(row.deployment[1:])
        assert row.exclusion.detail
        assert row.score == 0
        assert not row.parts
        match row.exclusion.reason:
            case v1.EXCLUSION_REASON_CIRCUIT_OPEN:
                assert health.state(slot, 0.0) != v1.CIRCUIT_STATE_CLOSED
            case v1.EXCLUSION_REASON_COOLDOWN:
                assert health.cooldown_remaining(slot, 0.0) > 0
            case v1.EXCLUSION_REASON_LATENCY:
                known = health.first_token(slot) if query.stream else health.latency(slot)
                assert known is not None
                assert known > 0.3
            case _:
                assert row.deployment not in fit


def test_deterministic_strategies_rank_by_score() -> None:
    rng = random.Random(5)
    rows = [
        deployment(slot, price=flat(str(rng.randint(1, 90)), "1"), quality=rng.random())
        for slot in range(10)
    ]
    for strategy in (
        v1.STRATEGY_LOWEST_COST,
        v1.STRATEGY_BALANCED,
        v1.STRATEGY_HIGHEST_AVAILABILITY,
        v1.STRATEGY_PRIORITY,
        v1.STRATEGY_FEATURE_BASED,
    ):
        snapshot = one_route(rows, strategy)
        health = HealthTable([row.name for row in rows], BreakerPolicy(consecutive_failures=9))
        stir(health, 10, random.Random(1))
        scores = [row.score for row in told(snapshot, Query("m", 100, 1), health, now=30.0)]
        assert scores == sorted(scores, reverse=True)


def test_parts_have_their_units_and_weights() -> None:
    snapshot = one_route(
        [deployment(0, price=flat("1", "2"), quality=0.7, weight=4.0, priority=-2)],
        v1.STRATEGY_LEAST_LATENCY,
    )
    health = HealthTable(["d0"])
    health.begin(0, 0.0)
    health.succeed(0, 0.0, 0.25, 0.05)
    health.begin(0, 0.0)
    (brief,) = told(snapshot, Query("m", 1_000, 1_000), health)
    assert {part.name: (part.value, part.weight) for part in brief.parts} == {
        "latency": (250.0, 1.0),
        "in_flight": (1.0, 1.0),
    }
    (row,) = told(snapshot, Query("m", 1_000, 1_000), health, in_full=True)
    assert {part.name: (part.value, part.weight) for part in row.parts} == {
        "cost": (3_000_000.0, 0.0),
        "latency": (250.0, 1.0),
        "availability": (1.0, 0.0),
        "quality": (0.7, 0.0),
        "weight": (4.0, 0.0),
        "priority": (-2.0, 0.0),
        "in_flight": (1.0, 1.0),
        "unneeded_capabilities": (1.0, 0.0),
    }
    assert row.score == -500.0
    assert row.estimated_cost.total == 3_000_000
    (stream,) = told(snapshot, Query("m", stream=True), health)
    assert stream.score == pytest.approx(-100.0)


def test_what_is_unknown_is_left_out_of_the_parts() -> None:
    (row,) = told(one_route([deployment(0)]), Query("m"), HealthTable(["d0"]), in_full=True)
    names = {part.name for part in row.parts}
    assert "cost" not in names
    assert "latency" not in names
    assert row.estimated_cost.unpriced
    assert row.circuit_state == v1.CIRCUIT_STATE_CLOSED


@pytest.mark.parametrize(
    ("changes", "query", "reason", "detail"),
    [
        ({"enabled": False}, Query("m"), "DISABLED", "switched off"),
        ({"capabilities": frozenset({"chat"})}, Query("m", stream=True), "CAPABILITY", "streaming"),
        ({"context_tokens": 9}, Query("m", 5, 5), "CONTEXT_LENGTH", "10 tokens exceed"),
        (
            {"residency": frozenset({"us", "ca"})},
            Query("m", data_residency="EU"),
            "DATA_RESIDENCY",
            "ca, us, not in eu",
        ),
        ({}, Query("m", max_cost_per_token=1e-6), "PRICE", "unknown"),
        (
            {"price": flat("1", "8")},
            Query("m", max_cost_per_token=1e-6),
            "PRICE",
            "8e-06 USD per token exceeds 1e-06",
        ),
        ({}, Query("m", denied_providers=("p0",)), "PROVIDER", "p0 is denied"),
        ({}, Query("m", allowed_providers=("p1",)), "PROVIDER", "p0 is not among the allowed"),
        ({}, Query("m", constraints=(Away(frozenset({"p0"})),)), "POLICY", "away[p0]"),
        ({"quality": 0.2}, Query("m", min_quality=0.5), "QUALITY", "0.2 is below 0.5"),
    ],
)
def test_exclusions_tell_their_particulars(
    changes: dict[str, object], query: Query, reason: str, detail: str
) -> None:
    all_round = deployment(1, residency=frozenset({"eu"}), price=flat("0.1", "0.1"), quality=1.0)
    snapshot = one_route([deployment(0, **changes), all_round])
    first, second = told(snapshot, query, HealthTable(["d0", "d1"]))
    assert first.deployment == "d1"
    assert v1.ExclusionReason.Name(second.exclusion.reason) == f"EXCLUSION_REASON_{reason}"
    assert detail in second.exclusion.detail


def test_health_exclusions_tell_their_particulars() -> None:
    rows = [deployment(slot) for slot in range(5)]
    snapshot = one_route(rows)
    health = HealthTable(
        [row.name for row in rows], BreakerPolicy(consecutive_failures=1, half_open_calls=1)
    )
    policy_only = HealthTable([row.name for row in rows])
    for table, slot, pause in ((health, 1, False), (health, 2, False), (policy_only, 3, True)):
        table.begin(slot, 0.0)
        table.fail(slot, 0.0, cooldown=pause, retry_after=42.0)
    health.begin(4, 0.0)
    health.succeed(4, 0.0, 1.5)
    health.begin(2, 10.0)
    health.begin(1, 10.0)
    health.fail(1, 10.0)
    query = Query("m", max_latency_ms=1_000)
    details = {row.deployment: row.exclusion for row in told(snapshot, query, health, now=11.0)}
    assert details["d1"].reason == v1.EXCLUSION_REASON_CIRCUIT_OPEN
    assert "another 19.0 s" in details["d1"].detail
    assert details["d2"].reason == v1.EXCLUSION_REASON_CIRCUIT_OPEN
    assert "half-open" in details["d2"].detail
    assert details["d4"].reason == v1.EXCLUSION_REASON_LATENCY
    assert "1500 ms exceed 1000 ms" in details["d4"].detail
    paused = {row.deployment: row.exclusion for row in told(snapshot, Query("m"), policy_only)}
    assert paused["d3"].reason == v1.EXCLUSION_REASON_COOLDOWN
    assert "42.0 s" in paused["d3"].detail


def test_at_most_a_hundred_are_told_and_all_are_counted() -> None:
    rows = [deployment(slot, enabled=slot % 2 == 0) for slot in range(400)]
    snapshot = one_route(rows, v1.STRATEGY_WEIGHTED, max_targets=5)
    health = HealthTable([row.name for row in rows])
    chosen = plan(snapshot, Query("m"), health, 0.0, random.Random(1))
    candidates = explain(snapshot, health, 0.0, chosen)
    assert chosen.candidate_count == 400
    assert len(candidates) == 100
    assert [row.rank for row in candidates[:6]] == [1, 2, 3, 4, 5, 0]


def test_what_the_callers_key_may_not_use_is_not_shown() -> None:
    rows = [deployment(0, model="a"), deployment(1, model="b")]
    snapshot = one_route(rows)
    query = Query("route:r", models=frozenset({"a"}))
    health = HealthTable(["d0", "d1"])
    chosen = plan(snapshot, query, health, 0.0, random.Random(1))
    assert chosen.candidate_count == 1
    assert [row.deployment for row in explain(snapshot, health, 0.0, chosen)] == ["d0"]


@pytest.mark.parametrize("strategy", ALL, ids=v1.Strategy.Name)
def test_nothing_of_one_explanation_is_left_in_the_next(strategy: v1.Strategy.ValueType) -> None:
    """Not the costs of another request, nor another moment's circuit states and parts."""
    rows = [deployment(0, price=flat("1", "2"), weight=2.0), deployment(1), deployment(2)]
    fresh, used = one_route(rows, strategy), one_route(rows, strategy)
    health = HealthTable([row.name for row in rows], BreakerPolicy(consecutive_failures=1))
    large, small = Query("m", 4_000, 2_000), Query("m", 10, 1)

    def said(
        snapshot: Snapshot, query: Query, health: HealthTable, now: float, in_full: bool = False
    ) -> list[v1.Candidate]:
        chosen = plan(snapshot, query, health, now, random.Random(3), dry_run=True)
        return explain(snapshot, health, now, chosen, in_full=in_full)

    said(used, large, health, 0.0, in_full=True)
    before = said(used, small, health, 0.0)
    health.begin(1, 0.0)
    health.fail(1, 0.0)
    # Open at first, then half-open and fit again.
    for now in (1.0, 11.0):
        said(used, large, health, now)
    assert said(used, large, health, 11.0) == said(fresh, large, health, 11.0)
    assert said(used, small, HealthTable([row.name for row in rows]), 0.0) == before
