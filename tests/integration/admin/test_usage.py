"""UsageService over a real ledger."""

import csv
import importlib.util
import io

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.integration.admin.conftest import Replica
from tests.support.admin_server import CallError
from trunkline import v1
from trunkline.admin import v1 as admin

HOUR = 3600


@pytest.fixture
async def filled(replica: Replica) -> Replica:
    """Twelve calls, one each ten minutes, of two tenants in turn; every fourth one failed."""
    await replica.usage.insert(
        [
            admin.UsageEvent(
                event_id=f"{number:032x}",
                call_id=f"{number:032x}",
                kind=admin.USAGE_EVENT_KIND_CALL,
                tenant="acme" if number % 2 else "globex",
                model="m",
                provider="p",
                labels={"team": "ab"[number % 3 == 0]},
                outcome=admin.USAGE_OUTCOME_FAILED
                if number % 4 == 0
                else admin.USAGE_OUTCOME_SUCCEEDED,
                usage=v1.Usage(input_tokens=10 * number, output_tokens=number),
                cost=v1.Cost(total=1000 * number),
                start_time_unix_us=number * 600 * 10**6,
                end_time_unix_us=number * 600 * 10**6 + 1,
                duration_us=1000 * number,
                schema_version=1,
            )
            for number in range(1, 13)
        ]
    )
    return replica


def of_tenant(*names: str) -> dict[str, object]:
    return {"conditions": [{"dimension": admin.USAGE_DIMENSION_TENANT, "values": names}]}


async def test_sums_by_group_and_hour(filled: Replica) -> None:
    answer = await filled.client(
        "UsageService.QueryUsage",
        group_by=[{"dimension": admin.USAGE_DIMENSION_TENANT}],
        bucket=Duration(seconds=HOUR),
        percentiles=[0.5],
    )
    expected = []
    for hour in range(3):
        for tenant in ("acme", "globex"):
            numbers = [
                number
                for number in range(1, 13)
                if number * 600 // HOUR == hour and (number % 2 == 1) == (tenant == "acme")
            ]
            if numbers:
                good = [number for number in numbers if number % 4]
                expected.append((tenant, hour * HOUR, len(numbers), len(good), sum(numbers)))
    told = [
        (
            row.group[0],
            row.bucket_time.seconds,
            row.events,
            row.succeeded,
            row.output_tokens,
        )
        for row in answer.rows
    ]
    assert told == expected
    first = answer.rows[0]
    assert first.cost_total_nanos == 1000 * (1 + 3 + 5)
    assert (first.percentiles[0].percentile, first.percentiles[0].duration_us) == (0.5, 3000.0)
    assert not first.percentiles[0].HasField("first_token_us")
    assert answer.rows[1].error_rate == 0.5


async def test_one_tenants_admin_sees_its_sums(filled: Replica) -> None:
    acme = filled.client.as_("acme")
    answer = await acme("UsageService.QueryUsage", filter=of_tenant("acme"))
    (row,) = answer.rows
    assert (row.events, row.output_tokens, list(row.group)) == (6, 1 + 3 + 5 + 7 + 9 + 11, [])
    with pytest.raises(CallError) as caught:
        await acme("UsageService.QueryUsage", filter=of_tenant("globex"))
    assert caught.value.code == "PERMISSION_DENIED"


async def test_events_by_page(filled: Replica) -> None:
    asked = {
        **of_tenant("globex"),
        "start_time": Timestamp(seconds=1200),
        "end_time": Timestamp(seconds=7200),
    }
    seen: list[list[int]] = []
    token = ""
    while not seen or token:
        answer = await filled.client(
            "UsageService.ListUsageEvents", filter=asked, page_size=2, page_token=token
        )
        seen.append([each.usage.output_tokens for each in answer.events])
        token = answer.next_page_token
    assert seen == [[2, 4], [6, 8], [10]]
    with pytest.raises(CallError) as caught:
        await filled.client("UsageService.ListUsageEvents", page_token="rubbish")
    assert caught.value.violations[0][0] == "page_token"


async def test_an_export_for_those_who_bill(filled: Replica) -> None:
    stream = filled.client.stream("UsageService.ExportUsage", filter=of_tenant("acme"))
    text = b"".join([each.data async for each in stream]).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["output_tokens"] for row in rows] == ["1", "3", "5", "7", "9", "11"]
    assert {row["tenant"] for row in rows} == {"acme"}
    (noted,) = filled.trail.others
    assert (noted.action, noted.resource) == ("admin.usage.export", "tenants/acme/usage")


async def test_an_export_as_parquet(filled: Replica) -> None:
    stream = filled.client.stream("UsageService.ExportUsage", format=admin.USAGE_FORMAT_PARQUET)
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(CallError) as caught:
            await anext(stream)
        assert caught.value.code == "FAILED_PRECONDITION"
        assert "parquet" in caught.value.message
        return
    data = b"".join([each.data async for each in stream])
    assert data[:4] == data[-4:] == b"PAR1"
