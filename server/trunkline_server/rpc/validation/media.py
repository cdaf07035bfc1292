"""Requests for pictures, transcripts and speech."""

import re

from trunkline import v1
from trunkline_server.errors import invalid_fields
from trunkline_server.rpc.validation.common import (
    Found,
    add,
    check_image,
    check_request_id,
    check_routing_fields,
)

_MAX_COUNT = 10
_MAX_IMAGES = 16
_MAX_WORD = 64

_SIZE = re.compile(
    r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}|[1-9][0-9]{0,2}:[1-9][0-9]{0,2}|auto"
).fullmatch
_LANGUAGE = re.compile(r"[a-z]{2}").fullmatch
_DETAILS = frozenset(v1.TimestampDetail.values())


def validate_generate_image(request: v1.GenerateImageRequest) -> None:
    """Raises as validate_generate does."""
    found: Found = []
    if not request.prompt:
        add(found, "prompt", "must not be empty")
    if request.HasField("count") and not 1 <= request.count <= _MAX_COUNT:
        add(found, "count", f"must be from 1 to {_MAX_COUNT}")
    if request.size and not _SIZE(request.size):
        add(found, "size", "must be WIDTHxHEIGHT in pixels or an aspect ratio such as 16:9")
    _check_word(found, "quality", request.quality)
    _check_word(found, "style", request.style)
    _check_media_type(found, request.media_type, "image")
    if len(request.images) > _MAX_IMAGES:
        add(found, "images", f"must hold at most {_MAX_IMAGES} images, not {len(request.images)}")
    for i, image in enumerate(request.images):
        check_image(found, f"images[{i}]", image)
    if request.HasField("mask"):
        check_image(found, "mask", request.mask)
        if not request.images:
            add(found, "mask", "may be set only with the image that it belongs to")
    check_request_id(found, request.request_id)
    check_routing_fields(found, request)
    if found:
        raise invalid_fields(found)


def validate_transcribe(spec: v1.TranscribeSpec) -> None:
    """Raises as validate_generate does; paths are those within the spec."""
    found: Found = []
    if not spec.media_type:
        add(found, "media_type", "must not be empty")
    # A picture with sound is taken for its sound.
    _check_media_type(found, spec.media_type, "audio", "video")
    if spec.language and not _LANGUAGE(spec.language):
        add(found, "language", "must be an ISO 639-1 code such as en")
    if spec.HasField("temperature") and not 0 <= spec.temperature <= 1:
        add(found, "temperature", "must be from 0 to 1")
    if spec.timestamps not in _DETAILS:
        add(found, "timestamps", "is not a known detail")
    check_request_id(found, spec.request_id)
    check_routing_fields(found, spec)
    if found:
        raise invalid_fields(found)


def validate_synthesize(request: v1.SynthesizeRequest) -> None:
    """Raises as validate_generate does."""
    found: Found = []
    if not request.text:
        add(found, "text", "must not be empty")
    _check_word(found, "voice", request.voice)
    _check_media_type(found, request.media_type, "audio")
    if request.HasField("speed") and not 0.25 <= request.speed <= 4:
        add(found, "speed", "must be from 0.25 to 4")
    check_request_id(found, request.request_id)
    check_routing_fields(found, request)
    if found:
        raise invalid_fields(found)


def _check_word(found: Found, field: str, word: str) -> None:
    if len(word) > _MAX_WORD or not word.isprintable():
        add(found, field, f"must be printable, of at most {_MAX_WORD} characters")


def _check_media_type(found: Found, media_type: str, *kinds: str) -> None:
    kind, slash, name = media_type.partition("/")
    if media_type and (kind.lower() not in kinds or not slash or not name):
        add(found, "media_type", f"must be a media type such as {kinds[0]}/{_EXAMPLES[kinds[0]]}")
    elif not media_type.isprintable() or len(media_type) > 2 * _MAX_WORD:
        add(found, "media_type", f"must be printable, of at most {2 * _MAX_WORD} characters")


_EXAMPLES = {"image": "png", "audio": "wav"}
