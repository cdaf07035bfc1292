"""Failures in the OpenAI dialect.

The corpus holds few: these are written as the hosts' failures are commonly shaped, and beyond
those that the corpus confirms they are unproven.
"""

import json
from typing import Any

import pytest

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.openai_chat import OpenAIChatCodec

R = v1.ErrorReason


def error(status: int, body: Any, **headers: str) -> UpstreamError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return OpenAIChatCodec().decode_error(status, named, data)


def told(message: str, code: Any = None, kind: Any = None, param: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, told("Bad", kind="invalid_request_error"), "INVALID_REQUEST"),
        (400, told("Too long", "context_length_exceeded"), "CONTEXT_LENGTH_EXCEEDED"),
        (
            400,
            told("This model's maximum context length is 8192 tokens. However, you asked for 9000"),
            "CONTEXT_LENGTH_EXCEEDED",
        ),
        (
            400,
            {"code": "invalid", "error": "This model's maximum prompt length is 131072 but ..."},
            "CONTEXT_LENGTH_EXCEEDED",
        ),
        (
            422,
            told("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097"),
            "CONTEXT_LENGTH_EXCEEDED",
        ),
        (
            400,
            {"error": {"code": 400, "message": "x", "type": "exceed_context_size_error"}},
            "CONTEXT_LENGTH_EXCEEDED",
        ),
        (413, b"", "INVALID_REQUEST"),
        (413, told("prompt is too long"), "CONTEXT_LENGTH_EXCEEDED"),
        (400, told("Filtered", "content_filter"), "CONTENT_FILTER"),
        (400, told("Filtered", "content_policy_violation"), "CONTENT_FILTER"),
        (
            400,
            {"error": {"message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            "CONTENT_FILTER",
        ),
        (
            403,
            {"error": {"message": "m", "code": 403, "metadata": {"reasons": ["violence"]}}},
            "CONTENT_FILTER",
        ),
        (401, told("Incorrect API key", "invalid_api_key"), "AUTHENTICATION"),
        (400, {"code": "x", "error": "Incorrect API key provided: ab***yz."}, "AUTHENTICATION"),
        (403, told("Country not supported"), "AUTHORIZATION"),
        (404, told("The model `x` does not exist", "model_not_found"), "MODEL_NOT_FOUND"),
        (404, b"<html>not here</html>", "MODEL_NOT_FOUND"),
        (400, told("foo/bar is not a valid model ID", 400), "MODEL_NOT_FOUND"),
        (
            400,
            told("The requested model 'x' does not exist.", "model_not_found"),
            "MODEL_NOT_FOUND",
        ),
        (429, told("Rate limit reached for x", "rate_limit_exceeded"), "RATE_LIMIT"),
        (429, told("Too many requests, see the billing page to raise your limit"), "RATE_LIMIT"),
        (429, told("You exceeded your current quota", "insufficient_quota"), "QUOTA_EXCEEDED"),
        (
            429,
            told("You exceeded your current quota", None, "insufficient_quota"),
            "QUOTA_EXCEEDED",
        ),
        (400, told("Hard limit", "billing_hard_limit_reached"), "QUOTA_EXCEEDED"),
        (402, told("Insufficient Balance", "invalid_request_error"), "QUOTA_EXCEEDED"),
        (403, {"error": "Your team has used all available credits"}, "QUOTA_EXCEEDED"),
        (429, {"error": {"code": "1113", "message": "Insufficient balance"}}, "QUOTA_EXCEEDED"),
        (429, {"error": {"code": "1302", "message": "High concurrency"}}, "RATE_LIMIT"),
        # A status of certain meaning is not overruled by a word in the sentence.
        (429, told("Too many tokens for the context window of this minute"), "RATE_LIMIT"),
        (503, told("The model was not found on any warm server"), "SERVICE_UNAVAILABLE"),
        (408, b"", "TIMEOUT"),
        (504, b"upstream timed out", "TIMEOUT"),
        (500, told("The server had an error", None, "server_error"), "SERVICE_UNAVAILABLE"),
        (503, told("Overloaded"), "SERVICE_UNAVAILABLE"),
        (529, b"", "SERVICE_UNAVAILABLE"),
        (498, told("Flex tier capacity exceeded"), "SERVICE_UNAVAILABLE"),
        (418, told("I am a teapot"), "UNKNOWN"),
        (409, told("Conflict"), "UNKNOWN"),
        # Google's compatible API wraps the error in a list.
        (404, [{"error": {"code": 404, "message": "models/x is not found"}}], "MODEL_NOT_FOUND"),
        # Mistral and vLLM leave out the wrapper.
        (429, {"object": "error", "message": "Slow down", "type": "rate_limit"}, "RATE_LIMIT"),
        (422, {"detail": [{"loc": ["body", "n"], "msg": "bad"}]}, "INVALID_REQUEST"),
        # A gateway's error with the vendor's own inside.
        (
            400,
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 400,
                    "metadata": {"raw": json.dumps(told("long", "context_length_exceeded"))},
                }
            },
            "CONTEXT_LENGTH_EXCEEDED",
        ),
    ],
)
def test_reasons(status: int, body: Any, reason: str) -> None:
    failure = error(status, body)
    assert R.Name(failure.reason) == f"ERROR_REASON_{reason}"
    assert failure.http_status == status
    assert failure.message


@pytest.mark.parametrize(
    ("param", "field"),
    [
        ("temperature", "config.temperature"),
        ("max_tokens", "config.max_output_tokens"),
        ("max_completion_tokens", "config.max_output_tokens"),
        ("messages[0].content[1].image_url", "messages"),
        ("messages.[0].role", "messages"),
        ("tools[3].function.parameters", "tools"),
        ("reasoning_effort", "config.reasoning.effort"),
        ("response_format", "response_format"),
    ],
)
def test_parameters_become_fields_of_the_contract(param: str, field: str) -> None:
    (violation,) = error(400, told("Wrong.", param=param)).violations
    assert violation.field == field
    assert violation.description == "Wrong."


@pytest.mark.parametrize("param", [None, "", "store", 7, "[0]"])
def test_parameters_without_a_field_give_no_violation(param: Any) -> None:
    assert error(400, told("Wrong.", param=param)).violations == ()


def test_parameter_inside_a_gateways_error() -> None:
    raw = json.dumps(told("Unsupported: 'temperature'.", param="temperature"))
    body = {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw}}}
    failure = error(400, body)
    assert failure.violations[0].field == "config.temperature"
    assert failure.message == "Unsupported: 'temperature'."


def test_refused_credentials_are_not_quoted() -> None:
    for body in (
        told("Incorrect API key provided: my-own-secret-form.", "invalid_api_key"),
        {"message": "no such key: my-own-secret-form"},
        b"key my-own-secret-form is unknown",
    ):
        failure = error(401, body)
        assert "secret" not in failure.message
        assert failure.reason == v1.ERROR_REASON_AUTHENTICATION


def test_payload_is_not_quoted() -> None:
    bodies = (
        {"detail": [{"loc": ["body", "messages"], "msg": "bad", "input": "PAYLOAD"}]},
        {"error": {"message": "m", "code": 403, "metadata": {"flagged_input": "PAYLOAD"}}},
        {"error": {"message": "m", "failed_generation": "PAYLOAD"}},
        {"error": {"message": "m", "metadata": {"raw": "PAYLOAD"}}},
        b"PAYLOAD",
    )
    for body in bodies:
        failure = error(400, body)
        assert "PAYLOAD" not in failure.message
        assert not any("PAYLOAD" in violation.description for violation in failure.violations)


def test_message_of_a_body_without_any() -> None:
    assert error(503, b"").message == "the provider answered with status 503"
    assert len(error(400, told("x" * 9000)).message) == 500


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "3"}, 3.0),
        ({"retry_after_ms": "1500", "retry_after": "2"}, 1.5),
        ({"x_ratelimit_reset_requests": "6m0s"}, 360.0),
        ({"x_ratelimit_reset_requests": "1h2m3.5s"}, 3723.5),
        ({"x_ratelimit_reset_tokens": "120ms"}, 0.12),
        ({"retry_after": "1", "x_ratelimit_reset_requests": "6m0s"}, 1.0),
        (
            {
                "x_ratelimit_reset_requests": "8m",
                "x_ratelimit_remaining_requests": "12",
                "x_ratelimit_reset_tokens": "7.5s",
                "x_ratelimit_remaining_tokens": "0",
            },
            7.5,
        ),
        ({"x_ratelimit_reset_requests": "soon"}, None),
        ({"x_ratelimit_reset_requests": ""}, None),
        ({"x_ratelimit_reset_requests": "999999h"}, None),
    ],
)
def test_waiting_times(headers: dict[str, str], seconds: float | None) -> None:
    assert error(429, told("Slow down"), **headers).retry_after == seconds


def test_limits_say_nothing_of_other_failures() -> None:
    assert error(500, b"", x_ratelimit_reset_requests="6m0s").retry_after is None
    assert error(503, b"", retry_after="5").retry_after == 5.0


def test_request_ids() -> None:
    assert error(500, b"", x_request_id="req_1").provider_request_id == "req_1"
    assert error(500, b"", apim_request_id="a-1").provider_request_id == "a-1"
    assert error(500, b"").provider_request_id == ""
