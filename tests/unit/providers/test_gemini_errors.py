"""Classification of Gemini's failures.

Hardly any failure was ever recorded (those are in the corpus test). The bodies here are written
from the vendor's documentation (https://ai.google.dev/gemini-api/docs/troubleshooting, the
error model of https://google.aip.dev/193) and from messages its users quote in public.
"""

import json
from typing import Any

import pytest

from trunkline import v1
from trunkline_server.errors import Violation
from trunkline_server.providers.gemini import GeminiCodec

CODEC = GeminiCodec()
TYPE = "type.googleapis.com/google.rpc."


def quota(quota_id: str) -> dict[str, Any]:
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
        "quotaId": quota_id,
        "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash"},
        "quotaValue": "20",
    }
    return {"@type": TYPE + "QuotaFailure", "violations": [violation]}


def body(code: int, status: str, message: str, *details: dict[str, Any]) -> bytes:
    error = {"code": code, "message": message, "status": status, "details": list(details)}
    return json.dumps({"error": error}).encode()


KEY_INVALID = {
    "@type": TYPE + "ErrorInfo",
    "reason": "API_KEY_INVALID",
    "domain": "googleapis.com",
    "metadata": {"service": "generativelanguage.googleapis.com"},
}
TABLE = [
    (400, "INVALID_ARGUMENT", "Invalid JSON payload received.", (),
     v1.ERROR_REASON_INVALID_REQUEST),
    (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", (KEY_INVALID,),
     v1.ERROR_REASON_AUTHENTICATION),
    (400, "INVALID_ARGUMENT",
     "The input token count (1200003) exceeds the maximum number of tokens allowed (1048576).",
     (), v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED),
    (400, "INVALID_ARGUMENT",
     "Unable to submit request because the input token count is 1200003 but model only supports "
     "up to 1048576.", (), v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED),
    (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", (),
     v1.ERROR_REASON_AUTHORIZATION),
    (400, "OUT_OF_RANGE", "Out of range.", (), v1.ERROR_REASON_INVALID_REQUEST),
    (401, "UNAUTHENTICATED", "Request had invalid authentication credentials.", (),
     v1.ERROR_REASON_AUTHENTICATION),
    (403, "PERMISSION_DENIED", "You do not have permission.", (), v1.ERROR_REASON_AUTHORIZATION),
    (404, "NOT_FOUND", "models/gemini-9 is not found for API version v1beta.", (),
     v1.ERROR_REASON_MODEL_NOT_FOUND),
    (429, "RESOURCE_EXHAUSTED", "Resource exhausted. Please try again later.", (),
     v1.ERROR_REASON_RATE_LIMIT),
    (429, "RESOURCE_EXHAUSTED",
     "You exceeded your current quota, please check your plan and billing details.",
     (quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"),), v1.ERROR_REASON_RATE_LIMIT),
    (429, "RESOURCE_EXHAUSTED",
     "You exceeded your current quota, please check your plan and billing details.",
     (quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"),),
     v1.ERROR_REASON_QUOTA_EXCEEDED),
    (429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", (),
     v1.ERROR_REASON_QUOTA_EXCEEDED),
    (429, "RESOURCE_EXHAUSTED", "Your project has exceeded its monthly spending cap.", (),
     v1.ERROR_REASON_QUOTA_EXCEEDED),
    (499, "CANCELLED", "The operation was cancelled.", (), v1.ERROR_REASON_SERVICE_UNAVAILABLE),
    (500, "INTERNAL", "An internal error has occurred.", (), v1.ERROR_REASON_SERVICE_UNAVAILABLE),
    (500, "UNKNOWN", "Who knows.", (), v1.ERROR_REASON_UNKNOWN),
    (501, "UNIMPLEMENTED", "Not implemented.", (), v1.ERROR_REASON_INVALID_REQUEST),
    (503, "UNAVAILABLE", "The model is overloaded.", (), v1.ERROR_REASON_SERVICE_UNAVAILABLE),
    (504, "DEADLINE_EXCEEDED", "Deadline expired.", (), v1.ERROR_REASON_TIMEOUT),
    (409, "ABORTED", "Aborted.", (), v1.ERROR_REASON_SERVICE_UNAVAILABLE),
    # A word from tomorrow: the HTTP status tells.
    (429, "BRAND_NEW", "Something.", (), v1.ERROR_REASON_RATE_LIMIT),
]  # fmt: skip


@pytest.mark.parametrize(("code", "status", "message", "details", "reason"), TABLE)
def test_documented_failures(
    code: int,
    status: str,
    message: str,
    details: tuple[dict[str, Any], ...],
    reason: v1.ErrorReason.ValueType,
) -> None:
    data = body(code, status, message, *details)
    for sent in (data, b"[%b]" % data):  # Some hosts wrap it in a list.
        error = CODEC.decode_error(code, {}, sent)
        assert error.reason == reason
        assert error.message == message
        assert error.http_status == code
        assert error.sent


def test_a_stale_quota_of_a_day_outweighs_one_of_a_minute() -> None:
    details = [quota("GenerateTokensPerMinute"), quota("GenerateRequestsPerDay")]
    error = CODEC.decode_error(429, {}, body(429, "RESOURCE_EXHAUSTED", "Quota.", *details))
    assert error.reason == v1.ERROR_REASON_QUOTA_EXCEEDED


@pytest.mark.parametrize(
    ("delay", "headers", "expected"),
    [
        ("17s", {}, 17.0),
        ("0.250s", {"retry-after": "9"}, 0.25),
        (None, {"retry-after": "9"}, 9.0),
        ("soon", {"retry-after": "9"}, 9.0),
        ("-3s", {}, None),
        ("99999999999s", {}, None),
        (17, {}, None),
        (None, {}, None),
    ],
)
def test_pauses(delay: Any, headers: dict[str, str], expected: float | None) -> None:
    info = {"@type": TYPE + "RetryInfo", "retryDelay": delay}
    error = CODEC.decode_error(429, headers, body(429, "RESOURCE_EXHAUSTED", "Quota.", info))
    assert error.retry_after == expected


def test_field_violations() -> None:
    found = [
        {"field": "generation_config.temperature", "description": "must be at most 2"},
        {"description": "Invalid JSON payload received."},
        "nonsense",
    ]
    detail = {"@type": TYPE + "BadRequest", "fieldViolations": found * 20}
    error = CODEC.decode_error(400, {}, body(400, "INVALID_ARGUMENT", "Wrong.", detail))
    assert len(error.violations) == 16
    assert error.violations[:2] == (
        Violation("generation_config.temperature", "must be at most 2"),
        Violation("", "Invalid JSON payload received."),
    )


def test_long_messages_are_shortened_and_keys_struck() -> None:
    message = "API key AIzaSyA-made-up-key-of-this-test is bad. " + "x" * 2000
    error = CODEC.decode_error(400, {}, body(400, "INVALID_ARGUMENT", message))
    assert len(error.message) <= 500
    assert "AIzaSy" not in error.message


STATUSES = [
    (400, v1.ERROR_REASON_INVALID_REQUEST),
    (401, v1.ERROR_REASON_AUTHENTICATION),
    (404, v1.ERROR_REASON_MODEL_NOT_FOUND),
    (429, v1.ERROR_REASON_RATE_LIMIT),
    (502, v1.ERROR_REASON_SERVICE_UNAVAILABLE),
    (418, v1.ERROR_REASON_UNKNOWN),
]
ODD = [
    b"", b"<html>busy</html>", b"null", b"[]", b"[1]", b"{}", b'{"error":"text"}', b"\xff\xfe",
    b'{"error":{"status":[],"message":{},"details":{},"code":"x"}}',
    b'{"error":{"details":[1,{"violations":[2],"reason":[],"fieldViolations":3}]}}',
]  # fmt: skip


@pytest.mark.parametrize(("status", "reason"), STATUSES)
@pytest.mark.parametrize("data", ODD)
def test_odd_bodies_are_classified_by_status(
    status: int, reason: v1.ErrorReason.ValueType, data: bytes
) -> None:
    error = CODEC.decode_error(status, {}, data)
    assert error.reason == reason
    assert str(status) in error.message
