"""One connection to a provider: bytes in, callbacks of the parser, one exchange at a time."""

import asyncio
import math
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from trunkline_server.upstream.http1.exchange import Exchange, Fault

# What a response's head may be: status line and fields together, and how many fields. The
# same bounds each trailer.
_MAX_HEAD_BYTES = 32 * 1024
_MAX_FIELDS = 256
# How much is parsed at a time. Of chunk extensions and trailers, less than twice this passes.
_PART_BYTES = 16 * 1024
# Interim responses cost little and are bounded in time by the header timeout.
_MAX_INTERIM = 10_000
# Smaller bodies leave together with their head, at the price of a copy.
_JOIN_BYTES = 64 * 1024

_VERSIONS = frozenset({"1.1", "1.0"})

# The fields that say how the body comes. Only they are looked at on the way.
_LENGTH, _TRANSFER, _ENCODING = b"content-length", b"transfer-encoding", b"content-encoding"
_FRAMING = frozenset({_LENGTH, _TRANSFER, _ENCODING})


def _size(field: tuple[bytes, bytes]) -> int:
    return len(field[0]) + len(field[1])


class Owner(Protocol):
    """The pool that a connection belongs to."""

    def made(self, connection: "Connection") -> None:
        """The connection is established."""
        ...

    def release(self, connection: "Connection") -> None:
        """The connection is free for the next request."""
        ...

    def forget(self, connection: "Connection") -> None:
        """The connection will serve no more."""
        ...

    def lost(self, connection: "Connection") -> None:
        """The socket of the connection is closed."""
        ...


class _Unwanted(Exception):  # noqa: N818 (stops the parser; nobody outside sees it)
    """What the parser told is not to be taken; the exchange's fault may say why."""


class Connection(asyncio.Protocol):
    """Belongs to its pool or, between `begin` and the end of the response, to an exchange."""

    __slots__ = (
        "_bare_bytes",
        "_due",
        "_early",
        "_exchange",
        "_fields",
        "_gone",
        "_idle_seconds",
        "_interim",
        "_keep",
        "_loop",
        "_owner",
        "_parser",
        "_paused",
        "_rings_at",
        "_timer",
        "_transport",
        "_used",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner, idle_seconds: float) -> None:
        self._loop = loop
        self._owner = owner
        self._idle_seconds = idle_seconds
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._used = False
        # True when the connection serves no more.
        self._gone = False
        self._paused = False
        self._due = math.inf
        self._rings_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        # What the peer said before it was asked.
        self._early = b""
        # Of the response that is being received: the bytes since its start or since the last
        # piece of its body, its fields, the interim responses before it, and whether the
        # connection may be kept.
        self._bare_bytes = 0
        self._fields: list[tuple[bytes, bytes]] = []
        self._interim = 0
        self._keep = False

    # What the client and the pool ask for.

    @property
    def gone(self) -> bool:
        """True when the connection serves no more."""
        return self._gone

    @property
    def usable(self) -> bool:
        """False when the transport has found the connection broken and not yet said so."""
        return not (self._gone or self._transport is None or self._transport.is_closing())

    def begin(self, exchange: Exchange, head: bytes, body: bytes, header_timeout: float) -> None:
        """Sends a request. The connection must be free; if it has ended, so does the exchange."""
        transport = self._transport
        now = self._loop.time()
        exchange.connection = self
        exchange.reused = self._used
        exchange.started = now
        if self._gone or transport is None:
            exchange.fail(Fault.ENDED)
            return
        self._exchange = exchange
        self._used = True
        self._bare_bytes = self._interim = 0
        self._fields = []
        self._due = now + header_timeout
        if self._due < self._rings_at:
            self._set_timer()
        if len(body) > _JOIN_BYTES:
            transport.write(head)
            transport.write(body)
        else:
            transport.write(head + body if body else head)
        if self._early:
            # A vendor that turns away everybody may do so without listening.
            early, self._early = self._early, b""
            self.data_received(early)

    def resume(self) -> None:
        """The exchange wants more."""
        if self._paused:
            self._paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def free(self) -> None:
        """The response is done with: keeps the connection if nothing speaks against it."""
        transport = self._transport
        if self._paused:
            self.resume()
        if (
            self._keep
            and not self._gone
            and transport is not None
            # A vendor that answers before it has read the request will not read the next.
            and transport.get_write_buffer_size() == 0
        ):
            self._due = self._loop.time() + self._idle_seconds
            if self._due < self._rings_at:
                self._set_timer()
            self._owner.release(self)
        else:
            self.fail(Fault.ENDED)

    def fail(self, fault: Fault) -> None:
        """Closes at once, without waiting for unsent bytes to leave. Idempotent."""
        exchange, self._exchange = self._exchange, None
        if not self._gone:
            self._gone = True
            self._stop_timer()
            self._owner.forget(self)
            if self._transport is not None:
                self._transport.abort()
        if exchange is not None:
            exchange.fail(fault)

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._owner.made(self)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        parser = self._parser
        if exchange is None or parser is None:
            self._unasked(data)
            return
        try:
            if not exchange.heard:
                exchange.heard = True
                # No letter but H begins a response; the parser would pass over blank lines
                # and take the responses of other protocols.
                if data[0] != 0x48:
                    raise HttpParserError
            size = len(data)
            if size <= _PART_BYTES and self._bare_bytes + size < _MAX_HEAD_BYTES:
                self._bare_bytes += size
                parser.feed_data(data)
                if not (exchange.status or self._bare_bytes):
                    self._bare_bytes = size
                if len(self._fields) > _MAX_FIELDS:
                    self._refuse_fields(exchange)
            else:
                self._feed_in_parts(exchange, parser, data)
        except (HttpParserError, HttpParserUpgrade):
            # After the end of the response it is what follows that is wrong.
            self._keep = False
            if not exchange.complete:
                self.fail(exchange.fault or Fault.MALFORMED)
                return
        if exchange.complete:
            self._finish(exchange)

    def eof_received(self) -> None:
        """The peer will send no more; returning nothing lets the transport close."""
        exchange = self._exchange
        if exchange is not None and exchange.until_close:
            self._complete_by_close(exchange)
        else:
            self.fail(Fault.ENDED)

    def connection_lost(self, exc: Exception | None) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.until_close and exc is None:
            self._complete_by_close(exchange)
        else:
            self.fail(Fault.ENDED)
        # The parser holds this connection's methods.
        self._parser = None
        self._transport = None
        self._owner.lost(self)

    # What the parser tells.

    def on_message_begin(self) -> None:
        exchange = self._exchange
        if exchange is None or exchange.complete:
            raise _Unwanted

    def on_header(self, name: bytes, value: bytes) -> None:
        # Judged after each part that is parsed, and when the head or the trailer is complete.
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        exchange = self._exchange
        parser = self._parser
        if exchange is None or parser is None:
            raise _Unwanted
        status = parser.get_status_code()
        version = parser.get_http_version()
        if status < 100 or status == 101 or version not in _VERSIONS:
            raise _Unwanted
        fields, self._fields = self._fields, []
        if len(fields) > _MAX_FIELDS:
            self._refuse_fields(exchange)
        if status < 200:
            return
        framing: dict[bytes, bytes] = {}
        for name, value in fields:
            key = name.lower()
            if key in _FRAMING:
                # Codings that are told one by one are one list.
                more = key == _TRANSFER and key in framing
                framing[key] = framing[key] + b"," + value if more else value.rstrip()
        length, transfer = framing.get(_LENGTH), framing.get(_TRANSFER)
        self._keep = parser.should_keep_alive()
        if status in {204, 304}:
            # A 204 that announces a body may well send it.
            if status == 204 and (transfer is not None or length not in {None, b"0"}):
                self._keep = False
        elif transfer is not None:
            if transfer.lower() != b"chunked":
                raise _Unwanted
            # RFC 9112, 6.1: the framing of such a message is not to be relied on.
            self._keep = self._keep and version == "1.1"
        else:
            exchange.until_close = length is None
        self._due = math.inf
        self._bare_bytes = 0
        exchange.begin_body(status, fields, int(length or 0), framing.get(_ENCODING, b""))
        if exchange.fault is not None:
            raise _Unwanted

    def on_body(self, block: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            raise _Unwanted
        self._bare_bytes = 0
        if not exchange.take_in(block) and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if exchange.fault is not None:
            raise _Unwanted

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None:
            raise _Unwanted
        if exchange.status:
            if self._fields:
                self._judge_trailer()
            exchange.complete = True
            return
        # An interim response.
        self._interim += 1
        if self._interim > _MAX_INTERIM:
            raise _Unwanted
        self._bare_bytes = 0
        self._fields = []

    # The rest is its own.

    def _refuse_fields(self, exchange: Exchange) -> None:
        """The head or the trailer has too many fields."""
        if not exchange.status:
            exchange.fault = Fault.TOO_LARGE
        raise HttpParserError

    def _judge_trailer(self) -> None:
        """No trailer is of use, but each has the bounds of a head."""
        fields = self._fields
        if len(fields) > _MAX_FIELDS or max(map(_size, fields)) > _MAX_HEAD_BYTES:
            raise _Unwanted

    def _unasked(self, data: bytes) -> None:
        """Bytes came while no response was due: on a used connection, they would be taken for
        the answer to the next request."""
        self._early += data
        if self._used or len(self._early) > _MAX_HEAD_BYTES:
            self.fail(Fault.MALFORMED)

    def _feed_in_parts(self, exchange: Exchange, parser: HttpResponseParser, data: bytes) -> None:
        """Parses much that came, in parts so small that nothing without end is taken in."""
        view = memoryview(data)
        while view:
            room = _PART_BYTES if exchange.status else _MAX_HEAD_BYTES - self._bare_bytes
            part = view[: min(room, _PART_BYTES)]
            view = view[len(part) :]
            self._bare_bytes += len(part)
            parser.feed_data(part)
            if len(self._fields) > _MAX_FIELDS:
                self._refuse_fields(exchange)
            if exchange.status:
                if self._bare_bytes >= _PART_BYTES:
                    raise HttpParserError
                continue
            # An interim response ended somewhere in this part. How much of the part belongs
            # to the next response is not known: all of it counts.
            self._bare_bytes = self._bare_bytes or len(part)
            if self._bare_bytes >= _MAX_HEAD_BYTES:
                exchange.fault = Fault.TOO_LARGE
                raise HttpParserError

    def _finish(self, exchange: Exchange) -> None:
        """The response is whole."""
        self._exchange = None
        if exchange.packed:
            # Kept from others until it is known that the body can be unpacked.
            exchange.wake()
        else:
            exchange.connection = None
            self.free()
            exchange.wake()

    def _complete_by_close(self, exchange: Exchange) -> None:
        exchange.complete = True
        self._keep = False
        self._finish(exchange)

    # One timer serves the header timeout and the idle time. Setting one costs more than a
    # call may, so a timer that rings too early is left standing and set anew when it rings.

    def _ring(self) -> None:
        self._stop_timer()
        if self._loop.time() >= self._due:
            self.fail(Fault.TIMED_OUT)
        elif self._due < math.inf:
            self._set_timer()

    def _set_timer(self) -> None:
        self._stop_timer()
        self._rings_at = self._due
        self._timer = self._loop.call_at(self._due, self._ring)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._rings_at = math.inf
