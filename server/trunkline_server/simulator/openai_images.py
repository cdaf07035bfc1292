"""Images of the OpenAI dialect."""

import base64
import re
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.dialect import Call, Reply
from trunkline_server.simulator.known_fields import OPENAI_IMAGE_EDITS, OPENAI_IMAGES
from trunkline_server.simulator.media import Upload, png
from trunkline_server.simulator.openai_messages import missing, wrong
from trunkline_server.simulator.vendor_error import VendorError

_SIZE = re.compile(r"(\d{2,4})x(\d{2,4})")
_MOST = 10
# OpenAI's tokens for a picture of 1024 x 1024, by quality.
_TOKENS = {"low": 272, "medium": 1056, "high": 4160}
_SEEN_TOKENS = 765


def generate_images(call: Call) -> Reply:
    """POST /images/generations."""
    return _pictures(call, OPENAI_IMAGES, seen=0)


def edit_images(call: Call) -> Reply:
    """POST /images/edits."""
    images = call.body.get("image")
    found = images if isinstance(images, list) else [images]
    given = [one for one in found if isinstance(one, Upload) and one.data]
    if len(given) < len(found):
        raise missing("image")
    for one in given:
        if one.media_type not in {"image/png", "image/jpeg", "image/webp"}:
            raise wrong("image", f"unsupported mimetype ({one.media_type!r})", "unsupported_file")
    return _pictures(call, OPENAI_IMAGE_EDITS, seen=len(given))


def _pictures(call: Call, known: frozenset[str], seen: int) -> Reply:
    body = call.body
    if not call.model.images:
        raise VendorError("permission", "You are not allowed to generate images from this model")
    for name in body:
        if name not in known:
            raise wrong(name, f"Unknown parameter: '{name}'.", "unknown_parameter")
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise missing("prompt")
    if call.filtered:
        raise VendorError("filter", code="moderation_blocked")
    width, height = _size(body)
    quality = _quality(body)
    count = _count(body)
    link = body.get("response_format") == "url"
    data = []
    for number in range(count):
        picture = png(f"{prompt} {number}", width, height)
        content = (
            {"url": f"https://images.invalid/{call.number}/{number}.png"}
            if link
            else {"b64_json": base64.b64encode(picture).decode()}
        )
        data.append({**content, "revised_prompt": f"Simulated: {prompt}"})
    read, written = tokens.count(prompt), count * _TOKENS[quality]
    usage = {
        "input_tokens": read + seen * _SEEN_TOKENS,
        "input_tokens_details": {"text_tokens": read, "image_tokens": seen * _SEEN_TOKENS},
        "output_tokens": written,
        "total_tokens": read + seen * _SEEN_TOKENS + written,
    }
    reply: dict[str, Any] = {"created": call.created, "data": data}
    if call.name.startswith("dall-e"):
        return Reply(orjson.dumps(reply))
    reply |= {"background": "opaque", "output_format": "png", "quality": quality}
    return Reply(orjson.dumps({**reply, "size": f"{width}x{height}", "usage": usage}))


def _size(body: Mapping[str, Any]) -> tuple[int, int]:
    size = body.get("size", "auto")
    if size == "auto":
        return 1024, 1024
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if found is None:
        raise wrong("size", f"Invalid value: {size!r}.", "invalid_value")
    return int(found[1]), int(found[2])


def _quality(body: Mapping[str, Any]) -> str:
    quality = body.get("quality", "auto")
    # The words of DALL-E for the two that it has.
    quality = {"auto": "medium", "standard": "medium", "hd": "high"}.get(quality, quality)
    if quality not in _TOKENS:
        raise wrong("quality", f"Invalid value: {quality!r}.", "invalid_value")
    return str(quality)


def _count(body: Mapping[str, Any]) -> int:
    try:
        # In a form it is text.
        count = int(body.get("n", 1))
    except (TypeError, ValueError):
        count = 0
    if not 1 <= count <= _MOST:
        raise wrong("n", f"Invalid 'n': must be from 1 to {_MOST}.", "invalid_value")
    return count
