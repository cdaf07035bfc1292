"""What the tests of upstream clients share: requests, and calls that must fail."""

import asyncio
import socket
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.fault_server import GUARD_SECONDS
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream.http import HttpClient, HttpRequest, HttpStream

T = TypeVar("T")

# Stand in the header, the query and the body of every request; no error may repeat them.
SECRETS = ("header-secret", "query-secret", "body-secret")

# How soon, in seconds of the loop's time, a close that the client decides reaches the server.
AT_ONCE = 0.1


def post(
    origin: str,
    *,
    method: str = "POST",
    path: str = "/v1/chat?key=query-secret",
    body: bytes = b'{"q": "body-secret"}',
    connect_timeout: float = GUARD_SECONDS,
    header_timeout: float = GUARD_SECONDS,
    max_body_bytes: int = 1024 * 1024,
) -> HttpRequest:
    return HttpRequest(
        method=method,
        url=origin + path,
        headers=(
            ("content-type", "application/json"),
            ("authorization", "Bearer header-secret"),
        ),
        body=body,
        connect_timeout=connect_timeout,
        header_timeout=header_timeout,
        max_body_bytes=max_body_bytes,
    )


def open_files() -> int:
    """How many file descriptors, sockets among them, this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def soon(awaitable: Awaitable[T]) -> T:
    """The result; a client that hangs fails the test."""
    async with asyncio.timeout(GUARD_SECONDS):
        return await awaitable


async def refused(awaitable: Awaitable[object], request: HttpRequest) -> UpstreamError:
    """The error that the call must end in, checked for what every error must be."""
    with pytest.raises(UpstreamError) as caught:
        await soon(awaitable)
    error = caught.value
    peer = request.url.split("//")[1].split("/")[0]
    assert error.message.startswith(f"{peer}: ")
    cause: BaseException | None = error
    while cause is not None:
        for secret in SECRETS:
            assert secret not in str(cause)
            assert secret not in repr(cause)
        cause = cause.__cause__ or cause.__context__
    return error


async def open_and_read(client: HttpClient, request: HttpRequest) -> bytes:
    return await (await client.open(request)).read()


async def fetch_body(client: HttpClient, request: HttpRequest) -> bytes:
    return (await client.fetch(request)).body


async def gather_chunks(stream: HttpStream) -> bytes:
    body = b""
    async for chunk in stream.chunks():
        body += chunk
    return body


async def open_and_gather(client: HttpClient, request: HttpRequest) -> bytes:
    return await gather_chunks(await client.open(request))


@contextmanager
def silent_port() -> Iterator[int]:
    """A port whose queue of connections is full, so that the kernel ignores new ones."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        # The kernel rounds the queue's length up; the first to wait finds it full.
        for _ in range(16):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.05)
            try:
                filler.connect(("127.0.0.1", port))
            except TimeoutError:
                break
        else:
            pytest.skip("this kernel has no end to its queue of connections")
        yield port


# The two ways to a whole body, and those with the way to a streamed one.
UNARY = {"fetch": fetch_body, "read": open_and_read}
EVERY_WAY = {**UNARY, "chunks": open_and_gather}
