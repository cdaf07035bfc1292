"""Limits and budgets of one worker, from its settings: Redis, the governor, what a call asks."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from trunkline_server.app.admission import Doorkeeper
from trunkline_server.app.balances import BudgetBalances
from trunkline_server.app.bookkeeping import Books
from trunkline_server.app.spending import LedgerSums
from trunkline_server.clock import Clock
from trunkline_server.governance.quotas.governor import Governor
from trunkline_server.governance.quotas.outage import OutageModes
from trunkline_server.governance.quotas.rules import Budget, Limit, Measure, Mode, OnOutage, Period
from trunkline_server.settings import ConfigError, Problem, Settings
from trunkline_server.telemetry.metrics import Metrics
from trunkline_server.telemetry.quotas import QuotaLog

REDIS = "state.redis"
_NANOS = 10**9


class Quotas(Doorkeeper):
    """Limits and budgets as the engine sees them, and as they are configured."""

    def __init__(self, governor: Governor, clock: Clock, *, active: bool) -> None:
        super().__init__(governor, clock)
        self.active = active
        # A rpc.admin.ports.Balances.
        self.balances = BudgetBalances(governor)

    def configure(self, settings: Settings) -> None:
        """Puts a new configuration in force."""
        self.governor.configure(limits_of(settings), budgets_of(settings))
        self.active = _has_any(settings)


@asynccontextmanager
async def quotas_kept(
    settings: Settings, clock: Clock, metrics: Metrics, books: Books | None
) -> AsyncGenerator[Quotas]:
    """The governor, while it works. `books` have the sums with which budgets begin.

    Raises ConfigError for an address that is none. A Redis that is away is no hindrance: what
    then holds is configured.
    """
    log = QuotaLog(metrics)
    async with AsyncExitStack() as stack:
        counters = None
        governors: list[Governor] = []

        def changed(available: bool, server: str) -> None:
            log.server_told(available, server)
            for each in governors:
                each.counters_changed(available)

        if settings.state.redis is not None:
            # Its client is 12 MB, which those who count in memory are spared.
            from trunkline_server.store.redis import ChannelPolicy, RedisClient  # noqa: PLC0415
            from trunkline_server.store.redis_counters import RedisCounters  # noqa: PLC0415

            try:
                client = RedisClient(
                    settings.state.redis.reveal(),
                    policy=ChannelPolicy(timeout=settings.state.redis_timeout),
                    on_change=changed,
                )
            except (ValueError, OSError) as error:
                raise ConfigError(REDIS, [Problem(0, REDIS, str(error))]) from None
            stack.push_async_callback(client.close)
            counters = RedisCounters(client)
        governor = Governor(
            limits_of(settings),
            budgets_of(settings),
            clock=clock,
            audience=log,
            counters=counters,
            source=None if books is None else LedgerSums(books.usage),
            modes=OutageModes(
                OnOutage(settings.state.limits_on_outage),
                OnOutage(settings.state.budgets_on_outage),
            ),
        )
        governors.append(governor)
        if counters is not None and not await client.start():
            governor.counters_changed(False)
        await governor.start()
        stack.push_async_callback(governor.close)
        yield Quotas(governor, clock, active=_has_any(settings))


def _has_any(settings: Settings) -> bool:
    return bool(settings.limits or settings.budgets)


def limits_of(settings: Settings) -> list[Limit]:
    """The limits of a configuration."""
    return [
        Limit(
            name=name,
            measure=Measure(limit.measure),
            scope=limit.scope,
            amount=limit.amount,
            per=limit.per,
            burst=limit.burst,
            match=limit.match,
            mode=Mode(limit.mode),
            max_wait=limit.max_wait,
            max_waiting=limit.max_waiting,
        )
        for name, limit in settings.limits.items()
    ]


def budgets_of(settings: Settings) -> list[Budget]:
    """The budgets of a configuration."""
    return [
        Budget(
            name=name,
            scope=budget.scope,
            amount=int(budget.amount * _NANOS),
            period=Period(budget.period),
            window=round(budget.window),
            thresholds=budget.thresholds,
            match=budget.match,
            mode=Mode(budget.mode),
        )
        for name, budget in settings.budgets.items()
    ]
