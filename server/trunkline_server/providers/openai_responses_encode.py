"""Writes requests of the Responses API, beside its input items.

The shapes are those of OpenAI's OpenAPI document and of its SDK, which judge the golden requests
(tests/golden/openai_responses).
"""

from typing import Any

import orjson
from google.protobuf import struct_pb2

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.codec import CodecTarget, WireRequest
from trunkline_server.providers.openai_encode import (
    EFFORTS,
    builtin_options,
    plain_value,
    put_user,
    schema_text,
)
from trunkline_server.providers.openai_flags import enabled, operation_path, word
from trunkline_server.providers.openai_messages import Json
from trunkline_server.providers.openai_responses_items import encode_items

_OWN_FIELDS = frozenset({"background", "input", "model", "stream"})
_NO_ARGUMENTS = orjson.Fragment(b'{"type":"object","properties":{}}')
_ENCRYPTED_REASONING = "reasoning.encrypted_content"


def encode_response(
    request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
) -> WireRequest:
    """The call of /responses. Nothing of it depends on what the vendor stores."""
    options = _options(request.provider_options)
    stored = options.get("store") is True
    body: Json = {
        "model": target.provider_model,
        "input": encode_items(request.messages, target, stored=stored),
        "store": False,
    }
    if target.reasons and enabled(target, "encrypted_reasoning"):
        body["include"] = [_ENCRYPTED_REASONING]
    if stream:
        body["stream"] = True
    if request.HasField("config"):
        _config(request.config, target, body)
    if request.tools:
        body["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools)]
    if request.HasField("tool_choice"):
        _tool_choice(request.tool_choice, body)
    if request.HasField("response_format"):
        _text_format(request.response_format, body)
    if request.HasField("context"):
        put_user(request.context, target, body)
    if options:
        _merge(options, body)
    return WireRequest(operation_path("/responses", target, deployed=False), orjson.dumps(body))


def _config(config: v1.GenerationConfig, target: CodecTarget, body: Json) -> None:
    has = config.HasField
    if has("max_output_tokens"):
        body["max_output_tokens"] = config.max_output_tokens
    if has("temperature"):
        body["temperature"] = config.temperature
    if has("top_p"):
        body["top_p"] = config.top_p
    # A penalty of zero is no penalty, which is what the vendor always gives.
    for name, asked in (
        ("top_k", has("top_k")),
        ("stop", bool(config.stop)),
        ("seed", has("seed")),
        ("presence_penalty", config.presence_penalty != 0),
        ("frequency_penalty", config.frequency_penalty != 0),
    ):
        if asked:
            raise invalid(f"config.{name}", "the Responses API does not offer it")
    if has("reasoning"):
        _reasoning(config.reasoning, target, body)


def _reasoning(reasoning: v1.ReasoningConfig, target: CodecTarget, body: Json) -> None:
    wanted: Json = {}
    effort = EFFORTS.get(reasoning.effort)
    if reasoning.HasField("budget_tokens"):
        if reasoning.budget_tokens == 0:
            effort = "none"
        elif word(target, "reasoning_request") == "reasoning":
            # OpenRouter takes one or the other, and the budget is the more exact.
            wanted["max_tokens"], effort = reasoning.budget_tokens, None
        else:
            raise invalid("config.reasoning.budget_tokens", "this provider takes only an effort")
    if effort is not None:
        wanted["effort"] = effort
    if reasoning.include_reasoning:
        wanted["summary"] = "auto"
    if wanted:
        body["reasoning"] = wanted


def _tool(tool: v1.Tool, path: str) -> Json:
    if tool.HasField("builtin"):
        return _builtin(tool.builtin, f"{path}.builtin")
    encoded: Json = {"type": "function", "name": tool.name}
    if tool.description:
        encoded["description"] = tool.description
    encoded["parameters"] = (
        schema_text(tool.parameters_json, f"{path}.parameters_json")
        if tool.parameters_json
        else _NO_ARGUMENTS
    )
    # Left out, it would be true.
    encoded["strict"] = tool.strict
    return encoded


def _builtin(tool: v1.BuiltinTool, path: str) -> Json:
    if tool.type in {"", "function"}:
        raise invalid(path, "is not a tool that the vendor runs")
    return {"type": tool.type, **builtin_options(tool, path)}


def _tool_choice(choice: v1.ToolChoice, body: Json) -> None:
    if choice.name and choice.mode != v1.TOOL_CHOICE_MODE_REQUIRED:
        raise invalid("tool_choice.name", "goes only with mode REQUIRED")
    if "tools" not in body:
        if choice.mode == v1.TOOL_CHOICE_MODE_REQUIRED:
            raise invalid("tool_choice.mode", "requires a tool where none is given")
        return
    match choice.mode:
        case v1.TOOL_CHOICE_MODE_AUTO:
            body["tool_choice"] = "auto"
        case v1.TOOL_CHOICE_MODE_NONE:
            body["tool_choice"] = "none"
        case v1.TOOL_CHOICE_MODE_REQUIRED if choice.name:
            body["tool_choice"] = {"type": "function", "name": choice.name}
        case v1.TOOL_CHOICE_MODE_REQUIRED:
            body["tool_choice"] = "required"
    if choice.disable_parallel:
        body["parallel_tool_calls"] = False


def _text_format(response_format: v1.ResponseFormat, body: Json) -> None:
    match response_format.WhichOneof("kind"):
        case "json_object":
            body["text"] = {"format": {"type": "json_object"}}
        case "json_schema":
            wanted = response_format.json_schema
            shape: Json = {"type": "json_schema", "name": wanted.name or "response"}
            if wanted.description:
                shape["description"] = wanted.description
            shape["schema"] = schema_text(
                wanted.schema_json, "response_format.json_schema.schema_json"
            )
            shape["strict"] = wanted.strict
            body["text"] = {"format": shape}


def _options(options: struct_pb2.Struct) -> Json:
    """The caller's own fields as JSON data."""
    plain: Json = {}
    for name, value in options.fields.items():
        if name in _OWN_FIELDS:
            raise invalid(f"provider_options.{name}", "is set by the router alone")
        plain[name] = plain_value(value)
    return plain


def _merge(options: Json, body: Json) -> None:
    """Puts the caller's own fields into the body, over what the codec has put there. Objects are
    joined field by field, and `include` lists what either asks for."""
    for name, value in options.items():
        present: Any = body.get(name)
        if isinstance(present, dict) and isinstance(value, dict):
            body[name] = {**present, **value}
        elif name == "include" and isinstance(present, list) and isinstance(value, list):
            body[name] = present + [each for each in value if each not in present]
        else:
            body[name] = value
