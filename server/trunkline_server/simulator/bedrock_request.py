"""Reads and checks requests of Converse, refusing what the Bedrock runtime refuses.

Shapes follow the service's model, version 2023-09-30; the words of errors follow recorded and
documented ones, and are our own in that style elsewhere.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Prompt
from trunkline_server.simulator.bedrock_messages import MessageReader, mark_of, text_of, wrong
from trunkline_server.simulator.dialect import Call
from trunkline_server.simulator.known_fields import BEDROCK_CONVERSE, BEDROCK_INFERENCE
from trunkline_server.simulator.vendor_error import VendorError

_MOST_MARKS = 4
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LEAST_THINKING = 1024


def read_converse(call: Call) -> Prompt:
    """The prompt of a conversation. Raises VendorError."""
    body = call.body
    for name in body:
        if name not in BEDROCK_CONVERSE:
            raise wrong(name, "extraneous key is not permitted")
    if not call.model.chat:
        raise VendorError("invalid", "This action doesn't support the model that you provided.")
    prompt = Prompt(call.honest_name)
    _read_inference(body.get("inferenceConfig"), call, prompt)
    _read_tools(body.get("toolConfig"), prompt)
    _read_system(body.get("system"), prompt)
    MessageReader(prompt, vision=call.model.vision).read(body.get("messages"))
    _read_output(body.get("outputConfig"), prompt)
    _read_model_fields(body.get("additionalModelRequestFields"), prompt)
    if sum(1 for unit in prompt.units if unit.mark) > _MOST_MARKS:
        raise VendorError("invalid", f"A maximum of {_MOST_MARKS} cache points is allowed.")
    return prompt


def _read_inference(config: Any, call: Call, prompt: Prompt) -> None:
    if config is None:
        return
    if not isinstance(config, dict) or not config.keys() <= BEDROCK_INFERENCE:
        raise wrong("inferenceConfig", "extraneous key is not permitted")
    limit = config.get("maxTokens")
    if limit is not None:
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise _constraint("inferenceConfig.maxTokens", limit, "greater than or equal to 1")
        most = call.model.max_output_tokens
        if limit > most:
            raise VendorError(
                "invalid",
                f"The maximum tokens you requested exceeds the model limit of {most}. Try again "
                f"with a maximum tokens value that is lower than {most}.",
            )
        prompt.max_tokens = limit
    for name in ("temperature", "topP"):
        value = config.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise _constraint(f"inferenceConfig.{name}", value, "less than or equal to 1")
    stops = config.get("stopSequences") or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise _constraint("inferenceConfig.stopSequences", stops, "texts that are not empty")
    prompt.stop = stops


def _constraint(path: str, value: Any, constraint: str) -> VendorError:
    return VendorError(
        "invalid",
        f"1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint: "
        f"Member must be {constraint}",
        param=path,
    )


def _read_tools(config: Any, prompt: Prompt) -> None:
    if config is None:
        return
    offered = config.get("tools") if isinstance(config, dict) else None
    if not isinstance(offered, list) or not offered:
        raise _constraint("toolConfig.tools", offered, "a list of at least one tool")
    for i, tool in enumerate(offered):
        path = f"toolConfig.tools.{i}"
        if isinstance(tool, dict) and "cachePoint" in tool:
            if prompt.units:
                prompt.units[-1].mark = mark_of(tool, path)
            continue
        spec = tool.get("toolSpec") if isinstance(tool, dict) else None
        if not isinstance(spec, dict):
            raise wrong(path, "only tools with a toolSpec are simulated")
        name = spec.get("name")
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            pattern = "matched by the regular expression [a-zA-Z0-9_-]+"
            raise _constraint(f"{path}.member.toolSpec.name", name, pattern)
        if name in prompt.tools:
            raise wrong("toolConfig.tools", f"The tool {name} is defined more than once")
        if spec.get("description") == "":
            raise _constraint(f"{path}.member.toolSpec.description", "", "not empty")
        schema = (spec.get("inputSchema") or {}).get("json")
        if not isinstance(schema, dict) or schema.get("type") != "object":
            raise wrong(
                f"{path}.toolSpec.inputSchema.json.type", "must be one of the following: object."
            )
        prompt.tools[name] = schema
        text = orjson.dumps(spec).decode()
        prompt.add(text, tokens.count(text))
    _read_choice(config.get("toolChoice"), prompt)


def _read_choice(choice: Any, prompt: Prompt) -> None:
    if choice is None:
        return
    if not isinstance(choice, dict) or len(choice) != 1 or not choice.keys() <= _CHOICES:
        raise wrong("toolConfig.toolChoice", "must set exactly one of auto, any and tool")
    if "auto" in choice:
        return
    prompt.tool_mode = "required"
    if "tool" in choice:
        name = choice["tool"].get("name")
        if name not in prompt.tools:
            raise wrong("toolConfig.toolChoice.tool.name", "must name one of the tools")
        prompt.tool_names = (name,)


_CHOICES = frozenset({"auto", "any", "tool"})


def _read_system(system: Any, prompt: Prompt) -> None:
    for i, block in enumerate(system or ()):
        path = f"system.{i}"
        if isinstance(block, dict) and "cachePoint" in block:
            if prompt.units:
                prompt.units[-1].mark = mark_of(block, path)
            continue
        text = text_of(block, path)
        prompt.add(("system", text), tokens.count(text) + tokens.MESSAGE_TOKENS)


def _read_output(config: Any, prompt: Prompt) -> None:
    wanted = config.get("textFormat") if isinstance(config, dict) else None
    if wanted is None:
        return
    try:
        schema = orjson.loads(wanted["structure"]["jsonSchema"]["schema"])
    except (KeyError, TypeError, orjson.JSONDecodeError):
        raise wrong("outputConfig.textFormat.structure.jsonSchema.schema", "invalid") from None
    if wanted.get("type") != "json_schema" or not isinstance(schema, dict):
        raise wrong("outputConfig.textFormat.type", "must be json_schema with a schema")
    prompt.schema = schema


def _read_model_fields(extra: Any, prompt: Prompt) -> None:
    """What models take beyond Converse's own fields: of these, how they are told to think."""
    if extra is None:
        return
    if not isinstance(extra, dict):
        raise wrong("additionalModelRequestFields", "must be an object")
    prompt.think = _thinks(extra, prompt)
    if prompt.think and prompt.tool_mode == "required":
        raise VendorError(
            "invalid",
            "The model returned the following errors: Thinking may not be enabled when "
            "tool_choice forces tool use.",
        )


def _thinks(extra: Mapping[str, Any], prompt: Prompt) -> bool:
    thinking = extra.get("thinking") or {}
    if thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or budget < _LEAST_THINKING:
            raise VendorError(
                "invalid",
                "The model returned the following errors: thinking.enabled.budget_tokens: Input "
                f"should be greater than or equal to {_LEAST_THINKING}",
            )
        if prompt.max_tokens is not None and prompt.max_tokens <= budget:
            raise VendorError(
                "invalid",
                "The model returned the following errors: `max_tokens` must be greater than "
                "`thinking.budget_tokens`.",
            )
    nova = extra.get("reasoningConfig") or {}
    return (
        thinking.get("type") in {"enabled", "adaptive"}
        or nova.get("type") == "enabled"
        or "reasoning_effort" in extra
    )
