"""SQLite's own troubles: the file missing, locked, read-only, damaged."""

import asyncio
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.store.conftest import Open
from tests.support.process import PLAIN_USER
from trunkline_server.store.database import Limits, StoreReadOnlyError, StoreUnavailableError
from trunkline_server.store.migrate import upgrade

LIMITS = Limits(acquire=0.3, statement=0.8, connections=2)
COUNT_UP = "UPDATE meta SET value = value + 1 WHERE key = 'revision'"


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A migrated database's file."""
    path = tmp_path / "state.db"
    await upgrade(f"sqlite:///{path}", "dsn")
    return path


async def test_queries_outside_of_a_transaction_do_not_write(path: Path, opened: Open) -> None:
    database = await opened(f"sqlite:///{path}", LIMITS)
    with pytest.raises(StoreReadOnlyError):
        await database.fetch("INSERT INTO meta (key, value) VALUES ('a', 1) RETURNING key")


async def test_a_file_that_comes_late_is_opened_then(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "state.db"
    database = await opened(f"sqlite:///{path}", LIMITS)
    with pytest.raises(StoreUnavailableError, match=rf"{path}.*unable to open"):
        await database.fetch("SELECT 1")
    await upgrade(f"sqlite:///{path}", "dsn")
    rows = await database.fetch("SELECT value FROM meta")
    assert [row["value"] for row in rows] == [0]


async def test_another_process_that_writes_keeps_us_no_longer_than_the_limit(
    path: Path, opened: Open
) -> None:
    database = await opened(f"sqlite:///{path}", LIMITS)

    async def count_up() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(COUNT_UP)

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute(COUNT_UP)
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match=rf"{path}.*locked"):
            await count_up()
        assert 0.3 <= time.monotonic() - began < 3
        # Who reads does not wait.
        assert [row["value"] for row in await database.fetch("SELECT value FROM meta")] == [0]
        waiting = asyncio.create_task(count_up())
        await asyncio.wait([waiting], timeout=0.1)
        other.execute("COMMIT")
        await waiting
    assert [row["value"] for row in await database.fetch("SELECT value FROM meta")] == [2]


@pytest.fixture
def damaged(path: Path) -> Path:
    """The file with rubbish past its first page, which holds the schema's root."""
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    return path


async def test_a_damaged_file_is_named(damaged: Path, opened: Open) -> None:
    path = damaged
    database = await opened(f"sqlite:///{path}", LIMITS)
    with pytest.raises(StoreUnavailableError, match=rf"{path}.*malformed"):
        await database.fetch("SELECT value FROM meta")


async def test_what_is_committed_is_in_one_file_after_the_close(path: Path, opened: Open) -> None:
    database = await opened(f"sqlite:///{path}")
    async with database.transaction() as transaction:
        await transaction.execute(COUNT_UP)
    await database.close()
    assert sorted(each.name for each in path.parent.iterdir()) == ["state.db"]
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT value FROM meta").fetchall() == [(1,)]
        assert other.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


async def test_a_read_only_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await upgrade(f"sqlite:///{path}", "dsn", to="0002")
    program = """
import asyncio, sys
from trunkline_server.store.address import open_database
from trunkline_server.store.database import StoreReadOnlyError
from trunkline_server.store.migrate import upgrade
from trunkline_server.store.schema import SchemaError

async def main(dsn):
    try:
        await upgrade(dsn, "dsn")
    except SchemaError as error:
        print(error)
    database = await open_database(dsn, "dsn")
    try:
        async with database.transaction() as transaction:
            await transaction.execute("UPDATE meta SET value = 1")
    except StoreReadOnlyError as error:
        print(error)
    await database.close()

asyncio.run(main(sys.argv[1]))
"""
    path.chmod(0o444)
    command = [*PLAIN_USER, sys.executable, "-c", program, f"sqlite:///{path}"]
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await child.communicate()
    assert errors == b""
    migrating, writing = output.decode().splitlines()
    assert migrating.startswith(f"SQLite at {path} is read-only: ")
    assert migrating.endswith("a server that may write")
    assert writing.startswith(f"SQLite at {path} is read-only: ")
