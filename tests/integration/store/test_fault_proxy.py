"""The proxy that other tests break connections with: each fault, seen from a client."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from tests.support.fault_proxy import FaultProxy

# Long enough for loopback, short enough to wait for in vain.
MOMENT = 0.1


@asynccontextmanager
async def echo() -> AsyncGenerator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1000):
            writer.write(piece)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def proxy() -> AsyncGenerator[FaultProxy]:
    async with echo() as port, FaultProxy("127.0.0.1", port) as proxy:
        yield proxy


class Client:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, proxy: FaultProxy) -> "Client":
        return cls(*await asyncio.open_connection(proxy.host, proxy.port))

    async def say(self, words: bytes) -> bytes:
        self.writer.write(words)
        return await self.reader.readexactly(len(words))


async def test_bytes_and_the_end_pass_in_both_directions(proxy: FaultProxy) -> None:
    client = await Client.to(proxy)
    assert await client.say(b"hello" * 100_000) == b"hello" * 100_000
    client.writer.write_eof()
    assert await client.reader.read() == b""
    client.writer.close()
    assert proxy.accepted == 1


async def test_a_stalled_connection_is_silent_and_loses_nothing(proxy: FaultProxy) -> None:
    client, other = await Client.to(proxy), await Client.to(proxy)
    assert await client.say(b"before") == b"before"
    proxy.stall()
    waiting = asyncio.create_task(client.say(b"held"))
    fresh = asyncio.create_task(other.say(b"too"))
    done, _ = await asyncio.wait([waiting, fresh], timeout=MOMENT)
    assert not done
    proxy.flow()
    assert (await waiting, await fresh) == (b"held", b"too")
    client.writer.close()
    other.writer.close()


async def test_a_dropped_connection_is_silent_for_good_and_a_new_one_speaks(
    proxy: FaultProxy,
) -> None:
    client = await Client.to(proxy)
    assert await client.say(b"before") == b"before"
    proxy.drop()
    waiting = asyncio.create_task(client.say(b"lost"))
    fresh = await Client.to(proxy)
    assert await fresh.say(b"after") == b"after"
    proxy.flow()
    done, _ = await asyncio.wait([waiting], timeout=MOMENT)
    assert not done
    proxy.cut()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await waiting
    for each in (client, fresh):
        each.writer.close()


async def test_a_delay_slows_each_reply(proxy: FaultProxy) -> None:
    client = await Client.to(proxy)
    proxy.delay = MOMENT
    began = asyncio.get_running_loop().time()
    assert await client.say(b"slow") == b"slow"
    assert asyncio.get_running_loop().time() - began >= MOMENT
    client.writer.close()


async def test_a_cut_connection_is_reset_and_a_new_one_is_taken(proxy: FaultProxy) -> None:
    client = await Client.to(proxy)
    assert await client.say(b"before") == b"before"
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await client.reader.readexactly(1)
    client.writer.close()
    fresh = await Client.to(proxy)
    assert await fresh.say(b"after") == b"after"
    fresh.writer.close()


async def test_a_refusing_proxy_comes_back_on_its_port(proxy: FaultProxy) -> None:
    client, port = await Client.to(proxy), proxy.port
    assert await client.say(b"before") == b"before"
    await proxy.refuse()
    assert proxy.open == 0
    with pytest.raises(ConnectionRefusedError):
        await Client.to(proxy)
    await proxy.accept()
    assert proxy.port == port
    fresh = await Client.to(proxy)
    assert await fresh.say(b"after") == b"after"
    for each in (client, fresh):
        each.writer.close()


async def test_a_server_that_is_away_resets_what_the_proxy_took() -> None:
    async with echo() as port:
        pass
    async with FaultProxy("127.0.0.1", port) as proxy:
        client = await Client.to(proxy)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.say(b"hello")
        client.writer.close()
