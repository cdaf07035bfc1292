"""A server on raw TCP that misbehaves as its script says.

    async with FaultServer([read_request, send(b"HTTP/1.1 200 OK\\r\\n"), reset]) as server:
        ...  # talk to server.url
    assert server.requests[0].target == "/"

Each connection follows one script: the first the first, and so on; connections beyond the last
script repeat it. A script is a list of steps or an async function of the connection. It may
wait for bytes, for the client's close and for the test's own events, but never for time. When
it ends, the server closes the connection in order.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

Step = Callable[["FaultConnection"], Awaitable[None]]
Script = Step | Sequence[Step]

# Nothing here takes long: whoever waits longer waits for something that will not happen.
GUARD_SECONDS = 5.0


class ClientGoneError(Exception):
    """The client closed while a script had more to do; it ends the script, quietly."""


@dataclass(frozen=True)
class Received:
    """A request as it arrived; header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class FaultConnection(asyncio.Protocol):
    """The server's end of one connection, for scripts to act on and for tests to look at."""

    transport: asyncio.Transport

    def __init__(self, server: "FaultServer") -> None:
        self.server = server
        self.requests: list[Received] = []
        # How many bytes were accepted for sending.
        self.sent = 0
        # The loop's time at which the client's close was seen, by FIN or by reset.
        self.closed_at: float | None = None
        # True once nothing more can happen on this connection.
        self.lost = False
        self._received = bytearray()
        self._writable = True
        self._ending = False

    async def read_request(self) -> Received:
        """The next request, whole; its body must come with a content-length."""
        await self._until(lambda: b"\r\n\r\n" in self._received)
        head, _, _ = bytes(self._received).partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.lower(): value.strip() for name, value in pairs}
        body_start = len(head) + 4
        end = body_start + int(headers.get("content-length", "0"))
        await self._until(lambda: len(self._received) >= end)
        request = Received(method, target, headers, bytes(self._received[body_start:end]))
        del self._received[:end]
        self.requests.append(request)
        self.server.requests.append(request)
        self.server.changed()
        return request

    async def send(self, data: bytes) -> None:
        """Sends, then waits while the client takes nothing."""
        if self.closed_at is not None or self.transport.is_closing():
            raise ClientGoneError
        self.transport.write(data)
        self.sent += len(data)
        self.server.changed()
        await self._until(lambda: self._writable)

    async def wait_for_client_close(self) -> None:
        """Reads and forgets until the client has closed."""
        while self.closed_at is None:
            self._received.clear()
            await self.server.next_change()

    def stop_reading(self) -> None:
        """Lets the client's sends back up. Its close may not be seen until `drain`."""
        self.transport.pause_reading()

    async def drain(self) -> int:
        """Reads again, until the client's close, and counts the bytes that came."""
        self.transport.resume_reading()
        while self.closed_at is None:
            await self.server.next_change()
        return len(self._received)

    def close(self) -> None:
        """Ends the connection in order, after what was sent."""
        self._ending = True
        self.transport.close()

    def reset(self) -> None:
        """Breaks the connection with a TCP reset; what was not yet sent is lost."""
        self._ending = True
        # Lingering for zero seconds makes the close a reset.
        no_linger = struct.pack("ii", 1, 0)
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self.server.accept(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self.server.changed()

    def eof_received(self) -> None:
        self._client_closed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._client_closed()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.server.changed()

    def _client_closed(self) -> None:
        if self.closed_at is None and not self._ending:
            self.closed_at = asyncio.get_running_loop().time()
        self.server.changed()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self.closed_at is not None or self._ending:
                raise ClientGoneError
            await self.server.next_change()


class FaultServer:
    """Listens on a free port of 127.0.0.1 while it is entered; speaks TLS when given `tls`.

    Leaving it breaks what is still open, and raises what a script raised, so that a mistake in
    a script does not pass for the client's.
    """

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.connections: list[FaultConnection] = []
        self.requests: list[Received] = []
        self._scripts = scripts
        self._tls = tls
        self._tasks: list[asyncio.Task[None]] = []
        self._change = asyncio.Event()

    @property
    def url(self) -> str:
        """The origin, without a slash at its end."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: FaultConnection(self), "127.0.0.1", 0, ssl=self._tls
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for connection in self.connections:
            if not connection.lost:
                connection.transport.abort()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        for outcome in outcomes:
            if isinstance(outcome, Exception) and error is None:
                raise outcome

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until the condition, which looks at this server, holds."""
        async with asyncio.timeout(GUARD_SECONDS):
            while not condition():
                await self.next_change()

    async def closed_at(self, connection: int = 0) -> float:
        """The loop's time at which the client's close of a connection was seen."""
        await self.until(
            lambda: (
                len(self.connections) > connection
                and self.connections[connection].closed_at is not None
            )
        )
        moment = self.connections[connection].closed_at
        assert moment is not None
        return moment

    def changed(self) -> None:
        """Wakes all who wait for something about this server."""
        self._change.set()
        self._change = asyncio.Event()

    async def next_change(self) -> None:
        """Waits until anything about this server changes."""
        await self._change.wait()

    def accept(self, connection: FaultConnection) -> None:
        """Starts the script of a connection that has been made."""
        number = len(self.connections)
        self.connections.append(connection)
        script = self._scripts[min(number, len(self._scripts) - 1)]
        self._tasks.append(asyncio.create_task(self._follow(script, connection)))
        self.changed()

    async def _follow(self, script: Script, connection: FaultConnection) -> None:
        steps = [script] if callable(script) else script
        try:
            for step in steps:
                await step(connection)
        except ClientGoneError:
            return
        if not connection.transport.is_closing():
            connection.close()


async def read_request(connection: FaultConnection) -> None:
    """Step: reads a request whole."""
    await connection.read_request()


def send(data: bytes) -> Step:
    """Step: sends these bytes."""

    async def step(connection: FaultConnection) -> None:
        await connection.send(data)

    return step


async def wait_for_client_close(connection: FaultConnection) -> None:
    """Step: does nothing until the client closes."""
    await connection.wait_for_client_close()


# A server that hangs is one that waits for its client to give up.
hang = wait_for_client_close


async def reset(connection: FaultConnection) -> None:
    """Step: breaks the connection with a TCP reset."""
    connection.reset()


async def close(connection: FaultConnection) -> None:
    """Step: ends the connection in order."""
    connection.close()


def response(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    """A whole response, its body delimited by a content-length."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body
