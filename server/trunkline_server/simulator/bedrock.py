"""The Bedrock runtime's dialect: Converse, ConverseStream, and InvokeModel for vectors.

Follows the service's model, version 2023-09-30.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
from aiohttp import web

from trunkline_server.simulator.answer import Answer
from trunkline_server.simulator.bedrock_access import access_key, verify
from trunkline_server.simulator.bedrock_embeddings import invoke
from trunkline_server.simulator.bedrock_frames import event, exception
from trunkline_server.simulator.bedrock_request import read_converse
from trunkline_server.simulator.dialect import Call, Endpoint, ErrorReply, Quota, Reply
from trunkline_server.simulator.models import Model
from trunkline_server.simulator.signature import sign, token
from trunkline_server.simulator.vendor_error import VendorError

Fields = dict[str, Any]

EVENT_STREAM = "application/vnd.amazon.eventstream"

_FINISH = {
    "stop": "end_turn",
    "stop_text": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "filter": "guardrail_intervened",
}
# Kind of failure: HTTP status, the exception's name and the usual message.
_ERRORS: Mapping[str, tuple[int, str, str]] = {
    "invalid": (400, "ValidationException", "Malformed input request, please try again."),
    "authentication": (
        403,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    ),
    "permission": (
        403,
        "AccessDeniedException",
        "You don't have access to the model with the specified model ID.",
    ),
    "not_found": (404, "UnknownOperationException", "Unknown operation"),
    "model": (400, "ValidationException", "The provided model identifier is invalid."),
    "rate_limit": (
        429,
        "ThrottlingException",
        "Too many requests, please wait before trying again.",
    ),
    "quota": (
        400,
        "ServiceQuotaExceededException",
        "Your request exceeds the service quota for your account.",
    ),
    "context": (400, "ValidationException", "Input is too long for requested model."),
    "filter": (
        400,
        "ValidationException",
        "The model returned the following errors: Output blocked by content filtering policy",
    ),
    "overloaded": (
        503,
        "ServiceUnavailableException",
        "Bedrock is unable to process your request.",
    ),
    "timeout": (408, "ModelTimeoutException", "Model has timed out in processing the request."),
    "too_large": (413, "RequestEntityTooLargeException", "The request is too large."),
    "server": (500, "InternalServerException", "The system encountered an unexpected error."),
}


class Bedrock:
    """The dialect's paths, errors and headers."""

    name = "bedrock"
    # Models are told of by another service.
    listings: tuple[str, ...] = ()

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        return (
            Endpoint("/bedrock/model/{model}/converse", converse, verify),
            Endpoint("/bedrock/model/{model}/converse-stream", converse_stream, verify),
            Endpoint("/bedrock/model/{model}/invoke", invoke, verify),
        )

    def listing(self, model: Model | None) -> bytes:
        raise VendorError("not_found")

    def key(self, request: web.BaseRequest) -> str:
        return access_key(request)

    def target(self, request: web.Request, _body: Mapping[str, Any]) -> tuple[str, str]:
        return request.match_info["model"], request.path.rpartition("/")[2]

    def headers(self, number: int, _quota: Quota | None) -> dict[str, str]:
        return {"x-amzn-requestid": f"sim-{number:012d}"}

    def error(self, refusal: VendorError, _request: web.BaseRequest) -> ErrorReply:
        status, name, message = _failure(refusal)
        headers = {
            "x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"
        }
        if refusal.retry_after is not None:
            headers["retry-after"] = f"{refusal.retry_after:g}"
        return ErrorReply(status, orjson.dumps({"message": message}), headers)

    def stream_error(self, refusal: VendorError) -> bytes:
        _, name, message = _failure(refusal)
        return exception(name[0].lower() + name[1:], {"message": message})

    def stream_garbage(self) -> bytes:
        # A message whose payload was changed on its way, so that its checksum is wrong.
        whole = bytearray(event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {}}))
        whole[-8] ^= 1
        return bytes(whole)


def _failure(refusal: VendorError) -> tuple[int, str, str]:
    status, name, message = _ERRORS[refusal.kind]
    return refusal.status or status, refusal.code or name, refusal.message or message


def _answer(call: Call) -> Answer:
    prompt = read_converse(call)
    use = call.memory.explicit(("bedrock", call.key, call.name), prompt.units)
    return call.answer(prompt, use)


def converse(call: Call) -> Reply:
    """POST /model/{model}/converse."""
    answer = _answer(call)
    body: Fields = {
        "metrics": {"latencyMs": 1},
        "output": {"message": {"role": "assistant", "content": list(_blocks(call, answer))}},
        "stopReason": _FINISH[answer.finish],
        "usage": _usage(answer),
    }
    if answer.finish == "filter":
        body["trace"] = _trace()
    return Reply(orjson.dumps(body))


def converse_stream(call: Call) -> Reply:
    """POST /model/{model}/converse-stream."""
    return Reply(pieces=_stream(call, _answer(call)), content_type=EVENT_STREAM)


def _blocks(call: Call, answer: Answer) -> Iterator[Fields]:
    if answer.reasoning and call.script.redacted:
        yield {"reasoningContent": {"redactedContent": token(answer.reasoning)}}
    elif answer.reasoning:
        text = {"text": answer.reasoning, "signature": sign(answer.reasoning)}
        yield {"reasoningContent": {"reasoningText": text}}
    if answer.text or not answer.calls:
        yield {"text": answer.text}
    for i, wanted in enumerate(answer.calls):
        use = {"toolUseId": _call_id(call, i), "name": wanted.name, "input": wanted.arguments}
        yield {"toolUse": use}


def _call_id(call: Call, i: int) -> str:
    return f"tooluse_sim{call.number:012d}x{i}"


def _usage(answer: Answer) -> Fields:
    """This vendor's inputTokens leave out those read from or written to the cache."""
    use = answer.cache
    usage: Fields = {
        "inputTokens": answer.input_tokens - use.read - use.written,
        "outputTokens": answer.output_tokens,
        "totalTokens": answer.input_tokens + answer.output_tokens,
        "cacheReadInputTokens": use.read,
        "cacheWriteInputTokens": use.written,
    }
    if use.written:
        usage["cacheDetails"] = [
            {"ttl": "1h", "inputTokens": use.written_1h},
            {"ttl": "5m", "inputTokens": use.written - use.written_1h},
        ]
    return usage


def _trace() -> Fields:
    """What a guardrail says of an answer that it cut short."""
    found = {"type": "MISCONDUCT", "confidence": "HIGH", "action": "BLOCKED", "detected": True}
    assessment = {"contentPolicy": {"filters": [found]}}
    return {"guardrail": {"outputAssessments": {"simguardrail": [assessment]}}}


def _stream(call: Call, answer: Answer) -> Iterator[bytes]:
    yield event("messageStart", {"role": "assistant"})
    for index, block in enumerate(_blocks(call, answer)):
        start, deltas = _streamed(call, block)
        if start is not None:
            yield event("contentBlockStart", {"contentBlockIndex": index, "start": start})
        for delta in deltas:
            yield event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta})
        yield event("contentBlockStop", {"contentBlockIndex": index})
    yield event("messageStop", {"stopReason": _FINISH[answer.finish]})
    metadata: Fields = {"usage": _usage(answer), "metrics": {"latencyMs": 1}}
    if answer.finish == "filter":
        metadata["trace"] = _trace()
    yield event("metadata", metadata)


def _streamed(call: Call, block: Fields) -> tuple[Fields | None, Iterable[Fields]]:
    """What opens a block, if anything does, and its deltas."""
    if "text" in block:
        return None, ({"text": piece} for piece in call.pieces(block["text"]))
    if "toolUse" in block:
        use = block["toolUse"]
        written = orjson.dumps(use["input"]).decode()
        start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
        return start, ({"toolUse": {"input": piece}} for piece in call.pieces(written))
    content = block["reasoningContent"]
    if "redactedContent" in content:
        return None, [{"reasoningContent": content}]
    text = content["reasoningText"]
    pieces: list[Fields] = [{"text": piece} for piece in call.pieces(text["text"])]
    pieces.append({"signature": text["signature"]})
    return None, ({"reasoningContent": piece} for piece in pieces)
