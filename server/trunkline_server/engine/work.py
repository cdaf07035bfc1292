"""Carrying a call out: planned, reserved, attempted, and its answer completed."""

from trunkline import v1
from trunkline_server.engine.accounts import Accounts
from trunkline_server.engine.attempt import Services
from trunkline_server.engine.bounds import fit, keep_within
from trunkline_server.engine.call import Call, Course, total_cost
from trunkline_server.engine.needs import embed_query, generate_query, unmet_needs
from trunkline_server.engine.operations import EMBED, GENERATE
from trunkline_server.engine.ports import Affinity, Send
from trunkline_server.engine.stream import SendDelta, StreamLoop
from trunkline_server.engine.table import Table
from trunkline_server.engine.unary import UnaryLoop
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.explain import decide_into, explain
from trunkline_server.routing.plan import plan
from trunkline_server.routing.query import Query
from trunkline_server.routing.snapshot import Deployment


class Work:
    """Does what a call asks for when nothing that was kept answers it.

    Each of its three methods closes the books of the call whose work it is, before the answer
    leaves. `table` is the one in force, with which the work begins and ends.
    """

    def __init__(self, services: Services, accounts: Accounts, table: Table) -> None:
        self._services = services
        self._accounts = accounts
        self.table = table
        # None: nobody remembers where prompts went. May be replaced as the table may.
        self.affinity: Affinity | None = None

    async def generate(self, call: Call, request: v1.GenerateRequest) -> v1.GenerateResponse:
        """Carries a call out. Raises TrunklineError."""
        call = self._whose(call)
        try:
            permitted = self.table.permitted_models(call.caller, request.model)
            query = self.bounded(call, generate_query(request, False, permitted))
            if self.affinity is not None:
                query.warmth = self.affinity.warmth(call, request)
            course = self.plan_for(call, query)
            await self._reserve(call, course)
            loop = UnaryLoop(self._services, course, GENERATE, request, call)
            target, response = await loop.run(_hedge(call, request))
            call.finish_reason = response.finish_reason
            self._complete(call, course, target, response)
            if self.affinity is not None:
                self.affinity.answered(call, target.name)
        except BaseException as failure:
            await self._accounts.end_failed(call, failure)
            raise
        await self._accounts.close(call)
        return response

    async def embed(self, call: Call, request: v1.EmbedRequest) -> v1.EmbedResponse:
        """As `generate`."""
        call = self._whose(call)
        # What was kept is not asked for again.
        call.request = request
        try:
            permitted = self.table.permitted_models(call.caller, request.model)
            query = self.bounded(call, embed_query(request, permitted))
            course = self.plan_for(call, query)
            await self._reserve(call, course)
            loop = UnaryLoop(self._services, course, EMBED, request, call)
            target, response = await loop.run(_hedge(call, request))
            self._complete(call, course, target, response)
        except BaseException as failure:
            await self._accounts.end_failed(call, failure)
            raise
        await self._accounts.close(call)
        return response

    async def stream(
        self,
        call: Call,
        request: v1.GenerateRequest,
        send: Send,
        send_delta: SendDelta | None = None,
    ) -> None:
        """As `generate`, each event through `send`; a delta through `send_delta` if given."""
        call = self._whose(call)
        try:
            permitted = self.table.permitted_models(call.caller, request.model)
            query = self.bounded(call, generate_query(request, True, permitted))
            if self.affinity is not None:
                query.warmth = self.affinity.warmth(call, request)
            course = self.plan_for(call, query)
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
                send_delta=send_delta or whole(send),
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
            await self._accounts.end_failed(call, failure)
            raise
        # The books first: whoever has seen the end has been accounted for.
        await self._accounts.close(call)
        await send(v1.StreamGenerateResponse(end=end))

    def bounded(self, call: Call, query: Query) -> Query:
        """The query with what access rules ask of it; raises for what its caller may not have.

        Before anything is looked up: cached answers are as much bounded as new ones.
        """
        query.constraints = call.constraints
        if call.bounds is not None:
            keep_within(call.bounds, call.request, query)
        return query

    def plan_for(self, call: Call, query: Query) -> Course:
        """The course of a call, which it keeps. Raises TrunklineError when nothing may serve it."""
        table = self.table
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

    def _whose(self, call: Call) -> Call:
        """The call whose books the work that begins now will close: the one that brought it, or
        another in its place if that one is over and others wait."""
        if call.ended:
            call = call.successor()
            self._accounts.begin(call)
        call.working = True
        return call

    async def _reserve(self, call: Call, course: Course) -> None:
        admission = self._services.admission
        if admission is not None and admission.active:
            call.grant = await admission.admit(call, course.plan)

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


def whole(send: Send) -> SendDelta:
    """Sends a delta as an event for who looks into it."""
    return lambda delta: send(v1.StreamGenerateResponse(delta=delta))


def _hedge(call: Call, request: v1.GenerateRequest | v1.EmbedRequest) -> bool | None:
    if call.bounds is not None and not call.bounds.permits("hedge"):
        return False
    if not request.HasField("routing"):
        return None
    return request.routing.hedge if request.routing.HasField("hedge") else None
