"""Pictures, documents, recordings and films as Converse's content blocks."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from trunkline import v1
from trunkline_server.errors import invalid

Block = dict[str, Any]

_IMAGES: Mapping[str, str] = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
_AUDIO: Mapping[str, str] = {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/opus": "opus",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/aac": "aac",
    "audio/x-aac": "x-aac",
    "audio/flac": "flac",
    "audio/mp4": "mp4",
    "audio/m4a": "m4a",
    "audio/x-m4a": "m4a",
    "audio/ogg": "ogg",
    "audio/webm": "webm",
    "audio/x-matroska": "mka",
    "audio/l16": "pcm",
    "audio/pcm": "pcm",
}
_DOCUMENTS: Mapping[str, str] = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_VIDEOS: Mapping[str, str] = {
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/x-flv": "flv",
    "video/mpeg": "mpeg",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}

# A document's name may hold letters, digits, single spaces, hyphens, parentheses and square
# brackets, says the vendor, which also asks that it be neutral, as models read it.
_FOREIGN_IN_NAME = re.compile(r"[^a-zA-Z0-9\s\-()\[\]]+|\s+")
_LONGEST_NAME = 200


class MediaBlocks:
    """Makes the blocks of one request, whose documents must bear names of their own."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def image(self, image: v1.Image, where: str) -> Block:
        """An image block; `where` is the image's path in the request, for complaints."""
        if image.detail:
            raise invalid(f"{where}.detail", "this provider does not let callers choose it")
        source = image.WhichOneof("source")
        if source is None:
            raise invalid(where, "must hold data or a URI")
        content = image.data if source == "data" else image.uri
        return _block("image", _IMAGES, image.media_type, content, where)

    def audio(self, audio: v1.Audio, where: str) -> Block:
        """An audio block."""
        source = audio.WhichOneof("source")
        if source is None:
            raise invalid(where, "must hold data or a URI")
        content = audio.data if source == "data" else audio.uri
        return _block("audio", _AUDIO, audio.media_type, content, where)

    def file(self, file: v1.File, where: str) -> Block:
        """A document block, or one of the kind that the media type says."""
        source = file.WhichOneof("source")
        if source == "file_id":
            raise invalid(f"{where}.file_id", "this provider keeps no files")
        if source is None:
            raise invalid(where, "must hold data or a URI")
        content: bytes | str = file.data if source == "data" else file.uri
        media_type = file.media_type
        if isinstance(content, str) and content.startswith("data:"):
            declared, content = inline(content, where)
            media_type = media_type or declared
        kind = media_type.partition("/")[0].strip().lower()
        if kind == "image":
            return _block("image", _IMAGES, media_type, content, where)
        if kind == "audio":
            return _block("audio", _AUDIO, media_type, content, where)
        if kind == "video":
            return _block("video", _VIDEOS, media_type, content, where)
        block = _block("document", _DOCUMENTS, media_type, content, where)
        block["document"]["name"] = self._name(file.filename)
        return block

    def _name(self, filename: str) -> str:
        stem = filename.rpartition(".")[0] or filename
        name = " ".join(_FOREIGN_IN_NAME.sub(" ", stem).split())[:_LONGEST_NAME].strip()
        name = name or "document"
        number = 2
        unique = name
        while unique in self._names:
            unique = f"{name[: _LONGEST_NAME - 8]} ({number})"
            number += 1
        self._names.add(unique)
        return unique


def _block(
    kind: str, formats: Mapping[str, str], media_type: str, content: bytes | str, where: str
) -> Block:
    """A block of bytes, or of the URI of an object in S3."""
    if isinstance(content, str) and content.startswith("data:"):
        declared, content = inline(content, where)
        media_type = media_type or declared
    name = formats.get(media_type.partition(";")[0].strip().lower())
    if name is None:
        raise invalid(f"{where}.media_type", f"must be one of {', '.join(sorted(formats))}")
    source: Block
    if isinstance(content, bytes):
        if not content:
            raise invalid(where, "must not be empty")
        source = {"bytes": _base64(content)}
    elif content.startswith("s3://"):
        source = {"s3Location": {"uri": content}}
    else:
        raise invalid(f"{where}.uri", "must be an s3 or a data URI for this provider")
    return {kind: {"format": name, "source": source}}


def _base64(data: bytes) -> orjson.Fragment:
    # Base64 needs no escapes: as a fragment it is not scanned for them.
    return orjson.Fragment(b'"%b"' % binascii.b2a_base64(data, newline=False))


def inline(uri: str, where: str) -> tuple[str, bytes]:
    """The media type and the content of a data URI (RFC 2397)."""
    head, comma, content = uri.removeprefix("data:").partition(",")
    if not comma:
        raise invalid(f"{where}.uri", "must be a data URI with a comma")
    if not head.endswith(";base64"):
        return head, unquote_to_bytes(content)
    try:
        return head, base64.b64decode(unquote_to_bytes(content), validate=True)
    except binascii.Error:
        raise invalid(f"{where}.uri", "must hold valid base64") from None
