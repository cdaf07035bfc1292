"""How long recordings are taken to be."""

import io
import wave

import pytest

from trunkline_server.engine.sound import BYTES_PER_SECOND, milliseconds


def recorded(seconds: float, rate: int = 16_000, channels: int = 2) -> bytes:
    """A WAVE file by the standard library."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(bytes(round(rate * seconds) * 2 * channels))
    return file.getvalue()


@pytest.mark.parametrize("seconds", [0.0, 0.5, 3.0, 61.25])
@pytest.mark.parametrize("media_type", ["audio/wav", "audio/x-wav; codec=1", "AUDIO/WAVE"])
def test_a_wave_file_says_it(seconds: float, media_type: str) -> None:
    assert milliseconds(recorded(seconds), media_type) == (round(1000 * seconds), True)


def test_a_wave_file_whose_size_was_left_open() -> None:
    audio = bytearray(recorded(2.0))
    audio[40:44] = b"\xff\xff\xff\xff"
    assert milliseconds(bytes(audio), "audio/wav") == (2000, True)


def test_other_chunks_are_passed_over() -> None:
    audio = recorded(1.0)
    listed = audio[:12] + b"LIST" + (5).to_bytes(4, "little") + b"abcde\0" + audio[12:]
    assert milliseconds(listed, "audio/wav") == (1000, True)


@pytest.mark.parametrize(
    "audio",
    [b"", b"x" * 4001, recorded(1.0)[:11], recorded(1.0)[:30], b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0"],
)
def test_what_is_no_wave_file_is_guessed_by_its_size(audio: bytes) -> None:
    length, exact = milliseconds(audio, "audio/wav")
    assert not exact
    assert length == -(-1000 * len(audio) // BYTES_PER_SECOND)


def test_other_formats_are_guessed() -> None:
    assert milliseconds(b"x" * 2 * BYTES_PER_SECOND, "audio/mpeg") == (2000, False)


def test_a_rate_of_nothing_is_no_length() -> None:
    audio = bytearray(recorded(1.0))
    audio[28:32] = bytes(4)
    assert milliseconds(bytes(audio), "audio/wav")[1] is False
