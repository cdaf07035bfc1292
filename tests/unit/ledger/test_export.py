"""Exports: every field of every event comes back out, and no export is ever whole in memory."""

import csv
import io
import json
import random
import tracemalloc
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from tests.integration.ledger.seeded import seeded_events
from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.ledger import export
from trunkline_server.ledger.export import COLUMNS, export_csv, export_parquet

parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")

EVENTS = seeded_events(21, 1000)


async def batches(
    events: Sequence[admin.UsageEvent], size: int = 200
) -> AsyncGenerator[Sequence[admin.UsageEvent]]:
    for start in range(0, len(events), size):
        yield events[start : start + size]


def by_hand(event: admin.UsageEvent) -> dict[str, Any]:
    """The row of an event, some of its columns written out one by one."""
    return {
        "event_id": event.event_id,
        "kind": admin.UsageEventKind.Name(event.kind),
        "tenant": event.tenant,
        "outcome": admin.UsageOutcome.Name(event.outcome),
        "error_reason": v1.ErrorReason.Name(event.error_reason),
        "streamed": event.streamed,
        "start_time_unix_us": event.start_time_unix_us,
        "input_tokens": event.usage.input_tokens,
        "reasoning_tokens": event.usage.reasoning_tokens,
        "usage_source": v1.UsageSource.Name(event.usage.source),
        "cost_total_nanos": event.cost.total,
        "cost_unpriced": event.cost.unpriced,
    }


async def test_a_csv_has_a_row_for_each_event_and_a_column_for_each_field() -> None:
    EVENTS[3].user_id = 'a "quoted", name\nin two lines'
    pieces = [piece async for piece in export_csv(batches(EVENTS))]
    assert len(pieces) == 5
    rows = list(csv.DictReader(io.StringIO(b"".join(pieces).decode(), newline="")))
    assert len(rows) == len(EVENTS)
    assert rows[3]["user_id"] == EVENTS[3].user_id
    for row, event in zip(rows, EVENTS, strict=True):
        assert json.loads(row["labels"]) == dict(event.labels)
        for name, value in by_hand(event).items():
            assert row[name] == str(value), name


async def test_a_parquet_file_holds_the_same_with_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "ROW_GROUP", 300)
    pieces = [piece async for piece in export_parquet(batches(EVENTS))]
    file = parquet.ParquetFile(io.BytesIO(b"".join(pieces)))
    assert file.num_row_groups == 3
    assert len(pieces) == 3
    rows = file.read().to_pylist()
    assert [row["event_id"] for row in rows] == [event.event_id for event in EVENTS]
    for row, event in zip(rows, EVENTS, strict=True):
        assert json.loads(row["labels"]) == dict(event.labels)
        for name, value in by_hand(event).items():
            assert row[name] == value, name


def test_no_field_of_the_contract_is_missing_and_none_is_there_twice() -> None:
    own = {field.name for field in admin.UsageEvent.DESCRIPTOR.fields} - {"usage", "cost"}
    count = len(own) + len(v1.Usage.DESCRIPTOR.fields) + len(v1.Cost.DESCRIPTOR.fields)
    assert len({column.name for column in COLUMNS}) == len(COLUMNS) == count


async def test_an_export_of_nothing_is_a_header() -> None:
    text = b"".join([piece async for piece in export_csv(batches([]))]).decode()
    assert text == ",".join(column.name for column in COLUMNS) + "\r\n"
    whole = b"".join([piece async for piece in export_parquet(batches([]))])
    table = parquet.read_table(io.BytesIO(whole))
    assert table.num_rows == 0
    assert table.column_names == [column.name for column in COLUMNS]


async def test_a_number_that_no_name_is_known_for_is_told_as_it_is() -> None:
    event = admin.UsageEvent(event_id="1")
    event.outcome = 77  # type: ignore[assignment]  # as a newer router may write it
    text = b"".join([piece async for piece in export_csv(batches([event]))]).decode()
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["outcome"] == "77"


@pytest.mark.parametrize("make", [export_csv, export_parquet], ids=["csv", "parquet"])
async def test_memory_does_not_grow_with_the_export(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ROW_GROUP", 500)
    rng = random.Random(1)
    event = EVENTS[0]

    async def many(count: int) -> AsyncGenerator[Sequence[admin.UsageEvent]]:
        for _ in range(count):
            event.event_id = f"{rng.getrandbits(128):032x}"
            yield [event] * 100

    async def peak(count: int) -> int:
        tracemalloc.start()
        size = 0
        async for piece in make(many(count)):
            size += len(piece)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size > 0
        return highest

    await peak(1)
    few = await peak(10)
    assert await peak(60) < 2 * few
