"""Reads and checks requests of the Anthropic dialect, refusing what api.anthropic.com refuses.

Shapes follow https://platform.claude.com/docs/en/api/messages; the words of errors follow
recorded and documented ones, and are our own in that style elsewhere. The older `temperature`,
`top_p` and `top_k`, which the newest SDKs no longer name, are still understood.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Prompt
from trunkline_server.simulator.anthropic_messages import MessageReader, mark_of, text_of, wrong
from trunkline_server.simulator.dialect import Call
from trunkline_server.simulator.known_fields import ANTHROPIC_MESSAGE
from trunkline_server.simulator.vendor_error import VendorError

_MOST_MARKS = 4
_LEAST_THINKING = 1024
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_CHOICES = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}


def read_message(call: Call, *, counting: bool = False) -> Prompt:
    """The prompt of a message; `counting` asks only for its tokens. Raises VendorError."""
    body = call.body
    if "anthropic-version" not in call.headers:
        raise wrong("anthropic-version", "header is required")
    for name in body:
        if name not in ANTHROPIC_MESSAGE:
            raise wrong(name, "Extra inputs are not permitted")
    if not call.model.chat:
        raise VendorError("model", param=call.name)
    prompt = Prompt(call.honest_name)
    if not counting:
        prompt.max_tokens = _max_tokens(body, call)
    _check_numbers(body)
    prompt.stop = _stops(body.get("stop_sequences"))
    _read_tools(body, prompt)
    _read_system(body.get("system"), prompt)
    thinking = _read_thinking(body, prompt)
    reader = MessageReader(prompt, must_think=thinking, vision=call.model.vision)
    reader.read(body.get("messages"))
    _read_output(body.get("output_config"), prompt)
    if mark := mark_of(body, ""):
        prompt.units[-1].mark = mark
    if sum(1 for unit in prompt.units if unit.mark) > _MOST_MARKS:
        raise VendorError(
            "invalid", f"A maximum of {_MOST_MARKS} blocks with cache_control may be provided."
        )
    return prompt


def _max_tokens(body: Mapping[str, Any], call: Call) -> int:
    value = body.get("max_tokens")
    if value is None:
        raise wrong("max_tokens", "Field required")
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong("max_tokens", "Input should be a valid integer")
    if value < 1:
        raise wrong("max_tokens", "must be greater than or equal to 1")
    most = call.model.max_output_tokens
    if value > most:
        raise wrong(
            "max_tokens",
            f"{value} > {most}, which is the maximum allowed number of output tokens for "
            f"{call.honest_name}",
        )
    return value


def _check_numbers(body: Mapping[str, Any]) -> None:
    for name in ("temperature", "top_p"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise wrong(name, "Input should be a valid number")
        if not 0 <= value <= 1:
            raise wrong(name, "range: 0..1")
    top_k = body.get("top_k")
    if top_k is not None and (not isinstance(top_k, int) or top_k < 0):
        raise wrong("top_k", "Input should be a valid integer of at least 0")


def _stops(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(stop, str) for stop in value):
        raise wrong("stop_sequences", "Input should be a valid list of strings")
    if any(not stop.strip() for stop in value):
        raise wrong("stop_sequences", "each stop sequence must contain non-whitespace")
    return value


def _read_tools(body: Mapping[str, Any], prompt: Prompt) -> None:
    offered = body.get("tools")
    if offered is not None and not isinstance(offered, list):
        raise wrong("tools", "Input should be a valid list")
    for i, tool in enumerate(offered or ()):
        path = f"tools.{i}"
        if not isinstance(tool, dict) or tool.get("type", "custom") not in ("custom", None):
            raise wrong(path, "only tools of type 'custom' are simulated")
        name, schema = tool.get("name"), tool.get("input_schema")
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            raise wrong(
                f"{path}.custom.name", "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"
            )
        if name in prompt.tools:
            raise wrong("tools", "Tool names must be unique.")
        if not isinstance(schema, dict):
            raise wrong(f"{path}.custom.input_schema", "Field required")
        if schema.get("type") != "object":
            raise wrong(f"{path}.custom.input_schema.type", "Input should be 'object'")
        prompt.tools[name] = schema
        text = orjson.dumps(tool).decode()
        prompt.add(text, tokens.count(text), mark_of(tool, path))
    _read_choice(body.get("tool_choice"), prompt)


def _read_choice(choice: Any, prompt: Prompt) -> None:
    if choice is None:
        return
    kind = choice.get("type") if isinstance(choice, dict) else None
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise wrong("tool_choice.type", f"Input should be one of {', '.join(_CHOICES)}")
    if not prompt.tools and kind != "none":
        raise wrong("tool_choice", "may only be specified while providing tools")
    prompt.tool_mode = _CHOICES[kind]
    prompt.parallel = choice.get("disable_parallel_tool_use") is not True
    if kind == "tool":
        name = choice.get("name")
        if not isinstance(name, str) or name not in prompt.tools:
            raise VendorError("invalid", f"Tool '{name}' not found in provided tools")
        prompt.tool_names = (name,)


def _read_system(system: Any, prompt: Prompt) -> None:
    if system is None:
        return
    if isinstance(system, str):
        prompt.add(("system", system), tokens.count(system) + tokens.MESSAGE_TOKENS)
        return
    if not isinstance(system, list):
        raise wrong("system", "Input should be a valid string or list of text blocks")
    for i, block in enumerate(system):
        path = f"system.{i}"
        if not isinstance(block, dict) or block.get("type") != "text":
            raise wrong(f"{path}.type", "Input should be 'text'")
        text = text_of(block, path)
        prompt.add(("system", text), tokens.count(text), mark_of(block, path))


def _read_thinking(body: Mapping[str, Any], prompt: Prompt) -> bool:
    """Whether a tool-using assistant turn that is sent back must begin with its thinking."""
    thinking = body.get("thinking")
    if thinking is None:
        return False
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in ("enabled", "disabled", "adaptive", "between_tools"):
        raise wrong("thinking.type", "Input should be 'enabled', 'disabled' or 'adaptive'")
    if kind == "disabled":
        return False
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or budget < _LEAST_THINKING:
            raise wrong(
                "thinking.enabled.budget_tokens",
                f"Input should be greater than or equal to {_LEAST_THINKING}",
            )
        if prompt.max_tokens is not None and prompt.max_tokens <= budget:
            raise VendorError(
                "invalid", "`max_tokens` must be greater than `thinking.budget_tokens`."
            )
    if body.get("temperature", 1) != 1:
        raise wrong("temperature", "may only be set to 1 when thinking is enabled")
    if prompt.tool_mode == "required":
        raise VendorError(
            "invalid", "Thinking may not be enabled when tool_choice forces tool use."
        )
    prompt.think = True
    return bool(kind == "enabled")


def _read_output(config: Any, prompt: Prompt) -> None:
    wanted = config.get("format") if isinstance(config, dict) else None
    if wanted is None:
        return
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        raise wrong("output_config.format.type", "Input should be 'json_schema'")
    if not isinstance(wanted.get("schema"), dict):
        raise wrong("output_config.format.schema", "Field required")
    prompt.schema = wanted["schema"]
