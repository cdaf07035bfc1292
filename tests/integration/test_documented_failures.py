"""Failures that no recording holds, through the whole router.

The bodies are written from the vendors' documentation, each with its address; nothing of the kind
was ever recorded. Replicate's failure after start is in tests/adversity/test_replicate.py.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.support.eventstream import event as frame
from tests.support.eventstream import exception
from tests.support.fault_server import (
    FaultConnection,
    FaultServer,
    Step,
    read_request,
    response,
    send,
)
from tests.support.router import PATIENCE, Router, ask, detail, reason, router
from trunkline import v1
from trunkline_server.simulator.app import Simulator

CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunk(text: str) -> bytes:
    data = text.encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def named(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"


START = named(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 25, "output_tokens": 1},
    },
)
BLOCK = named("content_block_start", index=0, content_block={"type": "text", "text": ""})
HELLO = named("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"})
# https://platform.claude.com/docs/en/build-with-claude/streaming#error-events: "during periods of
# high usage, you may receive an overloaded_error, which would normally correspond to an HTTP 529".
OVERLOADED = named("error", error={"type": "overloaded_error", "message": "Overloaded"})


@asynccontextmanager
async def vendor(kind: str, *raw: bytes | Step) -> AsyncGenerator[Router]:
    """A router to a vendor that answers every call with these bytes, and to one that is well."""
    answer = [read_request, *(send(each) if isinstance(each, bytes) else each for each in raw)]
    async with FaultServer(answer) as server, Simulator() as simulator:
        config = f"""
providers:
  vendor: {{kind: {kind}, base_url: '{server.url}', api_key: 'env:TEST_KEY'}}
  well: {{kind: openai, base_url: '{simulator.url}/openai/v1', api_key: 'env:TEST_KEY'}}
deployments:
  - {{name: d1, provider: vendor, model: m, capabilities: [chat, streaming],
     max_output_tokens: 100, price: {{input: '1', output: '2'}}}}
  - {{name: d2, provider: well, model: sim-large, priority: 1, capabilities: [chat, streaming],
     price: {{input: '1', output: '2'}}}}
models: {{large: {{deployments: [d1, d2], attempts: {{retries: 0}}}}}}
"""
        async with router(config) as running:
            yield running


async def test_anthropic_529_before_the_first_words_falls_back() -> None:
    async with vendor("anthropic", CHUNKED, chunk(START + OVERLOADED), b"0\r\n\r\n") as running:
        events = [event async for event in running.stub.StreamGenerate(ask(), timeout=PATIENCE)]
    assert events[0].start.deployment == "d2"
    failed, answered = events[-1].end.attempts
    assert failed.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert failed.message == "Overloaded"
    assert answered.outcome == v1.ATTEMPT_OUTCOME_SUCCEEDED


async def test_anthropic_529_mid_stream_ends_non_ok_and_is_billed() -> None:
    seen = asyncio.Event()

    async def until_seen(_: FaultConnection) -> None:
        await seen.wait()

    first, last = chunk(START + BLOCK + HELLO), chunk(OVERLOADED)
    async with vendor("anthropic", CHUNKED, first, until_seen, last, b"0\r\n\r\n") as running:
        call = running.stub.StreamGenerate(ask(), timeout=PATIENCE)
        events: list[v1.StreamGenerateResponse] = []

        async def read() -> None:
            while isinstance(event := await call.read(), v1.StreamGenerateResponse):
                events.append(event)
                if event.delta.text:
                    seen.set()

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read()
    said = "".join(event.delta.text for event in events)
    assert said == "Hello"
    assert not any(event.HasField("end") for event in events)
    assert reason(caught.value) == v1.ERROR_REASON_STREAM_INTERRUPTED
    report = detail(caught.value, v1.CallReport)
    (attempt,) = report.attempts
    assert attempt.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    # What it had read and written by then is paid for.
    assert attempt.usage.input_tokens == 25
    assert report.cost.total > 0


async def test_anthropic_529_as_an_answer_falls_back() -> None:
    """https://platform.claude.com/docs/en/api/errors."""
    body = json.dumps(
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    ).encode()
    reply = response(body, "content-type: application/json", status="529 Overloaded")
    async with vendor("anthropic", reply) as running:
        answer = await running.stub.Generate(ask(), timeout=PATIENCE)
    assert answer.attempts[0].http_status == 529
    assert answer.deployment == "d2"


# https://ai.google.dev/api/generate-content#PromptFeedback: with a blockReason "the prompt was
# blocked and no candidates are returned. Rephrase the prompt."
BLOCKED = {
    "promptFeedback": {
        "blockReason": "PROHIBITED_CONTENT",
        "safetyRatings": [
            {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}
        ],
    },
    "usageMetadata": {"promptTokenCount": 8, "totalTokenCount": 8},
    "modelVersion": "gemini",
}


@pytest.mark.parametrize("streamed", [False, True])
async def test_gemini_blocks_a_prompt_and_gives_no_candidates(streamed: bool) -> None:
    """It is the caller's to know, and not offered to the next vendor."""
    body = json.dumps(BLOCKED)
    raw = (
        [CHUNKED, chunk(f"data: {body}\n\n"), b"0\r\n\r\n"]
        if streamed
        else [response(body.encode(), "content-type: application/json")]
    )
    async with vendor("gemini", *raw) as running:
        stub = running.stub
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (
                stub.StreamGenerate(ask(), timeout=PATIENCE).read()
                if streamed
                else stub.Generate(ask(), timeout=PATIENCE)
            )
    assert reason(caught.value) == v1.ERROR_REASON_CONTENT_FILTER
    (attempt,) = detail(caught.value, v1.CallReport).attempts
    assert attempt.deployment == "d1"
    assert "PROHIBITED_CONTENT" in attempt.message


# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html:
# modelStreamErrorException, "An error occurred while streaming the response body. Retry your
# request." HTTP Status Code: 424.
FRAMED = CHUNKED.replace(b"text/event-stream", b"application/vnd.amazon.eventstream")
BEGUN = frame("messageStart", b'{"role":"assistant"}')
SAID = frame("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"Hello"}}')
BROKE = exception(
    "modelStreamErrorException",
    b'{"message":"The model broke.","originalStatusCode":500,"originalMessage":"oops"}',
)


async def test_bedrock_model_stream_error_before_the_first_words_falls_back() -> None:
    async with vendor("bedrock", FRAMED, sized(BEGUN + BROKE), b"0\r\n\r\n") as running:
        events = [event async for event in running.stub.StreamGenerate(ask(), timeout=PATIENCE)]
    assert events[0].start.deployment == "d2"
    failed, _ = events[-1].end.attempts
    assert failed.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert failed.message == "The model broke."


async def test_bedrock_model_stream_error_mid_stream_ends_non_ok() -> None:
    seen = asyncio.Event()

    async def until_seen(_: FaultConnection) -> None:
        await seen.wait()

    async with vendor("bedrock", FRAMED, sized(BEGUN + SAID), until_seen, sized(BROKE)) as running:
        call = running.stub.StreamGenerate(ask(), timeout=PATIENCE)

        async def read() -> None:
            while isinstance(event := await call.read(), v1.StreamGenerateResponse):
                assert not event.HasField("end")
                if event.delta.text:
                    seen.set()

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read()
    assert seen.is_set()
    assert reason(caught.value) == v1.ERROR_REASON_STREAM_INTERRUPTED
    (attempt,) = detail(caught.value, v1.CallReport).attempts
    assert attempt.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    # What was written is billed by an estimate: the counts would have come last.
    assert attempt.usage.source == v1.USAGE_SOURCE_ESTIMATE


def sized(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
