"""The attempt loop of streamed calls: fall back until the first delta is sent, never after."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from trunkline import v1
from trunkline_server.engine.attempt import (
    Attempt,
    Services,
    deadline_passed,
    http_request,
    pause,
    timed_out,
)
from trunkline_server.engine.call import Call, Course
from trunkline_server.engine.journey import Journey
from trunkline_server.engine.needs import estimate_usage
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.providers.codec import StreamDecoder
from trunkline_server.routing.snapshot import Deployment
from trunkline_server.upstream.http import HttpStream
from trunkline_server.upstream.sse import SseParser

Send = Callable[[v1.StreamGenerateResponse], Awaitable[None]]
Opening = Callable[[Deployment, str], v1.StreamStart]


class StreamLoop:
    """Carries one streamed call along its plan.

    `send` takes each event and returns when there is room for the next, which is how a slow
    client slows the upstream down. `opening` makes the start event for the deployment that
    begins to answer.
    """

    def __init__(
        self,
        services: Services,
        course: Course,
        request: v1.GenerateRequest,
        call: Call,
        *,
        send: Send,
        opening: Opening,
    ) -> None:
        self._services = services
        self._table = course.table
        self._request = request
        self._call = call
        self._policy = course.plan.route.attempts
        self._send = send
        self._opening = opening
        self._journey = Journey(services, course, call)
        self._begun = False
        self._sent_chars = 0

    async def run(self) -> v1.StreamEnd:
        """Relays one answer and returns its end, not yet sent, without costs and attempts.

        Raises TrunklineError: STREAM_INTERRUPTED if the answer broke after its first delta.
        """
        step = self._journey.first()
        while True:
            await pause(step.delay)
            try:
                return await self._attempt(step.target)
            except TrunklineError as error:
                if self._begun:
                    raise self._broken(step.target, error) from error
                step = self._journey.after(step.target, error)

    async def _attempt(self, target: Deployment) -> v1.StreamEnd:
        binding = self._table.binding(target)
        codec = binding.endpoint.codec
        wire = codec.encode_generate(self._request, binding.target, stream=True)
        attempt = Attempt(self._services, self._table, self._call, target, hedged=False)
        decoder = codec.stream_decoder()
        response: HttpStream | None = None
        patience = _Patience(self._call.deadline - attempt.started, self._policy.first_byte_timeout)
        try:
            async with patience.timer:
                response = await self._services.http.open(
                    http_request(binding.endpoint, wire, self._call)
                )
                if not 200 <= response.status < 300:
                    body = await response.read()
                    raise codec.decode_error(response.status, response.headers, body)
                await self._relay(response, decoder, attempt, patience)
                end = decoder.finish()
                if not end.usage.source:
                    end.usage.CopyFrom(estimate_usage(self._request, self._sent_chars))
                if not self._begun:
                    await self._begin(attempt, decoder)
        except UpstreamError as error:
            if self._begun:
                attempt.abandoned(decoder.usage, self._sent_chars)
            attempt.fail(error)
            raise
        except TimeoutError:
            attempt.abandoned(decoder.usage, self._sent_chars)
            late = timed_out(*patience.exceeded())
            attempt.fail(late)
            raise late from None
        except BaseException:
            attempt.abandoned(decoder.usage, self._sent_chars)
            attempt.cancel()
            raise
        finally:
            if response is not None:
                response.abort()
        attempt.succeed(response.status, end.usage)
        return end

    async def _relay(
        self,
        response: HttpStream,
        decoder: StreamDecoder,
        attempt: Attempt,
        patience: "_Patience",
    ) -> None:
        parser = SseParser()
        async for chunk in response.chunks():
            # A slow client must not make the upstream look idle.
            patience.until_deadline()
            for event, data in parser.feed(chunk):
                await self._forward(decoder.feed(event, data), decoder, attempt)
            patience.for_next_chunk(self._policy.idle_timeout)
        for event, data in parser.finish():
            await self._forward(decoder.feed(event, data), decoder, attempt)

    async def _forward(
        self,
        deltas: Sequence[v1.StreamDelta],
        decoder: StreamDecoder,
        attempt: Attempt,
    ) -> None:
        for delta in deltas:
            if not self._begun:
                await self._begin(attempt, decoder)
            self._sent_chars += delta.ByteSize()
            await self._send(v1.StreamGenerateResponse(delta=delta))

    async def _begin(self, attempt: Attempt, decoder: StreamDecoder) -> None:
        now = self._services.clock.monotonic()
        attempt.first_token = now - attempt.started
        self._call.first_token = now
        self._begun = True
        start = self._opening(attempt.target, decoder.model)
        await self._send(v1.StreamGenerateResponse(start=start))

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


class _Patience:
    """How long a stream may keep the router waiting: for its first byte, for the next chunk,
    and in all. Seconds."""

    def __init__(self, remaining: float, first_byte_timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + remaining
        self._what = "first byte"
        self._seconds = first_byte_timeout or remaining
        self.timer = asyncio.timeout(min(self._seconds, remaining))

    def until_deadline(self) -> None:
        """Only the deadline counts."""
        self.timer.reschedule(self._deadline)

    def for_next_chunk(self, seconds: float) -> None:
        """The next chunk has `seconds`; zero means until the deadline."""
        self._what = "next chunk"
        self._seconds = seconds
        if seconds:
            self.timer.reschedule(min(self._loop.time() + seconds, self._deadline))

    def exceeded(self) -> tuple[str, float]:
        """What did not come, and the seconds it had."""
        return self._what, self._seconds
