"""Typed reading of Gemini's JSON: a field is absent, or of its type, or the reply is senseless."""

from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError

Json = dict[str, Any]

# Beyond any true count, and such that sums of counts stay within 64 bits.
_MAX_COUNT = 2**53


def senseless(what: str) -> UpstreamError:
    """The error for a 2xx answer that cannot be understood."""
    return UpstreamError(
        v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, f"the provider's answer {what}", http_status=200
    )


def read_document(data: bytes) -> Json:
    """The JSON object that `data` holds."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise senseless("is not JSON") from None  # The cause would quote the answer.
    return as_object(value, "")


def as_object(value: Any, where: str) -> Json:
    if isinstance(value, dict):
        return value
    raise senseless(f"has no object where one belongs: {where or 'its root'}")


def object_at(holder: Json, key: str) -> Json:
    """The object under `key`; empty when absent or null."""
    value = holder.get(key)
    return {} if value is None else as_object(value, key)


def list_at(holder: Json, key: str) -> list[Any]:
    """The list under `key`; empty when absent or null."""
    value = holder.get(key)
    if value is None:
        return []
    if isinstance(value, list):
        return value
    raise senseless(f"has no list where one belongs: {key}")


def text_at(holder: Json, key: str) -> str:
    """The text under `key`; empty when absent or null."""
    value = holder.get(key)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise senseless(f"has no text where one belongs: {key}")


def count_at(holder: Json, key: str) -> int:
    """The count under `key`; zero when absent or null, as protocol buffers omit zeros."""
    value = holder.get(key)
    if value is None:
        return 0
    if type(value) is int and 0 <= value <= _MAX_COUNT:
        return value
    raise senseless(f"has no count where one belongs: {key}")
