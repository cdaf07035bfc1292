"""Speech of the Gemini dialect: streamGenerateContent with sound in place of text."""

import base64
from collections.abc import Sequence
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError, invalid
from trunkline_server.providers.gemini_decode import finish_reason, finish_word, first_candidate
from trunkline_server.providers.gemini_decode import read_usage as read_counts
from trunkline_server.providers.gemini_encode import merge, options_of
from trunkline_server.providers.gemini_json import (
    as_object,
    list_at,
    object_at,
    read_document,
    senseless,
    text_at,
)

_PROTECTED = frozenset(("contents", "model"))
# What the vendor speaks: samples of 16 bits without a header.
_SAMPLES = frozenset({"audio/l16", "audio/pcm"})


def speech_body(request: v1.SynthesizeRequest) -> bytes:
    """The request; raises as SpeechCodec.encode_speech says."""
    if request.media_type.partition(";")[0].strip().lower() not in {"", *_SAMPLES}:
        raise invalid("media_type", "this provider speaks audio/L16")
    if request.HasField("speed"):
        raise invalid("speed", "this provider takes none; say it in the instructions")
    # The vendor takes instructions as the beginning of what it reads.
    text = f"{request.instructions}: {request.text}" if request.instructions else request.text
    config: dict[str, Any] = {"responseModalities": ["AUDIO"]}
    if request.voice:
        config["speechConfig"] = {
            "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": request.voice}}
        }
    body: dict[str, Any] = {
        "contents": [{"role": "user", "parts": [{"text": text}]}],
        "generationConfig": config,
    }
    if request.HasField("provider_options"):
        merge(body, options_of(request.provider_options, _PROTECTED))
    return orjson.dumps(body)


class GeminiSpeechDecoder:
    """A SpeechDecoder of server-sent events."""

    def __init__(self) -> None:
        self.model = ""
        self.media_type = ""
        self.usage = v1.Usage()
        self._word = ""
        self._spoke = False

    def feed(self, event: str, data: bytes) -> Sequence[bytes]:
        """As SpeechDecoder."""
        reply = read_document(data)
        candidate = first_candidate(reply)
        self.model = self.model or text_at(reply, "modelVersion")
        read_counts(reply, self.usage)
        if candidate is None:
            return ()
        self._word = finish_word(candidate) or self._word
        pieces = []
        for item in list_at(object_at(candidate, "content"), "parts"):
            inline = object_at(as_object(item, "parts"), "inlineData")
            if inline:
                self.media_type = self.media_type or text_at(inline, "mimeType")
                pieces.append(_decoded(text_at(inline, "data")))
        pieces = [piece for piece in pieces if piece]
        self._spoke = self._spoke or bool(pieces)
        return pieces

    def finish(self) -> Sequence[bytes]:
        """As SpeechDecoder."""
        if not self._word:
            raise UpstreamError(
                v1.ERROR_REASON_STREAM_INTERRUPTED, "the recording ended before its end mark"
            )
        reason = finish_reason(self._word, calls=False)
        if reason == v1.FINISH_REASON_CONTENT_FILTER and not self._spoke:
            raise UpstreamError(
                v1.ERROR_REASON_CONTENT_FILTER,
                f"the provider held the recording back: {self._word}",
                http_status=200,
            )
        return ()


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise senseless("holds sound that is not base64") from None
