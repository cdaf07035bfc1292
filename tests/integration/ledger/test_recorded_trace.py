"""Usage of a recorded hour of production traffic: sums by minute are those of the recording."""

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from tests.support.corpus import corpus_dir
from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.ledger.queries import Dimension, UsageQuery
from trunkline_server.store.usage_sql import UsageTable

CALLS = 4000
MINUTE_US = 60_000_000


def recorded() -> Iterator[tuple[int, int, int]]:
    """The first calls of the recording: when, in microseconds since 1970, tokens in and out."""
    path = corpus_dir() / "traces" / "AzureLLMInferenceTrace_conv.csv.gz"
    with gzip.open(path, "rt") as file:
        for _, row in zip(range(CALLS), csv.DictReader(file), strict=False):
            # Seven digits of a second, of which Python reads six.
            moment = datetime.fromisoformat(row["TIMESTAMP"][:26]).replace(tzinfo=UTC)
            start_us = round(moment.timestamp() * 1e6)
            yield start_us, int(row["ContextTokens"]), int(row["GeneratedTokens"])


async def test_sums_by_minute_and_tenant_are_those_of_the_recording(table: UsageTable) -> None:
    events, wanted = [], Counter[tuple[int, str, str]]()
    for number, (start_us, read, written) in enumerate(recorded()):
        tenant = f"tenant-{number % 7}"
        events.append(
            admin.UsageEvent(
                event_id=f"{number:032x}",
                kind=admin.USAGE_EVENT_KIND_CALL,
                call_id=f"{number:032x}",
                tenant=tenant,
                outcome=admin.USAGE_OUTCOME_SUCCEEDED,
                start_time_unix_us=start_us,
                end_time_unix_us=start_us,
                usage=v1.Usage(input_tokens=read, output_tokens=written),
                cost=v1.Cost(total=2000 * read + 8000 * written),
            )
        )
        minute = start_us // MINUTE_US * MINUTE_US
        wanted[minute, tenant, "events"] += 1
        wanted[minute, tenant, "input_tokens"] += read
        wanted[minute, tenant, "output_tokens"] += written
        wanted[minute, tenant, "cost_total_nanos"] += 2000 * read + 8000 * written
    for start in range(0, len(events), 500):
        await table.insert(events[start : start + 500])
    query = UsageQuery(group_by=(Dimension.TENANT,), bucket_us=MINUTE_US)
    found = Counter[tuple[int, str, str]]()
    for row in await table.summarize(query):
        for name in ("events", "input_tokens", "output_tokens", "cost_total_nanos"):
            found[row.bucket_us, row.group[0], name] = getattr(row, name)
    assert found == wanted
    assert sum(count for (_, _, name), count in found.items() if name == "events") == CALLS
