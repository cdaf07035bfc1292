"""Failures in OpenAI's shape: {"error": {message, type, param, code}}, and the HTTP status.

The statuses and words are those that api.openai.com uses, as recorded and as OpenAI's SDK maps
them to its exceptions, where it has the case; `reason` is the router's own word.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from trunkline import v1
from trunkline_server.errors import TrunklineError, to_status
from trunkline_server.openai_face.reading import Json


class _Shape(NamedTuple):
    http_status: int
    type: str
    code: str | None
    # Whether the same call may succeed if it is made again.
    again: bool = False
    param: str | None = None


_WRONG = "invalid_request_error"
_SERVER = "server_error"

_SHAPES: Mapping[v1.ErrorReason.ValueType, _Shape] = {
    v1.ERROR_REASON_AUTHENTICATION: _Shape(401, _WRONG, "invalid_api_key"),
    v1.ERROR_REASON_AUTHORIZATION: _Shape(403, _WRONG, "insufficient_permissions"),
    v1.ERROR_REASON_RATE_LIMIT: _Shape(429, "rate_limit_error", "rate_limit_exceeded", again=True),
    v1.ERROR_REASON_QUOTA_EXCEEDED: _Shape(429, "insufficient_quota", "insufficient_quota"),
    v1.ERROR_REASON_INVALID_REQUEST: _Shape(400, _WRONG, None),
    v1.ERROR_REASON_MODEL_NOT_FOUND: _Shape(404, _WRONG, "model_not_found", param="model"),
    v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED: _Shape(
        400, _WRONG, "context_length_exceeded", param="messages"
    ),
    v1.ERROR_REASON_CONTENT_FILTER: _Shape(400, _WRONG, "content_filter"),
    v1.ERROR_REASON_SERVICE_UNAVAILABLE: _Shape(503, _SERVER, "service_unavailable", again=True),
    v1.ERROR_REASON_TIMEOUT: _Shape(504, _SERVER, "timeout"),
    v1.ERROR_REASON_UNKNOWN: _Shape(502, _SERVER, "unknown"),
    v1.ERROR_REASON_OVERLOADED: _Shape(503, _SERVER, "overloaded", again=True),
    v1.ERROR_REASON_NO_ELIGIBLE_DEPLOYMENT: _Shape(400, _WRONG, "no_eligible_deployment"),
    v1.ERROR_REASON_PROVIDER_CREDENTIALS: _Shape(502, _SERVER, "provider_credentials"),
    v1.ERROR_REASON_BAD_PROVIDER_RESPONSE: _Shape(
        502, _SERVER, "bad_provider_response", again=True
    ),
    v1.ERROR_REASON_STREAM_INTERRUPTED: _Shape(502, _SERVER, "stream_interrupted", again=True),
    v1.ERROR_REASON_CACHE_MISS: _Shape(404, _WRONG, "cache_miss"),
    # As other HTTP servers write it; nobody is there to read it.
    v1.ERROR_REASON_CANCELLED: _Shape(499, _SERVER, "cancelled"),
    v1.ERROR_REASON_INTERNAL: _Shape(500, _SERVER, "internal_error"),
    v1.ERROR_REASON_NOT_FOUND: _Shape(404, _WRONG, "not_found"),
    v1.ERROR_REASON_ALREADY_EXISTS: _Shape(409, _WRONG, "already_exists"),
    v1.ERROR_REASON_ABORTED: _Shape(409, _WRONG, "aborted"),
    v1.ERROR_REASON_FAILED_PRECONDITION: _Shape(400, _WRONG, "failed_precondition"),
}

# The contract's paths, where OpenAI calls the same thing otherwise.
_PATHS = (
    (re.compile(r"^config\.max_output_tokens"), "max_completion_tokens"),
    (re.compile(r"^config\.reasoning\.effort"), "reasoning_effort"),
    (re.compile(r"^config\."), ""),
    (re.compile(r"^(messages\[\d+\])\.parts\[0\]\.tool_result\.tool_call_id"), r"\1.tool_call_id"),
    (re.compile(r"^(messages\[\d+\])\.parts\[0\]\.tool_result\.parts"), r"\1.content"),
    (re.compile(r"^(messages\[\d+\])\.parts"), r"\1.content"),
    (re.compile(r"^(tools\[\d+\])\.parameters_json"), r"\1.function.parameters"),
    (re.compile(r"^(tools\[\d+\])\.(name|description|strict)"), r"\1.function.\2"),
    (
        re.compile(r"^response_format\.json_schema\.schema_json"),
        "response_format.json_schema.schema",
    ),
    (re.compile(r"^context\.user_id"), "user"),
    (re.compile(r"^context\.labels"), "metadata"),
    (re.compile(r"^(requirements|routing|cache|context|request_id)\b"), r"trunkline.\1"),
    (re.compile(r"^inputs"), "input"),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure as it is told."""

    http_status: int
    body: Json
    headers: Mapping[str, str]


def failure(error: status_pb2.Status, request_id: str = "") -> Failure:
    """A failed call's google.rpc.Status in OpenAI's shape."""
    info = error_details_pb2.ErrorInfo()
    wrong = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in error.details:
        for kind in (info, wrong, retry):
            _unpack(detail, kind)
    reason = v1.ErrorReason.Value(info.reason)
    shape = _SHAPES[reason]
    param, message = shape.param, error.message
    if wrong.field_violations:
        field = wrong.field_violations[0].field
        param = openai_path(field)
        message = message.replace(f"{field}: ", f"{param}: ", 1)
    headers = {"x-should-retry": "true" if shape.again else "false"}
    if retry.HasField("retry_delay"):
        delay = retry.retry_delay.ToNanoseconds() / 1e9
        # The header of HTTP counts whole seconds; OpenAI's SDK reads the other one first.
        headers["retry-after"] = str(math.ceil(delay))
        headers["retry-after-ms"] = str(math.ceil(delay * 1000))
    if request_id:
        headers["x-request-id"] = request_id
    told = {
        "message": message,
        "type": shape.type,
        "param": param,
        "code": shape.code,
        "reason": info.reason,
    }
    return Failure(shape.http_status, {"error": told}, headers)


def failure_of(error: TrunklineError) -> Failure:
    """A failure of the face itself."""
    return failure(to_status(error))


def openai_path(field: str) -> str:
    """What OpenAI calls a field of the contract; other paths stay as they are."""
    for pattern, name in _PATHS:
        found, count = pattern.subn(name, field)
        if count:
            return found
    return field


def _unpack(detail: object, kind: Message) -> None:
    detail.Unpack(kind)  # type: ignore[attr-defined] # google.protobuf.Any's types lack it.
