"""Framing of application/vnd.amazon.eventstream: bytes in, events out, wherever they are cut.

A message is, all integers big-endian: its length and its headers' length, 4 bytes each; the CRC-32
of these 8 bytes; the headers; the payload; the CRC-32 of all that. A header is the length of its
name in a byte, the name, its type in a byte, and its value. The format is that of the Smithy
specification (https://smithy.io/2.0/aws/amazon-eventstream.html).

botocore has such a decoder too. This one takes a fifth of its time, because the few headers that
a stream repeats in every message are read once.
"""

import struct
from zlib import crc32

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
# The least message has no headers and no payload.
_OVERHEAD = _PRELUDE.size + _CRC.size
# The service's own bound of what headers take.
_MAX_HEADERS = 128 * 1024
# The sizes of a header's value by its type: true, false, byte, short, integer, long, timestamp,
# UUID. Bytes (6) and texts (7) begin with their length, in two bytes.
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _TEXT = 6, 7
# So many different headers a stream may have before they are no longer remembered.
_MEMO_LIMIT = 64


class EventStreamParser:
    """Cuts one stream into events. One instance serves one stream.

    An event's name is its `:event-type`. An exception that the service models is named
    "exception:" and its `:exception-type`, any other error "error:" and its `:error-code`, its
    data then a JSON object whose `message` is the `:error-message`. `max_message_bytes` bounds a
    message. `feed` raises UpstreamError with BAD_PROVIDER_RESPONSE for a wrong checksum, a message
    that is too large and one that makes no sense; earlier messages of that chunk are lost with it.
    """

    __slots__ = ("_held", "_limit", "_names", "_needed", "_pieces")

    def __init__(self, max_message_bytes: int = 24 * 1024 * 1024) -> None:
        self._limit = max_message_bytes
        # Bytes of a message that is not complete: a list, so that a long message in many pieces
        # is joined once and not once per piece. Nothing can be done before `_needed` are there.
        self._pieces: list[bytes] = []
        self._held = 0
        self._needed = _PRELUDE.size
        # What headers say, by their bytes.
        self._names: dict[bytes, str | None] = {}

    def feed(self, chunk: bytes) -> list[tuple[str, bytes]]:
        """The events that the chunk completes, in order."""
        if self._held:
            self._pieces.append(chunk)
            self._held += len(chunk)
            if self._held < self._needed:
                return []
            chunk = b"".join(self._pieces)
            self._pieces.clear()
            self._held = 0
        events: list[tuple[str, bytes]] = []
        size = len(chunk)
        at = 0
        while size - at >= _PRELUDE.size:
            length, headers = self._prelude(chunk, at)
            end = at + length
            if end > size:
                self._needed = length
                break
            (checksum,) = _CRC.unpack_from(chunk, end - _CRC.size)
            if crc32(memoryview(chunk)[at : end - _CRC.size]) != checksum:
                raise _bad("an event-stream message with a wrong checksum")
            begin = at + _PRELUDE.size + headers
            event = self._event(chunk[at + _PRELUDE.size : begin], chunk[begin : end - _CRC.size])
            if event is not None:
                events.append(event)
            at = end
        else:
            self._needed = _PRELUDE.size
        if at < size:
            self._pieces.append(chunk[at:] if at else chunk)
            self._held = size - at
        return events

    def finish(self) -> list[tuple[str, bytes]]:
        """Nothing: a message is complete or it is none. Raises UpstreamError with
        STREAM_INTERRUPTED when the stream ends inside a message."""
        if self._held:
            raise UpstreamError(
                v1.ERROR_REASON_STREAM_INTERRUPTED,
                "the provider's stream ended inside an event-stream message",
                http_status=200,
            )
        return []

    def _prelude(self, chunk: bytes, at: int) -> tuple[int, int]:
        """The lengths of a message and of its headers."""
        length, headers, checksum = _PRELUDE.unpack_from(chunk, at)
        if crc32(chunk[at : at + 8]) != checksum:
            raise _bad("an event-stream prelude with a wrong checksum")
        if length > self._limit:
            raise _bad(f"an event-stream message of more than {self._limit} bytes")
        if headers > min(length - _OVERHEAD, _MAX_HEADERS):
            raise _bad("an event-stream message with wrong lengths")
        return length, headers

    def _event(self, headers: bytes, payload: bytes) -> tuple[str, bytes] | None:
        """A message's name and data; None for one of a type that is not known."""
        try:
            name = self._names[headers]
        except KeyError:
            fields = _read_headers(headers)
            name = _name(fields)
            if name is not None and name.startswith("error:"):
                # Its message is in its headers, which no other will have.
                return name, orjson.dumps({"message": fields.get(":error-message", "")})
            if len(self._names) < _MEMO_LIMIT:
                self._names[headers] = name
        return None if name is None else (name, payload)


def _name(fields: dict[str, str]) -> str | None:
    kind = fields.get(":message-type")
    if kind == "event":
        return fields.get(":event-type", "")
    if kind == "exception":
        return "exception:" + fields.get(":exception-type", "")
    if kind == "error":
        return "error:" + fields.get(":error-code", "")
    return None


def _read_headers(data: bytes) -> dict[str, str]:
    """The headers whose values are texts. Raises UpstreamError for what is no headers."""
    fields: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            begin = at + 1
            at = begin + data[at]
            name = data[begin:at].decode()
            kind = data[at]
            at += 1
            if kind in {_BYTES, _TEXT}:
                begin = at + 2
                at = begin + int.from_bytes(data[at:begin], "big")
                if kind == _TEXT:
                    fields[name] = data[begin:at].decode()
            else:
                at += _SIZES[kind]
    except (IndexError, KeyError, UnicodeDecodeError):
        raise _bad("event-stream headers that make no sense") from None
    if at != len(data):
        raise _bad("event-stream headers that make no sense")
    return fields


def _bad(what: str) -> UpstreamError:
    return UpstreamError(
        v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, f"the provider sent {what}", http_status=200
    )
