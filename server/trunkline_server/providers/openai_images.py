"""Images in the OpenAI dialect: /images/generations, and /images/edits where there is a picture to
begin from.

Shapes are those of OpenAI's own SDK, which is content with the simulator's.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import invalid
from trunkline_server.providers.codec import CodecTarget, WireRequest
from trunkline_server.providers.multipart import Part, form
from trunkline_server.providers.openai_encode import merge_options, put_user
from trunkline_server.providers.openai_errors import reported_error
from trunkline_server.providers.openai_flags import enabled, operation_path, word
from trunkline_server.providers.openai_messages import Json
from trunkline_server.providers.openai_parts import decode_base64, load, senseless, text_of
from trunkline_server.providers.openai_usage import counts_of

_OWN_FIELDS = frozenset({"model", "prompt", "image", "image[]", "mask", "n", "stream"})
_FORMATS: Mapping[str, str] = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/webp": "webp",
}
# How files of the formats begin; WEBP says so after its length.
_MARKS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"RIFF", "image/webp"),
    (b"GIF8", "image/gif"),
)


def encode_image(request: v1.GenerateImageRequest, target: CodecTarget) -> WireRequest:
    """The call of the one or the other; raises as ImageCodec.encode_image says."""
    body: Json = {"model": target.provider_model, "prompt": request.prompt}
    if request.HasField("count"):
        body["n"] = request.count
    if ":" in request.size:
        raise invalid("size", "this provider wants WIDTHxHEIGHT in pixels")
    for name in ("size", "quality"):
        if given := getattr(request, name):
            body[name] = given
    if request.style:
        if not enabled(target, "image_style"):
            raise invalid("style", "this model takes none")
        body["style"] = request.style
    _media_type(request.media_type, target, body)
    _extras(request, target, body)
    if asked := word(target, "image_response_format"):
        body["response_format"] = asked
    if request.HasField("context"):
        put_user(request.context, target, body)
    if request.HasField("provider_options"):
        merge_options(request.provider_options, _OWN_FIELDS, body)
    if not request.images:
        return WireRequest(operation_path("/images/generations", target), orjson.dumps(body))
    content, content_type = form([*_fields(body), *_files(request)])
    path = operation_path("/images/edits", target)
    return WireRequest(path, content, content_type=content_type)


def _media_type(media_type: str, target: CodecTarget, body: Json) -> None:
    if not media_type:
        return
    word_for = _FORMATS.get(media_type.lower())
    if enabled(target, "image_media_type"):
        if word_for is None:
            raise invalid("media_type", f"this provider makes {', '.join(_FORMATS)}")
        body["output_format"] = word_for
    elif word_for != "png":
        raise invalid("media_type", "this model makes image/png")


def _extras(request: v1.GenerateImageRequest, target: CodecTarget, body: Json) -> None:
    for name, given in (
        ("negative_prompt", bool(request.negative_prompt)),
        ("seed", request.HasField("seed")),
    ):
        if given:
            if not enabled(target, "image_extras"):
                raise invalid(name, "this provider does not support it")
            body[name] = getattr(request, name)


def _fields(body: Json) -> list[Part]:
    """Fields of a form; what is no text or number stands there as JSON."""
    return [
        Part(name, value.encode() if isinstance(value, str) else orjson.dumps(value))
        for name, value in body.items()
    ]


def _files(request: v1.GenerateImageRequest) -> list[Part]:
    name = "image" if len(request.images) == 1 else "image[]"
    files = [_file(name, image, f"images[{place}]") for place, image in enumerate(request.images)]
    if request.HasField("mask"):
        files.append(_file("mask", request.mask, "mask"))
    return files


def _file(name: str, image: v1.Image, path: str) -> Part:
    if image.WhichOneof("source") != "data":
        raise invalid(path, "this provider takes pictures as data alone, not by their address")
    ending = _FORMATS.get(image.media_type.lower())
    if ending is None:
        raise invalid(f"{path}.media_type", f"this provider takes {', '.join(_FORMATS)}")
    return Part(name, image.data, f"{name.removesuffix('[]')}.{ending}", image.media_type)


def decode_image(body: bytes, into: v1.GenerateImageResponse) -> None:
    """Fills the answer; raises as ImageCodec.decode_image says."""
    document = load(body)
    error = reported_error(document)
    if error is not None:
        raise error
    data = document.get("data")
    if not isinstance(data, list) or not data:
        raise senseless("the answer holds no image")
    for entry in data:
        if not isinstance(entry, dict):
            raise senseless("the answer holds an image that is not an object")
        image = into.images.add()
        image.revised_prompt = text_of(entry.get("revised_prompt"))
        if encoded := text_of(entry.get("b64_json")):
            image.image.data = decode_base64(encoded)
            image.image.media_type = media_type_of(image.image.data)
        elif uri := text_of(entry.get("url")):
            image.image.uri = uri
        else:
            raise senseless("the answer holds an image without its content")
    into.model = text_of(document.get("model"))
    variant = [text_of(document.get(name)) for name in ("quality", "size")]
    if any(variant):
        into.usage.image_variant = "/".join(variant)
    _usage(document.get("usage"), into.usage)


def media_type_of(data: bytes) -> str:
    """The IANA media type of a picture, by its first bytes; application/octet-stream if they are
    none that is known."""
    return next(
        (kind for mark, kind in _MARKS if data.startswith(mark)), "application/octet-stream"
    )


def _usage(usage: Any, into: v1.Usage) -> None:
    counts = counts_of(usage)
    if not counts:
        return
    into.source = v1.USAGE_SOURCE_PROVIDER
    into.input_tokens = counts.get("input_tokens", 0)
    into.output_tokens = counts.get("output_tokens", 0)
    into.input_image_tokens = counts_of(usage.get("input_tokens_details")).get("image_tokens", 0)
    details = counts_of(usage.get("output_tokens_details"))
    # Models that tell no parts write nothing but the picture.
    into.output_image_tokens = details.get("image_tokens", 0) if details else into.output_tokens
