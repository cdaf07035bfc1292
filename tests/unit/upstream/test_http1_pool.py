"""Who gets which connection, in which order, and what happens to those who leave the line."""

import asyncio

import pytest

from tests.adversity.upstream.calls import open_and_gather, post, refused, soon
from tests.support.fault_server import (
    FaultConnection,
    FaultServer,
    close,
    hang,
    read_request,
    reset,
    response,
)
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream.http import HttpResponse
from trunkline_server.upstream.http1.client import Http1Client


async def echo(connection: FaultConnection) -> None:
    """Answers each request with its body."""
    while True:
        request = await connection.read_request()
        await connection.send(response(request.body))


class Gate:
    """A server that answers requests one by one, when told."""

    def __init__(self) -> None:
        self.permits = asyncio.Semaphore(0)

    async def script(self, connection: FaultConnection) -> None:
        while True:
            request = await connection.read_request()
            await self.permits.acquire()
            await connection.send(response(request.body))


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def call(client: Http1Client, url: str, body: bytes) -> asyncio.Task[HttpResponse]:
    return asyncio.create_task(client.fetch(post(url, body=body)))


async def test_waiters_are_served_in_order() -> None:
    gate = Gate()
    client = Http1Client(max_connections_per_origin=1)
    finished: list[bytes] = []
    async with FaultServer(gate.script) as server:
        calls = []
        for number in range(6):
            task = call(client, server.url, b"%d" % number)
            task.add_done_callback(lambda task: finished.append(task.result().body))
            calls.append(task)
            await turns()
        for _ in calls:
            gate.permits.release()
        await soon(asyncio.gather(*calls))
        assert finished == [b"%d" % number for number in range(6)]
        assert len(server.connections) == 1
        await client.close()


async def test_who_comes_later_does_not_overtake_the_line() -> None:
    """The connection that becomes free belongs to the first in line before it has run."""
    gate = Gate()
    client = Http1Client(max_connections_per_origin=1)
    async with FaultServer(gate.script) as server:
        first = call(client, server.url, b"first")
        await server.until(lambda: len(server.requests) == 1)
        second = call(client, server.url, b"second")
        await turns()
        # Comes at once when the first is done, before the second's task has run.
        third: list[asyncio.Task[HttpResponse]] = []
        first.add_done_callback(lambda _: third.append(call(client, server.url, b"third")))
        gate.permits.release()
        await soon(first)
        gate.permits.release()
        gate.permits.release()
        await soon(asyncio.gather(second, *third))
        assert [request.body for request in server.requests] == [b"first", b"second", b"third"]
        await client.close()


@pytest.mark.parametrize("last", [b"", b"connection: close"], ids=["connection", "place"])
async def test_what_a_cancelled_waiter_was_given_goes_to_the_next(last: bytes) -> None:
    """The waiter is cancelled in the very turn in which it is given its connection, or its
    leave to open one."""
    go = asyncio.Event()

    async def script(connection: FaultConnection) -> None:
        request = await connection.read_request()
        if request.body == b"first":
            await go.wait()
            await connection.send(response(b"first", *([last.decode()] if last else [])))
            request = await connection.read_request()
        await connection.send(response(request.body))

    client = Http1Client(max_connections_per_origin=1)
    async with FaultServer(script) as server:
        first = call(client, server.url, b"first")
        await server.until(lambda: len(server.requests) == 1)
        second = call(client, server.url, b"second")
        await turns()
        third = call(client, server.url, b"third")
        await turns()
        # Runs in the turn after the response came, when the second has its gift already.
        first.add_done_callback(lambda _: second.cancel())
        go.set()
        assert (await soon(first)).body == b"first"
        assert (await soon(third)).body == b"third"
        assert second.cancelled()
        await client.close()


async def test_cancelled_and_failed_connections_leave_no_place_behind() -> None:
    """A pool of two, after many calls that end in every way, still has both places."""
    gate = Gate()
    client = Http1Client(max_connections_per_origin=2)
    async with FaultServer([read_request, reset]) as breaking:
        for _ in range(5):
            with pytest.raises(UpstreamError):
                await soon(client.fetch(post(breaking.url)))
        for _ in range(5):
            task = call(client, breaking.url, b"")
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert [pool.unused for pool in client._pools.values()] == [True]
    async with FaultServer(gate.script) as server:
        cancelled = [call(client, server.url, b"") for _ in range(6)]
        await server.until(lambda: len(server.requests) == 2)
        for task in cancelled:
            task.cancel()
        await asyncio.wait(cancelled)
        both = [call(client, server.url, b"x") for _ in range(2)]
        await server.until(lambda: len(server.requests) == 4)
        # Two of them go to the scripts of the connections that were cancelled.
        for _ in range(4):
            gate.permits.release()
        await soon(asyncio.gather(*both))
        await client.close()


async def test_a_connection_that_ends_while_it_is_opened_has_one_place_to_give_back() -> None:
    """The task is cancelled, or the peer gone, in the turns in which the connection is made."""
    client = Http1Client(max_connections_per_origin=2)
    async with FaultServer(close) as server:
        for delay in range(1, 14):
            task = call(client, server.url, b"")
            await turns(delay)
            task.cancel()
            await asyncio.wait([task])
            await turns(20)
            [pool] = client._pools.values()
            assert (pool._count, pool._members) == (0, set()), delay
        await client.close()


async def test_a_place_is_free_when_connecting_fails() -> None:
    client = Http1Client(max_connections_per_origin=1)
    async with FaultServer(hang) as server:
        url = server.url
    for _ in range(3):
        request = post(url)
        error = await refused(client.fetch(request), request)
        assert "refused" in error.message
    await client.close()


async def test_the_connection_used_last_is_used_first() -> None:
    gate = Gate()
    client = Http1Client()
    async with FaultServer(gate.script) as server:
        calls = [call(client, server.url, b"%d" % number) for number in range(3)]
        await server.until(lambda: len(server.requests) == 3)
        for _ in range(13):
            gate.permits.release()
        await soon(asyncio.gather(*calls))
        for _ in range(10):
            await soon(client.fetch(post(server.url)))
        assert sorted(len(end.requests) for end in server.connections) == [1, 1, 11]
        await client.close()


async def test_a_repetition_in_a_full_pool_takes_the_place_of_an_idle_connection() -> None:
    both = asyncio.Event()

    async def once(connection: FaultConnection) -> None:
        await connection.read_request()
        if len(connection.server.requests) == 2:
            both.set()
        await both.wait()
        await connection.send(response(b"ok"))
        await connection.read_request()
        connection.reset()

    client = Http1Client(max_connections_per_origin=2)
    async with FaultServer(once, once, echo) as server:
        await soon(asyncio.gather(*(client.fetch(post(server.url)) for _ in range(2))))
        assert (await soon(client.fetch(post(server.url, body=b"again")))).body == b"again"
        assert len(server.connections) == 3
        await client.close()


async def test_idle_connections_expire_each_in_its_time() -> None:
    loop = asyncio.get_running_loop()
    client = Http1Client(idle_seconds=0.1)
    async with FaultServer(echo) as server:
        await soon(client.fetch(post(server.url)))
        await asyncio.sleep(0.06)
        # Used again: the time begins anew, although a timer for the old one is set.
        await soon(client.fetch(post(server.url)))
        used = loop.time()
        assert 0.09 < await server.closed_at(0) - used < 1.0
        assert len(server.connections) == 1
        await client.close()


async def test_a_long_response_outlives_the_idle_time() -> None:
    async def slow(connection: FaultConnection) -> None:
        await connection.read_request()
        await connection.send(response(b"one"))
        await connection.read_request()
        await asyncio.sleep(0.1)
        await connection.send(response(b"two"))

    client = Http1Client(idle_seconds=0.03)
    async with FaultServer(slow) as server:
        await soon(client.fetch(post(server.url)))
        assert await soon(open_and_gather(client, post(server.url))) == b"two"
        await client.close()


async def test_origins_that_are_no_longer_used_are_forgotten() -> None:
    client = Http1Client()
    async with FaultServer(echo) as server:
        await soon(client.fetch(post(server.url)))
        async with FaultServer(hang) as gone:
            pass
        for number in range(600):
            url = f"http://127.0.0.{number % 250 + 1}:{gone.port if number < 250 else 1}"
            with pytest.raises(UpstreamError):
                await soon(client.fetch(post(url, connect_timeout=0.5)))
        assert len(client._pools) < 600
        await soon(client.fetch(post(server.url)))
        assert len(server.connections) == 1
        await client.close()


async def test_closing_the_client_turns_away_those_who_wait() -> None:
    gate = Gate()
    client = Http1Client(max_connections_per_origin=1)
    async with FaultServer(gate.script) as server:
        request = post(server.url)
        served = asyncio.create_task(client.fetch(request))
        await server.until(lambda: len(server.requests) == 1)
        waiting = asyncio.create_task(client.fetch(request))
        await turns()
        await soon(client.close())
        error = await refused(waiting, request)
        assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
        assert not error.sent
        assert "closed" in error.message
        assert (await refused(served, request)).sent
        assert len(server.connections) == 1


async def test_closing_the_client_ends_a_handshake() -> None:
    client = Http1Client()
    async with FaultServer(hang) as server:
        request = post(f"https://127.0.0.1:{server.port}")
        connecting = asyncio.create_task(client.fetch(request))
        await server.until(lambda: len(server.connections) == 1)
        await soon(client.close())
        error = await refused(connecting, request)
        assert not error.sent
        await server.closed_at()
