"""The control plane over both databases, as two replicas would serve it."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.admin_server import Client, Heard, SetClock, access, serving
from tests.support.admin_stores import (
    FileCheckpoints,
    MemoryBalances,
    MemoryCredentials,
    MemoryFiles,
    MemoryTable,
)
from tests.support.admin_validator import SettingsValidator
from trunkline_server.clock import SystemClock
from trunkline_server.governance.audit.chain import Act, linking
from trunkline_server.ledger.live import LiveEvents
from trunkline_server.rpc.admin.ports import Change
from trunkline_server.rpc.admin.resources import ResourceEngine
from trunkline_server.rpc.admin.server import Sources
from trunkline_server.store.address import open_database
from trunkline_server.store.audit import SqlAuditStore
from trunkline_server.store.database import Database, Dialect, Limits
from trunkline_server.store.migrate import upgrade
from trunkline_server.store.resources import ResourceNotFoundError, ResourceStore
from trunkline_server.store.usage_postgres import PostgresUsage
from trunkline_server.store.usage_sql import UsageTable
from trunkline_server.store.usage_sqlite import SqliteUsage

FIELD = "state.database"
# Writers wait for each other, on a machine that may be busy.
PATIENT = Limits(acquire=30.0, statement=30.0)


class SqlTrail:
    """The audit trail: what goes with a change is in the change's transaction. What does not,
    such as a denial, is kept in `others`."""

    def __init__(self, store: SqlAuditStore) -> None:
        self._store = store
        self.others: list[Act] = []

    def record(self, act: Act) -> None:
        self.others.append(act)

    async def record_within(self, change: Change, act: Act) -> None:
        await self._store.append_within(change.transaction, linking([act]))


@dataclass
class Replica:
    """One replica's control plane."""

    client: Client
    resources: ResourceStore
    audit: SqlAuditStore
    usage: UsageTable
    trail: SqlTrail
    heard: Heard


@asynccontextmanager
async def replica_on(database: Database, directory: Path) -> AsyncGenerator[Replica]:
    """A replica that serves."""
    resources = ResourceStore(database, SystemClock())
    audit = SqlAuditStore(database)
    table = PostgresUsage if database.dialect is Dialect.POSTGRES else SqliteUsage
    usage: UsageTable = table(database)
    sources = Sources(
        engine=ResourceEngine(resources, ResourceNotFoundError, MemoryFiles(), SettingsValidator()),
        table=MemoryTable(),
        balances=MemoryBalances(),
        usage=usage,
        live=LiveEvents(),
        audit=audit,
        checkpoints=FileCheckpoints(directory / "checkpoints.jsonl"),
        credentials=MemoryCredentials(),
        access=access,
    )
    trail, heard = SqlTrail(audit), Heard()
    async with serving(sources, trail, heard, SetClock()) as client:
        yield Replica(client, resources, audit, usage, trail, heard)


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
async def replicas(dsn: str, tmp_path: Path) -> AsyncGenerator[tuple[Replica, Replica]]:
    """Two replicas on one database."""
    async with AsyncExitStack() as closing:

        async def start() -> Replica:
            database = await open_database(dsn, FIELD, PATIENT)
            closing.push_async_callback(database.close)
            return await closing.enter_async_context(replica_on(database, tmp_path))

        yield await start(), await start()


@pytest.fixture
def replica(replicas: tuple[Replica, Replica]) -> Replica:
    """One of them."""
    return replicas[0]


@pytest.fixture
def root(replica: Replica) -> Client:
    """Calls it with every permission."""
    return replica.client
