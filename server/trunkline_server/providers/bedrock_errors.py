"""Failures as the Bedrock runtime reports them, in answers and inside streams.

An answer's type stands in the header `x-amzn-errortype`, or in its body as `__type` or `code`; a
stream's is the exception's name. Types and statuses are those of the service's model, version
2023-09-30, and of AWS's common errors. Of these only ValidationException, AccessDeniedException
and InvalidSignatureException were recorded; the others are unproven until met.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError, Violation
from trunkline_server.providers.common import reason_for_status, retry_after_seconds, shorten

# The reasons of types, in lower case and without "exception".
_REASONS: Mapping[str, v1.ErrorReason.ValueType] = {
    "accessdenied": v1.ERROR_REASON_AUTHORIZATION,
    "notauthorized": v1.ERROR_REASON_AUTHORIZATION,
    "optinrequired": v1.ERROR_REASON_AUTHORIZATION,
    "expiredtoken": v1.ERROR_REASON_AUTHENTICATION,
    "incompletesignature": v1.ERROR_REASON_AUTHENTICATION,
    "invalidclienttokenid": v1.ERROR_REASON_AUTHENTICATION,
    "invalidsignature": v1.ERROR_REASON_AUTHENTICATION,
    "missingauthenticationtoken": v1.ERROR_REASON_AUTHENTICATION,
    "requestexpired": v1.ERROR_REASON_AUTHENTICATION,
    "signaturedoesnotmatch": v1.ERROR_REASON_AUTHENTICATION,
    "unrecognizedclient": v1.ERROR_REASON_AUTHENTICATION,
    "throttling": v1.ERROR_REASON_RATE_LIMIT,
    "toomanyrequests": v1.ERROR_REASON_RATE_LIMIT,
    "servicequotaexceeded": v1.ERROR_REASON_QUOTA_EXCEEDED,
    # Comes as a 429: the model is being loaded, and nobody has asked too much.
    "modelnotready": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    "serviceunavailable": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    "internalserver": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    "internalfailure": v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    "modeltimeout": v1.ERROR_REASON_TIMEOUT,
    "resourcenotfound": v1.ERROR_REASON_MODEL_NOT_FOUND,
    "validation": v1.ERROR_REASON_INVALID_REQUEST,
    "serialization": v1.ERROR_REASON_INVALID_REQUEST,
    "conflict": v1.ERROR_REASON_INVALID_REQUEST,
}
# Types that pass on a failure of the model's own, with its status beside it.
_MODEL_FAILURES = frozenset({"modelerror", "modelstreamerror"})

# Causes that the service tells only by its words.
_CONTEXT = (
    "input is too long",
    "prompt is too long",
    "too many input tokens",
    "maximum context length",
    "context length",
    "context window",
    "exceeds the maximum number of tokens",
    "input tokens exceed",
    "maximum input token",
)
_FILTERED = ("content filtering policy",)
_NO_MODEL = (
    "model identifier is invalid",
    "on-demand throughput isn",
    "reached the end of its life",
    "could not resolve the foundation model",
)

# The service quotes the wrong value, which may be what a caller wrote.
_QUOTED_VALUE = re.compile(r"[Vv]alue '.*?'(?= at ')", re.DOTALL)
# The path of the wrong field, bare or in quotes, as in "at 'inferenceConfig.topP' failed".
_FIELD = re.compile(
    r"\b(messages|system|inferenceConfig|toolConfig|outputConfig|guardrailConfig|modelId)"
    r"((?:\.\w+|\[\d+\])*)"
)
# The contract's field for each path in the vendor's request. A turn of the vendor's may join
# several messages, so that its number is not theirs.
_FIELDS: Mapping[str, str] = {
    "messages": "messages",
    "system": "messages",
    "inferenceConfig.maxTokens": "config.max_output_tokens",
    "inferenceConfig.temperature": "config.temperature",
    "inferenceConfig.topP": "config.top_p",
    "inferenceConfig.stopSequences": "config.stop",
    "toolConfig.toolChoice": "tool_choice",
    "toolConfig": "tools",
    "outputConfig": "response_format",
    "modelId": "model",
    "guardrailConfig": "provider_options.guardrailConfig",
}


def decode_failure(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Classifies a non-2xx answer; see Codec.decode_error."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    fields = answer if isinstance(answer, dict) else {}
    kind = headers.get("x-amzn-errortype") or _text(fields, "__type") or _text(fields, "code")
    return _failure(kind, fields, status=status, headers=headers)


def stream_failure(kind: str, data: bytes) -> UpstreamError:
    """The failure that an exception inside a stream reports, by its name."""
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError:
        answer = None
    return _failure(kind, answer if isinstance(answer, dict) else {}, status=200, headers={})


def bad_response(what: str) -> UpstreamError:
    """The error for bytes that make no sense; `what` says what they are, without them."""
    return UpstreamError(
        v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, f"the provider sent {what}", http_status=200
    )


def _failure(
    kind: str, fields: Mapping[str, Any], *, status: int, headers: Mapping[str, str]
) -> UpstreamError:
    # "com.amazon.bedrock#ThrottlingException:http://internal.amazon.com/coral/..."
    name = kind.partition(":")[0].rpartition("#")[2].strip()
    message = _text(fields, "message") or _text(fields, "Message")
    message = shorten(_QUOTED_VALUE.sub("Value", message))
    reason = _reason(name, status, fields, message.lower())
    violations = _violations(message) if reason == v1.ERROR_REASON_INVALID_REQUEST else ()
    return UpstreamError(
        reason,
        message or shorten(name) or f"HTTP status {status}",
        http_status=status,
        retry_after=retry_after_seconds(headers),
        violations=violations,
        provider_request_id=headers.get("x-amzn-requestid", ""),
    )


def _reason(
    name: str, status: int, fields: Mapping[str, Any], words: str
) -> v1.ErrorReason.ValueType:
    key = name.lower().removesuffix("exception").removesuffix("error")
    if name.lower().removesuffix("exception") in _MODEL_FAILURES:
        original = fields.get("originalStatusCode")
        # What the model refused of itself; what it merely broke at is the service's failure.
        status = original if isinstance(original, int) and original >= 400 else 500
        return _by_words(reason_for_status(status), words)
    reason = _REASONS.get(key)
    if reason is None:
        # The service fails a stream by type alone; one not known is a failure of its own.
        reason = reason_for_status(500 if status == 200 else status)
    return _by_words(reason, words)


def _by_words(reason: v1.ErrorReason.ValueType, words: str) -> v1.ErrorReason.ValueType:
    if reason == v1.ERROR_REASON_INVALID_REQUEST:
        if any(phrase in words for phrase in _CONTEXT):
            return v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED
        if any(phrase in words for phrase in _FILTERED):
            return v1.ERROR_REASON_CONTENT_FILTER
        if any(phrase in words for phrase in _NO_MODEL):
            return v1.ERROR_REASON_MODEL_NOT_FOUND
    # "Too many tokens per day, please wait before trying again."
    if reason == v1.ERROR_REASON_RATE_LIMIT and "per day" in words:
        return v1.ERROR_REASON_QUOTA_EXCEEDED
    return reason


def _violations(message: str) -> tuple[Violation, ...]:
    found = _FIELD.search(message)
    if found is None:
        return ()
    steps = re.findall(r"\w+", found[2])
    path = f"{found[1]}.{steps[0]}" if steps else found[1]
    field = _FIELDS.get(path) or _FIELDS.get(found[1])
    if field is None:
        return ()
    # "toolConfig.tools.0.member.toolSpec.name"
    if field == "tools" and len(steps) > 1 and steps[0] == "tools" and steps[1].isdecimal():
        field = f"tools[{steps[1]}]"
    return (Violation(field, message),)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
