"""The bounds that the contract's comments state, checked by hand.

What only a dialect, the routing table or a policy can judge is judged there. The common
request, a few text messages, costs a few microseconds: absent fields are passed over by
presence, text parts by their kind, and paths are spelled out only for what is wrong.

Descriptions never quote the request; paths hold its indices but none of its texts.
"""

import math
import re
from collections.abc import Sequence

import orjson
from google.protobuf.duration_pb2 import Duration

from trunkline import v1
from trunkline_server.errors import Violation, invalid, invalid_fields

_MAX_VIOLATIONS = 20
_MAX_BATCH = 10_000
_MAX_MODEL = 256
_MAX_REQUEST_ID = 128
_MAX_TOOLS = 256
_MAX_STOP = 16
_MAX_IMAGE_BYTES = 20 * 1024 * 1024
_MAX_INPUTS = 2048
_MAX_LABELS = 32
_MAX_LABEL_KEY = 64
_MAX_LABEL_VALUE = 256
_NANOS = 1_000_000_000

_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
_PRINTABLE_ASCII = re.compile(r"[ -~]*").fullmatch
_IMAGE_URI = re.compile(r"(?:https|gs|data):", re.IGNORECASE).match

_ROLES = frozenset(v1.Role.values()) - {v1.ROLE_UNSPECIFIED}
_EFFORTS = frozenset(v1.ReasoningEffort.values())
_TOOL_CHOICE_MODES = frozenset(v1.ToolChoiceMode.values())
_IMAGE_DETAILS = frozenset(v1.ImageDetail.values())
_STRATEGIES = frozenset(v1.Strategy.values())
_CACHE_MODES = frozenset(v1.CacheMode.values())
_EMBED_TASKS = frozenset(v1.EmbedTask.values())

# Which role alone may hold a kind of part.
_ROLE_OF_KIND = {
    "tool_call": (v1.ROLE_ASSISTANT, "a tool call stands only in assistant messages"),
    "tool_result": (v1.ROLE_TOOL, "a tool result stands only in tool messages"),
    "reasoning": (v1.ROLE_ASSISTANT, "reasoning stands only in assistant messages"),
    "vendor_item": (v1.ROLE_ASSISTANT, "a vendor's item stands only in assistant messages"),
}
_RESULT_KINDS = frozenset({"text", "image", "file"})


_Found = list[Violation]


def _add(found: _Found, field: str, description: str) -> None:
    """Notes a violation; the one that fills the list ends the search."""
    found.append(Violation(field, description))
    if len(found) == _MAX_VIOLATIONS:
        raise invalid_fields(found)


def validate_generate(request: v1.GenerateRequest) -> None:
    """Raises TrunklineError(INVALID_REQUEST) with the violations, at most 20 of them."""
    found: _Found = []
    has = request.HasField
    _check_messages(found, request.messages)
    if has("config"):
        _check_sampling(found, request.config)
        _check_config(found, request.config)
    if request.tools:
        _check_tools(found, request.tools)
    if has("tool_choice"):
        _check_tool_choice(found, request)
    if has("response_format"):
        _check_response_format(found, request.response_format)
    if has("cache"):
        _check_cache(found, request.cache)
    _check_request_id(found, request.request_id)
    _check_routing_fields(found, request)
    if found:
        raise invalid_fields(found)


def validate_embed(request: v1.EmbedRequest) -> None:
    """Raises as validate_generate does."""
    found: _Found = []
    inputs = request.inputs
    if not 1 <= len(inputs) <= _MAX_INPUTS:
        _add(found, "inputs", f"must hold 1 to {_MAX_INPUTS} texts, not {len(inputs)}")
    for i, text in enumerate(inputs):
        if not text:
            _add(found, f"inputs[{i}]", "must not be empty")
    if request.HasField("dimensions") and request.dimensions < 1:
        _add(found, "dimensions", "must be at least 1")
    if request.task not in _EMBED_TASKS:
        _add(found, "task", "is not a known task")
    if request.HasField("cache"):
        _check_cache(found, request.cache)
    _check_request_id(found, request.request_id)
    _check_routing_fields(found, request)
    if found:
        raise invalid_fields(found)


def validate_route(request: v1.RouteRequest) -> None:
    """Raises as validate_generate does."""
    found: _Found = []
    if request.input_tokens < 0:
        _add(found, "input_tokens", "must not be negative")
    if request.max_output_tokens < 0:
        _add(found, "max_output_tokens", "must not be negative")
    _check_routing_fields(found, request)
    if found:
        raise invalid_fields(found)


def validate_batch_route(request: v1.BatchRouteRequest) -> None:
    """Raises unless the batch has an allowed size; its requests are checked one by one."""
    count = len(request.requests)
    if not 1 <= count <= _MAX_BATCH:
        raise invalid("requests", f"must hold 1 to {_MAX_BATCH} requests, not {count}")


def _check_messages(found: _Found, messages: Sequence[v1.Message]) -> None:
    if not messages:
        _add(found, "messages", "must hold at least one message")
        return
    role_system, role_tool = v1.ROLE_SYSTEM, v1.ROLE_TOOL
    only_system = True
    # The tool calls made so far, and those of them that no result has answered.
    known: set[str] = set()
    pending: set[str] = set()
    for i, message in enumerate(messages):
        role = message.role
        if role != role_system:
            only_system = False
        if role not in _ROLES:
            _add(found, f"messages[{i}].role", "must be system, user, assistant or tool")
        empty = True
        for j, part in enumerate(message.parts):
            empty = False
            kind = part.WhichOneof("kind")
            if kind == "text" and role != role_tool:
                continue
            path = f"messages[{i}].parts[{j}]"
            if kind is None:
                _add(found, path, "must hold one kind of content")
                continue
            _check_place(found, path, kind, role)
            if kind == "tool_call":
                _check_tool_call(found, path, part.tool_call, known, pending)
            elif kind == "tool_result":
                _check_tool_result(found, path, part.tool_result, known, pending)
            else:
                _check_media(found, path, kind, part)
        if empty and role != v1.ROLE_ASSISTANT:
            _add(found, f"messages[{i}].parts", "must hold at least one part")
    if only_system:
        _add(found, "messages", "must hold a message that is not a system message")


def _check_place(found: _Found, path: str, kind: str, role: int) -> None:
    """Whether a message of this role may hold this kind of part."""
    if role not in _ROLES:
        return  # Said of the message already.
    if kind in _ROLE_OF_KIND:
        only, description = _ROLE_OF_KIND[kind]
        if role != only:
            _add(found, f"{path}.{kind}", description)
    elif role == v1.ROLE_TOOL:
        _add(found, f"{path}.{kind}", "a tool message holds only tool results")


def _check_tool_call(
    found: _Found, path: str, call: v1.ToolCall, known: set[str], pending: set[str]
) -> None:
    """An id may come again once its call was answered: some models count anew each turn."""
    if not call.id:
        _add(found, f"{path}.tool_call.id", "must not be empty")
    elif call.id in pending:
        _add(found, f"{path}.tool_call.id", "is the id of another call that was not yet answered")
    known.add(call.id)
    pending.add(call.id)
    if not call.name:
        _add(found, f"{path}.tool_call.name", "must not be empty")


def _check_tool_result(
    found: _Found, path: str, result: v1.ToolResult, known: set[str], pending: set[str]
) -> None:
    path = f"{path}.tool_result"
    call_id = result.tool_call_id
    if not call_id:
        _add(found, f"{path}.tool_call_id", "must not be empty")
    elif call_id not in known:
        _add(found, f"{path}.tool_call_id", "answers no tool call of an earlier message")
    pending.discard(call_id)
    for k, part in enumerate(result.parts):
        kind = part.WhichOneof("kind")
        if kind == "text":
            continue
        inner = f"{path}.parts[{k}]"
        if kind is None:
            _add(found, inner, "must hold one kind of content")
        elif kind not in _RESULT_KINDS:
            _add(found, f"{inner}.{kind}", "a tool result holds only text, image and file parts")
        else:
            _check_media(found, inner, kind, part)


def _check_media(found: _Found, path: str, kind: str, part: v1.Part) -> None:
    """An image, audio or file part, or a vendor's; other kinds have nothing more to check."""
    if kind == "image":
        _check_image(found, f"{path}.image", part.image)
    elif kind == "audio":
        _check_source(found, f"{path}.audio", part.audio)
    elif kind == "file":
        _check_source(found, f"{path}.file", part.file)
    elif kind == "vendor_item":
        _check_vendor_item(found, f"{path}.vendor_item", part.vendor_item)


def _check_vendor_item(found: _Found, path: str, item: v1.VendorItem) -> None:
    if not item.dialect:
        _add(found, f"{path}.dialect", "must not be empty")
    if not item.type:
        _add(found, f"{path}.type", "must not be empty")
    if not _is_json_object(item.json):
        _add(found, f"{path}.json", "must be the JSON text of an object")


def _check_image(found: _Found, path: str, image: v1.Image) -> None:
    _check_source(found, path, image)
    # The whole message is measured first: reading `data` copies it.
    if image.ByteSize() > _MAX_IMAGE_BYTES and len(image.data) > _MAX_IMAGE_BYTES:
        _add(found, f"{path}.data", f"must not exceed {_MAX_IMAGE_BYTES} bytes")
    if image.uri and not _IMAGE_URI(image.uri):
        _add(found, f"{path}.uri", "must be an https, gs or data URI")
    if image.detail not in _IMAGE_DETAILS:
        _add(found, f"{path}.detail", "is not a known detail")


def _check_source(found: _Found, path: str, media: v1.Image | v1.Audio | v1.File) -> None:
    source = media.WhichOneof("source")
    if source is None:
        _add(found, path, "must say where its content is")
    elif source == "data":
        if not media.media_type:
            _add(found, f"{path}.media_type", "is required with data")
    elif not getattr(media, source):
        _add(found, f"{path}.{source}", "must not be empty")


def _check_sampling(found: _Found, config: v1.GenerationConfig) -> None:
    """The optional numbers; every comparison is false for NaN."""
    has = config.HasField
    if has("max_output_tokens") and config.max_output_tokens < 1:
        _add(found, "config.max_output_tokens", "must be at least 1")
    if has("temperature") and not 0 <= config.temperature <= 2:
        _add(found, "config.temperature", "must be from 0 to 2")
    if has("top_p") and not 0 < config.top_p <= 1:
        _add(found, "config.top_p", "must be above 0 and at most 1")
    if has("top_k") and config.top_k < 1:
        _add(found, "config.top_k", "must be at least 1")
    if has("presence_penalty") and not -2 <= config.presence_penalty <= 2:
        _add(found, "config.presence_penalty", "must be from -2 to 2")
    if has("frequency_penalty") and not -2 <= config.frequency_penalty <= 2:
        _add(found, "config.frequency_penalty", "must be from -2 to 2")


def _check_config(found: _Found, config: v1.GenerationConfig) -> None:
    stop = config.stop
    if len(stop) > _MAX_STOP:
        _add(found, "config.stop", f"must hold at most {_MAX_STOP} texts, not {len(stop)}")
    for i, text in enumerate(stop):
        if not text:
            _add(found, f"config.stop[{i}]", "must not be empty")
    if config.HasField("reasoning"):
        reasoning = config.reasoning
        if reasoning.effort not in _EFFORTS:
            _add(found, "config.reasoning.effort", "is not a known effort")
        if reasoning.HasField("budget_tokens") and reasoning.budget_tokens < 0:
            _add(found, "config.reasoning.budget_tokens", "must not be negative")


def _check_tools(found: _Found, tools: Sequence[v1.Tool]) -> None:
    if len(tools) > _MAX_TOOLS:
        _add(found, "tools", f"must hold at most {_MAX_TOOLS} tools, not {len(tools)}")
    names: set[str] = set()
    for i, tool in enumerate(tools):
        if tool.HasField("builtin"):
            _check_builtin(found, f"tools[{i}]", tool)
            continue
        name = tool.name
        if not _TOOL_NAME(name):
            _add(
                found,
                f"tools[{i}].name",
                "must be 1 to 64 letters, digits, underscores and hyphens",
            )
        elif name in names:
            _add(found, f"tools[{i}].name", "is the name of an earlier tool")
        names.add(name)
        schema = tool.parameters_json
        if schema and not _is_json_object(schema):
            _add(found, f"tools[{i}].parameters_json", "must be the JSON text of an object")


def _check_builtin(found: _Found, path: str, tool: v1.Tool) -> None:
    for field, _ in tool.ListFields():
        if field.name != "builtin":
            _add(found, f"{path}.{field.name}", "must not be set beside a tool of the vendor's")
    if not tool.builtin.type:
        _add(found, f"{path}.builtin.type", "must not be empty")
    options = tool.builtin.options_json
    if options and not _is_json_object(options):
        _add(found, f"{path}.builtin.options_json", "must be the JSON text of an object")


def _check_tool_choice(found: _Found, request: v1.GenerateRequest) -> None:
    choice = request.tool_choice
    mode = choice.mode
    if mode not in _TOOL_CHOICE_MODES:
        _add(found, "tool_choice.mode", "is not a known mode")
    if mode in {v1.TOOL_CHOICE_MODE_REQUIRED, v1.TOOL_CHOICE_MODE_NONE} and not request.tools:
        _add(found, "tool_choice.mode", "this mode needs tools to choose from")
    if choice.name:
        if mode != v1.TOOL_CHOICE_MODE_REQUIRED:
            _add(found, "tool_choice.name", "may be set only with the mode that requires a call")
        if all(tool.name != choice.name for tool in request.tools):
            _add(found, "tool_choice.name", "is not the name of one of the tools")


def _check_response_format(found: _Found, response_format: v1.ResponseFormat) -> None:
    if response_format.WhichOneof("kind") != "json_schema":
        return
    schema = response_format.json_schema
    if schema.name and not _TOOL_NAME(schema.name):
        _add(
            found,
            "response_format.json_schema.name",
            "must be at most 64 letters, digits, underscores and hyphens",
        )
    if not _is_json_object(schema.schema_json):
        _add(found, "response_format.json_schema.schema_json", "must be the JSON text of an object")


def _check_cache(found: _Found, cache: v1.CachePolicy) -> None:
    if cache.mode not in _CACHE_MODES:
        _add(found, "cache.mode", "is not a known mode")
    if cache.HasField("ttl") and not _is_duration(cache.ttl):
        _add(found, "cache.ttl", "must be a duration that is not negative")


def _check_request_id(found: _Found, request_id: str) -> None:
    if request_id and (len(request_id) > _MAX_REQUEST_ID or not _PRINTABLE_ASCII(request_id)):
        _add(
            found, "request_id", f"must be printable ASCII of at most {_MAX_REQUEST_ID} characters"
        )


def _check_routing_fields(
    found: _Found, request: v1.GenerateRequest | v1.EmbedRequest | v1.RouteRequest
) -> None:
    """The fields that every request has."""
    if len(request.model) > _MAX_MODEL:
        _add(found, "model", f"must have at most {_MAX_MODEL} characters")
    has = request.HasField
    if has("requirements"):
        _check_requirements(found, request.requirements)
    if has("routing"):
        _check_routing(found, request.routing)
    if has("context"):
        _check_labels(found, request.context)


def _check_requirements(found: _Found, requirements: v1.Requirements) -> None:
    ceiling = requirements.max_cost_per_token
    if not 0 <= ceiling < math.inf:
        _add(found, "requirements.max_cost_per_token", "must be a number that is not negative")
    if requirements.max_latency_ms < 0:
        _add(found, "requirements.max_latency_ms", "must not be negative")
    if not 0 <= requirements.min_quality <= 1:
        _add(found, "requirements.min_quality", "must be from 0 to 1")


def _check_routing(found: _Found, routing: v1.RoutingOptions) -> None:
    if routing.strategy not in _STRATEGIES:
        _add(found, "routing.strategy", "is not a known strategy")
    allowed = set(routing.allowed_providers)
    for i, provider in enumerate(routing.denied_providers):
        if provider in allowed:
            _add(found, f"routing.denied_providers[{i}]", "is among the allowed providers too")


def _check_labels(found: _Found, context: v1.CallContext) -> None:
    labels = context.labels
    if len(labels) > _MAX_LABELS:
        _add(found, "context.labels", f"must hold at most {_MAX_LABELS} labels, not {len(labels)}")
    if any(len(key) > _MAX_LABEL_KEY for key in labels):
        _add(found, "context.labels", f"keys must have at most {_MAX_LABEL_KEY} characters")
    if any(len(value) > _MAX_LABEL_VALUE for value in labels.values()):
        _add(found, "context.labels", f"values must have at most {_MAX_LABEL_VALUE} characters")


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _is_duration(duration: Duration) -> bool:
    """Not negative, and well-formed as google.protobuf.Duration says."""
    return duration.seconds >= 0 and 0 <= duration.nanos < _NANOS
