"""The OpenAI dialect: chat completions, responses, embeddings, images, audio, reranking and the
list of models.

Follows https://platform.openai.com/docs/api-reference, with one addition that many servers
of this dialect share: reasoning, when `reasoning_effort` asks for it, is shown in the
message's `reasoning_content`; OpenAI itself only counts it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
from aiohttp import web

from trunkline_server.simulator.answer import Answer
from trunkline_server.simulator.dialect import Call, Endpoint, ErrorReply, Quota, Reply
from trunkline_server.simulator.models import MODELS, Model
from trunkline_server.simulator.openai_audio import speak, transcribe, translate
from trunkline_server.simulator.openai_embeddings import embeddings
from trunkline_server.simulator.openai_images import edit_images, generate_images
from trunkline_server.simulator.openai_messages import wrong
from trunkline_server.simulator.openai_request import read_chat
from trunkline_server.simulator.openai_rerank import rerank
from trunkline_server.simulator.openai_responses import respond
from trunkline_server.simulator.vendor_error import VendorError

_EPOCH = 1_767_225_600  # 2026-01-01, when every simulated model was made.
_FINISH = {
    "stop": "stop",
    "stop_text": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "filter": "content_filter",
}
# Kind of failure: HTTP status, the error's type, its code, and the usual message.
_ERRORS: Mapping[str, tuple[int, str, str | None, str]] = {
    "invalid": (400, "invalid_request_error", None, "The request is invalid."),
    "authentication": (
        401,
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
    ),
    "permission": (
        403,
        "invalid_request_error",
        None,
        "You are not allowed to sample from this model",
    ),
    "not_found": (404, "invalid_request_error", None, "Not found."),
    "model": (
        404,
        "invalid_request_error",
        "model_not_found",
        "The model does not exist or you do not have access to it.",
    ),
    "rate_limit": (
        429,
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached for requests per min (RPM). Please try again later.",
    ),
    "quota": (
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "context": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is {1} tokens. However, your messages resulted "
        "in {0} tokens. Please reduce the length of the messages.",
    ),
    "filter": (
        400,
        "invalid_request_error",
        "content_filter",
        "The response was filtered due to the prompt triggering the content management "
        "policy. Please modify your prompt and retry.",
    ),
    "overloaded": (
        503,
        "server_error",
        None,
        "The engine is currently overloaded, please try again later",
    ),
    "timeout": (504, "server_error", None, "The request timed out."),
    "too_large": (413, "invalid_request_error", None, "The request is too large."),
    "server": (
        500,
        "server_error",
        None,
        "The server had an error while processing your request. Sorry about that!",
    ),
}


def _error_object(refusal: VendorError) -> tuple[int, bytes]:
    status, kind, code, message = _ERRORS[refusal.kind]
    param = refusal.param
    if refusal.kind == "context":
        message, param = message.format(*refusal.sizes), "messages"
    if refusal.kind == "model" and param:
        message = f"The model `{param}` does not exist or you do not have access to it."
        param = None
    error = {
        "message": refusal.message or message,
        "type": kind,
        "param": param,
        "code": refusal.code or code,
    }
    return refusal.status or status, orjson.dumps({"error": error})


class OpenAI:
    """The dialect's paths, errors and headers."""

    name = "openai"
    listings = ("/openai/v1/models", "/openai/v1/models/{model}")

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        return (
            Endpoint("/openai/v1/chat/completions", chat),
            Endpoint("/openai/v1/responses", respond),
            Endpoint("/openai/v1/embeddings", embeddings),
            Endpoint("/openai/v1/images/generations", generate_images),
            Endpoint("/openai/v1/images/edits", edit_images),
            Endpoint("/openai/v1/audio/transcriptions", transcribe),
            Endpoint("/openai/v1/audio/translations", translate),
            Endpoint("/openai/v1/audio/speech", speak),
            # Not OpenAI's own, but many servers of this dialect have it.
            Endpoint("/openai/v1/rerank", rerank),
        )

    def listing(self, model: Model | None) -> bytes:
        if model is not None:
            return orjson.dumps(_model_object(model))
        models = [_model_object(one) for one in MODELS.values()]
        return orjson.dumps({"object": "list", "data": models})

    def key(self, request: web.BaseRequest) -> str:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise VendorError(
                "authentication",
                "You didn't provide an API key. You need to provide your API key in an "
                "Authorization header using Bearer auth.",
                code="missing_api_key",
            )
        if key == "invalid":
            raise VendorError("authentication")
        return key

    def target(self, _request: web.Request, body: Mapping[str, Any]) -> tuple[str, str]:
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise wrong("model", "you must provide a model parameter", "missing_required_parameter")
        return model, ""

    def headers(self, number: int, quota: Quota | None) -> dict[str, str]:
        headers = {
            "x-request-id": f"req_sim{number:012d}",
            "openai-version": "2020-10-01",
            "openai-processing-ms": "1",
        }
        if quota is not None:
            headers["x-ratelimit-limit-requests"] = str(quota.limit)
            headers["x-ratelimit-remaining-requests"] = str(quota.remaining)
            headers["x-ratelimit-reset-requests"] = f"{quota.reset:.3f}s"
        return headers

    def error(self, refusal: VendorError, _request: web.BaseRequest) -> ErrorReply:
        status, body = _error_object(refusal)
        headers = {}
        if refusal.retry_after is not None:
            headers["retry-after"] = f"{refusal.retry_after:g}"
            headers["retry-after-ms"] = f"{refusal.retry_after * 1000:.0f}"
        return ErrorReply(status, body, headers)

    def stream_error(self, refusal: VendorError) -> bytes:
        return _event(_error_object(refusal)[1])

    def stream_garbage(self) -> bytes:
        return _event(b'{"id":"chatcmpl-sim","choices":[{"delta":')


def _model_object(model: Model) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": _EPOCH, "owned_by": "trunkline-simulator"}


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def chat(call: Call) -> Reply:
    """POST /chat/completions."""
    prompt = read_chat(call)
    use = call.memory.implicit(("openai", call.key, call.name), prompt.units)
    answer = call.answer(prompt, use)
    if call.body.get("stream") is True:
        options = call.body.get("stream_options") or {}
        usage = bool(options.get("include_usage"))
        return Reply(pieces=_stream(call, answer, usage), content_type="text/event-stream")
    choices = [_choice(call, answer, index) for index in range(call.body.get("n") or 1)]
    body = {
        **_head(call, "chat.completion"),
        "choices": choices,
        "usage": _usage(answer, len(choices)),
    }
    return Reply(orjson.dumps(body))


def _head(call: Call, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-sim{call.number:012d}",
        "object": kind,
        "created": call.created,
        "model": call.honest_name,
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }


def _call_id(call: Call, choice: int, index: int) -> str:
    return f"call_sim{call.number:09d}x{choice}x{index}"


def _choice(call: Call, answer: Answer, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text or (None if answer.calls else ""),
        "refusal": None,
        "annotations": [],
    }
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [
            {
                "id": _call_id(call, index, i),
                "type": "function",
                "function": {"name": wanted.name, "arguments": wanted.arguments_json},
            }
            for i, wanted in enumerate(answer.calls)
        ]
    finish = _FINISH[answer.finish]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": finish}


def _usage(answer: Answer, choices: int) -> dict[str, Any]:
    written = answer.output_tokens * choices
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": written,
        "total_tokens": answer.input_tokens + written,
        "prompt_tokens_details": {"cached_tokens": answer.cache.read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": answer.reasoning_tokens * choices,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _stream(call: Call, answer: Answer, with_usage: bool) -> Iterator[bytes]:
    head = _head(call, "chat.completion.chunk")
    if with_usage:
        head["usage"] = None
    count = call.body.get("n") or 1
    for index in range(count):
        for delta in _deltas(call, answer, index):
            yield _chunk(head, index, delta, None)
        yield _chunk(head, index, {}, _FINISH[answer.finish])
    if with_usage:
        yield _event(orjson.dumps({**head, "choices": [], "usage": _usage(answer, count)}))
    yield _event(b"[DONE]")


def _deltas(call: Call, answer: Answer, index: int) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": None if answer.calls else "", "refusal": None}
    for piece in call.pieces(answer.reasoning):
        yield {"reasoning_content": piece}
    for piece in call.pieces(answer.text):
        yield {"content": piece}
    for i, wanted in enumerate(answer.calls):
        function = {"name": wanted.name, "arguments": ""}
        opened = {"index": i, "id": _call_id(call, index, i), "type": "function"}
        yield {"tool_calls": [{**opened, "function": function}]}
        for piece in call.pieces(wanted.arguments_json):
            yield {"tool_calls": [{"index": i, "function": {"arguments": piece}}]}


def _chunk(head: dict[str, Any], index: int, delta: dict[str, Any], finish: str | None) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _event(orjson.dumps({**head, "choices": [choice]}))
