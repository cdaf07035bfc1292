"""One serving process, whole: its stores, its worker, and the control plane where it has one."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from trunkline_server.app.auditing import audit_kept
from trunkline_server.app.bookkeeping import books_kept
from trunkline_server.app.caching import caching_kept
from trunkline_server.app.control import Controlled, control_served
from trunkline_server.app.crediting import credentials_kept
from trunkline_server.app.lifeline import on_hangup
from trunkline_server.app.quotas import quotas_kept
from trunkline_server.app.sources import Overrides, Source, overridden
from trunkline_server.app.stored import StoredState, state_kept
from trunkline_server.app.worker import Worker
from trunkline_server.catalogue.known import known
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.clock import SystemClock
from trunkline_server.settings import ConfigError, Settings
from trunkline_server.settings.watch import ConfigWatcher
from trunkline_server.telemetry.control import StoreLog
from trunkline_server.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Member:
    """A process that is ready to serve. `control` is where its control plane is served, or
    empty."""

    worker: Worker
    state: StoredState | None
    control: str

    @asynccontextmanager
    async def serving(self, overrides: Overrides) -> AsyncGenerator[int]:
        """Serves, taking over what changes, and drains in the end; gives the port."""
        async with _watched(overrides, self.worker, self.state), _followed(self.state, self.worker):
            yield await self.worker.start()
        await self.worker.drain()


@asynccontextmanager
async def membership(
    source: Source, overrides: Overrides, metrics: Metrics, log: StoreLog
) -> AsyncGenerator[Member]:
    """A process with everything but its listening port. Raises ConfigError and OSError."""
    clock, book = SystemClock(), PriceBook()
    async with AsyncExitStack() as stack:
        state = await stack.enter_async_context(state_kept(source, overrides, clock, log))
        settings = source.settings if state is None else state.settings
        books = await stack.enter_async_context(books_kept(settings, clock, metrics))
        quotas = await stack.enter_async_context(quotas_kept(settings, clock, metrics, books))
        audit = await stack.enter_async_context(audit_kept(settings, clock, metrics))
        credentials = await stack.enter_async_context(
            credentials_kept(settings, clock, metrics, None if audit is None else audit.secret)
        )
        caching = await stack.enter_async_context(caching_kept(settings, clock, metrics))
        worker = Worker(
            settings,
            book,
            metrics,
            clock,
            books=books,
            quotas=quotas,
            credentials=credentials,
            caching=caching,
            audit=audit,
        )
        control = ""
        if state is not None:
            controlled = Controlled(state, worker, quotas, books, credentials, audit)
            control = await stack.enter_async_context(
                control_served(controlled, book, clock, metrics)
            )
        yield Member(worker, state, control)


@asynccontextmanager
async def _followed(state: StoredState | None, worker: Worker) -> AsyncGenerator[None]:
    """Has the worker take over what changes in the store."""
    if state is None:
        yield
        return
    following = asyncio.create_task(state.follow(worker))
    following.add_done_callback(worker.stopped_following)
    try:
        yield
    finally:
        following.cancel()
        await asyncio.wait([following])


@asynccontextmanager
async def _watched(
    overrides: Overrides, worker: Worker, state: StoredState | None
) -> AsyncGenerator[None]:
    """Reloads the worker when the configuration file changes, and on SIGHUP."""
    if overrides.config is None:
        on_hangup(worker.nothing_to_reload)
        yield
        return

    def changed(settings: Settings) -> None:
        try:
            # What the store adds has seen the command line's word already.
            worker.reload(overridden(settings, overrides) if state is None else settings)
        except ConfigError as error:
            refused(error)

    def refused(error: ConfigError) -> None:
        worker.refused_reload(str(error))

    read = None if state is None else state.read
    watcher = ConfigWatcher(overrides.config, changed, refused, known=known(), read=read)
    on_hangup(watcher.reload)
    watching = asyncio.create_task(watcher.run())
    try:
        yield
    finally:
        watching.cancel()
