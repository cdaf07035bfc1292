"""SQLite by aiosqlite: one connection that writes, some that read, each with its own thread."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import aiosqlite

from trunkline_server.store.database import (
    ConstraintError,
    Dialect,
    Limits,
    Row,
    StoreReadOnlyError,
    StoreUnavailableError,
)

T = TypeVar("T")

# Result codes that are the machine's or the operator's trouble and not the statement's.
# https://www.sqlite.org/rescode.html
_TROUBLE = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
    }
)
# Tables come by migration, and are away while a backup is restored. It has no code of its own.
_NO_TABLE = "no such table"
# How long a statement is asked to stop, and how often.
_STOP_SECONDS = 2.0
_STOP_AGAIN_SECONDS = 0.01
# Between two attempts at switching a file that others switch too. Seconds.
_BETWEEN_SWITCHES = 0.01
# Rows of a stream that are fetched at once.
_BATCH = 500
_PLACEHOLDER = re.compile(r"\$(\d+)")


class SqliteDatabase:
    """A Database in a file; see the port for what its methods do.

    The file must exist, unless `create` is True: who serves is not to make an empty one.
    """

    dialect = Dialect.SQLITE

    def __init__(self, path: Path, limits: Limits, *, create: bool = False) -> None:
        self.address = str(path)
        self._limits = limits
        mode = "rwc" if create else "rw"
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        self._writers = _Lanes(uri, 1, self.address, limits, reads_only=False)
        readers = max(limits.connections - 1, 1)
        self._readers = _Lanes(uri, readers, self.address, limits, reads_only=True)
        self._bells: dict[str, set[asyncio.Event]] = {}

    async def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        async with self._readers.lend() as session:
            return await session.fetch(statement, *values)

    async def fetch_one(self, statement: str, *values: object) -> Row | None:
        async with self._readers.lend() as session:
            return await session.fetch_one(statement, *values)

    @asynccontextmanager
    async def transaction(
        self, *, read_only: bool = False, seconds: float | None = None
    ) -> AsyncGenerator["SqliteSession"]:
        lanes = self._readers if read_only else self._writers
        async with lanes.lend() as session:
            if seconds is not None:
                session.seconds = seconds
            try:
                # Writers take their lock first: one that began by reading could be refused it.
                await session.execute("BEGIN" if read_only else "BEGIN IMMEDIATE")
                yield session
                await session.commit()
            except BaseException:
                await session.undo()
                raise
        for channel in session.notified:
            for bell in self._bells.get(channel, ()):
                bell.set()

    async def stream(self, statement: str, *values: object) -> AsyncGenerator[Row]:
        async with self.transaction(read_only=True) as session:
            async for row in session.stream(statement, *values):
                yield row

    @asynccontextmanager
    async def listening(self, channel: str) -> AsyncGenerator[asyncio.Event]:
        bell = asyncio.Event()
        self._bells.setdefault(channel, set()).add(bell)
        try:
            yield bell
        finally:
            self._bells[channel].discard(bell)

    async def close(self) -> None:
        await self._readers.close()
        # Last, because it folds the log of changes into the file.
        await self._writers.close()


class SqliteSession:
    """One connection, for as long as it is lent; a Transaction while it is in one.

    `seconds` bounds each statement. `lost` is True once one could not be stopped.
    """

    def __init__(self, connection: aiosqlite.Connection, address: str, seconds: float) -> None:
        self.seconds = seconds
        self.lost = False
        # Channels to ring once it is committed.
        self.notified: set[str] = set()
        self._connection = connection
        self._address = address

    async def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        asked = self._connection.execute_fetchall(_numbered(statement), values)
        return list(await self._bounded(asked))

    async def fetch_one(self, statement: str, *values: object) -> Row | None:
        rows = await self.fetch(statement, *values)
        return rows[0] if rows else None

    async def execute(self, statement: str, *values: object) -> int:
        cursor = await self._bounded(self._connection.execute(_numbered(statement), values))
        await cursor.close()
        # -1 where it means nothing.
        return max(cursor.rowcount, 0)

    async def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        asked = self._connection.executemany(_numbered(statement), rows)
        await (await self._bounded(asked)).close()

    async def notify(self, channel: str) -> None:
        """Is for this object's own listeners: other processes poll."""
        self.notified.add(channel)

    async def script(self, statements: str) -> None:
        for statement in _split(statements):
            await self.execute(statement)

    async def stream(self, statement: str, *values: object) -> AsyncGenerator[Row]:
        """Rows, some at a time."""
        cursor = await self._bounded(self._connection.execute(_numbered(statement), values))
        try:
            while rows := await self._bounded(cursor.fetchmany(_BATCH)):
                for row in rows:
                    yield row
        finally:
            await cursor.close()

    async def commit(self) -> None:
        """Ends the transaction; one that does not end leaves it in doubt."""
        try:
            await self.execute("COMMIT")
        except StoreUnavailableError as error:
            if not self.lost:
                raise
            message = f"{error.message}; whether the change was made is not known"
            raise StoreUnavailableError(message, in_doubt=True) from error

    async def undo(self) -> None:
        """Rolls back, unless SQLite has done so by itself."""
        if self.lost or not self._connection.in_transaction:
            return
        try:
            await self._bounded(self._connection.rollback())
        except StoreUnavailableError:
            # Closing it does the same.
            self.lost = True

    async def _bounded(self, answer: Awaitable[T]) -> T:
        asked = asyncio.ensure_future(answer)
        try:
            # Unlike a timeout around it, this leaves it to us how it is stopped.
            await asyncio.wait([asked], timeout=self.seconds)
        except asyncio.CancelledError:
            await self._stop(asked)
            raise
        if not asked.done():
            await self._stop(asked)
            raise StoreUnavailableError(
                f"SQLite at {self._address} is unavailable: no answer within {self.seconds:g} s"
            )
        with _reporting(self._address):
            return asked.result()

    async def _stop(self, asked: asyncio.Future[T]) -> None:
        """Makes a statement end: its thread would go on, and keep the next user waiting."""
        deadline = asyncio.get_running_loop().time() + _STOP_SECONDS
        while not asked.done() and not self.lost:
            # Of no effect on a statement that the thread has yet to begin: hence again.
            await self._connection.interrupt()
            await asyncio.wait([asked], timeout=_STOP_AGAIN_SECONDS)
            # A disk that does not answer holds the thread, and nothing frees it.
            self.lost = asyncio.get_running_loop().time() > deadline
        if asked.done() and not asked.cancelled():
            # Looked at, so that it is not reported as never looked at.
            asked.exception()


class _Lanes:
    """Connections of one purpose, opened when they are first needed, lent one at a time."""

    def __init__(
        self, uri: str, count: int, address: str, limits: Limits, *, reads_only: bool
    ) -> None:
        self._uri = uri
        self._address = address
        self._limits = limits
        self._reads_only = reads_only
        # None stands for a connection that is yet to be opened.
        self._free: asyncio.LifoQueue[aiosqlite.Connection | None] = asyncio.LifoQueue()
        self._count = count
        self._closed = False
        for _ in range(count):
            self._free.put_nowait(None)

    @asynccontextmanager
    async def lend(self) -> AsyncGenerator[SqliteSession]:
        connection = await self._take(self._limits.acquire)
        try:
            if self._closed:
                raise StoreUnavailableError(f"SQLite at {self._address} is unavailable: closed")
            if connection is None:
                connection = await self._connect()
            session = SqliteSession(connection, self._address, self._limits.statement)
            try:
                yield session
            finally:
                if session.lost:
                    # Closes itself, should it ever come to it.
                    connection.stop()
                    connection = None
        finally:
            if self._closed and connection is not None:
                await connection.close()
                connection = None
            self._free.put_nowait(connection)

    async def close(self) -> None:
        """Closes them, once they are given back, be it after this has ended."""
        self._closed = True
        deadline = asyncio.get_running_loop().time() + self._limits.statement
        taken = 0
        with suppress(StoreUnavailableError):
            for _ in range(self._count):
                connection = await self._take(deadline - asyncio.get_running_loop().time())
                taken += 1
                if connection is not None:
                    await connection.close()
        # Whoever comes yet is to be told, and not to wait.
        for _ in range(taken):
            self._free.put_nowait(None)

    async def _take(self, seconds: float) -> aiosqlite.Connection | None:
        try:
            async with asyncio.timeout(seconds):
                return await self._free.get()
        except TimeoutError as error:
            raise StoreUnavailableError(
                f"SQLite at {self._address} is unavailable: no connection within {seconds:g} s"
            ) from error

    async def _connect(self) -> aiosqlite.Connection:
        with _reporting(self._address):
            connection = aiosqlite.connect(self._uri, uri=True, isolation_level=None)
            try:
                await connection
            except BaseException:
                # Its thread ends by itself, and would tell this loop of it when that is closed.
                await asyncio.to_thread(connection._thread.join)
                raise
            try:
                connection.row_factory = sqlite3.Row
                # Milliseconds. The wait is in the connection's thread, where no timeout of ours
                # reaches: it is to end first.
                wait = min(self._limits.acquire, self._limits.statement / 2)
                await connection.execute(f"PRAGMA busy_timeout = {round(wait * 1000)}")
                if self._reads_only:
                    await connection.execute("PRAGMA query_only = ON")
                else:
                    # Readers and the writer do not wait for each other.
                    await _write_ahead(connection, wait)
                    # What is committed survives the machine's crash.
                    await connection.execute("PRAGMA synchronous = FULL")
                    await connection.execute("PRAGMA foreign_keys = ON")
            except BaseException:
                await connection.close()
                raise
        return connection


async def _write_ahead(connection: aiosqlite.Connection, seconds: float) -> None:
    """Switches the file to write-ahead logging, unless it is so already.

    Where several do this to a new file at once, SQLite tells those that come second that it is
    locked without waiting: two that wait for one another's lock would never go on.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            await connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or asyncio.get_running_loop().time() >= deadline:
                raise
        else:
            return
        await asyncio.sleep(_BETWEEN_SWITCHES)


@contextmanager
def _reporting(address: str) -> Iterator[None]:
    """Raises what goes wrong as the port's errors."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise ConstraintError(str(error)) from error
    except sqlite3.DatabaseError as error:
        # The low byte is the code, the others refine it.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_READONLY:
            raise StoreReadOnlyError(f"SQLite at {address} is read-only: {error}") from error
        if code in _TROUBLE or str(error).startswith(_NO_TABLE):
            raise StoreUnavailableError(f"SQLite at {address} is unavailable: {error}") from error
        raise


@lru_cache(maxsize=512)
def _numbered(statement: str) -> str:
    """The statement with SQLite's ?1 for $1."""
    return _PLACEHOLDER.sub(r"?\1", statement)


def _split(statements: str) -> Iterator[str]:
    """The single statements; SQLite itself knows where one ends, a trigger's body included."""
    pending = ""
    for line in statements.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending
