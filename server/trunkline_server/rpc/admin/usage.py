"""UsageService: questions to the ledger."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from math import isfinite

from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.admin import v1 as admin
from trunkline_server import pages
from trunkline_server.errors import invalid
from trunkline_server.ledger.export import export_csv, export_parquet
from trunkline_server.ledger.live import LiveEvents
from trunkline_server.ledger.queries import (
    Dimension,
    GroupKey,
    Label,
    Result,
    UsageFilter,
    UsageQueries,
    UsageQuery,
    UsageRow,
)
from trunkline_server.rpc.admin.calls import Call, unmet
from trunkline_server.rpc.admin.handlers import Methods
from trunkline_server.rpc.admin.keys import seconds_of

_PERMISSION = "admin.usage.read"
_MAX_ROWS = 10_000
_MAX_GROUPS = 8
_MAX_PERCENTILES = 10
_YEAR = 366 * 86_400.0
# gRPC refuses messages of more than 4 MiB unless a caller asks for more.
_PIECE = 1 << 20

_NAMES = {
    number: name.removeprefix("USAGE_DIMENSION_").lower()
    for name, number in admin.UsageDimension.items()
}
_DIMENSIONS = {
    number: Dimension(name)
    for number, name in _NAMES.items()
    if name in Dimension._value2member_map_
}
_RESULTS = {
    number: Result(name) for number, name in _NAMES.items() if name in Result._value2member_map_
}


class Usage:
    """UsageService. `live` has the events of this process."""

    def __init__(self, queries: UsageQueries, live: LiveEvents) -> None:
        self._queries = queries
        self._live = live

    def methods(self) -> Methods:
        """UsageService."""
        return {
            "QueryUsage": self._query,
            "ListUsageEvents": self._list,
            "StreamUsageEvents": self._stream,
            "ExportUsage": self._export,
        }

    async def _query(
        self, call: Call, request: admin.QueryUsageRequest
    ) -> admin.QueryUsageResponse:
        where = _permitted(call, request.filter)
        bucket = seconds_of(request, "bucket", default=0.0, most=_YEAR)
        if request.HasField("bucket") and bucket < 1:
            raise invalid("bucket", "must be at least a second")
        if not 0 <= request.limit <= _MAX_ROWS:
            raise invalid("limit", f"must be from 0 to {_MAX_ROWS}")
        query = UsageQuery(
            where=where,
            group_by=_groups(request.group_by),
            bucket_us=round(bucket * 1e6),
            percentiles=_percentiles(request.percentiles),
            limit=request.limit or _MAX_ROWS,
        )
        rows = await self._queries.summarize(query)
        return admin.QueryUsageResponse(rows=[_row(query, row) for row in rows])

    async def _list(
        self, call: Call, request: admin.ListUsageEventsRequest
    ) -> admin.ListUsageEventsResponse:
        where = _permitted(call, request.filter)
        size = pages.size_of(request.page_size)
        page = await self._queries.page(where, size, request.page_token)
        return admin.ListUsageEventsResponse(
            events=page.events, next_page_token=page.next_page_token
        )

    async def _stream(
        self, call: Call, request: admin.StreamUsageEventsRequest
    ) -> AsyncIterator[admin.StreamUsageEventsResponse]:
        for field in ("start_time", "end_time"):
            if request.filter.HasField(field):
                raise invalid(f"filter.{field}", "is not for events as they happen")
        wanted = _wanted(_permitted(call, request.filter))
        with self._live.watch(wanted) as watcher:
            async for each in watcher:
                yield admin.StreamUsageEventsResponse(event=each.event, dropped=each.dropped)

    async def _export(
        self, call: Call, request: admin.ExportUsageRequest
    ) -> AsyncIterator[admin.ExportUsageResponse]:
        where = _permitted(call, request.filter)
        parquet = request.format == admin.USAGE_FORMAT_PARQUET
        if not parquet and request.format not in {0, admin.USAGE_FORMAT_CSV}:
            raise invalid("format", "is none that this version knows")
        call.record("admin.usage.export", "usage", _tenant(where))
        export = export_parquet if parquet else export_csv
        try:
            async for data in export(self._queries.scan(where)):
                for start in range(0, len(data), _PIECE):
                    yield admin.ExportUsageResponse(data=data[start : start + _PIECE])
        except ModuleNotFoundError:
            unmet("this router was installed without its extra parquet", format="parquet")


def _permitted(call: Call, given: admin.UsageFilter) -> UsageFilter:
    """The filter of a request whose caller may ask it."""
    where = _filter(given)
    call.permit(_PERMISSION, "usage", _tenant(where))
    return where


def _tenant(where: UsageFilter) -> str:
    """The tenant that a filter is bounded to; empty if it is not bounded to one."""
    tenants = where.among.get(Dimension.TENANT, ())
    return tenants[0] if len(tenants) == 1 else ""


def _filter(given: admin.UsageFilter) -> UsageFilter:
    among: dict[Dimension, Sequence[str]] = {}
    for place, condition in enumerate(given.conditions):
        path = f"filter.conditions[{place}]"
        dimension = _DIMENSIONS.get(condition.dimension)
        if dimension is None:
            raise invalid(f"{path}.dimension", "is no field that events are filtered by")
        if dimension in among:
            raise invalid(f"{path}.dimension", "stands in another condition already")
        if not condition.values:
            raise invalid(f"{path}.values", "is empty")
        among[dimension] = tuple(condition.values)
    start = _microseconds(given, "start_time")
    end = _microseconds(given, "end_time")
    if start is not None and end is not None and end < start:
        raise invalid("filter.end_time", "is before start_time")
    if given.kind not in admin.UsageEventKind.values():
        raise invalid("filter.kind", "is none that this version knows")
    return UsageFilter(
        kind=given.kind or admin.USAGE_EVENT_KIND_CALL,
        start_us=start,
        end_us=end,
        among=among,
        outcomes=tuple(given.outcomes),
        labels=dict(given.labels),
    )


def _microseconds(given: admin.UsageFilter, field: str) -> int | None:
    if not given.HasField(field):  # type: ignore[arg-type] # It is one of two names.
        return None
    moment: Timestamp = getattr(given, field)
    return moment.seconds * 1_000_000 + moment.nanos // 1000


def _groups(keys: Sequence[admin.UsageGroupKey]) -> tuple[GroupKey, ...]:
    if len(keys) > _MAX_GROUPS:
        raise invalid("group_by", f"has more than {_MAX_GROUPS} keys")
    groups: list[GroupKey] = []
    for place, key in enumerate(keys):
        group: GroupKey | None
        if key.WhichOneof("key") == "label":
            group = Label(key.label) if key.label else None
        else:
            group = _DIMENSIONS.get(key.dimension) or _RESULTS.get(key.dimension)
        if group is None:
            raise invalid(f"group_by[{place}]", "names nothing that events are grouped by")
        if group in groups:
            raise invalid(f"group_by[{place}]", "is there twice")
        groups.append(group)
    return tuple(groups)


def _percentiles(given: Iterable[float]) -> tuple[float, ...]:
    percentiles = tuple(given)
    if len(percentiles) > _MAX_PERCENTILES:
        raise invalid("percentiles", f"are more than {_MAX_PERCENTILES}")
    for place, each in enumerate(percentiles):
        if not (isfinite(each) and 0 <= each <= 1):
            raise invalid(f"percentiles[{place}]", "must be from 0 to 1")
    return percentiles


def _wanted(where: UsageFilter) -> Callable[[admin.UsageEvent], bool]:
    """Whether an event is among those of a filter without times."""

    def wanted(event: admin.UsageEvent) -> bool:
        return (
            event.kind == where.kind
            and all(getattr(event, name) in values for name, values in where.among.items())
            and (not where.outcomes or event.outcome in where.outcomes)
            and all(event.labels.get(name) == value for name, value in where.labels.items())
        )

    return wanted


_COPIED = tuple(
    row.name
    for row in admin.UsageRow.DESCRIPTOR.fields
    if row.name not in {"group", "bucket_time", "error_rate", "percentiles"}
)


def _row(query: UsageQuery, row: UsageRow) -> admin.UsageRow:
    told = admin.UsageRow(group=row.group, error_rate=row.error_rate)
    for name in _COPIED:
        setattr(told, name, getattr(row, name))
    if query.bucket_us:
        told.bucket_time.FromMicroseconds(row.bucket_us)
    for percentile, duration, first in zip(
        query.percentiles, row.duration_us, row.first_token_us, strict=True
    ):
        told.percentiles.add(percentile=percentile, duration_us=duration, first_token_us=first)
    return told
