"""From a chat completion request to the contract's GenerateRequest.

What OpenAI has and the contract does not is handed to the vendor as it is where it only steers
the vendor, and refused by its name where the answer would lack it. Nothing is dropped silently.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.openai_face.extension import COMMON_FIELDS, read_extension
from trunkline_server.openai_face.messages import read_messages
from trunkline_server.openai_face.reading import INT64, Fields, json_text, unsupported

_EFFORTS: Mapping[str, v1.ReasoningEffort.ValueType] = {
    "none": v1.REASONING_EFFORT_NONE,
    "minimal": v1.REASONING_EFFORT_MINIMAL,
    "low": v1.REASONING_EFFORT_LOW,
    "medium": v1.REASONING_EFFORT_MEDIUM,
    "high": v1.REASONING_EFFORT_HIGH,
}
_CHOICES: Mapping[str, v1.ToolChoiceMode.ValueType] = {
    "auto": v1.TOOL_CHOICE_MODE_AUTO,
    "none": v1.TOOL_CHOICE_MODE_NONE,
    "required": v1.TOOL_CHOICE_MODE_REQUIRED,
}
_KNOBS: tuple[Literal["temperature", "top_p", "presence_penalty", "frequency_penalty"], ...] = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
)
# What is translated, here or by the reader of messages.
_TRANSLATED = frozenset(
    {
        "model",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "seed",
        "reasoning_effort",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "stream",
        "stream_options",
        "user",
        "metadata",
        "trunkline",
        "n",
        "logprobs",
        "modalities",
        *_KNOBS,
    }
)
# What steers the vendor and shows nowhere in the answer's shape.
_HANDED_ON = frozenset(
    {
        "logit_bias",
        "moderation",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "verbosity",
        "web_search_options",
    }
)
_INSTEAD = {
    "functions": "use tools",
    "function_call": "use tool_choice",
    "top_logprobs": "answers carry no log probabilities",
    "audio": "answers are text",
}
# The fields of the contract that the extension `trunkline` may set.
_EXTENSION = (*COMMON_FIELDS, "config")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What was asked for, and how the answer is to be written."""

    generate: v1.GenerateRequest
    stream: bool
    include_usage: bool


def read_chat(body: Fields) -> ChatRequest:
    """The request. Raises INVALID_REQUEST, naming OpenAI's field."""
    _refuse_unknown(body)
    request = v1.GenerateRequest()
    read_extension(body, request, _EXTENSION)
    body.required("model")
    request.model = body.text("model")
    read_messages(body, request)
    _config(body, request)
    _tools(body, request)
    _response_format(body, request)
    if user := body.text("user"):
        request.context.user_id = user
    if (labels := body.object("metadata")) is not None:
        for name in labels.names():
            request.context.labels[name] = labels.text(name)
    handed_on = {name: body.raw(name) for name in body.names() if name in _HANDED_ON}
    if handed_on:
        request.provider_options.update(handed_on)
    stream = bool(body.flag("stream"))
    options = body.object("stream_options")
    if options is not None and not stream:
        raise invalid("stream_options", "is allowed only where stream is true")
    # What obfuscates lengths of chunks is the vendor's own, and the router writes its own.
    include_usage = options is not None and bool(options.flag("include_usage"))
    return ChatRequest(request, stream, include_usage)


def _refuse_unknown(body: Fields) -> None:
    for name in body.names():
        if name in _INSTEAD:
            raise unsupported(name, _INSTEAD[name])
        if name not in _TRANSLATED and name not in _HANDED_ON:
            raise invalid(
                name, "is not known; what only a vendor knows goes into trunkline.provider_options"
            )
    if body.integer("n") not in {None, 1}:
        raise unsupported("n", "there is one answer to a request")
    if body.flag("logprobs"):
        raise unsupported("logprobs", "answers carry no log probabilities")
    if any(kind != "text" for kind in body.list("modalities")):
        raise unsupported("modalities", "answers are text")


def _config(body: Fields, request: v1.GenerateRequest) -> None:
    config = v1.GenerationConfig()
    for name in _KNOBS:
        value = body.number(name)
        if value is not None:
            setattr(config, name, value)
    most = body.integer("max_completion_tokens")
    if most is None:
        most = body.integer("max_tokens")
    if most is not None:
        config.max_output_tokens = most
    stop = body.raw("stop")
    if isinstance(stop, str):
        config.stop.append(stop)
    else:
        for i, text in enumerate(body.list("stop")):
            if not isinstance(text, str):
                raise invalid(f"stop[{i}]", "must be a string")
            config.stop.append(text)
    seed = body.integer("seed", INT64)
    if seed is not None:
        config.seed = seed
    effort = body.word("reasoning_effort", _EFFORTS)
    if effort is not None:
        config.reasoning.effort = effort
    # An empty config would be a config.
    if config.ListFields():
        request.config.MergeFrom(config)


def _tools(body: Fields, request: v1.GenerateRequest) -> None:
    for fields in body.objects("tools"):
        if fields.required("type") != "function":
            raise unsupported(fields.at("type"), "tools are functions")
        function = Fields(fields.required("function"), fields.at("function"))
        function.only("name", "description", "parameters", "strict")
        parameters = function.object("parameters")
        request.tools.add(
            name=function.text("name"),
            description=function.text("description"),
            parameters_json="" if parameters is None else json_text(function.raw("parameters")),
            strict=bool(function.flag("strict")),
        )
    choice = body.raw("tool_choice")
    if isinstance(choice, str):
        request.tool_choice.mode = body.word("tool_choice", _CHOICES)
    elif choice is not None:
        fields = Fields(choice, "tool_choice")
        if fields.required("type") != "function":
            raise unsupported("tool_choice.type", "name one function, or auto, none, required")
        function = Fields(fields.required("function"), "tool_choice.function")
        function.required("name")
        request.tool_choice.mode = v1.TOOL_CHOICE_MODE_REQUIRED
        request.tool_choice.name = function.text("name")
    if body.flag("parallel_tool_calls") is False and request.tools:
        request.tool_choice.disable_parallel = True


def _response_format(body: Fields, request: v1.GenerateRequest) -> None:
    fields = body.object("response_format")
    if fields is None:
        return
    match fields.required("type"):
        case "text":
            pass
        case "json_object":
            request.response_format.json_object.SetInParent()
        case "json_schema":
            wanted = Fields(fields.required("json_schema"), fields.at("json_schema"))
            wanted.only("name", "description", "schema", "strict")
            Fields(wanted.required("schema"), wanted.at("schema"))
            schema = request.response_format.json_schema
            schema.name = wanted.text("name")
            schema.description = wanted.text("description")
            schema.schema_json = json_text(wanted.raw("schema"))
            schema.strict = bool(wanted.flag("strict"))
        case _:
            raise invalid(fields.at("type"), "must be one of text, json_object, json_schema")
