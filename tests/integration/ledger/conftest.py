"""The ledger's table in both databases."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from trunkline_server.store.address import open_database
from trunkline_server.store.database import Database, Dialect
from trunkline_server.store.migrate import upgrade
from trunkline_server.store.usage_postgres import PostgresUsage
from trunkline_server.store.usage_sql import UsageTable
from trunkline_server.store.usage_sqlite import SqliteUsage

FIELD = "state.database"
TABLES: dict[Dialect, type[UsageTable]] = {
    Dialect.POSTGRES: PostgresUsage,
    Dialect.SQLITE: SqliteUsage,
}


@pytest.fixture(params=list(TABLES))
def dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The DSN of an empty database."""
    if request.param is Dialect.SQLITE:
        return f"sqlite:///{tmp_path / 'state.db'}"
    dsn: str = request.getfixturevalue("postgres_dsn")
    return dsn


@pytest.fixture
async def database(dsn: str) -> AsyncGenerator[Database]:
    """A database with this build's schema."""
    await upgrade(dsn, FIELD)
    database = await open_database(dsn, FIELD)
    yield database
    await database.close()


@pytest.fixture
def table(database: Database) -> UsageTable:
    """Its usage events."""
    return TABLES[database.dialect](database)
