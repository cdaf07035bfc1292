"""The Anthropic dialect: messages, their token count, and the list of models.

Follows https://platform.claude.com/docs/en/api/messages.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiohttp import web

from trunkline_server.simulator.answer import Answer
from trunkline_server.simulator.anthropic_request import read_message
from trunkline_server.simulator.dialect import Call, Endpoint, ErrorReply, Quota, Reply
from trunkline_server.simulator.models import MODELS, Model
from trunkline_server.simulator.signature import sign, token
from trunkline_server.simulator.vendor_error import VendorError

_FINISH = {
    "stop": "end_turn",
    "stop_text": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "filter": "refusal",
}
# Kind of failure: HTTP status, the error's type and the usual message.
_ERRORS: Mapping[str, tuple[int, str, str]] = {
    "invalid": (400, "invalid_request_error", "The request is invalid."),
    "authentication": (401, "authentication_error", "invalid x-api-key"),
    "permission": (
        403,
        "permission_error",
        "Your API key does not have permission to use the specified resource.",
    ),
    "not_found": (404, "not_found_error", "Not Found"),
    "model": (404, "not_found_error", "model not found"),
    "rate_limit": (
        429,
        "rate_limit_error",
        "This request would exceed your organization's rate limit. Please try again later.",
    ),
    "quota": (
        402,
        "billing_error",
        "Your credit balance is too low to access the API. Please go to Plans & Billing to "
        "upgrade or purchase credits.",
    ),
    "context": (400, "invalid_request_error", "prompt is too long: {0} tokens > {1} maximum"),
    "filter": (400, "invalid_request_error", "Output blocked by content filtering policy"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "timeout": (504, "timeout_error", "The request timed out."),
    "too_large": (413, "request_too_large", "Request exceeds the maximum size"),
    "server": (500, "api_error", "Internal server error"),
}
_PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def _error_object(refusal: VendorError) -> tuple[int, dict[str, Any]]:
    status, kind, message = _ERRORS[refusal.kind]
    if refusal.kind == "context":
        message = message.format(*refusal.sizes)
    if refusal.kind == "model" and refusal.param:
        message = f"model: {refusal.param}"
    error = {"type": kind, "message": refusal.message or message}
    return refusal.status or status, {"type": "error", "error": error}


class Anthropic:
    """The dialect's paths, errors and headers."""

    name = "anthropic"
    listings: tuple[str, ...] = ("/anthropic/v1/models", "/anthropic/v1/models/{model}")

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        return (
            Endpoint("/anthropic/v1/messages", create),
            Endpoint("/anthropic/v1/messages/count_tokens", count_tokens),
        )

    def listing(self, model: Model | None) -> bytes:
        if model is not None:
            return orjson.dumps(_model_object(model))
        models = [_model_object(one) for one in MODELS.values() if one.chat]
        ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]}
        return orjson.dumps({"data": models, "has_more": False, **ends})

    def key(self, request: web.BaseRequest) -> str:
        # The newer SDKs send the API key as a bearer token; both ways are valid.
        key = request.headers.get("x-api-key", "")
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if not key and scheme.lower() == "bearer":
            key = bearer
        if not key:
            raise VendorError("authentication", "x-api-key header is required")
        if key == "invalid":
            raise VendorError("authentication")
        return key

    def target(self, _request: web.Request, body: Mapping[str, Any]) -> tuple[str, str]:
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise VendorError("invalid", "model: Field required", param="model")
        return model, ""

    def headers(self, number: int, quota: Quota | None) -> dict[str, str]:
        headers = {"request-id": f"req_sim{number:012d}"}
        if quota is not None:
            reset = datetime.now(UTC) + timedelta(seconds=quota.reset)
            prefix = "anthropic-ratelimit-requests"
            headers[f"{prefix}-limit"] = str(quota.limit)
            headers[f"{prefix}-remaining"] = str(quota.remaining)
            headers[f"{prefix}-reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
        return headers

    def error(self, refusal: VendorError, _request: web.BaseRequest) -> ErrorReply:
        status, body = _error_object(refusal)
        headers = {}
        if refusal.retry_after is not None:
            headers["retry-after"] = f"{refusal.retry_after:g}"
        return ErrorReply(status, orjson.dumps(body), headers)

    def stream_error(self, refusal: VendorError) -> bytes:
        return _event("error", _error_object(refusal)[1])

    def stream_garbage(self) -> bytes:
        return b'event: content_block_delta\ndata: {"type":"content_block_delta","ind\n\n'


def _model_object(model: Model) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.title,
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": model.context_tokens,
        "max_tokens": model.max_output_tokens,
    }


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def count_tokens(call: Call) -> Reply:
    """POST /messages/count_tokens."""
    prompt = read_message(call, counting=True)
    return Reply(orjson.dumps({"input_tokens": prompt.input_tokens}))


def create(call: Call) -> Reply:
    """POST /messages."""
    prompt = read_message(call)
    use = call.memory.explicit(("anthropic", call.key, call.name), prompt.units)
    answer = call.answer(prompt, use)
    if call.body.get("stream") is True:
        return Reply(pieces=_stream(call, answer), content_type="text/event-stream")
    return Reply(orjson.dumps(_message(call, answer)))


def _message(call: Call, answer: Answer) -> dict[str, Any]:
    return {
        "id": f"msg_sim{call.number:012d}",
        "type": "message",
        "role": "assistant",
        "model": call.honest_name,
        "content": list(_blocks(call, answer)),
        "stop_reason": _FINISH[answer.finish],
        "stop_sequence": answer.stop_text,
        "usage": _usage(answer),
    }


def _usage(answer: Answer) -> dict[str, Any]:
    """This vendor's input_tokens leave out those read from or written to the cache."""
    use = answer.cache
    return {
        "input_tokens": answer.input_tokens - use.read - use.written,
        "cache_creation_input_tokens": use.written,
        "cache_read_input_tokens": use.read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": use.written - use.written_1h,
            "ephemeral_1h_input_tokens": use.written_1h,
        },
        "output_tokens": answer.output_tokens,
        "output_tokens_details": {"thinking_tokens": answer.reasoning_tokens},
        "service_tier": "standard",
    }


def _blocks(call: Call, answer: Answer) -> Iterator[dict[str, Any]]:
    if answer.reasoning and call.script.redacted:
        yield {"type": "redacted_thinking", "data": token(answer.reasoning)}
    elif answer.reasoning:
        shown = _shown_reasoning(call, answer)
        yield {"type": "thinking", "thinking": shown, "signature": sign(shown)}
    if answer.text:
        yield {"type": "text", "text": answer.text}
    for i, wanted in enumerate(answer.calls):
        yield {
            "type": "tool_use",
            "id": f"toolu_sim{call.number:09d}x{i}",
            "name": wanted.name,
            "input": wanted.arguments,
        }


def _shown_reasoning(call: Call, answer: Answer) -> str:
    return "" if call.body["thinking"].get("display") == "omitted" else answer.reasoning


def _stream(call: Call, answer: Answer) -> Iterator[bytes]:
    message = _message(call, answer)
    blocks = message["content"]
    usage = message["usage"]
    opening = {**usage, "output_tokens": 1}
    del opening["output_tokens_details"]
    begun = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    yield _event("message_start", {"type": "message_start", "message": {**begun, "usage": opening}})
    yield _PING
    for index, block in enumerate(blocks):
        yield from _stream_block(call, index, block)
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    del usage["cache_creation"], usage["service_tier"]
    yield _event("message_delta", {"type": "message_delta", "delta": ended, "usage": usage})
    yield _event("message_stop", {"type": "message_stop"})


def _stream_block(call: Call, index: int, block: dict[str, Any]) -> Iterator[bytes]:
    kind = block["type"]
    if kind == "text":
        empty = {"type": kind, "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in call.pieces(block["text"])]
    elif kind == "thinking":
        empty = {"type": kind, "thinking": "", "signature": ""}
        deltas = [
            {"type": "thinking_delta", "thinking": piece} for piece in call.pieces(block[kind])
        ]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    elif kind == "redacted_thinking":
        empty, deltas = block, []
    else:
        empty = {**block, "input": {}}
        written = orjson.dumps(block["input"]).decode()
        pieces = ("", *call.pieces(written))
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    start = {"type": "content_block_start", "index": index, "content_block": empty}
    yield _event("content_block_start", start)
    for delta in deltas:
        change = {"type": "content_block_delta", "index": index, "delta": delta}
        yield _event("content_block_delta", change)
    yield _event("content_block_stop", {"type": "content_block_stop", "index": index})
