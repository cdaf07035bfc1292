"""How failures of the Bedrock runtime are classified.

The types and statuses are those of the service's model and of AWS's common errors. But for
ValidationException, AccessDeniedException and InvalidSignatureException, which the corpus holds,
none was ever recorded: these are the documented shapes.
"""

import json
from typing import Any

import pytest

from tests.support.eventstream import event, exception, message
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.bedrock import BedrockCodec
from trunkline_server.upstream.eventstream import EventStreamParser

CODEC = BedrockCodec()
CORAL = ":http://internal.amazon.com/coral/com.amazon.bedrock/"


def refused(
    status: int, kind: str, text: str = "Sorry.", by: str = "header", **fields: Any
) -> UpstreamError:
    body: dict[str, Any] = {"message": text, **fields}
    headers = {"x-amzn-requestid": "req-1"}
    if by == "header":
        headers["x-amzn-errortype"] = kind + CORAL
    else:
        body[by] = kind if by == "code" else f"com.amazonaws.bedrock#{kind}"
    return CODEC.decode_error(status, headers, json.dumps(body).encode())


@pytest.mark.parametrize("by", ["header", "__type", "code"])
@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, "ValidationException", v1.ERROR_REASON_INVALID_REQUEST),
        (400, "ServiceQuotaExceededException", v1.ERROR_REASON_QUOTA_EXCEEDED),
        (403, "AccessDeniedException", v1.ERROR_REASON_AUTHORIZATION),
        (403, "ExpiredTokenException", v1.ERROR_REASON_AUTHENTICATION),
        (403, "ExpiredToken", v1.ERROR_REASON_AUTHENTICATION),
        (403, "UnrecognizedClientException", v1.ERROR_REASON_AUTHENTICATION),
        (403, "InvalidSignatureException", v1.ERROR_REASON_AUTHENTICATION),
        (403, "MissingAuthenticationTokenException", v1.ERROR_REASON_AUTHENTICATION),
        (404, "ResourceNotFoundException", v1.ERROR_REASON_MODEL_NOT_FOUND),
        (408, "ModelTimeoutException", v1.ERROR_REASON_TIMEOUT),
        (424, "ModelErrorException", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        # Comes with a status that would otherwise mean that too much was asked.
        (429, "ModelNotReadyException", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        (429, "ThrottlingException", v1.ERROR_REASON_RATE_LIMIT),
        (500, "InternalServerException", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        (503, "ServiceUnavailableException", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        # A type that is not known leaves the status.
        (429, "SomethingNewException", v1.ERROR_REASON_RATE_LIMIT),
    ],
)
def test_types(by: str, status: int, kind: str, reason: v1.ErrorReason.ValueType) -> None:
    error = refused(status, kind, by=by)
    assert (error.reason, error.http_status, error.message) == (reason, status, "Sorry.")
    assert error.provider_request_id == "req-1"
    assert error.sent


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (
            "ValidationException",
            "Input is too long for requested model.",
            v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
        ),
        (
            "ValidationException",
            "The model returned the following errors: prompt is too long: 208310 tokens > 200000",
            v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
        ),
        (
            "ValidationException",
            "The model returned the following errors: Input Tokens Exceeded: Number of input "
            "tokens exceeds maximum length. Too many input tokens.",
            v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
        ),
        (
            "ValidationException",
            "This model's maximum context length is 8192 tokens. Please reduce the prompt.",
            v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED,
        ),
        (
            "ValidationException",
            "Invocation of model ID anthropic.claude-sonnet-4 with on-demand throughput isn't "
            "supported. Retry your request with the ID or ARN of an inference profile.",
            v1.ERROR_REASON_MODEL_NOT_FOUND,
        ),
        (
            "ValidationException",
            "The model returned the following errors: Output blocked by content filtering policy",
            v1.ERROR_REASON_CONTENT_FILTER,
        ),
        (
            "ThrottlingException",
            "Too many tokens, please wait before trying again.",
            v1.ERROR_REASON_RATE_LIMIT,
        ),
        (
            "ThrottlingException",
            "Too many tokens per day, please wait before trying again.",
            v1.ERROR_REASON_QUOTA_EXCEEDED,
        ),
    ],
)
def test_words(kind: str, text: str, reason: v1.ErrorReason.ValueType) -> None:
    assert refused(429 if kind == "ThrottlingException" else 400, kind, text).reason == reason


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (
            "1 validation error detected: Value '7.0' at 'inferenceConfig.temperature' failed to "
            "satisfy constraint: Member must be less than or equal to 1",
            "config.temperature",
        ),
        (
            "The text field in the ContentBlock object at messages.0.content.0 is blank. Add text "
            "to the text field, and try again.",
            "messages",
        ),
        ("Value 'x y' at 'toolConfig.tools.1.member.toolSpec.name' failed to do", "tools[1]"),
        ("The value at toolConfig.tools.0.toolSpec.inputSchema.json.type must be", "tools[0]"),
        ("The toolConfig.toolChoice.any field is not supported by this model", "tool_choice"),
        ("inferenceConfig.maxTokens is too large", "config.max_output_tokens"),
        ("Malformed input request, please reformat your input and try again.", ""),
    ],
)
def test_fields(text: str, field: str) -> None:
    error = refused(400, "ValidationException", text)
    assert error.reason == v1.ERROR_REASON_INVALID_REQUEST
    assert [violation.field for violation in error.violations] == ([field] if field else [])


def test_what_the_caller_wrote_is_not_repeated() -> None:
    text = "1 validation error detected: Value 'my\n'secret' at 'messages' failed to satisfy"
    error = refused(400, "ValidationException", text)
    assert error.message == "1 validation error detected: Value at 'messages' failed to satisfy"


@pytest.mark.parametrize(
    ("original", "reason"),
    [
        (400, v1.ERROR_REASON_INVALID_REQUEST),
        (429, v1.ERROR_REASON_RATE_LIMIT),
        (500, v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        ("x", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
    ],
)
def test_a_model_s_own_failure(original: object, reason: v1.ErrorReason.ValueType) -> None:
    error = refused(424, "ModelErrorException", originalStatusCode=original)
    assert error.reason == reason


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"message": 7}', b'{"Message": "M"}'])
def test_bodies_that_make_no_sense(body: bytes) -> None:
    error = CODEC.decode_error(503, {"retry-after": "3"}, body)
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert error.retry_after == 3
    assert error.message == ("M" if b"Message" in body else "HTTP status 503")


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        ("throttlingException", {}, v1.ERROR_REASON_RATE_LIMIT),
        ("validationException", {}, v1.ERROR_REASON_INVALID_REQUEST),
        ("internalServerException", {}, v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        ("serviceUnavailableException", {}, v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        ("modelStreamErrorException", {}, v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        (
            "modelStreamErrorException",
            {"originalStatusCode": 424, "originalMessage": "broke"},
            v1.ERROR_REASON_SERVICE_UNAVAILABLE,
        ),
        ("modelTimeoutException", {}, v1.ERROR_REASON_TIMEOUT),
        ("somethingNewException", {}, v1.ERROR_REASON_SERVICE_UNAVAILABLE),
    ],
)
def test_exceptions_inside_a_stream(
    kind: str, fields: dict[str, Any], reason: v1.ErrorReason.ValueType
) -> None:
    stream = (
        event("messageStart", b'{"role":"assistant"}')
        + event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"Hel"}}')
        + exception(kind, json.dumps({"message": "Sorry.", **fields}).encode())
    )
    decoder = CODEC.stream_decoder()
    *events, (name, data) = EventStreamParser().feed(stream)
    deltas = [delta for event_name, each in events for delta in decoder.feed(event_name, each)]
    assert deltas == [v1.StreamDelta(text="Hel")]
    with pytest.raises(UpstreamError) as caught:
        decoder.feed(name, data)
    assert (caught.value.reason, caught.value.message) == (reason, "Sorry.")
    assert caught.value.http_status == 200


def test_an_error_that_is_not_modelled() -> None:
    stream = message(
        {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "Oh."}
    )
    ((name, data),) = EventStreamParser().feed(stream)
    with pytest.raises(UpstreamError) as caught:
        CODEC.stream_decoder().feed(name, data)
    assert caught.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert caught.value.message == "Oh."
