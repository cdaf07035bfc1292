"""Gemini streams: each server-sent event is a whole GenerateContentResponse."""

from collections.abc import Sequence

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.gemini_decode import (
    finish_reason,
    finish_word,
    first_candidate,
    read_usage,
)
from trunkline_server.providers.gemini_json import (
    list_at,
    object_at,
    read_document,
    text_at,
)
from trunkline_server.providers.gemini_parts import PartReader, Piece


class GeminiStreamDecoder:
    """As codec.StreamDecoder asks. The vendor's end mark is a finish reason."""

    def __init__(self) -> None:
        self.model = ""
        self.response_id = ""
        self.usage = v1.Usage()
        self._reader = PartReader()
        self._word = ""

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        reply = read_document(data)
        self.model = text_at(reply, "modelVersion") or self.model
        self.response_id = text_at(reply, "responseId") or self.response_id
        read_usage(reply, self.usage)
        candidate = first_candidate(reply)
        if candidate is None:
            return ()
        word = finish_word(candidate)
        if word:
            self._word = word
        parts = list_at(object_at(candidate, "content"), "parts")
        pieces = self._reader.read(parts, self.response_id, ended=bool(word))
        return [delta for piece in pieces for delta in _deltas(piece)]

    def finish(self) -> v1.StreamEnd:
        if not self._word:
            raise UpstreamError(
                v1.ERROR_REASON_STREAM_INTERRUPTED,
                "the provider's stream ended before the answer did",
                http_status=200,
            )
        end = v1.StreamEnd(
            finish_reason=finish_reason(self._word, calls=self._reader.has_calls),
            vendor_finish_reason=self._word,
            model=self.model,
        )
        if self.usage.source:
            end.usage.CopyFrom(self.usage)
        return end


def _deltas(piece: Piece) -> Sequence[v1.StreamDelta]:
    index, part, _ = piece
    match part.WhichOneof("kind"):
        case "text":
            delta = v1.StreamDelta(part_index=index, text=part.text)
        case "reasoning" if part.reasoning.text:
            delta = v1.StreamDelta(part_index=index, reasoning=part.reasoning.text)
        case "tool_call":
            call = part.tool_call
            delta = v1.StreamDelta(
                part_index=index,
                tool_call=v1.ToolCallDelta(
                    id=call.id, name=call.name, arguments_json=call.arguments_json
                ),
            )
        case None:
            return (v1.StreamDelta(part_index=index, signature=part.signature),)
        case _:
            return (v1.StreamDelta(part_index=index, part=part),)
    if part.HasField("signature"):
        return (delta, v1.StreamDelta(part_index=index, signature=part.signature))
    return (delta,)
