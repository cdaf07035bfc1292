"""Restores a streamed answer, whose placeholders may be cut anywhere."""

import re

from trunkline import v1
from trunkline_server.privacy.mask import MaskMap
from trunkline_server.privacy.places import Places

# The end of a text that may be the beginning of a placeholder; as long as one can be.
_BEGUN = re.compile(r"\[(?:[A-Z][A-Z0-9_]{0,46})?\Z")


class StreamRestorer:
    """Restores deltas in order. At most one unfinished placeholder of a part is held back."""

    def __init__(self, map_: MaskMap) -> None:
        self._map = map_
        # By part: which kind of text is held back, and the text.
        self._held: dict[int, tuple[str, str]] = {}
        # By part: where its words have gone, for citations, which come after their words.
        self._places: dict[int, Places] = {}

    def feed(self, delta: v1.StreamDelta) -> list[v1.StreamDelta]:
        """What may be sent on now: often the delta itself, sometimes nothing yet."""
        kind = delta.WhichOneof("kind")
        index = delta.part_index
        if kind in {"source", "citation"}:
            return self._reference(delta, kind)
        if kind not in {"text", "reasoning", "tool_call"}:
            released = self._release(index)
            if kind != "part":
                return [*released, delta]
            # A copy: others may be sent the same delta.
            whole = v1.StreamDelta()
            whole.CopyFrom(delta)
            self._map.restore_part(whole.part)
            return [*released, whole]
        new = _text(delta, kind)
        held = self._held.get(index)
        if held is None and "[" not in new:
            if kind == "text":
                self._places_of(index).passed(len(new))
            return [delta]
        released = []
        if held is not None:
            if held[0] == kind:
                new = held[1] + new
                del self._held[index]
            else:
                released = self._release(index)
        begun = _BEGUN.search(new, max(0, len(new) - 48))
        if begun is not None:
            self._held[index] = (kind, begun[0])
            new = new[: begun.start()]
        if new or (kind == "tool_call" and (delta.tool_call.id or delta.tool_call.name)):
            released.append(self._made(index, kind, new, delta))
        return released

    def _places_of(self, index: int) -> Places:
        places = self._places.get(index)
        if places is None:
            places = self._places[index] = Places()
        return places

    def _reference(self, delta: v1.StreamDelta, kind: str) -> list[v1.StreamDelta]:
        made = v1.StreamDelta()
        made.CopyFrom(delta)
        if kind == "source":
            self._map.restore_source(made.source)
            return [made]
        index = made.citation.part_index
        released = self._release(index)
        self._map.restore_citation(made.citation, self._places.get(index))
        return [*released, made]

    def finish(self) -> list[v1.StreamDelta]:
        """What was held back when the stream ended."""
        return [delta for index in sorted(self._held) for delta in self._release(index)]

    def _release(self, index: int) -> list[v1.StreamDelta]:
        held = self._held.pop(index, None)
        return [] if held is None else [self._made(index, *held, None)]

    def _made(
        self, index: int, kind: str, text: str, origin: v1.StreamDelta | None
    ) -> v1.StreamDelta:
        delta = v1.StreamDelta(part_index=index)
        match kind:
            case "text":
                delta.text = self._map.restore_text(text, self._places_of(index))
            case "reasoning":
                delta.reasoning = self._map.restore(text)
            case _:
                if origin is not None:
                    delta.tool_call.CopyFrom(origin.tool_call)
                delta.tool_call.arguments_json = self._map.restore_json(text)
        return delta


def _text(delta: v1.StreamDelta, kind: str) -> str:
    match kind:
        case "text":
            return delta.text
        case "reasoning":
            return delta.reasoning
    return delta.tool_call.arguments_json
