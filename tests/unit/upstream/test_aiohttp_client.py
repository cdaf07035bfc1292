"""What is aiohttp's own: options of this client that the port does not know."""

import asyncio
import base64

import pytest

from tests.adversity.upstream.calls import gather_chunks, post, refused, soon
from tests.support.fault_server import (
    FaultConnection,
    FaultServer,
    hang,
    read_request,
    reset,
    response,
    send,
)
from trunkline import v1
from trunkline_server.upstream import aiohttp_failure
from trunkline_server.upstream.aiohttp_client import AiohttpClient

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_a_kept_connection_that_lived_a_while_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its vendor may have begun to work: asking again may pay twice."""
    # Every failure comes later than this.
    monkeypatch.setattr(aiohttp_failure, "_STALE_SECONDS", 0.0)
    client = AiohttpClient()
    script = [read_request, send(response(b"ok")), read_request, reset]
    async with FaultServer(script) as server:
        request = post(server.url)
        await soon(client.fetch(request))
        error = await refused(client.fetch(request), request)
        assert len(server.requests) == 2
        await client.close()
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE


async def test_environment_is_not_looked_at_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FaultServer([read_request, send(response(b"ok"))]) as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        client = AiohttpClient()
        assert (await soon(client.fetch(post(server.url)))).body == b"ok"
        await client.close()


async def test_proxy_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FaultServer([read_request, send(response(b"by proxy"))]) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
        client = AiohttpClient(trust_env=True)
        answer = await soon(client.fetch(post("http://api.example:80", path="/v1?a=b")))
        await client.close()
        [received] = proxy.requests
    assert answer.body == b"by proxy"
    assert received.target == "http://api.example/v1?a=b"
    assert received.headers["host"] == "api.example"
    expected = "Basic " + base64.b64encode(b"user:pass").decode()
    assert received.headers["proxy-authorization"] == expected
    assert received.headers["authorization"] == "Bearer header-secret"


async def test_no_proxy_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FaultServer([read_request, send(response(b"direct"))]) as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        client = AiohttpClient(trust_env=True)
        assert (await soon(client.fetch(post(server.url)))).body == b"direct"
        await client.close()


async def test_a_proxy_that_refuses_the_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = send(response(b"no", status="403 Forbidden"))
    async with FaultServer([read_request, refusal, hang]) as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
        client = AiohttpClient(trust_env=True)
        request = post("https://api.example:443")
        error = await refused(client.fetch(request), request)
        await client.close()
        [received] = proxy.requests
    assert (received.method, received.target) == ("CONNECT", "api.example:443")
    assert "authorization" not in received.headers
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert not error.sent
    assert "403" in error.message
    assert "pass" not in error.message


async def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:pass@127.0.0.1:1")
    client = AiohttpClient(trust_env=True)
    request = post("http://api.example:80")
    error = await refused(client.fetch(request), request)
    await client.close()
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert not error.sent
    assert "proxy" in error.message
    assert "pass" not in error.message


async def test_user_agent() -> None:
    async with FaultServer([read_request, send(response())]) as server:
        client = AiohttpClient(user_agent="trunkline/1.2")
        await soon(client.fetch(post(server.url)))
        await client.close()
        assert server.requests[0].headers["user-agent"] == "trunkline/1.2"


async def test_idle_connections_expire() -> None:
    async with FaultServer([read_request, send(response()), hang]) as server:
        client = AiohttpClient(idle_seconds=0.05)
        await soon(client.fetch(post(server.url)))
        await server.closed_at(0)
        await client.close()


async def test_a_body_is_iterated_once() -> None:
    async with FaultServer([read_request, send(response(b"ok"))]) as server:
        client = AiohttpClient()
        stream = await soon(client.open(post(server.url)))
        assert await soon(gather_chunks(stream)) == b"ok"
        with pytest.raises(RuntimeError):
            stream.chunks()
        await client.close()


async def test_a_header_that_http_cannot_carry_sends_nothing() -> None:
    async def count(connection: FaultConnection) -> None:
        await connection.wait_for_client_close()

    async with FaultServer(count) as server:
        client = AiohttpClient()
        request = post(server.url)
        bad = type(request)(request.method, request.url, (("x-a", "1\r\nx-b: 2"),), b"{}")
        with pytest.raises(ValueError, match="header"):
            await soon(client.fetch(bad))
        await server.closed_at(0)
        await client.close()
        assert server.requests == []


async def test_calls_of_one_task_do_not_mix() -> None:
    """The attempt rides on the task's context; what a task starts must not see it."""
    async with FaultServer([read_request, send(response(b"ok")), hang]) as server:
        client = AiohttpClient()
        request = post(server.url)

        async def call_inside_a_call() -> bytes:
            inner = asyncio.create_task(client.fetch(request))
            outer = await client.fetch(request)
            return (await inner).body + outer.body

        assert await soon(call_inside_a_call()) == b"okok"
        await client.close()
