"""Deployments whose vendors said what they still admit: kept away from before they refuse."""

import random

from tests.unit.routing.tables import deployment, one_route
from trunkline import v1
from trunkline_server.routing.explain import explain
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.plan import Plan, plan
from trunkline_server.routing.query import Query

NAMES = ["d0", "d1", "d2"]
SNAPSHOT = one_route([deployment(slot, priority=slot) for slot in range(3)])


def planned(health: HealthTable, now: float) -> Plan:
    return plan(SNAPSHOT, Query("m"), health, now, random.Random(1))


def first(health: HealthTable, now: float) -> str:
    return planned(health, now).targets[0].name


def test_a_deployment_without_requests_left_is_passed_over_until_its_reset() -> None:
    health = HealthTable(NAMES)
    health.begin(0, 10.0)
    health.told(0, {"requests": (0.0, 30.0)}, 10.0)
    health.succeed(0, 10.0, 0.1)
    assert first(health, 10.0) == "d1"
    assert not health.available(0, 39.9)
    assert first(health, 39.9) == "d1"
    assert health.available(0, 40.0)
    assert first(health, 40.0) == "d0"


def test_what_is_sent_since_counts_before_the_next_answer_tells() -> None:
    health = HealthTable(NAMES)
    health.begin(0, 0.0)
    health.told(0, {"requests": (3.0, 60.0)}, 0.0)
    health.succeed(0, 0.0, 0.1)
    for _ in range(3):
        assert first(health, 1.0) == "d0"
        health.begin(0, 1.0)
    assert first(health, 1.0) == "d1"
    # The answers of those under way come in: the last of them tells how it is.
    health.told(0, {"requests": (2.0, 60.0)}, 2.0)
    health.succeed(0, 2.0, 0.1)
    assert first(health, 2.0) == "d1"
    health.told(0, {"requests": (2.0, 60.0)}, 2.0)
    health.neutral(0, 2.0)
    health.told(0, {"requests": (2.0, 60.0)}, 2.0)
    health.succeed(0, 2.0, 0.1)
    assert first(health, 2.0) == "d0"


def test_fewer_tokens_than_a_usual_call_takes_are_none() -> None:
    health = HealthTable(NAMES)
    for left, name in ((5_000.0, "d0"), (900.0, "d1")):
        health.begin(0, 0.0)
        health.told(0, {"tokens": (left, 20.0)}, 0.0)
        health.took(0, 900, 100)
        health.succeed(0, 0.0, 0.1)
        health.begin(0, 0.0)
        health.neutral(0, 0.0)
        assert first(health, 1.0) == name
    assert health.used_up(0, 1.0) == ("tokens", 19.0)
    assert first(health, 20.0) == "d0"


def test_it_is_not_absolute() -> None:
    health = HealthTable(NAMES)
    for slot, seconds in enumerate((50.0, 20.0, 90.0)):
        health.begin(slot, 0.0)
        health.told(slot, {"requests": (0.0, seconds)}, 0.0)
        health.succeed(slot, 0.0, 0.1)
    chosen = planned(health, 1.0)
    assert chosen.forced
    assert [row.name for row in chosen.targets] == ["d1", "d0", "d2"]


def test_the_reason_and_the_figures_are_explained() -> None:
    health = HealthTable(NAMES)
    health.begin(0, 0.0)
    told = {"requests": (7.0, 60.0), "input_tokens": (0.0, 12.5), "output_tokens": (90.0, 5.0)}
    health.told(0, told, 0.0)
    health.succeed(0, 0.0, 0.1)
    rows = explain(SNAPSHOT, health, 0.0, planned(health, 0.0), in_full=True)
    (excluded,) = [row for row in rows if row.deployment == "d0"]
    assert excluded.exclusion.reason == v1.EXCLUSION_REASON_QUOTA
    assert excluded.exclusion.detail == (
        "its vendor said that its input tokens are used up for another 12.5 s"
    )
    rows = explain(SNAPSHOT, health, 13.0, planned(health, 13.0), in_full=True)
    (back,) = [row for row in rows if row.deployment == "d0"]
    assert {part.name: part.value for part in back.parts if part.name.endswith("_left")} == {
        "requests_left": 7.0
    }
    assert list(health.quotas_left(1.0)) == [
        ("d0", "requests", 7.0),
        ("d0", "input_tokens", 0.0),
        ("d0", "output_tokens", 90.0),
    ]


def test_a_reload_keeps_what_was_told() -> None:
    before = HealthTable(NAMES)
    before.begin(1, 0.0)
    before.told(1, {"requests": (0.0, 30.0)}, 0.0)
    after = HealthTable(["d1", "new"], previous=before)
    before.succeed(1, 0.0, 0.1)
    assert after.blocked(1.0) == {0}
    assert list(after.quotas_left(1.0)) == [("d1", "requests", 0.0)]
    assert after.blocked(30.0) == set()
