"""Reads streamed answers in the Cohere dialect.

The events are those of recorded streams (tests/corpus/test_cohere.py); those of citations, which
no recorded stream holds, are as the types of the vendor's own SDK have them.
"""

from collections.abc import Sequence

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.cohere_decode import tool_call
from trunkline_server.providers.cohere_errors import reported_error
from trunkline_server.providers.cohere_json import (
    DIALECT,
    PLAN,
    THINKING,
    Json,
    finish,
    load,
    object_at,
    objects_at,
    read_usage,
    senseless,
    text_at,
)
from trunkline_server.providers.cohere_sources import read_citation
from trunkline_server.providers.references import References


class CohereStreamDecoder:
    """Turns the events of one answer into deltas; see providers.codec.StreamDecoder.

    The stream has ended in order when its message-end was seen.
    """

    def __init__(self) -> None:
        self.model = ""
        self.response_id = ""
        self.usage = v1.Usage()
        self._part_count = 0
        # Parts by the vendor's index of the content, and the first of each kind by its name.
        self._places: dict[int | str, int] = {}
        self._kinds: dict[int, str] = {}
        # Parts of calls under way, by the vendor's index.
        self._calls: dict[int, int] = {}
        self._open_reasoning: tuple[int, str] | None = None
        self._references = References()
        self._finish_word: str | None = None

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        """The deltas of one event; raises as StreamDecoder.feed says."""
        if not data or data == b"[DONE]" or self._finish_word is not None:
            return ()
        body = load(data)
        kind = text_at(body, "type") or event
        delta = object_at(body, "delta")
        deltas: list[v1.StreamDelta] = []
        match kind:
            case "message-start":
                self.response_id = text_at(body, "id")
            case "message-end":
                self._end(delta, deltas)
            case "error" | "":
                raise reported_error(body)
            case _:
                # Events of a kind that is not known, and ends of pieces, say nothing.
                index = body.get("index")
                self._piece(
                    kind,
                    index if isinstance(index, int) else 0,
                    object_at(delta, "message"),
                    deltas,
                )
        return deltas

    def finish(self) -> v1.StreamEnd:
        """The end of the answer; raises as StreamDecoder.finish says."""
        if self._finish_word is None:
            raise UpstreamError(
                v1.ERROR_REASON_STREAM_INTERRUPTED,
                "the provider's stream ended before its end mark",
                http_status=200,
            )
        return v1.StreamEnd(
            finish_reason=finish(self._finish_word),
            vendor_finish_reason=self._finish_word,
            usage=self.usage if self.usage.source else None,
            model=self.model,
        )

    def _piece(self, kind: str, index: int, message: Json, deltas: list[v1.StreamDelta]) -> None:
        """Takes the next piece of the message; `index` is the vendor's."""
        match kind:
            case "content-delta" | "content-start":
                self._content(index, object_at(message, "content"), deltas)
            case "tool-plan-delta":
                self._plan(text_at(message, "tool_plan"), deltas)
            case "tool-call-start":
                for call in objects_at(message, "tool_calls"):
                    self._call(index, call, deltas)
            case "tool-call-delta":
                for call in objects_at(message, "tool_calls"):
                    self._arguments(index, object_at(call, "function"), deltas)
            case "citation-start":
                for citation in objects_at(message, "citations"):
                    read_citation(citation, self._places, self._references)
                deltas += self._references.take()

    def _content(self, index: int, content: Json, deltas: list[v1.StreamDelta]) -> None:
        if kind := text_at(content, "type"):
            self._kinds[index] = kind
        thinking = self._kinds.get(index) == "thinking" or "thinking" in content
        text = text_at(content, "thinking" if thinking else "text")
        if not text:
            return
        part = self._places.get(index)
        if part is None:
            part = self._places[index] = self._new_part(deltas)
            self._places.setdefault("thinking" if thinking else "text", part)
            if thinking:
                self._open_reasoning = (part, THINKING)
        if thinking:
            deltas.append(v1.StreamDelta(part_index=part, reasoning=text))
        else:
            deltas.append(v1.StreamDelta(part_index=part, text=text))

    def _plan(self, text: str, deltas: list[v1.StreamDelta]) -> None:
        if not text:
            return
        part = self._places.get("plan")
        if part is None:
            part = self._places["plan"] = self._new_part(deltas)
            self._open_reasoning = (part, PLAN)
        deltas.append(v1.StreamDelta(part_index=part, reasoning=text))

    def _call(self, index: int, call: Json, deltas: list[v1.StreamDelta]) -> None:
        first = tool_call(call)
        part = self._calls[index] = self._new_part(deltas)
        piece = v1.ToolCallDelta(id=first.id, name=first.name, arguments_json=first.arguments_json)
        deltas.append(v1.StreamDelta(part_index=part, tool_call=piece))

    def _arguments(self, index: int, function: Json, deltas: list[v1.StreamDelta]) -> None:
        part = self._calls.get(index)
        if part is None:
            raise senseless("arguments came for a tool call that never began")
        text = text_at(function, "arguments")
        if text:
            piece = v1.ToolCallDelta(arguments_json=text)
            deltas.append(v1.StreamDelta(part_index=part, tool_call=piece))

    def _end(self, delta: Json, deltas: list[v1.StreamDelta]) -> None:
        read_usage(object_at(delta, "usage"), self.usage)
        word = text_at(delta, "finish_reason")
        if delta.get("error"):
            raise reported_error({"message": delta["error"]})
        finish(word)
        self._close_reasoning(deltas)
        self._finish_word = word

    def _new_part(self, deltas: list[v1.StreamDelta]) -> int:
        """The next part's index; what was reasoned before is over by then."""
        self._close_reasoning(deltas)
        index = self._part_count
        self._part_count += 1
        return index

    def _close_reasoning(self, deltas: list[v1.StreamDelta]) -> None:
        if self._open_reasoning is not None:
            part, kind = self._open_reasoning
            self._open_reasoning = None
            signature = v1.Signature(dialect=DIALECT, value=kind)
            deltas.append(v1.StreamDelta(part_index=part, signature=signature))
