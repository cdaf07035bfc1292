"""Writes messages of application/vnd.amazon.eventstream.

A message is its length and its headers' length; the CRC-32 of these; the headers, each a name and
a text with their lengths; the payload; the CRC-32 of all that
(https://smithy.io/2.0/aws/amazon-eventstream.html).
"""

import struct
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import orjson

_TEXT = 7
_PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def event(name: str, body: Mapping[str, Any]) -> bytes:
    """An event. As the service does, it is padded, to a length that its content decides here."""
    data = orjson.dumps(body)
    padding = _PADDING[: crc32(data) % len(_PADDING)]
    return _message("event", name, orjson.dumps({**body, "p": padding}))


def exception(name: str, body: Mapping[str, Any]) -> bytes:
    """An exception, which ends a stream."""
    return _message("exception", name, orjson.dumps(body))


def _message(kind: str, name: str, payload: bytes) -> bytes:
    headers = b"".join(
        (
            _header(f":{kind}-type", name),
            _header(":content-type", "application/json"),
            _header(":message-type", kind),
        )
    )
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = b"".join((prelude, struct.pack(">I", crc32(prelude)), headers, payload))
    return body + struct.pack(">I", crc32(body))


def _header(name: str, value: str) -> bytes:
    return struct.pack(
        f">B{len(name)}sBH{len(value)}s",
        len(name),
        name.encode(),
        _TEXT,
        len(value),
        value.encode(),
    )
