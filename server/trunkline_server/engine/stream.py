"""The attempt loop of streamed calls: fall back until the first delta is sent, never after."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from types import TracebackType

from trunkline import v1
from trunkline_server.engine.attempt import (
    Attempt,
    Services,
    admitted,
    deadline_passed,
    http_request,
    pause,
    timed_out,
)
from trunkline_server.engine.call import Call, Course, Pace
from trunkline_server.engine.exchange import conversation_of
from trunkline_server.engine.journey import Journey
from trunkline_server.engine.needs import estimate_usage
from trunkline_server.engine.ports import Send
from trunkline_server.engine.race import race
from trunkline_server.engine.table import Binding
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.providers.codec import StreamDecoder, WireRequest
from trunkline_server.routing.snapshot import Deployment
from trunkline_server.upstream.framing import Framing
from trunkline_server.upstream.http import HttpStream

Opening = Callable[[Deployment, str], v1.StreamStart]
SendDelta = Callable[[v1.StreamDelta], Awaitable[None]]


class StreamLoop:
    """Carries one streamed call along its plan.

    `send` takes the start event and `send_delta` each delta; they return when there is room for
    the next, which is how a slow client slows the upstream down. `opening` makes the start event
    for the deployment that begins to answer.
    """

    def __init__(
        self,
        services: Services,
        course: Course,
        request: v1.GenerateRequest,
        call: Call,
        *,
        send: Send,
        send_delta: SendDelta,
        opening: Opening,
    ) -> None:
        self._services = services
        self._table = course.table
        self._request = request
        self._call = call
        self._policy = course.plan.route.attempts
        self._send = send
        self._send_delta = send_delta
        self._opening = opening
        self._journey = Journey(services, course, call)

    async def run(self, hedge: bool | None) -> v1.StreamEnd:
        """Relays one answer and returns its end, not yet sent, without costs and attempts.

        `hedge` is the request's word on hedging; None leaves it to the route. Raises
        TrunklineError: STREAM_INTERRUPTED if the answer broke after its first delta.
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

    async def _first_words(self, target: Deployment, hedge_delay: float | None) -> "_Answer":
        if hedge_delay is None:
            return await self._open(target, False)
        _, answer = await race(self._open, target, hedge_delay, self._journey, _Answer.cancel)
        return answer

    async def _open(self, target: Deployment, hedged: bool) -> "_Answer":
        """Begins an answer and reads it up to its first delta, or to its end if it has none."""
        binding = self._table.binding(target)
        endpoint = binding.endpoint
        codec = endpoint.codec
        wire = codec.encode_generate(self._request, binding.target, stream=True)
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
        answer = _Answer(attempt, codec.stream_decoder(), endpoint.framing())
        remaining = self._call.deadline - attempt.started
        patience = _Patience(remaining, self._policy.first_byte_timeout, self._left)
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
                    answer.finish(self._request)
        return answer

    async def _ask(
        self, answer: "_Answer", binding: Binding, wire: WireRequest
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

    async def _relay(self, answer: "_Answer") -> v1.StreamEnd:
        """Sends what has been read and what is still to come."""
        now = self._services.clock.monotonic()
        answer.attempt.first_token = now - answer.attempt.started
        self._call.first_token = now
        monotonic = self._services.clock.monotonic
        pace = None
        if self._services.books is not None:
            pace = self._call.pace = Pace(now)
        patience = _Patience(self._call.deadline - now, 0.0, self._left)
        send, idle_timeout = self._send_delta, self._policy.idle_timeout
        with answer.settled(patience):
            async with patience:
                start = self._opening(answer.attempt.target, answer.decoder.model)
                await self._send(v1.StreamGenerateResponse(start=start))
                for delta in answer.sending():
                    await send(delta)
                patience.for_next_chunk(idle_timeout)
                async for chunk in answer.more():
                    # A slow client must not make the upstream look idle.
                    patience.until_deadline()
                    answer.read(chunk)
                    if pace is not None and answer.unsent:
                        pace.chunk(monotonic())
                    for delta in answer.sending():
                        await send(delta)
                    patience.for_next_chunk(idle_timeout)
                if answer.end is None:
                    answer.finish(self._request)
                    for delta in answer.sending():
                        await send(delta)
        return answer.succeed()

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


class _Answer:
    """One streamed attempt: what has come of it, and what of that is not yet sent."""

    def __init__(self, attempt: Attempt, decoder: StreamDecoder, parser: Framing) -> None:
        self.attempt = attempt
        self.decoder = decoder
        self._chunks: AsyncIterator[bytes] | None = None
        self.unsent: list[v1.StreamDelta] = []
        self.sent_chars = 0
        self.end: v1.StreamEnd | None = None
        self._parser = parser
        self._response: HttpStream | None = None

    def opened(self, response: HttpStream) -> None:
        """Notes the response, which is then closed with the answer; one that was refused before
        it has been read to its end."""
        self._response = response

    def more(self) -> AsyncIterator[bytes]:
        """The chunks not yet read."""
        if self._chunks is None:
            if self._response is None:
                raise AssertionError("an answer is read after it was opened")
            self._chunks = self._response.chunks()
        return self._chunks

    def read(self, chunk: bytes) -> None:
        """Decodes what a chunk completes. Raises UpstreamError."""
        for event, data in self._parser.feed(chunk):
            self.unsent += self.decoder.feed(event, data)

    def sending(self) -> Iterator[v1.StreamDelta]:
        """The unsent, each counted as sent when it is taken."""
        for delta in self.unsent:
            self.sent_chars += delta.ByteSize()
            yield delta
        self.unsent.clear()

    def finish(self, request: v1.GenerateRequest) -> None:
        """Takes the end of the body for the end of the answer. Raises UpstreamError if the
        vendor's own end mark is missing."""
        for event, data in self._parser.finish():
            self.unsent += self.decoder.feed(event, data)
        end = self.decoder.finish()
        if not end.usage.source:
            pending = sum(delta.ByteSize() for delta in self.unsent)
            end.usage.CopyFrom(estimate_usage(request, self.sent_chars + pending))
        self.end = end

    def succeed(self) -> v1.StreamEnd:
        """Closes the books of an answer that has ended in order, and gives its end."""
        if self._response is None or self.end is None:
            raise AssertionError("an answer succeeds after its end")
        self._response.abort()
        self.attempt.succeed(self._response.status, self.end.usage)
        return self.end

    def cancel(self) -> None:
        """Gives the attempt up: the upstream is closed, and what it may bill is booked."""
        self.attempt.abandoned(self.decoder.usage, self.sent_chars)
        self.attempt.cancel()
        self._close()

    @contextmanager
    def settled(self, patience: "_Patience") -> Generator[None]:
        """Closes the upstream and the books when what is done inside fails."""
        try:
            yield
        except UpstreamError as error:
            self._fail(error)
            raise
        except TimeoutError:
            late = timed_out(*patience.exceeded())
            self._fail(late)
            raise late from None
        except BaseException:
            self.cancel()
            raise

    def _fail(self, error: UpstreamError) -> None:
        # A failure before the first delta is billed by no vendor, but for one that may have
        # been writing all the time.
        if self.sent_chars or error.reason == v1.ERROR_REASON_TIMEOUT:
            self.attempt.abandoned(self.decoder.usage, self.sent_chars)
        self.attempt.fail(error)
        self._close()

    def _close(self) -> None:
        if self._response is not None:
            self._response.abort()


class _Patience:
    """How long a stream may keep the router waiting: for its first byte, for the next chunk,
    and in all. Seconds. As a context, it raises TimeoutError inside when that is exceeded.

    Setting a timer costs more than a chunk may: one that rings too early is left standing, and
    set anew when it rings.
    """

    def __init__(
        self, remaining: float, first_byte_timeout: float, left: Callable[[], float]
    ) -> None:
        """`left` says how much time there is by now."""
        self._left = left
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._deadline = now + remaining
        self._what = "first byte"
        self._seconds = first_byte_timeout or remaining
        self._due = now + min(self._seconds, remaining)
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._set_timer()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def until_deadline(self) -> None:
        """Only the deadline counts."""
        self._due = self._deadline

    def for_next_chunk(self, seconds: float) -> None:
        """The next chunk has `seconds`; zero means until the deadline."""
        self._what = "next chunk"
        self._seconds = seconds
        if seconds:
            self._due = min(self._loop.time() + seconds, self._deadline)
            if self._due < self._rings_at:
                self._timer.cancel()
                self._set_timer()

    def exceeded(self) -> tuple[str, float]:
        """What did not come, and the seconds it had."""
        return self._what, self._seconds

    def _set_timer(self) -> None:
        self._rings_at = self._due
        self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        if self._deadline <= self._due <= now and (left := self._left()) > 0:
            # It was the deadline that counted, and it has moved.
            self._due = self._deadline = now + left
        if self._due <= now:
            self._timeout.reschedule(now)
        else:
            self._set_timer()
