"""The codec: the contract's messages to the vendor's bytes and back.

It imports the contract and `trunkline_server.providers.api`, and does nothing but translate: no
network, no clock, no state between calls.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline import v1
from trunkline_server.providers.api import (
    CodecTarget,
    UpstreamError,
    WireRequest,
    invalid,
    reason_for_status,
    retry_after_seconds,
    shorten,
)


class ParrotStreamDecoder:
    """Reads one stream."""

    def __init__(self) -> None:
        self.model = ""
        self.response_id = ""
        self.usage = v1.Usage()
        self._done = False

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        document = _load(data)
        if document.get("done"):
            self._done = True
            _count(document, self.usage)
            return ()
        return (v1.StreamDelta(text=str(document.get("word", ""))),)

    def finish(self) -> v1.StreamEnd:
        if not self._done:
            raise UpstreamError(v1.ERROR_REASON_STREAM_INTERRUPTED, "the parrot flew away")
        return v1.StreamEnd(finish_reason=v1.FINISH_REASON_STOP, usage=self.usage)


class ParrotCodec:
    """The dialect."""

    dialect = "parrot"
    # The version of trunkline_server.providers.api that it was written for.
    api_version = 1

    def encode_generate(
        self, request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
    ) -> WireRequest:
        if request.tools:
            raise invalid("tools", "parrots use none")
        last = request.messages[-1]
        place = f"messages[{len(request.messages) - 1}]"
        for index, part in enumerate(last.parts):
            if part.WhichOneof("kind") != "text":
                raise invalid(f"{place}.parts[{index}]", "parrots hear words only")
        text = " ".join(part.text for part in last.parts)
        body = {"model": target.provider_model, "text": text, "stream": stream}
        return WireRequest("/repeat", json.dumps(body).encode())

    def decode_generate(self, body: bytes, into: v1.GenerateResponse) -> None:
        document = _load(body)
        into.message.role = v1.ROLE_ASSISTANT
        into.message.parts.add().text = str(document.get("said", ""))
        into.finish_reason = v1.FINISH_REASON_STOP
        _count(document, into.usage)

    def stream_decoder(self) -> ParrotStreamDecoder:
        return ParrotStreamDecoder()

    def encode_embed(self, request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
        raise invalid("model", "parrots do not embed")

    def decode_embed(self, body: bytes, into: v1.EmbedResponse) -> None:
        raise AssertionError("nothing was asked for")

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return UpstreamError(
            reason_for_status(status),
            shorten(body.decode(errors="replace")) or f"status {status}",
            http_status=status,
            retry_after=retry_after_seconds(headers),
        )


def _load(data: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise UpstreamError(
            v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, "the parrot squawked", http_status=200
        )
    return document


def _count(document: Mapping[str, Any], into: v1.Usage) -> None:
    into.input_tokens = int(document.get("heard_words", 0))
    into.output_tokens = int(document.get("said_words", 0))
    into.source = v1.USAGE_SOURCE_PROVIDER
