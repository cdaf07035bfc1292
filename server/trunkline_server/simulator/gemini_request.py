"""Reads and checks requests of the Gemini dialect, refusing what Google's API refuses.

Shapes follow https://ai.google.dev/api/generate-content. As everywhere in Google's JSON,
field names are understood in camelCase and in snake_case. The words of errors follow the
vendor's where they are documented, and are our own in that style elsewhere.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Prompt
from trunkline_server.simulator.dialect import Call
from trunkline_server.simulator.gemini_contents import Contents, Fields, fields, texts_of, wrong
from trunkline_server.simulator.known_fields import GEMINI_CONFIG, GEMINI_REQUEST
from trunkline_server.simulator.vendor_error import VendorError

_MODES = {"AUTO": "auto", "VALIDATED": "auto", "ANY": "required", "NONE": "none"}
_RANGES = {"temperature": (0, 2), "topP": (0, 1)}
_MOST_STOPS = 5


def read_generate(call: Call) -> Prompt:
    """The prompt of generateContent and of its streamed form. Raises VendorError."""
    body = fields(call.body, "", GEMINI_REQUEST)
    if not call.model.chat:
        raise VendorError("model", param=call.name)
    prompt = Prompt(call.honest_name)
    _read_tools(body.get("tools"), prompt)
    _read_tool_config(body.get("toolConfig"), prompt)
    if (system := body.get("systemInstruction")) is not None:
        text = "".join(texts_of(system, "system_instruction"))
        prompt.add(("system", text), tokens.count(text) + tokens.MESSAGE_TOKENS)
    Contents(prompt, vision=call.model.vision).read(body.get("contents"))
    if (config := body.get("generationConfig")) is not None:
        _read_config(fields(config, "generation_config", GEMINI_CONFIG), prompt, call)
    return prompt


def _read_tools(tools: Any, prompt: Prompt) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        raise wrong("tools", "Invalid value at 'tools': expected an array.")
    for i, tool in enumerate(tools):
        declared = fields(tool, f"tools[{i}]").get("functionDeclarations") or []
        if not isinstance(declared, list):
            raise wrong(f"tools[{i}]", f"Invalid value at 'tools[{i}].function_declarations'.")
        for j, one in enumerate(declared):
            path = f"tools[{i}].function_declarations[{j}]"
            function = fields(one, path)
            name = function.get("name")
            if not isinstance(name, str) or not name:
                raise wrong(path, f"* GenerateContentRequest.{path}.name: Invalid function name.")
            if name in prompt.tools:
                raise wrong(path, f"Duplicate function declaration found: {name}")
            schema = function.get("parametersJsonSchema") or function.get("parameters")
            if schema is not None and not isinstance(schema, dict):
                raise wrong(f"{path}.parameters", f"Invalid value at '{path}.parameters'.")
            prompt.tools[name] = schema
    prompt.add(text := orjson.dumps(tools).decode(), tokens.count(text))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _read_tool_config(config: Any, prompt: Prompt) -> None:
    if config is None:
        return
    calling = fields(config, "tool_config").get("functionCallingConfig")
    if calling is None:
        return
    path = "tool_config.function_calling_config"
    wanted = fields(calling, path)
    mode = wanted.get("mode") or "AUTO"
    if not isinstance(mode, str) or mode not in _MODES:
        raise wrong(f"{path}.mode", f"Invalid value at '{path}.mode': \"{mode}\"")
    names = wanted.get("allowedFunctionNames") or []
    if not _are_texts(names):
        raise wrong(f"{path}.allowed_function_names", f"Invalid value at '{path}'.")
    if mode == "ANY" and not prompt.tools:
        raise wrong(path, "Function calling mode is ANY but no function declarations are given.")
    if names and mode not in ("ANY", "VALIDATED"):
        raise wrong(path, "Allowed function names may be set only when the mode is ANY.")
    for name in names:
        if name not in prompt.tools:
            raise wrong(path, f"Allowed function name {name} is not among the declarations.")
    prompt.tool_mode, prompt.tool_names = _MODES[mode], tuple(names)


def _read_config(config: Fields, prompt: Prompt, call: Call) -> None:
    path = "GenerateContentRequest.generation_config"
    for name, (low, high) in _RANGES.items():
        value = config.get(name)
        if value is not None and (not isinstance(value, int | float) or not low <= value <= high):
            raise wrong(
                f"generation_config.{name}",
                f"* {path}.{name}: {name} must be in the range [{low:.1f}, {high:.1f}].",
            )
    limit = config.get("maxOutputTokens")
    if limit is not None:
        most = call.model.max_output_tokens
        if not isinstance(limit, int) or not 1 <= limit <= most:
            raise wrong(
                "generation_config.max_output_tokens",
                f"Unable to submit request because it has a maxOutputTokens value of {limit} "
                f"but the supported range is from 1 (inclusive) to {most + 1} (exclusive).",
            )
        prompt.max_tokens = limit
    if config.get("candidateCount", 1) != 1:
        raise wrong(
            "generation_config.candidate_count",
            "Multiple candidates is not enabled for this model",
        )
    stops = config.get("stopSequences") or []
    if not _are_texts(stops) or len(stops) > _MOST_STOPS:
        raise wrong(
            "generation_config.stop_sequences",
            f"* {path}.stop_sequences: at most {_MOST_STOPS} stop sequences are allowed.",
        )
    prompt.stop = [stop for stop in stops if stop]
    _read_format(config, prompt)
    prompt.think = _thinks(config.get("thinkingConfig"))


def _read_format(config: Fields, prompt: Prompt) -> None:
    schema = config.get("responseJsonSchema") or config.get("responseSchema")
    is_json = config.get("responseMimeType") == "application/json"
    if schema is not None:
        if not is_json:
            raise wrong(
                "generation_config.response_schema",
                "Function response schema is only supported with response mime type "
                "'application/json'.",
            )
        if not isinstance(schema, dict):
            raise wrong("generation_config.response_schema", "Invalid response schema.")
        prompt.schema = schema
    prompt.json_object = is_json and schema is None


def _thinks(config: Any) -> bool:
    if config is None:
        return False
    named = fields(config, "generation_config.thinking_config")
    return bool(
        named.get("includeThoughts") or named.get("thinkingBudget") or named.get("thinkingLevel")
    )


def shows_thoughts(body: Mapping[str, Any]) -> bool:
    """Whether a request that has been read asked to see the model's thoughts."""
    config = fields(body, "").get("generationConfig") or {}
    thinking = fields(fields(config, "").get("thinkingConfig") or {}, "")
    return bool(thinking.get("includeThoughts"))
