"""What each dialect refuses, in the vendor's own shape, with the field that is wrong."""

from typing import Any

import pytest

from tests.unit.simulator.raw import KEYS, exchange
from trunkline_server.simulator.app import Simulator

USER = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f"}}
USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
CLAUDE_TOOL = {"name": "f", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [USER, {"role": "user", "content": [{"type": "smell"}]}]},
            "messages[1].content[0].type",
            "invalid_value",
        ),
        (
            {"messages": [USER, {"role": "tool", "tool_call_id": "c9", "content": "x"}]},
            "messages[1].role",
            "invalid_value",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, USER]},
            "messages",
            "invalid_value",
        ),
        ({"temperature": 2.1}, "temperature", "decimal_above_maximum_value"),
        ({"temperature": -1}, "temperature", "decimal_below_minimum_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"top_p": 1.5}, "top_p", "decimal_above_maximum_value"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 999_999}, "max_tokens", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"tools": []}, "tools", "empty_array"),
        ({"tool_choice": "auto"}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice", "invalid_value"),
        (
            {"tools": [{"type": "function", "function": {"name": "bad name"}}]},
            "tools[0].function.name",
            "invalid_value",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"frobnicate": 1}, "frobnicate", "unknown_parameter"),
    ],
)
async def test_openai(simulator: Simulator, change: dict[str, Any], param: str, code: str) -> None:
    body = {"model": "sim-large", "messages": [USER], **change}
    got = await exchange(simulator.url, "/openai/v1/chat/completions", body)
    assert got.status == 400
    error = got.json["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["code"] == code
    assert error["message"]


def said(role: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "model: Field required"),
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "max_tokens: must be greater"),
        ({"max_tokens": 999_999}, "max_tokens: 999999 > 16384"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "system", "content": "x"}]}, 'Unexpected role "system"'),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "first message must use"),
        ({"messages": [{"role": "user", "content": ""}]}, "must have non-empty content"),
        (
            {"messages": [said("user", {"type": "text", "text": ""})]},
            "messages.0.content.0: text content blocks must be non-empty",
        ),
        ({"messages": [said("user", {"type": "smell"})]}, "Input tag 'smell'"),
        ({"messages": [said("user", USE)]}, "Input tag 'tool_use'"),
        ({"messages": [USER, said("assistant", USE)]}, "without `tool_result` blocks"),
        ({"messages": [USER, said("assistant", USE), USER]}, "messages.1: `tool_use` ids"),
        (
            {"messages": [said("user", {"type": "tool_result", "tool_use_id": "t9"})]},
            "unexpected `tool_use_id`",
        ),
        ({"temperature": 1.5}, "temperature: range: 0..1"),
        ({"stop_sequences": [" "]}, "each stop sequence must contain non-whitespace"),
        ({"tool_choice": {"type": "auto"}}, "may only be specified while providing tools"),
        (
            {"tools": [CLAUDE_TOOL], "tool_choice": {"type": "tool", "name": "g"}},
            "Tool 'g' not found",
        ),
        ({"tools": [CLAUDE_TOOL] * 2}, "Tool names must be unique"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "greater than or equal to 1024"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "`max_tokens` must be greater"),
        ({"frobnicate": 1}, "frobnicate: Extra inputs are not permitted"),
    ],
)
async def test_anthropic(simulator: Simulator, change: dict[str, Any], message: str) -> None:
    body = {"model": "sim-large", "max_tokens": 99, "messages": [USER], **change}
    got = await exchange(simulator.url, "/anthropic/v1/messages", body)
    assert got.status == 400
    assert got.json["type"] == "error"
    assert got.json["error"]["type"] == "invalid_request_error"
    assert message in got.json["error"]["message"]


async def test_anthropic_takes_turns_of_one_role_together(simulator: Simulator) -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "7"}
    messages = [USER, said("assistant", USE), said("user", result), USER]
    body = {"model": "sim-large", "max_tokens": 99, "messages": messages}
    got = await exchange(simulator.url, "/anthropic/v1/messages", body)
    assert got.status == 200
    assert "f: 7" in got.json["content"][0]["text"]


async def test_anthropic_wants_its_version(simulator: Simulator) -> None:
    body = {"model": "sim-large", "max_tokens": 9, "messages": [USER]}
    got = await exchange(simulator.url, "/anthropic/v1/messages", body, headers={"x-api-key": "k"})
    assert got.status == 400
    assert "anthropic-version" in got.json["error"]["message"]


def content(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "parts": list(parts)}


ASKED = content("user", {"text": "hi"})
SAID = content("model", {"text": "x"})
CALLED = content("model", {"functionCall": {"name": "f", "args": {}}})


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"contents": []}, "contents", "contents is not specified"),
        ({"contents": [content("robot", {"text": "x"})]}, "contents[0].role", "valid role"),
        ({"contents": [content("user")]}, "contents[0].parts", "must not be empty"),
        ({"contents": [content("user", {"smell": 1})]}, "contents[0].parts[0]", '"smell"'),
        ({"contents": [content("user", {"thought": True})]}, "contents[0].parts[0]", "oneof"),
        ({"contents": [ASKED, CALLED, ASKED]}, "contents[2]", "function response parts"),
        ({"contents": [ASKED, SAID, CALLED]}, "contents[2]", "after a user"),
        ({"generationConfig": {"temperature": 3}}, "generation_config.temperature", "range"),
        ({"generation_config": {"top_p": 3}}, "generation_config.topP", "range"),
        (
            {"generationConfig": {"maxOutputTokens": 0}},
            "generation_config.max_output_tokens",
            "supported range",
        ),
        ({"generationConfig": {"frob": 3}}, "generation_config", 'Unknown name "frob"'),
        ({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
         "tool_config.function_calling_config", "no function declarations"),
    ],
)  # fmt: skip
async def test_gemini(
    simulator: Simulator, change: dict[str, Any], field: str, message: str
) -> None:
    body = {"contents": [ASKED], **change}
    got = await exchange(simulator.url, "/gemini/v1beta/models/sim-large:generateContent", body)
    assert got.status == 400
    error = got.json["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert message in error["message"]
    violations = error["details"][0]["fieldViolations"]
    assert [violation["field"] for violation in violations] == [field]


PATHS = {
    "openai": "/openai/v1/chat/completions",
    "anthropic": "/anthropic/v1/messages",
    "gemini": "/gemini/v1beta/models/sim-large:generateContent",
}
KINDS = {"openai": "type", "anthropic": "type", "gemini": "status"}


@pytest.mark.parametrize(
    ("dialect", "kind"),
    [
        ("openai", "invalid_request_error"),
        ("anthropic", "authentication_error"),
        ("gemini", "UNAUTHENTICATED"),
    ],
)
async def test_no_key(simulator: Simulator, dialect: str, kind: str) -> None:
    got = await exchange(simulator.url, PATHS[dialect], {}, headers={})
    assert got.status == 401
    assert got.json["error"][KINDS[dialect]] == kind


@pytest.mark.parametrize("dialect", PATHS)
async def test_body_that_is_not_json(simulator: Simulator, dialect: str) -> None:
    for body in (b"{", b"[]", b""):
        got = await exchange(simulator.url, PATHS[dialect], body)
        assert got.status == 400
        assert "JSON" in got.json["error"]["message"]


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/openai/v1/nothing", "POST"),
        ("/openai/v1/chat/completions", "GET"),
        ("/anthropic/v1/nothing", "GET"),
        ("/gemini/v1beta/models/sim-large:frobnicate", "POST"),
        ("/gemini/v3/models/sim-large:generateContent", "POST"),
    ],
)
async def test_unknown_path(simulator: Simulator, path: str, method: str) -> None:
    got = await exchange(simulator.url, path, {}, method=method)
    assert got.status == 404
    assert got.json["error"]["message"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"input": ""}, 400),
        ({"input": []}, 400),
        ({"input": ["a", ""]}, 400),
        ({"input": ["a"] * 2049}, 400),
        ({"dimensions": 0}, 400),
        ({"dimensions": 257}, 400),
        ({"encoding_format": "hex"}, 400),
        ({"model": "sim-large"}, 403),
        ({"input": [1, 2, 3]}, 200),
        ({"input": [[1, 2], [3]]}, 200),
    ],
)
async def test_embedding_inputs(simulator: Simulator, change: dict[str, Any], status: int) -> None:
    body = {"model": "sim-embed", "input": "a", **change}
    got = await exchange(simulator.url, "/openai/v1/embeddings", body)
    assert got.status == status


async def test_prompt_beyond_the_window(simulator: Simulator) -> None:
    long = "x" * (4 * 32_000)
    body = {"model": "sim-small", "messages": [{"role": "user", "content": long}]}
    got = await exchange(simulator.url, PATHS["openai"], body)
    assert (got.status, got.json["error"]["code"]) == (400, "context_length_exceeded")
    assert "32003" in got.json["error"]["message"]
    headers = {**KEYS["anthropic"]}
    got = await exchange(
        simulator.url, PATHS["anthropic"], {**body, "max_tokens": 9}, headers=headers
    )
    assert got.json["error"]["message"] == "prompt is too long: 32003 tokens > 32000 maximum"
