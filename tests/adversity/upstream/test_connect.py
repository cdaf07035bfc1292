"""No connection can be had: then certainly nothing was sent."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from tests.adversity.upstream.calls import (
    AT_ONCE,
    EVERY_WAY,
    open_files,
    post,
    refused,
    silent_port,
    soon,
)
from tests.adversity.upstream.conftest import MakeClient
from tests.support.fault_server import (
    GUARD_SECONDS,
    FaultConnection,
    FaultServer,
    hang,
    read_request,
    response,
    send,
)
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream.http import HttpClient


@pytest.fixture(name="silent_port")
def _silent_port() -> Iterator[int]:
    with silent_port() as port:
        yield port


@pytest.mark.parametrize("way", EVERY_WAY)
async def test_refused(client: HttpClient, way: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        request = post(f"http://127.0.0.1:{unused.getsockname()[1]}")
        error = await refused(EVERY_WAY[way](client, request), request)
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert not error.sent
    assert "refused" in error.message


async def test_name_not_resolved(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_such_name(*args: object, **options: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # A real resolver would need a network, if only to say no.
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", no_such_name)
    request = post("http://nowhere.invalid:80")
    error = await refused(client.fetch(request), request)
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert not error.sent
    assert "resolve" in error.message


@pytest.mark.parametrize("way", EVERY_WAY)
async def test_connect_timeout(client: HttpClient, silent_port: int, way: str) -> None:
    request = post(f"http://127.0.0.1:{silent_port}", connect_timeout=0.05)
    error = await refused(EVERY_WAY[way](client, request), request)
    assert error.reason == v1.ERROR_REASON_TIMEOUT
    assert not error.sent


async def test_connect_timeout_covers_the_tls_handshake(client: HttpClient) -> None:
    async with FaultServer(hang) as server:
        request = post(f"https://127.0.0.1:{server.port}", connect_timeout=0.05)
        error = await refused(client.fetch(request), request)
        await server.closed_at()
    assert error.reason == v1.ERROR_REASON_TIMEOUT
    assert not error.sent


async def test_connect_timeout_covers_the_wait_for_a_full_pool(make_client: MakeClient) -> None:
    client = make_client(max_connections_per_origin=1)
    async with FaultServer([read_request, hang]) as server:
        first = asyncio.create_task(client.fetch(post(server.url)))
        await server.until(lambda: len(server.requests) == 1)
        request = post(server.url, connect_timeout=0.05)
        error = await refused(client.fetch(request), request)
        assert error.reason == v1.ERROR_REASON_TIMEOUT
        assert not error.sent
        assert len(server.connections) == 1
        first.cancel()
        await asyncio.wait([first])


async def test_cancel_while_connecting(client: HttpClient, silent_port: int) -> None:
    before = open_files()
    task = asyncio.create_task(client.fetch(post(f"http://127.0.0.1:{silent_port}")))
    async with asyncio.timeout(GUARD_SECONDS):
        while open_files() == before:  # noqa: ASYNC110 (only the new socket tells)
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert open_files() == before


async def test_cancel_in_the_tls_handshake(client: HttpClient) -> None:
    loop = asyncio.get_running_loop()
    async with FaultServer(hang) as server:
        task = asyncio.create_task(client.fetch(post(f"https://127.0.0.1:{server.port}")))
        await server.until(lambda: len(server.connections) == 1)
        cancelled_at = loop.time()
        task.cancel()
        assert await server.closed_at() - cancelled_at < AT_ONCE
        with pytest.raises(asyncio.CancelledError):
            await soon(task)


async def test_cancel_while_waiting_for_a_full_pool(make_client: MakeClient) -> None:
    client = make_client(max_connections_per_origin=1)
    release = asyncio.Event()

    async def answer_when_told(connection: FaultConnection) -> None:
        await connection.read_request()
        await release.wait()
        await connection.send(response(b"first"))
        await connection.read_request()
        await connection.send(response(b"third"))

    async with FaultServer(answer_when_told) as server:
        first = asyncio.create_task(client.fetch(post(server.url)))
        await server.until(lambda: len(server.requests) == 1)
        second = asyncio.create_task(client.fetch(post(server.url)))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(second)
        release.set()
        assert (await soon(first)).body == b"first"
        assert (await soon(client.fetch(post(server.url)))).body == b"third"
        assert len(server.connections) == 1


async def test_a_closed_client_sends_nothing(client: HttpClient) -> None:
    async with FaultServer([read_request, send(response())]) as server:
        await client.close()
        with pytest.raises(UpstreamError) as caught:
            await soon(client.fetch(post(server.url)))
        assert server.connections == []
    assert caught.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert not caught.value.sent
