"""Which connection a request goes to, and when it is repeated on another one."""

import asyncio

import pytest

from tests.adversity.upstream.calls import EVERY_WAY, post, refused, soon
from tests.adversity.upstream.conftest import MakeClient
from tests.support.fault_server import (
    FaultConnection,
    FaultServer,
    Script,
    Step,
    close,
    hang,
    read_request,
    reset,
    response,
    send,
)
from trunkline import v1
from trunkline_server.upstream.http import HttpClient

METHODS = {"POST": b"{}", "GET": b""}

answer = send(response(b"ok"))


async def serve(connection: FaultConnection) -> None:
    """Answers every request until the client closes."""
    while True:
        await connection.read_request()
        await connection.send(response(b"ok"))


@pytest.mark.parametrize("way", EVERY_WAY)
async def test_one_connection_serves_one_request_after_another(
    client: HttpClient, way: str
) -> None:
    async with FaultServer(serve) as server:
        for _ in range(3):
            assert await soon(EVERY_WAY[way](client, post(server.url))) == b"ok"
        assert len(server.connections) == 1


async def test_failures_of_the_vendor_keep_the_connection(client: HttpClient) -> None:
    failure = send(response(b"{}", status="500 Internal Server Error"))
    async with FaultServer([read_request, failure, read_request, answer]) as server:
        assert (await soon(client.fetch(post(server.url)))).status == 500
        assert (await soon(client.fetch(post(server.url)))).status == 200
        assert len(server.connections) == 1


async def test_concurrent_requests_have_a_connection_each(client: HttpClient) -> None:
    async def answer_together(connection: FaultConnection) -> None:
        await connection.read_request()
        await connection.server.until(lambda: len(connection.server.requests) >= 5)
        await connection.send(response(b"ok"))

    async with FaultServer(answer_together) as server:
        answers = await soon(asyncio.gather(*(client.fetch(post(server.url)) for _ in range(5))))
        assert [answer.body for answer in answers] == [b"ok"] * 5
        assert len(server.connections) == 5


async def test_a_pool_at_its_limit_makes_requests_take_turns(make_client: MakeClient) -> None:
    client = make_client(max_connections_per_origin=2)
    async with FaultServer(serve) as server:
        await soon(asyncio.gather(*(client.fetch(post(server.url)) for _ in range(10))))
        assert len(server.requests) == 10
        assert len(server.connections) == 2


async def test_a_connection_that_the_server_gives_up_is_not_used_again(
    client: HttpClient,
) -> None:
    last = send(response(b"ok", "connection: close"))
    async with FaultServer([read_request, last, hang]) as server:
        await soon(client.fetch(post(server.url)))
        await server.closed_at(0)
        await soon(client.fetch(post(server.url)))
        assert len(server.connections) == 2


async def test_closing_the_client_closes_idle_connections(client: HttpClient) -> None:
    async with FaultServer(serve) as server:
        await soon(client.fetch(post(server.url)))
        await client.close()
        await server.closed_at(0)


async def test_bytes_that_nobody_asked_for_answer_nothing(client: HttpClient) -> None:
    """A response pushed on an idle connection must not be taken for the next one's."""

    async def push(connection: FaultConnection) -> None:
        await connection.read_request()
        await connection.send(response(b"asked"))
        await pushing.wait()
        await connection.send(response(b"pushed"))
        await connection.wait_for_client_close()

    pushing = asyncio.Event()
    async with FaultServer(push, serve) as server:
        assert (await soon(client.fetch(post(server.url)))).body == b"asked"
        before = server.connections[0].sent
        pushing.set()
        await server.until(lambda: server.connections[0].sent > before)
        for _ in range(10):
            await asyncio.sleep(0)
        assert (await soon(client.fetch(post(server.url)))).body == b"ok"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("end", [close, reset])
async def test_a_dead_kept_connection_is_replaced(
    client: HttpClient, end: Step, way: str, method: str
) -> None:
    """The server ends the kept connection just as the next request comes."""
    async with FaultServer([read_request, answer, read_request, end], serve) as server:
        request = post(server.url, method=method, body=METHODS[method])
        await soon(client.fetch(request))
        assert await soon(EVERY_WAY[way](client, request)) == b"ok"
        assert len(server.connections) == 2
        assert [received.body for received in server.requests] == [request.body] * 3


async def test_a_kept_connection_that_ended_while_idle_is_not_used(client: HttpClient) -> None:
    async with FaultServer([read_request, answer], serve) as server:
        await soon(client.fetch(post(server.url)))
        for _ in range(10):
            await asyncio.sleep(0)
        await soon(client.fetch(post(server.url)))
        assert [len(connection.requests) for connection in server.connections] == [1, 1]


@pytest.mark.parametrize("method", METHODS)
async def test_a_request_is_repeated_only_once(client: HttpClient, method: str) -> None:
    scripts: list[Script] = [[read_request, answer, read_request, reset], [read_request, reset]]
    async with FaultServer(*scripts) as server:
        request = post(server.url, method=method, body=METHODS[method])
        await soon(client.fetch(request))
        error = await refused(client.fetch(request), request)
        assert len(server.connections) == 2
        assert len(server.requests) == 3
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert error.sent


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("end", [close, reset])
async def test_a_new_connection_that_breaks_is_not_replaced(
    client: HttpClient, end: Step, method: str
) -> None:
    async with FaultServer([read_request, end]) as server:
        request = post(server.url, method=method, body=METHODS[method])
        await refused(client.fetch(request), request)
        assert len(server.requests) == 1


@pytest.mark.parametrize("end", [close, reset])
async def test_a_request_that_was_being_answered_is_not_repeated(
    client: HttpClient, end: Step
) -> None:
    async def break_off(connection: FaultConnection) -> None:
        await connection.read_request()
        await connection.send(response(b"ok"))
        await connection.read_request()
        await connection.send(b"HTTP/1.1 20")
        for _ in range(10):
            await asyncio.sleep(0)
        await end(connection)

    async with FaultServer(break_off, serve) as server:
        request = post(server.url)
        await soon(client.fetch(request))
        error = await refused(client.fetch(request), request)
        assert len(server.requests) == 2
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE


async def test_a_kept_connection_that_hangs_is_not_replaced(client: HttpClient) -> None:
    async with FaultServer([read_request, answer, read_request, hang], serve) as server:
        request = post(server.url, header_timeout=0.05)
        await soon(client.fetch(request))
        error = await refused(client.fetch(request), request)
        assert len(server.requests) == 2
    assert error.reason == v1.ERROR_REASON_TIMEOUT


async def test_several_dead_connections_cost_one_repetition(client: HttpClient) -> None:
    """The repetition goes to a new connection, not to the next of the dead ones."""

    async def answer_once(connection: FaultConnection) -> None:
        await connection.read_request()
        await connection.server.until(lambda: len(connection.server.requests) >= 3)
        await connection.send(response(b"ok"))
        await connection.read_request()
        connection.reset()

    async with FaultServer(answer_once, answer_once, answer_once, serve) as server:
        request = post(server.url)
        await soon(asyncio.gather(*(client.fetch(request) for _ in range(3))))
        assert (await soon(client.fetch(request))).body == b"ok"
        assert len(server.connections) == 4
        assert len(server.requests) == 5
