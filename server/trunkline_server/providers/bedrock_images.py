"""Pictures by InvokeModel, whose bodies are the models' own.

Shapes follow "Amazon Titan Image Generator", "Amazon Nova Canvas" and "Stability AI models" among
the model parameters of the Bedrock user guide. None was recorded.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError, invalid
from trunkline_server.providers.bedrock_decode import SHAPE_ERRORS
from trunkline_server.providers.bedrock_encode import plain
from trunkline_server.providers.bedrock_errors import bad_response
from trunkline_server.providers.bedrock_media import inline
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.common import shorten

Body = dict[str, Any]

_PIXELS = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
_RATIO = re.compile(r"[1-9]\d?:[1-9]\d?")
_FORMATS: Mapping[str, str] = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}
_RESERVED = frozenset({"prompt", "text_prompts", "taskType"})


def encode_picture(request: v1.GenerateImageRequest, target: CodecTarget) -> Body:
    """The body for a model, in the form that the flag `image_as` names.

    Raises TrunklineError(INVALID_REQUEST) naming the field for what the model cannot be told.
    """
    encode = _FORMS.get(str(target.flags.get("image_as", "")))
    if encode is None:
        raise invalid("model", "is not known to make pictures here; the flag image_as tells how")
    if request.HasField("mask"):
        raise invalid("mask", "this provider's masks are of another kind: black and white")
    body = encode(request)
    options = request.provider_options.fields
    for name in sorted(options):
        where = f"provider_options.{name}"
        if name in _RESERVED:
            raise invalid(where, "may not be replaced")
        value = plain(options[name], where)
        present = body.get(name)
        if isinstance(present, dict) and isinstance(value, dict):
            value = {**present, **value}
        body[name] = value
    return body


def decode_pictures(
    body: bytes, request: v1.GenerateImageRequest, into: v1.GenerateImageResponse
) -> None:
    """Fills the pictures, but those that a filter held back.

    Raises UpstreamError with CONTENT_FILTER when every one was.
    """
    try:
        answer = orjson.loads(body)
        reasons = answer.get("finish_reasons") or ()
        held_back = [reason for reason in reasons if reason]
        # Titan's models say it of all, beside what pictures are left.
        if answer.get("error"):
            held_back.append(answer["error"])
        media_type = request.media_type or "image/png"
        for number, picture in enumerate(answer.get("images") or ()):
            if number < len(reasons) and reasons[number]:
                continue
            image = into.images.add().image
            image.data = base64.b64decode(picture, validate=True)
            image.media_type = media_type
        words = shorten("; ".join(held_back))
    except SHAPE_ERRORS:
        into.ClearField("images")
        raise bad_response("an answer that holds no pictures") from None
    if not into.images:
        if not held_back:
            raise bad_response("an answer that holds no pictures")
        raise UpstreamError(v1.ERROR_REASON_CONTENT_FILTER, words, http_status=200)


def _titan(request: v1.GenerateImageRequest) -> Body:
    if request.style:
        raise invalid("style", "this model does not offer it")
    return _amazon(request)


def _canvas(request: v1.GenerateImageRequest) -> Body:
    body = _amazon(request)
    if request.style:
        if body["taskType"] != "TEXT_IMAGE":
            raise invalid("style", "this model takes it without pictures only")
        body["textToImageParams"]["style"] = request.style
    return body


def _amazon(request: v1.GenerateImageRequest) -> Body:
    """What Titan's generator and Nova Canvas share."""
    if request.media_type not in {"", "image/png"}:
        raise invalid("media_type", "must be image/png for this model")
    asked: Body = {"text": request.prompt}
    if request.negative_prompt:
        asked["negativeText"] = request.negative_prompt
    config: Body = {}
    if request.HasField("count"):
        config["numberOfImages"] = request.count
    if request.size:
        found = _PIXELS.fullmatch(request.size)
        if found is None:
            raise invalid("size", "must be WIDTHxHEIGHT in pixels for this model")
        config["width"], config["height"] = int(found[1]), int(found[2])
    if request.quality:
        config["quality"] = request.quality
    if request.HasField("seed"):
        config["seed"] = request.seed
    body: Body = {"taskType": "TEXT_IMAGE", "textToImageParams": asked}
    if request.images:
        asked["images"] = [_given(image, at) for at, image in enumerate(request.images)]
        body = {"taskType": "IMAGE_VARIATION", "imageVariationParams": asked}
    if config:
        body["imageGenerationConfig"] = config
    return body


def _stability(request: v1.GenerateImageRequest) -> Body:
    for field in ("quality", "style"):
        if getattr(request, field):
            raise invalid(field, "this model does not offer it")
    if request.count > 1:
        raise invalid("count", "must be 1: this model makes one picture in a call")
    if len(request.images) > 1:
        raise invalid("images", "must hold at most one picture for this model")
    body: Body = {"prompt": request.prompt}
    if request.negative_prompt:
        body["negative_prompt"] = request.negative_prompt
    if request.size:
        if not _RATIO.fullmatch(request.size):
            raise invalid("size", 'must be an aspect ratio such as "16:9" for this model')
        body["aspect_ratio"] = request.size
    if request.HasField("seed"):
        body["seed"] = request.seed
    if request.media_type:
        if request.media_type not in _FORMATS:
            raise invalid("media_type", f"must be one of {', '.join(sorted(_FORMATS))}")
        body["output_format"] = _FORMATS[request.media_type]
    if request.images:
        body["mode"] = "image-to-image"
        body["image"] = _given(request.images[0], 0)
        # The model demands to be told how much may change; this is what its own pages show.
        body["strength"] = 0.7
    return body


def _given(image: v1.Image, at: int) -> str:
    """A picture of the request, in base64."""
    where = f"images[{at}]"
    data = image.data
    if image.uri.startswith("data:"):
        _, data = inline(image.uri, where)
    elif image.uri:
        raise invalid(f"{where}.uri", "must be a data URI for this provider")
    if not data:
        raise invalid(where, "must hold data or a URI")
    return binascii.b2a_base64(data, newline=False).decode()


_FORMS: Mapping[str, Callable[[v1.GenerateImageRequest], Body]] = {
    "titan": _titan,
    "canvas": _canvas,
    "stability": _stability,
}
