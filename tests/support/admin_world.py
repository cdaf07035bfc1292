"""A control plane over stores in memory, with everything that tests look at."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from opentelemetry.trace import TracerProvider

from tests.support.admin_server import Client, Heard, SetClock, access, serving
from tests.support.admin_stores import (
    AwayUsage,
    FileCheckpoints,
    MemoryAudit,
    MemoryBalances,
    MemoryCredentials,
    MemoryFiles,
    MemoryResources,
    MemoryTable,
    MemoryTrail,
    MissingError,
)
from tests.support.admin_validator import SettingsValidator
from trunkline_server.governance.audit.chain import Act
from trunkline_server.ledger.live import LiveEvents, Wanted, Watcher
from trunkline_server.rpc.admin.resources import ResourceEngine
from trunkline_server.rpc.admin.server import Sources


class ObservedEvents(LiveEvents):
    """Live events that tell when somebody watches, and when nobody does any more."""

    def __init__(self) -> None:
        super().__init__()
        self.came = asyncio.Event()
        self.went = asyncio.Event()

    @contextmanager
    def watch(self, wanted: Wanted, size: int = 1000) -> Generator[Watcher]:
        try:
            with super().watch(wanted, size) as watcher:
                self.came.set()
                yield watcher
        finally:
            self.went.set()


@dataclass
class World:
    """What the control plane is made of, and a client that calls it as root."""

    checkpoints: FileCheckpoints
    files: MemoryFiles = field(default_factory=MemoryFiles)
    resources: MemoryResources = field(default_factory=MemoryResources)
    trail: MemoryTrail = field(default_factory=MemoryTrail)
    table: MemoryTable = field(default_factory=MemoryTable)
    balances: MemoryBalances = field(default_factory=MemoryBalances)
    credentials: MemoryCredentials = field(default_factory=MemoryCredentials)
    audit: MemoryAudit = field(default_factory=MemoryAudit)
    live: ObservedEvents = field(default_factory=ObservedEvents)
    heard: Heard = field(default_factory=Heard)
    clock: SetClock = field(default_factory=SetClock)

    @property
    def acts(self) -> list[Act]:
        """All that is in the audit trail."""
        return [*self.trail.acts, *self.resources.acts]

    def sources(self) -> Sources:
        """What the services are made of."""
        engine = ResourceEngine(self.resources, MissingError, self.files, SettingsValidator())
        return Sources(
            engine=engine,
            table=self.table,
            balances=self.balances,
            usage=AwayUsage(),
            live=self.live,
            audit=self.audit,
            checkpoints=self.checkpoints,
            credentials=self.credentials,
            access=access,
        )

    @asynccontextmanager
    async def serving(self, tracing: TracerProvider | None = None) -> AsyncGenerator[Client]:
        """Serves it."""
        running = serving(self.sources(), self.trail, self.heard, self.clock, tracing=tracing)
        async with running as client:
            yield client


def new_world(directory: Path) -> World:
    """A world with nothing in it."""
    return World(FileCheckpoints(directory / "checkpoints.jsonl"))
