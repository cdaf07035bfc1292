"""Writes requests in the Cohere dialect.

The fields are those of the vendor's own SDK, whose types judge the golden requests
(tests/golden/cohere).
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import orjson
from google.protobuf import struct_pb2

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.codec import CodecTarget, WireRequest
from trunkline_server.providers.cohere_json import Json
from trunkline_server.providers.cohere_messages import encode_messages

_MOST_STOPS = 5
_MOST_INPUTS = 96
_PENALTIES: tuple[Literal["presence_penalty", "frequency_penalty"], ...] = (
    "presence_penalty",
    "frequency_penalty",
)
# The vendor knows thinking as on or off, and by its most tokens: an effort turns it on.
_EFFORTS: Mapping[v1.ReasoningEffort.ValueType, str] = {
    v1.REASONING_EFFORT_NONE: "disabled",
    v1.REASONING_EFFORT_MINIMAL: "enabled",
    v1.REASONING_EFFORT_LOW: "enabled",
    v1.REASONING_EFFORT_MEDIUM: "enabled",
    v1.REASONING_EFFORT_HIGH: "enabled",
}
# The vendor demands a purpose. That of a document is its own example, and vectors to be compared
# are nearest to those that are to be grouped.
_PURPOSES: Mapping[v1.EmbedTask.ValueType, str] = {
    v1.EMBED_TASK_UNSPECIFIED: "search_document",
    v1.EMBED_TASK_QUERY: "search_query",
    v1.EMBED_TASK_DOCUMENT: "search_document",
    v1.EMBED_TASK_SIMILARITY: "clustering",
    v1.EMBED_TASK_CLASSIFICATION: "classification",
    v1.EMBED_TASK_CLUSTERING: "clustering",
}
_CHAT_OWN_FIELDS = frozenset({"model", "messages", "stream"})
_EMBED_OWN_FIELDS = frozenset({"model", "texts", "inputs", "images", "embedding_types"})
_ORDER_OWN_FIELDS = frozenset({"model", "query", "documents"})
_NO_ARGUMENTS = orjson.Fragment(b'{"type":"object","properties":{}}')
# Integers up to here survive their passage through a double, which is all a Struct holds.
_EXACT_INTEGERS = 2.0**53


def encode_chat(request: v1.GenerateRequest, target: CodecTarget, *, stream: bool) -> WireRequest:
    """The call of /v2/chat."""
    messages, documents = encode_messages(request.messages)
    body: Json = {"model": target.provider_model, "messages": messages, "stream": stream}
    if documents:
        body["documents"] = documents
    if request.HasField("config"):
        _config(request.config, body)
    if request.tools:
        _tools(request, body)
    if request.HasField("tool_choice"):
        _tool_choice(request.tool_choice, body)
    if request.HasField("response_format"):
        _response_format(request.response_format, body)
    if request.HasField("provider_options"):
        _merge_options(request.provider_options, _CHAT_OWN_FIELDS, body)
    return WireRequest("/v2/chat", orjson.dumps(body))


def encode_embeddings(request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
    """The call of /v2/embed."""
    if len(request.inputs) > _MOST_INPUTS:
        raise invalid("inputs", f"this provider takes at most {_MOST_INPUTS} at once")
    purpose = _PURPOSES.get(request.task)
    if purpose is None:
        raise invalid("task", "is not known here")
    body: Json = {
        "model": target.provider_model,
        "texts": list(request.inputs),
        "input_type": purpose,
        "embedding_types": ["float"],
        "truncate": "NONE",
    }
    if request.HasField("dimensions"):
        body["output_dimension"] = request.dimensions
    if request.HasField("provider_options"):
        _merge_options(request.provider_options, _EMBED_OWN_FIELDS, body)
    return WireRequest("/v2/embed", orjson.dumps(body))


def encode_order(request: v1.RerankRequest, target: CodecTarget) -> WireRequest:
    """The call of /v2/rerank."""
    body: Json = {
        "model": target.provider_model,
        "query": request.query,
        "documents": list(request.documents),
    }
    if request.HasField("top_n"):
        body["top_n"] = request.top_n
    if request.HasField("max_tokens_per_document"):
        body["max_tokens_per_doc"] = request.max_tokens_per_document
    if request.HasField("provider_options"):
        _merge_options(request.provider_options, _ORDER_OWN_FIELDS, body)
    return WireRequest("/v2/rerank", orjson.dumps(body))


def _config(config: v1.GenerationConfig, body: Json) -> None:
    if config.HasField("max_output_tokens"):
        body["max_tokens"] = config.max_output_tokens
    if config.HasField("temperature"):
        body["temperature"] = config.temperature
    if config.HasField("top_p"):
        body["p"] = config.top_p
    if config.HasField("top_k"):
        body["k"] = config.top_k
    if config.stop:
        if len(config.stop) > _MOST_STOPS:
            raise invalid("config.stop", f"this provider takes at most {_MOST_STOPS} stop texts")
        body["stop_sequences"] = list(config.stop)
    if config.HasField("seed"):
        if config.seed < 0:
            raise invalid("config.seed", "this provider takes none below zero")
        body["seed"] = config.seed
    for name in _PENALTIES:
        if config.HasField(name):
            _penalty(name, getattr(config, name), body)
    if config.HasField("reasoning"):
        _thinking(config.reasoning, body)


def _penalty(name: str, value: float, body: Json) -> None:
    if not 0 <= value <= 1:
        raise invalid(f"config.{name}", "this provider takes 0 to 1")
    body[name] = value


def _thinking(reasoning: v1.ReasoningConfig, body: Json) -> None:
    """Thinking on or off. A model that thinks shows it unasked."""
    kind = _EFFORTS.get(reasoning.effort)
    thinking: Json = {"type": kind}
    if reasoning.HasField("budget_tokens"):
        thinking = {"type": "disabled"}
        if reasoning.budget_tokens:
            if kind == "disabled":
                raise invalid("config.reasoning.budget_tokens", "contradicts an effort of none")
            thinking = {"type": "enabled", "token_budget": reasoning.budget_tokens}
    if thinking["type"]:
        body["thinking"] = thinking


def _tools(request: v1.GenerateRequest, body: Json) -> None:
    """The tools. The vendor holds the model to all schemas or to none."""
    strict = {tool.strict for tool in request.tools}
    if len(strict) > 1:
        raise invalid("tools", "this provider holds the model to all schemas or to none: strict")
    tools = []
    for index, tool in enumerate(request.tools):
        if tool.HasField("builtin"):
            raise invalid(f"tools[{index}].builtin", "this provider runs no tools itself")
        function: Json = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        function["parameters"] = (
            _schema(tool.parameters_json, f"tools[{index}].parameters_json")
            if tool.parameters_json
            else _NO_ARGUMENTS
        )
        tools.append({"type": "function", "function": function})
    body["tools"] = tools
    if strict == {True}:
        body["strict_tools"] = True


def _tool_choice(choice: v1.ToolChoice, body: Json) -> None:
    if choice.name:
        raise invalid("tool_choice.name", "this provider cannot demand one tool of several")
    if choice.disable_parallel:
        raise invalid("tool_choice.disable_parallel", "this provider does not support it")
    if choice.mode == v1.TOOL_CHOICE_MODE_REQUIRED:
        if "tools" not in body:
            raise invalid("tool_choice.mode", "requires a tool where none is given")
        body["tool_choice"] = "REQUIRED"
    elif choice.mode == v1.TOOL_CHOICE_MODE_NONE and "tools" in body:
        body["tool_choice"] = "NONE"


def _response_format(response_format: v1.ResponseFormat, body: Json) -> None:
    kind = response_format.WhichOneof("kind")
    if kind is None:
        return
    wanted: Json = {"type": "json_object"}
    if kind == "json_schema":
        # The vendor always holds the model to it; name and description have no place there.
        wanted["json_schema"] = _schema(
            response_format.json_schema.schema_json, "response_format.json_schema.schema_json"
        )
    body["response_format"] = wanted


def _schema(text: str, path: str) -> orjson.Fragment:
    """The schema's own text, so that nothing in it changes, once it is known to be JSON."""
    try:
        is_object = isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        is_object = False
    if not is_object:
        raise invalid(path, "is not the JSON text of an object")
    return orjson.Fragment(text)


def _merge_options(options: struct_pb2.Struct, own: frozenset[str], body: Json) -> None:
    """Puts the caller's own fields into the body, over what the codec has put there."""
    for name, value in options.fields.items():
        if name in own:
            raise invalid(f"provider_options.{name}", "is set by the router alone")
        body[name] = _plain(value, f"provider_options.{name}")


def _plain(value: struct_pb2.Value, path: str) -> Any:
    """A Struct's value as JSON data; whole numbers become integers, as vendors demand."""
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            if not math.isfinite(number):
                raise invalid(path, "must be a finite number")
            exact = number.is_integer() and abs(number) <= _EXACT_INTEGERS
            return int(number) if exact else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            fields = value.struct_value.fields.items()
            return {name: _plain(inner, f"{path}.{name}") for name, inner in fields}
        case "list_value":
            values = value.list_value.values
            return [_plain(inner, f"{path}[{index}]") for index, inner in enumerate(values)]
        case _:
            return None
