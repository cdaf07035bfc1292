"""What the OpenAI dialect refuses to carry, by field, and what it must not lose."""

from typing import Any

import orjson
import pytest
from google.protobuf import json_format

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.openai_chat import FLAGS, OpenAIChatCodec
from trunkline_server.providers.openai_responses import OpenAIResponsesCodec

CODEC = OpenAIChatCodec()
USER = {"role": "ROLE_USER", "parts": [{"text": "hi"}]}


def encode(request: dict[str, Any], **flags: str | int | bool) -> dict[str, Any]:
    message = json_format.ParseDict({"messages": [USER], **request}, v1.GenerateRequest())
    wire = CODEC.encode_generate(message, CodecTarget("m", flags=flags), stream=False)
    body: dict[str, Any] = orjson.loads(wire.body)
    return body


def message(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [USER, {"role": role, "parts": list(parts)}]}


def tool_result(part: dict[str, Any]) -> dict[str, Any]:
    return message("ROLE_TOOL", {"tool_result": {"tool_call_id": "c", "parts": [part]}})


IMAGE = {"image": {"data": "iVBORw==", "media_type": "image/png"}}
CALL = {"tool_call": {"id": "c", "name": "f"}}
TOOL = {"name": "f"}
REQUIRED = "TOOL_CHOICE_MODE_REQUIRED"
SCHEMA = {"response_format": {"json_schema": {"schema_json": "nope"}}}
PART = "messages[1].parts[0]"


@pytest.mark.parametrize(
    ("request_json", "field"),
    [
        ({"messages": [{"parts": [{"text": "hi"}]}]}, "messages[0].role"),
        (message("ROLE_USER", {"text": "a"}, CALL), "messages[1].parts[1].tool_call"),
        (message("ROLE_USER", {}), PART),
        (message("ROLE_SYSTEM", IMAGE), f"{PART}.image"),
        (message("ROLE_ASSISTANT", IMAGE), f"{PART}.image"),
        (message("ROLE_ASSISTANT", {"audio": {"data": "", "media_type": "x"}}), f"{PART}.audio"),
        (message("ROLE_TOOL", {"text": "a"}), f"{PART}.text"),
        (tool_result(IMAGE), f"{PART}.tool_result.parts[0].image"),
        (tool_result({"file": {"file_id": "f"}}), f"{PART}.tool_result.parts[0].file"),
        (message("ROLE_USER", {"image": {"data": "AA=="}}), f"{PART}.image.media_type"),
        (message("ROLE_USER", {"image": {"uri": "gs://b/o"}}), f"{PART}.image.uri"),
        (message("ROLE_USER", {"image": {}}), f"{PART}.image"),
        (message("ROLE_USER", {"audio": {"uri": "https://x"}}), f"{PART}.audio"),
        (
            message("ROLE_USER", {"audio": {"data": "AA==", "media_type": "audio/flac"}}),
            f"{PART}.audio.media_type",
        ),
        (message("ROLE_USER", {"file": {"uri": "https://x"}}), f"{PART}.file.uri"),
        (message("ROLE_USER", {"file": {"data": "AA=="}}), f"{PART}.file.media_type"),
        (message("ROLE_USER", {"file": {}}), f"{PART}.file"),
        ({"config": {"top_k": 1}}, "config.top_k"),
        ({"config": {"stop": ["a", "b", "c", "d", "e"]}}, "config.stop"),
        (
            {"config": {"reasoning": {"budget_tokens": 9}}},
            "config.reasoning.budget_tokens",
        ),
        (
            {"config": {"reasoning": {"include_reasoning": True}}},
            "config.reasoning.include_reasoning",
        ),
        ({"tools": [TOOL, {"name": "g", "parameters_json": "{"}]}, "tools[1].parameters_json"),
        ({"tools": [{"name": "g", "parameters_json": "[]"}]}, "tools[0].parameters_json"),
        (
            {"tools": [TOOL], "tool_choice": {"mode": "TOOL_CHOICE_MODE_AUTO", "name": "f"}},
            "tool_choice.name",
        ),
        ({"tool_choice": {"mode": REQUIRED}}, "tool_choice.mode"),
        (SCHEMA, "response_format.json_schema.schema_json"),
        ({"provider_options": {"model": "x"}}, "provider_options.model"),
        ({"provider_options": {"messages": []}}, "provider_options.messages"),
        ({"provider_options": {"stream": True}}, "provider_options.stream"),
        ({"provider_options": {"stream_options": {}}}, "provider_options.stream_options"),
        ({"provider_options": {"n": 2}}, "provider_options.n"),
    ],
)
def test_refusals_name_the_field(request_json: dict[str, Any], field: str) -> None:
    with pytest.raises(TrunklineError) as caught:
        encode(request_json)
    assert caught.value.reason == v1.ERROR_REASON_INVALID_REQUEST
    assert [violation.field for violation in caught.value.violations] == [field]


def test_hosts_without_a_seed_or_an_effort_refuse_them() -> None:
    for config, flag, field in (
        ({"seed": "1"}, "seed_field", "config.seed"),
        ({"reasoning": {"effort": 3}}, "reasoning_request", "config.reasoning"),
    ):
        with pytest.raises(TrunklineError) as caught:
            encode({"config": config}, **{flag: ""})
        assert caught.value.violations[0].field == field


def test_refusals_do_not_quote_the_request() -> None:
    with pytest.raises(TrunklineError) as caught:
        encode({"tools": [{"name": "g", "parameters_json": "{payload"}]})
    assert "payload" not in str(caught.value)


@pytest.mark.parametrize("flags", [{}, {"max_stop": 16}])
def test_stop_texts_up_to_the_hosts_limit(flags: dict[str, int]) -> None:
    most = flags.get("max_stop", 4)
    assert encode({"config": {"stop": ["x"] * most}}, **flags)["stop"] == ["x"] * most


def test_zero_is_a_value() -> None:
    body = encode({"config": {"temperature": 0, "seed": "0", "presence_penalty": 0}})
    assert body["temperature"] == 0
    assert body["seed"] == 0
    assert body["presence_penalty"] == 0


def test_unset_is_not_sent() -> None:
    assert encode({"config": {}}).keys() == {"model", "messages"}


@pytest.mark.parametrize(
    ("flags", "reasoning", "expected"),
    [
        ({}, {"effort": "REASONING_EFFORT_NONE"}, {"reasoning_effort": "none"}),
        ({}, {"effort": "REASONING_EFFORT_HIGH"}, {"reasoning_effort": "high"}),
        ({}, {"budget_tokens": 0}, {"reasoning_effort": "none"}),
        (
            {"reasoning_request": "reasoning"},
            {"budget_tokens": 0},
            {"reasoning": {"effort": "none"}},
        ),
        (
            {"reasoning_request": "reasoning"},
            {"effort": "REASONING_EFFORT_LOW"},
            {"reasoning": {"effort": "low"}},
        ),
        (
            {"reasoning_request": "thinking"},
            {"effort": "REASONING_EFFORT_MEDIUM"},
            {"thinking": {"type": "enabled"}},
        ),
        (
            {"reasoning_request": "reasoning", "reasoning_text": "reasoning"},
            {"include_reasoning": True},
            {"reasoning": {"enabled": True}},
        ),
        ({"reasoning_text": "always"}, {"include_reasoning": True}, {}),
        ({}, {}, {}),
    ],
)
def test_reasoning(
    flags: dict[str, str], reasoning: dict[str, Any], expected: dict[str, Any]
) -> None:
    body = encode({"config": {"reasoning": reasoning}}, **flags)
    assert {k: v for k, v in body.items() if k not in {"model", "messages"}} == expected


def test_schemas_keep_their_text() -> None:
    text = (
        '{"type":"object","properties":{"z":{"const":1.50},"a":{"const":12345678901234567890123}}}'
    )
    message = v1.GenerateRequest(tools=[v1.Tool(name="f", parameters_json=text)])
    wire = CODEC.encode_generate(message, CodecTarget("m"), stream=False)
    assert text.encode() in wire.body


def test_own_options_keep_whole_numbers_whole() -> None:
    body = encode({"provider_options": {"a": 3, "b": 0.5, "c": [1, {"d": -2}], "e": None, "n": 1}})
    assert body["a"] == 3
    assert isinstance(body["a"], int)
    assert body["b"] == 0.5
    assert body["c"] == [1, {"d": -2}]
    assert body["e"] is None
    assert body["n"] == 1


def test_reasoning_without_a_readable_signature_goes_back_as_text() -> None:
    part = {
        "reasoning": {"text": "so"},
        "signature": {"dialect": "openai", "value": "not JSON"},
    }
    body = encode(message("ROLE_ASSISTANT", part), reasoning_return="reasoning_details")
    assert body["messages"][1]["reasoning_details"] == [{"type": "reasoning.text", "text": "so"}]


def test_assistant_without_output_is_still_a_message() -> None:
    body = encode({"messages": [USER, {"role": "ROLE_ASSISTANT"}, USER]})
    assert body["messages"][1] == {"role": "assistant", "content": ""}


def test_every_flag_is_documented() -> None:
    documented = (OpenAIChatCodec.__doc__ or "") + (OpenAIResponsesCodec.__doc__ or "")
    for flag, default in FLAGS.items():
        assert f"- `{flag}` (" in documented
        shown = f'"{default}"' if isinstance(default, str) else str(default)
        assert f"- `{flag}` ({shown}):" in documented


def test_embeddings_refuse_their_own_fields() -> None:
    for field in ("model", "input"):
        request = v1.EmbedRequest(inputs=["a"])
        request.provider_options.update({field: "x"})
        with pytest.raises(TrunklineError) as caught:
            CODEC.encode_embed(request, CodecTarget("m"))
        assert caught.value.violations[0].field == f"provider_options.{field}"


def test_azure_deployment_names_are_escaped() -> None:
    target = CodecTarget("a/b?c", flags={"azure_api_version": "v"})
    wire = CODEC.encode_generate(v1.GenerateRequest(), target, stream=False)
    assert wire.path == "/deployments/a%2Fb%3Fc/chat/completions?api-version=v"
