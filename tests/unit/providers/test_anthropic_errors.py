"""How failures of the Anthropic dialect are classified.

The shapes are those of the vendor's error reference and of its clouds' documentation; but for
two refusals of access, none was ever recorded.
"""

import json
from typing import Any

import pytest

from trunkline import v1
from trunkline_server.providers.anthropic_messages import AnthropicMessagesCodec

CODEC = AnthropicMessagesCodec()


def reported(kind: str, message: str = "Sorry.", **details: Any) -> bytes:
    error: dict[str, Any] = {"type": kind, "message": message}
    if details:
        error["details"] = details
    return json.dumps({"type": "error", "error": error, "request_id": "req_body"}).encode()


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, "invalid_request_error", v1.ERROR_REASON_INVALID_REQUEST),
        (401, "authentication_error", v1.ERROR_REASON_AUTHENTICATION),
        (402, "billing_error", v1.ERROR_REASON_QUOTA_EXCEEDED),
        (403, "permission_error", v1.ERROR_REASON_AUTHORIZATION),
        (404, "not_found_error", v1.ERROR_REASON_MODEL_NOT_FOUND),
        (413, "request_too_large", v1.ERROR_REASON_INVALID_REQUEST),
        (429, "rate_limit_error", v1.ERROR_REASON_RATE_LIMIT),
        (500, "api_error", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        (504, "timeout_error", v1.ERROR_REASON_TIMEOUT),
        (529, "overloaded_error", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        # A type says more than the status of the host that hands it on.
        (403, "billing_error", v1.ERROR_REASON_QUOTA_EXCEEDED),
        # A type that is not known leaves the status.
        (429, "something_new_error", v1.ERROR_REASON_RATE_LIMIT),
    ],
)
def test_types(status: int, kind: str, reason: v1.ErrorReason.ValueType) -> None:
    error = CODEC.decode_error(status, {}, reported(kind))
    assert (error.reason, error.http_status, error.message) == (reason, status, "Sorry.")
    assert error.retry_after is None
    assert error.sent


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "prompt is too long: 208310 tokens > 200000 maximum",
            v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
        ),
        ("Prompt is too long", v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED),
        (
            "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, "
            "decrease input length or `max_tokens` and try again",
            v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
        ),
        (
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & "
            "Billing to upgrade or purchase credits.",
            v1.ERROR_REASON_QUOTA_EXCEEDED,
        ),
        (
            "You have reached your specified API usage limits. You will regain access on "
            "2026-01-01 at 00:00 UTC.",
            v1.ERROR_REASON_QUOTA_EXCEEDED,
        ),
        ("This organization has been disabled.", v1.ERROR_REASON_AUTHORIZATION),
        ("Output blocked by content filtering policy", v1.ERROR_REASON_CONTENT_FILTER),
    ],
)
def test_causes_told_in_words(message: str, reason: v1.ErrorReason.ValueType) -> None:
    error = CODEC.decode_error(400, {}, reported("invalid_request_error", message))
    assert error.reason == reason
    assert not error.violations


@pytest.mark.parametrize(
    ("status", "kind", "code", "reason"),
    [
        (
            429,
            "rate_limit_error",
            "enforced_spend_limit_reached",
            v1.ERROR_REASON_QUOTA_EXCEEDED,
        ),
        (429, "rate_limit_error", "contract_spend_limit_reached", v1.ERROR_REASON_QUOTA_EXCEEDED),
        (429, "rate_limit_error", "ramp_limit_exceeded", v1.ERROR_REASON_RATE_LIMIT),
        (400, "invalid_request_error", "organization_on_hold", v1.ERROR_REASON_AUTHORIZATION),
    ],
)
def test_causes_told_by_code(
    status: int, kind: str, code: str, reason: v1.ErrorReason.ValueType
) -> None:
    body = reported(kind, error_code=code)
    assert CODEC.decode_error(status, {}, body).reason == reason


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (
            "max_tokens: 5000000 > 64000, which is the maximum allowed number of output tokens",
            "config.max_output_tokens",
        ),
        ("messages.0.content.1.text.text: Field required", "messages"),
        ("messages: text content blocks must be non-empty", "messages"),
        ("tools.3.custom.input_schema.type: Field required", "tools[3]"),
        ("tools: Tool names must be unique.", "tools"),
        ("temperature: Input should be less than or equal to 1", "config.temperature"),
        (
            "`temperature` may only be set to 1 when thinking is enabled.",
            "config.temperature",
        ),
        (
            "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
            "config.reasoning.budget_tokens",
        ),
        ("`max_tokens` must be greater than `thinking.budget_tokens`.", "config.max_output_tokens"),
        ("output_config.effort: this model does not support it", "config.reasoning.effort"),
        ("output_config.format.schema: bad keyword", "response_format"),
        ("stop_sequences: each stop sequence must contain non-whitespace", "config.stop"),
        ("metadata.user_id: too long", None),
        ("Something is wrong.", None),
        ("messages", None),
    ],
)
def test_wrong_fields_are_named_as_the_contract_names_them(message: str, field: str | None) -> None:
    error = CODEC.decode_error(400, {}, reported("invalid_request_error", message))
    assert error.reason == v1.ERROR_REASON_INVALID_REQUEST
    expected = [] if field is None else [(field, message)]
    assert [(found.field, found.description) for found in error.violations] == expected


@pytest.mark.parametrize(
    ("status", "body", "reason", "message"),
    [
        # Clouds before the vendor: Azure, Vertex AI and Bedrock in their own shapes.
        (
            401,
            {"error": {"code": "401", "message": "Access denied."}},
            v1.ERROR_REASON_AUTHENTICATION,
            "Access denied.",
        ),
        (
            429,
            {"error": {"code": 429, "message": "Exhausted.", "status": "RESOURCE_EXHAUSTED"}},
            v1.ERROR_REASON_RATE_LIMIT,
            "Exhausted.",
        ),
        (403, {"message": "No access."}, v1.ERROR_REASON_AUTHORIZATION, "No access."),
        (
            400,
            {"message": "Input is too long for requested model."},
            v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
            "Input is too long for requested model.",
        ),
        # Nothing that can be read: the status alone.
        (529, [], v1.ERROR_REASON_SERVICE_UNAVAILABLE, "HTTP status 529"),
        (404, {"error": "x"}, v1.ERROR_REASON_MODEL_NOT_FOUND, "HTTP status 404"),
        (418, {"error": {"message": 1, "type": None}}, v1.ERROR_REASON_UNKNOWN, "HTTP status 418"),
        (502, {"error": {"type": "api_error"}}, v1.ERROR_REASON_SERVICE_UNAVAILABLE, "api_error"),
    ],
)
def test_other_shapes(
    status: int, body: Any, reason: v1.ErrorReason.ValueType, message: str
) -> None:
    error = CODEC.decode_error(status, {}, json.dumps(body).encode())
    assert (error.reason, error.message) == (reason, message)


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"\xff\x00", b'{"error":'])
def test_bodies_that_are_not_json(body: bytes) -> None:
    error = CODEC.decode_error(502, {}, body)
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert error.message == "HTTP status 502"


def test_headers_are_read() -> None:
    headers = {"retry-after": "12", "request-id": "req_header"}
    error = CODEC.decode_error(429, headers, reported("rate_limit_error"))
    assert error.retry_after == 12
    assert error.provider_request_id == "req_header"
    assert CODEC.decode_error(429, {}, reported("x")).provider_request_id == "req_body"


def test_messages_are_short_and_free_of_credentials() -> None:
    long = "bad key sk-ant-api03-abcdefghijklmnop " + "x" * 1000
    error = CODEC.decode_error(401, {}, reported("authentication_error", long))
    assert len(error.message) <= 500
    assert "abcdefghijklmnop" not in error.message


def test_an_error_that_comes_as_an_answer() -> None:
    response = v1.GenerateResponse(id="kept")
    with pytest.raises(type(CODEC.decode_error(500, {}, b""))) as caught:
        CODEC.decode_generate(reported("overloaded_error"), response)
    assert caught.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert response == v1.GenerateResponse(id="kept")
