"""A GenerateRequest as the body of Converse: everything but the messages themselves.

Shapes follow the service's model, version 2023-09-30. What models take beyond the common fields
goes into `additionalModelRequestFields` by the models' own names, which differ by family; their
source is the vendors' own parameters as the Bedrock user guide lists them.
"""

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.bedrock_content import Conversation, json_object
from trunkline_server.providers.bedrock_reasoning import put_reasoning
from trunkline_server.providers.codec import CodecTarget

Body = dict[str, Any]

# Where each family has what Converse has no field of its own for, as paths within
# additionalModelRequestFields.
_FAMILIES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "claude": {"top_k": ("top_k",)},
    "nova": {"top_k": ("inferenceConfig", "topK")},
    "mistral": {"top_k": ("top_k",)},
    "cohere": {
        "top_k": ("k",),
        "seed": ("seed",),
        "presence_penalty": ("presence_penalty",),
        "frequency_penalty": ("frequency_penalty",),
    },
    "ai21": {
        "presence_penalty": ("presence_penalty",),
        "frequency_penalty": ("frequency_penalty",),
    },
    "openai": {
        "seed": ("seed",),
        "presence_penalty": ("presence_penalty",),
        "frequency_penalty": ("frequency_penalty",),
    },
}

# Converse's fields that provider_options may set.
_OPTIONS = frozenset(
    {
        "additionalModelRequestFields",
        "additionalModelResponseFieldPaths",
        "guardrailConfig",
        "inferenceConfig",
        "outputConfig",
        "performanceConfig",
        "promptVariables",
        "requestMetadata",
        "serviceTier",
        "toolConfig",
    }
)
_RESERVED = frozenset({"messages", "modelId", "system"})


def encode_body(request: v1.GenerateRequest, target: CodecTarget, *, stream: bool) -> Body:
    """The request body. Raises TrunklineError(INVALID_REQUEST) naming the field for what the
    vendor cannot be told."""
    conversation = Conversation(target.flags)
    conversation.read(request.messages)
    body: Body = {"messages": conversation.turns}
    if conversation.system:
        body["system"] = conversation.system
    if request.HasField("config"):
        _put_config(body, request.config, target)
    _put_tools(body, request, uses_tools=conversation.uses_tools)
    if request.HasField("response_format"):
        _put_format(body, request.response_format)
    _put_guardrail(body, target, stream=stream)
    if request.HasField("provider_options"):
        _merge_options(body, request.provider_options, target)
    return body


def _put_config(body: Body, config: v1.GenerationConfig, target: CodecTarget) -> None:
    inference = _inference(config)
    if inference:
        body["inferenceConfig"] = inference
    extra: Body = {}
    family = _FAMILIES.get(str(target.flags.get("family", "")), {})
    for name in ("top_k", "seed", "presence_penalty", "frequency_penalty"):
        if not config.HasField(name):
            continue
        value = getattr(config, name)
        path = family.get(name)
        if path is not None:
            _put(extra, path, value)
        elif value or name in {"top_k", "seed"}:
            # A penalty of zero is none, which is what such a model always gives.
            raise invalid(f"config.{name}", "this model does not offer it")
    if config.HasField("reasoning"):
        put_reasoning(body, extra, config, target)
    if extra:
        body["additionalModelRequestFields"] = extra


def _inference(config: v1.GenerationConfig) -> Body:
    inference: Body = {}
    if config.HasField("max_output_tokens"):
        inference["maxTokens"] = config.max_output_tokens
    if config.HasField("temperature"):
        if config.temperature > 1:
            raise invalid("config.temperature", "must be at most 1 for this provider")
        inference["temperature"] = config.temperature
    if config.HasField("top_p"):
        inference["topP"] = config.top_p
    if config.stop:
        inference["stopSequences"] = list(config.stop)
    return inference


def _put(fields: Body, path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        fields = fields.setdefault(name, {})
    fields[path[-1]] = value


def _put_tools(body: Body, request: v1.GenerateRequest, *, uses_tools: bool) -> None:
    choice = request.tool_choice
    none = choice.mode == v1.TOOL_CHOICE_MODE_NONE
    described = bool(request.tools) or "toolConfig" in request.provider_options.fields
    if not described:
        if choice.mode == v1.TOOL_CHOICE_MODE_REQUIRED:
            raise invalid("tool_choice", "requires a call, but there are no tools")
        if uses_tools:
            raise invalid("tools", "must describe the tools of a conversation that holds calls")
        return
    if none and uses_tools:
        # The service has no such choice, and wants the tools of earlier calls described.
        raise invalid(
            "tool_choice.mode", "this provider cannot forbid calls once a conversation holds any"
        )
    if choice.disable_parallel and not none:
        raise invalid("tool_choice.disable_parallel", "this provider does not offer it")
    if none or not request.tools:
        return
    config: Body = {"tools": [_tool(tool, index) for index, tool in enumerate(request.tools)]}
    if choice.mode == v1.TOOL_CHOICE_MODE_REQUIRED:
        config["toolChoice"] = {"tool": {"name": choice.name}} if choice.name else {"any": {}}
    elif choice.mode == v1.TOOL_CHOICE_MODE_AUTO:
        config["toolChoice"] = {"auto": {}}
    body["toolConfig"] = config


def _tool(tool: v1.Tool, index: int) -> Body:
    if tool.HasField("builtin"):
        if tool.builtin.options_json not in {"", "{}"}:
            where = f"tools[{index}].builtin.options_json"
            raise invalid(where, "this provider's own tools take no options")
        return {"systemTool": {"name": tool.builtin.type}}
    spec: Body = {"name": tool.name}
    if tool.description:
        spec["description"] = tool.description
    if tool.parameters_json:
        where = f"tools[{index}].parameters_json"
        spec["inputSchema"] = {"json": json_object(tool.parameters_json, where)}
    else:
        spec["inputSchema"] = {"json": {"type": "object", "properties": {}}}
    if tool.strict:
        spec["strict"] = True
    return {"toolSpec": spec}


def _put_format(body: Body, response_format: v1.ResponseFormat) -> None:
    kind = response_format.WhichOneof("kind")
    if kind is None:
        return
    if kind == "json_object":
        raise invalid(
            "response_format.json_object", "this provider needs a schema: use json_schema"
        )
    wanted = response_format.json_schema
    where = "response_format.json_schema.schema_json"
    if not wanted.schema_json:
        raise invalid(where, "must not be empty")
    json_object(wanted.schema_json, where)
    schema = {"schema": wanted.schema_json, "name": wanted.name or "response"}
    if wanted.description:
        schema["description"] = wanted.description
    text_format = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    body.setdefault("outputConfig", {})["textFormat"] = text_format


def _put_guardrail(body: Body, target: CodecTarget, *, stream: bool) -> None:
    """The operator's own guardrail, which callers may not replace."""
    flags = target.flags
    if "guardrail_id" not in flags:
        return
    guardrail = {
        "guardrailIdentifier": str(flags["guardrail_id"]),
        "guardrailVersion": str(flags.get("guardrail_version", "DRAFT")),
        "trace": str(flags.get("guardrail_trace", "enabled")),
    }
    if stream and "guardrail_stream_mode" in flags:
        guardrail["streamProcessingMode"] = str(flags["guardrail_stream_mode"])
    body["guardrailConfig"] = guardrail


def _merge_options(body: Body, options: struct_pb2.Struct, target: CodecTarget) -> None:
    """Merges objects field by field, appends tools to the request's, replaces all else."""
    for name in sorted(options.fields):
        where = f"provider_options.{name}"
        if name in _RESERVED:
            raise invalid(where, "may not be replaced")
        if name not in _OPTIONS:
            raise invalid(
                where,
                "is no field of Converse; a model's own fields belong into "
                "additionalModelRequestFields",
            )
        if name == "guardrailConfig" and "guardrail_id" in target.flags:
            raise invalid(where, "the provider's configuration sets the guardrail")
        value = plain(options.fields[name], where)
        body[name] = _merged(body.get(name), value)


def _merged(present: Any, value: Any) -> Any:
    if isinstance(present, dict) and isinstance(value, dict):
        return {**present, **{key: _merged(present.get(key), value[key]) for key in value}}
    if isinstance(present, list) and isinstance(value, list):
        return present + value
    return value


def plain(value: struct_pb2.Value, where: str) -> Any:
    """A Struct's value as JSON; whole numbers are written as integers, as vendors expect."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        fields = value.struct_value.fields
        return {name: plain(fields[name], f"{where}.{name}") for name in sorted(fields)}
    if kind == "list_value":
        return [
            plain(item, f"{where}[{index}]") for index, item in enumerate(value.list_value.values)
        ]
    if kind == "number_value":
        number = value.number_value
        if not math.isfinite(number):
            raise invalid(where, "must be a finite number")
        return int(number) if number.is_integer() and abs(number) <= 2**53 else number
    if kind == "string_value":
        return value.string_value
    return value.bool_value if kind == "bool_value" else None
