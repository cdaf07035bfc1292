"""Usage events in SQLite."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain, islice
from typing import Any

from trunkline.admin import v1 as admin
from trunkline_server.ledger.ports import SinkRefusedError
from trunkline_server.ledger.queries import UsageQuery, UsageRow
from trunkline_server.store.database import ConstraintError, Transaction
from trunkline_server.store.usage_sql import COLUMNS, SUMS, UsageTable, Values, row_of, usage_row

# The most rows of one statement, see `_insert_of`. Binding their values keeps the event loop from
# running, which 16 rows do for half a millisecond.
_ROWS_AT_ONCE = 16

# The values next to each percentile, by group.
Percentiles = Mapping[tuple[Any, ...], tuple[float | None, ...]]


class SqliteUsage(UsageTable):
    """As UsageTable says."""

    async def insert(self, events: Sequence[admin.UsageEvent]) -> None:
        try:
            async with self._database.transaction() as transaction:
                at = 0
                while at < len(events):
                    # Powers of two, so that there are few statements to keep prepared.
                    count = min(1 << ((len(events) - at).bit_length() - 1), _ROWS_AT_ONCE)
                    rows = [row_of(event) for event in events[at : at + count]]
                    await transaction.execute(_insert_of(count), *chain.from_iterable(rows))
                    at += count
        except ConstraintError as error:
            raise SinkRefusedError("SQLite refuses an event") from error

    async def summarize(self, query: UsageQuery) -> list[UsageRow]:
        values = Values()
        groups = self.groups(query, values)
        order = ", ".join(str(place) for place in range(1, len(groups) + 1))
        statement = (
            f"SELECT {', '.join([*groups, *SUMS])} FROM usage_events "  # noqa: S608 # See above.
            f"WHERE {self.condition(query.where, values)} "
            f"GROUP BY {order} ORDER BY {order} LIMIT {values.add(query.limit)}"
        )
        async with self._database.transaction(read_only=True) as transaction:
            rows = await transaction.fetch(statement, *values.all)
            duration = await self._percentiles(transaction, query, "duration_us", 0)
            first_token = await self._percentiles(transaction, query, "first_token_us", 1)
        none = (None,) * len(query.percentiles)
        answers = []
        for row in rows:
            fields = [row[place] for place in range(len(groups) + len(SUMS))]
            group = tuple(fields[: len(groups)])
            answers.append(
                usage_row(query, fields, duration.get(group, none), first_token.get(group, none))
            )
        return answers

    async def _percentiles(
        self, transaction: Transaction, query: UsageQuery, column: str, least: int
    ) -> Percentiles:
        """The percentiles of a column by group, interpolated as percentile_cont of standard SQL.

        The database ranks; only the values next to each percentile leave it.
        """
        if not query.percentiles:
            return {}
        values = Values()
        groups = self.groups(query, values)
        names = [f"g{number}" for number in range(len(groups))]
        keys = ", ".join(f"{each} AS {name}" for each, name in zip(groups, names, strict=True))
        partition = ", ".join(names)
        condition = (
            f"{self.condition(query.where, values)} "
            f"AND outcome = {admin.USAGE_OUTCOME_SUCCEEDED} AND {column} >= {least}"
        )
        lower = [f"CAST({values.add(each)} * (n - 1) AS INTEGER)" for each in query.percentiles]
        near = ", ".join(f"{each}, {each} + 1" for each in lower)
        rows = await transaction.fetch(
            f"SELECT {partition}, place, n, value FROM ("  # noqa: S608 # See usage_sql.py.
            f"SELECT {partition}, value, count(*) OVER (PARTITION BY {partition}) AS n, "
            f"row_number() OVER (PARTITION BY {partition} ORDER BY value) - 1 AS place "
            f"FROM (SELECT {keys}, {column} AS value FROM usage_events WHERE {condition})) "
            f"WHERE place IN ({near})",
            *values.all,
        )
        ranked: defaultdict[tuple[Any, ...], dict[int, int]] = defaultdict(dict)
        counts: dict[tuple[Any, ...], int] = {}
        for row in rows:
            group = tuple(row[name] for name in names)
            ranked[group][row["place"]] = row["value"]
            counts[group] = row["n"]
        return {
            group: tuple(_interpolated(places, counts[group], p) for p in query.percentiles)
            for group, places in ranked.items()
        }

    def label_of(self, name: str) -> str:
        value = f"(SELECT value FROM json_each(labels) WHERE key = {name})"  # noqa: S608 # A placeholder.
        return f"coalesce({value}, '')"

    def any_of(self, column: str, values: Sequence[object], into: Values) -> str:
        return f"{column} IN ({', '.join(map(into.add, values))})"


@cache
def _insert_of(rows: int) -> str:
    """The statement that inserts so many rows.

    SQLite's thread gives up the interpreter for each statement that it runs, and then has to
    wait for it. Beside an event loop that is busy, a statement for each row cost ten times as much
    as one for all (DECISIONS.md, 72).
    """
    numbers = (f"${number}" for number in range(1, rows * len(COLUMNS) + 1))
    values = ", ".join(f"({', '.join(islice(numbers, len(COLUMNS)))})" for _ in range(rows))
    return (
        f"INSERT INTO usage_events ({', '.join(COLUMNS)}) "  # noqa: S608 # Names of columns only.
        f"VALUES {values} ON CONFLICT (event_id) DO NOTHING"
    )


def _interpolated(places: Mapping[int, int], count: int, percentile: float) -> float:
    position = percentile * (count - 1)
    lower = int(position)
    below = places[lower]
    return below + (position - lower) * (places.get(lower + 1, below) - below)
