"""A new SQLite file is what the migrations would have made of it."""

import sqlite3
from pathlib import Path

import pytest
from tools.fresh_schema import fresh_schema

from trunkline_server.store.fresh import SCRIPT, create
from trunkline_server.store.migrate import upgrade
from trunkline_server.store.schema import SchemaError

FIELD = "state.database"


def content(path: Path) -> list[str]:
    """Everything in a file, as SQL."""
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_the_script_is_what_make_generate_writes() -> None:
    assert SCRIPT.read_text(encoding="utf-8") == fresh_schema()


async def test_it_makes_what_the_migrations_make(tmp_path: Path) -> None:
    assert await create(f"sqlite:///{tmp_path}/made.db", FIELD)
    await upgrade(f"sqlite:///{tmp_path}/migrated.db", FIELD)
    assert content(tmp_path / "made.db") == content(tmp_path / "migrated.db")
    assert await upgrade(f"sqlite:///{tmp_path}/made.db", FIELD) == []


async def test_a_file_with_tables_is_left_alone(tmp_path: Path) -> None:
    dsn = f"sqlite:///{tmp_path}/old.db"
    await upgrade(dsn, FIELD, to="0001")
    before = content(tmp_path / "old.db")
    assert not await create(dsn, FIELD)
    assert content(tmp_path / "old.db") == before


async def test_a_file_with_tables_and_no_version_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "odd.db")
    connection.execute("CREATE TABLE usage_events (id)")
    connection.close()
    with pytest.raises(SchemaError, match="no schema version"):
        await create(f"sqlite:///{tmp_path}/odd.db", FIELD)


async def test_postgres_is_an_operators_to_migrate() -> None:
    assert not await create("postgresql://user@127.0.0.1:1/db", FIELD)
