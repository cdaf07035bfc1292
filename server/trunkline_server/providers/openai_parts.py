"""The pieces that answers of the OpenAI dialect are made of, whole or streamed.

The shapes, OpenRouter's reasoning details and Mistral's content chunks among them, are those of
recorded answers (tests/corpus/test_openai.py).
"""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator
from hashlib import blake2s
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.openai_messages import DIALECT, Json

_AUDIO_MARKS: tuple[tuple[bytes, str], ...] = (
    (b"RIFF", "audio/wav"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xf1", "audio/aac"),
    (b"\xff\xf9", "audio/aac"),
    (b"\xff", "audio/mpeg"),
)


def load(data: bytes) -> Json:
    """The JSON object in the bytes; raises BAD_PROVIDER_RESPONSE when there is none."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise senseless("the provider sent something that is not JSON") from None
    if not isinstance(document, dict):
        raise senseless("the provider sent JSON that is not an object")
    return document


def senseless(message: str) -> UpstreamError:
    """The error for an answer of status 200 that makes no sense."""
    return UpstreamError(v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, message, http_status=200)


def text_of(value: Any) -> str:
    """The value if it is text, else nothing. Half a surrogate pair, which JSON can spell and
    UTF-8 cannot, never gets here: the parser refuses it."""
    return value if isinstance(value, str) else ""


def content_pieces(content: Any) -> Iterable[tuple[str, str]]:
    """("text" or "reasoning", its text) for each piece of a message's content."""
    if isinstance(content, str):
        return (("text", content),)
    return _pieces(content) if isinstance(content, list) else ()


def _pieces(content: list[Any]) -> Iterator[tuple[str, str]]:
    for piece in content:
        if not isinstance(piece, dict):
            continue
        if piece.get("type") == "thinking":
            for _, text in content_pieces(piece.get("thinking")):
                yield "reasoning", text
        else:
            yield "text", text_of(piece.get("text"))


def reasoning_text(message: Json) -> str:
    """The readable reasoning beside the content, under the name the host has for it."""
    return text_of(message.get("reasoning_content")) or text_of(message.get("reasoning"))


class ReasoningDetail:
    """One piece of `reasoning_details`, put together from its entries.

    The text or the encrypted data goes into the part; everything else in the entry, which the
    host wants back unchanged, goes into the part's signature as JSON.
    """

    __slots__ = ("_rest", "index", "kind", "text")

    def __init__(self, entry: Json) -> None:
        self.kind = text_of(entry.get("type"))
        self.index = entry.get("index")
        self.text = ""
        self._rest: Json = {}
        self.add(entry)

    def continues(self, entry: Json) -> bool:
        """Whether the entry is more of this piece. Encrypted data always comes whole."""
        return (
            self.kind == entry.get("type")
            and self.index == entry.get("index")
            and not self.encrypted
        )

    def add(self, entry: Json) -> str:
        """Takes the entry; gives the text that it adds."""
        for name, value in entry.items():
            # A stream says most of this with every entry, and the signature last.
            if name not in {"text", "summary"} and value not in (None, ""):
                self._rest[name] = value
        text = text_of(entry.get("text")) or text_of(entry.get("summary"))
        self.text += text
        return text

    def signature(self) -> v1.Signature | None:
        """What must come back with the text, or None when there is nothing but the text."""
        if not (self._rest.keys() & {"signature", "id", "data"}) and (
            self._rest.get("format", "unknown") == "unknown"
        ):
            return None
        rest = {name: value for name, value in self._rest.items() if name != "data"}
        if self.encrypted:
            rest.pop("id", None)
        value = orjson.dumps(rest, option=orjson.OPT_SORT_KEYS).decode()
        return v1.Signature(dialect=DIALECT, value=value)

    @property
    def empty(self) -> bool:
        """Whether the piece says nothing at all."""
        return not self.text and not self.encrypted and self.signature() is None

    @property
    def encrypted(self) -> bool:
        """Whether the host hides the text."""
        return bool(self._rest.get("data"))

    def part(self) -> v1.Part:
        """The whole piece."""
        part = v1.Part(reasoning=v1.Reasoning(text=self.text), signature=self.signature())
        if self.encrypted:
            part.reasoning.redacted_data = text_of(self._rest["data"])
            part.reasoning.id = text_of(self._rest.get("id"))
        return part


def detail_entries(message: Json) -> list[Json]:
    """The entries of `reasoning_details`, often none."""
    entries = message.get("reasoning_details")
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict)]


def tells_text(entries: list[Json]) -> bool:
    """Whether the entries hold the readable reasoning, so that `reasoning` only repeats it."""
    return any(entry.get("text") or entry.get("summary") for entry in entries)


def image_parts(message: Json) -> Iterator[v1.Part]:
    """The pictures that OpenRouter's image models put beside the content."""
    images = message.get("images")
    for image in images if isinstance(images, list) else ():
        reference = image.get("image_url") if isinstance(image, dict) else None
        url = text_of(reference.get("url")) if isinstance(reference, dict) else ""
        if url:
            yield _image_part(url)


def _image_part(url: str) -> v1.Part:
    head, comma, data = url.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        media_type = head.removeprefix("data:").removesuffix(";base64")
        return v1.Part(image=v1.Image(data=decode_base64(data), media_type=media_type))
    return v1.Part(image=v1.Image(uri=url))


def audio_part(audio_id: str, data: bytes, transcript: str) -> v1.Part:
    """A recording that the model made; its id stands in the signature, to be returned."""
    media_type = next((kind for mark, kind in _AUDIO_MARKS if data.startswith(mark)), "audio/pcm")
    part = v1.Part(audio=v1.Audio(data=data, media_type=media_type, transcript=transcript))
    if audio_id:
        part.signature.dialect = DIALECT
        part.signature.value = audio_id
    return part


def decode_base64(text: str) -> bytes:
    """The bytes; raises BAD_PROVIDER_RESPONSE for text that is not base64."""
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise senseless("the provider sent data that is not base64") from None


def call_fields(call: Json) -> tuple[str, str, str]:
    """(id, name, arguments) of a tool call or of a fragment of one; empty where not given."""
    function = call.get("function") or call.get("custom")
    if not isinstance(function, dict):
        return text_of(call.get("id")), "", ""
    arguments = function.get("arguments", function.get("input"))
    if isinstance(arguments, dict):
        arguments = orjson.dumps(arguments).decode()
    return text_of(call.get("id")), text_of(function.get("name")), text_of(arguments)


def call_signature(call: Json) -> v1.Signature | None:
    """The proof that Google's compatible API adds to a call of its newer models, as JSON."""
    extra = call.get("extra_content")
    if not extra or not isinstance(extra, dict):
        return None
    value = orjson.dumps(extra, option=orjson.OPT_SORT_KEYS).decode()
    return v1.Signature(dialect=DIALECT, value=value)


def made_call_id(response_id: str, number: int) -> str:
    """An id for a call that the vendor gave none: the same for the same answer and place."""
    return "call_" + blake2s(f"{response_id}:{number}".encode(), digest_size=12).hexdigest()
