"""Gemini failures: google.rpc statuses in JSON, as bodies of their own or inside streams.

The shape and its details (`ErrorInfo`, `BadRequest`, `QuotaFailure`, `RetryInfo`) are those of
https://google.aip.dev/193; the codes' HTTP statuses are those of google.rpc.Code.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError, Violation
from trunkline_server.providers.common import (
    MAX_RETRY_AFTER,
    reason_for_status,
    retry_after_seconds,
    shorten,
)

_MAX_VIOLATIONS = 16

_REASONS: Mapping[str, v1.ErrorReason.ValueType] = {
    "INVALID_ARGUMENT": v1.ERROR_REASON_INVALID_REQUEST,
    "OUT_OF_RANGE": v1.ERROR_REASON_INVALID_REQUEST,
    "UNIMPLEMENTED": v1.ERROR_REASON_INVALID_REQUEST,
    # The account or its place may not use the service, whatever the request.
    "FAILED_PRECONDITION": v1.ERROR_REASON_AUTHORIZATION,
    "PERMISSION_DENIED": v1.ERROR_REASON_AUTHORIZATION,
    "UNAUTHENTICATED": v1.ERROR_REASON_AUTHENTICATION,
    "NOT_FOUND": v1.ERROR_REASON_MODEL_NOT_FOUND,
    "RESOURCE_EXHAUSTED": v1.ERROR_REASON_RATE_LIMIT,
    "DEADLINE_EXCEEDED": v1.ERROR_REASON_TIMEOUT,
    "ABORTED": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    "CANCELLED": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    "INTERNAL": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    "UNAVAILABLE": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    "DATA_LOSS": v1.ERROR_REASON_UNKNOWN,
    "UNKNOWN": v1.ERROR_REASON_UNKNOWN,
}
# `reason` of an ErrorInfo: the key itself is what the vendor refuses.
_KEY_REASONS = ("API_KEY_INVALID", "API_KEY_EXPIRED", "ACCESS_TOKEN_EXPIRED")
# How the Gemini API ("The input token count (9) exceeds the maximum ...") and Vertex AI ("the
# input token count is 9 but model only supports up to 8") say that a prompt is too long.
_TOO_LONG = re.compile(r"token count\b.{0,80}?\b(?:exceeds|only supports)", re.IGNORECASE)
_SPENT = re.compile(r"credits are depleted|spending cap", re.IGNORECASE)
_NO_CALLER = "unregistered callers"
# A QuotaFailure's quotaId, such as GenerateRequestsPerDayPerProjectPerModel-FreeTier.
_LONG_QUOTA = re.compile(r"per_?(?:day|week|month)", re.IGNORECASE)
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)s", re.ASCII)


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """As Codec.decode_error asks."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    return _classified(_error_object(document), status, headers)


def reported_error(reply: Any) -> UpstreamError:
    """The failure that a 2xx answer or one of its events reports in the answer's stead."""
    return _classified(_error_object(reply), 200, {})


def _error_object(document: Any) -> dict[str, Any]:
    """The `error` of a document, which may be wrapped in a list; empty when there is none."""
    if isinstance(document, list) and document:
        document = document[0]
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}


def _classified(error: dict[str, Any], status: int, headers: Mapping[str, str]) -> UpstreamError:
    message = error.get("message")
    if not isinstance(message, str):
        message = ""
    details = list(_details(error))
    told = shorten(message)
    return UpstreamError(
        _reason(error, message, details, status),
        told or f"the provider answered with HTTP status {status}",
        http_status=status,
        retry_after=_retry_after(details, headers),
        violations=list(_violations(details)),
    )


def _reason(
    error: dict[str, Any], message: str, details: list[dict[str, Any]], status: int
) -> v1.ErrorReason.ValueType:
    word = error.get("status")
    reason = _REASONS.get(word) if isinstance(word, str) else None
    if reason is None:
        code = error.get("code")
        if isinstance(code, int) and 400 <= code <= 599:
            status = code
        reason = reason_for_status(status)
    if any(detail.get("reason") in _KEY_REASONS for detail in details):
        return v1.ERROR_REASON_AUTHENTICATION
    if reason == v1.ERROR_REASON_AUTHORIZATION and _NO_CALLER in message:
        return v1.ERROR_REASON_AUTHENTICATION
    if reason == v1.ERROR_REASON_INVALID_REQUEST and _TOO_LONG.search(message):
        return v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED
    if reason == v1.ERROR_REASON_RATE_LIMIT and (_SPENT.search(message) or _spent(details)):
        return v1.ERROR_REASON_QUOTA_EXCEEDED
    return reason


def _details(error: dict[str, Any]) -> Iterator[dict[str, Any]]:
    details = error.get("details")
    if isinstance(details, list):
        for detail in details:
            if isinstance(detail, dict):
                yield detail


def _items(detail: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    items = detail.get(key)
    if isinstance(items, list):
        for item in items:
            if isinstance(item, dict):
                yield item


def _spent(details: list[dict[str, Any]]) -> bool:
    """Whether a quota is used up that a moment's wait does not refill."""
    return any(
        _LONG_QUOTA.search(f"{violation.get('quotaId')} {violation.get('quotaMetric')}")
        for detail in details
        for violation in _items(detail, "violations")
    )


def _retry_after(details: list[dict[str, Any]], headers: Mapping[str, str]) -> float | None:
    """Seconds from RetryInfo ("17s"), or else from the headers."""
    for detail in details:
        delay = detail.get("retryDelay")
        found = _DURATION.fullmatch(delay) if isinstance(delay, str) else None
        if found is not None and float(found[1]) <= MAX_RETRY_AFTER:
            return float(found[1])
    return retry_after_seconds(headers)


def _violations(details: list[dict[str, Any]]) -> Iterator[Violation]:
    found = (item for detail in details for item in _items(detail, "fieldViolations"))
    for item, _ in zip(found, range(_MAX_VIOLATIONS), strict=False):
        yield Violation(
            shorten(str(item.get("field") or "")), shorten(str(item.get("description") or ""))
        )
