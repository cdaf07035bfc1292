"""Pictures and documents as the Messages API's image and document blocks."""

import base64
import binascii
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from trunkline import v1
from trunkline_server.errors import invalid

_IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


def image_block(image: v1.Image, where: str) -> dict[str, Any]:
    """An image block; `where` is the image's path in the request, for complaints."""
    if image.detail:
        raise invalid(f"{where}.detail", "this provider does not let callers choose it")
    source = image.WhichOneof("source")
    if source is None:
        raise invalid(where, "must hold data or a URI")
    if source == "data":
        return _image_by_value(image.media_type, image.data, where)
    return _image_by_uri(image.uri, where)


def _image_by_value(media_type: str, data: bytes, where: str) -> dict[str, Any]:
    plain = _essence(media_type)
    if plain not in _IMAGE_TYPES:
        raise invalid(f"{where}.media_type", f"must be one of {', '.join(sorted(_IMAGE_TYPES))}")
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": plain, "data": _base64(data)},
    }


def _image_by_uri(uri: str, where: str) -> dict[str, Any]:
    if uri.startswith("data:"):
        return _image_by_value(*_inline(uri, where), where)
    return {"type": "image", "source": {"type": "url", "url": _fetchable(uri, where)}}


def file_block(file: v1.File, where: str) -> dict[str, Any]:
    """A document block, or an image block when the file's media type is a picture's."""
    source = file.WhichOneof("source")
    media_type = _essence(file.media_type)
    picture = media_type.startswith("image/")
    if source == "file_id":
        block: dict[str, Any] = {"type": "image" if picture else "document"}
        block["source"] = {"type": "file", "file_id": file.file_id}
    elif source == "data":
        block = _file_by_value(media_type, file.data, where)
    elif source == "uri" and file.uri.startswith("data:"):
        declared, data = _inline(file.uri, where)
        block = _file_by_value(media_type or _essence(declared), data, where)
    elif source == "uri" and picture:
        block = _image_by_uri(file.uri, where)
    elif source == "uri":
        if media_type not in {"", "application/pdf"}:
            raise invalid(f"{where}.media_type", "must be application/pdf for a URI")
        url = _fetchable(file.uri, where)
        block = {"type": "document", "source": {"type": "url", "url": url}}
    else:
        raise invalid(where, "must hold data, a URI or a file id")
    if file.filename and block["type"] == "document":
        block["title"] = file.filename
    return block


def _file_by_value(media_type: str, data: bytes, where: str) -> dict[str, Any]:
    if media_type.startswith("image/"):
        return _image_by_value(media_type, data, where)
    if media_type == "application/pdf":
        source = {"type": "base64", "media_type": media_type, "data": _base64(data)}
    elif media_type == "text/plain":
        try:
            source = {"type": "text", "media_type": media_type, "data": data.decode()}
        except UnicodeDecodeError:
            raise invalid(where, "must be UTF-8 text") from None
    else:
        raise invalid(f"{where}.media_type", "must be application/pdf, text/plain or an image type")
    return {"type": "document", "source": source}


def _base64(data: bytes) -> orjson.Fragment:
    # Base64 needs no escapes: as a fragment it is not scanned for them.
    return orjson.Fragment(b'"%b"' % binascii.b2a_base64(data, newline=False))


def _essence(media_type: str) -> str:
    """The media type without its parameters, in lower case."""
    return media_type.partition(";")[0].strip().lower()


def _fetchable(uri: str, where: str) -> str:
    if not uri.startswith(("https://", "http://")):
        raise invalid(f"{where}.uri", "must be an https or a data URI for this provider")
    return uri


def _inline(uri: str, where: str) -> tuple[str, bytes]:
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
