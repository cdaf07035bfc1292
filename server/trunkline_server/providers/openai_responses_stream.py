"""Reads streamed answers of the Responses API.

The events are response.created; for each output item an added event, deltas and a done event,
which holds the item whole; response.completed, .incomplete or .failed, which hold the response
whole. Events of unknown types are passed over. Items are told apart by their output_index:
GitHub's proxy gives another item_id with every event.
"""

from collections.abc import Callable, Mapping, Sequence

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.openai_errors import reported_error
from trunkline_server.providers.openai_filters import response_findings
from trunkline_server.providers.openai_messages import Json
from trunkline_server.providers.openai_parts import load, senseless, text_of
from trunkline_server.providers.openai_responses_decode import (
    CALLS,
    Outcome,
    call_fields,
    call_signature,
    message_signature,
    note_annotation,
    note_sources,
    output_items,
    part_of,
    piece_text,
    pieces_of,
    raise_failure,
    read_response_usage,
    reasoning_rest,
    reasoning_text,
)
from trunkline_server.providers.openai_responses_items import PARAGRAPH
from trunkline_server.providers.references import References

_ENDS = frozenset({"response.completed", "response.incomplete"})
_FAILURES = frozenset({"error", "response.failed", "response.cancelled"})
_BEGINNINGS = frozenset({"response.created", "response.in_progress", "response.queued"})


class _Piece:
    """A part under way: what of it was handed out, and how many of its annotations."""

    __slots__ = ("annotations", "index", "sent")

    def __init__(self, index: int) -> None:
        self.index = index
        self.sent = ""
        self.annotations = 0


class _Item:
    """An output item under way; the pieces of a message by their content_index, and the one
    piece of every other item as 0."""

    __slots__ = ("done", "item", "kind", "pieces", "section")

    def __init__(self, item: Json) -> None:
        self.item = item
        self.kind = text_of(item.get("type"))
        self.pieces: dict[int, _Piece] = {}
        # Which list of a reasoning item, and which of its entries, was last added to.
        self.section: tuple[str, int] | None = None
        self.done = False


class OpenAIResponsesStreamDecoder:
    """Turns the events of one response into deltas; see providers.codec.StreamDecoder.

    What an item's end, or the response's, holds beyond the deltas is handed out then.
    """

    def __init__(self) -> None:
        self.model = ""
        self.response_id = ""
        self.usage = v1.Usage()
        self._items: dict[int, _Item] = {}
        self._part_count = 0
        self._references = References()
        self._outcome = Outcome()
        self._end: Json | None = None

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        """The deltas of one event; raises as StreamDecoder.feed says."""
        if self._end is not None or not data or data == b"[DONE]":
            return ()
        body = load(data)
        kind = text_of(body.get("type")) or event
        handler = _HANDLERS.get(kind)
        if handler is not None:
            deltas: list[v1.StreamDelta] = []
            handler(self, body, deltas)
            return deltas
        if kind in _BEGINNINGS:
            self._opening(body)
        elif kind in _ENDS:
            return self._closing(body)
        elif kind in _FAILURES or "error" in body:
            self._failure(body)
        return ()

    def finish(self) -> v1.StreamEnd:
        """The end of the answer; raises as StreamDecoder.finish says."""
        if self._end is None:
            raise UpstreamError(
                v1.ERROR_REASON_STREAM_INTERRUPTED,
                "the provider's stream ended before its response.completed event",
                http_status=200,
            )
        reason, word = self._outcome.finish(self._end)
        return v1.StreamEnd(
            finish_reason=reason,
            vendor_finish_reason=word,
            usage=self.usage if self.usage.source else None,
            model=self.model,
            filter_findings=response_findings(self._end),
        )

    def _opening(self, body: Json) -> None:
        response = body.get("response")
        if not isinstance(response, dict):
            raise senseless("an event holds no response")
        self.model = text_of(response.get("model")) or self.model
        self.response_id = text_of(response.get("id")) or self.response_id

    def _closing(self, body: Json) -> list[v1.StreamDelta]:
        self._opening(body)
        response: Json = body["response"]
        raise_failure(response)
        deltas: list[v1.StreamDelta] = []
        for place, item in enumerate(output_items(response) or ()):
            self._whole_item(self._place_of(item, place), item, deltas)
        for item_place, under_way in self._items.items():
            if not under_way.done:
                self._whole_item(item_place, under_way.item, deltas)
        usage = response.get("usage")
        if isinstance(usage, dict):
            read_response_usage(usage, self.usage)
            self.usage.search_units = self._outcome.searches
        self._end = response
        return deltas

    def _place_of(self, item: Json, place: int) -> int:
        """Which output_index an item had, whose place in the response's list may be another: the
        list leaves out what was not to be seen."""
        for index, under_way in self._items.items():
            if under_way.item.get("id") == item.get("id") is not None:
                return index
        return place

    def _failure(self, body: Json) -> None:
        response = body.get("response")
        if isinstance(response, dict):
            raise_failure(response)
        # The error stands in the event, or is the event.
        raise reported_error(body if body.get("error") else {"error": body}) or senseless(
            "the provider sent an error that says nothing"
        )

    def _item(self, body: Json, kind: str) -> _Item:
        """The item that an event is about, begun if its own beginning was left out."""
        place = _index(body, "output_index")
        item = self._items.get(place)
        if item is None:
            item = self._items[place] = _Item({"type": kind})
        return item

    def _piece(self, item: _Item, place: int = 0) -> _Piece:
        piece = item.pieces.get(place)
        if piece is None:
            piece = item.pieces[place] = _Piece(self._part_count)
            self._part_count += 1
        return piece

    def _added(self, body: Json, deltas: list[v1.StreamDelta]) -> None:
        item = body.get("item")
        if not isinstance(item, dict):
            raise senseless("an event holds no item")
        self._begin(_index(body, "output_index"), item, deltas)

    def _begin(self, place: int, item: Json, deltas: list[v1.StreamDelta]) -> _Item:
        under_way = self._items[place] = _Item(item)
        if under_way.kind != "message":
            piece = self._piece(under_way)
            if under_way.kind in CALLS:
                call_id, name, arguments = call_fields(item, self.response_id, place)
                piece.sent = arguments
                call = v1.ToolCallDelta(id=call_id, name=name, arguments_json=arguments)
                deltas.append(v1.StreamDelta(part_index=piece.index, tool_call=call))
        return under_way

    def _text_delta(self, body: Json, deltas: list[v1.StreamDelta]) -> None:
        text = text_of(body.get("delta"))
        if text:
            item = self._item(body, "message")
            piece = self._piece(item, _index(body, "content_index"))
            piece.sent += text
            deltas.append(v1.StreamDelta(part_index=piece.index, text=text))

    def _annotation(self, body: Json, deltas: list[v1.StreamDelta]) -> None:
        annotation = body.get("annotation")
        if isinstance(annotation, dict):
            item = self._item(body, "message")
            piece = self._piece(item, _index(body, "content_index"))
            piece.annotations += 1
            note_annotation(annotation, piece.index, self._references)
            deltas += self._references.take()

    def _arguments_delta(self, body: Json, deltas: list[v1.StreamDelta]) -> None:
        place = _index(body, "output_index")
        item = self._items.get(place)
        if item is None or item.kind not in CALLS:
            raise senseless("arguments come for an item that is no call")
        self._more_arguments(item, text_of(body.get("delta")), deltas)

    def _more_arguments(self, item: _Item, text: str, deltas: list[v1.StreamDelta]) -> None:
        if text:
            piece = self._piece(item)
            piece.sent += text
            call = v1.ToolCallDelta(arguments_json=text)
            deltas.append(v1.StreamDelta(part_index=piece.index, tool_call=call))

    def _summary_delta(self, body: Json, deltas: list[v1.StreamDelta]) -> None:
        self._reasoning_delta(body, ("summary", _index(body, "summary_index")), deltas)

    def _thought_delta(self, body: Json, deltas: list[v1.StreamDelta]) -> None:
        self._reasoning_delta(body, ("content", _index(body, "content_index")), deltas)

    def _reasoning_delta(
        self, body: Json, section: tuple[str, int], deltas: list[v1.StreamDelta]
    ) -> None:
        text = text_of(body.get("delta"))
        if not text:
            return
        item = self._item(body, "reasoning")
        piece = self._piece(item)
        if item.section not in {None, section}:
            text = PARAGRAPH + text
        item.section = section
        self._more_reasoning(piece, text, deltas)

    def _more_reasoning(self, piece: _Piece, text: str, deltas: list[v1.StreamDelta]) -> None:
        if text:
            piece.sent += text
            deltas.append(v1.StreamDelta(part_index=piece.index, reasoning=text))

    def _done(self, body: Json, deltas: list[v1.StreamDelta]) -> None:
        item = body.get("item")
        if not isinstance(item, dict):
            raise senseless("an event holds no item")
        self._whole_item(_index(body, "output_index"), item, deltas)

    def _whole_item(self, place: int, item: Json, deltas: list[v1.StreamDelta]) -> None:
        """Hands out what of an item was not yet; nothing of one that was done before."""
        under_way = self._items.get(place)
        if under_way is None:
            under_way = self._begin(place, item, deltas)
        if under_way.done:
            return
        under_way.done = True
        self._outcome.note(item)
        if under_way.kind == "message":
            self._whole_message(under_way, item, deltas)
            return
        piece = self._piece(under_way)
        if under_way.kind in CALLS:
            _, _, arguments = call_fields(item, self.response_id, place)
            self._more_arguments(under_way, _beyond(piece.sent, arguments), deltas)
            signature = call_signature(item)
            if signature is not None:
                deltas.append(v1.StreamDelta(part_index=piece.index, signature=signature))
        elif under_way.kind == "reasoning":
            self._more_reasoning(piece, _beyond(piece.sent, reasoning_text(item)), deltas)
            deltas.append(v1.StreamDelta(part_index=piece.index, part=reasoning_rest(item)))
        else:
            part = part_of(item, self.response_id, place)
            deltas.append(v1.StreamDelta(part_index=piece.index, part=part))
            note_sources(item, self._references)
            deltas += self._references.take()

    def _whole_message(self, under_way: _Item, item: Json, deltas: list[v1.StreamDelta]) -> None:
        for place, content in enumerate(pieces_of(item)):
            text = piece_text(content)
            if not text and place not in under_way.pieces:
                continue
            piece = self._piece(under_way, place)
            rest = _beyond(piece.sent, text)
            if rest:
                deltas.append(v1.StreamDelta(part_index=piece.index, text=rest))
            annotations = content.get("annotations")
            if isinstance(annotations, list):
                for annotation in annotations[piece.annotations :]:
                    if isinstance(annotation, dict):
                        note_annotation(annotation, piece.index, self._references)
                deltas += self._references.take()
            signature = message_signature(item, content)
            if signature is not None:
                deltas.append(v1.StreamDelta(part_index=piece.index, signature=signature))


def _beyond(sent: str, whole: str) -> str:
    """What a whole holds after the part of it that was sent. Where it begins otherwise, what was
    sent stands."""
    return whole[len(sent) :] if whole.startswith(sent) else ""


def _index(body: Json, name: str) -> int:
    value = body.get(name, 0)
    if type(value) is not int or value < 0:
        raise senseless(f"an event has a {name} that is no index")
    return value


_HANDLERS: Mapping[
    str, Callable[[OpenAIResponsesStreamDecoder, Json, list[v1.StreamDelta]], None]
] = {
    "response.output_item.added": OpenAIResponsesStreamDecoder._added,
    "response.output_item.done": OpenAIResponsesStreamDecoder._done,
    "response.output_text.delta": OpenAIResponsesStreamDecoder._text_delta,
    "response.output_text.annotation.added": OpenAIResponsesStreamDecoder._annotation,
    "response.refusal.delta": OpenAIResponsesStreamDecoder._text_delta,
    "response.function_call_arguments.delta": OpenAIResponsesStreamDecoder._arguments_delta,
    "response.custom_tool_call_input.delta": OpenAIResponsesStreamDecoder._arguments_delta,
    "response.reasoning_summary_text.delta": OpenAIResponsesStreamDecoder._summary_delta,
    "response.reasoning_text.delta": OpenAIResponsesStreamDecoder._thought_delta,
}
