"""UsageService: which questions are refused, and events as they happen."""

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.support.admin_server import CallError, Client
from tests.support.admin_world import World
from trunkline.admin import v1 as admin


def condition(*values: str, dimension: int = admin.USAGE_DIMENSION_TENANT) -> admin.UsageCondition:
    return admin.UsageCondition(dimension=dimension, values=values)  # type: ignore[arg-type] # Others too.


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"filter": {"conditions": [condition("a", dimension=0)]}}, "conditions[0].dimension"),
        ({"filter": {"conditions": [condition("a", dimension=18)]}}, "conditions[0].dimension"),
        ({"filter": {"conditions": [condition("a", dimension=99)]}}, "conditions[0].dimension"),
        ({"filter": {"conditions": [condition()]}}, "conditions[0].values"),
        (
            {"filter": {"conditions": [condition("a"), condition("b")]}},
            "conditions[1].dimension",
        ),
        (
            {
                "filter": {
                    "start_time": Timestamp(seconds=2),
                    "end_time": Timestamp(seconds=1),
                }
            },
            "end_time",
        ),
        ({"filter": {"kind": 9}}, "kind"),
        ({"group_by": [{}]}, "group_by[0]"),
        ({"group_by": [{"label": ""}]}, "group_by[0]"),
        ({"group_by": [{"label": "a"}, {"label": "a"}]}, "group_by[1]"),
        ({"group_by": [{"label": str(number)} for number in range(9)]}, "group_by"),
        ({"bucket": Duration(nanos=5)}, "bucket"),
        ({"bucket": Duration(seconds=-5)}, "bucket"),
        ({"percentiles": [0.5, 1.5]}, "percentiles[1]"),
        ({"percentiles": [float("nan")]}, "percentiles[0]"),
        ({"percentiles": [0.5] * 11}, "percentiles"),
        ({"limit": 10_001}, "limit"),
        ({"limit": -1}, "limit"),
    ],
)
async def test_questions_that_are_none(root: Client, fields: dict[str, object], field: str) -> None:
    with pytest.raises(CallError) as caught:
        await root("UsageService.QueryUsage", **fields)
    assert caught.value.code == "INVALID_ARGUMENT"
    expected = f"filter.{field}" if "filter" in fields else field
    assert caught.value.violations[0][0] == expected


def event(number: int, tenant: str = "acme", **fields: object) -> admin.UsageEvent:
    return admin.UsageEvent(
        event_id=f"{number:032x}",
        kind=admin.USAGE_EVENT_KIND_CALL,
        tenant=tenant,
        outcome=admin.USAGE_OUTCOME_SUCCEEDED,
        **fields,  # type: ignore[arg-type] # Passed on.
    )


async def test_events_as_they_happen(root: Client, world: World) -> None:
    asked = admin.UsageFilter(
        conditions=[condition("acme")],
        outcomes=[admin.USAGE_OUTCOME_SUCCEEDED],
        labels={"team": "a"},
    )
    stream = root.stream("UsageService.StreamUsageEvents", filter=asked)
    first = asyncio.ensure_future(anext(stream))
    async with asyncio.timeout(10):
        await world.live.came.wait()
        attempt = event(1, labels={"team": "a"})
        attempt.kind = admin.USAGE_EVENT_KIND_ATTEMPT
        failed = event(2, labels={"team": "a"})
        failed.outcome = admin.USAGE_OUTCOME_FAILED
        wanted = event(5, labels={"team": "a", "x": "y"})
        others = [attempt, failed, event(3, "globex", labels={"team": "a"}), event(4)]
        for each in (*others, wanted):
            world.live.publish(each.SerializeToString())
        told = await first
    assert (told.event, told.dropped) == (wanted, 0)
    await stream.aclose()


async def test_no_times_for_what_is_to_come(root: Client) -> None:
    for field in ("start_time", "end_time"):
        asked = admin.UsageFilter(**{field: Timestamp(seconds=1)})  # type: ignore[arg-type] # One of two.
        with pytest.raises(CallError) as caught:
            await anext(root.stream("UsageService.StreamUsageEvents", filter=asked))
        assert caught.value.violations[0][0] == f"filter.{field}"


async def test_one_tenants_admin_asks_about_it_alone(root: Client) -> None:
    acme = root.as_("acme")
    # Permitted, and then the ledger is away.
    with pytest.raises(CallError) as caught:
        await acme("UsageService.QueryUsage", filter={"conditions": [condition("acme")]})
    assert caught.value.code == "UNAVAILABLE"
    for conditions in ([], [condition("globex")], [condition("acme", "globex")]):
        for method in ("QueryUsage", "ListUsageEvents"):
            with pytest.raises(CallError) as caught:
                await acme(f"UsageService.{method}", filter={"conditions": conditions})
            assert caught.value.code == "PERMISSION_DENIED"
        for method in ("StreamUsageEvents", "ExportUsage"):
            with pytest.raises(CallError) as caught:
                await anext(
                    acme.stream(f"UsageService.{method}", filter={"conditions": conditions})
                )
            assert caught.value.code == "PERMISSION_DENIED"
