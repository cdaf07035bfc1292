"""Audio in the OpenAI dialect: /audio/transcriptions, /audio/translations and /audio/speech.

Shapes are those of OpenAI's own SDK, which is content with the simulator's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError, invalid
from trunkline_server.providers.codec import CodecTarget, WireRequest
from trunkline_server.providers.multipart import Part, form
from trunkline_server.providers.openai_encode import merge_options
from trunkline_server.providers.openai_errors import reported_error
from trunkline_server.providers.openai_flags import enabled, operation_path
from trunkline_server.providers.openai_messages import Json
from trunkline_server.providers.openai_parts import decode_base64, load, senseless, text_of
from trunkline_server.providers.openai_usage import counts_of

_TRANSCRIPT_OWN = frozenset({"model", "file", "stream", "response_format"})
_SPEECH_OWN = frozenset({"model", "input", "stream_format"})

# The endings by which vendors know what a recording is.
_ENDINGS: Mapping[str, str] = {
    "audio/wav": "wav",
    "audio/wave": "wav",
    "audio/x-wav": "wav",
    "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/mp4": "m4a",
    "audio/m4a": "m4a",
    "audio/x-m4a": "m4a",
    "audio/flac": "flac",
    "audio/x-flac": "flac",
    "audio/ogg": "ogg",
    "audio/opus": "ogg",
    "audio/webm": "webm",
    "video/mp4": "mp4",
    "video/webm": "webm",
}
_SPOKEN: Mapping[str, str] = {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/opus": "opus",
    "audio/ogg": "opus",
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/wav": "wav",
    "audio/pcm": "pcm",
    "audio/l16": "pcm",
}
# What it is when nothing was asked.
_USUAL = "audio/mpeg"
_DETAILS: Mapping[v1.TimestampDetail.ValueType, str] = {
    v1.TIMESTAMP_DETAIL_SEGMENT: "segment",
    v1.TIMESTAMP_DETAIL_WORD: "word",
}
_MOST_SECONDS = 10.0**9


def encode_transcription(spec: v1.TranscribeSpec, audio: bytes, target: CodecTarget) -> WireRequest:
    """The call of the one or the other; raises as TranscriptionCodec.encode_transcription says."""
    ending = _ENDINGS.get(plain_type(spec.media_type))
    if ending is None:
        raise invalid("media_type", f"this provider takes {', '.join(sorted(_ENDINGS))}")
    verbose = enabled(target, "verbose_transcripts")
    fields: Json = {"model": target.provider_model}
    fields["response_format"] = "verbose_json" if verbose else "json"
    if spec.translate and not enabled(target, "translations"):
        raise invalid("translate", "this model does not translate")
    # To what is translated the vendor listens in whatever language it is.
    if spec.language and not spec.translate:
        fields["language"] = spec.language
    if spec.prompt:
        fields["prompt"] = spec.prompt
    if spec.HasField("temperature"):
        fields["temperature"] = spec.temperature
    if spec.timestamps:
        if not verbose or (spec.translate and spec.timestamps != v1.TIMESTAMP_DETAIL_SEGMENT):
            raise invalid("timestamps", "this model does not tell them")
        if not spec.translate:
            fields["timestamp_granularities[]"] = _DETAILS[spec.timestamps]
    if spec.HasField("provider_options"):
        merge_options(spec.provider_options, _TRANSCRIPT_OWN, fields)
    parts = [
        *_form_fields(fields),
        Part("file", audio, f"audio.{ending}", plain_type(spec.media_type)),
    ]
    content, content_type = form(parts)
    path = "/audio/translations" if spec.translate else "/audio/transcriptions"
    return WireRequest(operation_path(path, target), content, content_type=content_type)


def _form_fields(fields: Json) -> list[Part]:
    parts = []
    for name, value in fields.items():
        # Lists of words are repeated fields; what else is no text stands there as JSON.
        each = value if isinstance(value, list) else [value]
        parts += [
            Part(name, item.encode() if isinstance(item, str) else orjson.dumps(item))
            for item in each
        ]
    return parts


def decode_transcription(body: bytes, spec: v1.TranscribeSpec, into: v1.TranscribeResponse) -> None:
    """Fills the answer; raises as TranscriptionCodec.decode_transcription says."""
    document = load(body)
    error = reported_error(document)
    if error is not None:
        raise error
    if not isinstance(document.get("text"), str):
        raise senseless("the answer holds no transcript")
    into.text = document["text"]
    into.model = text_of(document.get("model"))
    into.language = text_of(document.get("language"))
    into.duration_ms = _milliseconds(document.get("duration"))
    if spec.timestamps:
        words = spec.timestamps == v1.TIMESTAMP_DETAIL_WORD
        _segments(document.get("words" if words else "segments"), into)
    _usage(document.get("usage"), into)


def _segments(found: Any, into: v1.TranscribeResponse) -> None:
    for each in found if isinstance(found, list) else ():
        if not isinstance(each, dict):
            raise senseless("the answer holds a segment that is not an object")
        into.segments.add(
            text=text_of(each.get("text") or each.get("word")),
            start_ms=_milliseconds(each.get("start")),
            end_ms=_milliseconds(each.get("end")),
            speaker=text_of(each.get("speaker")),
        )


def _usage(usage: Any, into: v1.TranscribeResponse) -> None:
    told = into.usage
    counts = counts_of(usage)
    if "input_tokens" in counts or "output_tokens" in counts:
        told.source = v1.USAGE_SOURCE_PROVIDER
        told.input_tokens = counts.get("input_tokens", 0)
        told.output_tokens = counts.get("output_tokens", 0)
        details = counts_of(usage.get("input_token_details"))
        told.input_audio_tokens = details.get("audio_tokens", 0)
        return
    seconds = usage.get("seconds") if isinstance(usage, dict) else None
    length = _milliseconds(seconds) or into.duration_ms
    if length:
        told.source = v1.USAGE_SOURCE_PROVIDER
        told.input_audio_ms = length


def _milliseconds(seconds: Any) -> int:
    """Seconds as the vendor writes them, rounded up; zero for what is no time."""
    if isinstance(seconds, str):
        # OpenAI's SDK once had the length of a recording as text.
        try:
            seconds = float(seconds)
        except ValueError:
            return 0
    if type(seconds) not in {int, float} or not 0 <= seconds <= _MOST_SECONDS:
        return 0
    return -int(-1000 * seconds // 1)


def encode_speech(request: v1.SynthesizeRequest, target: CodecTarget) -> WireRequest:
    """The call of /audio/speech; raises as SpeechCodec.encode_speech says."""
    if not request.voice:
        raise invalid("voice", "this provider has no usual voice; name one, such as alloy")
    body: Json = {
        "model": target.provider_model,
        "input": request.text,
        "voice": request.voice,
    }
    if request.media_type:
        spoken = _SPOKEN.get(plain_type(request.media_type))
        if spoken is None:
            raise invalid("media_type", f"this provider speaks {', '.join(sorted(_SPOKEN))}")
        body["response_format"] = spoken
    if request.HasField("speed"):
        body["speed"] = request.speed
    if request.instructions:
        if not enabled(target, "speech_instructions"):
            raise invalid("instructions", "this model takes none")
        body["instructions"] = request.instructions
    if enabled(target, "speech_events"):
        body["stream_format"] = "sse"
    if request.HasField("provider_options"):
        merge_options(request.provider_options, _SPEECH_OWN, body)
    return WireRequest(operation_path("/audio/speech", target), orjson.dumps(body))


class SpeechReader:
    """A SpeechDecoder: of the recording itself, or of events that hold it in pieces."""

    def __init__(self, request: v1.SynthesizeRequest, headers: Mapping[str, str]) -> None:
        self.model = ""
        self.usage = v1.Usage()
        told = plain_type(headers.get("content-type", ""))
        self._events = told == "text/event-stream"
        self._ended = not self._events
        self.media_type = told or _USUAL
        if self._events:
            self.media_type = plain_type(request.media_type) or _USUAL
        # An error that comes with status 200 is no recording.
        self._refusal = b"" if told == "application/json" else None

    def feed(self, event: str, data: bytes) -> Sequence[bytes]:
        """As SpeechDecoder."""
        if self._refusal is not None:
            self._refusal += data
            return ()
        if not self._events:
            return (data,) if data else ()
        document = load(data)
        error = reported_error(document)
        if error is not None:
            raise error
        match text_of(document.get("type")):
            case "speech.audio.delta":
                piece = decode_base64(text_of(document.get("audio")))
                return (piece,) if piece else ()
            case "speech.audio.done":
                self._ended = True
                counts = counts_of(document.get("usage"))
                if counts:
                    self.usage.source = v1.USAGE_SOURCE_PROVIDER
                    self.usage.input_tokens = counts.get("input_tokens", 0)
                    self.usage.output_tokens = counts.get("output_tokens", 0)
                    self.usage.output_audio_tokens = self.usage.output_tokens
        return ()

    def finish(self) -> Sequence[bytes]:
        """As SpeechDecoder."""
        if self._refusal is not None:
            raise reported_error(load(self._refusal)) or senseless("the answer is no recording")
        if not self._ended:
            raise UpstreamError(
                v1.ERROR_REASON_STREAM_INTERRUPTED, "the recording ended before its end mark"
            )
        return ()


def plain_type(media_type: str) -> str:
    """A media type without its parameters, in lower case."""
    return media_type.partition(";")[0].strip().lower()
