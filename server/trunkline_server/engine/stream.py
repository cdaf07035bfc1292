"""The attempt loop of streamed calls: fall back until the first piece is sent, never after."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, cast

from trunkline import v1
from trunkline_server.engine.answers import Answer, EndT, PieceT, SpokenAnswer, WrittenAnswer
from trunkline_server.engine.attempt import (
    Attempt,
    Services,
    admitted,
    deadline_passed,
    http_request,
    pause,
)
from trunkline_server.engine.call import Call, Course, Pace
from trunkline_server.engine.exchange import conversation_of
from trunkline_server.engine.journey import Journey
from trunkline_server.engine.media import lacking
from trunkline_server.engine.patience import Patience
from trunkline_server.engine.race import race
from trunkline_server.engine.table import Binding
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.providers.codec import Codec, CodecTarget, SpeechCodec, WireRequest
from trunkline_server.routing.snapshot import Deployment

AnswerT = TypeVar("AnswerT", bound=Answer[Any, Any])
SendDelta = Callable[[v1.StreamDelta], Awaitable[None]]


class Streamed(ABC, Generic[AnswerT]):
    """What a streamed call asks for."""

    @abstractmethod
    def encode(self, codec: Codec, target: CodecTarget) -> WireRequest:
        """The vendor's request; raises TrunklineError for what the dialect cannot carry."""

    @abstractmethod
    def answer(self, attempt: Attempt, binding: Binding) -> AnswerT:
        """What one attempt's answer is read into."""


class Writing(Streamed[WrittenAnswer]):
    """A generation."""

    def __init__(self, request: v1.GenerateRequest) -> None:
        self._request = request

    def encode(self, codec: Codec, target: CodecTarget) -> WireRequest:
        return codec.encode_generate(self._request, target, stream=True)

    def answer(self, attempt: Attempt, binding: Binding) -> WrittenAnswer:
        endpoint = binding.endpoint
        decoder = endpoint.codec.stream_decoder()
        return WrittenAnswer(attempt, decoder, endpoint.framing(), self._request)


class Speaking(Streamed[SpokenAnswer]):
    """A text that is spoken."""

    def __init__(self, request: v1.SynthesizeRequest) -> None:
        self._request = request

    def encode(self, codec: Codec, target: CodecTarget) -> WireRequest:
        if not isinstance(codec, SpeechCodec):
            raise lacking("speech")
        return codec.encode_speech(self._request, target)

    def answer(self, attempt: Attempt, binding: Binding) -> SpokenAnswer:
        codec = cast("SpeechCodec", binding.endpoint.codec)
        return SpokenAnswer(attempt, codec, self._request, binding.target)


class StreamLoop(Generic[AnswerT, PieceT, EndT]):
    """Carries one streamed call along its plan.

    `begin` is given the answer that begins, to send its start event, and `send` takes each of
    its pieces; they return when there is room for the next, which is how a slow client slows the
    upstream down.
    """

    def __init__(
        self,
        services: Services,
        course: Course,
        asked: Streamed[AnswerT],
        call: Call,
        *,
        begin: Callable[[AnswerT], Awaitable[None]],
        send: Callable[[PieceT], Awaitable[None]],
    ) -> None:
        self._services = services
        self._table = course.table
        self._asked = asked
        self._call = call
        self._policy = course.plan.route.attempts
        self._begin = begin
        self._send = send
        self._journey = Journey(services, course, call)

    async def run(self, hedge: bool | None) -> EndT:
        """Relays one answer and returns its end, not yet sent, without costs and attempts.

        `hedge` is the request's word on hedging; None leaves it to the route. Raises
        TrunklineError: STREAM_INTERRUPTED if the answer broke after its first piece.
        """
        step = self._journey.first()
        hedge_delay = self._journey.itinerary.hedge_delay(hedge, first_token=True)
        while True:
            await pause(step.delay)
            try:
                answer = await self._first_words(step.target, hedge_delay)
            except TrunklineError as error:
                step = self._journey.after(step.target, error)
                hedge_delay = None
                continue
            try:
                return await self._relay(answer)
            except TrunklineError as error:
                raise self._broken(answer.attempt.target, error) from error

    async def _first_words(self, target: Deployment, hedge_delay: float | None) -> AnswerT:
        if hedge_delay is None:
            return await self._open(target, False)
        _, answer = await race(self._open, target, hedge_delay, self._journey, _cancel)
        return answer

    async def _open(self, target: Deployment, hedged: bool) -> AnswerT:
        """Begins an answer and reads it up to its first piece, or to its end if it has none."""
        binding = self._table.binding(target)
        endpoint = binding.endpoint
        codec = endpoint.codec
        wire = self._asked.encode(codec, binding.target)
        call = self._call
        ticket = None if call.grant is None else await admitted(call, target)
        attempt = Attempt(
            self._services,
            self._table,
            call,
            target,
            endpoint.credential,
            hedged=hedged,
            ticket=ticket,
        )
        answer = self._asked.answer(attempt, binding)
        remaining = self._call.deadline - attempt.started
        patience = Patience(remaining, self._policy.first_byte_timeout, self._left)
        with answer.settled(patience):
            async with patience:
                refusal = await self._ask(answer, binding, wire)
                if refusal is not None and attempt.repeats(refusal):
                    refusal = await self._ask(answer, binding, wire)
                if refusal is not None:
                    raise refusal
                async for chunk in answer.more():
                    answer.read(chunk)
                    if answer.unsent:
                        break
                    patience.for_next_chunk(self._policy.idle_timeout)
                else:
                    answer.finish()
        return answer

    async def _ask(
        self, answer: AnswerT, binding: Binding, wire: WireRequest
    ) -> UpstreamError | None:
        """Sends the request and waits for the response's headers; gives the vendor's refusal."""
        endpoint, attempt = binding.endpoint, answer.attempt
        if endpoint.following is None:
            request = http_request(endpoint, wire, self._call, attempt.headers)
            response = await self._services.http.open(request)
        else:
            conversation = conversation_of(
                self._services, binding, attempt, self._call, stream=True, seconds=self._left()
            )
            response = await conversation.open(wire)
        answer.opened(response)
        attempt.answered(response.headers, endpoint.gateway)
        if 200 <= response.status < 300:
            return None
        body = await response.read()
        return endpoint.codec.decode_error(response.status, response.headers, body)

    async def _relay(self, answer: AnswerT) -> EndT:
        """Sends what has been read and what is still to come."""
        now = self._services.clock.monotonic()
        answer.attempt.first_token = now - answer.attempt.started
        self._call.first_token = now
        monotonic = self._services.clock.monotonic
        pace = None
        if self._services.books is not None:
            pace = self._call.pace = Pace(now)
        patience = Patience(self._call.deadline - now, 0.0, self._left)
        send, idle_timeout = self._send, self._policy.idle_timeout
        with answer.settled(patience):
            async with patience:
                await self._begin(answer)
                for piece in answer.sending():
                    await send(piece)
                patience.for_next_chunk(idle_timeout)
                async for chunk in answer.more():
                    # A slow client must not make the upstream look idle.
                    patience.until_deadline()
                    answer.read(chunk)
                    if pace is not None and answer.unsent:
                        pace.chunk(monotonic())
                    for piece in answer.sending():
                        await send(piece)
                    patience.for_next_chunk(idle_timeout)
                if answer.end is None:
                    answer.finish()
                    for piece in answer.sending():
                        await send(piece)
        end: EndT = answer.succeed()
        return end

    def _left(self) -> float:
        """How much time the call has. Those who join it may have more than it had."""
        return self._call.deadline - self._services.clock.monotonic()

    def _broken(self, target: Deployment, error: TrunklineError) -> TrunklineError:
        if self._services.clock.monotonic() >= self._call.deadline:
            return deadline_passed(self._call)
        return TrunklineError(
            v1.ERROR_REASON_STREAM_INTERRUPTED,
            f"{target.provider}: the answer broke off: {error.message}",
            metadata={
                "provider": target.provider,
                "cause": v1.ErrorReason.Name(error.reason),
            },
        )


def _cancel(answer: Answer[Any, Any]) -> None:
    answer.cancel()
