"""Gemini streams: each server-sent event is a whole GenerateContentResponse."""

from collections.abc import Sequence
from itertools import groupby

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.gemini_decode import (
    BESIDE_CONTENT,
    filter_findings,
    finish_reason,
    finish_word,
    first_candidate,
    read_usage,
    searches,
)
from trunkline_server.providers.gemini_grounding import note_grounding
from trunkline_server.providers.gemini_json import (
    Json,
    list_at,
    object_at,
    read_document,
    text_at,
)
from trunkline_server.providers.gemini_parts import PartReader, Piece
from trunkline_server.providers.references import References


class GeminiStreamDecoder:
    """As codec.StreamDecoder asks. The vendor's end mark is a finish reason."""

    def __init__(self) -> None:
        self.model = ""
        self.response_id = ""
        self.usage = v1.Usage()
        self._reader = PartReader()
        self._word = ""
        # The text parts so far, which the vendor's account of its sources is about; that account
        # as far as it came, until it is handed out.
        self._texts: dict[int, str] = {}
        self._beside: Json = {}
        # By subject; what comes later tells of all that came before.
        self._findings: dict[int, list[v1.FilterFinding]] = {}

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        reply = read_document(data)
        self.model = text_at(reply, "modelVersion") or self.model
        self.response_id = text_at(reply, "responseId") or self.response_id
        read_usage(reply, self.usage)
        candidate = first_candidate(reply)
        if candidate is None:
            self._note_findings(reply, {})
            return ()
        word = finish_word(candidate)
        if word:
            self._word = word
        parts = list_at(object_at(candidate, "content"), "parts")
        pieces = self._reader.read(parts, self.response_id, ended=bool(word))
        for index, part, _ in pieces:
            if part.text:
                self._texts[index] = self._texts.get(index, "") + part.text
        deltas = [delta for piece in pieces for delta in _deltas(piece)]
        if len(candidate) > 1:
            self._note_findings(reply, candidate)
            self._beside.update(
                (name, candidate[name]) for name in BESIDE_CONTENT if candidate.get(name)
            )
        if self._word and self._beside:
            deltas += self._grounding()
        return deltas

    def _grounding(self) -> Sequence[v1.StreamDelta]:
        beside, self._beside = self._beside, {}
        references = References()
        note_grounding(beside, self._texts, references)
        self.usage.search_units += searches(beside)
        return references.take()

    def _note_findings(self, reply: Json, candidate: Json) -> None:
        for subject, group in groupby(filter_findings(reply, candidate), lambda f: f.subject):
            self._findings[subject] = list(group)

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
            filter_findings=[each for group in self._findings.values() for each in group],
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
