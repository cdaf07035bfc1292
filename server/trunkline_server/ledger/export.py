"""Events as CSV and Parquet, for whoever bills by them. Memory stays bounded: an export is made
and handed on piece by piece.

A row has every field of UsageEvent. Those of `usage` and `cost` stand flat, as in the store:
input_tokens, ..., usage_source, cost_total_nanos, ...; enums are the names of their values,
labels one JSON object, and what was not set is empty, zero or false.
"""

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import orjson
from google.protobuf.descriptor import FieldDescriptor

from trunkline import v1
from trunkline.admin import v1 as admin

# Rows of a Parquet row group: some 12 MB in memory, and about 1 MB in the file.
ROW_GROUP = 20_000

_INTEGERS = frozenset({FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64})

Batches = AsyncIterable[Sequence[admin.UsageEvent]]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its Parquet type's name, and how an event gives its value."""

    name: str
    type: str
    of: Callable[[admin.UsageEvent], Any]


def _columns() -> tuple[Column, ...]:
    columns: list[Column] = []
    for field in admin.UsageEvent.DESCRIPTOR.fields:
        if field.name == "labels":
            columns.append(Column("labels", "string", _labels))
        elif field.name == "usage":
            columns += [
                _column(each, "usage_source" if each.name == "source" else each.name, "usage.")
                for each in v1.Usage.DESCRIPTOR.fields
            ]
        elif field.name == "cost":
            columns += [
                _column(each, f"cost_{each.name}{_unit(each)}", "cost.")
                for each in v1.Cost.DESCRIPTOR.fields
            ]
        else:
            columns.append(_column(field, field.name))
    return tuple(columns)


def _column(field: FieldDescriptor, name: str, path: str = "") -> Column:
    get = attrgetter(path + field.name)
    if field.enum_type is not None:
        words = {value.number: value.name for value in field.enum_type.values}
        # A number that only a newer router knows is told as it is.
        return Column(name, "string", lambda event: words.get(get(event)) or str(get(event)))
    if field.cpp_type in _INTEGERS:
        return Column(name, "int64", get)
    return Column(name, "bool_" if field.cpp_type == field.CPPTYPE_BOOL else "string", get)


def _unit(field: FieldDescriptor) -> str:
    return "_nanos" if field.cpp_type in _INTEGERS else ""


def _labels(event: admin.UsageEvent) -> str:
    return orjson.dumps(dict(event.labels), option=orjson.OPT_SORT_KEYS).decode()


COLUMNS = _columns()


async def export_csv(batches: Batches) -> AsyncGenerator[bytes]:
    """The events as CSV (RFC 4180, UTF-8, with a header), a piece for each batch."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([column.name for column in COLUMNS])
    async for batch in batches:
        writer.writerows([column.of(event) for column in COLUMNS] for event in batch)
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    if text.tell():
        yield text.getvalue().encode()


async def export_parquet(batches: Batches) -> AsyncGenerator[bytes]:
    """The events as one Parquet file, in pieces.

    Raises ModuleNotFoundError where the extra "parquet" is not installed.
    """
    # Large, and needed by nobody else.
    import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415 # It ships no types.
    from pyarrow import parquet  # noqa: PLC0415 # As above.

    schema = pa.schema([(column.name, getattr(pa, column.type)()) for column in COLUMNS])
    pipe = _Pipe()
    with parquet.ParquetWriter(pipe, schema) as writer:
        group: list[Any] = []
        async for batch in batches:
            values = [[column.of(event) for event in batch] for column in COLUMNS]
            arrays = list(map(pa.array, values, schema.types))
            group.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
            if sum(map(len, group)) >= ROW_GROUP:
                # Compressing takes a while, and needs no lock of the interpreter.
                await asyncio.to_thread(writer.write_table, pa.Table.from_batches(group))
                group.clear()
                yield pipe.take()
        if group:
            await asyncio.to_thread(writer.write_table, pa.Table.from_batches(group))
    yield pipe.take()


class _Pipe(io.RawIOBase):
    """A file that only grows; what was written is taken out of it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._written += len(piece)
        return len(piece)

    def take(self) -> bytes:
        """What has been written since the last time."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
