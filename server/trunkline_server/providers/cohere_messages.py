"""Writes a conversation in the Cohere dialect.

The shapes are those of the vendor's own SDK, whose types judge the golden requests
(tests/golden/cohere).
"""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from trunkline import v1
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.providers.cohere_json import DIALECT, PLAN, THINKING, Json

_IMAGE_DETAILS = {
    v1.IMAGE_DETAIL_UNSPECIFIED: "",
    v1.IMAGE_DETAIL_LOW: "low",
    v1.IMAGE_DETAIL_HIGH: "high",
}
# Files that are text, whatever they mean by it.
_TEXT_TYPES = frozenset({"application/json", "application/xml", "application/yaml"})


def encode_messages(messages: Sequence[v1.Message]) -> tuple[list[Json], list[Json]]:
    """The vendor's messages, and the documents that stood among the user's parts.

    Raises INVALID_REQUEST for what the dialect cannot carry.
    """
    encoded: list[Json] = []
    documents: list[Json] = []
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        match message.role:
            case v1.ROLE_SYSTEM:
                encoded.append({"role": "system", "content": _system(message, path)})
            case v1.ROLE_USER:
                pieces = _user(message, path, documents)
                encoded.append({"role": "user", "content": _shortest(pieces)})
            case v1.ROLE_ASSISTANT:
                encoded.append(_assistant(message, path))
            case v1.ROLE_TOOL:
                encoded += _tool_results(message, path)
            case _:
                raise invalid(f"{path}.role", "is not set")
    return encoded, documents


def _shortest(pieces: list[Json]) -> Any:
    """The content as a string where it is one text."""
    if len(pieces) == 1 and pieces[0]["type"] == "text":
        return pieces[0]["text"]
    return pieces or ""


def _system(message: v1.Message, path: str) -> Any:
    pieces = []
    for index, part in enumerate(message.parts):
        if part.WhichOneof("kind") != "text":
            raise _wrong_kind(part, f"{path}.parts[{index}]", "in a system message")
        pieces.append({"type": "text", "text": part.text})
    return _shortest(pieces)


def _user(message: v1.Message, path: str, documents: list[Json]) -> list[Json]:
    pieces: list[Json] = []
    for index, part in enumerate(message.parts):
        part_path = f"{path}.parts[{index}]"
        match part.WhichOneof("kind"):
            case "text":
                pieces.append({"type": "text", "text": part.text})
            case "image":
                pieces.append(_image(part.image, f"{part_path}.image"))
            case "file":
                documents.append(_document(part.file, f"{part_path}.file", len(documents)))
            case _:
                raise _wrong_kind(part, part_path, "in a user message")
    return pieces


def _image(image: v1.Image, path: str) -> Json:
    match image.WhichOneof("source"):
        case "data":
            if not image.media_type:
                raise invalid(f"{path}.media_type", "is required with data")
            url = f"data:{image.media_type};base64,{b64encode(image.data).decode()}"
        case "uri":
            url = image.uri
            if not url.startswith(("https://", "http://", "data:")):
                raise invalid(f"{path}.uri", "this provider takes only https and data URIs")
        case _:
            raise invalid(path, "has no source")
    reference = {"url": url}
    if detail := _IMAGE_DETAILS.get(image.detail, ""):
        reference["detail"] = detail
    return {"type": "image_url", "image_url": reference}


def _document(file: v1.File, path: str, number: int) -> Json:
    if file.WhichOneof("source") != "data":
        raise invalid(path, "this provider takes files only by value")
    media_type = file.media_type.partition(";")[0].strip().lower()
    if not media_type.startswith("text/") and media_type not in _TEXT_TYPES:
        raise invalid(f"{path}.media_type", "this provider takes only files of text")
    try:
        data = {"text": file.data.decode()}
    except UnicodeDecodeError:
        raise invalid(path, "is not UTF-8 text") from None
    if file.filename:
        data["title"] = file.filename
    return {"id": f"doc:{number}", "data": data}


def _assistant(message: v1.Message, path: str) -> Json:
    entry: Json = {"role": "assistant"}
    pieces: list[Json] = []
    calls: list[Json] = []
    plan = ""
    for index, part in enumerate(message.parts):
        match part.WhichOneof("kind"):
            case "text":
                pieces.append({"type": "text", "text": part.text})
            case "reasoning":
                kind = part.signature.value if part.signature.dialect == DIALECT else ""
                if kind == PLAN:
                    plan += part.reasoning.text
                elif kind == THINKING:
                    pieces.append({"type": "thinking", "thinking": part.reasoning.text})
            case "tool_call":
                calls.append(_tool_call(part.tool_call))
            case "vendor_item":
                pass  # Another dialect's: this one makes none.
            case _:
                raise _wrong_kind(part, f"{path}.parts[{index}]", "in an assistant message")
    if pieces or not calls:
        entry["content"] = _shortest(pieces)
    if calls:
        entry["tool_calls"] = calls
        if plan:
            entry["tool_plan"] = plan
    return entry


def _tool_call(call: v1.ToolCall) -> Json:
    function = {"name": call.name, "arguments": call.arguments_json or "{}"}
    return {"id": call.id, "type": "function", "function": function}


def _tool_results(message: v1.Message, path: str) -> list[Json]:
    encoded: list[Json] = []
    for index, part in enumerate(message.parts):
        part_path = f"{path}.parts[{index}]"
        if part.WhichOneof("kind") != "tool_result":
            raise _wrong_kind(part, part_path, "in a tool message")
        result = part.tool_result
        pieces = []
        for inner, piece in enumerate(result.parts):
            if piece.WhichOneof("kind") != "text":
                where = f"{part_path}.tool_result.parts[{inner}]"
                raise _wrong_kind(piece, where, "in a tool result")
            pieces.append({"type": "text", "text": piece.text})
        content = _shortest(pieces)
        encoded.append({"role": "tool", "tool_call_id": result.tool_call_id, "content": content})
    return encoded


def _wrong_kind(part: v1.Part, path: str, where: str) -> TrunklineError:
    kind = part.WhichOneof("kind")
    if kind is None:
        return invalid(path, "has no content")
    return invalid(f"{path}.{kind}", f"this provider takes no {kind} {where}")
