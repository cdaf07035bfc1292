"""What is the own client's: its options, and what the port leaves open."""

import asyncio
import contextlib
import gc
import gzip
import ssl
import sys
import zlib
from pathlib import Path

import pytest
import trustme

from tests.adversity.upstream.calls import gather_chunks, post, refused, soon
from tests.support.fault_server import (
    FaultConnection,
    FaultServer,
    close,
    hang,
    read_request,
    reset,
    response,
    send,
)
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream.aiohttp_client import AiohttpClient
from trunkline_server.upstream.clients import make_client
from trunkline_server.upstream.http import HttpRequest
from trunkline_server.upstream.http1 import exchange
from trunkline_server.upstream.http1.client import Http1Client
from trunkline_server.upstream.http1.connection import Connection
from trunkline_server.upstream.http1.exchange import Exchange

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
HALF = CHUNKED + b"5\r\nfirst\r\n"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_user_agent() -> None:
    async with FaultServer([read_request, send(response())]) as server:
        client = Http1Client(user_agent="trunkline/1.2")
        await soon(client.fetch(post(server.url)))
        await client.close()
        assert server.requests[0].headers["user-agent"] == "trunkline/1.2"


async def test_a_header_that_http_cannot_carry_opens_no_connection() -> None:
    async with FaultServer(hang) as server:
        client = Http1Client()
        bad = HttpRequest("POST", server.url, (("x-a", "1\r\nx-b: 2"),), b"{}")
        for call in (client.fetch, client.open):
            with pytest.raises(ValueError, match="header"):
                await soon(call(bad))
        await client.close()
        assert server.connections == []


async def test_an_open_stream_does_not_keep_what_was_sent() -> None:
    async with FaultServer([read_request, send(HALF), hang]) as server:
        client = Http1Client()
        body = b"x" * 100_000
        holders = sys.getrefcount(body)
        stream = await soon(client.open(post(server.url)._replace(body=body)))
        await turns()
        assert sys.getrefcount(body) == holders
        stream.abort()
        await client.close()


async def test_a_kept_connection_that_lived_a_while_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its vendor may have begun to work: asking again may pay twice."""
    # Every failure comes later than this.
    monkeypatch.setattr(exchange, "_STALE_SECONDS", 0.0)
    client = Http1Client()
    script = [read_request, send(response(b"ok")), read_request, reset]
    async with FaultServer(script) as server:
        request = post(server.url)
        await soon(client.fetch(request))
        error = await refused(client.fetch(request), request)
        assert len(server.requests) == 2
        await client.close()
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE


async def test_closing_the_client_does_not_make_a_request_unsent() -> None:
    async with FaultServer([read_request, send(response(b"ok")), read_request, hang]) as server:
        client = Http1Client()
        request = post(server.url)
        await soon(client.fetch(request))
        fetching = asyncio.create_task(client.fetch(request))
        await server.until(lambda: len(server.requests) == 2)
        await soon(client.close())
        assert (await refused(fetching, request)).sent
        assert len(server.connections) == 1


async def test_a_body_is_iterated_once() -> None:
    async with FaultServer([read_request, send(response(b"ok"))]) as server:
        client = Http1Client()
        stream = await soon(client.open(post(server.url)))
        assert await soon(gather_chunks(stream)) == b"ok"
        with pytest.raises(RuntimeError):
            stream.chunks()
        await client.close()


async def test_a_stream_that_is_dropped_closes_its_connection() -> None:
    async with FaultServer([read_request, send(HALF), hang]) as server:
        client = Http1Client()
        async for chunk in (await soon(client.open(post(server.url)))).chunks():
            assert chunk == b"first"
            break
        await server.closed_at()
        await client.close()


async def test_a_stream_that_is_dropped_unread_gives_its_place_back() -> None:
    script = [read_request, send(HALF), hang]
    async with FaultServer(script, [read_request, send(response(b"ok"))]) as server:
        client = Http1Client(max_connections_per_origin=1)
        await soon(client.open(post(server.url)))
        assert (await soon(client.fetch(post(server.url)))).body == b"ok"
        await client.close()


async def test_a_stream_outlives_its_loop() -> None:
    """Dropping it then does nothing, and says nothing."""

    async def open_one() -> object:
        async with FaultServer([read_request, send(HALF), hang]) as server:
            client = Http1Client()
            stream = await client.open(post(server.url))
            await client.close()
            return stream

    stream = await asyncio.to_thread(asyncio.run, open_one())
    del stream


def living(kind: type) -> list[object]:
    return [one for one in gc.get_objects() if isinstance(one, kind)]


async def test_nothing_needs_the_collector() -> None:
    """Connections and exchanges are freed by reference counts alone, also after failures."""

    async def once_more(connection: FaultConnection) -> None:
        await connection.read_request()
        await connection.send(response(b"ok"))
        await connection.read_request()
        await connection.send(HALF + b"nonsense\r\n")
        await connection.wait_for_client_close()

    gc.collect()
    gc.disable()
    try:
        async with FaultServer(once_more) as server:
            client = Http1Client()
            await soon(client.fetch(post(server.url)))
            assert len(living(Connection)) == 1
            # Not by way of `refused`: what it keeps of the error would hold all of this.
            with contextlib.suppress(UpstreamError):
                await client.fetch(post(server.url))
            await turns()
            assert living(Connection) == living(Exchange) == []
            await client.close()
    finally:
        gc.enable()


async def test_a_compressed_stream_is_unpacked_as_it_arrives() -> None:
    heard = asyncio.Event()
    packer = zlib.compressobj(wbits=31)

    async def script(connection: FaultConnection) -> None:
        await connection.read_request()
        await connection.send(CHUNKED[:-2] + b"content-encoding: gzip\r\n\r\n")
        for word in (b"one", b"two", b"three"):
            heard.clear()
            packed = packer.compress(word) + packer.flush(zlib.Z_SYNC_FLUSH)
            await connection.send(b"%x\r\n%b\r\n" % (len(packed), packed))
            await heard.wait()
        packed = packer.flush()
        await connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed))

    async with FaultServer(script) as server:
        client = Http1Client()
        stream = await soon(client.open(post(server.url)))
        words = []
        async with asyncio.timeout(5):
            async for word in stream.chunks():
                words.append(word)
                heard.set()
        assert words == [b"one", b"two", b"three"]
        await client.close()


async def test_compressed_responses_keep_the_connection() -> None:
    packed = send(response(gzip.compress(b"abc" * 100), "content-encoding: gzip"))
    async with FaultServer([read_request, packed, read_request, packed]) as server:
        client = Http1Client()
        for _ in range(2):
            assert (await soon(client.fetch(post(server.url)))).body == b"abc" * 100
        assert len(server.connections) == 1
        await client.close()


async def test_a_body_at_its_bound_may_be_larger_as_it_is_sent() -> None:
    """The bound is on the body as it is unpacked."""
    body = bytes(range(256)) * 4
    packed = gzip.compress(body, 0)
    assert len(packed) > len(body)
    answer = send(response(packed, "content-encoding: gzip"))
    async with FaultServer([read_request, answer, read_request, answer]) as server:
        client = Http1Client()
        fits = post(server.url, max_body_bytes=len(body))
        assert (await soon(client.fetch(fits))).body == body
        request = post(server.url, max_body_bytes=len(body) - 1)
        error = await refused(client.fetch(request), request)
        assert "exceeds" in error.message
        await client.close()


@pytest.mark.parametrize(
    ("head", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", 1),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", 2),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", 1),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", 2),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: Close\r\n\r\n", 2),
    ],
)
async def test_which_connections_are_kept(head: bytes, connections: int) -> None:
    async with FaultServer([read_request, send(head), read_request, send(head), hang]) as server:
        client = Http1Client()
        for _ in range(2):
            assert (await soon(client.fetch(post(server.url)))).body == b""
            await turns()
        assert len(server.connections) == connections
        await client.close()


async def test_interim_responses_without_end_are_cut_off() -> None:
    interim = b"HTTP/1.1 102 Processing\r\n\r\n" * 1_000

    async def flood(connection: FaultConnection) -> None:
        await connection.read_request()
        while True:
            await connection.send(interim)

    async with FaultServer(flood) as server:
        client = Http1Client()
        request = post(server.url)
        error = await refused(client.fetch(request), request)
        assert error.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
        assert server.connections[0].sent < 200 * len(interim)
        await client.close()


@pytest.mark.parametrize("start", [b"5;", b"0\r\nx-trailer: "], ids=["extension", "trailer"])
async def test_what_stands_between_pieces_is_bounded(start: bytes) -> None:
    async def flood(connection: FaultConnection) -> None:
        await connection.read_request()
        await connection.send(CHUNKED + start)
        while True:
            await connection.send(b"x" * 1000)

    async with FaultServer(flood) as server:
        client = Http1Client()
        request = post(server.url)
        error = await refused(client.fetch(request), request)
        assert error.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
        await client.close()


async def test_a_head_of_32_kib_is_taken_and_one_more_byte_is_not() -> None:
    frame = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: %b\r\n\r\n"
    most = 32 * 1024 - len(frame % b"")
    for size, taken in ((most, True), (most + 1, False)):
        for cut in (1, 10_000, 20_000, size):
            wire = frame % (b"y" * size)

            async def script(
                connection: FaultConnection, wire: bytes = wire, cut: int = cut
            ) -> None:
                await connection.read_request()
                await connection.send(wire[:cut])
                await turns(5)
                await connection.send(wire[cut:])
                await connection.wait_for_client_close()

            async with FaultServer(script) as server:
                client = Http1Client()
                request = post(server.url)
                if taken:
                    assert (await soon(client.fetch(request))).headers["x"] == "y" * size
                else:
                    error = await refused(client.fetch(request), request)
                    assert "headers too large" in error.message
                await client.close()


@pytest.mark.parametrize(("count", "taken"), [(255, True), (256, False)])
async def test_how_many_fields_are_taken(count: int, taken: bool) -> None:
    lines = ["x: y"] * count
    async with FaultServer([read_request, send(response(b"ok", *lines)), hang]) as server:
        client = Http1Client()
        request = post(server.url)
        if taken:
            assert (await soon(client.fetch(request))).body == b"ok"
        else:
            assert "too large" in (await refused(client.fetch(request), request)).message
        await client.close()


async def test_an_interim_response_may_end_anywhere_in_what_arrives() -> None:
    wire = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + response(b"done", "x-a: 1")
    client = Http1Client()
    for cut in range(1, len(wire)):

        async def script(connection: FaultConnection, cut: int = cut) -> None:
            await connection.read_request()
            await connection.send(wire[:cut])
            await turns(5)
            await connection.send(wire[cut:])

        async with FaultServer(script) as server:
            answer = await soon(client.fetch(post(server.url)))
            assert (answer.body, answer.headers.get("link")) == (b"done", None), cut
    await client.close()


async def test_only_http_1_1_is_offered_and_the_host_is_named(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    named: list[str | None] = []
    context.sni_callback = lambda _sock, name, _context: named.append(name)
    chosen: list[str | None] = []

    async def look(connection: FaultConnection) -> None:
        await connection.read_request()
        tls = connection.transport.get_extra_info("ssl_object")
        chosen.append(tls.selected_alpn_protocol())
        await connection.send(response(b"ok"))

    async with FaultServer(look, tls=context) as server:
        client = Http1Client(ca_file=tmp_path / "ca.pem")
        await soon(client.fetch(post(f"https://localhost:{server.port}")))
        await client.close()
    assert (chosen, named) == (["http/1.1"], ["localhost"])


async def test_proxies_are_left_to_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FaultServer([read_request, send(response(b"by proxy"))]) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        client = make_client(proxies=True)
        assert isinstance(client, AiohttpClient)
        answer = await soon(client.fetch(post("http://api.example:80")))
        assert answer.body == b"by proxy"
        await client.close()


@pytest.mark.parametrize("proxies", [True, False])
async def test_without_proxies_the_own_client_serves(
    monkeypatch: pytest.MonkeyPatch, proxies: bool
) -> None:
    monkeypatch.setenv("no_proxy", "localhost")
    if not proxies:
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    client = make_client(proxies=proxies, max_connections_per_origin=3)
    assert isinstance(client, Http1Client)
    await client.close()


async def test_a_connection_that_ends_as_it_begins() -> None:
    """However the end and the request meet, the error is the same."""
    for end in (close, reset):
        async with FaultServer(end) as server:
            client = Http1Client()
            for _ in range(5):
                request = post(server.url)
                error = await refused(client.fetch(request), request)
                assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
            await client.close()
