"""The Gemini dialect: content, whole and streamed, pictures, speech, embeddings, token counts and
models.

Follows https://ai.google.dev/api. A call without a key is refused with 401, which is how
Google refuses other missing credentials; an invalid key with 400, as for real.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
from aiohttp import web

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Answer
from trunkline_server.simulator.dialect import Call, Endpoint, ErrorReply, Quota, Reply
from trunkline_server.simulator.gemini_contents import Fields, fields
from trunkline_server.simulator.gemini_embeddings import batch_embed_contents, embed_content
from trunkline_server.simulator.gemini_media import asks_for, picture, predict, speech
from trunkline_server.simulator.gemini_request import read_generate, shows_thoughts
from trunkline_server.simulator.models import MODELS, Model, honest_name
from trunkline_server.simulator.script import split_model
from trunkline_server.simulator.signature import token
from trunkline_server.simulator.vendor_error import VendorError

_PREFIX = "/gemini/{version:v1|v1beta}/models"
_FINISH = {
    "stop": "STOP",
    "stop_text": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "filter": "SAFETY",
}
# Kind of failure: HTTP status, google.rpc status and the usual message.
_ERRORS: Mapping[str, tuple[int, str, str]] = {
    "invalid": (400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "authentication": (
        401,
        "UNAUTHENTICATED",
        "Request is missing required authentication credential. Expected OAuth 2 access "
        "token, login cookie or other valid authentication credential.",
    ),
    "permission": (403, "PERMISSION_DENIED", "The caller does not have permission"),
    "not_found": (404, "NOT_FOUND", "Requested entity was not found."),
    "model": (404, "NOT_FOUND", "The model is not found for API version v1beta."),
    "rate_limit": (
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota of requests per minute. Please retry shortly.",
    ),
    "quota": (
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "context": (
        400,
        "INVALID_ARGUMENT",
        "The input token count ({0}) exceeds the maximum number of tokens allowed ({1}).",
    ),
    "filter": (200, "", ""),
    "overloaded": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "timeout": (504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
    "too_large": (413, "INVALID_ARGUMENT", "Request payload size exceeds the limit."),
    "server": (500, "INTERNAL", "An internal error has occurred. Please retry."),
}
_QUOTA_METRIC = "generativelanguage.googleapis.com/generate_content_free_tier_requests"
_QUOTA_IDS = {
    "rate_limit": "GenerateRequestsPerMinutePerProjectPerModel",
    "quota": "GenerateRequestsPerDayPerProjectPerModel",
}


def _error_object(refusal: VendorError) -> tuple[int, Fields]:
    status, word, message = _ERRORS[refusal.kind]
    if refusal.kind == "context":
        message = message.format(*refusal.sizes)
    if refusal.kind == "model" and refusal.param:
        message = f"models/{refusal.param} is not found for API version v1beta."
    code = refusal.status or status
    message = refusal.message or message
    error = {"code": code, "message": message, "status": word}
    if details := _details(refusal, message):
        error["details"] = details
    return code, {"error": error}


def _details(refusal: VendorError, message: str) -> list[Fields]:
    found: list[Fields] = []
    if refusal.code:
        reason = {"reason": refusal.code, "domain": "googleapis.com"}
        found.append({"@type": "type.googleapis.com/google.rpc.ErrorInfo", **reason})
    if refusal.kind == "invalid" and refusal.param:
        violation = {"field": refusal.param, "description": message}
        found.append(
            {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}
        )
    if refusal.kind in _QUOTA_IDS:
        quota = {"quotaMetric": _QUOTA_METRIC, "quotaId": _QUOTA_IDS[refusal.kind]}
        found.append(
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [quota]}
        )
    if refusal.retry_after is not None:
        delay = f"{refusal.retry_after:g}s"
        found.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return found


class Gemini:
    """The dialect's paths, errors and headers."""

    name = "gemini"
    listings: tuple[str, ...] = (_PREFIX, f"{_PREFIX}/{{model}}")

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        return (Endpoint(f"{_PREFIX}/{{target:.+}}", run),)

    def listing(self, model: Model | None) -> bytes:
        if model is not None:
            return orjson.dumps(_model_object(model))
        return orjson.dumps({"models": [_model_object(one) for one in MODELS.values()]})

    def key(self, request: web.BaseRequest) -> str:
        key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
        if not key:
            raise VendorError("authentication", code="CREDENTIALS_MISSING")
        if key == "invalid":
            raise VendorError(
                "invalid",
                "API key not valid. Please pass a valid API key.",
                code="API_KEY_INVALID",
            )
        return key

    def target(self, request: web.Request, _body: Mapping[str, Any]) -> tuple[str, str]:
        model, colon, operation = request.match_info["target"].rpartition(":")
        if not colon or operation not in _OPERATIONS:
            raise VendorError("not_found")
        return model, operation

    def headers(self, _number: int, _quota: Quota | None) -> dict[str, str]:
        # This vendor says nothing of ids and limits in headers.
        return {"server-timing": "gfet4t7; dur=1"}

    def error(self, refusal: VendorError, request: web.BaseRequest) -> ErrorReply:
        status, body = _error_object(refusal)
        streamed = request.path.endswith(":streamGenerateContent")
        sse = streamed and request.query.get("alt") == "sse"
        if refusal.kind == "filter":
            body = _blocked(request.path)
            if sse:
                return ErrorReply(status, _event(body), {}, "text/event-stream")
        data = orjson.dumps(body)
        if streamed and not sse:
            # The array form of a stream is an array even when it fails.
            data = b"[" + data + b"]"
        return ErrorReply(status, data, {})

    def stream_error(self, refusal: VendorError) -> bytes:
        return _event(_error_object(refusal)[1])

    def stream_garbage(self) -> bytes:
        return b'data: {"candidates": [{"content": \r\n\r\n'


def _blocked(path: str) -> Fields:
    """What Google answers, with status 200, to a prompt that its filter blocks."""
    model, _ = split_model(path.rpartition("/")[2].rpartition(":")[0])
    return {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 1, "totalTokenCount": 1},
        "modelVersion": honest_name(model),
    }


def _model_object(model: Model) -> Fields:
    methods = ["embedContent"] if model.embedding else ["generateContent", "countTokens"]
    return {
        "name": f"models/{model.id}",
        "baseModelId": model.id,
        "version": "1",
        "displayName": model.title,
        "inputTokenLimit": model.context_tokens,
        "outputTokenLimit": model.max_output_tokens,
        "supportedGenerationMethods": methods,
    }


def run(call: Call) -> Reply:
    """POST /models/{model}:{operation}."""
    return _OPERATIONS[call.operation](call)


def _answer(call: Call) -> tuple[Answer, bool]:
    """The answer, and whether its reasoning is shown."""
    prompt = read_generate(call)
    use = call.memory.implicit(("gemini", call.key, call.name), prompt.units)
    return call.answer(prompt, use), shows_thoughts(call.body)


def _generate(call: Call) -> Reply:
    if asks_for(call, "IMAGE"):
        return Reply(orjson.dumps(picture(call)))
    answer, shown = _answer(call)
    parts = list(_parts(call, answer, shown, whole=True))
    finish = _FINISH[answer.finish]
    return Reply(orjson.dumps(_response(call, parts, finish, _usage(answer))))


def _stream(call: Call) -> Reply:
    if asks_for(call, "AUDIO"):
        return Reply(pieces=map(_event, speech(call)), content_type="text/event-stream")
    answer, shown = _answer(call)
    chunks = _chunks(call, answer, shown)
    if call.query.get("alt") == "sse":
        return Reply(pieces=map(_event, chunks), content_type="text/event-stream")
    return Reply(pieces=_array(chunks))


def _event(data: Fields) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\r\n\r\n"


def _array(chunks: Iterable[Fields]) -> Iterator[bytes]:
    before = b"["
    for chunk in chunks:
        yield before + orjson.dumps(chunk)
        before = b"\n,\r\n"
    yield b"\n]\n"


def _chunks(call: Call, answer: Answer, shown: bool) -> Iterator[Fields]:
    """The chunks of a stream; each counts what has been written up to it."""
    parts = list(_parts(call, answer, shown, whole=False)) or [{"text": ""}]
    usage = _usage(answer)
    written = 0
    for part in parts[:-1]:
        if not part.get("thought"):
            written += tokens.count(part.get("text", ""))
        so_far = {**usage, "candidatesTokenCount": written}
        so_far["totalTokenCount"] = so_far["promptTokenCount"] + written
        so_far["totalTokenCount"] += so_far.get("thoughtsTokenCount", 0)
        yield _response(call, [part], None, so_far)
    yield _response(call, parts[-1:], _FINISH[answer.finish], usage)


def _parts(call: Call, answer: Answer, shown: bool, *, whole: bool) -> Iterator[Fields]:
    """The answer's parts; a stream has its text in pieces and the signature after them."""
    if answer.reasoning and shown:
        for piece in [answer.reasoning] if whole else call.pieces(answer.reasoning):
            yield {"text": piece, "thought": True}
    signed = {"thoughtSignature": token(answer.reasoning)} if answer.reasoning else {}
    if answer.text and whole:
        yield {"text": answer.text, **signed}
    elif answer.text:
        for piece in call.pieces(answer.text):
            yield {"text": piece}
        if signed:
            yield {"text": "", **signed}
    for i, wanted in enumerate(answer.calls):
        part = {"functionCall": {"name": wanted.name, "args": wanted.arguments}}
        # The signature stands at the first of parallel calls, and only there.
        yield {**part, **signed} if i == 0 and not answer.text else part


def _response(call: Call, parts: list[Fields], finish: str | None, usage: Fields) -> Fields:
    candidate: Fields = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": call.honest_name,
        "responseId": f"sim{call.number:012d}",
    }


def _usage(answer: Answer) -> Fields:
    """This vendor's candidatesTokenCount leaves out the thoughts."""
    written = answer.output_tokens - answer.reasoning_tokens
    usage: Fields = {
        "promptTokenCount": answer.input_tokens,
        "candidatesTokenCount": written,
        "totalTokenCount": answer.input_tokens + answer.output_tokens,
    }
    if answer.reasoning_tokens:
        usage["thoughtsTokenCount"] = answer.reasoning_tokens
    if answer.cache.read:
        usage["cachedContentTokenCount"] = answer.cache.read
    return usage


def _count_tokens(call: Call) -> Reply:
    body = fields(call.body, "", frozenset({"contents", "generateContentRequest"}))
    call.body = body.get("generateContentRequest") or {"contents": body.get("contents")}
    return Reply(orjson.dumps({"totalTokens": read_generate(call).input_tokens}))


_OPERATIONS = {
    "generateContent": _generate,
    "streamGenerateContent": _stream,
    "countTokens": _count_tokens,
    "predict": predict,
    "embedContent": embed_content,
    "batchEmbedContents": batch_embed_contents,
}
