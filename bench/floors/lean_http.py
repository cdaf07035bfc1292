"""The leanest HTTP/1.1 client that still works: one socket, one parser, no features.

It is a floor to be measured against, not a client to be used: no TLS, no timeouts, no limits,
no retry, no redirects, and a body of any size is kept.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools


class _Connection(asyncio.Protocol):
    """One kept-alive connection, with one call at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.WriteTransport | None = None
        self.done: asyncio.Future[bytes] | None = None
        self.on_piece: Callable[[bytes], None] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are writable without being of asyncio's class.
        self.transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(exc or ConnectionError("closed by the upstream"))

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        if self.on_piece is not None:
            self.on_piece(body)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        body, status = b"".join(self._body), self._parser.get_status_code()
        self._body.clear()
        self._parser = httptools.HttpResponseParser(self)
        if self.done is None or self.done.done():
            return
        if status == 200:
            self.done.set_result(body)
        else:
            self.done.set_exception(ConnectionError(f"the upstream answered {status}"))


class LeanClient:
    """Posts to one origin."""

    def __init__(self, address: str, path: str) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self._idle: list[_Connection] = []
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
            "Content-Length: "
        ).encode()

    async def post(self, body: bytes, on_piece: Callable[[bytes], None] | None = None) -> bytes:
        """The answer's body; with `on_piece`, its pieces as they come, and nothing at the end."""
        loop = asyncio.get_running_loop()
        if self._idle:
            connection = self._idle.pop()
        else:
            _, connection = await loop.create_connection(_Connection, self._host, self._port)
        connection.on_piece = on_piece
        connection.done = loop.create_future()
        assert connection.transport is not None  # noqa: S101 - create_connection has connected it
        connection.transport.write(self._head + str(len(body)).encode() + b"\r\n\r\n" + body)
        answer = await connection.done
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Closes the connections that no call uses."""
        for connection in self._idle:
            if connection.transport is not None:
                connection.transport.close()
        self._idle.clear()
