"""Reads and checks requests of the Cohere dialect, refusing what api.cohere.com refuses.

Shapes follow https://docs.cohere.com/v2/reference/chat; no refusal was ever recorded, so the
words of errors are our own in the documented style.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Media, Prompt
from trunkline_server.simulator.dialect import Call
from trunkline_server.simulator.known_fields import COHERE_CHAT, COHERE_EMBED, COHERE_RERANK
from trunkline_server.simulator.vendor_error import VendorError

_DATA_URL = re.compile(r"data:([^;,]*);base64,")
_RANGES = {
    "temperature": (0, 2),
    "p": (0, 1),
    "k": (0, 500),
    "presence_penalty": (0, 1),
    "frequency_penalty": (0, 1),
}
_PURPOSES = ("search_document", "search_query", "classification", "clustering", "image")
_MOST_STOPS = 5
_MOST_TEXTS = 96
_MOST_DOCUMENTS = 1000


@dataclass(frozen=True, slots=True)
class Document:
    """A document that an answer may cite."""

    id: str
    fields: dict[str, Any]


def wrong(param: str, message: str) -> VendorError:
    return VendorError("invalid", f"invalid request: {param} {message}", param=param)


def _known(body: Mapping[str, Any], names: frozenset[str]) -> None:
    for name in body:
        if name not in names:
            raise VendorError("invalid", f"unknown field: parameter '{name}' is not a valid field")


def read_chat(call: Call) -> tuple[Prompt, list[Document]]:
    """The prompt of a chat and its documents. Raises VendorError."""
    body = call.body
    _known(body, COHERE_CHAT)
    if not call.model.chat:
        raise VendorError("model", param=call.name)
    _check_numbers(body)
    prompt = Prompt(call.honest_name)
    prompt.max_tokens = _whole(body, "max_tokens", 0)
    stops = body.get("stop_sequences") or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise wrong("stop_sequences", "must be a list of strings")
    if len(stops) > _MOST_STOPS:
        raise wrong("stop_sequences", f"must have at most {_MOST_STOPS} items")
    prompt.stop = stops
    _read_thinking(body.get("thinking"), prompt)
    _read_tools(body, prompt)
    documents = _read_documents(body.get("documents"), prompt)
    _read_messages(body.get("messages"), prompt, vision=call.model.vision)
    _read_format(body.get("response_format"), prompt)
    return prompt, documents


def _check_numbers(body: Mapping[str, Any]) -> None:
    for name, (low, high) in _RANGES.items():
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise wrong(name, "must be a number")
        if not low <= value <= high:
            raise wrong(name, f"must be between {low} and {high} inclusive.")


def _whole(body: Mapping[str, Any], name: str, least: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise wrong(name, f"must be an integer of at least {least}")
    return value


def _read_thinking(thinking: Any, prompt: Prompt) -> None:
    if thinking is None:
        return
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in ("enabled", "disabled"):
        raise wrong("thinking", "must be of type 'enabled' or 'disabled'")
    _whole(thinking, "token_budget", 1)
    prompt.think = kind == "enabled"


def _read_tools(body: Mapping[str, Any], prompt: Prompt) -> None:
    offered = body.get("tools") or []
    if not isinstance(offered, list):
        raise wrong("tools", "must be a list")
    for index, tool in enumerate(offered):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type") != "function":
            raise wrong(f"tools[{index}]", "must be of type 'function'")
        name, schema = function.get("name"), function.get("parameters")
        if not isinstance(name, str) or not name:
            raise wrong(f"tools[{index}].function.name", "is required")
        if not isinstance(schema, dict) or schema.get("type") != "object":
            raise wrong(f"tools[{index}].function.parameters", "must be a schema of an object")
        prompt.tools[name] = schema
    if offered:
        text = orjson.dumps(offered).decode()
        prompt.add(text, tokens.count(text))
    choice = body.get("tool_choice")
    if choice is not None:
        if choice not in ("REQUIRED", "NONE"):
            raise wrong("tool_choice", "must be one of 'REQUIRED', 'NONE'")
        if not offered:
            raise wrong("tool_choice", "is only valid with tools")
        prompt.tool_mode = choice.lower()


def _read_documents(given: Any, prompt: Prompt) -> list[Document]:
    if given is not None and not isinstance(given, list):
        raise wrong("documents", "must be a list")
    documents = []
    for index, document in enumerate(given or ()):
        usual = f"doc:{index}"
        if isinstance(document, str):
            fields: dict[str, Any] = {"text": document}
        elif isinstance(document, dict) and isinstance(document.get("data"), dict):
            usual = document.get("id") or usual
            fields = document["data"]
        else:
            raise wrong(f"documents[{index}]", "must be a string or an object with data")
        documents.append(Document(usual, {"id": usual, **fields}))
        text = orjson.dumps(fields).decode()
        prompt.add(text, tokens.count(text))
    return documents


def _read_messages(messages: Any, prompt: Prompt, *, vision: bool) -> None:
    if not isinstance(messages, list) or not messages:
        raise wrong("messages", "must have at least one item")
    prompt.message_count = len(messages)
    open_calls: dict[str, str] = {}
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "user", "assistant", "tool"):
            raise wrong(f"{path}.role", "must be one of 'system', 'user', 'assistant', 'tool'")
        if role != "tool":
            if open_calls:
                raise wrong("messages", f"lack results of tool calls: {', '.join(open_calls)}")
            prompt.results.clear()
        text = _content(message, role, path, prompt, vision=vision)
        if role == "tool":
            name = open_calls.pop(message.get("tool_call_id"), None)
            if name is None:
                raise wrong(f"{path}.tool_call_id", "is of no tool call before it")
            prompt.results.append((name, text))
        elif role == "user":
            prompt.last_user_text = text
        elif role == "assistant":
            open_calls = _tool_calls(message, path)
            text += "".join(map(str, message.get("tool_calls") or ()))
        prompt.add((role, text), tokens.count(text) + tokens.MESSAGE_TOKENS)
    if open_calls:
        raise wrong("messages", f"lack results of tool calls: {', '.join(open_calls)}")


def _tool_calls(message: Mapping[str, Any], path: str) -> dict[str, str]:
    """The ids and names of an assistant message's calls."""
    found: dict[str, str] = {}
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str):
            raise wrong(f"{path}.tool_calls[{index}]", "must have an id and a function")
        if not isinstance(function.get("arguments"), str):
            raise wrong(f"{path}.tool_calls[{index}].function.arguments", "must be a string")
        found[call["id"]] = str(function.get("name"))
    return found


def _content(
    message: Mapping[str, Any], role: str, path: str, prompt: Prompt, *, vision: bool
) -> str:
    """The message's text; pictures are added to the prompt."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None and role == "assistant" and message.get("tool_calls"):
        return ""
    if not isinstance(content, list) or not content:
        raise wrong(f"{path}.content", "must be a string or a list")
    texts = []
    for index, piece in enumerate(content):
        where = f"{path}.content[{index}]"
        kind = piece.get("type") if isinstance(piece, dict) else None
        if kind == "text" or (kind == "thinking" and role == "assistant"):
            if not isinstance(piece.get(kind), str):
                raise wrong(f"{where}.{kind}", "is required")
            texts.append(piece[kind] if kind == "text" else "")
        elif kind == "image_url" and role == "user":
            if not vision:
                raise wrong(where, "images are not supported by this model")
            prompt.media.append(_image(piece.get("image_url"), where))
            prompt.add(repr(piece), tokens.MEDIA_TOKENS)
        else:
            raise wrong(f"{where}.type", f"{kind!r} is not valid for role '{role}'")
    return "".join(texts)


def _image(value: Any, path: str) -> Media:
    url = value.get("url") if isinstance(value, dict) else None
    if not isinstance(url, str):
        raise wrong(f"{path}.image_url.url", "is required")
    if url.startswith(("https://", "http://")):
        return Media("image", "", None)
    head = _DATA_URL.match(url)
    if head is None:
        raise wrong(f"{path}.image_url.url", "must be an https or a base64 data URL")
    try:
        size = len(base64.b64decode(url[head.end() :], validate=True))
    except (binascii.Error, ValueError):
        raise wrong(f"{path}.image_url.url", "is not valid base64") from None
    return Media("image", head[1], size)


def _read_format(wanted: Any, prompt: Prompt) -> None:
    if wanted is None:
        return
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in ("text", "json_object"):
        raise wrong("response_format.type", "must be one of 'text', 'json_object'")
    if kind == "json_object":
        schema = wanted.get("json_schema")
        if schema is not None and not isinstance(schema, dict):
            raise wrong("response_format.json_schema", "must be an object")
        prompt.schema = schema
        prompt.json_object = schema is None


def read_texts(call: Call, most: int) -> tuple[list[str], int]:
    """The texts to embed and the length of their vectors, at most `most`."""
    body = call.body
    _known(body, COHERE_EMBED)
    if not call.model.embedding:
        raise VendorError("model", param=call.name)
    texts = body.get("texts")
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise wrong("texts", "must be a list of strings")
    if len(texts) > _MOST_TEXTS:
        raise wrong("texts", f"total number of texts must be at most {_MOST_TEXTS}")
    if body.get("input_type") not in _PURPOSES:
        raise wrong("input_type", f"must be one of {', '.join(_PURPOSES)}")
    if body.get("embedding_types", ["float"]) != ["float"]:
        raise wrong("embedding_types", "only 'float' is simulated")
    dimensions = _whole(body, "output_dimension", 1) or most
    if dimensions > most:
        raise wrong("output_dimension", f"must be at most {most}")
    return texts, dimensions


def read_order(call: Call) -> tuple[str, list[str], int]:
    """The query, the documents and how many of the best are asked for."""
    body = call.body
    _known(body, COHERE_RERANK)
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not query:
        raise wrong("query", "must be at least 1 character long")
    if not isinstance(documents, list) or not all(isinstance(d, str) for d in documents):
        raise wrong("documents", "must be a list of strings")
    if not 1 <= len(documents) <= _MOST_DOCUMENTS:
        raise wrong("documents", f"must have 1 to {_MOST_DOCUMENTS} items")
    _whole(body, "max_tokens_per_doc", 1)
    return query, documents, _whole(body, "top_n", 1) or len(documents)
