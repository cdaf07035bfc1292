"""A dialect made for engine tests, and a client port whose answers a test scripts.

The engine must not depend on any vendor's dialect; this one says just enough for every branch:
a body is the answer's text, a stream is one delta for each event, and "[end]" ends it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from trunkline import v1
from trunkline_server.errors import UpstreamError, invalid
from trunkline_server.providers.codec import CodecTarget, WireRequest
from trunkline_server.providers.common import reason_for_status, retry_after_seconds
from trunkline_server.upstream.http import HttpRequest, HttpResponse, HttpStream

USAGE = v1.Usage(input_tokens=10, output_tokens=5, source=v1.USAGE_SOURCE_PROVIDER)


class PlainStreamDecoder:
    """One delta for each event."""

    def __init__(self) -> None:
        self.model = "plain-1"
        self.response_id = ""
        self.usage = v1.Usage()
        self._ended = False

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        if event == "error":
            raise UpstreamError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, data.decode(), http_status=200)
        if data == b"[end]":
            self._ended = True
            self.usage = USAGE
            return ()
        return (v1.StreamDelta(text=data.decode()),)

    def finish(self) -> v1.StreamEnd:
        if not self._ended:
            raise UpstreamError(v1.ERROR_REASON_STREAM_INTERRUPTED, "no end mark")
        return v1.StreamEnd(finish_reason=v1.FINISH_REASON_STOP, usage=self.usage, model=self.model)


class PlainCodec:
    """The dialect; the flag "refuse" makes it unable to carry anything."""

    dialect = "plain"

    def encode_generate(
        self, request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
    ) -> WireRequest:
        if target.flags.get("refuse"):
            raise invalid("messages[0].parts[0]", "this dialect carries nothing")
        return WireRequest("/stream" if stream else "/generate", target.provider_model.encode())

    def decode_generate(self, body: bytes, into: v1.GenerateResponse) -> None:
        if body == b"garbage":
            raise UpstreamError(v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, "garbage", http_status=200)
        into.model = "plain-1"
        into.message.CopyFrom(
            v1.Message(role=v1.ROLE_ASSISTANT, parts=[v1.Part(text=body.decode())])
        )
        into.finish_reason = v1.FINISH_REASON_STOP
        if body != b"uncounted":
            into.usage.CopyFrom(USAGE)

    def stream_decoder(self) -> PlainStreamDecoder:
        return PlainStreamDecoder()

    def encode_embed(self, request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
        return WireRequest("/embed", b"")

    def decode_embed(self, body: bytes, into: v1.EmbedResponse) -> None:
        into.model = "plain-1"
        into.embeddings.add(values=[float(value) for value in body.split()])

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return UpstreamError(
            reason_for_status(status),
            body.decode(),
            http_status=status,
            retry_after=retry_after_seconds(headers),
        )


@dataclass
class Answer:
    """What one upstream call gives: after `delay` virtual seconds an error, or a response."""

    body: bytes = b"hello"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    error: UpstreamError | None = None
    # For streams: chunks, each after its delay; then the error, if any, or the end.
    chunks: Sequence[tuple[float, bytes]] = ()
    stream_error: UpstreamError | None = None


class ScriptedStream:
    """An HttpStream that follows an Answer."""

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self.aborted = False
        self._answer = answer

    async def chunks(self) -> AsyncIterator[bytes]:
        for delay, chunk in self._answer.chunks:
            await asyncio.sleep(delay)
            yield chunk
        if self._answer.stream_error is not None:
            raise self._answer.stream_error

    async def read(self) -> bytes:
        return self._answer.body

    def abort(self) -> None:
        self.aborted = True


class ScriptedClient:
    """An HttpClient whose answers come, per provider host, in the order they were scripted."""

    def __init__(self, script: Mapping[str, Sequence[Answer]]) -> None:
        self._script = {host: deque(answers) for host, answers in script.items()}
        self.requests: list[HttpRequest] = []
        self.cancelled = 0
        self.streams: list[ScriptedStream] = []

    @property
    def hosts(self) -> list[str]:
        """Where the requests went, in order."""
        return [request.url.split("/")[2] for request in self.requests]

    async def fetch(self, request: HttpRequest) -> HttpResponse:
        answer = await self._next(request)
        return HttpResponse(answer.status, answer.headers, answer.body)

    async def open(self, request: HttpRequest) -> HttpStream:
        stream = ScriptedStream(await self._next(request))
        self.streams.append(stream)
        return stream

    async def close(self) -> None:
        pass

    async def _next(self, request: HttpRequest) -> Answer:
        self.requests.append(request)
        answer = self._script[self.hosts[-1]].popleft()
        try:
            await asyncio.sleep(answer.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if answer.error is not None:
            raise answer.error
        return answer
