"""Carrying a call out: planned, reserved, attempted, and its answer completed."""

from collections.abc import Awaitable

from trunkline import v1
from trunkline_server.engine.accounts import Accounts
from trunkline_server.engine.answers import WrittenAnswer
from trunkline_server.engine.attempt import Services
from trunkline_server.engine.call import Call, total_cost
from trunkline_server.engine.needs import (
    embed_query,
    generate_query,
)
from trunkline_server.engine.operations import EMBED, GENERATE
from trunkline_server.engine.planned import Planned, hedge_wish
from trunkline_server.engine.ports import Affinity, Send
from trunkline_server.engine.stream import SendDelta, StreamLoop, Writing
from trunkline_server.engine.table import Table
from trunkline_server.engine.unary import UnaryLoop


class Work(Planned):
    """Does what a call asks for when nothing that was kept answers it.

    Each of its methods closes the books of the call whose work it is, before the answer
    leaves. `table` is the one in force, with which the work begins and ends.
    """

    def __init__(self, services: Services, accounts: Accounts, table: Table) -> None:
        super().__init__(services, accounts, table)
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
            target, response = await loop.run(hedge_wish(call, request))
            call.finish_reason = response.finish_reason
            self._complete(call, course, target, response)
            response.cache_status = call.cache_status
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
            target, response = await loop.run(hedge_wish(call, request))
            self._complete(call, course, target, response)
            response.cache_status = call.cache_status
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

            def begin(answer: WrittenAnswer) -> Awaitable[None]:
                target = answer.attempt.target
                start = v1.StreamStart(
                    id=call.id,
                    model=answer.model,
                    provider=target.provider,
                    deployment=target.name,
                    cache_status=call.cache_status,
                )
                self._decide(call, course, target, start.decision)
                return send(v1.StreamGenerateResponse(start=start))

            loop: StreamLoop[WrittenAnswer, v1.StreamDelta, v1.StreamEnd] = StreamLoop(
                self._services,
                course,
                Writing(request),
                call,
                begin=begin,
                send=send_delta or whole(send),
            )
            end = await loop.run(hedge_wish(call, request))
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

    def _whose(self, call: Call) -> Call:
        """The call whose books the work that begins now will close: the one that brought it, or
        another in its place if that one is over and others wait."""
        if call.ended:
            call = call.successor()
            self._accounts.begin(call)
        call.working = True
        return call


def whole(send: Send) -> SendDelta:
    """Sends a delta as an event for who looks into it."""
    return lambda delta: send(v1.StreamGenerateResponse(delta=delta))
