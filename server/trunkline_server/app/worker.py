"""One serving process: the engine and everything around it."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog

from trunkline_server.app.access import build_access, build_callers
from trunkline_server.app.affinity import PromptAffinity, affinity_of
from trunkline_server.app.assembly import (
    build_observer,
    build_probes,
    build_table,
    read_tls,
    server_options,
)
from trunkline_server.app.auditing import Audit
from trunkline_server.app.bookkeeping import Books
from trunkline_server.app.caching import Caching, wanted
from trunkline_server.app.credentials import Credentials
from trunkline_server.app.identity import Identities
from trunkline_server.app.openai_listener import OpenAIListener
from trunkline_server.app.openai_models import OpenAIModels
from trunkline_server.app.privacy import PrivacyOffice
from trunkline_server.app.quotas import Quotas, budgets_of, limits_of
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.clock import Clock
from trunkline_server.engine.attempt import Services
from trunkline_server.engine.budget import RetryBudget
from trunkline_server.engine.engine import Engine
from trunkline_server.engine.probe import Prober
from trunkline_server.engine.table import Table
from trunkline_server.governance.identity.identity import Identity
from trunkline_server.routing.health import HealthTable
from trunkline_server.rpc.inference import InferenceServicer
from trunkline_server.rpc.schemas import SchemaServicer
from trunkline_server.rpc.server import RpcServer
from trunkline_server.settings import ConfigError, Problem, Settings
from trunkline_server.telemetry.door import DoorLog
from trunkline_server.telemetry.issuers import IssuerLog
from trunkline_server.telemetry.keys import KeyUse
from trunkline_server.telemetry.metrics import Metrics
from trunkline_server.upstream.clients import make_client

_SECONDS_PER_DAY = 86_400.0

# How long a process that has drained waits for what its calls left to be done. Seconds.
_ERRANDS_TIMEOUT = 3.0

# How old the metrics may be that a supervisor reads from its workers' files. Seconds.
_METRICS_AGE = 1.0


class Worker:
    """Serves gRPC by one configuration at a time. To be made inside a running event loop."""

    def __init__(
        self,
        settings: Settings,
        book: PriceBook,
        metrics: Metrics,
        clock: Clock,
        *,
        books: Books | None = None,
        quotas: Quotas | None = None,
        credentials: Credentials | None = None,
        caching: Caching | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._settings = settings
        self._book = book
        self._clock = clock
        self._metrics = metrics
        self._quotas = quotas
        self._credentials = credentials
        self._caching = caching
        self._audit = audit
        self._log = structlog.get_logger()
        self._draining = False
        self._reloaded: list[Callable[[Settings], None]] = []
        self._price_timer: asyncio.TimerHandle | None = None
        self._metrics_timer: asyncio.TimerHandle | None = None
        self._http = make_client(
            proxies=False,
            max_connections_per_origin=settings.server.max_upstream_connections,
        )
        observer, self._close_observer = build_observer(
            settings.telemetry,
            self._metrics,
            self._clock,
            [] if books is None else [books.recorder],
        )
        budget = settings.routing.retry_budget
        services = Services(
            http=self._http,
            clock=self._clock,
            observer=observer,
            budget=RetryBudget(budget.ratio, budget.min_per_second),
            # Choices among equals and jitter; nothing that must not be guessed.
            rng=random.Random(),  # noqa: S311
            books=books,
            admission=quotas,
            cache=caching,
        )
        self._services = services
        self._probing: asyncio.Task[None] | None = None
        self.engine = Engine(services, self._build(settings, None))
        if credentials is not None:
            credentials.on_change = self._rebuild
        self._identities = Identities(self._http, self._clock, IssuerLog(self._metrics))
        KeyUse(metrics, self._identities.last_used.take)
        self._recorder = None if books is None else books.recorder
        self._privacy = PrivacyOffice(self._http, self._clock, metrics)
        self._protect(settings)
        self._affinity: PromptAffinity | None = None
        self._remember_prompts(settings)
        door = DoorLog(self._metrics)
        self._servicer = InferenceServicer(
            self.engine,
            self._clock,
            random.Random(),  # noqa: S311 - ids of calls and traces, which grant nothing
            door,
            identity=self._identities.build(settings),
            access=build_access(settings),
            callers=build_callers(settings),
            audit=None if audit is None else audit.decisions,
            max_request_bytes=settings.server.max_request_bytes,
            max_concurrent_calls=settings.server.max_concurrent_calls,
            default_deadline=settings.server.default_deadline,
        )
        tls = settings.server.tls
        self._server = RpcServer(
            self._servicer,
            server_options(settings.server),
            None if tls is None else partial(read_tls, tls),
            schemas=SchemaServicer(self._servicer, self.engine, door),
        )
        models = OpenAIModels(self.engine, self._servicer)
        self._openai = OpenAIListener(settings, self._servicer, models, door, clock)
        # Where the OpenAI-compatible face listens; 0 while it does not.
        self.openai_port = 0

    async def start(self) -> int:
        """Listens and serves; returns gRPC's port. Raises OSError if it cannot listen."""
        port = await self._server.start(self._settings.server.listen)
        self.openai_port = await self._openai.start()
        self._identities.adopt(self._settings)
        self._metrics.config_revision.set(self._settings.revision)
        if self._audit is not None:
            self._audit.taken_over(None, self._settings, self.engine.table.snapshot.version)
        self._await_next_prices()
        self._publish_metrics()
        self._probe()
        self._log.info(
            "serving",
            listen=self._settings.server.listen,
            port=port,
            snapshot=self.engine.table.snapshot.version,
            deployments=len(self.engine.table.snapshot.deployments),
            keys_required=self._servicer.identity.required,
        )
        return port

    def reload(self, settings: Settings) -> None:
        """Takes over a new configuration, for calls that come from now on.

        Nothing changes when it cannot be compiled: ConfigError is raised first.
        """
        try:
            # What is put in force by itself, below, is tried here.
            limits_of(settings)
            budgets_of(settings)
            self._identities.build_admin(settings)
            identity, access = self._identities.build(settings), build_access(settings)
            table = self._build(settings, self.engine.table.health)
        except ValueError as error:
            raise ConfigError("the configuration", [Problem(0, "", str(error))]) from error
        before, self._settings = self._settings, settings
        self.engine.table = table
        self._protect(settings)
        self._remember_prompts(settings)
        if self._quotas is not None:
            self._quotas.configure(settings)
        if self._caching is not None:
            self._caching.configure(settings)
        self._await_next_prices()
        self._probe()
        self._servicer.identity = identity
        self._servicer.access = access
        self._servicer.callers = build_callers(settings)
        self._identities.adopt(settings)
        self._openai.reload(settings)
        self._servicer.limit_requests(settings.server.max_request_bytes)
        self._servicer.max_concurrent_calls = settings.server.max_concurrent_calls
        self._servicer.default_deadline = settings.server.default_deadline
        for tell in self._reloaded:
            tell(settings)
        if self._audit is not None:
            self._audit.taken_over(before, settings, table.snapshot.version)
        self._metrics.reloads.labels("ok").inc()
        self._metrics.config_revision.set(settings.revision)
        self._log.info(
            "configuration reloaded", snapshot=table.snapshot.version, revision=settings.revision
        )
        if _fixed(before) != _fixed(settings):
            self._log.warning("some changes need a restart; see the README for which")

    @property
    def settings(self) -> Settings:
        """The configuration in force."""
        return self._settings

    def admin_identity(self, settings: Settings) -> Identity:
        """What tells those who come to the control plane apart. Raises ValueError."""
        return self._identities.build_admin(settings)

    def on_reload(self, tell: Callable[[Settings], None]) -> None:
        """Has `tell` called with each configuration that is taken over from now on."""
        self._reloaded.append(tell)

    def nothing_to_reload(self) -> None:
        """Notes that there is no file to read again."""
        self._log.warning("nothing to reload: the router was started without --config")

    def stopped_following(self, following: asyncio.Task[None]) -> None:
        """Notes that changes of the store are followed no more, unless that was asked for."""
        if not following.cancelled() and (error := following.exception()) is not None:
            self._metrics.defects.labels("follow_store").inc()
            self._log.error("changes of the store are followed no more", exc_info=error)

    def refused_reload(self, problems: str) -> None:
        """Notes that a new configuration was wrong and that the old one stays."""
        if self._audit is not None:
            self._audit.refused(self._settings, problems)
        self._metrics.reloads.labels("refused").inc()
        self._log.error(
            "configuration refused; the one in force stays",
            problems=problems,
            snapshot=self.engine.table.snapshot.version,
        )

    def _protect(self, settings: Settings) -> None:
        """Has calls treated, and the ledger redacted, as a configuration wants it."""
        self.engine.privacy = self._privacy.in_force(settings)
        if self._recorder is not None:
            wanted = settings.privacy is not None
            self._recorder.redact_with(self._privacy.redactor() if wanted else None)

    def _remember_prompts(self, settings: Settings) -> None:
        """Puts the prefix affinity of a configuration in force."""
        wanted = settings.routing.prefix_affinity
        self._affinity = affinity_of(wanted, self._clock, self._affinity)
        self.engine.affinity = self._affinity

    def _probe(self) -> None:
        """Starts the active health checks of the configuration in force."""
        if self._probing is not None:
            self._probing.cancel()
        probes = build_probes(self._settings)
        prober = Prober(self._services, lambda: self.engine.table, probes)
        self._probing = asyncio.create_task(prober.run()) if probes else None

    def _await_next_prices(self) -> None:
        """Has the table rebuilt when a price of it changes, and looks again at least daily."""
        if self._price_timer is not None:
            self._price_timer.cancel()
        due = self.engine.table.snapshot.next_price_change()
        if due is not None:
            wait = min(max(due - self._clock.wall(), 0.0) + 1.0, _SECONDS_PER_DAY)
            self._price_timer = asyncio.get_running_loop().call_later(wait, self._rebuild)

    def _publish_metrics(self) -> None:
        """Brings the metrics' values up to date, and does so again and again."""
        loop = asyncio.get_running_loop()
        self._metrics_timer = loop.call_later(_METRICS_AGE, self._publish_metrics)
        self._metrics.batches.flush()
        left = self.engine.table.health.quotas_left(self._clock.monotonic())
        for deployment, kind, amount in left:
            self._metrics.provider_quota.labels(deployment, kind).set(amount)

    def _build(self, settings: Settings, health: HealthTable | None) -> Table:
        return build_table(settings, self._book, self._clock.wall(), health, self._credentials)

    def _rebuild(self) -> None:
        health = self.engine.table.health
        self.engine.table = self._build(self._settings, health)
        self._await_next_prices()

    def unready(self) -> str | None:
        """Why no calls are wanted now, or None."""
        return "draining" if self._draining else None

    async def drain(self, notice: float | None = None) -> None:
        """Ends without failing a call, as far as the drain timeout allows; `notice` None is the
        configured one."""
        if notice is None:
            notice = self._settings.server.drain_notice
        self._draining = True
        if self._price_timer is not None:
            self._price_timer.cancel()
        if self._probing is not None:
            self._probing.cancel()
        self._log.info("draining", calls_in_flight=self._servicer.in_flight)
        await asyncio.gather(
            self._server.drain(notice, self._settings.server.drain_timeout),
            self._openai.stop(notice),
        )
        await self._finish_errands()
        await self._identities.close()
        await self._http.close()
        self._privacy.close()
        # Sending the last spans waits for the collector.
        await asyncio.to_thread(self._close_observer)
        if self._metrics_timer is not None:
            self._metrics_timer.cancel()
        self._metrics.batches.flush()
        self._log.info("stopped")

    async def _finish_errands(self) -> None:
        """Waits for what calls left to be done, such as work to be called off at a vendor; those
        that the drain has cut off leave theirs only when they have ended."""
        clock = self._clock
        until = clock.monotonic() + _ERRANDS_TIMEOUT
        while self._servicer.in_flight and clock.monotonic() < until:  # noqa: ASYNC110 - once
            await asyncio.sleep(0.01)
        await self._services.errands.settled(until - clock.monotonic())


def _fixed(settings: Settings) -> tuple[object, ...]:
    """What a running process cannot change."""
    return (
        replace(settings.server, max_concurrent_calls=0, default_deadline=0.0, drain_timeout=0.0),
        settings.telemetry,
        settings.routing.retry_budget,
        settings.state,
        settings.ledger,
        settings.secrets,
        wanted(settings),
        replace(
            settings.cache, use="off", ttl=0, max_ttl=0, max_temperature=0, models={}, routes={}
        ),
        settings.audit,
    )
