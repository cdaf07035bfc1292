"""The port to a SQL database, and what can go wrong behind it.

Statements are written once for both databases: `$1`, `$2`, ... stand for the values, times are
microseconds since the Unix epoch, documents are JSON text.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from trunkline import v1
from trunkline_server.errors import TrunklineError


class Dialect(StrEnum):
    """Which SQL a database speaks, for the statements that cannot be one for both."""

    POSTGRES = "postgres"
    SQLITE = "sqlite"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long anything may take, in seconds, and how many connections there may be.

    `acquire` bounds the wait for a connection, a new one's making included, and on SQLite the
    wait for other processes' writes. `statement` bounds each statement. Of `connections`,
    SQLite keeps one for writing, and Postgres none for the listener, which has one more.
    """

    acquire: float = 2.0
    statement: float = 5.0
    connections: int = 8


class StoreUnavailableError(TrunklineError):
    """The database cannot be reached, does not answer in time, or refuses work for now.

    The message names the database and the cause, never the password. `in_doubt` is True when
    a commit was sent and its answer never came: the change may have been made.
    """

    def __init__(self, message: str, *, in_doubt: bool = False) -> None:
        super().__init__(v1.ERROR_REASON_SERVICE_UNAVAILABLE, message)
        self.in_doubt = in_doubt


class StoreReadOnlyError(StoreUnavailableError):
    """The database takes no changes: a standby, a read-only file, or told so."""


class ConstraintError(Exception):
    """A statement whose values the schema refuses; its transaction is undone."""


class Row(Protocol):
    """One row of a result."""

    def __getitem__(self, key: str | int, /) -> Any:
        """The value of a column, by name or position."""
        ...


class Reader(Protocol):
    """Runs queries. Raises StoreUnavailableError."""

    async def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        """Every row of a result."""
        ...

    async def fetch_one(self, statement: str, *values: object) -> Row | None:
        """The first row of a result."""
        ...


class Transaction(Reader, Protocol):
    """What happens wholly or not at all. Raises StoreUnavailableError and ConstraintError."""

    async def execute(self, statement: str, *values: object) -> int:
        """Runs a statement and gives how many rows it touched."""
        ...

    async def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Runs a statement once for each row of values."""
        ...

    async def notify(self, channel: str) -> None:
        """Wakes, at the commit, those who listen on a channel, as far as the database can."""
        ...

    async def script(self, statements: str) -> None:
        """Runs several statements, as migrations have them; values they take none."""
        ...


class Database(Reader, Protocol):
    """A database. Its own queries read; changes are made in a transaction.

    Nothing connects before it has to, and every wait is bounded: what is away or slow is a
    StoreUnavailableError within Limits.acquire plus Limits.statement. A connection that broke is
    replaced by the next use.
    """

    dialect: Dialect
    # Which database it is, for messages: host and port or a path; no password.
    address: str

    def transaction(
        self, *, read_only: bool = False, seconds: float | None = None
    ) -> AbstractAsyncContextManager[Transaction]:
        """Commits when its block ends, undoes all when it raises.

        A read-only one sees the database as it was at its first query. `seconds` is for each
        of its statements, in place of Limits.statement.
        """
        ...

    def stream(self, statement: str, *values: object) -> AsyncIterator[Row]:
        """The rows of a result that may be larger than memory, as of one moment."""
        ...

    def listening(self, channel: str) -> AbstractAsyncContextManager[asyncio.Event]:
        """An event that is set when anyone notifies the channel, and when that may have been
        missed. SQLite sets it for what this object itself commits: poll as well."""
        ...

    async def close(self) -> None:
        """Closes every connection, within Limits.statement. Idempotent."""
        ...
