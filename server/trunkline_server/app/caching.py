"""The answer cache of one worker, from its settings: its levels, and what may answer a call."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal, cast

from trunkline import v1
from trunkline_server.cache.answers import Facts
from trunkline_server.cache.cache import (
    AnswerCache,
    Bounds,
    EmbedFlight,
    EmbedHit,
    Flight,
    Hit,
    Key,
    Rules,
    Source,
    StreamFlight,
    StreamHit,
    fingerprint,
)
from trunkline_server.clock import Clock
from trunkline_server.engine import ports
from trunkline_server.engine.call import Call
from trunkline_server.engine.table import Table
from trunkline_server.governance.identity.principal import Principal
from trunkline_server.routing.lru import Lru
from trunkline_server.routing.pools import in_scope
from trunkline_server.routing.query import Query
from trunkline_server.routing.snapshot import ROUTE_PREFIX, Deployment
from trunkline_server.settings import (
    CacheRuleSettings,
    CacheSettings,
    ConfigError,
    Problem,
    Settings,
)
from trunkline_server.telemetry.cache import CacheMetrics
from trunkline_server.telemetry.metrics import Metrics

REDIS = "state.redis"

# Models are named by callers and unbounded in number; what is remembered of them is not.
_MOST_SOURCES = 4_096

# The bytes that keys of requests which were hits may take with the requests, and the largest.
_PLACES = 8 * 2**20
_MOST_RAW = 16 * 2**10

# The switches by which codecs are told to send the context's user_id.
_USER_FLAGS = ("user_field", "send_user_id")


class Caching:
    """The answer cache as the engine sees it; an engine.ports.AnswerCache."""

    def __init__(self, cache: AnswerCache, settings: Settings, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._table: Table | None = None
        self._sources: dict[tuple[object, ...], Source] = {}
        self._places: Lru[tuple[bytes, Principal], tuple[Source, Key]] = Lru(_PLACES)
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Puts the rules of a new configuration in force."""
        base = settings.cache
        self._rules = _rules(base, CacheRuleSettings())
        self._models = {name: _rules(base, row) for name, row in base.models.items()}
        self._routes = {name: _rules(base, row) for name, row in base.routes.items()}
        self._sources.clear()

    def generate(
        self, call: Call, request: v1.GenerateRequest, table: Table
    ) -> "bytes | _Pending | None":
        """As engine.ports.AnswerCache."""
        caller = call.caller
        if not isinstance(caller, Principal):
            return None
        source = self._source(call, caller, request.model, table)
        raw = call.raw if call.bounds is None and len(call.raw) <= _MOST_RAW else b""
        # The same bytes from the same caller under the same rules have the same key.
        place = self._places.get((raw, caller)) if raw else None
        if place is not None and place[0] is source:
            again = self._cache.again(place[1])
            if again is not None:
                _hit(call, again.facts, again.kind)
                return again.response(call.id, self._microseconds(call))
        found = self._cache.lookup(request, caller, source)
        if found is None:
            return None
        if isinstance(found, Hit):
            if raw and found.key is not None:
                self._places.put((raw, caller), (source, found.key), len(raw) + 512)
            return self.answer(call, found)
        call.cache_status = found.status
        return _Pending(self, call, found)

    def stream(
        self, call: Call, request: v1.GenerateRequest, table: Table
    ) -> "_PendingStream | _Replay | None":
        """As engine.ports.AnswerCache."""
        caller = call.caller
        if not isinstance(caller, Principal):
            return None
        source = self._source(call, caller, request.model, table)
        found = self._cache.lookup_stream(request, caller, source)
        if found is None:
            return None
        if isinstance(found, StreamHit):
            return _Replay(self._clock, call, found)
        call.cache_status = found.status
        return _PendingStream(call, found)

    def embed(
        self, call: Call, request: v1.EmbedRequest, table: Table
    ) -> "bytes | _PendingEmbed | None":
        """As engine.ports.AnswerCache."""
        caller = call.caller
        if not isinstance(caller, Principal):
            return None
        source = self._source(call, caller, request.model, table)
        found = self._cache.lookup_embed(request, caller, source)
        if found is None:
            return None
        if isinstance(found, EmbedHit):
            return self.vectors(call, found)
        call.cache_status = found.status
        return _PendingEmbed(self, call, found)

    def answer(self, call: Call, hit: Hit) -> bytes:
        """The response of a call that was a hit, of which it is told."""
        _hit(call, hit.facts, hit.kind)
        return hit.response(call.id, self._microseconds(call))

    def vectors(self, call: Call, hit: EmbedHit) -> bytes:
        """The same of an embedding."""
        call.cache_status = v1.CACHE_STATUS_HIT
        call.cache_hit_kind = hit.kind
        call.saved_nanos = hit.saved
        call.model = hit.model
        return hit.response(call.id, self._microseconds(call))

    def _microseconds(self, call: Call) -> int:
        return round((self._clock.monotonic() - call.started) * 1e6)

    def _source(self, call: Call, caller: Principal, model: str, table: Table) -> Source:
        """What may answer a caller's calls of a model. Raises MODEL_NOT_FOUND."""
        if table is not self._table:
            self._table = table
            self._sources.clear()
        permitted = table.permitted_models(caller, model)
        # Whoever may reach other deployments is given no answer of these.
        key = (model, permitted, call.constraints)
        source = self._sources.get(key)
        if source is None:
            if len(self._sources) >= _MOST_SOURCES:
                self._sources.clear()
            query = Query(model, models=permitted, constraints=call.constraints)
            source = self._sources[key] = self._new_source(query, table)
        return source

    def _new_source(self, query: Query, table: Table) -> Source:
        snapshot, model = table.snapshot, query.model
        route = snapshot.resolve(model, query.models)
        members = [
            row
            for _, row in in_scope(snapshot, query, route)
            if row.enabled and not any(each.excludes(row) for each in query.constraints)
        ]
        flags = [table.binding(row).target.flags for row in members]
        if model.startswith(ROUTE_PREFIX):
            rules = self._routes.get(model.removeprefix(ROUTE_PREFIX), self._rules)
        else:
            rules = self._models.get(model, self._rules)
        return Source(
            fingerprint(_identity(row, table) for row in members),
            rules,
            sends_user_id=any(each.get(name) for each in flags for name in _USER_FLAGS),
            one_model=len({(row.provider, row.provider_model) for row in members}) == 1,
        )


class _Pending:
    """An engine.ports.Flight."""

    __slots__ = ("_caching", "_call", "_flight")

    def __init__(self, caching: Caching, call: Call, flight: Flight) -> None:
        self._caching = caching
        self._call = call
        self._flight = flight

    async def answer(
        self, work: Callable[[], Awaitable[v1.GenerateResponse]]
    ) -> v1.GenerateResponse | bytes:
        """As engine.ports.Flight."""
        found = await self._flight.answer(self._call, work)
        return self._caching.answer(self._call, found) if isinstance(found, Hit) else found


class _PendingStream:
    """An engine.ports.StreamFlight."""

    __slots__ = ("_call", "_flight")

    def __init__(self, call: Call, flight: StreamFlight) -> None:
        self._call = call
        self._flight = flight

    async def relay(
        self,
        work: Callable[[ports.Send], Awaitable[None]],
        send: ports.SendBytes,
        close: Callable[[], Awaitable[None]],
    ) -> None:
        """As engine.ports.StreamFlight."""
        await self._flight.relay(self._call, work, send, _settling(self._call, close))


class _Replay:
    """An engine.ports.StreamFlight that has landed."""

    __slots__ = ("_call", "_clock", "_hit")

    def __init__(self, clock: Clock, call: Call, hit: StreamHit) -> None:
        self._clock = clock
        self._call = call
        self._hit = hit

    async def relay(
        self,
        work: Callable[[ports.Send], Awaitable[None]],
        send: ports.SendBytes,
        close: Callable[[], Awaitable[None]],
    ) -> None:
        """As engine.ports.StreamFlight."""
        await self._hit.replay(self._call, self._clock, send, _settling(self._call, close))


class _PendingEmbed:
    """An engine.ports.EmbedFlight."""

    __slots__ = ("_caching", "_call", "_flight")

    def __init__(self, caching: Caching, call: Call, flight: EmbedFlight) -> None:
        self._caching = caching
        self._call = call
        self._flight = flight

    async def answer(
        self, work: Callable[[v1.EmbedRequest], Awaitable[v1.EmbedResponse]]
    ) -> v1.EmbedResponse | bytes:
        """As engine.ports.EmbedFlight."""

        async def told(request: v1.EmbedRequest) -> v1.EmbedResponse:
            # The books of the work are the call's, and want to know what was not asked for.
            self._call.saved_nanos = self._flight.saved
            return await work(request)

        found = await self._flight.answer(self._call, told)
        return self._caching.vectors(self._call, found) if isinstance(found, EmbedHit) else found


def _settling(
    call: Call, close: Callable[[], Awaitable[None]]
) -> Callable[[Facts, v1.CacheHitKind.ValueType, float | None], Awaitable[None]]:
    async def settle(
        facts: Facts, kind: v1.CacheHitKind.ValueType, first_token: float | None
    ) -> None:
        _hit(call, facts, kind)
        call.first_token = first_token
        await close()

    return settle


def _hit(call: Call, facts: Facts, kind: v1.CacheHitKind.ValueType) -> None:
    """Tells a call that it was answered from elsewhere."""
    call.cache_status = v1.CACHE_STATUS_HIT
    call.cache_hit_kind = kind
    call.saved_nanos = facts.saved
    call.model = facts.model
    call.finish_reason = facts.finish_reason


def _identity(row: Deployment, table: Table) -> tuple[str, ...]:
    """What makes a deployment's answers what they are."""
    binding = table.binding(row)
    flags = [f"{name}={value!r}" for name, value in sorted(binding.target.flags.items())]
    return (row.provider, binding.endpoint.base_url, row.provider_model, *flags)


def _rules(base: CacheSettings, own: CacheRuleSettings) -> Rules:
    return Rules(
        use=cast(Literal["off", "asked", "on"], own.use or base.use),
        ttl=base.ttl if own.ttl is None else own.ttl,
        max_ttl=base.max_ttl if own.max_ttl is None else own.max_ttl,
        max_temperature=(
            base.max_temperature if own.max_temperature is None else own.max_temperature
        ),
    )


def wanted(settings: Settings) -> bool:
    """Whether any call may use the cache."""
    cache = settings.cache
    own = (*cache.models.values(), *cache.routes.values())
    return cache.use != "off" or any(row.use not in {None, "off"} for row in own)


@asynccontextmanager
async def caching_kept(
    settings: Settings, clock: Clock, metrics: Metrics
) -> AsyncGenerator[Caching | None]:
    """The answer cache, while it is kept; None if the settings want none.

    Raises ConfigError for an address that is none. A Redis that is away is no hindrance: there
    is the memory.
    """
    if not wanted(settings):
        yield None
        return
    cache = settings.cache
    async with AsyncExitStack() as stack:
        store = None
        if cache.shared and settings.state.redis is not None:
            # As in quotas.py: a client that others are spared.
            from trunkline_server.store.cache_redis import RedisAnswers  # noqa: PLC0415
            from trunkline_server.store.redis import ChannelPolicy, RedisClient  # noqa: PLC0415

            try:
                # A connection of its own: a large answer must not hold up limits and budgets.
                policy = ChannelPolicy(timeout=settings.state.redis_timeout)
                client = RedisClient(settings.state.redis.reveal(), policy=policy)
            except (ValueError, OSError) as error:
                raise ConfigError(REDIS, [Problem(0, REDIS, str(error))]) from None
            stack.push_async_callback(client.close)
            await client.start()
            store = RedisAnswers(client)
        bounds = Bounds(
            memory_bytes=cache.memory, share=cache.tenant_share, entry_bytes=cache.max_entry
        )
        answers = AnswerCache(bounds, clock, store)
        stack.push_async_callback(answers.close)
        stack.push_async_callback(answers.flush)
        CacheMetrics(metrics, answers)
        yield Caching(answers, settings, clock)
