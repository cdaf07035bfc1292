"""Writes messages of application/vnd.amazon.eventstream, and reads them as botocore does."""

import struct
import zlib
from collections.abc import Mapping

from botocore.eventstream import EventStreamBuffer

JSON = "application/json"


def message(headers: Mapping[str, str | bytes | int | bool], payload: bytes = b"") -> bytes:
    """One message. Texts, bytes, 4-byte integers and booleans are written as such."""
    head = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + payload
    return body + struct.pack(">I", zlib.crc32(body))


def _header(name: str, value: str | bytes | int | bool) -> bytes:
    start = bytes([len(name)]) + name.encode()
    if isinstance(value, bool):
        return start + bytes([0 if value else 1])
    if isinstance(value, int):
        return start + b"\x04" + struct.pack(">i", value)
    kind, data = (6, value) if isinstance(value, bytes) else (7, value.encode())
    return start + bytes([kind]) + struct.pack(">H", len(data)) + data


def event(name: str, payload: bytes) -> bytes:
    return message({":event-type": name, ":content-type": JSON, ":message-type": "event"}, payload)


def exception(name: str, payload: bytes) -> bytes:
    return message(
        {":exception-type": name, ":content-type": JSON, ":message-type": "exception"}, payload
    )


def read_events(body: bytes) -> list[tuple[str, bytes]]:
    """The events of a whole body as botocore, which checks every checksum, reads them."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [(each.headers[":event-type"], each.payload) for each in buffer]
