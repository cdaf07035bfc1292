"""Both databases, empty or migrated, for tests that hold for both."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from trunkline_server.clock import SystemClock
from trunkline_server.store.address import open_database
from trunkline_server.store.database import Database, Limits
from trunkline_server.store.migrate import upgrade
from trunkline_server.store.resources import ResourceStore

FIELD = "state.database"

# Opens the database of a DSN, with these limits.
Open = Callable[..., Awaitable[Database]]


@pytest.fixture(params=["postgres", "sqlite"])
def empty_dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The DSN of a database without a schema; on SQLite, of a file that is not there."""
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
async def opened() -> AsyncGenerator[Open]:
    """Opens databases, each as another process would, and closes them after the test."""
    async with AsyncExitStack() as closing:

        async def open_one(dsn: str, limits: Limits | None = None) -> Database:
            database = await open_database(dsn, FIELD, limits)
            closing.push_async_callback(database.close)
            return database

        yield open_one


@pytest.fixture
async def database(dsn: str, opened: Open) -> Database:
    """A database with this build's schema."""
    return await opened(dsn)


@pytest.fixture
def store(database: Database) -> ResourceStore:
    """Resources in it."""
    return ResourceStore(database, SystemClock())
