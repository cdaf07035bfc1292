"""How long a recording is, as far as its bytes tell without decoding it."""

from struct import unpack_from

# Where only decoding would tell: speech is seldom sent in fewer bytes a second than this, that is
# 16 kbit/s, so a recording is seldom longer than it is taken to be.
BYTES_PER_SECOND = 2_000

_WAVE = frozenset({"audio/wav", "audio/wave", "audio/x-wav", "audio/vnd.wave"})


def milliseconds(audio: bytes, media_type: str) -> tuple[int, bool]:
    """The length of a recording, rounded up, and whether it is known rather than guessed."""
    if media_type.partition(";")[0].strip().lower() in _WAVE:
        length = _wave_milliseconds(audio)
        if length is not None:
            return length, True
    return -(-1000 * len(audio) // BYTES_PER_SECOND), False


def _wave_milliseconds(audio: bytes) -> int | None:
    """The length of a RIFF WAVE file; None if it is none, or does not say."""
    if len(audio) < 12 or audio[:4] != b"RIFF" or audio[8:12] != b"WAVE":
        return None
    place, rate = 12, 0
    while place + 8 <= len(audio):
        name, size = audio[place : place + 4], unpack_from("<I", audio, place + 4)[0]
        place += 8
        if name == b"fmt " and size >= 16 and place + 16 <= len(audio):
            rate = unpack_from("<I", audio, place + 8)[0]
        elif name == b"data":
            # What is streamed is written before its size is known, which is then left open.
            size = min(size, len(audio) - place)
            return -(-1000 * size // rate) if rate else None
        place += size + size % 2
    return None
