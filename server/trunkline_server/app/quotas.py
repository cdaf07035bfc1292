"""Limits and budgets of one worker, from its settings: Redis, the governor, what a call asks."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from trunkline import v1
from trunkline_server.app.balances import BudgetBalances
from trunkline_server.app.bookkeeping import Books
from trunkline_server.clock import Clock
from trunkline_server.engine.call import Call
from trunkline_server.governance.governor import Governor, Grant
from trunkline_server.governance.outage import OutageModes
from trunkline_server.governance.principal import Principal
from trunkline_server.governance.rules import (
    Budget,
    Demand,
    Limit,
    Measure,
    Mode,
    OnOutage,
    Period,
)
from trunkline_server.ledger.queries import Dimension
from trunkline_server.routing.plan import Plan
from trunkline_server.settings import ConfigError, Problem, Settings
from trunkline_server.store.usage_sql import UsageTable
from trunkline_server.telemetry.metrics import Metrics
from trunkline_server.telemetry.quotas import QuotaLog

REDIS = "state.redis"
_NANOS = 10**9

# What an answer may come to where neither the request nor the model's data bounds it. Tokens.
_UNBOUNDED_OUTPUT = 32_768
# The most tokens that a character of text can be: one for each of its bytes.
_MOST_BYTES = 4
# The most that vendors count for a picture, a minute of sound or a short file.
_MEDIA_TOKENS = 3_000

_SPENDERS = {
    "key": Dimension.KEY,
    "project": Dimension.PROJECT,
    "tenant": Dimension.TENANT,
}


class Quotas:
    """Limits and budgets as the engine sees them; an engine.ports.Admission."""

    def __init__(self, governor: Governor, *, active: bool) -> None:
        self._governor = governor
        self.active = active
        # A rpc.admin.ports.Balances.
        self.balances = BudgetBalances(governor)

    async def admit(self, call: Call, plan: Plan) -> Grant:
        """As engine.ports.Admission."""
        demand = _demand(call, plan)
        outcome = self._governor.admit(demand)
        return outcome if isinstance(outcome, Grant) else await outcome

    def configure(self, settings: Settings) -> None:
        """Puts a new configuration in force."""
        self._governor.configure(limits_of(settings), budgets_of(settings))
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

        def changed(available: bool, _server: str) -> None:
            for each in governors:
                each.counters_changed(available)

        if settings.state.redis is not None:
            # Its client is 12 MB, which those who count in memory are spared.
            from trunkline_server.store.redis import RedisClient  # noqa: PLC0415
            from trunkline_server.store.redis_counters import RedisCounters  # noqa: PLC0415

            try:
                client = RedisClient(settings.state.redis.reveal(), on_change=changed)
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
            source=None if books is None else _Spent(books.usage),
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
        yield Quotas(governor, active=_has_any(settings))


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


class _Spent:
    """The ledger's sums as budgets ask for them; a governance.ports.SpendSource."""

    def __init__(self, usage: UsageTable) -> None:
        self._usage = usage

    async def spent(
        self, scope: str, tenant: str, subject: str, starts: Sequence[float], end: float
    ) -> list[int]:
        """As governance.ports.SpendSource. Services are not told apart by the ledger's table."""
        dimension = _SPENDERS.get(scope)
        if dimension is None:
            return [0] * len(starts)
        where = {dimension: subject}
        if tenant and dimension is not Dimension.TENANT:
            where[Dimension.TENANT] = tenant
        ends = [*starts[1:], end]
        return [
            await self._usage.spent(where, round(start * 1e6), round(until * 1e6))
            for start, until in zip(starts, ends, strict=True)
        ]


def _demand(call: Call, plan: Plan) -> Demand:
    """Who asks, for which model, and the most that it can come to."""
    caller, request = call.caller, call.request
    read = _most_read(request)
    written = 0
    if isinstance(request, v1.GenerateRequest):
        written = request.config.max_output_tokens or max(
            target.max_output_tokens or target.context_tokens or _UNBOUNDED_OUTPUT
            for target in plan.targets
        )
    at = call.course.table.snapshot.built_at if call.course is not None else 0.0
    cost = max(
        0 if target.price is None else target.price.estimate(read, written, at)
        for target in plan.targets
    )
    # A hedge may be paid for beside the attempt that it races.
    attempts = 2 if plan.route.attempts.hedge is not None or request.routing.hedge else 1
    demand = Demand(
        key=caller.name,
        user=call.user_id,
        service=request.context.agent_id,
        model=request.model or plan.targets[0].model,
        tokens=(read + written) * attempts,
        cost=cost * attempts,
        deadline=call.deadline,
    )
    if isinstance(caller, Principal):
        demand.tenant, demand.project = caller.tenant, caller.project
        demand.user = caller.user or demand.user
        demand.service = caller.service or demand.service
    return demand


def _most_read(request: v1.GenerateRequest | v1.EmbedRequest) -> int:
    """A bound on the tokens of a request: no vocabulary has a token of less than one byte."""
    if isinstance(request, v1.EmbedRequest):
        return _most_tokens(request.inputs)
    texts = [part.text for message in request.messages for part in message.parts if part.text]
    other = [
        part for message in request.messages for part in message.parts if not part.HasField("text")
    ]
    media = sum(_MEDIA_TOKENS for part in other if part.WhichOneof("kind") in _MEDIA)
    rest = sum(part.ByteSize() for part in other if part.WhichOneof("kind") not in _MEDIA)
    tools = sum(tool.ByteSize() for tool in request.tools)
    schema = request.response_format.ByteSize()
    return _most_tokens(texts) + media + rest + tools + schema


_MEDIA = frozenset({"image", "audio", "file"})


def _most_tokens(texts: Iterable[str]) -> int:
    # Each text comes with a few tokens that mark its role and its ends.
    return sum(len(text) * (1 if text.isascii() else _MOST_BYTES) + 16 for text in texts)
