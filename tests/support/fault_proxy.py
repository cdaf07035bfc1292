"""A TCP proxy in front of a real server, that stalls, slows, cuts or refuses as the test says.

async with FaultProxy("127.0.0.1", server.port) as proxy:
    client = connect(proxy.port)
    proxy.stall()     # nothing passes, in either direction; connections stay open
    proxy.flow()      # what was held back passes, and all goes on
    proxy.delay = 5.0 # from here on each piece of a reply waits so many seconds
    proxy.cut()       # breaks every connection with a TCP reset; new ones are taken
    await proxy.refuse()  # cuts, and nobody listens any more
    await proxy.accept()  # listens again, on the port of before
"""

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

PIECE_BYTES = 64 * 1024


class FaultProxy:
    """Listens on a free port of 127.0.0.1 while it is entered.

    `accepted` counts connections; `open` is how many there are now.
    """

    host = "127.0.0.1"

    def __init__(self, host: str, port: int) -> None:
        self.delay = 0.0
        self.accepted = 0
        self.port = 0
        self._target = (host, port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._serving: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._serving)

    def stall(self) -> None:
        """Holds back everything; connections are still taken, and hear nothing."""
        self._flowing.clear()

    def flow(self) -> None:
        """Lets everything pass again."""
        self._flowing.set()

    def drop(self) -> None:
        """Forgets the connections of now, as a firewall does: both ends believe in them."""
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self._flowing.set()

    def cut(self) -> None:
        """Breaks every connection, on both of its sides, with a TCP reset."""
        for writer in self._writers:
            _reset(writer)
        for task in self._serving:
            task.cancel()

    async def refuse(self) -> None:
        """Breaks every connection and stops listening."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def accept(self) -> None:
        """Listens, on the port of before if there was one."""
        self._listener = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.refuse()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.accepted += 1
        self._serving.add(task)
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            answers, far = await asyncio.open_connection(*self._target)
            self._writers.add(far)
            flowing = self._flowing
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, far, flowing, replies=False))
                pumps.create_task(self._pump(answers, writer, flowing, replies=True))
        except OSError:
            _reset(writer)
        except asyncio.CancelledError:
            # Ours, by cut: the transports are gone already.
            pass
        finally:
            for each in (writer, far):
                if each is not None:
                    self._writers.discard(each)
                    each.close()
            self._serving.discard(task)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        flowing: asyncio.Event,
        *,
        replies: bool,
    ) -> None:
        """Passes bytes on until the source ends, and then the end."""
        with suppress(ConnectionError):
            while piece := await source.read(PIECE_BYTES):
                if replies and self.delay:
                    await asyncio.sleep(self.delay)
                await flowing.wait()
                sink.write(piece)
                await sink.drain()
        # An end is news too.
        await flowing.wait()
        with suppress(OSError):
            sink.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        # Lingering for zero seconds makes the close a reset.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
