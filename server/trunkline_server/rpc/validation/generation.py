"""Requests to generate.

The common one, a few text messages, costs a few microseconds: absent fields are passed over by
presence, text parts by their kind, and paths are spelled out only for what is wrong.
"""

import re
from collections.abc import Sequence

import orjson

from trunkline import v1
from trunkline_server.errors import invalid_fields
from trunkline_server.rpc.validation.common import (
    Found,
    add,
    check_cache,
    check_image,
    check_request_id,
    check_routing_fields,
    check_source,
)

_MAX_TOOLS = 256
_MAX_STOP = 16

_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch

_ROLES = frozenset(v1.Role.values()) - {v1.ROLE_UNSPECIFIED}
_EFFORTS = frozenset(v1.ReasoningEffort.values())
_TOOL_CHOICE_MODES = frozenset(v1.ToolChoiceMode.values())

# Which role alone may hold a kind of part.
_ROLE_OF_KIND = {
    "tool_call": (v1.ROLE_ASSISTANT, "a tool call stands only in assistant messages"),
    "tool_result": (v1.ROLE_TOOL, "a tool result stands only in tool messages"),
    "reasoning": (v1.ROLE_ASSISTANT, "reasoning stands only in assistant messages"),
    "vendor_item": (v1.ROLE_ASSISTANT, "a vendor's item stands only in assistant messages"),
}
_RESULT_KINDS = frozenset({"text", "image", "file"})


def validate_generate(request: v1.GenerateRequest) -> None:
    """Raises TrunklineError(INVALID_REQUEST) with the violations, at most 20 of them."""
    found: Found = []
    has = request.HasField
    check_messages(found, request.messages)
    if has("config"):
        _check_sampling(found, request.config)
        _check_config(found, request.config)
    if request.tools:
        check_tools(found, request.tools)
    if has("tool_choice"):
        _check_tool_choice(found, request)
    if has("response_format"):
        _check_response_format(found, request.response_format)
    if has("cache"):
        check_cache(found, request.cache)
    check_request_id(found, request.request_id)
    check_routing_fields(found, request)
    if found:
        raise invalid_fields(found)


def validate_count_tokens(request: v1.CountTokensRequest) -> None:
    """Raises as validate_generate does."""
    found: Found = []
    if not request.model:
        add(found, "model", "must not be empty")
    check_messages(found, request.messages)
    if request.tools:
        check_tools(found, request.tools)
    check_request_id(found, request.request_id)
    check_routing_fields(found, request)
    if found:
        raise invalid_fields(found)


def check_messages(found: Found, messages: Sequence[v1.Message]) -> None:
    if not messages:
        add(found, "messages", "must hold at least one message")
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
            add(found, f"messages[{i}].role", "must be system, user, assistant or tool")
        empty = True
        for j, part in enumerate(message.parts):
            empty = False
            kind = part.WhichOneof("kind")
            if kind == "text" and role != role_tool:
                continue
            path = f"messages[{i}].parts[{j}]"
            if kind is None:
                add(found, path, "must hold one kind of content")
                continue
            _check_place(found, path, kind, role)
            if kind == "tool_call":
                _check_tool_call(found, path, part.tool_call, known, pending)
            elif kind == "tool_result":
                _check_tool_result(found, path, part.tool_result, known, pending)
            else:
                check_media(found, path, kind, part)
        if empty and role != v1.ROLE_ASSISTANT:
            add(found, f"messages[{i}].parts", "must hold at least one part")
    if only_system:
        add(found, "messages", "must hold a message that is not a system message")


def _check_place(found: Found, path: str, kind: str, role: int) -> None:
    """Whether a message of this role may hold this kind of part."""
    if role not in _ROLES:
        return  # Said of the message already.
    if kind in _ROLE_OF_KIND:
        only, description = _ROLE_OF_KIND[kind]
        if role != only:
            add(found, f"{path}.{kind}", description)
    elif role == v1.ROLE_TOOL:
        add(found, f"{path}.{kind}", "a tool message holds only tool results")


def _check_tool_call(
    found: Found, path: str, call: v1.ToolCall, known: set[str], pending: set[str]
) -> None:
    """An id may come again once its call was answered: some models count anew each turn."""
    if not call.id:
        add(found, f"{path}.tool_call.id", "must not be empty")
    elif call.id in pending:
        add(found, f"{path}.tool_call.id", "is the id of another call that was not yet answered")
    known.add(call.id)
    pending.add(call.id)
    if not call.name:
        add(found, f"{path}.tool_call.name", "must not be empty")


def _check_tool_result(
    found: Found, path: str, result: v1.ToolResult, known: set[str], pending: set[str]
) -> None:
    path = f"{path}.tool_result"
    call_id = result.tool_call_id
    if not call_id:
        add(found, f"{path}.tool_call_id", "must not be empty")
    elif call_id not in known:
        add(found, f"{path}.tool_call_id", "answers no tool call of an earlier message")
    pending.discard(call_id)
    for k, part in enumerate(result.parts):
        kind = part.WhichOneof("kind")
        if kind == "text":
            continue
        inner = f"{path}.parts[{k}]"
        if kind is None:
            add(found, inner, "must hold one kind of content")
        elif kind not in _RESULT_KINDS:
            add(found, f"{inner}.{kind}", "a tool result holds only text, image and file parts")
        else:
            check_media(found, inner, kind, part)


def check_media(found: Found, path: str, kind: str, part: v1.Part) -> None:
    """An image, audio or file part, or a vendor's; other kinds have nothing more to check."""
    if kind == "image":
        check_image(found, f"{path}.image", part.image)
    elif kind == "audio":
        check_source(found, f"{path}.audio", part.audio)
    elif kind == "file":
        check_source(found, f"{path}.file", part.file)
    elif kind == "vendor_item":
        _check_vendor_item(found, f"{path}.vendor_item", part.vendor_item)


def _check_vendor_item(found: Found, path: str, item: v1.VendorItem) -> None:
    if not item.dialect:
        add(found, f"{path}.dialect", "must not be empty")
    if not item.type:
        add(found, f"{path}.type", "must not be empty")
    if not _is_json_object(item.json):
        add(found, f"{path}.json", "must be the JSON text of an object")


def _check_sampling(found: Found, config: v1.GenerationConfig) -> None:
    """The optional numbers; every comparison is false for NaN."""
    has = config.HasField
    if has("max_output_tokens") and config.max_output_tokens < 1:
        add(found, "config.max_output_tokens", "must be at least 1")
    if has("temperature") and not 0 <= config.temperature <= 2:
        add(found, "config.temperature", "must be from 0 to 2")
    if has("top_p") and not 0 < config.top_p <= 1:
        add(found, "config.top_p", "must be above 0 and at most 1")
    if has("top_k") and config.top_k < 1:
        add(found, "config.top_k", "must be at least 1")
    if has("presence_penalty") and not -2 <= config.presence_penalty <= 2:
        add(found, "config.presence_penalty", "must be from -2 to 2")
    if has("frequency_penalty") and not -2 <= config.frequency_penalty <= 2:
        add(found, "config.frequency_penalty", "must be from -2 to 2")


def _check_config(found: Found, config: v1.GenerationConfig) -> None:
    stop = config.stop
    if len(stop) > _MAX_STOP:
        add(found, "config.stop", f"must hold at most {_MAX_STOP} texts, not {len(stop)}")
    for i, text in enumerate(stop):
        if not text:
            add(found, f"config.stop[{i}]", "must not be empty")
    if config.HasField("reasoning"):
        reasoning = config.reasoning
        if reasoning.effort not in _EFFORTS:
            add(found, "config.reasoning.effort", "is not a known effort")
        if reasoning.HasField("budget_tokens") and reasoning.budget_tokens < 0:
            add(found, "config.reasoning.budget_tokens", "must not be negative")


def check_tools(found: Found, tools: Sequence[v1.Tool]) -> None:
    if len(tools) > _MAX_TOOLS:
        add(found, "tools", f"must hold at most {_MAX_TOOLS} tools, not {len(tools)}")
    names: set[str] = set()
    for i, tool in enumerate(tools):
        if tool.HasField("builtin"):
            _check_builtin(found, f"tools[{i}]", tool)
            continue
        name = tool.name
        if not _TOOL_NAME(name):
            add(
                found,
                f"tools[{i}].name",
                "must be 1 to 64 letters, digits, underscores and hyphens",
            )
        elif name in names:
            add(found, f"tools[{i}].name", "is the name of an earlier tool")
        names.add(name)
        schema = tool.parameters_json
        if schema and not _is_json_object(schema):
            add(found, f"tools[{i}].parameters_json", "must be the JSON text of an object")


def _check_builtin(found: Found, path: str, tool: v1.Tool) -> None:
    for field, _ in tool.ListFields():
        if field.name != "builtin":
            add(found, f"{path}.{field.name}", "must not be set beside a tool of the vendor's")
    if not tool.builtin.type:
        add(found, f"{path}.builtin.type", "must not be empty")
    options = tool.builtin.options_json
    if options and not _is_json_object(options):
        add(found, f"{path}.builtin.options_json", "must be the JSON text of an object")


def _check_tool_choice(found: Found, request: v1.GenerateRequest) -> None:
    choice = request.tool_choice
    mode = choice.mode
    if mode not in _TOOL_CHOICE_MODES:
        add(found, "tool_choice.mode", "is not a known mode")
    if mode in {v1.TOOL_CHOICE_MODE_REQUIRED, v1.TOOL_CHOICE_MODE_NONE} and not request.tools:
        add(found, "tool_choice.mode", "this mode needs tools to choose from")
    if choice.name:
        if mode != v1.TOOL_CHOICE_MODE_REQUIRED:
            add(found, "tool_choice.name", "may be set only with the mode that requires a call")
        if all(tool.name != choice.name for tool in request.tools):
            add(found, "tool_choice.name", "is not the name of one of the tools")


def _check_response_format(found: Found, response_format: v1.ResponseFormat) -> None:
    if response_format.WhichOneof("kind") != "json_schema":
        return
    schema = response_format.json_schema
    if schema.name and not _TOOL_NAME(schema.name):
        add(
            found,
            "response_format.json_schema.name",
            "must be at most 64 letters, digits, underscores and hyphens",
        )
    if not _is_json_object(schema.schema_json):
        add(found, "response_format.json_schema.schema_json", "must be the JSON text of an object")


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False
