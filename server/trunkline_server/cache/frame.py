"""Values as the second level holds them: versioned, checked, and compressed where it pays.

    magic  4 bytes   the layout's version
    crc32  4 bytes   of all that follows
    digest 32 bytes  the key it was written for
    expiry 8 bytes   milliseconds since the Unix epoch
    kind   1 byte    what the value is; the highest bit: compressed
    rest             protobuf messages and parts of them, each after its length

Numbers are big-endian.
"""

import struct
import zlib

from google.protobuf.message import DecodeError

from trunkline import v1
from trunkline_server.cache import wire
from trunkline_server.cache.answers import Answer, Facts, Streamed, facts_of
from trunkline_server.cache.vectors import Vector

Value = Answer | Vector

_MAGIC = b"TLC\x01"
_HEAD = struct.Struct(">32sQB")
_PREFIX = len(_MAGIC) + 4
_BODY, _STREAM, _VECTOR = 1, 2, 3
_COMPRESSED = 0x80

# At level 1, recorded answers of 1 KiB and more shrink to about a half at some 55 MB/s, and grow
# back at 110 MB/s. From here on half the bytes are worth 0.3 ms, once for a call of seconds.
_COMPRESS_ABOVE = 16_384
_LEVEL = 1


class CorruptError(Exception):
    """The bytes are not what was written for this key."""


def encode(digest: bytes, value: Value, expiry: float) -> bytes:
    """A value as bytes; `expiry` in Unix seconds."""
    if isinstance(value, Vector):
        kind, pieces = _VECTOR, [_cost_of(value.saved, value), value.head, value.frame]
    elif value.stream is not None:
        stream = value.stream
        kind, pieces = _STREAM, [_summary(value.facts), stream.start, stream.deltas, stream.end]
    else:
        kind, pieces = _BODY, [_summary(value.facts), value.body or b""]
    rest = wire.delimited(pieces)
    if kind != _VECTOR and len(rest) >= _COMPRESS_ABOVE:
        packed = zlib.compress(rest, _LEVEL)
        if len(packed) < 0.8 * len(rest):
            kind, rest = kind | _COMPRESSED, packed
    checked = _HEAD.pack(digest, max(round(expiry * 1_000), 0), kind) + rest
    return b"".join((_MAGIC, zlib.crc32(checked).to_bytes(4, "big"), checked))


def decode(digest: bytes, data: bytes, limit: int) -> tuple[Value, float]:
    """The value and its expiry in Unix seconds; raises CorruptError.

    `limit` bounds the bytes of a compressed value once it is inflated.
    """
    checked = data[_PREFIX:]
    if data[:4] != _MAGIC or len(checked) < _HEAD.size:
        raise CorruptError("not a value of this version")
    if zlib.crc32(checked) != int.from_bytes(data[4:_PREFIX], "big"):
        raise CorruptError("the checksum is wrong")
    owner, expiry, kind = _HEAD.unpack_from(checked)
    if owner != digest:
        raise CorruptError("written for another key")
    rest = checked[_HEAD.size :]
    if kind & _COMPRESSED:
        rest = _inflate(rest, limit)
    try:
        return _value(kind & ~_COMPRESSED, list(wire.split(rest))), expiry / 1_000
    except (ValueError, DecodeError) as error:
        raise CorruptError("the parts are wrong") from error


def _inflate(packed: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        rest = inflater.decompress(packed, limit)
    except zlib.error as error:
        raise CorruptError("cannot be inflated") from error
    if not inflater.eof:
        raise CorruptError("too large, or cut off")
    return rest


def _value(kind: int, pieces: list[bytes]) -> Value:
    if kind == _VECTOR:
        cost, head, frame = pieces
        return Vector.kept(head, frame, v1.Cost.FromString(cost))
    if kind == _BODY:
        summary, body = pieces
        return Answer(facts_of(v1.GenerateResponse.FromString(summary)), body=body)
    if kind == _STREAM:
        summary, start, deltas, end = pieces
        facts = facts_of(v1.GenerateResponse.FromString(summary))
        return Answer(facts, stream=Streamed(start, deltas, end))
    raise ValueError("an unknown kind")


def _summary(facts: Facts) -> bytes:
    return v1.GenerateResponse(
        model=facts.model,
        provider=facts.provider,
        deployment=facts.deployment,
        finish_reason=facts.finish_reason,
        usage=v1.Usage(input_tokens=facts.input_tokens, output_tokens=facts.output_tokens),
        cost=v1.Cost(total=facts.saved, unpriced=facts.unpriced, estimated=facts.estimated),
    ).SerializeToString()


def _cost_of(saved: int, vector: Vector) -> bytes:
    return v1.Cost(total=saved, unpriced=vector.unpriced, estimated=True).SerializeToString()
