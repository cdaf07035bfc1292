"""Failures as Cohere reports them, in answers and inside streams.

The statuses and sentences are as the vendor documents them (its page of errors) and as they are
commonly known: `{"message": ..., "id": ...}`. None was recorded, so all are unproven until met.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError, Violation
from trunkline_server.providers.common import reason_for_status, retry_after_seconds, shorten

# Statuses that mean here what they mean nowhere else.
_STATUSES: Mapping[int, v1.ErrorReason.ValueType] = {
    # "Blocked input or output".
    498: v1.ERROR_REASON_CONTENT_FILTER,
    # The caller went away, which this one did not.
    499: v1.ERROR_REASON_SERVICE_UNAVAILABLE,
}
# Causes that the vendor tells only by its sentence, by status.
_SENTENCES: tuple[tuple[frozenset[int], re.Pattern[str], v1.ErrorReason.ValueType], ...] = tuple(
    (frozenset(statuses), re.compile(pattern, re.IGNORECASE), reason)
    for statuses, pattern, reason in (
        (
            {400, 422},
            r"too many tokens|context length|maximum (?:context|allowed) length",
            v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
        ),
        ({400, 404, 422}, r"\bmodel\b.{0,200}\bnot found", v1.ERROR_REASON_MODEL_NOT_FOUND),
        ({400, 403}, r"invalid api (?:token|key)|no api key", v1.ERROR_REASON_AUTHENTICATION),
        # A trial key's calls of the month; those of the minute come back by themselves.
        ({429}, r"per month|/ ?month|billing limit", v1.ERROR_REASON_QUOTA_EXCEEDED),
    )
)
# A sentence that names the wrong field, such as "invalid request: temperature must be ...".
_FIELD = re.compile(r"(?:invalid request:?\s+)?[`']?([a-z_]+)(?:\[\d+\])?[`']?[: ]", re.IGNORECASE)
_FIELDS: Mapping[str, str] = {
    "documents": "documents",
    "frequency_penalty": "config.frequency_penalty",
    "k": "config.top_k",
    "max_tokens": "config.max_output_tokens",
    "max_tokens_per_doc": "max_tokens_per_document",
    "messages": "messages",
    "model": "model",
    "output_dimension": "dimensions",
    "p": "config.top_p",
    "presence_penalty": "config.presence_penalty",
    "query": "query",
    "response_format": "response_format",
    "seed": "config.seed",
    "stop_sequences": "config.stop",
    "temperature": "config.temperature",
    "texts": "inputs",
    "thinking": "config.reasoning",
    "tool_choice": "tool_choice",
    "tools": "tools",
    "top_n": "top_n",
}


def decode_failure(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Classifies a non-2xx answer; see Codec.decode_error."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    message = _message(document)
    reason = _reason(status, message)
    if reason == v1.ERROR_REASON_AUTHENTICATION:
        # Not to quote the key that a vendor refuses.
        text = "the provider refused the credentials"
    else:
        text = shorten(message) or f"the provider answered with status {status}"
    return UpstreamError(
        reason,
        text,
        http_status=status,
        retry_after=retry_after_seconds(headers),
        violations=_violations(reason, text),
        provider_request_id=shorten(
            headers.get("x-debug-trace-id") or headers.get("x-request-id") or ""
        ),
    )


def reported_error(document: Any) -> UpstreamError:
    """The failure that an event inside a stream reports; the vendor gives it no status."""
    message = _message(document)
    reason = _reason(400, message)
    if reason == v1.ERROR_REASON_INVALID_REQUEST:
        # The request was good enough to be answered: what fails now is the service.
        reason = v1.ERROR_REASON_SERVICE_UNAVAILABLE
    text = shorten(message) or "the provider failed while it answered"
    return UpstreamError(reason, text, http_status=200)


def _reason(status: int, message: str) -> v1.ErrorReason.ValueType:
    for statuses, pattern, reason in _SENTENCES:
        if status in statuses and pattern.search(message):
            return reason
    return _STATUSES.get(status) or reason_for_status(status)


def _message(document: Any) -> str:
    """What went wrong, in the vendor's words."""
    for _ in range(3):
        if isinstance(document, str):
            return document
        if not isinstance(document, dict):
            break
        document = document.get("message") or document.get("error") or document.get("detail")
    return ""


def _violations(reason: v1.ErrorReason.ValueType, message: str) -> tuple[Violation, ...]:
    if reason == v1.ERROR_REASON_MODEL_NOT_FOUND:
        return (Violation("model", message),)
    if reason != v1.ERROR_REASON_INVALID_REQUEST:
        return ()
    found = _FIELD.match(message)
    field = _FIELDS.get(found[1].lower()) if found else None
    return (Violation(field, message),) if field else ()
