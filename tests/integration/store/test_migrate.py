"""Migrations of both databases: once, wholly, forwards, and with a word for every odd state."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.store.conftest import FIELD, Open
from tests.support.postgres_server import PostgresServer
from trunkline_server.store import schema
from trunkline_server.store.database import Database, Dialect, StoreUnavailableError
from trunkline_server.store.migrate import plan, upgrade
from trunkline_server.store.schema import SchemaError, check

NAMES = [
    "0001_resources",
    "0002_audit_log",
    "0003_usage_events",
    "0004_budget_counters",
    "0005_sealed_records",
    "0006_usage_service",
    "0007_usage_units",
]
NEWEST = NAMES[-1][:4]
TABLES = {"alembic_version", "audit_log", "budget_counters", "changes", "meta", "resources"} | {
    "sealed_records",
    "usage_events",
}


async def run(database: Database, statements: str) -> None:
    async with database.transaction() as transaction:
        await transaction.script(statements)


async def tables(database: Database) -> set[str]:
    listing = {
        Dialect.POSTGRES: "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'",
        Dialect.SQLITE: "SELECT name FROM sqlite_schema WHERE type = 'table'",
    }
    return {row["name"] for row in await database.fetch(listing[database.dialect])}


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where a later build has one more migration, for a test to write: `9999_later.sql`."""
    home = tmp_path / "migrations"
    for dialect in Dialect:
        (home / dialect).mkdir(parents=True)
        for each in schema.revisions(dialect):
            (home / dialect / each.path.name).write_bytes(each.path.read_bytes())
    monkeypatch.setattr(schema, "_MIGRATIONS", home)
    return home


@asynccontextmanager
async def a_later_build(home: Path, statements: str) -> AsyncGenerator[None]:
    """Inside, the build is a later one, whose last migration is this."""
    for dialect in Dialect:
        (home / dialect / "9999_later.sql").write_text(statements)
    schema.revisions.cache_clear()
    try:
        yield
    finally:
        for dialect in Dialect:
            (home / dialect / "9999_later.sql").unlink()
        schema.revisions.cache_clear()


async def test_an_empty_database_gets_every_table(empty_dsn: str, opened: Open) -> None:
    assert await upgrade(empty_dsn, FIELD) == NAMES
    database = await opened(empty_dsn)
    assert await tables(database) == TABLES
    await check(database)
    assert await upgrade(empty_dsn, FIELD) == []
    await check(database)


def test_both_databases_have_the_same_columns() -> None:
    """What the two folders say is the same but for types: read from the SQL itself."""
    columns = {}
    for dialect in Dialect:
        text = "\n".join(each.path.read_text() for each in schema.revisions(dialect))
        text = re.sub(r"--.*", "", text)
        columns[dialect] = {
            (table, line.split()[0])
            for table, body in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\)", text, re.DOTALL)
            for line in body.splitlines()
            if line.strip()
        }
    assert columns[Dialect.POSTGRES] == columns[Dialect.SQLITE]
    assert ("usage_events", "first_token_us") in columns[Dialect.SQLITE]


async def test_an_old_schema_is_told_to_migrate_and_keeps_its_data(
    empty_dsn: str, opened: Open
) -> None:
    assert await upgrade(empty_dsn, FIELD, to="0002") == NAMES[:2]
    database = await opened(empty_dsn)
    await run(database, "INSERT INTO meta (key, value) VALUES ('mine', 42)")
    with pytest.raises(SchemaError, match=rf"0002.*older than.*{NEWEST}.*run `trunkline migrate`"):
        await check(database)
    assert await upgrade(empty_dsn, FIELD) == NAMES[2:]
    await check(database)
    rows = await database.fetch("SELECT value FROM meta WHERE key = 'mine'")
    assert [row["value"] for row in rows] == [42]


async def test_a_newer_schema_is_refused_and_left_alone(
    dsn: str, opened: Open, later: Path
) -> None:
    database = await opened(dsn)
    async with a_later_build(later, "CREATE TABLE later (number int);"):
        assert await upgrade(dsn, FIELD) == ["9999_later"]
        await check(database)
    for refused in (lambda: check(database), lambda: upgrade(dsn, FIELD)):
        with pytest.raises(SchemaError, match=f"9999, which is newer than this build's {NEWEST}"):
            await refused()
    assert await tables(database) == {*TABLES, "later"}


async def test_a_downgrade_is_refused(dsn: str, opened: Open) -> None:
    with pytest.raises(SchemaError, match=f"{NEWEST}: it is not downgraded to 0002"):
        await upgrade(dsn, FIELD, to="0002")
    await check(await opened(dsn))


async def test_five_at_once_migrate_once(empty_dsn: str, opened: Open) -> None:
    done = await asyncio.gather(*(upgrade(empty_dsn, FIELD) for _ in range(5)))
    assert sorted(done) == [[], [], [], [], NAMES]
    database = await opened(empty_dsn)
    await check(database)
    rows = await database.fetch("SELECT value FROM meta")
    assert [row["value"] for row in rows] == [0]


def test_five_processes_at_once_migrate_once(empty_dsn: str) -> None:
    """As replicas do: nothing shared but the database."""
    program = (
        "import asyncio, sys; from trunkline_server.store.migrate import upgrade; "
        "print(len(asyncio.run(upgrade(sys.argv[1], 'dsn'))))"
    )
    command = [sys.executable, "-c", program, empty_dsn]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(5)]
    counts = [int(each.communicate()[0]) for each in started]
    assert sorted(counts) == [0, 0, 0, 0, len(NAMES)]


async def test_a_migration_that_fails_leaves_nothing_behind(
    dsn: str, opened: Open, later: Path
) -> None:
    database = await opened(dsn)
    broken = "CREATE TABLE half (number int);\n\nINSERT INTO half (none_such) VALUES (1);\n"
    async with a_later_build(later, broken):
        with pytest.raises(SchemaError, match=r"9999_later\.sql.*nothing was changed.*none_such"):
            await upgrade(dsn, FIELD)
    assert await tables(database) == TABLES
    await check(database)


@pytest.mark.parametrize(
    ("mischief", "words"),
    [
        ("DELETE FROM alembic_version", "no schema version: it was copied or migrated in part"),
        ("DROP TABLE alembic_version", "no schema version: it was copied or migrated in part"),
        ("UPDATE alembic_version SET version_num = 'abc123'", "'abc123'.*another program's"),
        ("INSERT INTO alembic_version VALUES ('0002')", "2 schema versions at once"),
    ],
)
async def test_a_state_that_no_build_leaves_is_named(
    database: Database, dsn: str, mischief: str, words: str
) -> None:
    await run(database, mischief)
    for refused in (lambda: check(database), lambda: upgrade(dsn, FIELD)):
        with pytest.raises(SchemaError, match=words):
            await refused()


async def test_a_database_of_another_program_is_migrated_beside_it(
    empty_dsn: str, opened: Open
) -> None:
    await upgrade(empty_dsn, FIELD)
    database = await opened(empty_dsn)
    await run(database, "CREATE TABLE somebody_elses (number int)")
    await check(database)


async def test_an_empty_postgres_is_told_to_migrate(postgres_dsn: str, opened: Open) -> None:
    with pytest.raises(SchemaError, match="has no schema yet: run `trunkline migrate`"):
        await check(await opened(postgres_dsn))


async def test_a_sqlite_file_that_is_not_there_is_not_made_by_looking(
    tmp_path: Path, opened: Open
) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(StoreUnavailableError, match=r"none\.db.*unable to open"):
        await check(await opened(f"sqlite:///{path}"))
    assert not path.exists()
    with pytest.raises(StoreUnavailableError, match="unable to open"):
        await upgrade(f"sqlite:///{tmp_path}/no/such/directory.db", FIELD)


async def test_a_file_that_is_no_database_is_named(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, and have been for a long time\n" * 100)
    for refused in (upgrade(f"sqlite:///{path}", FIELD), check(await opened(f"sqlite:///{path}"))):
        with pytest.raises(StoreUnavailableError, match=r"notes\.txt.*not a database"):
            await refused


async def test_a_read_only_postgres_is_named(
    postgres_server: PostgresServer, postgres_dsn: str, opened: Open
) -> None:
    name = postgres_dsn.rpartition("/")[2]
    await postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(SchemaError, match=r"read-only.*a server that may write"):
        await upgrade(postgres_dsn, FIELD)
    assert await tables(await opened(postgres_dsn)) == set()


@pytest.mark.parametrize("dialect", list(Dialect))
def test_migrations_are_numbered_without_gaps_and_end_as_statements_do(dialect: Dialect) -> None:
    known = schema.revisions(dialect)
    assert [f"{each.number}_{each.name}" for each in known] == NAMES
    assert [each.number for each in known] == [f"{n:04}" for n in range(1, len(known) + 1)]
    # Else the note of the version would be part of the last statement.
    assert all(each.path.read_text().endswith(";\n") for each in known)


def test_the_plan_is_the_files_and_the_notes_of_them() -> None:
    for dialect in Dialect:
        known = schema.revisions(dialect)
        text = plan(dialect, "0002", NEWEST)
        assert all(each.path.read_text() in text for each in known[2:])
        assert known[1].path.read_text() not in text
        assert f"SET version_num='{NEWEST}' WHERE" in text


def test_serving_imports_no_alembic() -> None:
    program = (
        "import sys; import trunkline_server.store.address, trunkline_server.store.schema, "
        "trunkline_server.store.resources, trunkline_server.store.changes; "
        "print([name for name in sys.modules if name.split('.')[0] in ('alembic', 'sqlalchemy')])"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    assert done.stdout.strip() == b"[]"
