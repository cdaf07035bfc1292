"""Streamed answers of InvokeModelWithResponseStream: events of the body's own kind in frames.

Each frame holds one `chunk`, whose `bytes` are what the model would have streamed itself. The
service adds fields of its own, which begin with "amazon-bedrock": what a guardrail did, and with
the last chunk the counts of tokens.
"""

import base64
from collections.abc import Sequence
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.anthropic_stream import AnthropicStreamDecoder
from trunkline_server.providers.bedrock_decode import SHAPE_ERRORS, read_usage
from trunkline_server.providers.bedrock_errors import bad_response, stream_failure
from trunkline_server.providers.bedrock_guardrail import INTERVENED, native_findings
from trunkline_server.providers.bedrock_stream import EVENTS, BedrockStreamDecoder
from trunkline_server.providers.bedrock_text import Piece, count, finish_reason, read_piece
from trunkline_server.providers.codec import StreamDecoder
from trunkline_server.providers.openai_stream import OpenAIStreamDecoder

Body = dict[str, Any]

_METRICS = "amazon-bedrock-invocationMetrics"
_FAILURES = ("exception:", "error:")


class BedrockInvokeDecoder:
    """Decodes one streamed answer; see StreamDecoder. The first chunk's shape says whose it is."""

    def __init__(self) -> None:
        self.model = ""
        self.response_id = ""
        # The body's own counts, or else the service's.
        self.usage = v1.Usage()
        self._inner: StreamDecoder | None = None
        self._metrics = v1.Usage()
        self._intervened = False
        self._findings: list[v1.FilterFinding] = []

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        """The deltas of one chunk. Events of unknown names are passed over."""
        if event != "chunk":
            if event.startswith(_FAILURES):
                raise stream_failure(event.partition(":")[2], data)
            return ()
        try:
            raw = base64.b64decode(orjson.loads(data)["bytes"], validate=True)
            chunk = orjson.loads(raw)
            self._note(chunk)
            if self._inner is None:
                self._inner = _decoder_of(chunk)
        except SHAPE_ERRORS:
            raise bad_response("a stream chunk that makes no sense") from None
        deltas = self._inner.feed("", raw)
        self.model = self._inner.model
        self.response_id = self._inner.response_id
        self.usage = self._inner.usage if self._inner.usage.source else self._metrics
        return deltas

    def finish(self) -> v1.StreamEnd:
        """The end, once the body's own was seen."""
        if self._inner is None:
            raise UpstreamError(
                v1.ERROR_REASON_STREAM_INTERRUPTED,
                "the provider's stream ended before it began",
                http_status=200,
            )
        end = self._inner.finish()
        if not end.usage.source and self.usage.source:
            end.usage.CopyFrom(self.usage)
        if self._intervened:
            end.finish_reason = v1.FINISH_REASON_CONTENT_FILTER
        end.filter_findings.extend(self._findings)
        return end

    def _note(self, chunk: Body) -> None:
        metrics = chunk.get(_METRICS)
        if metrics:
            usage = v1.Usage()
            counts = {"inputTokens": "inputTokenCount", "outputTokens": "outputTokenCount"}
            named = {name: metrics.get(told) for name, told in counts.items()}
            read_usage({**metrics, **named}, usage)
            self._metrics = usage
        if chunk.get("amazon-bedrock-guardrailAction") == INTERVENED:
            self._intervened = True
        self._findings += native_findings(chunk)


def _decoder_of(chunk: Body) -> StreamDecoder:
    if not EVENTS.isdisjoint(chunk):
        return _NovaDecoder()
    if "choices" in chunk:
        return OpenAIStreamDecoder()
    if "type" in chunk and "completion" not in chunk:
        return AnthropicStreamDecoder()
    return _TextDecoder()


class _NovaDecoder(BedrockStreamDecoder):
    """Converse's own events, each an object of one field that is named after it."""

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        deltas: list[v1.StreamDelta] = []
        for name, body in orjson.loads(data).items():
            if name in EVENTS:
                deltas += super().feed(name, orjson.dumps(body))
        return deltas


class _TextDecoder:
    """Pieces of one completion. It has ended when a chunk says why, or tells the counts."""

    def __init__(self) -> None:
        self.model = ""
        self.response_id = ""
        self.usage = v1.Usage()
        self._word = ""
        self._read: int | None = None
        self._written: int | None = None
        self._empty = True
        self._ended = False

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        try:
            chunk = orjson.loads(data)
            piece = read_piece(chunk)
        except SHAPE_ERRORS:
            raise bad_response("a stream chunk that makes no sense") from None
        self._word = piece.word or self._word
        self._read = self._read if piece.read is None else piece.read
        self._written = self._written if piece.written is None else piece.written
        count(Piece("", "", self._read, self._written), self.usage)
        self._ended = self._ended or bool(piece.word) or "amazon-bedrock-trace" in chunk
        if not piece.text:
            return ()
        self._empty = False
        return [v1.StreamDelta(text=piece.text)]

    def finish(self) -> v1.StreamEnd:
        if not self._ended:
            raise UpstreamError(
                v1.ERROR_REASON_STREAM_INTERRUPTED,
                "the provider's stream ended before it said why",
                http_status=200,
            )
        end = v1.StreamEnd(finish_reason=finish_reason(self._word), vendor_finish_reason=self._word)
        if self.usage.source:
            end.usage.CopyFrom(self.usage)
        return end
