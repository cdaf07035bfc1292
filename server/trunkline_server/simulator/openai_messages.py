"""Reads and checks the messages of a request of the OpenAI dialect."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Media, Prompt
from trunkline_server.simulator.vendor_error import VendorError

ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_DATA_URL = re.compile(r"data:([^;,]*);base64,")


def wrong(param: str, message: str, code: str = "invalid_value") -> VendorError:
    return VendorError("invalid", message, param=param, code=code)


def wrong_type(param: str, expected: str) -> VendorError:
    return wrong(param, f"Invalid type for '{param}': expected {expected}.", "invalid_type")


def missing(param: str) -> VendorError:
    return wrong(param, f"Missing required parameter: '{param}'.", "missing_required_parameter")


def not_allowed(param: str, value: object, allowed: Sequence[str]) -> VendorError:
    words = ", ".join(f"'{word}'" for word in allowed)
    return wrong(param, f"Invalid value: '{value}'. Supported values are: {words}.")


def read_messages(body: Mapping[str, Any], prompt: Prompt, *, vision: bool) -> None:
    messages = body.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of objects")
    if not messages:
        raise wrong(
            "messages",
            "Invalid 'messages': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead.",
            "empty_array",
        )
    prompt.message_count = len(messages)
    open_calls: dict[str, str] = {}
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        if not isinstance(message, dict):
            raise wrong_type(path, "an object")
        role = message.get("role")
        if role not in ROLES:
            raise (
                missing(f"{path}.role")
                if role is None
                else not_allowed(f"{path}.role", role, ROLES)
            )
        if role != "tool":
            _check_answered(open_calls)
            prompt.results.clear()
        text = _content(message, role, path, prompt, vision=vision)
        if role == "tool":
            name = open_calls.pop(_tool_call_id(message, path, open_calls))
            prompt.results.append((name, text))
        elif role == "user":
            prompt.last_user_text = text
        elif role == "assistant":
            open_calls = _tool_calls(message, path)
            text += "".join(str(call) for call in message.get("tool_calls") or ())
        prompt.add((role, text), tokens.count(text) + tokens.MESSAGE_TOKENS)
    _check_answered(open_calls)


def _check_answered(open_calls: Mapping[str, str]) -> None:
    if open_calls:
        raise wrong(
            "messages",
            "An assistant message with 'tool_calls' must be followed by tool messages "
            "responding to each 'tool_call_id'. The following tool_call_ids did not have "
            f"response messages: {', '.join(open_calls)}",
        )


def _tool_call_id(message: Mapping[str, Any], path: str, open_calls: Mapping[str, str]) -> str:
    call_id = message.get("tool_call_id")
    if not isinstance(call_id, str):
        raise missing(f"{path}.tool_call_id")
    if call_id not in open_calls:
        raise wrong(
            f"{path}.role",
            "Invalid parameter: messages with role 'tool' must be a response to a preceding "
            "message with 'tool_calls'.",
        )
    return call_id


def _tool_calls(message: Mapping[str, Any], path: str) -> dict[str, str]:
    """The ids and names of an assistant message's calls."""
    found: dict[str, str] = {}
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise wrong_type(f"{path}.tool_calls", "an array of objects")
    for i, call in enumerate(calls):
        where = f"{path}.tool_calls[{i}]"
        if not isinstance(call, dict) or not isinstance(call.get("id"), str):
            raise missing(f"{where}.id")
        if call.get("type") != "function":
            raise not_allowed(f"{where}.type", call.get("type"), ("function",))
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise missing(f"{where}.function.name")
        if not isinstance(function.get("arguments"), str):
            raise missing(f"{where}.function.arguments")
        found[call["id"]] = function["name"]
    return found


def _content(
    message: Mapping[str, Any], role: str, path: str, prompt: Prompt, *, vision: bool
) -> str:
    """The message's text; media are added to the prompt."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None:
        if role == "assistant" and ("tool_calls" in message or "refusal" in message):
            return ""
        raise wrong(
            f"{path}.content",
            f"Invalid value for 'content': expected a string, got null. ({path})",
            "invalid_type",
        )
    if not isinstance(content, list):
        raise wrong_type(f"{path}.content", "a string or an array of objects")
    if not content:
        raise wrong(f"{path}.content", f"Invalid '{path}.content': empty array.", "empty_array")
    texts = []
    for i, part in enumerate(content):
        where = f"{path}.content[{i}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" or (kind == "refusal" and role == "assistant"):
            text = part.get(kind)
            if not isinstance(text, str):
                raise missing(f"{where}.{kind}")
            texts.append(text)
        elif role == "user" and isinstance(kind, str) and kind in _MEDIA:
            if kind == "image_url" and not vision:
                raise wrong(
                    f"{where}.type",
                    "Invalid content type. image_url is only supported by certain models.",
                )
            media = _MEDIA[kind](part.get(kind), f"{where}.{kind}")
            prompt.media.append(media)
            prompt.add(repr(part), tokens.MEDIA_TOKENS)
        else:
            allowed = ("text", *_MEDIA) if role == "user" else ("text",)
            raise not_allowed(f"{where}.type", kind, allowed)
    return "".join(texts)


def _image(value: Any, path: str) -> Media:
    url = value.get("url") if isinstance(value, dict) else None
    if not isinstance(url, str):
        raise missing(f"{path}.url")
    if url.startswith(("https://", "http://")):
        return Media("image", "", None)
    return data_url(url, "image", f"{path}.url")


def audio_media(value: Any, path: str) -> Media:
    if not isinstance(value, dict) or not isinstance(value.get("data"), str):
        raise missing(f"{path}.data")
    if value.get("format") not in ("wav", "mp3"):
        raise not_allowed(f"{path}.format", value.get("format"), ("wav", "mp3"))
    return Media("audio", f"audio/{value['format']}", _decoded_size(value["data"], f"{path}.data"))


def _file(value: Any, path: str) -> Media:
    if isinstance(value, dict) and isinstance(value.get("file_id"), str):
        return Media("file", "", None)
    if not isinstance(value, dict) or not isinstance(value.get("file_data"), str):
        raise missing(f"{path}.file_data")
    if not isinstance(value.get("filename"), str):
        raise missing(f"{path}.filename")
    return data_url(value["file_data"], "file", f"{path}.file_data")


_MEDIA = {"image_url": _image, "input_audio": audio_media, "file": _file}


def data_url(url: str, kind: str, path: str) -> Media:
    head = _DATA_URL.match(url)
    if head is None:
        raise wrong(path, f"Invalid '{path}': expected a base64-encoded data URL.")
    return Media(kind, head[1], _decoded_size(url[head.end() :], path))


def _decoded_size(data: str, path: str) -> int:
    try:
        return len(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        raise wrong(path, f"Invalid '{path}': not valid base64.", "invalid_base64") from None
