"""Gemini's answer parts as the contract's, the same for whole answers and for streams."""

import binascii
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from trunkline import v1
from trunkline_server.providers.gemini_contents import DIALECT
from trunkline_server.providers.gemini_json import (
    Json,
    as_object,
    list_at,
    object_at,
    senseless,
    text_at,
)
from trunkline_server.providers.gemini_partial import PartialCall


class Piece(NamedTuple):
    """A part of the message, or more of an earlier one: more text, or its signature."""

    part_index: int
    part: v1.Part
    continues: bool


class PartReader:
    """Reads the parts of one answer, in one or in many events.

    Texts that follow one another over events belong to one part, as do thoughts: the vendor
    cuts them as it writes. Within one event they are parts of their own. A signature belongs
    to the part it comes with; one that comes with an empty text belongs to the text before
    it, and is an empty Reasoning where there is none without a signature. A second signature
    begins a new part.

    What the vendor's own tools did (`executableCode`, `codeExecutionResult`, `toolCall`,
    `toolResponse` and what is not known) is kept whole, as vendor items.
    """

    __slots__ = ("_calls", "_next", "_open", "_partial", "_signed")

    def __init__(self) -> None:
        self._next = 0
        self._calls = 0
        self._open = ""  # "text" or "reasoning" while the last part may go on.
        self._signed = False
        self._partial: PartialCall | None = None

    @property
    def has_calls(self) -> bool:
        """Whether the answer holds calls of the caller's functions."""
        return self._calls > 0

    def read(self, parts: list[Any], response_id: str, *, ended: bool) -> list[Piece]:
        """The pieces in one event's parts; `ended` when it is the answer's last with any.

        Raises UpstreamError with BAD_PROVIDER_RESPONSE for parts that make no sense.
        """
        pieces: list[Piece] = []
        for item in parts:
            raw = as_object(item, "parts")
            if "text" in raw or raw.keys() <= _BARE:
                self._take_text(raw, pieces)
            elif "functionCall" in raw:
                self._take_call(raw, response_id, pieces)
            else:
                self._take_other(raw, pieces)
        if ended:
            self._end_call(response_id, pieces)
        return pieces

    def _add(self, part: v1.Part, signature: str, pieces: list[Piece]) -> None:
        if signature:
            part.signature.dialect = DIALECT
            part.signature.value = signature
        pieces.append(Piece(self._next, part, continues=False))
        self._next += 1
        self._open = ""

    def _take_text(self, raw: Json, pieces: list[Piece]) -> None:
        text = text_at(raw, "text")
        signature = text_at(raw, "thoughtSignature")
        if not text and not signature:
            return
        kind = "reasoning" if raw.get("thought") is True else "text"
        if self._open == kind and not (signature and self._signed) and (not pieces or not text):
            part = _text_part(kind, text) if text else v1.Part()
            if signature:
                part.signature.dialect = DIALECT
                part.signature.value = signature
                self._signed = True
            pieces.append(Piece(self._next - 1, part, continues=True))
            return
        self._add(_text_part(kind if text else "reasoning", text), signature, pieces)
        if text:
            self._open = kind
            self._signed = bool(signature)

    def _take_call(self, raw: Json, response_id: str, pieces: list[Piece]) -> None:
        call = object_at(raw, "functionCall")
        name = text_at(call, "name")
        more = call.get("willContinue") is True
        if name:
            self._end_call(response_id, pieces)
        if self._partial is None:
            if not name:
                if object_at(call, "args") or list_at(call, "partialArgs"):
                    raise senseless("holds a function call without a name")
                return  # The end mark of a call that had already ended.
            signature = text_at(raw, "thoughtSignature")
            self._partial = PartialCall(text_at(call, "id"), name, signature)
            self._open = ""
        self._partial.add(call)
        if not more:
            self._end_call(response_id, pieces)

    def _end_call(self, response_id: str, pieces: list[Piece]) -> None:
        call = self._partial
        if call is None:
            return
        self._partial = None
        try:
            arguments = orjson.dumps(call.arguments).decode()
        except orjson.JSONEncodeError:
            raise senseless("holds arguments nested too deeply") from None
        part = v1.Part(
            tool_call=v1.ToolCall(
                id=call.id or _made_id(response_id or call.name + arguments, self._calls),
                name=call.name,
                arguments_json=arguments,
            )
        )
        self._calls += 1
        self._add(part, call.signature, pieces)

    def _take_other(self, raw: Json, pieces: list[Piece]) -> None:
        self._open = ""
        for key, read in _OTHERS.items():
            if key in raw:
                part = read(object_at(raw, key))
                self._add(part, text_at(raw, "thoughtSignature"), pieces)
                return
        kind = next((key for key in raw if key not in _BESIDE), "")
        item = v1.VendorItem(dialect=DIALECT, type=kind, json=orjson.dumps(raw).decode())
        self._add(v1.Part(vendor_item=item), "", pieces)


# What stands beside a part's content.
_BESIDE = frozenset(("thought", "thoughtSignature", "partMetadata"))
# A part of these alone holds at most a signature.
_BARE = frozenset(("thought", "thoughtSignature"))


def _text_part(kind: str, text: str) -> v1.Part:
    if kind == "text":
        return v1.Part(text=text)
    return v1.Part(reasoning=v1.Reasoning(text=text))


def _made_id(seed: str, number: int) -> str:
    """An id for a call that came without one: the same for the same answer, another for
    another, and within the characters and the length that every dialect takes."""
    return f"call_{blake2b(f'{number}/{seed}'.encode(), digest_size=12).hexdigest()}"


def _media(media_type: str) -> str:
    kind = media_type.partition("/")[0]
    return kind if kind in {"image", "audio"} else "file"


def _inline(raw: Json) -> v1.Part:
    media_type = text_at(raw, "mimeType")
    try:
        data = binascii.a2b_base64(text_at(raw, "data"), strict_mode=True)
    except ValueError:  # binascii.Error, or characters beyond ASCII.
        raise senseless("holds data that is not base64") from None
    match _media(media_type):
        case "image":
            return v1.Part(image=v1.Image(data=data, media_type=media_type))
        case "audio":
            return v1.Part(audio=v1.Audio(data=data, media_type=media_type))
        case _:
            filename = text_at(raw, "displayName")
            return v1.Part(file=v1.File(data=data, media_type=media_type, filename=filename))


def _by_reference(raw: Json) -> v1.Part:
    media_type = text_at(raw, "mimeType")
    uri = text_at(raw, "fileUri")
    match _media(media_type):
        case "image":
            return v1.Part(image=v1.Image(uri=uri, media_type=media_type))
        case "audio":
            return v1.Part(audio=v1.Audio(uri=uri, media_type=media_type))
        case _:
            filename = text_at(raw, "displayName")
            return v1.Part(file=v1.File(uri=uri, media_type=media_type, filename=filename))


_OTHERS: dict[str, Callable[[Json], v1.Part]] = {
    "inlineData": _inline,
    "fileData": _by_reference,
}
