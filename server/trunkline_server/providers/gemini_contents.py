"""Gemini turns: the contract's messages as the vendor's `contents` and `systemInstruction`."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from trunkline import v1
from trunkline_server.errors import invalid

DIALECT = "gemini"

# Where a file's bare id lives; the vendor knows its uploaded files by these URIs.
FILES_URI = "https://generativelanguage.googleapis.com/v1beta/"

# What the vendor documents for calls that another vendor's model made:
# https://ai.google.dev/gemini-api/docs/thought-signatures
SKIP_SIGNATURE = "skip_thought_signature_validator"

_VENDOR_ROLES: Mapping[v1.Role.ValueType, str] = {
    v1.ROLE_USER: "user",
    v1.ROLE_ASSISTANT: "model",
    v1.ROLE_TOOL: "user",
}
_MEDIA = frozenset(("image", "audio", "file"))
_DETAILS: Mapping[v1.ImageDetail.ValueType, str] = {
    v1.IMAGE_DETAIL_LOW: "MEDIA_RESOLUTION_LOW",
    v1.IMAGE_DETAIL_HIGH: "MEDIA_RESOLUTION_HIGH",
}


def conversation(
    request: v1.GenerateRequest, flags: Mapping[str, str | int | bool]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """System parts and turns; neighbours of one vendor role become one turn."""
    system: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    called: dict[str, str] = {}
    for i, message in enumerate(request.messages):
        role = message.role
        if role == v1.ROLE_SYSTEM:
            system += _text_parts(message, i)
            continue
        vendor_role = _VENDOR_ROLES.get(role)
        if vendor_role is None:
            raise invalid(f"messages[{i}].role", "must name who speaks")
        if role == v1.ROLE_USER:
            parts = [_content_part(part, i, j) for j, part in enumerate(message.parts)]
        elif role == v1.ROLE_ASSISTANT:
            parts = _model_parts(message, i, called, flags)
        else:
            parts = [_result_part(part, i, j, called) for j, part in enumerate(message.parts)]
        if not parts:
            continue  # The vendor refuses turns without parts.
        if contents and contents[-1]["role"] == vendor_role:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": vendor_role, "parts": parts})
    return system, contents


def _text_parts(message: v1.Message, i: int) -> list[dict[str, Any]]:
    for j, part in enumerate(message.parts):
        if part.WhichOneof("kind") != "text":
            raise invalid(f"messages[{i}].parts[{j}]", "a system message holds only text")
    return [{"text": part.text} for part in message.parts]


def _content_part(part: v1.Part, i: int, j: int) -> dict[str, Any]:
    """Text, picture, sound or document, by whomever."""
    kind = part.WhichOneof("kind")
    if kind == "text":
        return {"text": part.text}
    path = f"messages[{i}].parts[{j}]"
    if kind not in _MEDIA:
        raise invalid(path, "holds a kind of part that its role does not have")
    return media_part(getattr(part, kind), f"{path}.{kind}")


def media_part(media: v1.Image | v1.Audio | v1.File, path: str) -> dict[str, Any]:
    """A picture, sound or document. Raises INVALID_REQUEST naming the path."""
    match media.WhichOneof("source"):
        case "data":
            if not media.media_type:
                raise invalid(f"{path}.media_type", "is required with data")
            data = base64.b64encode(media.data).decode("ascii")
            encoded = {"inlineData": {"mimeType": media.media_type, "data": data}}
        case "uri" if media.uri[:5].lower() == "data:":
            encoded = {"inlineData": _data_uri(media.uri, media.media_type, f"{path}.uri")}
        case "uri":
            encoded = {"fileData": _file_data(media.uri, media.media_type)}
        case "file_id" if isinstance(media, v1.File):
            encoded = {"fileData": _file_data(_file_uri(media.file_id), media.media_type)}
        case _:
            raise invalid(path, "must set its source")
    if isinstance(media, v1.File) and media.filename:
        next(iter(encoded.values()))["displayName"] = media.filename
    if isinstance(media, v1.Image) and media.detail:
        level = _DETAILS.get(media.detail)
        if level is None:
            raise invalid(f"{path}.detail", "is not known here")
        encoded["mediaResolution"] = {"level": level}
    return encoded


def _data_uri(uri: str, media_type: str, path: str) -> dict[str, Any]:
    """The inline data of an RFC 2397 URI; the vendor does not read such URIs itself."""
    header, comma, payload = uri[5:].partition(",")
    if not comma:
        raise invalid(path, "is not a data URI")
    declared, *parameters = header.split(";")
    data = unquote_to_bytes(payload)
    if parameters and parameters[-1].strip().lower() == "base64":
        try:
            base64.b64decode(data, validate=True)
        except binascii.Error:
            raise invalid(path, "holds data that is not base64") from None
    else:
        data = base64.b64encode(data)
    return {"mimeType": media_type or declared or "text/plain", "data": data.decode("ascii")}


def _file_data(uri: str, media_type: str) -> dict[str, Any]:
    return {"fileUri": uri, "mimeType": media_type} if media_type else {"fileUri": uri}


def _file_uri(file_id: str) -> str:
    if "://" in file_id:
        return file_id
    return FILES_URI + (file_id if file_id.startswith("files/") else f"files/{file_id}")


def _model_parts(
    message: v1.Message, i: int, called: dict[str, str], flags: Mapping[str, str | int | bool]
) -> list[dict[str, Any]]:
    """An assistant's parts; what it called is noted in `called`, id to name."""
    parts = []
    first_call = True
    for j, part in enumerate(message.parts):
        kind = part.WhichOneof("kind")
        signature = part.signature.value if part.signature.dialect == DIALECT else ""
        if kind == "text":
            if not part.text and not signature:
                continue  # Nothing was said, and the vendor refuses empty texts.
            encoded: dict[str, Any] = {"text": part.text}
        elif kind == "reasoning":
            if not signature:
                continue  # Another vendor's, or a mere account of it: only signatures go back.
            encoded = {"text": part.reasoning.text}
            if part.reasoning.text:
                encoded["thought"] = True
        elif kind == "tool_call":
            encoded = {"functionCall": _call(part.tool_call, i, j)}
            called[part.tool_call.id] = part.tool_call.name
            if first_call and not signature and flags.get("skip_signature_check"):
                signature = SKIP_SIGNATURE
            first_call = False
        elif kind == "vendor_item":
            if part.vendor_item.dialect == DIALECT:
                path = f"messages[{i}].parts[{j}].vendor_item.json"
                parts.append(json_object(part.vendor_item.json, path)[0])
            continue
        else:
            encoded = _content_part(part, i, j)
        if signature:
            encoded["thoughtSignature"] = signature
        parts.append(encoded)
    return parts


def _call(call: v1.ToolCall, i: int, j: int) -> dict[str, Any]:
    arguments: Any = {}
    if call.arguments_json:
        path = f"messages[{i}].parts[{j}].tool_call.arguments_json"
        arguments = json_object(call.arguments_json, path)[1]
    return {"id": call.id, "name": call.name, "args": arguments}


def _result_part(part: v1.Part, i: int, j: int, called: dict[str, str]) -> dict[str, Any]:
    """A functionResponse. The texts, one per line, stand under the key that the vendor reads
    as the tool's output or its error; pictures and documents stand beside them."""
    path = f"messages[{i}].parts[{j}]"
    if part.WhichOneof("kind") != "tool_result":
        raise invalid(path, "a ROLE_TOOL message holds only tool results")
    result = part.tool_result
    name = result.name or called.get(result.tool_call_id)
    if not name:
        raise invalid(
            f"{path}.tool_result.tool_call_id", "no earlier message holds a call with this id"
        )
    texts = []
    media = []
    for k, inner in enumerate(result.parts):
        kind = inner.WhichOneof("kind")
        if kind == "text":
            texts.append(inner.text)
        elif kind in _MEDIA:
            media.append(media_part(getattr(inner, kind), f"{path}.tool_result.parts[{k}].{kind}"))
        else:
            raise invalid(
                f"{path}.tool_result.parts[{k}]", "a result holds text, pictures and documents"
            )
    response: dict[str, Any] = {
        "id": result.tool_call_id,
        "name": name,
        "response": {"error" if result.is_error else "output": "\n".join(texts)},
    }
    if media:
        response["parts"] = media
    return {"functionResponse": response}


def json_object(text: str, path: str) -> tuple[dict[str, Any], orjson.Fragment]:
    """The object that a JSON text holds, and the text ready to stand in a body unchanged."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise invalid(path, "is not JSON") from None  # The cause would quote the payload.
    if not isinstance(value, dict):
        raise invalid(path, "must be a JSON object")
    return value, orjson.Fragment(text)
