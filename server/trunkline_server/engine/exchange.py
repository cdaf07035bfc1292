"""Attempts whose answer takes several requests: asked one after the other, within the attempt's
one deadline and on its books, and called off at the vendor when nobody waits for it any more."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

import structlog

from trunkline import v1
from trunkline_server.engine.attempt import Attempt, Services, http_request, pause
from trunkline_server.engine.call import Call
from trunkline_server.engine.table import Binding, Following
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.codec import WireRequest
from trunkline_server.providers.exchange import LAST_REPLY, Ask
from trunkline_server.upstream.http import HttpRequest, HttpResponse, HttpStream

# How long the answer to a request is waited for whose call is over already: it tells what is to
# be called off. And for the answer to calling it off. Seconds.
_PATIENCE = 30.0
# How often a reply that got lost is asked for again, before the work counts as lost. Asking costs
# nothing, and beginning anew would pay for the work twice.
_MORE_TRIES = 4
_LEAST_PAUSE = 0.5
_PASSING = frozenset(
    {
        v1.ERROR_REASON_RATE_LIMIT,
        v1.ERROR_REASON_SERVICE_UNAVAILABLE,
        v1.ERROR_REASON_TIMEOUT,
        v1.ERROR_REASON_BAD_PROVIDER_RESPONSE,
    }
)


class Conversation:
    """One attempt's exchange with a vendor.

    A cancellation inside `fetch` or `open`, which is also how a deadline ends them, has the
    vendor's work called off; so has `abandon`. That is done in the background: the caller is gone.
    """

    def __init__(
        self,
        services: Services,
        binding: Binding,
        following: Following,
        attempt: Attempt,
        call: Call,
        *,
        stream: bool,
        seconds: float,
    ) -> None:
        """`seconds` is the time that the attempt has."""
        self._services = services
        self._endpoint = binding.endpoint
        self._sites = following.sites
        self._attempt = attempt
        self._call = call
        self._seconds = seconds
        self._exchange = following.codec.exchange(binding.target, stream=stream)
        self._over = False

    async def fetch(self, wire: WireRequest) -> HttpResponse:
        """The answer, read whole; or the vendor's refusal of the first request, with a status
        that is not 2xx. Raises UpstreamError."""
        reply = await self._begin(wire)
        if not 200 <= reply.status < 300:
            return reply
        try:
            reply = await self._settled(reply)
        except BaseException:
            self.abandon()
            raise
        self._over = True
        return reply

    async def open(self, wire: WireRequest) -> HttpStream:
        """The stream of the answer; or a refusal, as of `fetch`. Raises UpstreamError."""
        reply = await self._begin(wire)
        if not 200 <= reply.status < 300:
            return _Refusal(reply)
        try:
            ask = self._exchange.follow(reply.body)
            while ask is not None and not ask.streamed:
                ask = self._exchange.follow((await self._ask(ask)).body)
            if ask is None:
                raise UpstreamError(
                    v1.ERROR_REASON_BAD_PROVIDER_RESPONSE,
                    "the provider gave no stream",
                    http_status=reply.status,
                )
            await pause(ask.after)
            stream = await self._services.http.open(self._request(ask))
            if not 200 <= stream.status < 300:
                body = await stream.read()
                raise self._endpoint.codec.decode_error(stream.status, stream.headers, body)
        except BaseException:
            self.abandon()
            raise
        return _Stream(self, stream)

    async def rest(self) -> bytes:
        """The reply that comes after the stream; empty if there is none. Raises UpstreamError."""
        ask = self._exchange.rest()
        body = b""
        if ask is not None:
            body = (await self._settled(await self._ask(ask))).body
        self._over = True
        return body

    def abandon(self) -> None:
        """Nobody waits for the answer any more. Idempotent."""
        if self._over:
            return
        self._over = True
        ask = self._exchange.abandon()
        if ask is not None:
            self._services.errands.start(self._call_off(ask))

    async def _begin(self, wire: WireRequest) -> HttpResponse:
        """Sends the first request. If the call ends before its answer has come, the answer is
        waited for in the background, because it alone tells what there is to call off."""
        wire = self._exchange.first(wire, self._seconds)
        request = http_request(self._endpoint, wire, self._call, self._attempt.headers)
        begun = self._services.errands.start(self._services.http.fetch(request))
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            self._services.errands.start(self._take_back(begun))
            raise

    async def _take_back(self, begun: "asyncio.Task[HttpResponse]") -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                reply = await begun
        except (UpstreamError, TimeoutError) as error:
            self._left_running(error)
            return
        if 200 <= reply.status < 300:
            # A reply that tells of a failure leaves nothing to call off.
            with suppress(UpstreamError):
                self._exchange.follow(reply.body)
            self.abandon()

    async def _settled(self, reply: HttpResponse) -> HttpResponse:
        """The reply that is the answer."""
        while (ask := self._exchange.follow(reply.body)) is not None:
            reply = await self._ask(ask)
        return reply

    async def _ask(self, ask: Ask) -> HttpResponse:
        """A reply of status 2xx, asked for again where one got lost."""
        delay = ask.after
        for tries_left in range(_MORE_TRIES, -1, -1):
            await pause(delay)
            try:
                reply = await self._services.http.fetch(self._request(ask))
                self._attempt.answered(reply.headers, self._endpoint.gateway)
                if 200 <= reply.status < 300:
                    return reply
                raise self._endpoint.codec.decode_error(reply.status, reply.headers, reply.body)
            except UpstreamError as error:
                if self._attempt.repeats(error):
                    delay = 0.0
                    continue
                if error.reason not in _PASSING or not tries_left:
                    raise
                delay = max(ask.after, error.retry_after or 0.0, _LEAST_PAUSE)
        raise AssertionError("the last try returns or raises")

    def _request(self, ask: Ask) -> HttpRequest:
        endpoint = self._endpoint
        # Credentials stay where they belong.
        own = self._attempt.headers if self._sites.own(ask.url) else ()
        return HttpRequest(
            ask.method,
            ask.url,
            (*own, *ask.headers),
            b"",
            endpoint.connect_timeout,
            endpoint.header_timeout,
            endpoint.max_body_bytes,
        )

    async def _call_off(self, ask: Ask) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._ask(ask)
        except (UpstreamError, TimeoutError) as error:
            self._left_running(error)

    def _left_running(self, error: UpstreamError | TimeoutError) -> None:
        """Notes that a vendor may go on working, at the operator's cost."""
        told = error.message if isinstance(error, UpstreamError) else "no answer in time"
        structlog.get_logger().warning(
            "a call was not called off at its provider",
            provider=self._endpoint.provider,
            call_id=self._call.id,
            error=self._endpoint.credential.redacted(told, self._attempt.headers),
        )


def conversation_of(
    services: Services,
    binding: Binding,
    attempt: Attempt,
    call: Call,
    *,
    stream: bool,
    seconds: float,
) -> Conversation:
    """The conversation of an attempt at a provider whose answers take one."""
    following = binding.endpoint.following
    if following is None:
        raise AssertionError("this provider's answers take one request")
    return Conversation(services, binding, following, attempt, call, stream=stream, seconds=seconds)


class _Refusal:
    """An HttpStream of a response that has been read."""

    def __init__(self, reply: HttpResponse) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._body = reply.body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    async def read(self) -> bytes:
        return self._body

    def abort(self) -> None:
        pass


class _Stream:
    """An HttpStream whose body is followed by the reply that completes it, framed as an event."""

    def __init__(self, conversation: Conversation, stream: HttpStream) -> None:
        self.status = stream.status
        self.headers: Mapping[str, str] = stream.headers
        self._conversation = conversation
        self._stream = stream
        self._ended = False

    def chunks(self) -> AsyncIterator[bytes]:
        self._chunks = self._stream.chunks()
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._ended = True
        body = await self._conversation.rest()
        if not body:
            raise StopAsyncIteration
        lines = b"".join(b"data: %b\n" % line for line in body.splitlines())
        return b"\n\nevent: %b\n%b\n" % (LAST_REPLY.encode(), lines)

    async def read(self) -> bytes:
        return await self._stream.read()

    def abort(self) -> None:
        self._stream.abort()
        self._conversation.abandon()
