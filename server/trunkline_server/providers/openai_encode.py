"""Writes requests in the OpenAI dialect.

The fields are those of OpenAI's own SDK, whose types judge the golden requests
(tests/golden/openai). What other hosts add or want otherwise is behind flags.
"""

from collections.abc import Mapping
from typing import Any, Literal

import orjson
from google.protobuf import struct_pb2

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.codec import CodecTarget, WireRequest
from trunkline_server.providers.openai_flags import enabled, number, operation_path, word
from trunkline_server.providers.openai_hosts import alternating
from trunkline_server.providers.openai_messages import Json, encode_messages

EFFORTS: Mapping[v1.ReasoningEffort.ValueType, str] = {
    v1.REASONING_EFFORT_NONE: "none",
    v1.REASONING_EFFORT_MINIMAL: "minimal",
    v1.REASONING_EFFORT_LOW: "low",
    v1.REASONING_EFFORT_MEDIUM: "medium",
    v1.REASONING_EFFORT_HIGH: "high",
}
# The knobs that vendor and contract call by the same name and mean in the same way.
_SAME_NAME: tuple[Literal["temperature", "top_p", "presence_penalty", "frequency_penalty"], ...] = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
)
_CHAT_OWN_FIELDS = frozenset({"model", "messages", "stream", "stream_options"})
_EMBED_OWN_FIELDS = frozenset({"model", "input"})
_LEFT_TO_THE_MODEL = frozenset({v1.TOOL_CHOICE_MODE_UNSPECIFIED, v1.TOOL_CHOICE_MODE_AUTO})
_NO_ARGUMENTS = orjson.Fragment(b'{"type":"object","properties":{}}')
# Integers up to here survive their passage through a double, which is all a Struct holds.
_EXACT_INTEGERS = 2.0**53


def encode_chat(request: v1.GenerateRequest, target: CodecTarget, *, stream: bool) -> WireRequest:
    """The call of /chat/completions."""
    body: Json = {
        "model": target.provider_model,
        "messages": encode_messages(request.messages, target),
    }
    if "alternate_turns" in target.flags and enabled(target, "alternate_turns"):
        body["messages"] = alternating(body["messages"])
    if stream:
        body["stream"] = True
        if enabled(target, "stream_usage"):
            body["stream_options"] = {"include_usage": True}
    if request.HasField("config"):
        _config(request.config, target, body)
    if request.tools:
        if not enabled(target, "tools"):
            raise invalid("tools", "this provider takes none")
        body["tools"] = [_tool(tool, f"tools[{i}]", target) for i, tool in enumerate(request.tools)]
    if request.HasField("tool_choice"):
        _tool_choice(request.tool_choice, target, body)
    if request.HasField("response_format"):
        _response_format(request.response_format, target, body)
    if request.HasField("context"):
        put_user(request.context, target, body)
    if request.HasField("provider_options"):
        merge_options(request.provider_options, _CHAT_OWN_FIELDS, body)
    path = word(target, "chat_path") if "chat_path" in target.flags else "/chat/completions"
    return WireRequest(operation_path(path, target), orjson.dumps(body))


def encode_embeddings(request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
    """The call of /embeddings. The dialect has no word for `task`, and its models need none."""
    body: Json = {"model": target.provider_model, "input": list(request.inputs)}
    if request.HasField("dimensions"):
        field = word(target, "dimensions_field")
        if not field:
            raise invalid("dimensions", "this provider does not shorten vectors")
        body[field] = request.dimensions
    if enabled(target, "embed_base64"):
        body["encoding_format"] = "base64"
    if request.HasField("context"):
        put_user(request.context, target, body)
    if request.HasField("provider_options"):
        merge_options(request.provider_options, _EMBED_OWN_FIELDS, body)
    return WireRequest(operation_path("/embeddings", target), orjson.dumps(body))


def _config(config: v1.GenerationConfig, target: CodecTarget, body: Json) -> None:
    if config.HasField("max_output_tokens"):
        body[word(target, "max_tokens_field")] = config.max_output_tokens
    for field in _SAME_NAME:
        if config.HasField(field):
            body[field] = getattr(config, field)
    if config.HasField("top_k"):
        if not enabled(target, "top_k"):
            raise invalid("config.top_k", "this provider does not support it")
        body["top_k"] = config.top_k
    if config.stop:
        most = number(target, "max_stop")
        if len(config.stop) > most:
            raise invalid("config.stop", f"this provider takes at most {most} stop texts")
        body["stop"] = list(config.stop)
    if config.HasField("seed"):
        seed_field = word(target, "seed_field")
        if not seed_field:
            raise invalid("config.seed", "this provider does not support it")
        body[seed_field] = config.seed
    if config.HasField("reasoning"):
        _reasoning(config.reasoning, target, body)


def _reasoning(reasoning: v1.ReasoningConfig, target: CodecTarget, body: Json) -> None:
    effort = EFFORTS.get(reasoning.effort)
    budget = reasoning.budget_tokens if reasoning.HasField("budget_tokens") else None
    if budget == 0:
        effort, budget = "none", None
    how = word(target, "reasoning_request")
    if budget is not None and how != "reasoning":
        raise invalid("config.reasoning.budget_tokens", "this provider takes only an effort")
    if effort is not None or budget is not None:
        match how:
            case "reasoning_effort":
                body["reasoning_effort"] = effort
            case "reasoning":
                # The host takes one or the other, and the budget is the more exact.
                body["reasoning"] = {"max_tokens": budget} if budget else {"effort": effort}
            case "thinking":
                body["thinking"] = {"type": "disabled" if effort == "none" else "enabled"}
            case _:
                raise invalid("config.reasoning", "this provider does not support it")
    if reasoning.include_reasoning:
        _include_reasoning(target, body)


def _include_reasoning(target: CodecTarget, body: Json) -> None:
    match word(target, "reasoning_text"):
        case "always":
            pass
        case "reasoning":
            body.setdefault("reasoning", {"enabled": True})
        case "reasoning_format":
            body["reasoning_format"] = "parsed"
        case _:
            raise invalid(
                "config.reasoning.include_reasoning", "this provider does not show its reasoning"
            )


def _tool(tool: v1.Tool, path: str, target: CodecTarget) -> Json:
    if tool.HasField("builtin"):
        return _builtin(tool.builtin, f"{path}.builtin", target)
    function: Json = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = (
        schema_text(tool.parameters_json, f"{path}.parameters_json")
        if tool.parameters_json
        else _NO_ARGUMENTS
    )
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _builtin(tool: v1.BuiltinTool, path: str, target: CodecTarget) -> Json:
    if not enabled(target, "builtin_tools") or tool.type in {"", "function"}:
        raise invalid(path, "this provider has no such tool")
    return {"type": tool.type, **builtin_options(tool, path)}


def builtin_options(tool: v1.BuiltinTool, path: str) -> Json:
    """The vendor's options. Raises INVALID_REQUEST for what is not the JSON text of an object, or
    names the type again."""
    if not tool.options_json:
        return {}
    schema_text(tool.options_json, f"{path}.options_json")
    options: Json = orjson.loads(tool.options_json)
    if "type" in options:
        raise invalid(f"{path}.options_json", "must not hold the type, which stands beside it")
    return options


def schema_text(text: str, path: str) -> orjson.Fragment:
    """The schema's own text, so that nothing in it changes, once it is known to be JSON."""
    try:
        is_object = isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        is_object = False
    if not is_object:
        raise invalid(path, "is not the JSON text of an object")
    return orjson.Fragment(text)


def _tool_choice(choice: v1.ToolChoice, target: CodecTarget, body: Json) -> None:
    if choice.name and choice.mode != v1.TOOL_CHOICE_MODE_REQUIRED:
        raise invalid("tool_choice.name", "goes only with mode REQUIRED")
    if "tools" not in body:
        if choice.mode == v1.TOOL_CHOICE_MODE_REQUIRED:
            raise invalid("tool_choice.mode", "requires a tool where none is given")
        return
    if choice.mode not in _LEFT_TO_THE_MODEL and not enabled(target, "tool_choice"):
        raise invalid("tool_choice.mode", "this provider leaves the choice to the model")
    match choice.mode:
        case v1.TOOL_CHOICE_MODE_AUTO:
            body["tool_choice"] = "auto"
        case v1.TOOL_CHOICE_MODE_NONE:
            body["tool_choice"] = "none"
        case v1.TOOL_CHOICE_MODE_REQUIRED if choice.name:
            body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        case v1.TOOL_CHOICE_MODE_REQUIRED:
            body["tool_choice"] = word(target, "required_word")
    if choice.disable_parallel:
        body["parallel_tool_calls"] = False


def _response_format(response_format: v1.ResponseFormat, target: CodecTarget, body: Json) -> None:
    match response_format.WhichOneof("kind"):
        case "json_object":
            body["response_format"] = {"type": "json_object"}
        case "json_schema":
            if not enabled(target, "json_schema"):
                raise invalid("response_format.json_schema", "this provider takes no schema")
            wanted = response_format.json_schema
            schema: Json = {"name": wanted.name or "response"}
            if wanted.description:
                schema["description"] = wanted.description
            schema["schema"] = schema_text(
                wanted.schema_json, "response_format.json_schema.schema_json"
            )
            if wanted.strict:
                schema["strict"] = True
            body["response_format"] = {"type": "json_schema", "json_schema": schema}


def put_user(context: v1.CallContext, target: CodecTarget, body: Json) -> None:
    """Names the person served, where the host is told that."""
    field = word(target, "user_field")
    if field and context.user_id:
        body[field] = context.user_id


def merge_options(options: struct_pb2.Struct, own: frozenset[str], body: Json) -> None:
    """Puts the caller's own fields into the body, over what the codec has put there."""
    for name, value in options.fields.items():
        if name in own:
            raise invalid(f"provider_options.{name}", "is set by the router alone")
        given = plain_value(value)
        if name == "n" and given != 1:
            raise invalid("provider_options.n", "only one answer can be returned")
        body[name] = given


def plain_value(value: struct_pb2.Value) -> Any:
    """A Struct's value as JSON data; whole numbers become integers, as vendors demand."""
    match value.WhichOneof("kind"):
        case "number_value":
            number_value = value.number_value
            exact = number_value.is_integer() and abs(number_value) <= _EXACT_INTEGERS
            return int(number_value) if exact else number_value
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return {name: plain_value(inner) for name, inner in value.struct_value.fields.items()}
        case "list_value":
            return [plain_value(inner) for inner in value.list_value.values]
        case _:
            return None
