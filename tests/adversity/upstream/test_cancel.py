"""A cancelled task closes its connection at once: that is what stops the spend."""

import asyncio

import pytest

from tests.adversity.upstream.calls import AT_ONCE, EVERY_WAY, open_files, post, soon
from tests.support.fault_server import (
    FaultConnection,
    FaultServer,
    hang,
    read_request,
    response,
    send,
)
from trunkline_server.upstream.http import HttpClient

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"

SENT_BEFORE: dict[str, bytes] = {
    "nothing": b"",
    "half the headers": b"HTTP/1.1 200 OK\r\ncon",
    "an interim response": b"HTTP/1.1 100 Continue\r\n\r\n",
    "the headers": SIZED,
    "half a sized body": SIZED + b"01234",
    "half a chunk": CHUNKED + b"5\r\nab",
    "a chunk": CHUNKED + b"2\r\nab\r\n",
    "some of a body without length": b"HTTP/1.1 200 OK\r\n\r\nabc",
}


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("name", SENT_BEFORE)
async def test_cancel(client: HttpClient, name: str, way: str) -> None:
    loop = asyncio.get_running_loop()
    async with FaultServer([read_request, send(SENT_BEFORE[name]), hang]) as server:
        task = asyncio.create_task(EVERY_WAY[way](client, post(server.url)))
        await server.until(lambda: len(server.requests) == 1)
        # Lets what was sent reach the client, wherever that takes it.
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        cancelled_at = loop.time()
        task.cancel()
        assert await server.closed_at() - cancelled_at < AT_ONCE
        with pytest.raises(asyncio.CancelledError):
            await soon(task)


@pytest.mark.parametrize("way", EVERY_WAY)
async def test_a_deadline_around_the_call(client: HttpClient, way: str) -> None:
    """The attempt loop's own deadline is a cancel, and stays the attempt loop's."""
    loop = asyncio.get_running_loop()
    async with FaultServer([read_request, send(SIZED + b"01234"), hang]) as server:
        started = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await EVERY_WAY[way](client, post(server.url))
        assert await server.closed_at() - started < 0.05 + AT_ONCE


async def test_cancel_does_not_wait_for_an_upload_that_nobody_takes(client: HttpClient) -> None:
    body = bytes(64 * 1024 * 1024)
    taken = 0

    async def take_nothing_until_told(connection: FaultConnection) -> None:
        nonlocal taken
        connection.stop_reading()
        await told.wait()
        taken = await connection.drain()

    told = asyncio.Event()
    async with FaultServer(take_nothing_until_told) as server:
        before = open_files()
        task = asyncio.create_task(client.fetch(post(server.url, body=body)))
        await server.until(lambda: len(server.connections) == 1)
        for _ in range(100):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        for _ in range(10):
            await asyncio.sleep(0)
        # The client's socket is gone while the server has taken nothing; its own is left.
        assert open_files() == before + 1
        told.set()
        await server.closed_at()
        await server.until(lambda: taken > 0)
    # What the kernels held is all that came: the rest was dropped, not sent.
    assert taken < len(body) // 2


async def test_a_cancelled_call_harms_no_other(client: HttpClient) -> None:
    async def answer_second(connection: FaultConnection) -> None:
        await connection.read_request()
        await go_on.wait()
        await connection.send(response(b"second"))

    go_on = asyncio.Event()
    async with FaultServer([read_request, hang], answer_second) as server:
        first = asyncio.create_task(client.fetch(post(server.url)))
        await server.until(lambda: len(server.requests) == 1)
        second = asyncio.create_task(client.fetch(post(server.url)))
        await server.until(lambda: len(server.requests) == 2)
        first.cancel()
        await server.closed_at(0)
        go_on.set()
        assert (await soon(second)).body == b"second"
        assert first.cancelled()
