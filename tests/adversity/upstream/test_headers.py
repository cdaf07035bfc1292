"""What may happen between the request and the response's headers."""

import asyncio

import pytest

from tests.adversity.upstream.calls import (
    AT_ONCE,
    EVERY_WAY,
    gather_chunks,
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

OK = b"HTTP/1.1 200 OK\r\n"

BROKEN: dict[str, Script] = {
    "closed before reading": [close],
    "closed": [read_request, close],
    "reset": [read_request, reset],
    "closed inside the status line": [read_request, send(b"HTTP/1.1 2"), close],
    "closed inside the headers": [read_request, send(OK + b"content-le"), close],
    "reset inside the headers": [read_request, send(OK + b"content-le"), reset],
    "closed after an interim response": [
        read_request,
        send(b"HTTP/1.1 100 Continue\r\n\r\n"),
        close,
    ],
}

NOT_HTTP: dict[str, bytes] = {
    "binary": bytes(range(256)) * 4,
    "text": b"hello, this is no HTTP\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "status not a number": b"HTTP/1.1 OK 200\r\n\r\n",
    "header without colon": OK + b"nonsense\r\n\r\n",
    "header name with a space": OK + b"bad name: x\r\n\r\n",
    "length not a number": OK + b"content-length: ten\r\n\r\n",
    "length negative": OK + b"content-length: -1\r\n\r\n",
    "two lengths": OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "length and chunked": OK
    + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "protocol switched unasked": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n"
    b"connection: upgrade\r\n\r\nx",
    "100,000 header lines": OK + b"a: b\r\n" * 100_000 + b"\r\n",
    "header of 1 MB": OK + b"a: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "status line of 1 MB": b"HTTP/1.1 200 " + b"x" * 1_000_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("name", BROKEN)
async def test_connection_ends_before_the_headers(client: HttpClient, name: str, way: str) -> None:
    async with FaultServer(BROKEN[name]) as server:
        request = post(server.url)
        error = await refused(EVERY_WAY[way](client, request), request)
        assert len(server.connections) == 1
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert error.sent
    assert error.http_status == 0


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("name", NOT_HTTP)
async def test_not_http(client: HttpClient, name: str, way: str) -> None:
    async with FaultServer([read_request, send(NOT_HTTP[name]), hang]) as server:
        request = post(server.url)
        error = await refused(EVERY_WAY[way](client, request), request)
        await server.closed_at()
        assert len(server.connections) == 1
    assert error.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
    assert error.sent
    assert len(error.message) < 200


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-"], ids=["nothing", "half"])
async def test_header_timeout(client: HttpClient, sent: bytes, way: str) -> None:
    loop = asyncio.get_running_loop()
    async with FaultServer([read_request, send(sent), hang]) as server:
        request = post(server.url, header_timeout=0.05)
        started = loop.time()
        error = await refused(EVERY_WAY[way](client, request), request)
        assert await server.closed_at() - started < 0.05 + AT_ONCE
    assert error.reason == v1.ERROR_REASON_TIMEOUT
    assert error.sent


async def test_interim_responses_do_not_put_off_the_header_timeout(client: HttpClient) -> None:
    async def keep_saying_soon(connection: FaultConnection) -> None:
        await connection.read_request()
        while True:
            await connection.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0)

    async with FaultServer(keep_saying_soon) as server:
        request = post(server.url, header_timeout=0.05)
        error = await refused(client.fetch(request), request)
    assert error.reason == v1.ERROR_REASON_TIMEOUT


@pytest.mark.parametrize("way", EVERY_WAY)
async def test_interim_responses_are_passed_over(client: HttpClient, way: str) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    async with FaultServer([read_request, send(interim + response(b"done"))]) as server:
        assert await soon(EVERY_WAY[way](client, post(server.url))) == b"done"


async def test_the_request_arrives_as_given(client: HttpClient) -> None:
    async with FaultServer([read_request, send(response())]) as server:
        request = post(server.url, path="/v1/a%2Fb%3A/c?x=%20&y=a+b%2B", body=b'{"k":"\xc3\xa9"}')
        await soon(client.fetch(request))
        [received] = server.requests
    assert received.method == "POST"
    assert received.target == "/v1/a%2Fb%3A/c?x=%20&y=a+b%2B"
    assert received.body == request.body
    assert received.headers["host"] == f"127.0.0.1:{server.port}"
    assert received.headers["content-length"] == str(len(request.body))
    assert received.headers["content-type"] == "application/json"
    assert received.headers["authorization"] == "Bearer header-secret"
    assert "transfer-encoding" not in received.headers
    assert "aiohttp" not in received.headers["user-agent"]


async def test_a_get_has_no_body(client: HttpClient) -> None:
    async with FaultServer([read_request, send(response(b"list"))]) as server:
        answer = await soon(client.fetch(post(server.url, method="GET", body=b"")))
        [received] = server.requests
    assert answer.body == b"list"
    assert (received.method, received.body) == ("GET", b"")


async def test_headers_of_the_response(client: HttpClient) -> None:
    head = (
        b"HTTP/1.1 429 Slow Down\r\nRetry-After: 7\r\nX-Twice: a\r\nx-twice: b\r\nX-Odd: \xff\r\n"
    )
    async with FaultServer([read_request, send(head + b"Content-Length: 0\r\n\r\n")]) as server:
        fetched = await soon(client.fetch(post(server.url)))
        opened = await soon(client.open(post(server.url)))
        assert await soon(gather_chunks(opened)) == b""
    for answer in (fetched, opened):
        assert answer.status == 429
        assert answer.headers["retry-after"] == "7"
        assert answer.headers["x-twice"] == "b"
        assert "Retry-After" not in list(answer.headers)


async def test_redirects_are_not_followed(client: HttpClient) -> None:
    moved = response(b"", "location: /elsewhere", status="302 Found")
    async with FaultServer([read_request, send(moved), hang]) as server:
        answer = await soon(client.fetch(post(server.url)))
        assert (answer.status, answer.headers["location"]) == (302, "/elsewhere")
        assert len(server.requests) == 1


async def test_cookies_are_not_kept(client: HttpClient) -> None:
    answer = send(response(b"", "set-cookie: session=1; Path=/"))
    async with FaultServer([read_request, answer, read_request, answer]) as server:
        await soon(client.fetch(post(server.url)))
        await soon(client.fetch(post(server.url)))
        assert len(server.requests) == 2
        assert "cookie" not in server.requests[1].headers


async def test_large_headers_that_vendors_send_are_taken(client: HttpClient) -> None:
    lines = [f"x-{n}: {n}" for n in range(100)]
    policy = "content-security-policy: " + "x" * 20_000
    async with FaultServer([read_request, send(response(b"ok", policy, *lines))]) as server:
        answer = await soon(client.fetch(post(server.url)))
    assert answer.headers["x-99"] == "99"
    assert len(answer.headers["content-security-policy"]) == 20_000


async def test_a_large_upload_arrives_whole(client: HttpClient) -> None:
    body = bytes(range(256)) * 20_000
    async with FaultServer([read_request, send(response(b"ok"))]) as server:
        assert (await soon(client.fetch(post(server.url, body=body)))).body == b"ok"
        assert server.requests[0].body == body


async def test_header_timeout_covers_an_upload_that_nobody_takes(client: HttpClient) -> None:
    async def take_nothing(connection: FaultConnection) -> None:
        connection.stop_reading()
        await connection.wait_for_client_close()

    async with FaultServer(take_nothing) as server:
        request = post(server.url, body=bytes(64 * 1024 * 1024), header_timeout=0.1)
        error = await refused(client.fetch(request), request)
    assert error.reason == v1.ERROR_REASON_TIMEOUT


async def test_an_answer_before_the_upload_is_done(client: HttpClient) -> None:
    """A vendor that refuses an upload early, and stops reading it, is still heard."""

    async def refuse_early(connection: FaultConnection) -> None:
        connection.stop_reading()
        await connection.send(response(b"too large", status="413 Content Too Large"))
        await connection.wait_for_client_close()

    async with FaultServer(refuse_early) as server:
        request = post(server.url, body=bytes(64 * 1024 * 1024))
        answer = await soon(client.fetch(request))
    assert (answer.status, answer.body) == (413, b"too large")
