"""Postgres by asyncpg: a pool with hard limits, and a listener on a connection of its own."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped] # It ships no marker of its types.

from trunkline_server.store.database import (
    ConstraintError,
    Dialect,
    Limits,
    Row,
    StoreReadOnlyError,
    StoreUnavailableError,
)

T = TypeVar("T")

# SQLSTATEs, or their first letters, that are the server's or the operator's trouble and not the
# statement's: connection, authorisation, missing database, rollback that may be retried,
# resources, shutdown and cancellation, system errors, a lock that was not to be had, a table that
# is not there (they come by migration, and are away while a backup is restored).
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_TROUBLE = ("08", "28", "3D", "40", "53", "57", "58", "55P03", "42P01")
_READ_ONLY = "25006"
_REFUSED_VALUE = "22"
_CONSTRAINT = "23"
_CANCELED = "57014"

# The listener's pause between attempts to connect, and between proofs that its peer still lives.
_RELISTEN_SECONDS = 0.25
_PROOF_SECONDS = 5.0
# Rows of a stream that are fetched at once.
_PREFETCH = 500
# What a connection that breaks may raise.
_BROKEN = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class PostgresDatabase:
    """A Database on Postgres; see the port for what its methods do."""

    dialect = Dialect.POSTGRES

    def __init__(self, pool: Any, dsn: str, address: str, limits: Limits) -> None:
        self.address = address
        self._pool = pool
        self._dsn = dsn
        self._limits = limits

    @classmethod
    async def open(cls, dsn: str, address: str, limits: Limits) -> "PostgresDatabase":
        """Makes an empty pool; no connection is made before one is asked for."""
        pool = await asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=limits.connections,
            timeout=limits.acquire,
            server_settings={
                "application_name": "trunkline",
                # Should we be gone, the server is not to go on for long.
                "statement_timeout": _milliseconds(limits.statement),
                "idle_in_transaction_session_timeout": _milliseconds(10 * limits.statement),
            },
        )
        return cls(pool, dsn, address, limits)

    async def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        async with self._session() as session:
            return await session.fetch(statement, *values)

    async def fetch_one(self, statement: str, *values: object) -> Row | None:
        async with self._session() as session:
            return await session.fetch_one(statement, *values)

    @asynccontextmanager
    async def transaction(
        self, *, read_only: bool = False, seconds: float | None = None
    ) -> AsyncGenerator["PostgresSession"]:
        async with self._session() as session:
            isolation = "ISOLATION LEVEL REPEATABLE READ READ ONLY" if read_only else ""
            try:
                await session.script(f"BEGIN {isolation}")
                if seconds is not None:
                    session.seconds = seconds
                    await session.script(f"SET LOCAL statement_timeout = {_milliseconds(seconds)}")
                yield session
            except BaseException:
                await session.undo()
                raise
            await session.commit()

    async def stream(self, statement: str, *values: object) -> AsyncGenerator[Row]:
        async with self.transaction(read_only=True) as session:
            async for row in session.stream(statement, *values):
                yield row

    @asynccontextmanager
    async def listening(self, channel: str) -> AsyncGenerator[asyncio.Event]:
        bell = asyncio.Event()
        listener = asyncio.create_task(self._listen(channel, bell))
        try:
            yield bell
        finally:
            listener.cancel()
            await asyncio.wait([listener])
            if not listener.cancelled():
                listener.result()

    async def close(self) -> None:
        try:
            async with asyncio.timeout(self._limits.statement):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def _session(self) -> AsyncGenerator["PostgresSession"]:
        seconds = self._limits.acquire
        with _reporting(self.address, f"no connection within {seconds:g} s"):
            try:
                connection = await self._pool.acquire(timeout=seconds)
            except asyncpg.InterfaceError:
                if not self._pool.is_closing():
                    raise
                raise ConnectionError("closed") from None
        try:
            yield PostgresSession(connection, self.address, self._limits.statement)
        finally:
            await self._give_back(connection)

    async def _give_back(self, connection: Any) -> None:
        try:
            await self._pool.release(connection, timeout=self._limits.acquire)
        except _BROKEN:
            # It broke: the pool has dropped it, and whoever used it has been told.
            return

    async def _listen(self, channel: str, bell: asyncio.Event) -> None:
        while True:
            with suppress(*_BROKEN):
                await self._listen_once(channel, bell)
            # Outages are reported by whoever polls beside.
            await asyncio.sleep(_RELISTEN_SECONDS)

    async def _listen_once(self, channel: str, bell: asyncio.Event) -> None:
        """Listens until the connection ends or breaks."""
        ended = asyncio.Event()
        limit = self._limits.acquire
        connection = await asyncpg.connect(self._dsn, timeout=limit, command_timeout=limit)
        try:
            connection.add_termination_listener(lambda _: ended.set())
            await connection.add_listener(channel, lambda *_: bell.set())
            # What was notified before this moment was missed.
            bell.set()
            while not ended.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PROOF_SECONDS):
                        await ended.wait()
                if not ended.is_set():
                    # A peer that vanished sends nothing, not even an end.
                    await connection.execute("SELECT 1")
        finally:
            connection.terminate()


class PostgresSession:
    """One connection, for as long as it is lent; a Transaction while it is in one.

    `seconds` bounds each statement. What takes longer loses its connection, because what is
    still to come from it belongs to nobody.
    """

    def __init__(self, connection: Any, address: str, seconds: float) -> None:
        self.seconds = seconds
        self._connection = connection
        self._address = address

    async def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        rows: Sequence[Row] = await self._bounded(self._connection.fetch, statement, *values)
        return rows

    async def fetch_one(self, statement: str, *values: object) -> Row | None:
        row: Row | None = await self._bounded(self._connection.fetchrow, statement, *values)
        return row

    async def execute(self, statement: str, *values: object) -> int:
        # The tag of a statement that touches rows ends with their number: INSERT 0 3.
        tag: str = await self._bounded(self._connection.execute, statement, *values)
        count = tag.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    async def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        await self._bounded(self._connection.executemany, statement, rows)

    async def notify(self, channel: str) -> None:
        await self.execute("SELECT pg_notify($1, '')", channel)

    async def script(self, statements: str) -> None:
        await self._bounded(self._connection.execute, statements)

    async def stream(self, statement: str, *values: object) -> AsyncGenerator[Row]:
        """Rows by a cursor of the transaction."""
        cursor = await self._bounded(self._connection.cursor, statement, *values)
        while rows := await self._bounded(cursor.fetch, _PREFETCH):
            for row in rows:
                yield row

    async def commit(self) -> None:
        """Ends the transaction; what breaks on the way leaves it in doubt."""
        try:
            await self.script("COMMIT")
        except StoreReadOnlyError:
            raise
        except StoreUnavailableError as error:
            message = f"{error.message}; whether the change was made is not known"
            raise StoreUnavailableError(message, in_doubt=True) from error

    async def undo(self) -> None:
        """Rolls back, or drops the connection, which does the same."""
        if not self._is_lost():
            # If it fails, the connection is lost with it.
            with suppress(StoreUnavailableError):
                await self.script("ROLLBACK")

    def _is_lost(self) -> bool:
        try:
            closed: bool = self._connection.is_closed()
        except asyncpg.InterfaceError:
            # The pool has taken it back, as it does with what ends while it is lent.
            return True
        return closed

    async def _bounded(self, ask: Callable[..., Awaitable[T]], *words: object) -> T:
        with _reporting(self._address, f"no answer within {self.seconds:g} s"):
            try:
                async with asyncio.timeout(self.seconds):
                    return await ask(*words)
            except (TimeoutError, asyncpg.ReadOnlySQLTransactionError):
                # What a connection was told of writing at its start holds as long as it does: only
                # a new one finds out that the server takes changes again, or another one does.
                self._connection.terminate()
                raise
            except asyncpg.InternalClientError as error:
                # The client lost count of what its server says, as when that dies in between.
                self._connection.terminate()
                raise ConnectionResetError(str(error)) from error
            except asyncpg.InterfaceError:
                if self._is_lost():
                    raise ConnectionResetError("the connection was closed") from None
                raise


@contextmanager
def _reporting(address: str, late: str) -> Iterator[None]:
    """Raises what goes wrong as the port's errors; `late` says what a timeout means."""
    place = f"Postgres at {address} is unavailable"
    try:
        yield
    except TimeoutError as error:
        raise StoreUnavailableError(f"{place}: {late}") from error
    except (OSError, asyncpg.InternalClientError) as error:
        why = str(error) or type(error).__name__
        raise StoreUnavailableError(f"{place}: {why}") from error
    except asyncpg.PostgresError as error:
        state = error.sqlstate or ""
        # The server's first line, because others quote values; asyncpg's own errors have none.
        why = error.message or str(error)
        if state == _CANCELED:
            raise StoreUnavailableError(f"{place}: the statement was cancelled: {late}") from error
        if state == _READ_ONLY:
            raise StoreReadOnlyError(f"Postgres at {address} is read-only: {why}") from error
        if state.startswith(_TROUBLE):
            raise StoreUnavailableError(f"{place}: {why}") from error
        if state.startswith(_REFUSED_VALUE):
            # The message may quote the value.
            raise ConstraintError(type(error).__name__) from error
        if state.startswith(_CONSTRAINT):
            raise ConstraintError(why) from error
        raise


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
