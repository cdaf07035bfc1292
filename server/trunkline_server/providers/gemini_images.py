"""Pictures of the Gemini dialect: by generateContent, or by Imagen's predict.

Shapes are those of the Gemini API's v1beta and of Vertex AI's discovery document, and of Google's
own SDK, which is content with the simulator's.
"""

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError, invalid
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.gemini_contents import media_part
from trunkline_server.providers.gemini_decode import finish_reason, finish_word, first_candidate
from trunkline_server.providers.gemini_decode import read_usage as read_counts
from trunkline_server.providers.gemini_encode import merge, options_of
from trunkline_server.providers.gemini_errors import reported_error
from trunkline_server.providers.gemini_json import (
    Json,
    as_object,
    list_at,
    object_at,
    read_document,
    senseless,
    text_at,
)

_PROTECTED = frozenset(("contents", "model", "instances"))
# The vendor's words for how large a picture is; it has none for how carefully it is made.
_SIZES: Mapping[str, str] = {"1k": "1K", "2k": "2K", "4k": "4K"}
_SEEDS = range(2**31)


def encode_image(request: v1.GenerateImageRequest, target: CodecTarget) -> tuple[str, bytes]:
    """The verb and the body; raises as ImageCodec.encode_image says."""
    if request.size and ":" not in request.size and request.size != "auto":
        raise invalid("size", "this provider wants an aspect ratio such as 16:9")
    if request.style:
        raise invalid("style", "this provider takes none; say it in the prompt")
    if request.HasField("mask"):
        raise invalid("mask", "this provider takes none; say in the prompt what to change")
    if request.quality and request.quality.lower() not in _SIZES:
        raise invalid("quality", f"this provider has {', '.join(_SIZES.values())}")
    if target.flags.get("image_call", "generate") == "predict":
        return "predict", _predict_body(request)
    return "generateContent", _generate_body(request)


def _generate_body(request: v1.GenerateImageRequest) -> bytes:
    if request.count > 1:
        raise invalid("count", "this model makes one picture a call")
    for name, given in (
        ("negative_prompt", bool(request.negative_prompt)),
        ("media_type", bool(request.media_type)),
    ):
        if given:
            raise invalid(name, "this model does not support it")
    parts: list[Json] = [{"text": request.prompt}]
    parts += [media_part(image, f"images[{i}]") for i, image in enumerate(request.images)]
    image: Json = _shape(request)
    config: Json = {"responseModalities": ["IMAGE"]}
    if image:
        config["imageConfig"] = image
    if request.HasField("seed"):
        config["seed"] = _seed(request.seed)
    body: dict[str, Any] = {
        "contents": [{"role": "user", "parts": parts}],
        "generationConfig": config,
    }
    if request.HasField("provider_options"):
        merge(body, options_of(request.provider_options, _PROTECTED))
    return orjson.dumps(body)


def _predict_body(request: v1.GenerateImageRequest) -> bytes:
    if request.images:
        raise invalid("images", "this model begins from none")
    parameters: Json = {"sampleCount": request.count if request.HasField("count") else 1}
    shape = _shape(request)
    if "aspectRatio" in shape:
        parameters["aspectRatio"] = shape["aspectRatio"]
    if "imageSize" in shape:
        parameters["sampleImageSize"] = shape["imageSize"]
    if request.negative_prompt:
        parameters["negativePrompt"] = request.negative_prompt
    if request.HasField("seed"):
        parameters["seed"] = _seed(request.seed)
        # The vendor marks pictures invisibly unless told not to, and then takes no seed.
        parameters["addWatermark"] = False
    if request.media_type:
        if request.media_type not in {"image/png", "image/jpeg"}:
            raise invalid("media_type", "this model makes image/png and image/jpeg")
        parameters["outputOptions"] = {"mimeType": request.media_type}
    body: dict[str, Any] = {"instances": [{"prompt": request.prompt}], "parameters": parameters}
    if request.HasField("provider_options"):
        merge(body, options_of(request.provider_options, _PROTECTED))
    return orjson.dumps(body)


def _shape(request: v1.GenerateImageRequest) -> Json:
    shape: Json = {}
    if ":" in request.size:
        shape["aspectRatio"] = request.size
    if request.quality:
        shape["imageSize"] = _SIZES[request.quality.lower()]
    return shape


def _seed(seed: int) -> int:
    if seed not in _SEEDS:
        raise invalid("seed", "must fit into 31 bits for this provider")
    return seed


def decode_image(body: bytes, into: v1.GenerateImageResponse) -> None:
    """Fills the answer of either verb; raises as ImageCodec.decode_image says."""
    reply = read_document(body)
    if "predictions" in reply:
        _read_predictions(reply, into)
        return
    candidate = first_candidate(reply)
    if candidate is None:
        raise senseless("has neither a candidate nor a reason for having none")
    text = ""
    for item in list_at(object_at(candidate, "content"), "parts"):
        part = as_object(item, "parts")
        # What the model thought of on the way are drafts.
        if part.get("thought"):
            continue
        text += text_at(part, "text")
        inline = object_at(part, "inlineData")
        if inline:
            _add(inline, "mimeType", "data", into)
    word = finish_word(candidate)
    if not into.images:
        if finish_reason(word, calls=False) == v1.FINISH_REASON_CONTENT_FILTER:
            raise _withheld(word)
        raise senseless(f"holds no picture: {word or 'no reason given'}")
    into.images[0].revised_prompt = text
    into.model = text_at(reply, "modelVersion")
    read_counts(reply, into.usage)


def _read_predictions(reply: Json, into: v1.GenerateImageResponse) -> None:
    reasons = []
    for item in list_at(reply, "predictions"):
        prediction = as_object(item, "predictions")
        if "raiFilteredReason" in prediction:
            reasons.append(text_at(prediction, "raiFilteredReason"))
        elif "bytesBase64Encoded" in prediction:
            _add(prediction, "mimeType", "bytesBase64Encoded", into)
            into.images[-1].revised_prompt = text_at(prediction, "prompt")
    if not into.images:
        if reasons:
            raise _withheld(reasons[0])
        if "error" in reply:
            raise reported_error(reply)
        raise senseless("holds no picture")


def _add(holder: Json, kind: str, data: str, into: v1.GenerateImageResponse) -> None:
    image = into.images.add().image
    image.media_type = text_at(holder, kind)
    try:
        image.data = base64.b64decode(text_at(holder, data), validate=True)
    except ValueError:
        raise senseless("holds a picture that is not base64") from None


def _withheld(reason: str) -> UpstreamError:
    return UpstreamError(
        v1.ERROR_REASON_CONTENT_FILTER,
        f"the provider held every picture back: {reason[:200]}",
        http_status=200,
    )
