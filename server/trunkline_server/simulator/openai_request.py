"""Reads and checks requests of the OpenAI dialect, refusing what api.openai.com refuses.

Shapes and words follow https://platform.openai.com/docs/api-reference/chat and recorded
error answers; where none was recorded, the words are our own in the recorded style.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Prompt
from trunkline_server.simulator.dialect import Call
from trunkline_server.simulator.known_fields import OPENAI_CHAT
from trunkline_server.simulator.openai_messages import (
    missing,
    not_allowed,
    read_messages,
    wrong,
    wrong_type,
)
from trunkline_server.simulator.vendor_error import VendorError

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
FORMATS = ("text", "json_object", "json_schema")
_RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
_LEAST = {"max_tokens": 1, "max_completion_tokens": 1, "n": 1}
_MOST_STOPS = 4
_MOST_TOOLS = 128
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def read_chat(call: Call) -> Prompt:
    """The prompt of a chat completion. Raises VendorError."""
    body = call.body
    for name in body:
        if name not in OPENAI_CHAT:
            raise wrong(
                name, f"Unrecognized request argument supplied: {name}", "unknown_parameter"
            )
    if not call.model.chat:
        raise VendorError(
            "not_found",
            "This is not a chat model and thus not supported in the v1/chat/completions endpoint.",
            param="model",
        )
    check_numbers(body, _LEAST)
    prompt = Prompt(call.honest_name)
    prompt.stop = _stops(body.get("stop"))
    prompt.max_tokens = body.get("max_completion_tokens", body.get("max_tokens"))
    most = call.model.max_output_tokens
    if prompt.max_tokens is not None and prompt.max_tokens > most:
        param = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
        raise wrong(
            param,
            f"{param} is too large: {prompt.max_tokens}. This model supports at most {most} "
            f"completion tokens, whereas you provided {prompt.max_tokens}.",
        )
    effort = body.get("reasoning_effort")
    if effort is not None and effort not in EFFORTS:
        raise not_allowed("reasoning_effort", effort, EFFORTS)
    prompt.think = effort not in (None, "none")
    if body.get("stream_options") is not None and body.get("stream") is not True:
        raise wrong(
            "stream_options",
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        )
    _read_tools(body, prompt)
    read_messages(body, prompt, vision=call.model.vision)
    _read_format(body, prompt)
    return prompt


def check_numbers(body: Mapping[str, Any], least_of: Mapping[str, int]) -> None:
    """Raises VendorError for a number out of its range; `least_of` says the least of counts."""
    for name, (low, high) in _RANGES.items():
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise wrong_type(name, "a decimal")
        if not low <= value <= high:
            side, sign, bound = ("above maximum", "<=", high)
            if value < low:
                side, sign, bound = ("below minimum", ">=", low)
            raise wrong(
                name,
                f"Invalid '{name}': decimal {side} value. "
                f"Expected a value {sign} {bound}, but got {value} instead.",
                f"decimal_{side.replace(' ', '_')}_value",
            )
    for name, least in least_of.items():
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise wrong_type(name, "an integer")
        if value < least:
            raise wrong(
                name,
                f"Invalid '{name}': integer below minimum value. "
                f"Expected a value >= {least}, but got {value} instead.",
                "integer_below_min_value",
            )


def _stops(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise wrong_type("stop", "a string or an array of strings")
    if len(stops) > _MOST_STOPS:
        raise wrong(
            "stop",
            f"Invalid 'stop': array too long. Expected an array with maximum length "
            f"{_MOST_STOPS}, but got an array with length {len(stops)} instead.",
            "array_above_max_length",
        )
    return [stop for stop in stops if stop]


def _read_tools(body: Mapping[str, Any], prompt: Prompt) -> None:
    offered = body.get("tools")
    if offered is not None:
        if not isinstance(offered, list):
            raise wrong_type("tools", "an array of objects")
        if not offered:
            raise wrong("tools", "Invalid 'tools': empty array.", "empty_array")
        if len(offered) > _MOST_TOOLS:
            raise wrong("tools", "Invalid 'tools': array too long.", "array_above_max_length")
        for i, tool in enumerate(offered):
            _read_tool(tool, f"tools[{i}]", prompt)
        prompt.add(text := orjson.dumps(offered).decode(), tokens.count(text))
    for name in ("tool_choice", "parallel_tool_calls"):
        if body.get(name) is not None and not offered:
            raise wrong(name, f"'{name}' is only allowed when 'tools' are specified.")
    prompt.parallel = body.get("parallel_tool_calls") is not False
    _read_choice(body.get("tool_choice"), prompt)


def _read_tool(tool: Any, path: str, prompt: Prompt) -> None:
    if not isinstance(tool, dict) or "type" not in tool:
        raise missing(f"{path}.type")
    if tool["type"] != "function":
        raise not_allowed(f"{path}.type", tool["type"], ("function",))
    function = tool.get("function")
    if not isinstance(function, dict):
        raise missing(f"{path}.function")
    name = check_tool_name(function.get("name"), f"{path}.function.name")
    where = f"{path}.function.parameters"
    prompt.tools[name] = check_schema(function.get("parameters"), name, where)


def check_tool_name(name: Any, path: str) -> str:
    """The name of a function. Raises VendorError."""
    if not isinstance(name, str):
        raise missing(path)
    if not _TOOL_NAME.fullmatch(name):
        raise wrong(
            path,
            f"Invalid '{path}': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
        )
    return name


def check_schema(schema: Any, name: str, path: str) -> dict[str, Any] | None:
    """The schema of a function's arguments. Raises VendorError."""
    if schema is None:
        return None
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise wrong(
            path,
            f"Invalid schema for function '{name}': schema must be a JSON Schema of "
            "'type: \"object\"'.",
            "invalid_function_parameters",
        )
    return schema


def _read_choice(choice: Any, prompt: Prompt) -> None:
    if choice is None:
        return
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise not_allowed("tool_choice", choice, ("none", "auto", "required"))
        prompt.tool_mode = choice
        return
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or name not in prompt.tools:
        raise wrong("tool_choice", "Invalid value for 'tool_choice': no such tool in 'tools'.")
    prompt.tool_mode, prompt.tool_names = "required", (name,)


def _read_format(body: Mapping[str, Any], prompt: Prompt) -> None:
    wanted = body.get("response_format")
    if wanted is None:
        return
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in FORMATS:
        raise not_allowed("response_format.type", kind, FORMATS)
    if kind == "json_object":
        if not any("json" in str(unit.content).lower() for unit in prompt.units):
            raise wrong(
                "messages",
                "'messages' must contain the word 'json' in some form, to use "
                "'response_format' of type 'json_object'.",
            )
        prompt.json_object = True
    if kind == "json_schema":
        described = wanted.get("json_schema")
        if not isinstance(described, dict):
            raise missing("response_format.json_schema")
        if not isinstance(described.get("name"), str):
            raise missing("response_format.json_schema.name")
        if not isinstance(described.get("schema"), dict):
            raise missing("response_format.json_schema.schema")
        prompt.schema = described["schema"]
