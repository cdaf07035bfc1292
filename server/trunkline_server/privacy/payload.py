"""Payload logging: what calls ask and are answered, redacted and bounded.

What is noted of a masked call is what the vendor sees. Personal data is replaced before the text
is cut, so that no end of it stands at the border.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from trunkline import v1
from trunkline_server.privacy.mask import Find
from trunkline_server.privacy.ports import PrivacyWatch
from trunkline_server.privacy.redact import replaced
from trunkline_server.privacy.request import Request, texts_of

# Longer than anything that a rule finds, a private key being the longest.
_MARGIN = 12_288


@dataclass(frozen=True, slots=True)
class PayloadRules:
    """`limit` is the most characters that are noted of a request, and of an answer. `find`
    finds what is replaced."""

    limit: int
    find: Find


class PayloadNote:
    """Notes one call's request at once, and its answer when it ends."""

    __slots__ = ("_call_id", "_label", "_pieces", "_rules", "_size", "_watch")

    def __init__(self, rules: PayloadRules, watch: PrivacyWatch, call_id: str, label: str) -> None:
        self._rules = rules
        self._watch = watch
        self._call_id = call_id
        self._label = label
        self._pieces: list[str] = []
        self._size = 0

    def request(self, request: Request) -> None:
        """Notes what is asked."""
        for line in _lines(request):
            if self._add(line):
                break
        text, cut = self._taken()
        self._watch.payload(self._call_id, self._label, "request", text, cut)

    def message(self, message: v1.Message) -> None:
        """Takes an answer, or a part of it."""
        for part in message.parts:
            self._add(_text_of(part))

    def text(self, text: str) -> None:
        """Takes an answer that is text, or a part of it."""
        self._add(f"{text}\n" if text else "")

    def delta(self, delta: v1.StreamDelta) -> None:
        """Takes a piece of a streamed answer."""
        match delta.WhichOneof("kind"):
            case "text":
                self._add(delta.text)
            case "reasoning":
                self._add(delta.reasoning)
            case "tool_call":
                self._add(delta.tool_call.name + delta.tool_call.arguments_json)
            case "part":
                self._add(_text_of(delta.part))

    def end(self) -> None:
        """Notes the answer as far as it was taken."""
        text, cut = self._taken()
        self._watch.payload(self._call_id, self._label, "answer", text, cut)

    def _add(self, text: str) -> bool:
        """Takes more; True when there is more already than will be noted."""
        room = self._rules.limit + _MARGIN - self._size
        if room > 0 and text:
            self._pieces.append(text[:room])
            self._size += len(self._pieces[-1])
        return self._size > self._rules.limit

    def _taken(self) -> tuple[str, bool]:
        text, limit = "".join(self._pieces), self._rules.limit
        self._pieces, self._size = [], 0
        spans = [span for span in self._rules.find(text) if span.start < limit]
        end = max(limit, spans[-1].end) if spans else limit
        return replaced(text[:end], spans, lambda span: f"[{span.kind}]"), len(text) > end


def _lines(request: Request) -> Iterator[str]:
    if not isinstance(request, v1.GenerateRequest | v1.CountTokensRequest):
        for text in texts_of(request):
            yield f"{text}\n"
        return
    for message in request.messages:
        role = v1.Role.Name(message.role).removeprefix("ROLE_").lower()
        for part in message.parts:
            yield f"{role}: {_text_of(part)}\n"


def _text_of(part: v1.Part) -> str:
    match part.WhichOneof("kind"):
        case "text":
            return part.text
        case "reasoning":
            return part.reasoning.text
        case "tool_call":
            return f"{part.tool_call.name}({part.tool_call.arguments_json})"
        case "tool_result":
            return "".join(_text_of(inner) for inner in part.tool_result.parts)
        case "audio" if part.audio.transcript:
            return part.audio.transcript
        case "vendor_item":
            return f"({part.vendor_item.type})"
        case kind:
            return f"({kind})"
