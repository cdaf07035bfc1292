"""Gemini requests: the contract's conversation, tools and knobs in the vendor's JSON.

Field names follow the `GenerateContentRequest` of the Gemini API's v1beta and of Vertex AI's
discovery document, which agree on everything written here.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from google.protobuf import struct_pb2

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.gemini_contents import conversation, json_object

_MAX_STOPS = 5
_INT32 = range(-(2**31), 2**31)

_KNOBS: Mapping[str, str] = {
    "max_output_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_LEVELS: Mapping[v1.ReasoningEffort.ValueType, str] = {
    v1.REASONING_EFFORT_MINIMAL: "MINIMAL",
    v1.REASONING_EFFORT_LOW: "LOW",
    v1.REASONING_EFFORT_MEDIUM: "MEDIUM",
    v1.REASONING_EFFORT_HIGH: "HIGH",
}
# The vendor's own table for `reasoning_effort` on models that know only budgets:
# https://ai.google.dev/gemini-api/docs/openai
_BUDGETS: Mapping[v1.ReasoningEffort.ValueType, int] = {
    v1.REASONING_EFFORT_MINIMAL: 1024,
    v1.REASONING_EFFORT_LOW: 1024,
    v1.REASONING_EFFORT_MEDIUM: 8192,
    v1.REASONING_EFFORT_HIGH: 24576,
}
_MODES: Mapping[v1.ToolChoiceMode.ValueType, str] = {
    v1.TOOL_CHOICE_MODE_AUTO: "AUTO",
    v1.TOOL_CHOICE_MODE_NONE: "NONE",
    v1.TOOL_CHOICE_MODE_REQUIRED: "ANY",
}
_TASKS: Mapping[v1.EmbedTask.ValueType, str] = {
    v1.EMBED_TASK_QUERY: "RETRIEVAL_QUERY",
    v1.EMBED_TASK_DOCUMENT: "RETRIEVAL_DOCUMENT",
    v1.EMBED_TASK_SIMILARITY: "SEMANTIC_SIMILARITY",
    v1.EMBED_TASK_CLASSIFICATION: "CLASSIFICATION",
    v1.EMBED_TASK_CLUSTERING: "CLUSTERING",
}
# The vendor's own tools, by Tool of its v1beta; callers may write them in snake case.
_BUILTIN: Mapping[str, str] = {
    name.lower(): name
    for name in (
        "codeExecution",
        "computerUse",
        "enterpriseWebSearch",
        "fileSearch",
        "googleMaps",
        "googleSearch",
        "googleSearchRetrieval",
        "retrieval",
        "urlContext",
    )
}
# Compared without underscores and case, for the vendor also takes names in snake case.
_PROTECTED_GENERATE = frozenset(("contents", "model", "systeminstruction"))
_PROTECTED_EMBED = frozenset(("content", "model", "requests"))


def generate_body(request: v1.GenerateRequest, target: CodecTarget) -> bytes:
    """The body of generateContent and streamGenerateContent alike.

    Raises TrunklineError with INVALID_REQUEST for what the dialect cannot carry.
    """
    system, contents = conversation(request, target.flags)
    body: dict[str, Any] = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    if request.tools:
        body["tools"] = _tools(request)
    calling = _function_calling(request)
    if calling:
        body["toolConfig"] = {"functionCallingConfig": calling}
    config = _generation_config(request, target.flags)
    if config:
        body["generationConfig"] = config
    if request.HasField("provider_options"):
        _merge_generate_options(body, request.provider_options)
    return orjson.dumps(body)


def count_body(request: v1.CountTokensRequest, target: CodecTarget, resource: str) -> bytes:
    """The body of countTokens; `resource` is the model's name with its collection."""
    asked = v1.GenerateRequest(messages=request.messages, tools=request.tools)
    body = orjson.loads(generate_body(asked, target))
    if not target.flags.get("vertex"):
        body = {"generateContentRequest": {"model": resource, **body}}
    return orjson.dumps(body)


def embed_body(request: v1.EmbedRequest, resource: str) -> bytes:
    """The body of batchEmbedContents; `resource` is the model's name with its collection.

    The vendor's options belong to each input, so provider_options are merged into each.
    """
    shared: dict[str, Any] = {"model": resource}
    task = embed_task(request)
    if task:
        shared["taskType"] = task
    if request.HasField("dimensions"):
        shared["outputDimensionality"] = request.dimensions
    merge(shared, embed_options(request))
    return orjson.dumps(
        {"requests": [{**shared, "content": {"parts": [{"text": t}]}} for t in request.inputs]}
    )


def embed_task(request: v1.EmbedRequest) -> str:
    """The vendor's word for what the vectors are for; empty where nothing is said."""
    if not request.task:
        return ""
    task = _TASKS.get(request.task)
    if task is None:
        raise invalid("task", "is not known here")
    return task


def embed_options(request: v1.EmbedRequest) -> dict[str, Any]:
    """The vendor's options for each input."""
    if not request.HasField("provider_options"):
        return {}
    return options_of(request.provider_options, _PROTECTED_EMBED)


def _tools(request: v1.GenerateRequest) -> list[dict[str, Any]]:
    """The caller's functions in one entry, and each of the vendor's own tools in another."""
    declarations = _declarations(request)
    entries: list[dict[str, Any]] = []
    if declarations:
        entries.append({"functionDeclarations": declarations})
    for i, tool in enumerate(request.tools):
        if tool.HasField("builtin"):
            path = f"tools[{i}].builtin"
            name = _BUILTIN.get(tool.builtin.type.replace("_", "").lower())
            if name is None:
                raise invalid(path, "this provider has no such tool")
            options = tool.builtin.options_json or "{}"
            entries.append({name: json_object(options, f"{path}.options_json")[1]})
    return entries


def _declarations(request: v1.GenerateRequest) -> list[dict[str, Any]]:
    declarations = []
    for i, tool in enumerate(request.tools):
        if tool.HasField("builtin"):
            continue
        declaration: dict[str, Any] = {"name": tool.name}
        if tool.description:
            declaration["description"] = tool.description
        if tool.parameters_json:
            path = f"tools[{i}].parameters_json"
            declaration["parametersJsonSchema"] = json_object(tool.parameters_json, path)[1]
        declarations.append(declaration)
    return declarations


def _function_calling(request: v1.GenerateRequest) -> dict[str, Any]:
    choice = request.tool_choice
    if choice.disable_parallel:
        raise invalid("tool_choice.disable_parallel", "this provider cannot forbid parallel calls")
    mode = _MODES.get(choice.mode, "")
    if choice.name and mode != "ANY":
        raise invalid("tool_choice.name", "needs mode TOOL_CHOICE_MODE_REQUIRED")
    if mode in {"", "AUTO"} and any(tool.strict for tool in request.tools):
        # ANY holds the model to the schemas by itself; this is AUTO that does so too.
        mode = "VALIDATED"
    if not mode or (mode != "ANY" and all(tool.HasField("builtin") for tool in request.tools)):
        return {}  # The vendor refuses a rule for tools that are not there.
    if choice.name:
        return {"mode": mode, "allowedFunctionNames": [choice.name]}
    return {"mode": mode}


def _generation_config(
    request: v1.GenerateRequest, flags: Mapping[str, str | int | bool]
) -> dict[str, Any]:
    config = request.config
    # ListFields lists what is set, a zero that was set included.
    encoded: dict[str, Any] = {
        _KNOBS[field.name]: value for field, value in config.ListFields() if field.name in _KNOBS
    }
    if config.HasField("seed") and config.seed not in _INT32:
        raise invalid("config.seed", "this provider takes seeds of 32 bits")
    if config.stop:
        if len(config.stop) > _MAX_STOPS:
            raise invalid("config.stop", f"this provider takes at most {_MAX_STOPS} stop texts")
        encoded["stopSequences"] = list(config.stop)
    if config.HasField("reasoning"):
        thinking = _thinking(config.reasoning, flags)
        if thinking:
            encoded["thinkingConfig"] = thinking
    shape = request.response_format.WhichOneof("kind")
    if shape is not None:
        encoded["responseMimeType"] = "application/json"
    if shape == "json_schema":
        encoded["responseJsonSchema"] = _response_schema(request.response_format.json_schema)
    return encoded


def _thinking(
    reasoning: v1.ReasoningConfig, flags: Mapping[str, str | int | bool]
) -> dict[str, Any]:
    """Budget or level, never both, for the vendor refuses the pair: a budget in tokens, being
    exact, stands before the effort; no effort at all is a budget of zero."""
    encoded: dict[str, Any] = {}
    if reasoning.HasField("budget_tokens"):
        encoded["thinkingBudget"] = reasoning.budget_tokens
    elif reasoning.effort == v1.REASONING_EFFORT_NONE:
        encoded["thinkingBudget"] = 0
    elif reasoning.effort:
        if reasoning.effort not in _LEVELS:
            raise invalid("config.reasoning.effort", "is not known here")
        if flags.get("effort_as") == "budget":
            encoded["thinkingBudget"] = _BUDGETS[reasoning.effort]
        else:
            encoded["thinkingLevel"] = _LEVELS[reasoning.effort]
    if reasoning.include_reasoning:
        encoded["includeThoughts"] = True
    return encoded


def _response_schema(shape: v1.JsonSchema) -> Any:
    """The schema as written. A description, for which the vendor has no place of its own, goes
    into the schema unless it has one already."""
    path = "response_format.json_schema.schema_json"
    schema, verbatim = json_object(shape.schema_json, path)
    if shape.description and "description" not in schema:
        return {"description": shape.description, **schema}
    return verbatim


def _merge_generate_options(body: dict[str, Any], struct: struct_pb2.Struct) -> None:
    options = options_of(struct, _PROTECTED_GENERATE)
    config = options.get("generationConfig")
    if isinstance(config, dict) and config.get("candidateCount", 1) != 1:
        raise invalid(
            "provider_options.generationConfig.candidateCount", "one answer has one candidate"
        )
    tools = options.get("tools")
    if isinstance(tools, list):
        options["tools"] = body.get("tools", []) + tools
    merge(body, options)


def options_of(struct: struct_pb2.Struct, protected: frozenset[str]) -> dict[str, Any]:
    """The caller's own fields; raises INVALID_REQUEST for one that is protected."""
    options = {key: _plain(value) for key, value in struct.fields.items()}
    for key in options:
        if key.replace("_", "").lower() in protected:
            raise invalid(f"provider_options.{key}", "cannot be replaced")
    return options


def merge(into: dict[str, Any], extra: dict[str, Any]) -> None:
    """Puts fields in over those that are there, objects into objects."""
    for key, value in extra.items():
        present = into.get(key)
        if isinstance(present, dict) and isinstance(value, dict):
            merge(present, value)
        else:
            into[key] = value


def _plain(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return {key: _plain(inner) for key, inner in value.struct_value.fields.items()}
        case "list_value":
            return [_plain(inner) for inner in value.list_value.values]
        case "number_value":
            # A Struct knows only doubles; the vendor wants its counts as whole numbers.
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None
