"""The engine: from an authenticated request to an answer, or to the one error that explains
why there is none."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar, cast

from trunkline import v1
from trunkline_server.engine.attempt import Services, deadline_passed
from trunkline_server.engine.bounds import fit, keep_within
from trunkline_server.engine.call import Call, Course, total_cost, total_tokens
from trunkline_server.engine.events import delta_event
from trunkline_server.engine.limit import within
from trunkline_server.engine.needs import embed_query, generate_query, unmet_needs
from trunkline_server.engine.operations import EMBED, GENERATE
from trunkline_server.engine.ports import (
    Affinity,
    AnswerCache,
    Bounds,
    Caller,
    Privacy,
    Send,
    Treatment,
)
from trunkline_server.engine.questions import Question, Terms, query_of
from trunkline_server.engine.stream import SendDelta, StreamLoop
from trunkline_server.engine.table import Table
from trunkline_server.engine.unary import UnaryLoop
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.explain import decide_into, explain, explain_into
from trunkline_server.routing.plan import plan
from trunkline_server.routing.query import Constraint, Query
from trunkline_server.routing.snapshot import Deployment

RequestT = TypeVar("RequestT", v1.GenerateRequest, v1.EmbedRequest)
_Sender = Callable[[v1.StreamGenerateResponse | bytes], Awaitable[None]]


class Engine:
    """Carries out calls by the table in force. Not thread-safe: one event loop each."""

    def __init__(self, services: Services, table: Table) -> None:
        self._services = services
        self._table = table
        # None: labels mean nothing. May be replaced as the table may.
        self.privacy: Privacy | None = None
        # None: nobody remembers where prompts went. May be replaced likewise.
        self.affinity: Affinity | None = None

    @property
    def table(self) -> Table:
        """The table in force. Calls under way keep the one they began with."""
        return self._table

    @table.setter
    def table(self, table: Table) -> None:
        self._table = table

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
        self._begin(call)
        try:
            self._admit(call, request)
            privacy = self.privacy
            if privacy is not None:
                treatment = privacy.treat(request, call.id) or await self._examined(call, privacy)
                request = _sent(call, treatment, request)
            cache = self._cache(call)
            if cache is None:
                return _unveiled(call, await self._generate(call, request))
            if call.bounds is not None:
                self._bounded(call, generate_query(request, False, None))
            found = cache.generate(call, request, self._table)
            answer: v1.GenerateResponse | bytes
            if isinstance(found, bytes):
                answer = found
            elif found is None:
                answer = await self._generate(call, request)
            else:
                answer = await found.answer(partial(self._generate, call, request))
        except BaseException as failure:
            self._fail(call, failure)
            raise
        if not call.working:
            self._end(call)
            if self._services.books is not None:
                await self._services.books.committed()
        return answer if call.treatment is None else _unveiled(call, answer)

    async def embed(self, call: Call, request: v1.EmbedRequest) -> v1.EmbedResponse | bytes:
        """Turns texts into vectors, as `generate`. Raises TrunklineError."""
        self._begin(call)
        try:
            self._admit(call, request)
            privacy = self.privacy
            if privacy is not None:
                treatment = privacy.treat(request, call.id) or await self._examined(call, privacy)
                request = _sent(call, treatment, request)
            cache = self._cache(call)
            if cache is None:
                return await self._embed(call, request)
            if call.bounds is not None:
                self._bounded(call, embed_query(request, None))
            found = cache.embed(call, request, self._table)
            answer: v1.EmbedResponse | bytes
            if isinstance(found, bytes):
                answer = found
            elif found is None:
                answer = await self._embed(call, request)
            else:
                answer = await found.answer(partial(self._embed, call))
        except BaseException as failure:
            self._fail(call, failure)
            raise
        if not call.working:
            await self._close(call)
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
        self._begin(call)
        try:
            self._admit(call, request)
            privacy = self.privacy
            if privacy is not None:
                treatment = privacy.treat(request, call.id) or await self._examined(call, privacy)
                request = _sent(call, treatment, request)
                send = _veiled(call, send)
            cache = self._cache(call)
            if cache is None:
                await self._stream(call, request, send, _deltas_to(call, send))
                return
            if call.bounds is not None:
                self._bounded(call, generate_query(request, True, None))
            found = cache.stream(call, request, self._table)
            if found is None:
                await self._stream(call, request, send, _deltas_to(call, send))
            else:
                work = partial(self._stream, call, request)
                await found.relay(work, send, partial(self._close, call))
        except BaseException as failure:
            self._fail(call, failure)
            raise

    async def _generate(self, call: Call, request: v1.GenerateRequest) -> v1.GenerateResponse:
        """Carries a call out, and closes its books."""
        call = self._work(call)
        try:
            permitted = self._table.permitted_models(call.caller, request.model)
            query = self._bounded(call, generate_query(request, False, permitted))
            if self.affinity is not None:
                query.warmth = self.affinity.warmth(call, request)
            course = self._plan(call, query)
            await self._reserve(call, course)
            loop = UnaryLoop(self._services, course, GENERATE, request, call)
            target, response = await loop.run(_hedge(call, request))
            call.finish_reason = response.finish_reason
            self._complete(call, course, target, response)
            if self.affinity is not None:
                self.affinity.answered(call, target.name)
        except BaseException as failure:
            await self._end_failed(call, failure)
            raise
        await self._close(call)
        return response

    async def _embed(self, call: Call, request: v1.EmbedRequest) -> v1.EmbedResponse:
        call = self._work(call)
        # What was kept is not asked for again.
        call.request = request
        try:
            permitted = self._table.permitted_models(call.caller, request.model)
            query = self._bounded(call, embed_query(request, permitted))
            course = self._plan(call, query)
            await self._reserve(call, course)
            loop = UnaryLoop(self._services, course, EMBED, request, call)
            target, response = await loop.run(_hedge(call, request))
            self._complete(call, course, target, response)
        except BaseException as failure:
            await self._end_failed(call, failure)
            raise
        await self._close(call)
        return response

    async def _stream(
        self,
        call: Call,
        request: v1.GenerateRequest,
        send: Send,
        send_delta: SendDelta | None = None,
    ) -> None:
        call = self._work(call)
        try:
            permitted = self._table.permitted_models(call.caller, request.model)
            query = self._bounded(call, generate_query(request, True, permitted))
            if self.affinity is not None:
                query.warmth = self.affinity.warmth(call, request)
            course = self._plan(call, query)
            await self._reserve(call, course)

            def opening(target: Deployment, model: str) -> v1.StreamStart:
                start = v1.StreamStart(
                    id=call.id,
                    model=model,
                    provider=target.provider,
                    deployment=target.name,
                    cache_status=call.cache_status,
                )
                self._decide(call, course, target, start.decision)
                return start

            loop = StreamLoop(
                self._services,
                course,
                request,
                call,
                send=send,
                send_delta=send_delta or _whole(send),
                opening=opening,
            )
            end = await loop.run(_hedge(call, request))
            call.model = end.model
            call.finish_reason = end.finish_reason
            call.usage = end.usage
            call.cost = total_cost(call.attempts)
            end.cost.CopyFrom(call.cost)
            end.attempts.extend(call.attempts)
            end.cache_status = call.cache_status
            self._time(call, end.timing)
            if self.affinity is not None and call.decision is not None:
                self.affinity.answered(call, call.decision.deployment)
        except BaseException as failure:
            await self._end_failed(call, failure)
            raise
        # The books first: whoever has seen the end has been accounted for.
        await self._close(call)
        await send(v1.StreamGenerateResponse(end=end))

    def route(
        self,
        question: Question,
        constraints: tuple[Constraint, ...] = (),
        bounds: Bounds | None = None,
    ) -> bytes:
        """The decision that a call would meet now, explained, as a serialised RouteResponse;
        `constraints` and `bounds` as a Call has them. Raises TrunklineError."""
        table = self._table
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
        table = self._table
        snapshot, health = table.snapshot, table.health
        query = query_of(request, caller, Terms(table, self.privacy, constraints, bounds))
        now = self._services.clock.monotonic()
        chosen = plan(snapshot, query, health, now, self._services.rng, dry_run=True)
        decide_into(response.decision, snapshot, chosen, chosen.targets[0])
        if request.HasField("routing") and request.routing.explain:
            explain_into(response, snapshot, health, now, chosen, in_full=True)

    def _begin(self, call: Call) -> None:
        services = self._services
        services.budget.deposit()
        services.observer.call_started(call)

    def _admit(self, call: Call, request: "_Request") -> None:
        """Refuses what cannot be carried out whatever the table says."""
        if request.HasField("cache") and request.cache.mode == v1.CACHE_MODE_BYPASS:
            call.cache_status = v1.CACHE_STATUS_BYPASS
        if self._services.books is not None:
            self._services.books.admit()

    def _cache(self, call: Call) -> AnswerCache | None:
        """The cache, if it has a part in the call. Raises CACHE_MISS."""
        cache, request = self._services.cache, call.request
        kept = cache is not None and (call.treatment is None or call.treatment.may_cache)
        if kept and (call.bounds is None or call.bounds.permits("cache")):
            return cache
        # Whether bounds let a call ask for the cache is checked with all that they withhold.
        only = request.HasField("cache") and request.cache.mode == v1.CACHE_MODE_ONLY_IF_CACHED
        if only and not kept:
            what = "router keeps no cache" if cache is None else "call's answers are not kept"
            raise TrunklineError(v1.ERROR_REASON_CACHE_MISS, f"no cached answer: this {what}")
        return None

    def _bounded(self, call: Call, query: Query) -> Query:
        """The query with what access rules ask of it; raises for what its caller may not have.

        Before anything is looked up: cached answers are as much bounded as new ones.
        """
        query.constraints = call.constraints
        if call.bounds is not None:
            keep_within(call.bounds, call.request, query)
        return query

    async def _examined(self, call: Call, privacy: Privacy) -> Treatment:
        remaining = call.deadline - self._services.clock.monotonic()
        try:
            return await within(remaining, privacy.examine(call.request, call.id))
        except TimeoutError:
            raise deadline_passed(call) from None

    async def _reserve(self, call: Call, course: Course) -> None:
        admission = self._services.admission
        if admission is not None and admission.active:
            call.grant = await admission.admit(call, course.plan)

    def _work(self, call: Call) -> Call:
        """The call whose books the work that begins now will close: the one that brought it, or
        another in its place if that one is over and others wait."""
        if call.ended:
            call = call.successor()
            self._begin(call)
        call.working = True
        return call

    def _fail(self, call: Call, failure: BaseException) -> None:
        """Closes the books of a call that failed, unless its own work does."""
        if not call.working:
            self._end(call, failure)

    async def _close(self, call: Call) -> None:
        """Closes the books of a call that succeeded, and waits until they are safe."""
        self._end(call)
        if self._services.books is not None:
            await self._services.books.committed()

    async def _end_failed(self, call: Call, failure: BaseException) -> None:
        """Closes the books of a call that failed, and waits as for an answer where its caller is
        told what was tried and paid."""
        self._end(call, failure)
        books = self._services.books
        if books is not None and call.attempts and isinstance(failure, TrunklineError):
            # Books that cannot be written now hold it in memory; the failure is told as it is.
            with suppress(TrunklineError):
                await books.committed()

    def _end(self, call: Call, failure: BaseException | None = None) -> None:
        """Closes the books of a call, and tells how it ended."""
        services = self._services
        call.ended = services.clock.monotonic()
        if call.cost is None and call.attempts:
            call.cost = total_cost(call.attempts)
        if call.grant is not None:
            cost = 0 if call.cost is None else call.cost.total
            call.grant.settle(total_tokens(call.attempts), cost)
        if failure is None or isinstance(failure, TrunklineError):
            error = failure
        elif isinstance(failure, asyncio.CancelledError):
            late = call.ended >= call.deadline
            reason = v1.ERROR_REASON_TIMEOUT if late else v1.ERROR_REASON_CANCELLED
            error = TrunklineError(reason, "the caller's deadline passed" if late else "cancelled")
        else:
            error = TrunklineError(v1.ERROR_REASON_INTERNAL, "internal error")
        services.observer.call_ended(call, error)

    def _plan(self, call: Call, query: Query) -> Course:
        table = self._table
        now = self._services.clock.monotonic()
        try:
            chosen = plan(table.snapshot, query, table.health, now, self._services.rng)
        except TrunklineError as error:
            if error.reason != v1.ERROR_REASON_NO_ELIGIBLE_DEPLOYMENT:
                raise
            members = table.snapshot.resolve(query.model).members
            raise unmet_needs(call.request, query, members) or error from None
        if call.bounds is not None:
            fit(call.bounds, call.request, query, chosen.targets)
        call.course = Course(table, chosen)
        return call.course

    def _decide(self, call: Call, course: Course, target: Deployment, made: v1.Decision) -> None:
        """Writes the decision for a target into an empty message, which the call keeps."""
        table = course.table
        decide_into(made, table.snapshot, course.plan, target)
        if call.request.HasField("routing") and call.request.routing.explain:
            now = self._services.clock.monotonic()
            candidates = explain(table.snapshot, table.health, now, course.plan, in_full=True)
            made.candidates.extend(candidates)
        call.decision = made

    def _complete(
        self,
        call: Call,
        course: Course,
        target: Deployment,
        response: v1.GenerateResponse | v1.EmbedResponse,
    ) -> None:
        call.model = response.model
        call.usage = response.usage
        call.cost = total_cost(call.attempts)
        response.id = call.id
        response.provider = target.provider
        response.deployment = target.name
        response.cost.CopyFrom(call.cost)
        self._decide(call, course, target, response.decision)
        response.attempts.extend(call.attempts)
        response.cache_status = call.cache_status
        self._time(call, response.timing)

    def _time(self, call: Call, timing: v1.Timing) -> None:
        timing.total_us = round((self._services.clock.monotonic() - call.started) * 1e6)
        timing.upstream_us = round(call.upstream_seconds * 1e6)
        if call.queued:
            timing.queue_us = round(call.queued * 1e6)
        if call.first_token is not None:
            timing.first_token_us = round((call.first_token - call.started) * 1e6)


_Request = v1.GenerateRequest | v1.EmbedRequest


def _sent(call: Call, treatment: Treatment, request: RequestT) -> RequestT:
    """Notes how a call is treated, and gives what vendors see of its request.

    From here on nothing that looks at the call sees what was masked.
    """
    call.treatment = treatment
    call.constraints += treatment.constraints
    masked = treatment.masked
    if masked is None:
        return request
    call.served = request.context.user_id
    call.request = masked
    call.raw = b""
    return cast("RequestT", masked)  # A copy is of the kind that was copied.


def _unveiled(call: Call, response: v1.GenerateResponse | bytes) -> v1.GenerateResponse | bytes:
    """The answer as the caller gets it. What is kept is as the vendor gave it."""
    treatment = call.treatment
    if treatment is None or treatment.veil is None:
        return response
    return treatment.veil.restored(response)


def _whole(send: Send) -> SendDelta:
    """Sends a delta as an event for who looks into it."""
    return lambda delta: send(v1.StreamGenerateResponse(delta=delta))


def _deltas_to(call: Call, send: _Sender) -> SendDelta:
    """Sends a delta to the caller, serialised unless a veil looks into it."""
    treatment = call.treatment
    if treatment is not None and treatment.veil is not None:
        return _whole(send)
    return lambda delta: send(delta_event(delta))


def _veiled(call: Call, send: _Sender) -> _Sender:
    """What takes a stream's events as the vendor gave them."""
    treatment = call.treatment
    if treatment is None or treatment.veil is None:
        return send
    return treatment.veil.sender(send)


def _hedge(call: Call, request: _Request) -> bool | None:
    if call.bounds is not None and not call.bounds.permits("hedge"):
        return False
    if not request.HasField("routing"):
        return None
    return request.routing.hedge if request.routing.HasField("hedge") else None
