"""Writes a conversation as the input items of the Responses API.

The shapes are those of OpenAI's OpenAPI document and of its SDK, which judge the golden requests
(tests/golden/openai_responses).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.openai_flags import word
from trunkline_server.providers.openai_messages import Json, data_uri, encode_audio

DIALECT = "openai_responses"

# What joins the pieces of a model's reasoning into one text.
PARAGRAPH = "\n\n"

_DETAILS: Mapping[v1.ImageDetail.ValueType, str] = {
    v1.IMAGE_DETAIL_LOW: "low",
    v1.IMAGE_DETAIL_HIGH: "high",
}
# The lists of a reasoning item, and what their entries are called.
REASONING_LISTS = (("summary", "summary_text"), ("content", "reasoning_text"))


_PLAIN = CodecTarget("")


class _Items:
    """The items written so far, and which calls among them are of custom tools."""

    def __init__(self, target: CodecTarget, *, stored: bool) -> None:
        self.items: list[Json] = []
        self.custom: set[str] = set()
        self.target = target
        self.stored = stored


def encode_items(
    messages: Sequence[v1.Message], target: CodecTarget, *, stored: bool
) -> list[Json]:
    """The vendor's items. `stored`: the vendor keeps what it answers, and knows its own reasoning
    by its id. Raises INVALID_REQUEST for what the dialect cannot carry."""
    written = _Items(target, stored=stored)
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        match message.role:
            case v1.ROLE_USER:
                content = _content(message.parts, f"{path}.parts", "in a user message")
                written.items.append({"role": "user", "content": content})
            case v1.ROLE_SYSTEM:
                content = _content(message.parts, f"{path}.parts", "in a system message", _TEXT)
                written.items.append({"role": word(target, "system_role"), "content": content})
            case v1.ROLE_ASSISTANT:
                _assistant(message, path, written)
            case v1.ROLE_TOOL:
                for number, part in enumerate(message.parts):
                    _tool_result(part, f"{path}.parts[{number}]", written)
            case _:
                raise invalid(f"{path}.role", "is not set")
    return written.items


def _content(
    parts: Sequence[v1.Part],
    path: str,
    where: str,
    kinds: "Mapping[str, Callable[[v1.Part, str], Json]] | None" = None,
) -> str | list[Json]:
    """Content of text, pictures, sounds and documents: a string where it is one text."""
    if len(parts) == 1 and parts[0].text:
        return parts[0].text
    pieces = []
    for index, part in enumerate(parts):
        place = f"{path}[{index}]"
        encode = (kinds or _CONTENT).get(part.WhichOneof("kind") or "")
        if encode is None:
            raise _wrong_kind(part, place, where)
        pieces.append(encode(part, place))
    return pieces


def _text(part: v1.Part, _path: str) -> Json:
    return {"type": "input_text", "text": part.text}


def _image(part: v1.Part, path: str) -> Json:
    image = part.image
    match image.WhichOneof("source"):
        case "data":
            url = data_uri(image.media_type, image.data, f"{path}.image")
        case "uri":
            url = image.uri
            if not url.startswith(("https://", "http://", "data:")):
                raise invalid(f"{path}.image.uri", "this provider takes only https and data URIs")
        case _:
            raise invalid(f"{path}.image", "has no source")
    # The vendor's document demands the detail, and calls its default so.
    detail = _DETAILS.get(image.detail, "auto")
    return {"type": "input_image", "image_url": url, "detail": detail}


def _audio(part: v1.Part, path: str) -> Json:
    # In this API every host that takes sounds takes them in OpenAI's form.
    return encode_audio(part.audio, f"{path}.audio", _PLAIN)


def _file(part: v1.Part, path: str) -> Json:
    file = part.file
    picture = file.media_type.startswith("image/")
    match file.WhichOneof("source"):
        case "file_id" if picture:
            return {"type": "input_image", "file_id": file.file_id, "detail": "auto"}
        case "file_id":
            return {"type": "input_file", "file_id": file.file_id}
        case "data":
            data = data_uri(file.media_type, file.data, f"{path}.file")
        case "uri" if file.uri.startswith("data:"):
            data = file.uri
        case "uri" if picture:
            return {"type": "input_image", "image_url": file.uri, "detail": "auto"}
        case "uri":
            return {"type": "input_file", "file_url": file.uri}
        case _:
            raise invalid(f"{path}.file", "has no source")
    if picture:
        return {"type": "input_image", "image_url": data, "detail": "auto"}
    # OpenAI refuses file_data without a name.
    return {"type": "input_file", "filename": file.filename or "file", "file_data": data}


_TEXT: Mapping[str, Callable[[v1.Part, str], Json]] = {"text": _text}
_RESULT: Mapping[str, Callable[[v1.Part, str], Json]] = {
    **_TEXT,
    "image": _image,
    "file": _file,
}
_CONTENT: Mapping[str, Callable[[v1.Part, str], Json]] = {**_RESULT, "audio": _audio}


def _tool_result(part: v1.Part, path: str, written: _Items) -> None:
    if part.WhichOneof("kind") != "tool_result":
        raise _wrong_kind(part, path, "in a tool message")
    result = part.tool_result
    output = _content(result.parts, f"{path}.tool_result.parts", "in a tool result", _RESULT)
    kind = "custom_tool_call" if result.tool_call_id in written.custom else "function_call"
    written.items.append(
        {"type": f"{kind}_output", "call_id": result.tool_call_id, "output": output or ""}
    )


def _assistant(message: v1.Message, path: str, written: _Items) -> None:
    for index, part in enumerate(message.parts):
        match part.WhichOneof("kind"):
            case "text":
                _said(part, written)
            case "tool_call":
                _call(part, written)
            case "reasoning":
                _reasoning(part, written)
            case "vendor_item":
                _vendor_item(part.vendor_item, f"{path}.parts[{index}].vendor_item", written)
            case _:
                raise _wrong_kind(part, f"{path}.parts[{index}]", "in an assistant message")


def _said(part: v1.Part, written: _Items) -> None:
    """What the assistant said. The pieces of one of the vendor's messages become one again."""
    rest = signed(part)
    refusal = rest.pop("refusal", False) is True
    if not isinstance(rest.get("id"), str):
        written.items.append({"role": "assistant", "content": part.text, **_phase(rest)})
        return
    piece: Json = (
        {"type": "refusal", "refusal": part.text}
        if refusal
        else {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}
    )
    last = written.items[-1] if written.items else {}
    if last.get("type") == "message" and last["id"] == rest["id"]:
        last["content"].append(piece)
        return
    written.items.append(
        {
            "status": "completed",
            **rest,
            "type": "message",
            "role": "assistant",
            "content": [piece],
        }
    )


def _phase(rest: Json) -> Json:
    return {"phase": rest["phase"]} if isinstance(rest.get("phase"), str) else {}


def _call(part: v1.Part, written: _Items) -> None:
    call, rest = part.tool_call, signed(part)
    if rest.get("type") == "custom_tool_call":
        written.custom.add(call.id)
        own: Json = {"input": call.arguments_json}
    else:
        # Some models count their calls anew each turn.
        written.custom.discard(call.id)
        own = {"type": "function_call", "arguments": call.arguments_json or "{}"}
    written.items.append({**rest, **own, "call_id": call.id, "name": call.name})


def _reasoning(part: v1.Part, written: _Items) -> None:
    """The model's own reasoning. What the vendor could only know from its storage, where nothing
    was stored, is left out, as is all that another dialect made."""
    if part.signature.dialect != DIALECT:
        return
    reasoning = part.reasoning
    rest = signed(part)
    lists = _pieces(reasoning.text, rest)
    if not (reasoning.redacted_data or lists.get("content") or written.stored):
        return
    item: Json = {**rest, "type": "reasoning", **lists}
    if reasoning.id:
        item["id"] = reasoning.id
    if reasoning.redacted_data:
        item["encrypted_content"] = reasoning.redacted_data
    written.items.append(item)


def _pieces(text: str, rest: Json) -> Json:
    """The lists that a text of reasoning was joined from, by the lengths that were noted."""
    lengths = {name: _lengths(rest.pop(name)) for name, _ in REASONING_LISTS if name in rest}
    counts = [count for noted in lengths.values() for count in noted if count]
    whole = sum(counts) + len(PARAGRAPH) * (len(counts) - 1) if counts else 0
    if whole != len(text):
        # It was changed on its way.
        return {"summary": [{"type": "summary_text", "text": text}]}
    lists: Json = {"summary": []}
    start = 0
    for name, kind in REASONING_LISTS:
        if name not in lengths:
            continue
        lists[name] = []
        for count in lengths[name]:
            lists[name].append({"type": kind, "text": text[start : start + count]})
            start += count + len(PARAGRAPH) if count else 0
    return lists


def _lengths(noted: Any) -> list[int]:
    """Lengths as the codec notes them; none where a caller wrote something else."""
    if isinstance(noted, list) and all(type(count) is int and count >= 0 for count in noted):
        return noted
    return []


def _vendor_item(item: v1.VendorItem, path: str, written: _Items) -> None:
    if item.dialect != DIALECT:
        return
    try:
        document = orjson.loads(item.json)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise invalid(f"{path}.json", "is not the JSON text of an object")
    if document.get("type") != item.type:
        raise invalid(f"{path}.type", "is not the type of the item")
    written.items.append(document)


def signed(part: v1.Part) -> Json:
    """The fields that the codec kept in the part's signature; none if it was not the codec."""
    if part.signature.dialect != DIALECT or not part.signature.value:
        return {}
    try:
        fields: Any = orjson.loads(part.signature.value)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _wrong_kind(part: v1.Part, path: str, where: str) -> TrunklineError:
    kind = part.WhichOneof("kind")
    if kind is None:
        return invalid(path, "has no content")
    return invalid(f"{path}.{kind}", f"this provider takes no {kind} {where}")
