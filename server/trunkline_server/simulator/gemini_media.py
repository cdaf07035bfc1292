"""Pictures and speech of the Gemini dialect."""

import base64
from collections.abc import Iterator
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.dialect import Call, Reply
from trunkline_server.simulator.gemini_contents import Fields
from trunkline_server.simulator.media import RATE, length_ms, png, samples
from trunkline_server.simulator.vendor_error import VendorError

# The vendor's tokens for a picture, and for a second of speech.
_PICTURE_TOKENS = 1290
_SPEECH_TOKENS = 25
_SIDES = {"1:1": (64, 64), "16:9": (64, 36), "9:16": (36, 64), "4:3": (64, 48), "3:4": (48, 64)}
_PIECE = 4_096


def asks_for(call: Call, modality: str) -> bool:
    """Whether an answer is to be of this kind."""
    config = call.body.get("generationConfig")
    wanted = config.get("responseModalities") if isinstance(config, dict) else None
    return isinstance(wanted, list) and modality in wanted


def picture(call: Call) -> Fields:
    """A picture by generateContent."""
    if not call.model.images:
        raise VendorError("invalid", "Image generation is not supported by this model.")
    text, seen = _words(call)
    config: Any = call.body["generationConfig"]
    width, height = _sides(config.get("imageConfig", {}).get("aspectRatio", "1:1"))
    data = base64.b64encode(png(text, width, height)).decode()
    finish = "IMAGE_SAFETY" if call.filtered else "STOP"
    parts = [] if call.filtered else [{"inlineData": {"mimeType": "image/png", "data": data}}]
    read = tokens.count(text) + 258 * seen
    written = 0 if call.filtered else _PICTURE_TOKENS
    return {
        "candidates": [
            {"content": {"parts": parts, "role": "model"}, "finishReason": finish, "index": 0}
        ],
        "usageMetadata": {
            "promptTokenCount": read,
            "candidatesTokenCount": written,
            "totalTokenCount": read + written,
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": written}],
        },
        "modelVersion": call.honest_name,
        "responseId": f"sim{call.number:012d}",
    }


def predict(call: Call) -> Reply:
    """Pictures by Imagen's predict."""
    if not call.model.images:
        raise VendorError("not_found", "predict is not supported by this model.")
    instances, parameters = call.body.get("instances"), call.body.get("parameters") or {}
    prompt = instances[0].get("prompt") if isinstance(instances, list) and instances else None
    if not isinstance(prompt, str) or not prompt:
        raise VendorError("invalid", "a prompt is required", param="instances")
    count = parameters.get("sampleCount", 4)
    if not isinstance(count, int) or not 1 <= count <= 4:
        raise VendorError("invalid", "sampleCount must be from 1 to 4", param="sampleCount")
    if call.filtered:
        reason = {"raiFilteredReason": "The prompt was held back by a filter."}
        return Reply(orjson.dumps({"predictions": [reason]}))
    width, height = _sides(parameters.get("aspectRatio", "1:1"))
    kind = parameters.get("outputOptions", {}).get("mimeType", "image/png")
    predictions = [
        {
            "mimeType": kind,
            "bytesBase64Encoded": base64.b64encode(png(f"{prompt} {i}", width, height)).decode(),
        }
        for i in range(count)
    ]
    return Reply(orjson.dumps({"predictions": predictions}))


def speech(call: Call) -> Iterator[Fields]:
    """Speech by streamGenerateContent."""
    if not call.model.speech:
        raise VendorError("invalid", "Audio output is not supported by this model.")
    text, _ = _words(call)
    length = length_ms(text)
    sound = b"" if call.filtered else samples(length)
    pieces = [sound[start : start + _PIECE] for start in range(0, len(sound), _PIECE)]
    read, written = tokens.count(text), _SPEECH_TOKENS * length // 1000 + 1
    for place, piece in enumerate(pieces or [b""]):
        last = place >= len(pieces) - 1
        data = base64.b64encode(piece).decode()
        inline = {"mimeType": f"audio/L16;codec=pcm;rate={RATE}", "data": data}
        candidate: Fields = {
            "content": {"parts": [{"inlineData": inline}] if piece else [], "role": "model"},
            "index": 0,
        }
        if last:
            candidate["finishReason"] = "SAFETY" if call.filtered else "STOP"
        so_far = written if last else written * place // len(pieces)
        yield {
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": read,
                "candidatesTokenCount": so_far,
                "totalTokenCount": read + so_far,
                "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": so_far}],
            },
            "modelVersion": call.honest_name,
            "responseId": f"sim{call.number:012d}",
        }


def _words(call: Call) -> tuple[str, int]:
    """The text of the request, and how many pictures are with it."""
    text, seen = [], 0
    contents: Any = call.body.get("contents")
    for content in contents if isinstance(contents, list) else ():
        for part in content.get("parts", ()):
            text.append(part.get("text", ""))
            seen += "inlineData" in part or "fileData" in part
    words = " ".join(text).strip()
    if not words:
        raise VendorError("invalid", "contents are required", param="contents")
    return words, seen


def _sides(ratio: Any) -> tuple[int, int]:
    if ratio not in _SIDES:
        raise VendorError("invalid", f"aspectRatio must be one of {', '.join(_SIDES)}")
    return _SIDES[ratio]
