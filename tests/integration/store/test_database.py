"""The contract of the database port, on both databases."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.integration.store.conftest import Open
from trunkline_server.store.database import (
    ConstraintError,
    Database,
    Dialect,
    Limits,
    Reader,
    StoreUnavailableError,
)

PUT = "INSERT INTO meta (key, value) VALUES ($1, $2)"
ALL = "SELECT key, value FROM meta WHERE key <> 'revision' ORDER BY key"
COUNT_UP = "UPDATE meta SET value = value + 1 WHERE key = $1"
# Far longer than any limit here, and cancelled by both databases.
ENDLESS = {
    Dialect.POSTGRES: "SELECT pg_sleep(600)",
    Dialect.SQLITE: "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT count(*) FROM n",
}
# A limit that stands for any, and what it may take to notice on a loaded machine.
LIMIT = 0.3
SLACK = 2.0


async def put(database: Database, key: str, value: int) -> None:
    async with database.transaction() as transaction:
        await transaction.execute(PUT, key, value)


async def content(reader: Reader) -> dict[str, int]:
    return {row["key"]: row["value"] for row in await reader.fetch(ALL)}


async def test_rows_are_read_by_name_and_position(database: Database) -> None:
    await put(database, "a", 1)
    await put(database, "b", -(2**63))
    rows = await database.fetch(ALL)
    assert [(row["key"], row[1]) for row in rows] == [("a", 1), ("b", -(2**63))]
    one = await database.fetch_one("SELECT value FROM meta WHERE key = $1", "b")
    assert one is not None
    assert one["value"] == -(2**63)
    assert await database.fetch_one("SELECT value FROM meta WHERE key = $1", "none") is None


async def test_a_value_may_stand_in_several_places(database: Database) -> None:
    rows = await database.fetch(
        "SELECT key FROM meta WHERE key = $2 AND value = $1 AND value >= $1", 0, "revision"
    )
    assert [row[0] for row in rows] == ["revision"]


async def test_execute_counts_the_rows_it_touched(database: Database) -> None:
    async with database.transaction() as transaction:
        assert await transaction.execute(PUT, "a", 1) == 1
        await transaction.execute_many(PUT, [("b", 2), ("c", 3), ("d", 4)])
        assert await transaction.execute("UPDATE meta SET value = 9 WHERE key < $1", "d") == 3
        assert await transaction.execute("DELETE FROM meta WHERE key = $1", "none") == 0
    assert await content(database) == {"a": 9, "b": 9, "c": 9, "d": 4}


async def test_a_transaction_that_fails_leaves_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(PUT, "a", 1)
            assert await content(transaction) == {"a": 1}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await content(database) == {}
    await put(database, "a", 2)
    assert await content(database) == {"a": 2}
    # Nor was it left to the pool to find, which would complain.
    assert caplog.messages == []


async def test_a_refused_row_undoes_its_transaction(database: Database) -> None:
    async def twice() -> None:
        async with database.transaction() as transaction:
            await transaction.execute_many(PUT, [("a", 1), ("b", 2), ("a", 3)])

    with pytest.raises(ConstraintError):
        await twice()
    assert await content(database) == {}


async def test_a_read_only_transaction_sees_one_moment(dsn: str, opened: Open) -> None:
    reader, writer = await opened(dsn), await opened(dsn)
    await put(writer, "a", 1)
    async with reader.transaction(read_only=True) as transaction:
        assert await content(transaction) == {"a": 1}
        await put(writer, "b", 2)
        assert await content(transaction) == {"a": 1}
    assert await content(reader) == {"a": 1, "b": 2}


async def test_a_read_only_transaction_does_not_write(database: Database) -> None:
    async def write() -> None:
        async with database.transaction(read_only=True) as transaction:
            await transaction.execute(PUT, "a", 1)

    with pytest.raises(StoreUnavailableError, match="read-only"):
        await write()
    assert await content(database) == {}


async def test_no_update_is_lost_between_writers(dsn: str, opened: Open) -> None:
    """Two of each process, two processes, one row."""
    databases = [await opened(dsn) for _ in range(2)]
    await put(databases[0], "count", 0)

    async def count_up(database: Database) -> None:
        for _ in range(15):
            async with database.transaction() as transaction:
                assert await transaction.execute(COUNT_UP, "count") == 1

    await asyncio.gather(*(count_up(each) for each in databases * 2))
    assert await content(databases[0]) == {"count": 60}


async def test_a_stream_gives_every_row_of_one_moment(dsn: str, opened: Open) -> None:
    reader, writer = await opened(dsn), await opened(dsn)
    async with writer.transaction() as transaction:
        await transaction.execute_many(PUT, [(f"{n:05}", n) for n in range(1700)])
    seen: list[int] = []
    async for row in reader.stream(ALL + " DESC"):
        if not seen:
            await put(writer, "late", 1)
        seen.append(row["value"])
    assert seen == list(range(1699, -1, -1))


async def test_a_stream_may_be_left_early(dsn: str, opened: Open) -> None:
    database = await opened(dsn, Limits(acquire=LIMIT, connections=2))
    async with database.transaction() as transaction:
        await transaction.execute_many(PUT, [(f"{n:05}", n) for n in range(1200)])
    for _ in range(4):
        rows: AsyncIterator[object] = database.stream(ALL)
        assert await anext(rows)
        # What a consumer that breaks off must do.
        await rows.aclose()  # type: ignore[attr-defined] # A generator, as every stream is.
    await put(database, "a", 1)


async def test_a_slow_statement_ends_at_its_limit(dsn: str, opened: Open) -> None:
    database = await opened(dsn, Limits(statement=LIMIT))
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match=rf"{database.address}.*{LIMIT:g} s"):
            await database.fetch(ENDLESS[database.dialect])
        assert LIMIT <= time.monotonic() - began < LIMIT + SLACK
    await put(database, "a", 1)
    assert await content(database) == {"a": 1}


async def test_a_slow_statement_undoes_its_transaction(dsn: str, opened: Open) -> None:
    database = await opened(dsn)

    async def dawdle() -> None:
        async with database.transaction(seconds=LIMIT) as transaction:
            await transaction.execute(PUT, "a", 1)
            await transaction.fetch(ENDLESS[database.dialect])

    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=f"{LIMIT:g} s"):
        await dawdle()
    assert time.monotonic() - began < LIMIT + SLACK
    assert await content(database) == {}
    await put(database, "a", 2)


async def test_a_transaction_may_be_given_more_time(dsn: str, opened: Open) -> None:
    database = await opened(dsn, Limits(statement=LIMIT))
    slow = {
        Dialect.POSTGRES: f"SELECT pg_sleep({2 * LIMIT})",
        # So many steps take longer than the limit on any machine of today.
        Dialect.SQLITE: ENDLESS[Dialect.SQLITE].replace(" FROM n) ", " FROM n LIMIT 8000000) "),
    }
    began = time.monotonic()
    async with database.transaction(read_only=True, seconds=60) as transaction:
        await transaction.fetch(slow[database.dialect])
    assert time.monotonic() - began > LIMIT


async def test_a_cancelled_statement_frees_its_connection(dsn: str, opened: Open) -> None:
    database = await opened(dsn, Limits(acquire=2.0, statement=60, connections=2))
    for _ in range(3):
        running = asyncio.create_task(database.fetch(ENDLESS[database.dialect]))
        done, _ = await asyncio.wait([running], timeout=0.05)
        assert not done
        began = time.monotonic()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()
        assert time.monotonic() - began < SLACK
    await put(database, "a", 1)
    assert await content(database) == {"a": 1}


async def test_a_cancelled_transaction_is_undone(dsn: str, opened: Open) -> None:
    database = await opened(dsn, Limits(acquire=2.0, statement=60, connections=2))
    written = asyncio.Event()

    async def write() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(PUT, "a", 1)
            written.set()
            await transaction.fetch(ENDLESS[database.dialect])

    writing = asyncio.create_task(write())
    await written.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert writing.cancelled()
    await put(database, "a", 2)
    assert await content(database) == {"a": 2}


async def test_the_wait_for_a_connection_is_bounded(dsn: str, opened: Open) -> None:
    database = await opened(dsn, Limits(acquire=LIMIT, connections=2))
    async with database.transaction(), database.transaction(read_only=True) as reading:
        await reading.fetch(ALL)
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match=f"no connection within {LIMIT:g} s"):
            await database.fetch(ALL)
        assert LIMIT <= time.monotonic() - began < LIMIT + SLACK
    assert await content(database) == {}


async def test_the_wait_for_another_writer_is_bounded(dsn: str, opened: Open) -> None:
    """Another process that holds what we want to write, and does not let go."""
    ours, theirs = (
        await opened(dsn, Limits(acquire=LIMIT, statement=2 * LIMIT)),
        await opened(dsn),
    )
    await put(ours, "count", 0)

    async def count_up() -> None:
        async with ours.transaction() as transaction:
            await transaction.execute(COUNT_UP, "count")

    async with theirs.transaction() as transaction:
        await transaction.execute(COUNT_UP, "count")
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await count_up()
        assert time.monotonic() - began < 2 * LIMIT + SLACK
        assert await content(ours) == {"count": 0}
    await count_up()
    assert await content(ours) == {"count": 2}


async def test_a_mistaken_statement_is_not_an_outage(database: Database) -> None:
    with pytest.raises(Exception, match="no_such_column") as caught:
        await database.fetch("SELECT no_such_column FROM meta")
    assert not isinstance(caught.value, StoreUnavailableError)
    assert await content(database) == {}


async def test_a_missing_table_is_an_outage(database: Database) -> None:
    with pytest.raises(StoreUnavailableError, match="no_such_table"):
        await database.fetch("SELECT 1 FROM no_such_table")
    assert await content(database) == {}


async def test_close_is_final_and_repeatable(dsn: str, opened: Open) -> None:
    database = await opened(dsn)
    await put(database, "a", 1)
    # Several connections at once, of both kinds.
    await asyncio.gather(*(database.fetch(ALL) for _ in range(4)))
    await database.close()
    await database.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await database.fetch(ALL)
    with pytest.raises(StoreUnavailableError, match="closed"):
        await put(database, "b", 1)
    assert await content(await opened(dsn)) == {"a": 1}


async def test_close_lets_end_what_has_begun(dsn: str, opened: Open) -> None:
    database = await opened(dsn)
    written, go_on = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(PUT, "a", 1)
            written.set()
            await go_on.wait()

    writing = asyncio.create_task(write())
    await written.wait()
    closing = asyncio.create_task(database.close())
    done, _ = await asyncio.wait([closing], timeout=0.05)
    assert not done
    go_on.set()
    await asyncio.gather(writing, closing)
    assert await content(await opened(dsn)) == {"a": 1}


async def test_close_does_not_wait_for_ever(dsn: str, opened: Open) -> None:
    database = await opened(dsn, Limits(statement=LIMIT))
    read, go_on = asyncio.Event(), asyncio.Event()

    async def linger() -> None:
        async with database.transaction(read_only=True) as transaction:
            await transaction.fetch(ALL)
            read.set()
            await go_on.wait()

    lingering = asyncio.create_task(linger())
    await read.wait()
    began = time.monotonic()
    await database.close()
    assert LIMIT <= time.monotonic() - began < 2 * LIMIT + SLACK
    go_on.set()
    # Postgres' connection is gone under it; SQLite's is closed when it is given back.
    (outcome,) = await asyncio.gather(lingering, return_exceptions=True)
    assert outcome is None or isinstance(outcome, StoreUnavailableError)


async def test_entries_of_the_audit_log_stay(database: Database) -> None:
    async with database.transaction() as transaction:
        await transaction.execute(
            "INSERT INTO audit_log (seq, at, tenant, actor, action, resource, details, "
            "prev_hash, hash) VALUES (1, 0, '', 'root', 'create', 'keys/one', '{}', $1, $1)",
            b"\0" * 32,
        )

    async def mischief(statement: str) -> None:
        async with database.transaction() as transaction:
            await transaction.execute(statement)

    for statement in ("UPDATE audit_log SET actor = 'you'", "DELETE FROM audit_log"):
        with pytest.raises(ConstraintError, match="takes new entries only"):
            await mischief(statement)
    row = await database.fetch_one("SELECT actor, details FROM audit_log")
    assert row is not None
    assert (row["actor"], row["details"]) == ("root", "{}")
