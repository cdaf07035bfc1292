"""aiohttp's connection pool, with what the client must know of each connection.

aiohttp tells neither whether a connection was used before nor whether anything was heard on
it, and both decide whether a request may be repeated. The hooks stand on two parts that
aiohttp does not document, `TCPConnector.connect` and its protocol factory; if either moves,
the adversity tests of the upstream client fail.
"""

import asyncio
import functools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


class PooledProtocol(ResponseHandler):
    """One connection to a provider."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        # How many requests were given to this connection.
        self.uses = 0
        # True when something arrived since the last request was given to it.
        self.heard = False
        # True when the peer or this side ended the connection, as against aiohttp's giving up
        # on what it received; and when the peer did so by a reset.
        self.ended = False
        self.reset = False
        # The body that is being received.
        self._content: aiohttp.StreamReader | None = None

    def attach(self, content: aiohttp.StreamReader) -> None:
        """From here on the reader of this body learns of every failure of the connection.

        Left alone, aiohttp forgets the body when bytes arrive that break its chunked framing,
        and whoever waits for more of it waits for ever.
        """
        self._content = content
        if self.exception() is not None:
            self._fail_content()

    def detach(self) -> None:
        """The connection begins with another request."""
        self.heard = False
        self._content = None

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        super().set_exception(exc, *cause)
        self._fail_content()

    def _fail_content(self) -> None:
        content = self._content
        if content is not None and not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection failed"))

    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)

    def close(self) -> None:
        self.ended = True
        super().close()

    def abort(self) -> None:
        self.ended = True
        super().abort()

    def eof_received(self) -> None:
        self.ended = True
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is not None:
            self.ended = self.reset = True
        super().connection_lost(exc)


def _new_protocol(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return PooledProtocol(loop)


class Attempt:
    """One try of one request, as far as its response's headers."""

    __slots__ = ("fresh_only", "header_timeout", "protocol", "started", "timer", "transport")

    def __init__(self, header_timeout: float, *, fresh_only: bool) -> None:
        self.header_timeout = header_timeout
        self.fresh_only = fresh_only
        # Runs out when the current phase, connecting or awaiting headers, takes too long.
        self.timer: asyncio.Timeout | None = None
        self.protocol: PooledProtocol | None = None
        self.transport: asyncio.Transport | None = None
        # The loop's time when the request was given to its connection.
        self.started = 0.0

    def begin(self, connection: "Connection", protocol: PooledProtocol, now: float) -> None:
        """The request goes to this connection; the wait for headers begins."""
        protocol.uses += 1
        protocol.detach()
        self.protocol = protocol
        self.transport = connection.transport
        self.started = now
        if self.timer is not None:
            self.timer.reschedule(now + self.header_timeout)

    def abort(self) -> None:
        """Closes the connection, if there is one, without waiting for unsent bytes to leave."""
        if self.transport is not None:
            self.transport.abort()


# The attempt that the running task makes; aiohttp has no place of its own to carry it.
current_attempt: ContextVar[Attempt] = ContextVar("current_attempt")


class Pool(aiohttp.TCPConnector):
    """A connector that reports to the current attempt. Takes TCPConnector's options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(_new_protocol, loop=self._loop)

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 (aiohttp's signature)
    ) -> "Connection":
        """A connection from the pool, or a new one.

        A pooled connection on which bytes arrived that nobody asked for is not used again:
        they would be taken for the answer to this request.
        """
        attempt = current_attempt.get()
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if not isinstance(protocol, PooledProtocol):
                raise TypeError("aiohttp made a connection without the pool's factory")
            if protocol.uses == 0 or not (attempt.fresh_only or protocol.should_close):
                attempt.begin(connection, protocol, self._loop.time())
                return connection
            connection.close()
