"""The engine: from an authenticated request to an answer, or to the one error that explains
why there is none."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar, cast

from trunkline import v1
from trunkline_server.engine.attempt import Services
from trunkline_server.engine.call import Call
from trunkline_server.engine.events import delta_event
from trunkline_server.engine.media_calls import MediaCalls
from trunkline_server.engine.needs import embed_query, generate_query
from trunkline_server.engine.ports import (
    Affinity,
    AnswerCache,
    Bounds,
    Caller,
)
from trunkline_server.engine.questions import Question, Terms, query_of
from trunkline_server.engine.requests import Cacheable, Request
from trunkline_server.engine.stream import SendDelta
from trunkline_server.engine.table import Table
from trunkline_server.engine.work import Work, whole
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.explain import decide_into, explain_into
from trunkline_server.routing.plan import plan
from trunkline_server.routing.query import Constraint

TreatedT = TypeVar("TreatedT", bound=Request)
_Sender = Callable[[v1.StreamGenerateResponse | bytes], Awaitable[None]]


class Engine(MediaCalls):
    """Carries out calls by the table in force. Not thread-safe: one event loop each."""

    def __init__(self, services: Services, table: Table) -> None:
        super().__init__(services, table)
        self._work = Work(services, self._accounts, table)

    @property
    def table(self) -> Table:
        """The table in force. Calls under way keep the one they began with."""
        return self._work.table

    @table.setter
    def table(self, table: Table) -> None:
        self._work.table = self._media.table = table

    @property
    def affinity(self) -> Affinity | None:
        """What remembers where prompts went, if anyone does. May be replaced as the table may."""
        return self._work.affinity

    @affinity.setter
    def affinity(self, affinity: Affinity | None) -> None:
        self._work.affinity = affinity

    @property
    def caches(self) -> bool:
        """Whether answers may come from a cache."""
        return self._services.cache is not None

    async def generate(
        self, call: Call, request: v1.GenerateRequest
    ) -> v1.GenerateResponse | bytes:
        """Answers a conversation in one piece; an answer that was kept is serialised already.

        Raises TrunklineError.
        """
        self._accounts.begin(call)
        try:
            self._admit(call, request)
            privacy = self.privacy
            if privacy is not None:
                request = await self._treated(call, request, privacy)
            cache = self._cache(call)
            if cache is None:
                return _unveiled(call, await self._work.generate(call, request))
            if call.bounds is not None:
                self._work.bounded(call, generate_query(request, False, None))
            found = cache.generate(call, request, self._work.table)
            answer: v1.GenerateResponse | bytes
            if isinstance(found, bytes):
                answer = found
            elif found is None:
                answer = await self._work.generate(call, request)
            else:
                answer = await found.answer(partial(self._work.generate, call, request))
        except BaseException as failure:
            self._accounts.fail(call, failure)
            raise
        if not call.working:
            # As Accounts.close, without its coroutine: a hit costs little more than this.
            self._accounts.end(call)
            if self._services.books is not None:
                await self._services.books.committed()
        return answer if call.treatment is None else _unveiled(call, answer)

    async def embed(self, call: Call, request: v1.EmbedRequest) -> v1.EmbedResponse | bytes:
        """Turns texts into vectors, as `generate`. Raises TrunklineError."""
        self._accounts.begin(call)
        try:
            self._admit(call, request)
            privacy = self.privacy
            if privacy is not None:
                request = await self._treated(call, request, privacy)
            cache = self._cache(call)
            if cache is None:
                return await self._work.embed(call, request)
            if call.bounds is not None:
                self._work.bounded(call, embed_query(request, None))
            found = cache.embed(call, request, self._work.table)
            answer: v1.EmbedResponse | bytes
            if isinstance(found, bytes):
                answer = found
            elif found is None:
                answer = await self._work.embed(call, request)
            else:
                answer = await found.answer(partial(self._work.embed, call))
        except BaseException as failure:
            self._accounts.fail(call, failure)
            raise
        if not call.working:
            await self._accounts.close(call)
        return answer

    async def stream_generate(
        self,
        call: Call,
        request: v1.GenerateRequest,
        send: _Sender,
    ) -> None:
        """Answers a conversation as it is written, each event through `send`; the events of an
        answer that goes through the cache are serialised already.

        Raises TrunklineError; then no end event has been sent.
        """
        self._accounts.begin(call)
        try:
            self._admit(call, request)
            privacy = self.privacy
            if privacy is not None:
                request = await self._treated(call, request, privacy)
                send = _veiled(call, send)
            cache = self._cache(call)
            if cache is None:
                await self._work.stream(call, request, send, _deltas_to(call, send))
                return
            if call.bounds is not None:
                self._work.bounded(call, generate_query(request, True, None))
            found = cache.stream(call, request, self._work.table)
            if found is None:
                await self._work.stream(call, request, send, _deltas_to(call, send))
            else:
                work = partial(self._work.stream, call, request)
                await found.relay(work, send, partial(self._accounts.close, call))
        except BaseException as failure:
            self._accounts.fail(call, failure)
            raise

    def route(
        self,
        question: Question,
        constraints: tuple[Constraint, ...] = (),
        bounds: Bounds | None = None,
    ) -> bytes:
        """The decision that a call would meet now, explained, as a serialised RouteResponse;
        `constraints` and `bounds` as a Call has them. Raises TrunklineError."""
        table = self._work.table
        question.settle(Terms(table, self.privacy, constraints, bounds))
        snapshot, health = table.snapshot, table.health
        now = self._services.clock.monotonic()
        chosen = plan(
            snapshot,
            question.query,
            health,
            now,
            self._services.rng,
            dry_run=True,
            pool=question.pool,
        )
        targets: tuple[int, ...] = ()
        if question.slots and health.sound(question.slots, now):
            targets = tuple([row.slot for row in chosen.targets])
            if targets in question.answers:
                return question.answers[targets]
        response = v1.RouteResponse()
        decide_into(response.decision, snapshot, chosen, chosen.targets[0])
        explain_into(response, snapshot, health, now, chosen, in_full=question.in_full)
        answer = response.SerializeToString()
        if targets:
            question.keep(targets, answer)
        return answer

    def route_into(
        self,
        response: v1.RouteResponse,
        request: v1.RouteRequest,
        caller: Caller,
        constraints: tuple[Constraint, ...] = (),
        bounds: Bounds | None = None,
    ) -> None:
        """Writes the decision that a call would meet now into an empty response, without the
        candidates unless they are asked for. Raises TrunklineError."""
        table = self._work.table
        snapshot, health = table.snapshot, table.health
        query = query_of(request, caller, Terms(table, self.privacy, constraints, bounds))
        now = self._services.clock.monotonic()
        chosen = plan(snapshot, query, health, now, self._services.rng, dry_run=True)
        decide_into(response.decision, snapshot, chosen, chosen.targets[0])
        if request.HasField("routing") and request.routing.explain:
            explain_into(response, snapshot, health, now, chosen, in_full=True)

    def _admit(self, call: Call, request: Cacheable) -> None:
        """Refuses what cannot be carried out whatever the table says."""
        if request.HasField("cache") and request.cache.mode == v1.CACHE_MODE_BYPASS:
            call.cache_status = v1.CACHE_STATUS_BYPASS
        if self._services.books is not None:
            self._services.books.admit()

    def _cache(self, call: Call) -> AnswerCache | None:
        """The cache, if it has a part in the call. Raises CACHE_MISS."""
        cache, request = self._services.cache, cast("Cacheable", call.request)
        kept = cache is not None and (call.treatment is None or call.treatment.may_cache)
        if kept and (call.bounds is None or call.bounds.permits("cache")):
            return cache
        # Whether bounds let a call ask for the cache is checked with all that they withhold.
        only = request.HasField("cache") and request.cache.mode == v1.CACHE_MODE_ONLY_IF_CACHED
        if only and not kept:
            what = "router keeps no cache" if cache is None else "call's answers are not kept"
            raise TrunklineError(v1.ERROR_REASON_CACHE_MISS, f"no cached answer: this {what}")
        return None


def _unveiled(call: Call, response: v1.GenerateResponse | bytes) -> v1.GenerateResponse | bytes:
    """The answer as the caller gets it. What is kept is as the vendor gave it."""
    treatment = call.treatment
    if treatment is None or treatment.veil is None:
        return response
    return treatment.veil.restored(response)


def _deltas_to(call: Call, send: _Sender) -> SendDelta:
    """Sends a delta to the caller, serialised unless a veil looks into it."""
    treatment = call.treatment
    if treatment is not None and treatment.veil is not None:
        return whole(send)
    return lambda delta: send(delta_event(delta))


def _veiled(call: Call, send: _Sender) -> _Sender:
    """What takes a stream's events as the vendor gave them."""
    treatment = call.treatment
    if treatment is None or treatment.veil is None:
        return send
    return treatment.veil.sender(send)
