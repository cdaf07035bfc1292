"""Requests with something replaced at random: refused or answered, never a crash."""

import asyncio
import copy
import random
from typing import Any

import pytest

from tests.unit.simulator.raw import exchange
from trunkline_server.simulator.app import Simulator

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 1, "maximum": 9, "multipleOf": 3},
        "b": {"type": "array", "items": {"anyOf": [{"type": "string"}]}, "minItems": 1},
        "c": {"$ref": "#/$defs/d"},
    },
    "required": ["a", "b", "c"],
    "$defs": {"d": {"allOf": [{"type": "string", "minLength": 3, "format": "date"}]}},
}
OPENAI: dict[str, Any] = {
    "model": "sim-large",
    "messages": [
        {"role": "system", "content": "be brief in json"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "call f"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"file_id": "x"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "7"},
        {"role": "user", "content": "call f again"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    "stream": False,
    "n": 1,
    "temperature": 0.5,
    "max_tokens": 50,
    "stop": ["x"],
    "reasoning_effort": "low",
}
ANTHROPIC: dict[str, Any] = {
    "model": "sim-large",
    "max_tokens": 500,
    "system": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "call f"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                },
                {"type": "document", "source": {"type": "url", "url": "https://example.com"}},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [{"type": "text", "text": "7"}],
                }
            ],
        },
    ],
    "tools": [{"name": "f", "input_schema": SCHEMA}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "adaptive"},
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    "stop_sequences": ["x"],
    "temperature": 1,
}
GEMINI: dict[str, Any] = {
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "call f"},
                {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                {"fileData": {"mimeType": "audio/wav", "fileUri": "gs://x"}},
            ],
        },
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"a": 1}}}]},
    ],
    "systemInstruction": {"parts": [{"text": "hi"}]},
    "tools": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": SCHEMA}]}],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
    "generationConfig": {
        "temperature": 1,
        "maxOutputTokens": 50,
        "stopSequences": ["x"],
        "responseMimeType": "application/json",
        "responseSchema": SCHEMA,
        "thinkingConfig": {"includeThoughts": True},
    },
}
CASES = {
    "openai": ("/openai/v1/chat/completions", OPENAI),
    "anthropic": ("/anthropic/v1/messages", ANTHROPIC),
    "gemini": ("/gemini/v1beta/models/sim-large:generateContent", GEMINI),
    "gemini-embed": (
        "/gemini/v1beta/models/sim-embed:batchEmbedContents",
        {"requests": [{"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 8}]},
    ),
    "openai-embed": (
        "/openai/v1/embeddings",
        {"model": "sim-embed", "input": ["a", "b"], "dimensions": 8, "encoding_format": "base64"},
    ),
}
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2.5,
    "",
    "x",
    [],
    ["x"],
    [[]],
    {},
    {"type": "x"},
    [{}],
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a JSON value with each of its keys or indexes."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        found.append((value, key))
        if isinstance(item, dict | list):
            found += places(item)
    return found


def mutations(body: dict[str, Any], seed: int, count: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        changed = copy.deepcopy(body)
        for _ in range(rng.choice((1, 1, 1, 2))):
            if not (found := places(changed)):
                break
            container, key = rng.choice(found)
            if rng.random() < 0.2:
                del container[key]
            else:
                container[key] = copy.deepcopy(rng.choice(VALUES))
        made.append(changed)
    return made


@pytest.mark.parametrize("case", CASES)
async def test_no_request_crashes_it(simulator: Simulator, case: str) -> None:
    path, body = CASES[case]
    assert (await exchange(simulator.url, path, body)).status == 200
    seen = set()
    for changed in mutations(body, seed=1, count=400):
        async with asyncio.timeout(10):
            got = await exchange(simulator.url, path, changed)
        assert got.status in {200, 400, 403, 404}, changed
        seen.add(got.status)
    assert {200, 400} <= seen
