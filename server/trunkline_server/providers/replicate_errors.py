"""Reads failures of Replicate: of its HTTP API, and of predictions that were begun.

The shapes are documented (https://replicate.com/docs/reference/http), the error codes of
predictions too (https://replicate.com/docs/reference/prediction-errors); none was recorded. A
refusal is `{"title", "detail", "status"}`, that of an input has `invalid_fields` besides.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError, Violation
from trunkline_server.providers.common import reason_for_status, retry_after_seconds, shorten

# By the code that a prediction's error ends with, and by words of those that have none.
_BY_WORDS: tuple[tuple[re.Pattern[str], v1.ErrorReason.ValueType], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (r"\bE005\b|flagged as sensitive|nsfw content", v1.ERROR_REASON_CONTENT_FILTER),
        (r"\bE(?:003|004|1001|8765)\b|high demand", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        (
            r"maximum (?:context|prompt) length|context (?:length|window)|prompt is too long"
            r"|input is too long",
            v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
        ),
        (r"\bE006\b|invalid input", v1.ERROR_REASON_INVALID_REQUEST),
        (r"\bE(?:002|9243)\b|took too long|timed out", v1.ERROR_REASON_TIMEOUT),
    )
)
_OF_INPUTS = frozenset({v1.ERROR_REASON_CONTENT_FILTER, v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED})
_UNKNOWN_VERSION = re.compile(
    r"invalid version|version .*(?:does not exist|not found)", re.IGNORECASE
)
# Where an input of the model's stands in the contract.
_FIELDS: Mapping[str, str] = {
    "frequency_penalty": "config.frequency_penalty",
    "image": "messages",
    "max_tokens": "config.max_output_tokens",
    "presence_penalty": "config.presence_penalty",
    "prompt": "messages",
    "seed": "config.seed",
    "stop_sequences": "config.stop",
    "system_prompt": "messages",
    "temperature": "config.temperature",
    "top_k": "config.top_k",
    "top_p": "config.top_p",
}
_THROTTLED = re.compile(r"available in (\d{1,6}) seconds?")


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The failure that a non-2xx answer reports."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    report = document if isinstance(document, dict) else {}
    title, detail = _text(report, "title"), _text(report, "detail")
    message = shorten(detail or title) or f"the provider answered with status {status}"
    reason = reason_for_status(status)
    if reason == v1.ERROR_REASON_AUTHENTICATION:
        message = "the provider refused the credentials"
    elif status == 422:
        reason = _of_input(title, detail) or reason
    retry_after = retry_after_seconds(headers)
    if retry_after is None and (found := _THROTTLED.search(detail)):
        retry_after = float(found[1])
    return UpstreamError(
        reason,
        message,
        http_status=status,
        retry_after=retry_after,
        violations=_violations(report) if reason == v1.ERROR_REASON_INVALID_REQUEST else (),
        provider_request_id=shorten(headers.get("x-request-id", "")),
    )


def _of_input(title: str, detail: str) -> v1.ErrorReason.ValueType | None:
    """What is wrong with an input, where the words say more than the status."""
    if _UNKNOWN_VERSION.search(f"{title} {detail}"):
        return v1.ERROR_REASON_MODEL_NOT_FOUND
    for pattern, reason in _BY_WORDS:
        if reason in _OF_INPUTS and pattern.search(detail):
            return reason
    return None


def failed(error: str) -> UpstreamError:
    """The failure of a prediction that was begun, told by its `error`."""
    reason = next(
        (reason for pattern, reason in _BY_WORDS if pattern.search(error)),
        v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    )
    return UpstreamError(
        reason, shorten(error) or "the prediction failed without a word", http_status=200
    )


def called_off(status: str) -> UpstreamError:
    """The failure of a prediction that somebody, or its own time limit, has ended."""
    return UpstreamError(
        v1.ERROR_REASON_SERVICE_UNAVAILABLE, f"the prediction was {status}", http_status=200
    )


def senseless(message: str) -> UpstreamError:
    """The error for a reply of status 2xx that makes no sense."""
    return UpstreamError(v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, message, http_status=200)


def _violations(report: Mapping[str, Any]) -> tuple[Violation, ...]:
    """What stands in `invalid_fields`: the field's path begins with `input`."""
    complaints = report.get("invalid_fields")
    found = []
    for complaint in complaints if isinstance(complaints, list) else ():
        if isinstance(complaint, dict):
            name = _text(complaint, "field").removeprefix("input.").split(".")[0]
            described = shorten(_text(complaint, "description"))
            # A required input is told of the whole, and named in the description.
            words = described.split(" ", 1)
            field = _FIELDS.get(name) or _FIELDS.get(words[0])
            if field:
                found.append(Violation(field, described))
    return tuple(found)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
