"""The JSON of the Cohere dialect: reading it strictly, and its words for what the contract has."""

from collections.abc import Mapping
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError

Json = dict[str, Any]

DIALECT = "cohere"

# What a reasoning part's signature says it was, so that it can go back as that.
PLAN = "tool_plan"
THINKING = "thinking"

FINISH_REASONS: Mapping[str, v1.FinishReason.ValueType] = {
    "COMPLETE": v1.FINISH_REASON_STOP,
    "STOP_SEQUENCE": v1.FINISH_REASON_STOP,
    "MAX_TOKENS": v1.FINISH_REASON_LENGTH,
    "TOOL_CALL": v1.FINISH_REASON_TOOL_CALLS,
    # Of the first version, which hosts of old models still say.
    "ERROR_LIMIT": v1.FINISH_REASON_LENGTH,
    "ERROR_TOXIC": v1.FINISH_REASON_CONTENT_FILTER,
}
# Reasons that are failures: nothing that came before them is an answer.
_FAILURES: Mapping[str, tuple[v1.ErrorReason.ValueType, str]] = {
    "ERROR": (v1.ERROR_REASON_SERVICE_UNAVAILABLE, "the provider failed while it answered"),
    "TIMEOUT": (v1.ERROR_REASON_TIMEOUT, "the provider took too long to answer"),
}
_LARGEST = 2**53


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


def text_at(holder: Json, name: str) -> str:
    """A field's text; empty where there is none."""
    value = holder.get(name)
    return value if isinstance(value, str) else ""


def object_at(holder: Json, name: str) -> Json:
    """A field's object; empty where there is none."""
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def objects_at(holder: Json, name: str) -> list[Json]:
    """The objects in a field's list; a lone object counts as a list of it."""
    value = holder.get(name)
    if isinstance(value, dict):
        return [value]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def count_at(holder: Json, name: str) -> int:
    """A field's count; 0 for what is none. The vendor writes some of them as 7.0."""
    value = holder.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value <= _LARGEST else 0


def finish(word: str) -> v1.FinishReason.ValueType:
    """What the vendor's reason means. Raises UpstreamError for those that are failures."""
    failure = _FAILURES.get(word)
    if failure is not None:
        raise UpstreamError(*failure, http_status=200)
    if not word:
        return v1.FINISH_REASON_UNSPECIFIED
    return FINISH_REASONS.get(word, v1.FINISH_REASON_OTHER)


def read_usage(usage: Json, into: v1.Usage) -> None:
    """Replaces `into` with the vendor's counts, if there are any: CohereCodec says which."""
    billed = object_at(usage, "billed_units")
    counted = billed if billed.keys() & {"input_tokens", "output_tokens"} else None
    if counted is None:
        counted = object_at(usage, "tokens")
        if not counted:
            return
    into.Clear()
    into.source = v1.USAGE_SOURCE_PROVIDER
    into.input_tokens = count_at(counted, "input_tokens")
    into.output_tokens = count_at(counted, "output_tokens")
    if counted is not billed:
        into.cached_input_tokens = min(count_at(usage, "cached_tokens"), into.input_tokens)
