"""Usage events in Postgres."""

from collections.abc import Sequence

import asyncpg  # type: ignore[import-untyped] # It ships no marker of its types.

from trunkline.admin import v1 as admin
from trunkline_server.ledger.ports import SinkRefusedError
from trunkline_server.ledger.queries import UsageQuery, UsageRow
from trunkline_server.store.database import ConstraintError
from trunkline_server.store.usage_sql import COLUMNS, SUMS, UsageTable, Values, row_of, usage_row

_NUMBERS = ", ".join(f"${number}" for number in range(1, len(COLUMNS) + 1))
_INSERT = (
    f"INSERT INTO usage_events ({', '.join(COLUMNS)}) "  # noqa: S608 # Names of columns only.
    f"VALUES ({_NUMBERS}) ON CONFLICT (event_id) DO NOTHING"
)


class PostgresUsage(UsageTable):
    """As UsageTable says."""

    async def insert(self, events: Sequence[admin.UsageEvent]) -> None:
        try:
            async with self._database.transaction() as transaction:
                await transaction.execute_many(_INSERT, [row_of(event) for event in events])
        except (ConstraintError, asyncpg.DataError) as error:
            # A number out of a column's range, for one.
            raise SinkRefusedError(f"Postgres refuses an event: {type(error).__name__}") from error

    async def summarize(self, query: UsageQuery) -> list[UsageRow]:
        values = Values()
        groups = self.groups(query, values)
        columns = [*groups, *SUMS]
        if query.percentiles:
            wanted = f"{values.add(list(query.percentiles))}::float8[]"
            succeeded = f"outcome = {admin.USAGE_OUTCOME_SUCCEEDED}"
            columns += [
                f"percentile_cont({wanted}) WITHIN GROUP (ORDER BY {column}) "
                f"FILTER (WHERE {succeeded} AND {column} >= {least})"
                for column, least in (("duration_us", 0), ("first_token_us", 1))
            ]
        order = ", ".join(str(place) for place in range(1, len(groups) + 1))
        rows = await self._database.fetch(
            f"SELECT {', '.join(columns)} FROM usage_events "  # noqa: S608 # See usage_sql.py.
            f"WHERE {self.condition(query.where, values)} "
            f"GROUP BY {order} ORDER BY {order} LIMIT {values.add(query.limit)}",
            *values.all,
        )
        none = (None,) * len(query.percentiles)
        end = len(groups) + len(SUMS)
        answers = []
        for row in rows:
            fields = [row[place] for place in range(len(columns))]
            duration, first_token = fields[end:] if query.percentiles else ((), ())
            answers.append(usage_row(query, fields, duration or none, first_token or none))
        return answers

    def label_of(self, name: str) -> str:
        return f"coalesce(labels ->> {name}::text, '')"

    def any_of(self, column: str, values: Sequence[object], into: Values) -> str:
        return f"{column} = ANY({into.add(list(values))}::text[])"
