"""A GenerateRequest as the body of the Messages API: everything but the messages themselves."""

import math
from collections.abc import Mapping
from typing import Any

import orjson
from google.protobuf import struct_pb2

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.anthropic_blocks import builtin_tool
from trunkline_server.providers.anthropic_content import encode_messages, json_object
from trunkline_server.providers.codec import CodecTarget

# What is asked for when neither the caller nor the deployment sets a limit: the vendor demands
# one, and every model of the family can write this much.
DEFAULT_MAX_TOKENS = 4096

# The vendor's least budget for thinking; it must also stay below max_tokens.
_MIN_BUDGET = 1024

_EFFORTS: Mapping[v1.ReasoningEffort.ValueType, str] = {
    # The vendor's scale begins at low.
    v1.REASONING_EFFORT_MINIMAL: "low",
    v1.REASONING_EFFORT_LOW: "low",
    v1.REASONING_EFFORT_MEDIUM: "medium",
    v1.REASONING_EFFORT_HIGH: "high",
}

# Thinking tokens that stand for an effort on models that know only budgets.
_BUDGETS: Mapping[v1.ReasoningEffort.ValueType, int] = {
    v1.REASONING_EFFORT_MINIMAL: 1024,
    v1.REASONING_EFFORT_LOW: 2048,
    v1.REASONING_EFFORT_MEDIUM: 8192,
    v1.REASONING_EFFORT_HIGH: 24576,
}

# What provider_options may not set: the codec's own, or the message content's.
_RESERVED = frozenset({"model", "messages", "system", "stream", "max_tokens", "anthropic_version"})


def encode_body(
    request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
) -> dict[str, Any]:
    """The request body, with `model`; hosts that carry it elsewhere take it out again.

    Raises TrunklineError(INVALID_REQUEST) naming the field for what the vendor cannot be told.
    """
    system, turns = encode_messages(request.messages)
    body: dict[str, Any] = {"model": target.provider_model, "messages": turns}
    _put_limits(body, request.config, target)
    if system:
        body["system"] = system
    if stream:
        body["stream"] = True
    if request.HasField("config"):
        _put_sampling(body, request.config)
    if request.tools:
        body["tools"] = [_tool(tool, index) for index, tool in enumerate(request.tools)]
    if request.HasField("tool_choice"):
        _put_tool_choice(body, request)
    if request.HasField("response_format"):
        _put_format(body, request.response_format)
    if request.HasField("provider_options"):
        _merge_options(body, request.provider_options)
    return body


def _put_sampling(body: dict[str, Any], config: v1.GenerationConfig) -> None:
    if config.HasField("seed"):
        raise invalid("config.seed", "this provider does not offer it")
    # A penalty of zero is no penalty, which is what the vendor always gives.
    if config.presence_penalty:
        raise invalid("config.presence_penalty", "this provider does not offer it")
    if config.frequency_penalty:
        raise invalid("config.frequency_penalty", "this provider does not offer it")
    if config.HasField("temperature"):
        if config.temperature > 1:
            raise invalid("config.temperature", "must be at most 1 for this provider")
        body["temperature"] = config.temperature
    if config.HasField("top_p"):
        body["top_p"] = config.top_p
    if config.HasField("top_k"):
        body["top_k"] = config.top_k
    if config.stop:
        body["stop_sequences"] = list(config.stop)


def _put_limits(body: dict[str, Any], config: v1.GenerationConfig, target: CodecTarget) -> None:
    """Sets max_tokens, thinking and the effort, which bound one another."""
    limit = target.max_output_tokens
    if config.HasField("max_output_tokens"):
        limit = config.max_output_tokens
    thinking, effort = None, None
    if config.HasField("reasoning"):
        thinking, effort = _reasoning(config.reasoning, target, limit)
    budget = thinking.get("budget_tokens", 0) if thinking else 0
    body["max_tokens"] = DEFAULT_MAX_TOKENS + budget if limit is None else limit
    if thinking:
        body["thinking"] = thinking
    if effort:
        body["output_config"] = {"effort": effort}


def _reasoning(
    reasoning: v1.ReasoningConfig, target: CodecTarget, limit: int | None
) -> tuple[dict[str, Any] | None, str | None]:
    """The `thinking` object and the effort, each None when it is not to be sent."""
    by_budget = target.flags.get("effort") == "budget"
    effort = None if by_budget else _EFFORTS.get(reasoning.effort)
    if reasoning.HasField("budget_tokens"):
        if reasoning.budget_tokens == 0:
            return {"type": "disabled"}, effort
        budget = _budget(reasoning, limit)
    elif reasoning.effort == v1.REASONING_EFFORT_NONE:
        return {"type": "disabled"}, None
    elif by_budget:
        budget = _budget_for_effort(reasoning.effort, limit)
        if not budget:
            return None, None
    elif effort or reasoning.include_reasoning:
        budget = 0
    else:
        return None, None
    thinking: dict[str, Any] = (
        {"type": "enabled", "budget_tokens": budget} if budget else {"type": "adaptive"}
    )
    if reasoning.include_reasoning and target.flags.get("thinking_display", True):
        thinking["display"] = "summarized"
    return thinking, effort


def _budget(reasoning: v1.ReasoningConfig, limit: int | None) -> int:
    field = "config.reasoning.budget_tokens"
    budget = reasoning.budget_tokens
    if reasoning.effort == v1.REASONING_EFFORT_NONE:
        raise invalid(field, "contradicts an effort of none")
    if budget < _MIN_BUDGET:
        raise invalid(field, f"must be 0 or at least {_MIN_BUDGET} for this provider")
    if limit is not None and budget >= limit:
        raise invalid(field, f"must be below the output limit of {limit}")
    return budget


def _budget_for_effort(effort: v1.ReasoningEffort.ValueType, limit: int | None) -> int:
    """The thinking tokens for an effort, 0 for none asked, at most three quarters of the limit."""
    budget = _BUDGETS.get(effort, 0)
    if not budget or limit is None:
        return budget
    if limit <= _MIN_BUDGET:
        raise invalid(
            "config.max_output_tokens", f"must exceed {_MIN_BUDGET} for this provider to reason"
        )
    return max(_MIN_BUDGET, min(budget, limit * 3 // 4))


def _tool(tool: v1.Tool, index: int) -> dict[str, Any]:
    if tool.HasField("builtin"):
        return builtin_tool(tool.builtin, f"tools[{index}].builtin")
    encoded: dict[str, Any] = {"name": tool.name}
    if tool.description:
        encoded["description"] = tool.description
    if tool.parameters_json:
        where = f"tools[{index}].parameters_json"
        encoded["input_schema"] = json_object(tool.parameters_json, where)
    else:
        encoded["input_schema"] = {"type": "object", "properties": {}}
    if tool.strict:
        encoded["strict"] = True
    return encoded


def _put_tool_choice(body: dict[str, Any], request: v1.GenerateRequest) -> None:
    choice = request.tool_choice
    if not request.tools and "tools" not in request.provider_options.fields:
        if choice.mode == v1.TOOL_CHOICE_MODE_REQUIRED:
            raise invalid("tool_choice", "requires a call, but there are no tools")
        # The vendor refuses a choice without tools, and no choice means the same.
        return
    encoded: dict[str, Any]
    if choice.mode == v1.TOOL_CHOICE_MODE_NONE:
        encoded = {"type": "none"}
    elif choice.mode == v1.TOOL_CHOICE_MODE_REQUIRED:
        encoded = {"type": "tool", "name": choice.name} if choice.name else {"type": "any"}
    else:
        encoded = {"type": "auto"}
    if choice.disable_parallel and encoded["type"] != "none":
        encoded["disable_parallel_tool_use"] = True
    body["tool_choice"] = encoded


def _put_format(body: dict[str, Any], response_format: v1.ResponseFormat) -> None:
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
    schema: Any = json_object(wanted.schema_json, where)
    if wanted.description:
        # The vendor has no field for it; a schema's own keyword says the same.
        schema = {"description": wanted.description, **orjson.loads(wanted.schema_json)}
    config = body.setdefault("output_config", {})
    config["format"] = {"type": "json_schema", "schema": schema}


def _merge_options(body: dict[str, Any], options: struct_pb2.Struct) -> None:
    """Merges objects key by key, appends tools to the request's, replaces all else."""
    for name in sorted(options.fields):
        where = f"provider_options.{name}"
        if name in _RESERVED:
            raise invalid(where, "may not be replaced")
        value = _plain(options.fields[name], where)
        present = body.get(name)
        if isinstance(present, dict) and isinstance(value, dict):
            body[name] = {**present, **value}
        elif name == "tools" and isinstance(present, list) and isinstance(value, list):
            body[name] = present + value
        else:
            body[name] = value


def _plain(value: struct_pb2.Value, where: str) -> Any:
    """A Struct's value as JSON; whole numbers are written as integers, as vendors expect."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        fields = value.struct_value.fields
        return {name: _plain(fields[name], f"{where}.{name}") for name in sorted(fields)}
    if kind == "list_value":
        return [
            _plain(item, f"{where}[{index}]") for index, item in enumerate(value.list_value.values)
        ]
    if kind == "number_value":
        number = value.number_value
        if not math.isfinite(number):
            raise invalid(where, "must be a finite number")
        return int(number) if number.is_integer() and abs(number) <= 2**53 else number
    if kind == "string_value":
        return value.string_value
    return value.bool_value if kind == "bool_value" else None
