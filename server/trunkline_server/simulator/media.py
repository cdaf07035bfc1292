"""Pictures and sound, made small and the same for the same words."""

import hashlib
import math
import struct
import zlib
from dataclasses import dataclass, field
from typing import Self

from aiohttp import web

# As they are sent: eight thousand samples a second, of 16 bits.
RATE = 8_000
_TONE_HZ = 400
# A silent frame of MPEG audio, 128 kbit/s at 44.1 kHz, and how long it sounds.
_SILENCE = b"\xff\xfb\x90\xc4" + bytes(413)
_SILENCE_MS = 1000 * 1152 / 44_100
_CHARACTERS_PER_SECOND = 15
_MOST_MS = 600_000


@dataclass(frozen=True, slots=True)
class Upload:
    """A file in a form."""

    name: str
    media_type: str
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, file: web.FileField) -> Self:
        return cls(file.filename, file.content_type, file.file.read())


def png(words: str, width: int, height: int) -> bytes:
    """A picture of one colour, which the words choose."""
    color = hashlib.sha256(words.encode()).digest()[:3]
    # Indexed colours: eight pixels a byte, all of them the first colour.
    row = b"\0" + bytes((width + 7) // 8)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)),
            _chunk(b"PLTE", color),
            _chunk(b"IDAT", zlib.compress(row * height, 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def length_ms(text: str, speed: float = 1.0) -> int:
    """How long a text is spoken."""
    return min(round(1000 * len(text) / _CHARACTERS_PER_SECOND / speed) + 1, _MOST_MS)


def samples(length: int) -> bytes:
    """A tone of so many milliseconds: 16 bits, little-endian, without a header."""
    period = RATE // _TONE_HZ
    wave = b"".join(
        struct.pack("<h", round(8_000 * math.sin(2 * math.pi * step / period)))
        for step in range(period)
    )
    count = RATE * length // 1000
    return (wave * (count // period + 1))[: 2 * count]


def wav(length: int) -> bytes:
    """The same as a WAVE file."""
    data = samples(length)
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def mp3(length: int) -> bytes:
    """Silence of about so many milliseconds, as MPEG audio."""
    return _SILENCE * math.ceil(length / _SILENCE_MS)


def heard_ms(upload: Upload) -> int:
    """How long a recording is: of a WAVE file as its header says, of others by their size."""
    data = upload.data
    if data[:4] == b"RIFF" and len(data) >= 44:
        rate = struct.unpack_from("<I", data, 28)[0]
        return max(round(1000 * (len(data) - 44) / rate), 0) if rate else 0
    return math.ceil(1000 * len(data) / 16_000)
