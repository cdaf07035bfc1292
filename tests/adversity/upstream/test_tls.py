"""TLS: whom the client believes, and that its promises hold inside it too."""

import asyncio
import datetime as dt
import ssl
from pathlib import Path

import pytest
import trustme

from tests.adversity.upstream.calls import (
    AT_ONCE,
    EVERY_WAY,
    gather_chunks,
    open_and_gather,
    post,
    refused,
    soon,
)
from tests.adversity.upstream.conftest import MakeClient
from tests.support.fault_server import (
    FaultServer,
    hang,
    read_request,
    reset,
    response,
    send,
)
from trunkline import v1
from trunkline_server.upstream.http import HttpClient

HALF = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_side(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture(scope="module")
def good(authority: trustme.CA) -> ssl.SSLContext:
    return server_side(authority.issue_cert("127.0.0.1"))


@pytest.fixture
async def client(make_client: MakeClient, authority: trustme.CA, tmp_path: Path) -> HttpClient:
    """A client that believes the test's authority and no other."""
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    return make_client(ca_file=ca_file)


@pytest.mark.parametrize("way", EVERY_WAY)
async def test_good(client: HttpClient, good: ssl.SSLContext, way: str) -> None:
    answers = [read_request, send(response(b"a")), read_request, send(response(b"b"))]
    async with FaultServer(answers, tls=good) as server:
        assert await soon(EVERY_WAY[way](client, post(server.url))) == b"a"
        assert await soon(EVERY_WAY[way](client, post(server.url))) == b"b"
        assert len(server.connections) == 1


async def test_unknown_authority(make_client: MakeClient, good: ssl.SSLContext) -> None:
    client = make_client()
    async with FaultServer([read_request, send(response())], tls=good) as server:
        request = post(server.url)
        error = await refused(client.fetch(request), request)
        assert server.requests == []
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert not error.sent
    assert "certificate" in error.message


async def test_other_host(client: HttpClient, authority: trustme.CA) -> None:
    tls = server_side(authority.issue_cert("api.example", "127.0.0.2"))
    async with FaultServer([read_request, send(response())], tls=tls) as server:
        request = post(server.url)
        error = await refused(client.fetch(request), request)
        assert server.requests == []
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert not error.sent
    assert "certificate" in error.message


async def test_expired(client: HttpClient, authority: trustme.CA) -> None:
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    tls = server_side(authority.issue_cert("127.0.0.1", not_before=past, not_after=past))
    async with FaultServer([read_request, send(response())], tls=tls) as server:
        request = post(server.url)
        error = await refused(client.fetch(request), request)
        assert server.requests == []
    assert not error.sent
    assert "expired" in error.message


async def test_no_tls_behind_https(client: HttpClient) -> None:
    async with FaultServer([send(b"HTTP/1.1 400 Bad Request\r\n\r\n")]) as server:
        request = post(f"https://127.0.0.1:{server.port}")
        error = await refused(client.fetch(request), request)
        assert server.requests == []
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert not error.sent


async def test_reset_in_the_handshake(client: HttpClient) -> None:
    async with FaultServer(reset) as server:
        request = post(f"https://127.0.0.1:{server.port}")
        error = await refused(client.fetch(request), request)
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert not error.sent


async def test_reset_inside_the_stream(client: HttpClient, good: ssl.SSLContext) -> None:
    async with FaultServer([read_request, send(HALF), reset], tls=good) as server:
        request = post(server.url)
        error = await refused(open_and_gather(client, request), request)
    assert error.reason in {
        v1.ERROR_REASON_STREAM_INTERRUPTED,
        # The reset may overtake the headers.
        v1.ERROR_REASON_SERVICE_UNAVAILABLE,
    }


@pytest.mark.parametrize("sent", [b"", HALF], ids=["before the headers", "inside the body"])
async def test_cancel(client: HttpClient, good: ssl.SSLContext, sent: bytes) -> None:
    loop = asyncio.get_running_loop()
    async with FaultServer([read_request, send(sent), hang], tls=good) as server:
        task = asyncio.create_task(open_and_gather(client, post(server.url)))
        await server.until(lambda: len(server.requests) == 1)
        for _ in range(10):
            await asyncio.sleep(0)
        cancelled_at = loop.time()
        task.cancel()
        assert await server.closed_at() - cancelled_at < AT_ONCE
        with pytest.raises(asyncio.CancelledError):
            await soon(task)


async def test_abort(client: HttpClient, good: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    async with FaultServer([read_request, send(HALF), hang], tls=good) as server:
        request = post(server.url)
        stream = await soon(client.open(request))
        aborted_at = loop.time()
        stream.abort()
        assert await server.closed_at() - aborted_at < AT_ONCE
        error = await refused(gather_chunks(stream), request)
    assert error.reason == v1.ERROR_REASON_STREAM_INTERRUPTED


async def test_a_dead_kept_connection_is_replaced(client: HttpClient, good: ssl.SSLContext) -> None:
    scripts = [
        [read_request, send(response(b"a")), read_request, reset],
        [read_request, send(response(b"b"))],
    ]
    async with FaultServer(*scripts, tls=good) as server:
        await soon(client.fetch(post(server.url)))
        assert (await soon(client.fetch(post(server.url)))).body == b"b"
        assert len(server.connections) == 2
