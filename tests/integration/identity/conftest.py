"""The audit trail in both databases."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from trunkline_server.store.address import open_database
from trunkline_server.store.audit import SqlAuditStore
from trunkline_server.store.database import Database, Limits
from trunkline_server.store.migrate import upgrade

FIELD = "state.database"
# Writers wait for each other, on a machine that may be busy.
PATIENT = Limits(acquire=30.0, statement=30.0)


@pytest.fixture(params=["postgres", "sqlite"])
def empty_dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The DSN of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    dsn: str = request.getfixturevalue("postgres_dsn")
    return dsn


@pytest.fixture
async def dsn(empty_dsn: str) -> str:
    """The DSN of a database with this build's schema."""
    await upgrade(empty_dsn, FIELD)
    return empty_dsn


@pytest.fixture
async def database(dsn: str) -> AsyncGenerator[Database]:
    """A database, as a replica opens it."""
    database = await open_database(dsn, FIELD, PATIENT)
    yield database
    await database.close()


@pytest.fixture
async def other(dsn: str) -> AsyncGenerator[Database]:
    """The same, as another replica opens it."""
    database = await open_database(dsn, FIELD, PATIENT)
    yield database
    await database.close()


@pytest.fixture
def trail(database: Database) -> SqlAuditStore:
    """Its audit trail."""
    return SqlAuditStore(database)
