"""Writes a conversation in the OpenAI dialect.

The shapes are those of OpenAI's own SDK, whose types judge the golden requests
(tests/golden/openai).
"""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.openai_flags import enabled, word
from trunkline_server.providers.openai_hosts import nine_characters

Json = dict[str, Any]

DIALECT = "openai"

# What the roles are called; that of the system goes by a flag.
_ROLES: Mapping[v1.Role.ValueType, str] = {
    v1.ROLE_USER: "user",
    v1.ROLE_ASSISTANT: "assistant",
    v1.ROLE_SYSTEM: "",
}

_DETAILS: Mapping[v1.ImageDetail.ValueType, str] = {
    v1.IMAGE_DETAIL_LOW: "low",
    v1.IMAGE_DETAIL_HIGH: "high",
}
_AUDIO_FORMATS: Mapping[str, str] = {
    "audio/wav": "wav",
    "audio/wave": "wav",
    "audio/x-wav": "wav",
    "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}


def encode_messages(messages: Sequence[v1.Message], target: CodecTarget) -> list[Json]:
    """The vendor's messages. Raises INVALID_REQUEST for what the dialect cannot carry."""
    encoded: list[Json] = []
    for index, message in enumerate(messages):
        role = message.role
        text = _only_text(message.parts)
        if text and role in _ROLES:
            entry = {"role": _ROLES[role] or word(target, "system_role"), "content": text}
        elif role == v1.ROLE_TOOL:
            encoded += _tool_results(message, f"messages[{index}]", target)
            continue
        else:
            entry = _entry(message, f"messages[{index}]", target)
        if message.name and enabled(target, "message_names"):
            entry["name"] = message.name
        encoded.append(entry)
    return encoded


def _only_text(parts: Sequence[v1.Part]) -> str:
    """The text of a message that is nothing else, as most are; empty for any other."""
    if len(parts) != 1 or parts[0].cache_breakpoint:
        return ""
    return parts[0].text


def _entry(message: v1.Message, path: str, target: CodecTarget) -> Json:
    match message.role:
        case v1.ROLE_ASSISTANT:
            return _assistant(message, path, target)
        case v1.ROLE_USER:
            return {"role": "user", "content": _content(message, path, target, _user_part)}
        case v1.ROLE_SYSTEM:
            content = _content(message, path, target, _text_part)
            return {"role": word(target, "system_role"), "content": content}
        case _:
            raise invalid(f"{path}.role", "is not set")


def _content(
    message: v1.Message,
    path: str,
    target: CodecTarget,
    encode_part: Callable[[v1.Part, str, CodecTarget], Json],
) -> Any:
    """The content of a system or user message: a string where it is one text, else pieces."""
    pieces = [
        encode_part(part, f"{path}.parts[{index}]", target)
        for index, part in enumerate(message.parts)
    ]
    return _join(pieces, target)


def _join(pieces: list[Json], target: CodecTarget) -> Any:
    if len(pieces) == 1 and pieces[0].keys() == {"type", "text"}:
        return pieces[0]["text"]
    if enabled(target, "string_content") and all(piece["type"] == "text" for piece in pieces):
        return "\n".join(piece["text"] for piece in pieces)
    return pieces or ""


def _text_part(part: v1.Part, path: str, target: CodecTarget) -> Json:
    if part.WhichOneof("kind") != "text":
        raise _wrong_kind(part, path, "in a system message")
    return _cached({"type": "text", "text": part.text}, part, target)


def _user_part(part: v1.Part, path: str, target: CodecTarget) -> Json:
    match part.WhichOneof("kind"):
        case "text":
            piece: Json = {"type": "text", "text": part.text}
        case "image":
            piece = _image(part.image, f"{path}.image", target)
        case "audio":
            piece = encode_audio(part.audio, f"{path}.audio", target)
        case "file":
            piece = _file(part.file, f"{path}.file", target)
        case _:
            raise _wrong_kind(part, path, "in a user message")
    return _cached(piece, part, target)


def _cached(piece: Json, part: v1.Part, target: CodecTarget) -> Json:
    # OpenAI caches by itself; hosts before other models take Anthropic's mark.
    if part.cache_breakpoint and enabled(target, "cache_control"):
        piece["cache_control"] = {"type": "ephemeral"}
    return piece


def _image(image: v1.Image, path: str, target: CodecTarget) -> Json:
    match image.WhichOneof("source"):
        case "data":
            url = data_uri(image.media_type, image.data, path)
        case "uri":
            url = image.uri
            if not url.startswith(("https://", "http://", "data:")):
                raise invalid(f"{path}.uri", "this provider takes only https and data URIs")
            if not url.startswith("data:") and not enabled(target, "image_urls"):
                raise invalid(f"{path}.uri", "this provider takes pictures only by value")
        case _:
            raise invalid(path, "has no source")
    reference = {"url": url}
    detail = _DETAILS.get(image.detail)
    if detail is not None:
        reference["detail"] = detail
    return {"type": "image_url", "image_url": reference}


def encode_audio(audio: v1.Audio, path: str, target: CodecTarget) -> Json:
    form = word(target, "audio_form")
    if not form:
        raise invalid(path, "this provider takes no audio")
    if audio.WhichOneof("source") != "data":
        raise invalid(path, "this provider takes audio only by value")
    media_type = audio.media_type.partition(";")[0].strip().lower()
    audio_format = _AUDIO_FORMATS.get(media_type)
    if audio_format is None:
        raise invalid(f"{path}.media_type", "this provider takes only audio/wav and audio/mpeg")
    if form == "audio_url":
        url = data_uri(media_type, audio.data, path)
        return {"type": "audio_url", "audio_url": {"url": url}}
    data = b64encode(audio.data).decode()
    sound = data if form == "text" else {"data": data, "format": audio_format}
    return {"type": "input_audio", "input_audio": sound}


def _file(file: v1.File, path: str, target: CodecTarget) -> Json:
    form = word(target, "file_form")
    if not form:
        raise invalid(path, "this provider takes no files")
    match file.WhichOneof("source"):
        case "file_id":
            if form == "document_url":
                return {"type": "file", "file_id": file.file_id}
            return {"type": "file", "file": {"file_id": file.file_id}}
        case "data":
            data = data_uri(file.media_type, file.data, path)
        case "uri" if file.uri.startswith("data:") or enabled(target, "file_urls"):
            data = file.uri
        case "uri":
            raise invalid(f"{path}.uri", "this provider takes files only by value or by file_id")
        case _:
            raise invalid(path, "has no source")
    if form == "document_url":
        document: Json = {"type": "document_url", "document_url": data}
        if file.filename:
            document["document_name"] = file.filename
        return document
    # OpenAI refuses file_data without a name.
    return {"type": "file", "file": {"filename": file.filename or "file", "file_data": data}}


def data_uri(media_type: str, data: bytes, path: str) -> str:
    if not media_type:
        raise invalid(f"{path}.media_type", "is required with data")
    return f"data:{media_type};base64,{b64encode(data).decode()}"


def _tool_results(message: v1.Message, path: str, target: CodecTarget) -> list[Json]:
    if not enabled(target, "tools"):
        raise invalid(path, "this provider takes no results of tools")
    encoded: list[Json] = []
    for index, part in enumerate(message.parts):
        part_path = f"{path}.parts[{index}]"
        if part.WhichOneof("kind") != "tool_result":
            raise _wrong_kind(part, part_path, "in a tool message")
        texts = []
        for inner, piece in enumerate(part.tool_result.parts):
            if piece.WhichOneof("kind") != "text":
                raise _wrong_kind(
                    piece, f"{part_path}.tool_result.parts[{inner}]", "in a tool result"
                )
            texts.append(piece.text)
        content = _join([{"type": "text", "text": text} for text in texts], target)
        call_id = _call_id(part.tool_result.tool_call_id, target)
        encoded.append({"role": "tool", "tool_call_id": call_id, "content": content})
    return encoded


def _call_id(call_id: str, target: CodecTarget) -> str:
    """The id of a call as the host takes it, in the call and in its result alike."""
    return nine_characters(call_id) if word(target, "tool_call_ids") == "mistral" else call_id


def _assistant(message: v1.Message, path: str, target: CodecTarget) -> Json:
    pieces: list[Json] = []
    calls: list[Json] = []
    images: list[Json] = []
    reasoning: list[v1.Part] = []
    entry: Json = {"role": "assistant", "content": None}
    for index, part in enumerate(message.parts):
        part_path = f"{path}.parts[{index}]"
        match part.WhichOneof("kind"):
            case "text":
                pieces.append(_cached({"type": "text", "text": part.text}, part, target))
            case "tool_call" if enabled(target, "tools"):
                calls.append(_tool_call(part, len(calls), target))
            case "reasoning":
                reasoning.append(part)
            case "image" if enabled(target, "assistant_images"):
                images.append(_image(part.image, f"{part_path}.image", target))
            case "audio" if part.signature.dialect == DIALECT:
                # OpenAI knows its own recordings by id and takes them in no other way.
                entry["audio"] = {"id": part.signature.value}
            case _:
                _check_foreign(part, part_path)
    if reasoning:
        pieces = _return_reasoning(reasoning, word(target, "reasoning_return"), entry) + pieces
    if pieces:
        entry["content"] = _join(pieces, target)
    elif not calls and "audio" not in entry:
        entry["content"] = ""
    if calls:
        entry["tool_calls"] = calls
    if images:
        entry["images"] = images
    return entry


def _check_foreign(part: v1.Part, path: str) -> None:
    """Vendors' items are other dialects', for this one makes none: they are dropped. Anything
    else has no place in an assistant message."""
    if part.WhichOneof("kind") != "vendor_item":
        raise _wrong_kind(part, path, "in an assistant message")


def _tool_call(part: v1.Part, number: int, target: CodecTarget) -> Json:
    call = part.tool_call
    entry: Json = {
        "id": _call_id(call.id, target),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments_json or "{}"},
    }
    if enabled(target, "call_index"):
        entry["index"] = number
    if part.HasField("signature") and enabled(target, "extra_content"):
        extra = _signed(part)
        if extra:
            entry["extra_content"] = extra
    return entry


def _signed(part: v1.Part) -> Json:
    """The fields that the codec kept in the part's signature; none if it was not the codec."""
    if part.signature.dialect != DIALECT:
        return {}
    try:
        fields = orjson.loads(part.signature.value)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _return_reasoning(parts: list[v1.Part], how: str, entry: Json) -> list[Json]:
    """Adds the model's own reasoning to its message; gives the content pieces to put first."""
    text = "".join(part.reasoning.text for part in parts)
    match how:
        case "reasoning_content" | "reasoning":
            if text:
                entry[how] = text
        case "reasoning_details":
            entry["reasoning_details"] = [_reasoning_detail(part) for part in parts]
        case "thinking":
            return [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]
    return []


def _reasoning_detail(part: v1.Part) -> Json:
    """The entry of `reasoning_details` that a reasoning part was made from."""
    detail = _signed(part)
    if part.reasoning.redacted_data:
        detail.setdefault("type", "reasoning.encrypted")
        detail["data"] = part.reasoning.redacted_data
    elif detail.setdefault("type", "reasoning.text") == "reasoning.summary":
        detail["summary"] = part.reasoning.text
    else:
        detail["text"] = part.reasoning.text
    if part.reasoning.id:
        detail["id"] = part.reasoning.id
    return detail


def _wrong_kind(part: v1.Part, path: str, where: str) -> TrunklineError:
    kind = part.WhichOneof("kind")
    if kind is None:
        return invalid(path, "has no content")
    return invalid(f"{path}.{kind}", f"this provider takes no {kind} {where}")
