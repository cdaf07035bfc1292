"""The journal's bytes: how an event is framed, and what a stretch of a segment holds.

A record is MAGIC, the length of its payload and a CRC-32, each of four bytes, little-endian,
and then the payload. The CRC begins from the length, so that it covers both. A reader that
meets bytes which are no record looks for the next MAGIC before a record that checks out:
MAGIC has bytes that never occur in UTF-8, so no text within an event can pose as a record.
"""

import struct
from dataclasses import dataclass, field
from zlib import crc32

MAGIC = b"\xffT\xfe1"

# An event is some hundred bytes; with all labels at their longest about 10 KiB.
MAX_PAYLOAD = 1 << 20

_HEAD = struct.Struct("<4sII")
HEAD_BYTES = _HEAD.size

_pack = _HEAD.pack


def frame(payload: bytes) -> bytes:
    """The record of one event. Raises ValueError for an empty or an oversized payload."""
    length = len(payload)
    if not 0 < length <= MAX_PAYLOAD:
        raise ValueError(f"a record holds 1 to {MAX_PAYLOAD} bytes, not {length}")
    return _pack(MAGIC, length, crc32(payload, length)) + payload


@dataclass(slots=True)
class Findings:
    """What a stretch of a segment holds.

    `damaged` are ranges of bytes between records that are none. From `end` on nothing is
    decided: the bytes there may be the beginning of a record.
    """

    payloads: list[bytes] = field(default_factory=list)
    damaged: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0


def scan(data: bytes, limit: int) -> Findings:
    """Reads up to `limit` records from the start of `data`."""
    found = Findings()
    position = 0
    while len(found.payloads) < limit:
        payload = _record_at(data, position)
        if payload is None:
            start = _next_record(data, position + 1)
            if start is None:
                break
            found.damaged.append((position, start))
            position = start
            continue
        found.payloads.append(payload)
        position += HEAD_BYTES + len(payload)
        found.end = position
    return found


def _record_at(data: bytes, position: int) -> bytes | None:
    if position + HEAD_BYTES > len(data):
        return None
    magic, length, checksum = _HEAD.unpack_from(data, position)
    if magic != MAGIC or not 0 < length <= MAX_PAYLOAD:
        return None
    start = position + HEAD_BYTES
    if start + length > len(data):
        return None
    payload = data[start : start + length]
    return payload if crc32(payload, length) == checksum else None


def _next_record(data: bytes, position: int) -> int | None:
    while (position := data.find(MAGIC, position)) >= 0:
        if _record_at(data, position) is not None:
            return position
        position += 1
    return None
