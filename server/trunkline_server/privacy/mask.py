"""Reversible masking: a provider sees placeholders, the caller sees what they stand for.

A placeholder is a type and a number, such as [EMAIL_ADDRESS_1]: plain enough for a model to
copy, and of no character that JSON, HTML or Markdown would escape. Numbers follow the first
appearance of each value; since every call of a conversation brings the history along, a value
keeps its number from turn to turn as long as the caller keeps the beginning. Placeholders that
stand in the messages already are not given out, so they come back as they were.

What of a message is masked: text, reasoning, transcripts, names of files, results of tools,
arguments of tool calls, and the texts within vendors' items but for those that only the vendor
can read. A speaker's name that is personal data is left out. What is not masked: the bytes and
addresses of images, sounds and files, names of tools. For what else of a request is, see
request.py.
"""

import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

import orjson

from trunkline import v1
from trunkline_server.privacy.places import Places
from trunkline_server.privacy.redact import replaced
from trunkline_server.privacy.rule import Span

Find = Callable[[str], Sequence[Span]]

PLACEHOLDER = re.compile(r"\[[A-Z][A-Z0-9_]{0,39}_[0-9]{1,6}\]")
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")
_STRING = r'"(?:[^"\\]|\\.)*+"'
_JSON_STRING = re.compile(_STRING, re.DOTALL)
# A string, or a number long enough to be somebody's.
_JSON_TOKEN = re.compile(rf"{_STRING}|-?[0-9]{{7,}}+(?![.eE])", re.DOTALL)
_ENDLESS = sys.maxsize
# Fields of vendors' items that hold what only the vendor can read: what it encrypted or signed, its
# ids, and its words for kinds and states. Within a string no quote stands bare, so what looks like
# such a field is one.
_VENDORS_OWN = re.compile(
    r'"(?:approval_request_id|call_id|container_id|encrypted_content|encrypted_index'
    r"|encrypted_stdout|file_id|fingerprint|id|item_id|signature|status|thoughtSignature"
    rf'|tool_use_id|type)"\s*:\s*({_STRING})',
    re.DOTALL,
)
# Text of this length without a space is no text, but a picture or the like in base64.
_NO_TEXT = 1024


class MaskMap:
    """What the placeholders of one call stand for. Lives as long as the call, and no longer;
    its repr shows no value."""

    __slots__ = ("_counts", "_placeholders", "_taken", "_text_is_json", "_values")

    def __init__(self, taken: Iterable[str] = (), *, text_is_json: bool = False) -> None:
        """`taken` are placeholders that must not be given out. `text_is_json` says that answers
        are asked for as JSON, in whose strings values have to be escaped."""
        self._taken = frozenset(taken)
        self._text_is_json = text_is_json
        self._values: dict[str, str] = {}
        self._placeholders: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"MaskMap({len(self._values)} values)"

    def __len__(self) -> int:
        return len(self._values)

    def placeholder(self, kind: str, value: str) -> str:
        """The placeholder of a value, the same each time."""
        known = self._placeholders.get((kind, value))
        if known is not None:
            return known
        # An analyzer may name its types otherwise than PLACEHOLDER has them.
        name = "T" + _NOT_IN_NAMES.sub("_", kind.upper())[:38]
        name = name if not name[1:2].isalpha() else name[1:]
        number = self._counts.get(name, 0) + 1
        while (made := f"[{name}_{number}]") in self._taken:
            number += 1
        self._counts[name] = number
        self._placeholders[kind, value] = made
        self._values[made] = value
        return made

    def restore(self, text: str) -> str:
        """The text with what its placeholders stand for; unknown ones stay."""
        if "[" not in text:
            return text
        return PLACEHOLDER.sub(lambda match: self._values.get(match[0], match[0]), text)

    def restore_text(self, text: str, places: Places | None = None) -> str:
        """As restore, for the text of an answer, or the next piece of one; `places` notes what
        moves by that."""
        if places is None:
            return self.restore_json(text) if self._text_is_json else self.restore(text)
        restored = PLACEHOLDER.sub(lambda match: self._noted(match, places), text)
        places.passed(len(text))
        return restored

    def _noted(self, match: re.Match[str], places: Places) -> str:
        value = self._values.get(match[0], match[0])
        if self._text_is_json:
            value = self._escaped(match)
        if value != match[0]:
            places.replaced(*match.span(), len(value))
        return value

    def restore_json(self, text: str) -> str:
        """As restore, within the strings of a JSON text or a piece of one."""
        if "[" not in text:
            return text
        return PLACEHOLDER.sub(self._escaped, text)

    def _escaped(self, match: re.Match[str]) -> str:
        value = self._values.get(match[0])
        return match[0] if value is None else orjson.dumps(value).decode()[1:-1]

    def restore_message(self, message: v1.Message) -> None:
        """Restores an answer in place."""
        # Counting what moves is only for answers that cite.
        cites = bool(message.citations)
        places: dict[int, Places] = {}
        for index, part in enumerate(message.parts):
            if cites:
                places[index] = Places()
            self.restore_part(part, places.get(index))
        for source in message.sources:
            self.restore_source(source)
        for citation in message.citations:
            self.restore_citation(citation, places.get(citation.part_index))

    def restore_source(self, source: v1.Source) -> None:
        """Restores a source in place: what it says, not where it is."""
        source.title = self.restore(source.title)
        source.snippet = self.restore(source.snippet)

    def restore_citation(self, citation: v1.Citation, places: Places | None) -> None:
        """Restores a citation in place; `places` are those of its part."""
        citation.quote = self.restore(citation.quote)
        if places is not None:
            citation.start = places.moved(citation.start)
            citation.end = places.moved(citation.end, end=True) if citation.end else 0

    def restore_part(self, part: v1.Part, places: Places | None = None) -> None:
        """Restores one part of an answer in place; `places` are those of its text."""
        match part.WhichOneof("kind"):
            case "text":
                part.text = self.restore_text(part.text, places)
            case "vendor_item":
                part.vendor_item.json = self.restore_json(part.vendor_item.json)
            case "reasoning":
                part.reasoning.text = self.restore(part.reasoning.text)
            case "tool_call":
                part.tool_call.arguments_json = self.restore_json(part.tool_call.arguments_json)
            case "audio":
                part.audio.transcript = self.restore(part.audio.transcript)
            case "file":
                part.file.filename = self.restore(part.file.filename)


def _text_of(part: v1.Part, kind: str | None) -> str:
    """What a part says in plain text; empty for kinds that say nothing."""
    match kind:
        case "text":
            return part.text
        case "reasoning":
            return part.reasoning.text
        case "audio":
            return part.audio.transcript
        case "file":
            return part.file.filename
    return ""


class Masker:
    """Masks the texts of one call: what `find` finds gets placeholders from `made`."""

    def __init__(self, find: Find, made: MaskMap) -> None:
        self.find = find
        self.map = made

    def message(self, message: v1.Message) -> v1.Message:
        """A masked copy, or the message itself if it holds nothing."""
        changed = [self._part(part) for part in message.parts]
        # Vendors take few characters in a speaker's name, and no brackets.
        nameless = bool(message.name and self.find(message.name))
        if not nameless and not any(part is not None for part in changed):
            return message
        copy = v1.Message(role=message.role, name="" if nameless else message.name)
        copy.parts.extend(
            old if new is None else new for old, new in zip(message.parts, changed, strict=True)
        )
        return copy

    def _part(self, part: v1.Part) -> v1.Part | None:
        """A changed copy, or None."""
        kind = part.WhichOneof("kind")
        if kind == "tool_result":
            return self._tool_result(part)
        if kind == "tool_call":
            old = part.tool_call.arguments_json
            new = self.json(old)
        elif kind == "vendor_item":
            old = part.vendor_item.json
            new = self.item(old)
        else:
            old = _text_of(part, kind)
            new = self.text(old)
        if new == old:
            return None
        made = v1.Part()
        made.CopyFrom(part)
        match kind:
            case "text":
                made.text = new
            case "reasoning":
                made.reasoning.text = new
            case "audio":
                made.audio.transcript = new
            case "file":
                made.file.filename = new
            case "tool_call":
                made.tool_call.arguments_json = new
            case "vendor_item":
                made.vendor_item.json = new
        return made

    def _tool_result(self, part: v1.Part) -> v1.Part | None:
        inner = [self._part(piece) for piece in part.tool_result.parts]
        if not any(piece is not None for piece in inner):
            return None
        made = v1.Part()
        made.CopyFrom(part)
        for place, piece in enumerate(inner):
            if piece is not None:
                made.tool_result.parts[place].CopyFrom(piece)
        return made

    def text(self, text: str) -> str:
        """A masked text."""
        spans = self.find(text) if text else ()
        if not spans:
            return text
        return replaced(
            text, spans, lambda span: self.map.placeholder(span.kind, text[span.start : span.end])
        )

    def json(self, text: str) -> str:
        """A masked JSON text, such as the arguments of a tool call.

        The words around a value are in its key, so the text is looked at whole where it holds no
        escapes, and string by string where it does.
        """
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError:
            return self.text(text)
        if "\\" not in text:
            spans = self.find(text)
            if not spans:
                return text
            tokens = [match.span() for match in _JSON_TOKEN.finditer(text)]
            if all(_within(tokens, span) for span in spans):
                return self._in_tokens(text, tokens, spans)
        return _JSON_STRING.sub(self._json_string, text)

    def item(self, text: str) -> str:
        """A masked vendor's item: the texts in it, but for what is the vendor's own secret or
        name for something, which would be no use to it if changed."""
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError:
            return self.text(text)
        kept = {match.start(1) for match in _VENDORS_OWN.finditer(text)}
        return _JSON_STRING.sub(
            lambda match: (
                match[0]
                if match.start() in kept or (len(match[0]) > _NO_TEXT and " " not in match[0])
                else self._json_string(match)
            ),
            text,
        )

    def _in_tokens(
        self, text: str, tokens: Sequence[tuple[int, int]], spans: Sequence[Span]
    ) -> str:
        """In place of a number a string is put: a placeholder is no number."""
        bare = {start: end for start, end in tokens if text[start] != '"'}
        whole = [
            Span(start, bare[start], span.kind) if start in bare else span
            for span in spans
            for start in (_start_of(tokens, span),)
        ]
        return replaced(text, whole, lambda span: self._json_piece(text, span, span.start in bare))

    def _json_piece(self, text: str, span: Span, bare: bool) -> str:
        made = self.map.placeholder(span.kind, text[span.start : span.end])
        return f'"{made}"' if bare else made

    def _json_string(self, match: re.Match[str]) -> str:
        decoded = orjson.loads(match[0])
        new = self.text(decoded)
        return match[0] if new == decoded else orjson.dumps(new).decode()


def _start_of(tokens: Sequence[tuple[int, int]], span: Span) -> int:
    """Where the token that holds a span begins, or -1."""
    place = bisect_right(tokens, (span.start, _ENDLESS)) - 1
    if place < 0 or span.end > tokens[place][1]:
        return -1
    return tokens[place][0]


def _within(tokens: Sequence[tuple[int, int]], span: Span) -> bool:
    return _start_of(tokens, span) >= 0
