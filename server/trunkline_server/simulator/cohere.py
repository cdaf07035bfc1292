"""The Cohere dialect: version 2 of its chat, embeddings and reranking, and the list of models.

Follows https://docs.cohere.com/v2/reference/chat and the types of the vendor's own SDK.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
from aiohttp import web

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Answer
from trunkline_server.simulator.cohere_request import (
    Document,
    read_chat,
    read_order,
    read_texts,
)
from trunkline_server.simulator.dialect import Call, Endpoint, ErrorReply, Quota, Reply
from trunkline_server.simulator.embedding import DIMENSIONS, embed
from trunkline_server.simulator.models import MODELS, Model
from trunkline_server.simulator.vendor_error import VendorError

_FINISH = {
    "stop": "COMPLETE",
    "stop_text": "STOP_SEQUENCE",
    "length": "MAX_TOKENS",
    "tool_calls": "TOOL_CALL",
    "filter": "ERROR_TOXIC",
}
# Kind of failure: HTTP status and the usual message.
_ERRORS: Mapping[str, tuple[int, str]] = {
    "invalid": (400, "invalid request"),
    "authentication": (401, "invalid api token"),
    "permission": (403, "your role does not permit this"),
    "not_found": (404, "not found"),
    "model": (
        404,
        "model not found, make sure the correct model ID was used and that you have access to "
        "the model.",
    ),
    "rate_limit": (
        429,
        "You are using a Trial key, which is limited to 20 API calls / minute. You can continue "
        "to use the Trial key for free or upgrade to a Production key with higher rate limits.",
    ),
    "quota": (
        429,
        "You are using a Trial key, which is limited to 1000 API calls / month. You can continue "
        "to use the Trial key for free or upgrade to a Production key with higher rate limits.",
    ),
    "context": (
        400,
        "too many tokens: total number of tokens in the prompt cannot exceed {1} - received {0}. "
        "Try using a shorter prompt, or a smaller max_tokens value.",
    ),
    "filter": (498, "blocked input: please remove harmful content"),
    "overloaded": (503, "service unavailable"),
    "timeout": (504, "gateway timeout"),
    "too_large": (413, "request too large"),
    "server": (500, "internal server error, this has been reported to our developers."),
}
# What the vendor reads besides, and does not charge.
_PREAMBLE_TOKENS = 495


def _error_object(refusal: VendorError) -> tuple[int, dict[str, Any]]:
    status, message = _ERRORS[refusal.kind]
    if refusal.kind == "context":
        message = message.format(*refusal.sizes)
    if refusal.kind == "model" and refusal.param:
        message = message.replace("model not", f"model '{refusal.param}' not")
    return refusal.status or status, {"message": refusal.message or message}


class Cohere:
    """The dialect's paths, errors and headers."""

    name = "cohere"
    listings = ("/cohere/v1/models", "/cohere/v1/models/{model}")

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        return (
            Endpoint("/cohere/v2/chat", chat),
            Endpoint("/cohere/v2/embed", embeddings),
            Endpoint("/cohere/v2/rerank", rerank),
        )

    def listing(self, model: Model | None) -> bytes:
        if model is not None:
            return orjson.dumps(_model_object(model))
        return orjson.dumps({"models": [_model_object(one) for one in MODELS.values()]})

    def key(self, request: web.BaseRequest) -> str:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise VendorError("authentication", "no api key supplied")
        if key == "invalid":
            raise VendorError("authentication")
        return key

    def target(self, _request: web.Request, body: Mapping[str, Any]) -> tuple[str, str]:
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise VendorError("invalid", "invalid request: model is required", param="model")
        return model, ""

    def headers(self, number: int, quota: Quota | None) -> dict[str, str]:
        headers = {"x-debug-trace-id": f"sim{number:029d}"}
        if quota is not None:
            headers["x-trial-endpoint-call-limit"] = str(quota.limit)
            headers["x-trial-endpoint-call-remaining"] = str(quota.remaining)
        return headers

    def error(self, refusal: VendorError, _request: web.BaseRequest) -> ErrorReply:
        status, body = _error_object(refusal)
        headers = {}
        if refusal.retry_after is not None:
            headers["retry-after"] = f"{refusal.retry_after:g}"
        return ErrorReply(status, orjson.dumps(body), headers)

    def stream_error(self, refusal: VendorError) -> bytes:
        message = _error_object(refusal)[1]["message"]
        delta = {"error": message, "finish_reason": "ERROR"}
        return _event({"type": "message-end", "delta": delta})

    def stream_garbage(self) -> bytes:
        return b'event: content-delta\ndata: {"type":"content-delta","ind\n\n'


def _model_object(model: Model) -> dict[str, Any]:
    endpoints = ["chat"] if model.chat else []
    return {
        "name": model.id,
        "endpoints": [*endpoints, "embed"] if model.embedding else endpoints,
        "finetuned": False,
        "context_length": model.context_tokens,
        "features": ["vision"] if model.vision else [],
        "default_endpoints": [],
    }


def _event(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


def chat(call: Call) -> Reply:
    """POST /v2/chat."""
    prompt, documents = read_chat(call)
    use = call.memory.implicit(("cohere", call.key, call.name), prompt.units)
    answer = call.answer(prompt, use)
    message = _message(call, answer, documents)
    usage = _usage(answer)
    if call.body.get("stream") is True:
        pieces = _stream(call, message, _FINISH[answer.finish], usage)
        return Reply(pieces=pieces, content_type="text/event-stream")
    body = {
        "id": _id(call),
        "message": message,
        "finish_reason": _FINISH[answer.finish],
        "usage": usage,
    }
    return Reply(orjson.dumps(body))


def _id(call: Call) -> str:
    return f"00000000-0000-4000-8000-{call.number:012d}"


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "billed_units": {
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
        },
        "tokens": {
            "input_tokens": answer.input_tokens + _PREAMBLE_TOKENS,
            "output_tokens": answer.output_tokens + 3,
        },
        "cached_tokens": _PREAMBLE_TOKENS + answer.cache.read,
    }


def _message(call: Call, answer: Answer, documents: list[Document]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    content = []
    if answer.reasoning:
        content.append({"type": "thinking", "thinking": answer.reasoning})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    if content:
        message["content"] = content
    if answer.calls:
        names = " and ".join(wanted.name for wanted in answer.calls)
        message["tool_plan"] = f"I will call {names}."
        message["tool_calls"] = [
            {
                "id": f"{wanted.name}_sim{call.number:09d}x{index}",
                "type": "function",
                "function": {"name": wanted.name, "arguments": wanted.arguments_json},
            }
            for index, wanted in enumerate(answer.calls)
        ]
    if answer.text and documents:
        message["citations"] = list(_citations(answer.text, len(content) - 1, documents))
    return message


def _citations(text: str, index: int, documents: list[Document]) -> Iterator[dict[str, Any]]:
    """One citation for each document: of the word of the text at its place."""
    at = 0
    for word, document in zip(text.split(), documents, strict=False):
        start = text.index(word, at)
        at = start + len(word)
        yield {
            "start": start,
            "end": at,
            "text": word,
            "sources": [{"type": "document", "id": document.id, "document": document.fields}],
            "content_index": index,
            "type": "TEXT_CONTENT",
        }


def _stream(
    call: Call, message: dict[str, Any], finish: str, usage: dict[str, Any]
) -> Iterator[bytes]:
    empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    yield _event({"id": _id(call), "type": "message-start", "delta": {"message": empty}})
    for index, piece in enumerate(message.get("content", ())):
        kind = piece["type"]
        yield _delta("content-start", index, {"content": {"type": kind, kind: ""}})
        for text in call.pieces(piece[kind]):
            yield _delta("content-delta", index, {"content": {kind: text}})
        if kind == "text":
            for number, citation in enumerate(message.get("citations", ())):
                yield _delta("citation-start", number, {"citations": citation})
                yield _event({"type": "citation-end", "index": number})
        yield _event({"type": "content-end", "index": index})
    for text in call.pieces(message.get("tool_plan", "")):
        yield _event({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": text}}})
    for index, wanted in enumerate(message.get("tool_calls", ())):
        function = {"name": wanted["function"]["name"], "arguments": ""}
        yield _delta("tool-call-start", index, {"tool_calls": {**wanted, "function": function}})
        for text in call.pieces(wanted["function"]["arguments"]):
            yield _delta(
                "tool-call-delta", index, {"tool_calls": {"function": {"arguments": text}}}
            )
        yield _event({"type": "tool-call-end", "index": index})
    yield _event({"type": "message-end", "delta": {"finish_reason": finish, "usage": usage}})


def _delta(kind: str, index: int, message: dict[str, Any]) -> bytes:
    return _event({"type": kind, "index": index, "delta": {"message": message}})


def embeddings(call: Call) -> Reply:
    """POST /v2/embed."""
    texts, dimensions = read_texts(call, DIMENSIONS)
    body = {
        "id": _id(call),
        "texts": texts,
        "embeddings": {"float": [embed(text, dimensions) for text in texts]},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"input_tokens": sum(tokens.count(text) for text in texts)},
        },
        "response_type": "embeddings_by_type",
    }
    return Reply(orjson.dumps(body))


def rerank(call: Call) -> Reply:
    """POST /v2/rerank: the more of the query's words a document has, the better it is."""
    query, documents, most = read_order(call)
    words = set(query.lower().split())
    scored = [
        (len(words & set(document.lower().split())) / max(len(words), 1), -index)
        for index, document in enumerate(documents)
    ]
    best = sorted(scored, reverse=True)[:most]
    body = {
        "id": _id(call),
        "results": [{"index": -place, "relevance_score": score} for score, place in best],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    }
    return Reply(orjson.dumps(body))
