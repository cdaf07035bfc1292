"""The static filters against a filter written from the contract's comments, and the memo."""

import random
from collections import Counter

import pytest

from tests.unit.routing.tables import (
    BUILT_AT,
    Away,
    deployment,
    flat,
    one_route,
    random_query,
    random_table,
)
from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.pools import pool_of
from trunkline_server.routing.query import Query
from trunkline_server.routing.snapshot import Deployment, Route, Snapshot


def naive_reason(row: Deployment, query: Query) -> v1.ExclusionReason.ValueType:  # noqa: PLR0911, C901 - one rule after another, as the contract lists them.
    """The first rule that a deployment fails, one obvious condition after another."""
    if not row.enabled:
        return v1.EXCLUSION_REASON_DISABLED
    if query.allowed_providers and row.provider not in query.allowed_providers:
        return v1.EXCLUSION_REASON_PROVIDER
    if row.provider in query.denied_providers:
        return v1.EXCLUSION_REASON_PROVIDER
    if any(constraint.excludes(row) for constraint in query.constraints):
        return v1.EXCLUSION_REASON_POLICY
    if query.kind not in row.capabilities:
        return v1.EXCLUSION_REASON_CAPABILITY
    if query.stream and "streaming" not in row.capabilities:
        return v1.EXCLUSION_REASON_CAPABILITY
    for name in query.capabilities:
        if name not in row.capabilities:
            return v1.EXCLUSION_REASON_CAPABILITY
    if row.context_tokens and query.input_tokens + query.output_tokens > row.context_tokens:
        return v1.EXCLUSION_REASON_CONTEXT_LENGTH
    if query.data_residency and query.data_residency.lower() not in row.residency:
        return v1.EXCLUSION_REASON_DATA_RESIDENCY
    if query.max_cost_per_token > 0:
        if row.price is None:
            return v1.EXCLUSION_REASON_PRICE
        if row.price.per_token(BUILT_AT) > query.max_cost_per_token:
            return v1.EXCLUSION_REASON_PRICE
    if row.quality < query.min_quality:
        return v1.EXCLUSION_REASON_QUALITY
    return v1.EXCLUSION_REASON_UNSPECIFIED


@pytest.mark.parametrize("seed", range(25))
def test_filters_agree_with_the_naive_filter(seed: int) -> None:
    """One snapshot, many queries: a wrong memo key would serve one query another's pool."""
    rng = random.Random(seed)
    rows = random_table(40, rng)
    snapshot = one_route(rows)
    bites: Counter[v1.ExclusionReason.ValueType] = Counter()
    for _ in range(60):
        query = random_query(rng)
        # Small tables may lack a name altogether; that is another test's matter.
        if not query.capabilities <= snapshot.capabilities:
            continue
        query.allowed_providers = tuple(
            name for name in query.allowed_providers if name in snapshot.provider_names
        )
        query.denied_providers = tuple(
            name for name in query.denied_providers if name in snapshot.provider_names
        )
        reasons = [naive_reason(row, query) for row in rows]
        expected = [row for row, reason in zip(rows, reasons, strict=True) if not reason]
        pool = pool_of(snapshot, query)
        assert list(pool.members) == expected
        assert list(pool.slots) == [row.slot for row in expected]
        assert [rows[place] for place in pool.positions] == expected
        assert pool.considered == len(rows)
        assert pool.excluded == Counter(reason for reason in reasons if reason)
        bites.update(pool.excluded)
    assert len(bites) >= 6, "the queries are to make nearly every rule bite"


def test_queries_of_one_class_share_a_pool_and_others_do_not() -> None:
    snapshot = one_route(
        [deployment(0, context_tokens=1_000, quality=0.5, price=flat("1", "2")), deployment(1)]
    )
    base = pool_of(snapshot, Query("m", 100, 100))
    assert pool_of(snapshot, Query("m", 500, 500)) is base
    assert pool_of(snapshot, Query("m", 500, 501)) is not base
    cheap = pool_of(snapshot, Query("m", max_cost_per_token=1.9e-6))
    assert pool_of(snapshot, Query("m", max_cost_per_token=1e-9)) is cheap
    dear = pool_of(snapshot, Query("m", max_cost_per_token=2e-6))
    assert [row.slot for row in cheap.members] == []
    assert [row.slot for row in dear.members] == [0]
    away = pool_of(snapshot, Query("m", constraints=(Away(frozenset({"p0"})),)))
    assert pool_of(snapshot, Query("m", constraints=(Away(frozenset({"p0"})),))) is away
    assert [row.slot for row in away.members] == [1]
    assert pool_of(snapshot, Query("m", data_residency="EU")) is pool_of(
        snapshot, Query("m", data_residency="eu")
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("input_tokens", [0, 999, 1_000, 1_001, 1_999, 2_000, 2_001]),
        ("output_tokens", [0, 999, 1_000, 1_001, 1_999, 2_000, 2_001]),
        ("min_quality", [0.0, 0.2, 0.3, 0.4, 0.7, 0.9]),
        ("max_cost_per_token", [0.0, 0.9e-6, 1e-6, 1.1e-6, 2e-6, 3e-6]),
        ("data_residency", ["", "eu", "us", "ch"]),
        ("stream", [False, True]),
        ("kind", ["chat", "embedding"]),
        ("capabilities", [frozenset(), frozenset({"tools"})]),
        ("allowed_providers", [(), ("p0",), ("p1", "p2")]),
        ("denied_providers", [(), ("p0",), ("p1", "p2")]),
        (
            "constraints",
            [
                (),
                (Away(frozenset({"p0"})),),
                (Away(frozenset({"p1"})),),
                (Away(frozenset({"p1"})), Away(frozenset({"p2"}))),
            ],
        ),
        ("models", [None, frozenset({"m"}), frozenset({"n"}), frozenset({"m", "n"})]),
    ],
)
def test_each_condition_is_part_of_the_key(name: str, values: list[object]) -> None:
    """Every value in both orders, around every threshold: no two may share a wrong pool."""
    rows = [
        deployment(
            slot,
            model=("m", "n")[slot % 2],
            context_tokens=(0, 1_000, 2_000)[slot % 3],
            quality=(0.0, 0.3, 0.7)[slot % 3],
            price=(None, flat("1", "1"), flat("1", "2"))[slot % 3],
            residency=frozenset((("eu",), ("us",), ())[slot % 3]),
            provider=f"p{slot % 3}",
            capabilities=frozenset(
                (("chat", "streaming"), ("embedding",), ("chat", "tools"))[slot % 3]
            ),
        )
        for slot in range(6)
    ]
    route = Route("r", v1.STRATEGY_PRIORITY, tuple(rows))
    for order in (values, values[::-1]):
        snapshot = Snapshot("v", rows, {}, {"r": route}, {}, BUILT_AT)
        for value in order:
            query = Query("route:r", **{name: value})  # type: ignore[arg-type] # By name.
            assert list(pool_of(snapshot, query).members) == [
                row
                for row in rows
                if not naive_reason(row, query) and row.model in (query.models or {"m", "n"})
            ]


def test_pools_are_bounded_by_their_members() -> None:
    rows = [deployment(slot, provider=f"p{slot % 50}") for slot in range(10_000)]
    snapshot = one_route(rows)
    for number in range(50):
        pool_of(snapshot, Query("m", denied_providers=(f"p{number}",)))
    assert 10 < len(snapshot.pools) <= 20


def test_the_whole_route_is_not_copied() -> None:
    snapshot = one_route([deployment(0), deployment(1)])
    assert pool_of(snapshot, Query("m")).members is snapshot.models["m"].members


@pytest.mark.parametrize(
    ("query", "field", "near"),
    [
        (Query("m", capabilities=frozenset({"tolos"})), "requirements.capabilities", "tools"),
        (Query("m", allowed_providers=("openai", "openia")), "routing.allowed_providers[1]", "ai"),
        (Query("m", denied_providers=("opnai",)), "routing.denied_providers[0]", "openai"),
    ],
)
def test_names_that_nothing_carries_are_refused(query: Query, field: str, near: str) -> None:
    snapshot = one_route(
        [deployment(0, provider="openai", capabilities=frozenset({"chat", "tools"}))]
    )
    with pytest.raises(TrunklineError) as caught:
        pool_of(snapshot, query)
    assert caught.value.reason == v1.ERROR_REASON_INVALID_REQUEST
    assert [violation.field for violation in caught.value.violations] == [field]
    assert near in caught.value.message


def test_every_wrong_name_is_told_at_once() -> None:
    snapshot = one_route([deployment(0)])
    query = Query("m", capabilities=frozenset({"b", "a"}), denied_providers=("x",))
    with pytest.raises(TrunklineError) as caught:
        pool_of(snapshot, query)
    assert len(caught.value.violations) == 3


# The scope of the caller's key.


def scoped(model: str, *allowed: str) -> list[int]:
    mine, other = deployment(0, model="mine"), deployment(1, model="other")
    both = Route("both", v1.STRATEGY_PRIORITY, (mine, other))
    snapshot = Snapshot(
        "v1", [mine, other], {"mine": both, "other": both}, {"both": both}, {}, BUILT_AT
    )
    return [row.slot for row in pool_of(snapshot, Query(model, models=frozenset(allowed))).members]


def test_a_key_that_names_a_model_may_use_all_of_its_route() -> None:
    assert scoped("mine", "mine") == [0, 1]


@pytest.mark.parametrize("model", ["route:both", ""])
def test_elsewhere_each_member_must_be_in_scope(model: str) -> None:
    assert scoped(model, "mine") == [0]
    assert scoped(model, "mine", "other") == [0, 1]


@pytest.mark.parametrize(("model", "allowed"), [("mine", "other"), ("route:both", "third")])
def test_out_of_scope_is_an_authorization_error(model: str, allowed: str) -> None:
    with pytest.raises(TrunklineError) as caught:
        scoped(model, allowed)
    assert caught.value.reason == v1.ERROR_REASON_AUTHORIZATION
    assert caught.value.metadata["model"] == model
