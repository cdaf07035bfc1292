"""Writes predictions for language models on Replicate."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

import orjson
from google.protobuf import struct_pb2

from trunkline import v1
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.providers.codec import CodecTarget, WireRequest

FLAGS: Mapping[str, str | int | bool] = {
    "image_field": "image",
    "image_list": False,
    "max_tokens_field": "max_tokens",
    "poll_ms": 500,
    "stop_field": "stop_sequences",
    "system_field": "system_prompt",
    "wait": 5,
}

_SAME_NAME: tuple[
    Literal["temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "seed"], ...
] = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "seed")
# How speakers are called where several turns become one prompt.
_SPEAKERS: Mapping[v1.Role.ValueType, str] = {v1.ROLE_USER: "User", v1.ROLE_ASSISTANT: "Assistant"}
_VERSION = re.compile(r"[0-9a-f]{64}")
# Integers up to here survive their passage through a double, which is all a Struct holds.
_EXACT_INTEGERS = 2.0**53


def flag(target: CodecTarget, name: str) -> str | int | bool:
    """The value of a switch."""
    return target.flags.get(name, FLAGS[name])


def encode_prediction(
    request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
) -> WireRequest:
    """The creation of a prediction. Raises INVALID_REQUEST for what no prompt can carry."""
    for field, asked in (
        ("tools", bool(request.tools)),
        ("tool_choice", request.HasField("tool_choice")),
        ("response_format", request.HasField("response_format")),
    ):
        if asked:
            raise invalid(field, "this provider's models take a prompt alone")
    inputs: dict[str, Any] = {}
    _add_prompt(request.messages, target, inputs)
    if request.HasField("config"):
        _add_config(request.config, target, inputs)
    for name, value in request.provider_options.fields.items():
        inputs[name] = _plain(value)
    path, version = _place(target.provider_model)
    body: dict[str, Any] = {**version, "input": inputs}
    headers: tuple[tuple[str, str], ...] = ()
    wait = min(int(flag(target, "wait")), 60)
    if stream:
        body["stream"] = True
    elif wait > 0:
        headers = (("prefer", f"wait={wait}"),)
    return WireRequest(path, orjson.dumps(body), headers)


def _place(model: str) -> tuple[str, dict[str, str]]:
    """The path that creates a prediction of a model, and what names the version in the body."""
    name, _, version = model.rpartition(":")
    if _VERSION.fullmatch(version) and (not name or name.count("/") == 1):
        return "/predictions", {"version": version}
    kind, _, rest = model.partition("/")
    if kind == "deployments":
        if rest.count("/") == 1:
            return f"/deployments/{quote(rest, safe='/')}/predictions", {}
    elif model.count("/") == 1 and ":" not in model:
        return f"/models/{quote(model, safe='/')}/predictions", {}
    raise invalid("model", "is no owner/name, version or deployments/owner/name of this provider's")


def _add_prompt(
    messages: Sequence[v1.Message], target: CodecTarget, inputs: dict[str, Any]
) -> None:
    system: list[str] = []
    turns: list[tuple[str, str]] = []
    pictures: list[tuple[str, str]] = []
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        if message.role == v1.ROLE_SYSTEM:
            system.append(_texts(message, path, None))
        elif message.role in _SPEAKERS:
            seen = pictures if message.role == v1.ROLE_USER else None
            turns.append((_SPEAKERS[message.role], _texts(message, path, seen)))
        elif message.role == v1.ROLE_TOOL:
            raise invalid(f"{path}.role", "this provider's models call no tools")
        else:
            raise invalid(f"{path}.role", "is not set")
    prompt = _prompt(turns)
    field = str(flag(target, "system_field"))
    if system and field:
        inputs[field] = "\n\n".join(system)
    elif system:
        prompt = "\n\n".join([*system, prompt])
    inputs["prompt"] = prompt
    if pictures:
        _add_pictures(pictures, target, inputs)


def _prompt(turns: list[tuple[str, str]]) -> str:
    """One turn as it is; several as a transcript that the model is to go on with."""
    if len(turns) == 1 and turns[0][0] == "User":
        return turns[0][1]
    said = [f"{speaker}: {text}" for speaker, text in turns]
    if not turns or turns[-1][0] == "User":
        said.append("Assistant:")
    return "\n\n".join(said)


def _texts(message: v1.Message, path: str, pictures: list[tuple[str, str]] | None) -> str:
    """A message's text; its pictures are added to `pictures`, None where none are taken."""
    texts = []
    for index, part in enumerate(message.parts):
        kind = part.WhichOneof("kind")
        where = f"{path}.parts[{index}]"
        if kind == "text":
            texts.append(part.text)
        elif kind == "image" and pictures is not None:
            pictures.append((f"{where}.image", _picture(part.image, f"{where}.image")))
        elif kind not in {"reasoning", "vendor_item"}:
            # What a model thought before is a hint; all else would be missed.
            raise _not_taken(kind, where)
    return "\n".join(texts)


def _not_taken(kind: str | None, path: str) -> TrunklineError:
    if kind is None:
        return invalid(path, "is empty")
    return invalid(f"{path}.{kind}", "this provider does not take it here")


def _picture(image: v1.Image, path: str) -> str:
    if image.WhichOneof("source") == "uri":
        return image.uri
    if not image.media_type:
        raise invalid(f"{path}.media_type", "is needed for a picture sent as data")
    return f"data:{image.media_type};base64,{b64encode(image.data).decode()}"


def _add_pictures(
    pictures: list[tuple[str, str]], target: CodecTarget, inputs: dict[str, Any]
) -> None:
    field = str(flag(target, "image_field"))
    if not field:
        raise invalid(pictures[0][0], "this model takes no pictures")
    if flag(target, "image_list"):
        inputs[field] = [picture for _, picture in pictures]
        return
    if len(pictures) > 1:
        raise invalid(pictures[1][0], "this model takes one picture")
    inputs[field] = pictures[0][1]


def _add_config(config: v1.GenerationConfig, target: CodecTarget, inputs: dict[str, Any]) -> None:
    if config.HasField("max_output_tokens"):
        inputs[str(flag(target, "max_tokens_field"))] = config.max_output_tokens
    for name in _SAME_NAME:
        if config.HasField(name):
            inputs[name] = getattr(config, name)
    if config.HasField("reasoning"):
        raise invalid("config.reasoning", "this provider does not support it")
    if config.stop:
        field = str(flag(target, "stop_field"))
        if not field:
            raise invalid("config.stop", "this model does not support it")
        for index, text in enumerate(config.stop):
            if "," in text:
                raise invalid(f"config.stop[{index}]", "this provider parts stop texts by commas")
        inputs[field] = ",".join(config.stop)


def _plain(value: struct_pb2.Value) -> Any:
    """A Struct's value as JSON data; whole numbers become integers, as models demand."""
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= _EXACT_INTEGERS else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return {name: _plain(inner) for name, inner in value.struct_value.fields.items()}
        case "list_value":
            return [_plain(inner) for inner in value.list_value.values]
        case _:
            return None
