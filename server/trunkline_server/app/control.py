"""The control plane of one process: its server, and what it is made of."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from trunkline_server.app.access import build_access, build_callers
from trunkline_server.app.addresses import split_address
from trunkline_server.app.assembly import (
    otlp_provider,
    read_tls,
    server_options,
)
from trunkline_server.app.auditing import Audit
from trunkline_server.app.bookkeeping import Books, usage_of
from trunkline_server.app.credentials import Credentials
from trunkline_server.app.quotas import Quotas
from trunkline_server.app.stored import StoredState
from trunkline_server.app.table_view import TableView
from trunkline_server.app.validator import StartValidator
from trunkline_server.app.worker import Worker
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.clock import Clock
from trunkline_server.governance.audit.chain import Act, linking
from trunkline_server.governance.audit.writer import AuditWriter
from trunkline_server.ledger.live import LiveEvents
from trunkline_server.rpc.admin.gate import AccessGate
from trunkline_server.rpc.admin.handlers import Reception
from trunkline_server.rpc.admin.ports import Change
from trunkline_server.rpc.admin.resources import ResourceEngine
from trunkline_server.rpc.admin.server import AdminServer, Sources, services
from trunkline_server.rpc.server import server_credentials
from trunkline_server.settings import Document, Settings, written_documents
from trunkline_server.store.audit import SqlAuditStore
from trunkline_server.store.resources import ResourceNotFoundError
from trunkline_server.telemetry.audit import AuditLog
from trunkline_server.telemetry.control import ControlLog
from trunkline_server.telemetry.metrics import Metrics

# How long calls under way, such as watchers of usage, may still run at the end. Seconds.
_PATIENCE = 1.0
# How long denials that wait for the audit trail are given at the end. Seconds.
_LAST_ENTRIES = 2.0


class FileResources:
    """An rpc.admin.ports.Configured: what the file owns, as the configuration in force has it."""

    def __init__(self, state: StoredState, worker: Worker) -> None:
        self._worker = worker
        self.path = state.path
        self._read_from: Settings | None = None
        self._documents: Mapping[str, Mapping[str, Document]] = {}

    def owns(self, kind: str) -> bool:
        """As Configured.owns."""
        return kind not in self._worker.settings.state.owns

    def documents(self, kind: str) -> Mapping[str, Document]:
        """As Configured.documents."""
        settings = self._worker.settings
        if settings is not self._read_from:
            self._documents = written_documents(settings.text)
            self._read_from = settings
        return self._documents.get(kind, {})


class ChangeTrail:
    """An rpc.admin.ports.Trail: what goes with a change is in the change's transaction."""

    def __init__(self, writer: AuditWriter, store: SqlAuditStore) -> None:
        self._writer = writer
        self._store = store

    def record(self, act: Act) -> None:
        """As Trail.record."""
        self._writer.record(act)

    async def record_within(self, change: Change, act: Act) -> None:
        """As Trail.record_within."""
        await self._store.append_within(change.transaction, linking([act]))


@dataclass(frozen=True, slots=True)
class Controlled:
    """What the control plane controls and shows."""

    state: StoredState
    worker: Worker
    quotas: Quotas
    books: Books | None
    credentials: Credentials
    audit: Audit | None


@asynccontextmanager
async def control_served(
    controlled: Controlled, book: PriceBook, clock: Clock, metrics: Metrics
) -> AsyncGenerator[str]:
    """The control plane, while it is served; gives its address, empty if it is nowhere.

    Raises OSError if it cannot listen.
    """
    state, worker = controlled.state, controlled.worker
    settings = worker.settings
    address = settings.admin_address
    if not address:
        yield ""
        return
    log = ControlLog(metrics)
    audit = SqlAuditStore(state.database)
    async with AsyncExitStack() as stack:
        kept = controlled.audit
        if kept is not None:
            writer = kept.writer
        else:
            writer = await stack.enter_async_context(
                _written(AuditWriter(audit, clock, AuditLog(metrics)))
            )
        gate = AccessGate(
            worker.admin_identity(settings), build_access(settings), clock, build_callers(settings)
        )

        def changed(settings: Settings) -> None:
            gate.identity = worker.admin_identity(settings)
            gate.access = build_access(settings)
            gate.callers = build_callers(settings)

        worker.on_reload(changed)
        sources = Sources(
            engine=ResourceEngine(
                state.resources,
                ResourceNotFoundError,
                FileResources(state, worker),
                StartValidator(state, book, clock),
            ),
            table=TableView(
                f"{socket.gethostname()}/{os.getpid()}",
                lambda: worker.engine.table,
                lambda: worker.settings,
                clock,
            ),
            balances=controlled.quotas.balances,
            usage=usage_of(state.database),
            live=LiveEvents() if controlled.books is None else controlled.books.ledger.live,
            audit=audit,
            checkpoints=None if kept is None else kept.checkpoints,
            credentials=controlled.credentials.service,
            access=lambda: gate.access,
        )
        reception = Reception(
            gate=gate,
            trail=ChangeTrail(writer, audit),
            watch=log,
            clock=clock,
            # Ids of calls, which grant nothing.
            rng=random.Random(),  # noqa: S311
            max_request_bytes=settings.server.max_request_bytes,
        )
        tls = settings.server.tls
        server = AdminServer(
            services(sources),
            reception,
            server_options(settings.server, shared=False),
            credentials=None if tls is None else server_credentials(partial(read_tls, tls)),
            tracing=_tracing(settings, stack),
        )
        host, _ = split_address(address)
        port = await server.start(address)
        stack.push_async_callback(server.stop, _PATIENCE)
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def _written(writer: AuditWriter) -> AsyncGenerator[AuditWriter]:
    """Writes what the writer takes, and in the end what it still has, for a while."""
    running = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        writer.stop()
        await asyncio.wait([running], timeout=_LAST_ENTRIES)
        running.cancel()
        await asyncio.wait([running])
        writer.close()


def _tracing(settings: Settings, stack: AsyncExitStack) -> TracerProvider:
    """Where spans of admin calls go."""
    provider = otlp_provider(settings.telemetry)
    if provider is None:
        return NoOpTracerProvider()
    # Sending the last spans waits for the collector.
    stack.push_async_callback(asyncio.to_thread, provider.shutdown)
    return provider
