"""What may happen between the response's headers and the end of its body."""

import asyncio
import gzip
import hashlib
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest

from tests.adversity.upstream.calls import (
    EVERY_WAY,
    UNARY,
    fetch_body,
    open_and_gather,
    open_and_read,
    post,
    refused,
    soon,
)
from tests.support.fault_server import (
    FaultConnection,
    FaultServer,
    Script,
    close,
    hang,
    read_request,
    reset,
    response,
    send,
)
from trunkline import v1
from trunkline_server.upstream.http import HttpClient

MIB = 1024 * 1024
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"

WHOLE: dict[str, tuple[bytes, bytes]] = {
    "sized": (SIZED + b"0123456789", b"0123456789"),
    "empty": (response(b""), b""),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "chunked": (CHUNKED + b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n", b"abcde"),
    "chunked, empty": (CHUNKED + b"0\r\n\r\n", b""),
    "chunked, with a trailer": (CHUNKED + b"1\r\na\r\n0\r\nx-checksum: 1\r\n\r\n", b"a"),
    "until close": (UNTIL_CLOSE + b"abc", b"abc"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
    "gzip": (response(gzip.compress(b"abc" * 1000), "content-encoding: gzip"), b"abc" * 1000),
    "deflate": (response(zlib.compress(b"abc" * 99), "content-encoding: deflate"), b"abc" * 99),
}

CUT: dict[str, list[bytes]] = {
    "sized, nothing": [SIZED],
    "sized, short": [SIZED, b"012345678"],
    "chunked, nothing": [CHUNKED],
    "chunked, inside a size": [CHUNKED, b"1"],
    "chunked, inside a chunk": [CHUNKED, b"5\r\nab"],
    "chunked, after a chunk": [CHUNKED, b"2\r\nab\r\n"],
    "chunked, inside the last": [CHUNKED, b"2\r\nab\r\n0\r\n"],
}

MALFORMED: dict[str, list[bytes]] = {
    "chunk size": [CHUNKED, b"2\r\nab\r\nZZ\r\n"],
    "chunk size negative": [CHUNKED, b"-1\r\n"],
    "chunk size beyond 64 bits": [CHUNKED, b"fffffffffffffffff\r\n"],
    "chunk longer than its size": [CHUNKED, b"2\r\nabcd\r\n"],
    "not gzip": [response(b"nonsense", "content-encoding: gzip")],
    "corrupt gzip": [
        response(gzip.compress(bytes(1000))[:10] + b"\xff" * 50, "content-encoding: gzip")
    ],
}


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("name", WHOLE)
async def test_whole(client: HttpClient, name: str, way: str) -> None:
    wire, body = WHOLE[name]
    async with FaultServer([read_request, send(wire)]) as server:
        assert await soon(EVERY_WAY[way](client, post(server.url))) == body


@pytest.mark.parametrize("name", WHOLE)
async def test_whole_in_single_bytes(client: HttpClient, name: str) -> None:
    wire, body = WHOLE[name]

    async def byte_by_byte(connection: FaultConnection) -> None:
        await connection.read_request()
        for byte in wire:
            await connection.send(bytes([byte]))
            # Lets the client see each byte by itself.
            await asyncio.sleep(0)

    async with FaultServer(byte_by_byte) as server:
        assert await soon(open_and_gather(client, post(server.url))) == body


def after_the_first_bytes(wire: list[bytes], end: Script) -> Script:
    """Sends the parts one by one, each once the client had time to see the one before."""

    async def script(connection: FaultConnection) -> None:
        await connection.read_request()
        for part in wire:
            await connection.send(part)
            for _ in range(5):
                await asyncio.sleep(0)
        assert callable(end)
        await end(connection)

    return script


@pytest.mark.parametrize("end", [close, reset])
@pytest.mark.parametrize("way", UNARY)
@pytest.mark.parametrize("name", CUT)
async def test_cut_unary(client: HttpClient, name: str, way: str, end: Script) -> None:
    async with FaultServer(after_the_first_bytes(CUT[name], end)) as server:
        request = post(server.url)
        error = await refused(UNARY[way](client, request), request)
    assert error.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
    assert error.http_status == 200
    assert error.sent


@pytest.mark.parametrize("end", [close, reset])
@pytest.mark.parametrize("name", CUT)
async def test_cut_stream(client: HttpClient, name: str, end: Script) -> None:
    async with FaultServer(after_the_first_bytes(CUT[name], end)) as server:
        request = post(server.url)
        error = await refused(open_and_gather(client, request), request)
    assert error.reason == v1.ERROR_REASON_STREAM_INTERRUPTED
    assert error.http_status == 200


async def test_a_body_without_length_is_cut_by_a_reset(client: HttpClient) -> None:
    async with FaultServer(after_the_first_bytes([UNTIL_CLOSE, b"abc"], reset)) as server:
        request = post(server.url)
        error = await refused(client.fetch(request), request)
        assert error.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
        error = await refused(open_and_gather(client, request), request)
        assert error.reason == v1.ERROR_REASON_STREAM_INTERRUPTED


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed(client: HttpClient, name: str, way: str) -> None:
    async with FaultServer(after_the_first_bytes(MALFORMED[name], hang)) as server:
        request = post(server.url)
        error = await refused(EVERY_WAY[way](client, request), request)
        await server.closed_at()
    assert error.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


@pytest.mark.parametrize("way", UNARY)
async def test_more_than_its_length(client: HttpClient, way: str) -> None:
    """What follows the body belongs to no response: it must not answer the next request."""
    wire = SIZED + b"0123456789" + response(b"smuggled")
    scripts: list[Script] = [[read_request, send(wire), hang], [read_request, send(response(b"b"))]]
    async with FaultServer(*scripts) as server:
        request = post(server.url)
        assert await soon(UNARY[way](client, request)) == b"0123456789"
        assert await soon(UNARY[way](client, request)) == b"b"
        await server.closed_at(0)


@pytest.fixture
def peak_memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def flood(connection: FaultConnection, total: int) -> None:
    """A chunked body of `total` bytes, in pieces of 64 KiB."""
    await connection.read_request()
    await connection.send(CHUNKED)
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for _ in range(total // 65536):
        await connection.send(piece)
    await connection.send(b"0\r\n\r\n")


@pytest.mark.parametrize("way", UNARY)
async def test_too_large_is_not_gathered(client: HttpClient, peak_memory: None, way: str) -> None:
    async with FaultServer(lambda connection: flood(connection, 50 * MIB)) as server:
        request = post(server.url, max_body_bytes=MIB)
        error = await refused(UNARY[way](client, request), request)
        await server.closed_at()
        assert server.connections[0].sent < 25 * MIB
    assert error.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
    assert error.http_status == 200
    assert tracemalloc.get_traced_memory()[1] < 8 * MIB


@pytest.mark.parametrize("way", UNARY)
async def test_too_large_by_its_length_is_not_read(client: HttpClient, way: str) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1048577\r\n\r\n"
    async with FaultServer([read_request, send(head), hang]) as server:
        request = post(server.url, max_body_bytes=MIB)
        error = await refused(UNARY[way](client, request), request)
        await server.closed_at()
    assert error.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


async def test_a_large_body_within_its_bound(client: HttpClient) -> None:
    async with FaultServer(lambda connection: flood(connection, 50 * MIB)) as server:
        answer = await soon(client.fetch(post(server.url, max_body_bytes=50 * MIB)))
    expected = hashlib.sha256(b"x" * (50 * MIB)).digest()
    assert hashlib.sha256(answer.body).digest() == expected


@pytest.mark.parametrize("way", UNARY)
async def test_a_bomb_is_not_unpacked(client: HttpClient, peak_memory: None, way: str) -> None:
    bomb = gzip.compress(bytes(200 * MIB), 9)
    tracemalloc.reset_peak()
    async with FaultServer(
        [read_request, send(response(bomb, "content-encoding: gzip")), hang]
    ) as server:
        request = post(server.url, max_body_bytes=MIB)
        error = await refused(UNARY[way](client, request), request)
        await server.closed_at()
    assert error.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
    assert tracemalloc.get_traced_memory()[1] < 8 * MIB


async def test_what_compression_is_asked_for(client: HttpClient) -> None:
    async with FaultServer([read_request, send(response())]) as server:
        await soon(fetch_body(client, post(server.url)))
        await soon(open_and_read(client, post(server.url)))
        asked = [request.headers["accept-encoding"] for request in server.requests]
    assert asked == ["gzip, deflate", "identity"]
