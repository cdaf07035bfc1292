"""Audio of the OpenAI dialect: transcripts, translations and speech."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.dialect import Call, Reply
from trunkline_server.simulator.known_fields import (
    OPENAI_SPEECH,
    OPENAI_TRANSCRIPTIONS,
    OPENAI_TRANSLATIONS,
)
from trunkline_server.simulator.media import Upload, heard_ms, length_ms, mp3, samples, wav
from trunkline_server.simulator.openai_messages import missing, wrong
from trunkline_server.simulator.vendor_error import VendorError

_ENDINGS = frozenset({"flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "ogg", "wav", "webm"})
_MOST_CHARACTERS = 4096
_SPEEDS = (0.25, 4.0)
_VOICES = frozenset(
    [
        *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx"),
        *("sage", "shimmer", "verse"),
    ]
)
_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav", "pcm": "audio/pcm"}
# Bytes of a recording in one piece of a stream.
_PIECE = 4_096


def transcribe(call: Call) -> Reply:
    """POST /audio/transcriptions."""
    return _transcript(call, OPENAI_TRANSCRIPTIONS, "transcript")


def translate(call: Call) -> Reply:
    """POST /audio/translations."""
    return _transcript(call, OPENAI_TRANSLATIONS, "translation")


def _transcript(call: Call, known: frozenset[str], what: str) -> Reply:
    body = call.body
    if not call.model.transcripts:
        raise VendorError("permission", "You are not allowed to transcribe with this model")
    for name in body:
        if name not in known:
            raise wrong(name, f"Unknown parameter: '{name}'.", "unknown_parameter")
    file = body.get("file")
    if not isinstance(file, Upload) or not file.data:
        raise missing("file")
    if file.name.rpartition(".")[2].lower() not in _ENDINGS:
        raise wrong("file", f"Invalid file format. Supported formats: {sorted(_ENDINGS)}")
    length = heard_ms(file)
    text = f"Simulated {what} of {length} milliseconds."
    if prompt := body.get("prompt"):
        text += f" It was said: {prompt}"
    form = body.get("response_format", "json")
    usage = {"type": "duration", "seconds": -(-length // 1000)}
    if form == "text":
        return Reply(f"{text}\n".encode(), content_type="text/plain")
    if form not in {"json", "verbose_json"}:
        raise wrong("response_format", "the simulator has json, verbose_json and text")
    if form == "json":
        read = length // 100
        usage = {
            "type": "tokens",
            "input_tokens": read,
            "output_tokens": tokens.count(text),
            "total_tokens": read + tokens.count(text),
            "input_token_details": {"text_tokens": 0, "audio_tokens": read},
        }
        return Reply(orjson.dumps({"text": text, "usage": usage}))
    return Reply(orjson.dumps(_verbose(body, text, length) | {"usage": usage}))


def _verbose(body: Mapping[str, Any], text: str, length: int) -> dict[str, Any]:
    wanted = body.get("timestamp_granularities", ["segment"])
    reply: dict[str, Any] = {
        "task": "transcribe",
        "language": "english",
        "duration": length / 1000,
        "text": text,
    }
    if "segment" in wanted:
        reply["segments"] = [
            {
                "id": 0, "seek": 0, "start": 0.0, "end": length / 1000, "text": text,
                "tokens": [1], "temperature": 0.0, "avg_logprob": -0.1,
                "compression_ratio": 1.0, "no_speech_prob": 0.0,
            }
        ]  # fmt: skip
    if "word" in wanted:
        words = text.split()
        each = length / 1000 / len(words)
        reply["words"] = [
            {"word": word, "start": round(place * each, 3), "end": round((place + 1) * each, 3)}
            for place, word in enumerate(words)
        ]
    return reply


def speak(call: Call) -> Reply:
    """POST /audio/speech."""
    body = call.body
    if not call.model.speech:
        raise VendorError("permission", "You are not allowed to speak with this model")
    for name in body:
        if name not in OPENAI_SPEECH:
            raise wrong(name, f"Unknown parameter: '{name}'.", "unknown_parameter")
    text, voice = body.get("input"), body.get("voice")
    if not isinstance(text, str) or not text:
        raise missing("input")
    if len(text) > _MOST_CHARACTERS:
        raise wrong("input", f"String should have at most {_MOST_CHARACTERS} characters")
    if voice not in _VOICES:
        raise wrong("voice", f"Input should be one of {sorted(_VOICES)}")
    speed = body.get("speed", 1.0)
    if not isinstance(speed, int | float) or not _SPEEDS[0] <= speed <= _SPEEDS[1]:
        raise wrong("speed", "Input should be from 0.25 to 4.0")
    form = body.get("response_format", "mp3")
    if form not in _TYPES:
        raise wrong("response_format", f"the simulator speaks {', '.join(_TYPES)}")
    if call.filtered:
        raise VendorError("filter")
    length = length_ms(text, speed)
    make = {"mp3": mp3, "wav": wav, "pcm": samples}[form]
    pieces = _pieces(make(length))
    if body.get("stream_format") == "sse":
        return Reply(pieces=_events(text, length, pieces), content_type="text/event-stream")
    return Reply(pieces=pieces, content_type=_TYPES[form])


def _pieces(sound: bytes) -> Iterator[bytes]:
    for start in range(0, len(sound), _PIECE):
        yield sound[start : start + _PIECE]


def _events(text: str, length: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()})
    read, written = tokens.count(text), 21 * length // 1000 + 1
    usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    yield _event({"type": "speech.audio.done", "usage": usage})


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"
