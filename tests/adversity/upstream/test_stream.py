"""Streams: promptness, aborting, and readers slower than the vendor."""

import asyncio

import pytest

from tests.adversity.upstream.calls import (
    AT_ONCE,
    gather_chunks,
    open_and_gather,
    post,
    refused,
    soon,
)
from tests.support.fault_server import (
    FaultConnection,
    FaultServer,
    hang,
    read_request,
    response,
    send,
)
from trunkline import v1
from trunkline_server.upstream.http import HttpClient

MIB = 1024 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
HALF = CHUNKED + b"5\r\nfirst\r\n"


async def test_chunks_are_handed_out_as_they_arrive(client: HttpClient) -> None:
    """The vendor says the next word only after the client has heard the one before."""
    heard = asyncio.Event()

    async def word_by_word(connection: FaultConnection) -> None:
        await connection.read_request()
        await connection.send(CHUNKED)
        for word in (b"one", b"two", b"three"):
            heard.clear()
            await connection.send(b"%x\r\n%s\r\n" % (len(word), word))
            await heard.wait()
        await connection.send(b"0\r\n\r\n")

    async with FaultServer(word_by_word) as server:
        stream = await soon(client.open(post(server.url)))
        words = []
        async with asyncio.timeout(5):
            async for chunk in stream.chunks():
                words.append(chunk)
                heard.set()
    assert words == [b"one", b"two", b"three"]


async def test_abort_closes_at_once_and_again_does_nothing(client: HttpClient) -> None:
    loop = asyncio.get_running_loop()
    async with FaultServer([read_request, send(HALF), hang]) as server:
        stream = await soon(client.open(post(server.url)))
        chunks = stream.chunks()
        assert await soon(anext(chunks)) == b"first"
        aborted_at = loop.time()
        stream.abort()
        stream.abort()
        assert await server.closed_at() - aborted_at < AT_ONCE
        stream.abort()
        request = post(server.url)
        error = await refused(anext(chunks), request)
    assert error.reason == v1.ERROR_REASON_STREAM_INTERRUPTED


async def test_abort_before_reading(client: HttpClient) -> None:
    async with FaultServer([read_request, send(HALF), hang]) as server:
        stream = await soon(client.open(post(server.url)))
        stream.abort()
        await server.closed_at()


async def test_abort_under_a_reader(client: HttpClient) -> None:
    async with FaultServer([read_request, send(HALF), hang]) as server:
        request = post(server.url)
        stream = await soon(client.open(request))
        reader = asyncio.create_task(gather_chunks(stream))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not reader.done()
        stream.abort()
        error = await refused(reader, request)
        await server.closed_at()
    assert error.reason == v1.ERROR_REASON_STREAM_INTERRUPTED


async def test_abort_after_the_end_spares_the_connection(client: HttpClient) -> None:
    answer = send(response(b"whole"))
    async with FaultServer([read_request, answer, read_request, answer, hang]) as server:
        first = await soon(client.open(post(server.url)))
        assert await soon(gather_chunks(first)) == b"whole"
        first.abort()
        second = await soon(client.open(post(server.url)))
        # The second stream runs on the connection that the first one had.
        first.abort()
        assert await soon(second.read()) == b"whole"
        assert len(server.connections) == 1


async def test_closing_the_client_ends_a_running_stream(client: HttpClient) -> None:
    async with FaultServer([read_request, send(HALF), hang]) as server:
        request = post(server.url)
        reader = asyncio.create_task(open_and_gather(client, request))
        await server.until(lambda: len(server.requests) == 1)
        for _ in range(10):
            await asyncio.sleep(0)
        await soon(client.close())
        error = await refused(reader, request)
        await server.closed_at()
    assert error.reason == v1.ERROR_REASON_STREAM_INTERRUPTED


async def test_closing_the_client_ends_a_running_fetch(client: HttpClient) -> None:
    async with FaultServer([read_request, hang]) as server:
        request = post(server.url)
        fetching = asyncio.create_task(client.fetch(request))
        await server.until(lambda: len(server.requests) == 1)
        await soon(client.close())
        error = await refused(fetching, request)
        await server.closed_at()
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert error.sent


@pytest.mark.parametrize("framing", ["chunked", "sized"])
async def test_a_slow_reader_holds_the_vendor_back(client: HttpClient, framing: str) -> None:
    """The vendor has 256 MiB to say and nobody listens: it must get stuck, and then go on."""
    total = 256 * MIB
    piece = b"x" * (256 * 1024)

    async def say_much(connection: FaultConnection) -> None:
        await connection.read_request()
        if framing == "sized":
            await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        else:
            await connection.send(CHUNKED)
        for _ in range(total // len(piece)):
            framed = b"%x\r\n%s\r\n" % (len(piece), piece) if framing == "chunked" else piece
            await connection.send(framed)
        if framing == "chunked":
            await connection.send(b"0\r\n\r\n")

    async with FaultServer(say_much) as server:
        stream = await soon(client.open(post(server.url)))
        stuck_at = -1
        # The kernel's own buffers take a few MiB; once nothing has moved for a hundred turns
        # of the loop, nothing will.
        while stuck_at != server.connections[0].sent:
            stuck_at = server.connections[0].sent
            for _ in range(100):
                await asyncio.sleep(0)
        assert stuck_at < 32 * MIB
        received = 0
        async for chunk in stream.chunks():
            received += len(chunk)
    assert received == total
