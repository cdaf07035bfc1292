"""Carrying out what is neither cached nor shared: pictures, transcripts, orders, speech, counts."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from trunkline import v1
from trunkline_server.engine.answers import SpokenAnswer
from trunkline_server.engine.call import Call, Course, total_cost
from trunkline_server.engine.media import CountTokens, MediaOperation
from trunkline_server.engine.needs import estimate_tokens, speech_query
from trunkline_server.engine.operations import RequestT
from trunkline_server.engine.planned import Planned, hedge_wish
from trunkline_server.engine.requests import Request
from trunkline_server.engine.stream import Speaking, StreamLoop
from trunkline_server.engine.unary import UnaryLoop
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.query import Query
from trunkline_server.routing.snapshot import Deployment

AnsweredT = TypeVar("AnsweredT", v1.GenerateImageResponse, v1.TranscribeResponse, v1.RerankResponse)
SendSpeech = Callable[[v1.SynthesizeResponse], Awaitable[None]]

# Why a vendor did not count that does not keep the router from an estimate: it says something of
# the vendor, and nothing of the conversation.
_NO_COUNT = frozenset(
    {
        v1.ERROR_REASON_SERVICE_UNAVAILABLE,
        v1.ERROR_REASON_RATE_LIMIT,
        v1.ERROR_REASON_QUOTA_EXCEEDED,
        v1.ERROR_REASON_BAD_PROVIDER_RESPONSE,
        v1.ERROR_REASON_PROVIDER_CREDENTIALS,
        v1.ERROR_REASON_UNKNOWN,
    }
)


class MediaWork(Planned):
    """Does what a call asks for, and closes its books before the answer leaves."""

    async def answer(
        self,
        call: Call,
        request: RequestT,
        operation: MediaOperation[RequestT, AnsweredT],
    ) -> AnsweredT:
        """Carries a call out. Raises TrunklineError."""
        call.working = True
        try:
            course = self._course(call, operation.query(request, self._permitted(call, request)))
            await self._reserve(call, course)
            loop = UnaryLoop(self._services, course, operation, request, call)
            target, response = await loop.run(hedge_wish(call, request))
            self._complete(call, course, target, response)
        except BaseException as failure:
            await self._accounts.end_failed(call, failure)
            raise
        await self._accounts.close(call)
        return response

    async def speak(self, call: Call, request: v1.SynthesizeRequest, send: SendSpeech) -> None:
        """As `answer`, each event through `send`."""
        call.working = True
        try:
            course = self._course(call, speech_query(request, self._permitted(call, request)))
            await self._reserve(call, course)

            def begin(answer: SpokenAnswer) -> Awaitable[None]:
                target = answer.attempt.target
                start = v1.SynthesizeStart(
                    id=call.id,
                    model=answer.model,
                    provider=target.provider,
                    deployment=target.name,
                    media_type=answer.media_type,
                )
                call.model = answer.model
                self._decide(call, course, target, start.decision)
                return send(v1.SynthesizeResponse(start=start))

            loop: StreamLoop[SpokenAnswer, bytes, v1.SynthesizeEnd] = StreamLoop(
                self._services,
                course,
                Speaking(request),
                call,
                begin=begin,
                send=lambda piece: send(v1.SynthesizeResponse(audio=piece)),
            )
            end = await loop.run(hedge_wish(call, request))
            call.usage = end.usage
            call.cost = total_cost(call.attempts)
            end.cost.CopyFrom(call.cost)
            end.attempts.extend(call.attempts)
            self._time(call, end.timing)
        except BaseException as failure:
            await self._accounts.end_failed(call, failure)
            raise
        # The books first: whoever has seen the end has been accounted for.
        await self._accounts.close(call)
        await send(v1.SynthesizeResponse(end=end))

    async def count(
        self, call: Call, request: v1.CountTokensRequest, operation: CountTokens
    ) -> v1.CountTokensResponse:
        """As `answer`: by the vendor that the call would go to, or by the length of the text."""
        call.working = True
        try:
            course = self._course(call, operation.query(request, self._permitted(call, request)))
            await self._reserve(call, course)
            target, response = await self._counted(call, request, operation, course)
            response.id = call.id
            response.provider = target.provider
            response.deployment = target.name
            self._decide(call, course, target, response.decision)
            response.attempts.extend(call.attempts)
            self._time(call, response.timing)
            call.cost = total_cost(call.attempts)
        except BaseException as failure:
            await self._accounts.end_failed(call, failure)
            raise
        await self._accounts.close(call)
        return response

    async def _counted(
        self,
        call: Call,
        request: v1.CountTokensRequest,
        operation: CountTokens,
        course: Course,
    ) -> tuple[Deployment, v1.CountTokensResponse]:
        """The count, and the deployment that it is for: one vendor's tokens are not another's, so
        a vendor is asked only if it is the first of the plan."""
        chosen = course.plan.targets[0]
        binding = course.table.binding(chosen)
        if operation.counts(binding.endpoint.codec, request, binding.target):
            same = tuple(
                target
                for target in course.plan.targets
                if target.provider_model == chosen.provider_model
                and course.table.binding(target).endpoint.codec is binding.endpoint.codec
            )
            asking = Course(course.table, replace(course.plan, targets=same))
            try:
                loop = UnaryLoop(self._services, asking, operation, request, call)
                return await loop.run(hedge_wish(call, request))
            except TrunklineError as error:
                if error.reason not in _NO_COUNT:
                    raise
        tokens = estimate_tokens(request)
        return chosen, v1.CountTokensResponse(
            input_tokens=tokens, method=v1.TOKEN_COUNT_METHOD_ESTIMATE
        )

    def _permitted(self, call: Call, request: Request) -> frozenset[str] | None:
        return self.table.permitted_models(call.caller, request.model)

    def _course(self, call: Call, query: Query) -> Course:
        """The course of a call that says in its units what it consumes."""
        if call.units is not None:
            query.units = call.units.most
        return self.plan_for(call, self.bounded(call, query))
