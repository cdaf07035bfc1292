"""Reads and checks requests of the Responses API, refusing what api.openai.com refuses.

Shapes follow OpenAI's OpenAPI document; words follow its recorded error answers where there are
any. Nothing is stored, so that what refers to stored responses and items is not found.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Media, Prompt
from trunkline_server.simulator.dialect import Call
from trunkline_server.simulator.known_fields import OPENAI_RESPONSES
from trunkline_server.simulator.openai_messages import (
    audio_media,
    data_url,
    missing,
    not_allowed,
    wrong,
    wrong_type,
)
from trunkline_server.simulator.openai_request import (
    EFFORTS,
    FORMATS,
    check_numbers,
    check_schema,
    check_tool_name,
)
from trunkline_server.simulator.signature import is_token
from trunkline_server.simulator.vendor_error import VendorError

_ROLES = ("user", "assistant", "system", "developer")
SEARCHES = frozenset({"web_search", "web_search_preview"})
# The vendor's own tools; the simulator runs none but the search.
_BUILTIN = SEARCHES | {
    "code_interpreter",
    "computer_use_preview",
    "custom",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
}
_INCLUDES = (
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
)
_LEAST_TOKENS = 16
_SUMMARIES = ("auto", "concise", "detailed")


def read_response(call: Call) -> Prompt:
    """The prompt of a response. Raises VendorError."""
    body = call.body
    for name in body:
        if name not in OPENAI_RESPONSES:
            raise wrong(name, f"Unknown parameter: '{name}'.", "unknown_parameter")
    for name in ("previous_response_id", "conversation", "prompt"):
        if body.get(name) is not None:
            raise VendorError("not_found", f"The {name} given was not found.", param=name)
    if body.get("background"):
        raise wrong("background", "Background mode is not supported here.")
    check_numbers(body, {"max_output_tokens": _LEAST_TOKENS})
    prompt = Prompt(call.honest_name)
    prompt.max_tokens = body.get("max_output_tokens")
    _read_reasoning(body, prompt)
    for wanted in body.get("include") or ():
        if wanted not in _INCLUDES:
            raise not_allowed("include", wanted, _INCLUDES)
    _read_tools(body, prompt)
    _Items(prompt, vision=call.model.vision).read(body)
    _read_format(body, prompt)
    return prompt


def _read_reasoning(body: Mapping[str, Any], prompt: Prompt) -> None:
    reasoning = body.get("reasoning")
    if reasoning is None:
        return
    if not isinstance(reasoning, dict):
        raise wrong_type("reasoning", "an object")
    effort, summary = reasoning.get("effort"), reasoning.get("summary")
    if effort is not None and effort not in EFFORTS:
        raise not_allowed("reasoning.effort", effort, EFFORTS)
    if summary is not None and summary not in _SUMMARIES:
        raise not_allowed("reasoning.summary", summary, _SUMMARIES)
    prompt.think = effort not in {None, "none"} or (effort is None and summary is not None)


def _read_tools(body: Mapping[str, Any], prompt: Prompt) -> None:
    offered = body.get("tools") or []
    if not isinstance(offered, list):
        raise wrong_type("tools", "an array of objects")
    for i, tool in enumerate(offered):
        path = f"tools[{i}]"
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind in _BUILTIN:
            continue
        if kind != "function":
            raise not_allowed(f"{path}.type", kind, ("function", *sorted(_BUILTIN)))
        name = check_tool_name(tool.get("name"), f"{path}.name")
        prompt.tools[name] = check_schema(tool.get("parameters"), name, f"{path}.parameters")
    if offered:
        prompt.add(text := orjson.dumps(offered).decode(), tokens.count(text))
    prompt.parallel = body.get("parallel_tool_calls") is not False
    choice = body.get("tool_choice")
    if choice is None:
        return
    if isinstance(choice, str):
        if choice not in {"auto", "none", "required"}:
            raise not_allowed("tool_choice", choice, ("none", "auto", "required"))
        prompt.tool_mode = choice
    elif choice.get("type") == "function":
        if choice.get("name") not in prompt.tools:
            raise wrong("tool_choice", "Tool choice 'function' not found in 'tools' parameter.")
        prompt.tool_mode, prompt.tool_names = "required", (choice["name"],)


def _read_format(body: Mapping[str, Any], prompt: Prompt) -> None:
    text = body.get("text") or {}
    wanted = text.get("format") if isinstance(text, dict) else None
    if wanted is None:
        return
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in FORMATS:
        raise not_allowed("text.format.type", kind, FORMATS)
    if kind == "json_object":
        if not any("json" in str(unit.content).lower() for unit in prompt.units):
            raise wrong(
                "input",
                "Response input messages must contain the word 'json' in some form to use "
                "'text.format' of type 'json_object'.",
            )
        prompt.json_object = True
    if kind == "json_schema":
        if not isinstance(wanted.get("name"), str):
            raise missing("text.format.name")
        if not isinstance(wanted.get("schema"), dict):
            raise missing("text.format.schema")
        prompt.schema = wanted["schema"]


# How the names of items end that are the vendor's own earlier work.
_VENDORS = ("_call", "_output", "_tools", "_request")


def _list_of(items: Any) -> list[Any]:
    if items is None:
        raise missing("input")
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    if not isinstance(items, list):
        raise wrong_type("input", "a string or an array of objects")
    if not items:
        raise wrong("input", "Invalid 'input': empty array.", "empty_array")
    return items


class _Items:
    """Reads the input items one after the other."""

    def __init__(self, prompt: Prompt, *, vision: bool) -> None:
        self._prompt = prompt
        self._vision = vision
        # By call_id: the names of calls, and of those without an output.
        self._calls: dict[str, str] = {}
        self._open: dict[str, str] = {}

    def read(self, body: Mapping[str, Any]) -> None:
        if isinstance(body.get("instructions"), str):
            self._said("system", body["instructions"])
        items = _list_of(body.get("input"))
        for i, item in enumerate(items):
            if not isinstance(item, dict):
                raise wrong_type(f"input[{i}]", "an object")
            self._item(item, f"input[{i}]", items[i + 1 :])
        for call_id in self._open:
            raise wrong("input", f"No tool output found for function call {call_id}.")

    def _item(self, item: Mapping[str, Any], path: str, rest: list[Any]) -> None:
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind == "reasoning":
            self._reasoning(item, path, rest)
            return
        if kind not in {"function_call_output", "custom_tool_call_output"}:
            self._prompt.results.clear()
        reader = _READERS.get(kind or "")
        if reader is not None:
            reader(self, item, path)
        elif isinstance(kind, str) and kind.endswith(_VENDORS):
            text = orjson.dumps(item).decode()
            self._prompt.add((kind, text), tokens.count(text))
        else:
            raise not_allowed(f"{path}.type", kind, tuple(_READERS))

    def _said(self, role: str, text: str) -> None:
        self._prompt.message_count += 1
        self._prompt.add((role, text), tokens.count(text) + tokens.MESSAGE_TOKENS)

    def _message(self, item: Mapping[str, Any], path: str) -> None:
        role = item.get("role")
        if role not in _ROLES:
            raise not_allowed(f"{path}.role", role, _ROLES)
        text = self._content(item.get("content"), role, f"{path}.content")
        if role == "user":
            self._prompt.last_user_text = text
        self._said(role, text)

    def _content(self, content: Any, role: str, path: str) -> str:
        if isinstance(content, str):
            return content
        if not isinstance(content, list):
            raise wrong_type(path, "a string or an array of objects")
        texts = []
        said = ("output_text", "refusal") if role == "assistant" else ("input_text",)
        for i, piece in enumerate(content):
            where = f"{path}[{i}]"
            kind = piece.get("type") if isinstance(piece, dict) else None
            if kind in said:
                text = piece.get("refusal" if kind == "refusal" else "text")
                if not isinstance(text, str):
                    raise missing(f"{where}.text")
                texts.append(text)
            elif role != "assistant" and isinstance(kind, str) and kind in _MEDIA:
                if kind == "input_image" and not self._vision:
                    raise wrong(where, "Invalid content type. input_image is not supported.")
                self._prompt.media.append(_MEDIA[kind](piece, where))
                self._prompt.add(repr(piece), tokens.MEDIA_TOKENS)
            else:
                raise not_allowed(f"{where}.type", kind, (*said, *_MEDIA))
        return "".join(texts)

    def _call(self, item: Mapping[str, Any], path: str) -> None:
        written = "input" if item["type"] == "custom_tool_call" else "arguments"
        for name in ("call_id", "name", written):
            if not isinstance(item.get(name), str):
                raise missing(f"{path}.{name}")
        self._calls[item["call_id"]] = self._open[item["call_id"]] = item["name"]
        self._prompt.add(text := item["name"] + item[written], tokens.count(text))

    def _output(self, item: Mapping[str, Any], path: str) -> None:
        call_id = item.get("call_id")
        if not isinstance(call_id, str) or call_id not in self._calls:
            raise wrong(
                "input", f"No tool call found for function call output with call_id {call_id}."
            )
        self._open.pop(call_id, None)
        text = self._content(item.get("output"), "tool", f"{path}.output")
        self._prompt.results.append((self._calls[call_id], text))
        self._prompt.add(("tool", text), tokens.count(text))

    def _reasoning(self, item: Mapping[str, Any], path: str, rest: list[Any]) -> None:
        item_id, encrypted = item.get("id"), item.get("encrypted_content")
        if not isinstance(item_id, str):
            raise missing(f"{path}.id")
        if not isinstance(item.get("summary"), list):
            raise missing(f"{path}.summary")
        if encrypted is None:
            raise VendorError(
                "not_found",
                f"Item with id '{item_id}' not found. Items are not persisted when `store` is "
                "set to false. Try again with `store` set to true, or remove this item from "
                "your input.",
                param="input",
            )
        if not isinstance(encrypted, str) or not is_token(encrypted):
            raise wrong(
                path,
                f"The encrypted content for item {item_id} could not be verified.",
                "invalid_encrypted_content",
            )
        if not rest or (rest[0].get("role") if isinstance(rest[0], dict) else None) in {
            "user",
            "system",
            "developer",
        }:
            raise wrong(
                "input",
                f"Item '{item_id}' of type 'reasoning' was provided without its required "
                "following item.",
            )
        self._prompt.add(("reasoning", encrypted), tokens.count(encrypted))


def _image(piece: Mapping[str, Any], path: str) -> Media:
    url = piece.get("image_url")
    if isinstance(piece.get("file_id"), str):
        return Media("image", "", None)
    if not isinstance(url, str):
        raise missing(f"{path}.image_url")
    if url.startswith(("https://", "http://")):
        return Media("image", "", None)
    return data_url(url, "image", f"{path}.image_url")


def _file(piece: Mapping[str, Any], path: str) -> Media:
    if isinstance(piece.get("file_id"), str) or isinstance(piece.get("file_url"), str):
        return Media("file", "", None)
    if not isinstance(piece.get("file_data"), str):
        raise missing(f"{path}.file_data")
    if not isinstance(piece.get("filename"), str):
        raise missing(f"{path}.filename")
    return data_url(piece["file_data"], "file", f"{path}.file_data")


def _audio(piece: Mapping[str, Any], path: str) -> Media:
    return audio_media(piece.get("input_audio"), f"{path}.input_audio")


_MEDIA: Mapping[str, Callable[[Mapping[str, Any], str], Media]] = {
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}
_READERS: Mapping[str, Callable[[_Items, Mapping[str, Any], str], None]] = {
    "message": _Items._message,
    "function_call": _Items._call,
    "custom_tool_call": _Items._call,
    "function_call_output": _Items._output,
    "custom_tool_call_output": _Items._output,
}
