"""Failures as the Messages API reports them, in answers and inside streams.

The shapes and types are as the vendor's errors are commonly known and as its own SDK reads them:
`{"type": "error", "error": {"type", "message", "details"}, "request_id"}`. Two were recorded, the
others are unproven until met. Hosts before the vendor, such as clouds and proxies,
answer in their own shapes, of which only a message is read.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError, Violation
from trunkline_server.providers.common import reason_for_status, retry_after_seconds, shorten

# The vendor's error types, and the status each comes with where it comes as an answer.
_STATUS_OF_TYPE: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

# The vendor's error codes that say more than the type they come with.
_REASON_OF_CODE: Mapping[str, v1.ErrorReason.ValueType] = {
    "contract_spend_limit_reached": v1.ERROR_REASON_QUOTA_EXCEEDED,
    "enforced_spend_limit_reached": v1.ERROR_REASON_QUOTA_EXCEEDED,
    "linked_organization_spend_limit_reached": v1.ERROR_REASON_QUOTA_EXCEEDED,
    "organization_on_hold": v1.ERROR_REASON_AUTHORIZATION,
}

# Causes that the vendor tells only by its words, all of them of type invalid_request_error.
_REASON_OF_WORDS: tuple[tuple[str, v1.ErrorReason.ValueType], ...] = (
    ("prompt is too long", v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED),
    ("input is too long", v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED),
    ("exceed context limit", v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED),
    ("credit balance is too low", v1.ERROR_REASON_QUOTA_EXCEEDED),
    ("reached your specified api usage limits", v1.ERROR_REASON_QUOTA_EXCEEDED),
    ("organization has been disabled", v1.ERROR_REASON_AUTHORIZATION),
    ("content filtering policy", v1.ERROR_REASON_CONTENT_FILTER),
)

# A message that begins with the path of the wrong field, such as "tools.0.name: ...".
_FIELD = re.compile(r"`?([a-z_]+)((?:\.\w+)*)`?(?::| (?:may|must|cannot|is|should) )")

# The contract's field for each field at the top of the vendor's request. A turn of the
# vendor's may join several messages, so that its number is not theirs.
_FIELDS: Mapping[str, str] = {
    "max_tokens": "config.max_output_tokens",
    "messages": "messages",
    "model": "model",
    "output_config": "response_format",
    "output_format": "response_format",
    "stop_sequences": "config.stop",
    "system": "messages",
    "temperature": "config.temperature",
    "thinking": "config.reasoning",
    "tool_choice": "tool_choice",
    "tools": "tools",
    "top_k": "config.top_k",
    "top_p": "config.top_p",
}


def decode_failure(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Classifies a non-2xx answer; see Codec.decode_error."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    return reported_error(answer, status=status, headers=headers)


def reported_error(
    answer: Any, *, status: int, headers: Mapping[str, str] | None = None
) -> UpstreamError:
    """The failure that an error object reports. `answer` may be anything.

    `status` is the answer's own; 200 for an error inside a stream, which its type classifies.
    """
    headers = headers or {}
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        error = answer if isinstance(answer, dict) else {}
    kind = _text(error, "type")
    message = shorten(_text(error, "message"))
    reason = _reason(status, kind, error, message.lower())
    violations = _violations(message) if reason == v1.ERROR_REASON_INVALID_REQUEST else ()
    return UpstreamError(
        reason,
        message or kind or f"HTTP status {status}",
        http_status=status,
        retry_after=retry_after_seconds(headers),
        violations=violations,
        provider_request_id=_request_id(headers, answer),
    )


def bad_response(what: str) -> UpstreamError:
    """The error for bytes that make no sense; `what` says what they are, without them."""
    return UpstreamError(
        v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, f"the provider sent {what}", http_status=200
    )


def _reason(
    status: int, kind: str, error: Mapping[str, Any], words: str
) -> v1.ErrorReason.ValueType:
    details = error.get("details")
    if isinstance(details, dict):
        coded = _REASON_OF_CODE.get(_text(details, "error_code"))
        if coded is not None:
            return coded
    vendor_status = _STATUS_OF_TYPE.get(kind)
    if status == 200:
        # The vendor fails a stream by type alone; one not known is a failure of its service.
        status = vendor_status or 500
    elif vendor_status is not None:
        status = vendor_status
    if status == 400:
        for phrase, reason in _REASON_OF_WORDS:
            if phrase in words:
                return reason
    return reason_for_status(status)


def _violations(message: str) -> tuple[Violation, ...]:
    found = _FIELD.match(message)
    field = _FIELDS.get(found[1]) if found else None
    if found is None or field is None:
        return ()
    steps = found[2].split(".")[1:]
    if field == "tools" and steps and steps[0].isdecimal():
        field = f"tools[{steps[0]}]"
    elif field == "config.reasoning" and "budget_tokens" in steps:
        field = "config.reasoning.budget_tokens"
    elif found[1] == "output_config" and "effort" in steps:
        field = "config.reasoning.effort"
    return (Violation(field, message),)


def _request_id(headers: Mapping[str, str], answer: Any) -> str:
    for name in ("request-id", "x-request-id"):
        if headers.get(name):
            return headers[name]
    return _text(answer, "request_id") if isinstance(answer, dict) else ""


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
