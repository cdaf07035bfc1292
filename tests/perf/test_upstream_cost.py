"""What one call costs the upstream clients.

Counted, not timed, in the test: the function calls, Python's and C's, that the client's own
process makes for one fetch on a kept connection. The count is the same on every machine.

`python -m tests.perf.test_upstream_cost` prints microseconds of processor time per call of
each client instead, against a server in a process of its own.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

import pytest
import uvloop

from trunkline_server.upstream.aiohttp_client import AiohttpClient
from trunkline_server.upstream.http import HttpClient, HttpRequest
from trunkline_server.upstream.http1.client import Http1Client

CLIENTS: Mapping[str, Callable[[], HttpClient]] = {"aiohttp": AiohttpClient, "http1": Http1Client}

# Of the size that a short chat has, with the headers that vendors send.
BODY = b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[' + (
    b'{"index":0,"message":{"role":"assistant","content":"%b"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}' % (b"word " * 40)
)
HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\nconnection: keep-alive\r\n"
    b"x-request-id: req_0123456789\r\nx-ratelimit-remaining-requests: 9999\r\n"
    b"x-ratelimit-remaining-tokens: 999999\r\nopenai-processing-ms: 321\r\n"
    b"strict-transport-security: max-age=31536000\r\n\r\n" % len(BODY)
)
ANSWER = HEAD + BODY
CHUNKS = 100
STREAM = (
    HEAD.replace(b"content-length: %d" % len(BODY), b"transfer-encoding: chunked")
    + b"".join(b"%x\r\n%b\r\n" % (len(word), word) for word in [b"data: {}\n\n" * 10] * CHUNKS)
    + b"0\r\n\r\n"
)
ASK = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % (b"word " * 60)


class StaticServer(asyncio.Protocol):
    """Answers each request, which must come in one piece, with the same bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(STREAM if data.startswith(b"POST /stream") else ANSWER)


def request(port: int, path: str = "/v1/chat/completions") -> HttpRequest:
    return HttpRequest(
        "POST",
        f"http://127.0.0.1:{port}{path}",
        (("content-type", "application/json"), ("authorization", "Bearer 0123456789")),
        ASK,
    )


def count_calls(package: str, run: Callable[[], Any]) -> int:
    """The calls, of Python's functions and of C's, that `run` makes in and from a package."""
    count = 0

    def within(frame: FrameType | None) -> bool:
        return frame is not None and package in frame.f_code.co_filename

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        if (event == "c_call" and within(frame)) or (
            event == "call" and (within(frame) or within(frame.f_back))
        ):
            count += 1

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


# For a response of eight header fields. Python versions differ by a few.
MOST_CALLS = 83


@pytest.mark.perf
def test_calls_per_fetch() -> None:
    async def fetch_some(count: int) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(StaticServer, "127.0.0.1", 0)
        client = Http1Client()
        asked = request(server.sockets[0].getsockname()[1])
        await calls_one_by_one(client, asked, count)
        await client.close()
        server.close()
        await server.wait_closed()

    # The difference leaves out what the loop, the server and the client cost once.
    few, many = (
        count_calls("/upstream/http1/", partial(asyncio.run, fetch_some(calls)))
        for calls in (10, 60)
    )
    per_fetch = (many - few) / 50
    assert 30 < per_fetch <= MOST_CALLS


def serve(pipe: Connection) -> None:
    """The server's process: tells its port and serves until the pipe closes."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(StaticServer, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, pipe.poll, None)
        server.close()

    uvloop.run(main())


async def calls_one_by_one(client: HttpClient, asked: HttpRequest, calls: int) -> None:
    for _ in range(calls):
        answer = await client.fetch(asked)
        if answer.body != BODY:
            raise ValueError("not the answer")


async def streams_one_by_one(client: HttpClient, asked: HttpRequest, calls: int) -> None:
    for _ in range(calls):
        stream = await client.open(asked)
        async for _ in stream.chunks():
            pass


async def measure(rounds: int, calls: int, concurrency: int) -> None:
    """Prints medians of the rounds, in which the clients take turns."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    port = await asyncio.get_running_loop().run_in_executor(None, ours.recv)
    kinds: dict[str, tuple[Any, HttpRequest]] = {
        "fetch": (calls_one_by_one, request(port)),
        "stream": (streams_one_by_one, request(port, "/stream")),
    }
    clients = {name: make() for name, make in CLIENTS.items()}
    for kind, (work, asked) in kinds.items():
        spent: dict[str, list[float]] = {name: [] for name in clients}
        for turn in range(rounds + 1):
            for name, client in clients.items():
                begun = time.process_time()
                each = calls // concurrency
                await asyncio.gather(*(work(client, asked, each) for _ in range(concurrency)))
                if turn:  # The first warms up.
                    spent[name].append((time.process_time() - begun) / (each * concurrency) * 1e6)
        for name, times in spent.items():
            print(
                f"{kind:8}{name:10}{statistics.median(times):8.1f} us CPU per call"
                f"  (best {min(times):.1f})"
            )
    for client in clients.values():
        await client.close()
    ours.close()
    process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=2_000, help="per client and round")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    options = parser.parse_args()
    run = uvloop.run if options.loop == "uvloop" else asyncio.run
    run(measure(options.rounds, options.calls, options.concurrency))


if __name__ == "__main__":
    main()
