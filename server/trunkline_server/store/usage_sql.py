"""The table usage_events: what its statements have in common on both databases.

Names of columns that stand in statements come from enums and from constants, values never do.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import orjson

from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.ledger.queries import (
    Dimension,
    GroupKey,
    Label,
    Result,
    UsageFilter,
    UsagePage,
    UsageQuery,
    UsageRow,
)
from trunkline_server.pages import read_token, write_token
from trunkline_server.store.database import Database, Row

# Columns that are fields of the event under the same name.
_SAME = (
    *("event_id", "kind", "call_id", "attempt_number", "request_id", "trace_id"),
    *("tenant", "project", "key_name", "tier", "service"),
    *("user_id", "agent_id", "workflow_id"),
    *("operation", "streamed", "requested_model", "model", "route", "strategy"),
    *("provider", "provider_model", "deployment", "region", "replica", "snapshot_version"),
    *("outcome", "error_reason", "finish_reason", "http_status"),
    *("attempt_count", "retry_count", "fallback_count", "hedge_count"),
    *("expected_cost_nanos", "saved_cost_nanos"),
    *("duration_us", "queue_us", "decide_us", "upstream_us", "first_token_us"),
    *("inter_chunk_mean_us", "chunk_count", "cache_status"),
)
_TIMES = {"start_time_us": "start_time_unix_us", "end_time_us": "end_time_unix_us"}
_USAGE = (
    *("input_tokens", "output_tokens", "cached_input_tokens"),
    *("cache_write_tokens", "reasoning_tokens"),
    *("output_images", "input_audio_ms", "output_audio_ms", "input_characters", "search_units"),
)
_COST = {
    "cost_input_nanos": "input",
    "cost_output_nanos": "output",
    "cost_total_nanos": "total",
    "cost_unpriced": "unpriced",
    "cost_estimated": "estimated",
}
COLUMNS = (*_SAME, *_TIMES, *_USAGE, *_COST, "labels", "event")

_of_event = attrgetter(*_SAME, *_TIMES.values())
_of_usage = attrgetter(*_USAGE)
_of_cost = attrgetter(*_COST.values())

# UsageRow's sums.
_SUM_OF = {
    "events": "count(*)",
    "succeeded": f"count(*) FILTER (WHERE outcome = {admin.USAGE_OUTCOME_SUCCEEDED})",
    "failed": f"count(*) FILTER (WHERE outcome = {admin.USAGE_OUTCOME_FAILED})",
    "cancelled": f"count(*) FILTER (WHERE outcome = {admin.USAGE_OUTCOME_CANCELLED})",
    "attempts": "sum(attempt_count)",
    "retries": "sum(retry_count)",
    "fallbacks": "sum(fallback_count)",
    "hedges": "sum(hedge_count)",
    "cache_hits": f"count(*) FILTER (WHERE cache_status = {v1.CACHE_STATUS_HIT})",
    **{name: f"sum({name})" for name in _USAGE},
    "cost_input_nanos": "sum(cost_input_nanos)",
    "cost_output_nanos": "sum(cost_output_nanos)",
    "cost_total_nanos": "sum(cost_total_nanos)",
    "saved_cost_nanos": "sum(saved_cost_nanos)",
    "unpriced": "count(*) FILTER (WHERE cost_unpriced)",
    "estimated": "count(*) FILTER (WHERE cost_estimated)",
}
SUMS = tuple(_SUM_OF.values())
_ENUMS: Mapping[Result, Any] = {
    Result.OUTCOME: admin.UsageOutcome,
    Result.ERROR_REASON: v1.ErrorReason,
    Result.CACHE_STATUS: v1.CacheStatus,
}

# Where money went, as opposed to who spent it.
_PLACES = frozenset(
    {Dimension.PROVIDER, Dimension.DEPLOYMENT, Dimension.PROVIDER_MODEL, Dimension.REGION}
)

# Parsed at once: some 0.2 ms of the event loop.
_SCAN_BATCH = 200


class Values:
    """The values of a statement, and the placeholders that stand for them."""

    def __init__(self) -> None:
        self.all: list[object] = []

    def add(self, value: object) -> str:
        """The placeholder of one more value."""
        self.all.append(value)
        return f"${len(self.all)}"


class UsageTable(ABC):
    """Events kept in a SQL database: a ledger.ports.EventSink and a ledger.queries.UsageQueries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @abstractmethod
    async def insert(self, events: Sequence[admin.UsageEvent]) -> None:
        """As ledger.ports.EventSink."""

    @abstractmethod
    async def summarize(self, query: UsageQuery) -> list[UsageRow]:
        """As ledger.queries.UsageQueries."""

    @abstractmethod
    def label_of(self, name: str) -> str:
        """The expression of a label's value, empty text where it is missing. `name` is a
        placeholder."""

    @abstractmethod
    def any_of(self, column: str, values: Sequence[object], into: Values) -> str:
        """The condition that a column has one of some values."""

    async def spent(
        self, where: Mapping[Dimension, str], start_us: int, end_us: int | None = None
    ) -> int:
        """As ledger.queries.UsageQueries."""
        places = not _PLACES.isdisjoint(where)
        question = UsageFilter(
            kind=admin.USAGE_EVENT_KIND_ATTEMPT if places else admin.USAGE_EVENT_KIND_CALL,
            start_us=start_us,
            end_us=end_us,
            among={dimension: (value,) for dimension, value in where.items()},
        )
        values = Values()
        row = await self._database.fetch_one(
            f"SELECT sum(cost_total_nanos) AS spent FROM usage_events "  # noqa: S608 # See above.
            f"WHERE {self.condition(question, values)}",
            *values.all,
        )
        return int((row["spent"] if row is not None else None) or 0)

    async def page(self, where: UsageFilter, size: int, token: str = "") -> UsagePage:
        """As ledger.queries.UsageQueries."""
        question = ("usage", size, repr(where))
        last = read_token(token, *question)
        values = Values()
        condition = self.condition(where, values)
        if last:
            start, event_id = last
            after = f"({values.add(start)}, {values.add(event_id)})"
            condition += f" AND (start_time_us, event_id) > {after}"
        rows = await self._database.fetch(
            f"SELECT start_time_us, event_id, event FROM usage_events "  # noqa: S608 # See above.
            f"WHERE {condition} ORDER BY start_time_us, event_id LIMIT {values.add(size + 1)}",
            *values.all,
        )
        next_token = ""
        if len(rows) > size:
            final = rows[size - 1]
            next_token = write_token((final["start_time_us"], final["event_id"]), *question)
        return UsagePage([_event(row) for row in rows[:size]], next_token)

    async def scan(self, where: UsageFilter) -> AsyncGenerator[Sequence[admin.UsageEvent]]:
        """As ledger.queries.UsageQueries."""
        values = Values()
        statement = (
            f"SELECT event FROM usage_events "  # noqa: S608 # See above.
            f"WHERE {self.condition(where, values)} ORDER BY start_time_us, event_id"
        )
        batch: list[admin.UsageEvent] = []
        async for row in self._database.stream(statement, *values.all):
            batch.append(_event(row))
            if len(batch) == _SCAN_BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    async def delete_before(self, end_us: int, limit: int) -> int:
        """As ledger.queries.UsageQueries."""
        async with self._database.transaction() as transaction:
            return await transaction.execute(
                "DELETE FROM usage_events WHERE event_id IN (SELECT event_id FROM usage_events "
                "WHERE start_time_us < $1 ORDER BY start_time_us LIMIT $2)",
                end_us,
                limit,
            )

    def condition(self, where: UsageFilter, values: Values) -> str:
        """The condition that a filter is."""
        terms = [f"kind = {int(where.kind)}"]
        if where.start_us is not None:
            terms.append(f"start_time_us >= {values.add(where.start_us)}")
        if where.end_us is not None:
            terms.append(f"start_time_us < {values.add(where.end_us)}")
        terms += [
            self.any_of(dimension.value, wanted, values)
            for dimension, wanted in where.among.items()
            if wanted
        ]
        if where.outcomes:
            terms.append(f"outcome IN ({', '.join(str(int(each)) for each in where.outcomes)})")
        terms += [
            f"{self.label_of(values.add(name))} = {values.add(value)}"
            for name, value in where.labels.items()
        ]
        return " AND ".join(terms)

    def groups(self, query: UsageQuery, values: Values) -> list[str]:
        """The expressions that a query groups by, the bucket first."""
        width = values.add(query.bucket_us) if query.bucket_us else ""
        bucket = f"start_time_us - start_time_us % {width}" if width else "0"
        return [bucket, *(self._key(key, values) for key in query.group_by)]

    def _key(self, key: GroupKey, values: Values) -> str:
        return self.label_of(values.add(key.name)) if isinstance(key, Label) else key.value


def row_of(event: admin.UsageEvent) -> tuple[Any, ...]:
    """An event's values, in the order of COLUMNS."""
    raw = event.SerializeToString()
    if b"\x00" in raw:
        event = _without_nul(event)
    return (
        *_of_event(event),
        *_of_usage(event.usage),
        *_of_cost(event.cost),
        orjson.dumps(dict(event.labels)).decode() if event.labels else "{}",
        raw,
    )


def usage_row(
    query: UsageQuery,
    values: Sequence[Any],
    duration_us: Sequence[float | None],
    first_token_us: Sequence[float | None],
) -> UsageRow:
    """A row from a bucket, the group's values and SUMS."""
    keys = 1 + len(query.group_by)
    group = zip(query.group_by, values[1:keys], strict=True)
    sums = zip(_SUM_OF, values[keys:], strict=False)
    return UsageRow(
        group=tuple(_text(key, each) for key, each in group),
        bucket_us=int(values[0]),
        duration_us=tuple(duration_us),
        first_token_us=tuple(first_token_us),
        # A sum over nothing is null.
        **{name: int(each or 0) for name, each in sums},
    )


def _text(key: GroupKey, value: Any) -> str:
    if not isinstance(key, Result):
        return str(value)
    try:
        return str(_ENUMS[key].Name(value))
    except ValueError:
        # Written by a newer router.
        return str(value)


def _event(row: Row) -> admin.UsageEvent:
    return admin.UsageEvent.FromString(row["event"])


def _without_nul(event: admin.UsageEvent) -> admin.UsageEvent:
    """The event with U+FFFD for U+0000, which callers may send and Postgres keeps in no text."""
    clean = admin.UsageEvent()
    clean.CopyFrom(event)
    for field, value in event.ListFields():
        if isinstance(value, str):
            setattr(clean, field.name, value.replace("\0", "\ufffd"))
    clean.ClearField("labels")
    for name, value in event.labels.items():
        clean.labels[name.replace("\0", "\ufffd")] = value.replace("\0", "\ufffd")
    return clean
