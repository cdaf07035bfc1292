"""The own client against aiohttp's, on thousands of seeded responses that nobody should send.

Both get the same bytes in the same pieces, and must tell the same: the response byte for byte,
or the same error, and keep the connection or close it alike. Where they differ, the own client
must be the stricter one, and the response must hold an oddity that `STRICTER` names. What it
takes and aiohttp does not stands in `LENIENT`.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.adversity.upstream.calls import gather_chunks, post
from tests.adversity.upstream.responses import CUT, MUTATED, Case, make_case
from tests.support.fault_server import FaultConnection, FaultServer
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream.aiohttp_client import AiohttpClient
from trunkline_server.upstream.http import HttpClient
from trunkline_server.upstream.http1.client import Http1Client

BATCHES = 8
CASES_PER_BATCH = 500
WAYS = ("fetch", "read", "chunks")

BAD = "BAD_PROVIDER_RESPONSE"

# Why the own client refuses, or closes the connection, where aiohttp does not; and of which
# oddities that is true.
STRICTER: Mapping[str, tuple[str, ...]] = {
    "RFC 9112, 2.3: not a version that this client speaks": (
        "status: HTTP/0.9",
        "status: HTTP/2.0",
        "status: RTSP",
        "status: ICE",
    ),
    "RFC 9112, 2.2: a response begins with its status line, not with empty ones": (
        "status: empty line before",
        "status: empty lines before",
    ),
    "RFC 9110, 15: no status is below 100": ("status: 099",),
    "RFC 9112, 2.2: lines end with CR LF, in the head and in chunked bodies": (
        "status: LF only",
        "field: LF only",
        "chunk: ended by LF",
        "trailer: ended by LF",
    ),
    "RFC 9112, 5.2: folded lines are obsolete": (
        "field: folded",
        "field: folded by tab",
        "field: blank before the name",
    ),
    "RFC 9110, 5.5: no control characters in values": ("field: control", "field: delete"),
    "32 KiB bound the whole head, not each of its lines": ("field: long together",),
    "RFC 9112, 6.1: codings that this client never asks for and cannot undo": (
        "coding: repeated",
        "coding: gzip, chunked",
        "coding: chunked, gzip",
        "coding: chunked, chunked",
        "coding: identity",
        "coding: xchunked",
        "coding: with parameter",
        "coding: empty",
        "coding: control",
        "coding: gzip",
    ),
    "RFC 9112, 6.1: chunks in HTTP/1.0 may be misframed: the connection is not used again": (
        "status: HTTP/1.0",
    ),
    "RFC 9112, 7.1: no blanks after a chunk's size": (
        "chunk: blank behind",
        "chunk: blank before extension",
    ),
    "32 KiB bound chunk extensions wherever the bytes are cut": ("chunk: long extension",),
    "RFC 9112, 7.1: a chunk is as long as its size says": ("chunk: size too large",),
    "encodings that were not asked for are not handed on undone": (
        "encoding: twice",
        "encoding: unheard of",
        "encoding: x-gzip",
    ),
    "a compressed body that ends too soon is cut, and one that goes on is not one": (
        "encoding: gzip cut",
        "encoding: not gzip",
        "encoding: deflate cut",
        "left over: a letter",
        "length: too short",
        CUT,
    ),
    "what follows a response ends its connection, even if it looks like another one": (
        "left over: a response",
        "left over: part of one",
        "left over: empty line",
    ),
    "any of the above by chance": (MUTATED,),
}

# Why the own client takes what aiohttp refuses.
LENIENT: Mapping[str, tuple[str, ...]] = {
    "a whole response is delivered whatever follows it, and its connection closed; aiohttp "
    "fails it if the rest comes in the same read, and delivers it if not": (
        "left over: a letter",
        "left over: a response",
        "left over: part of one",
        "length: too short",
        "status: 204",
        "status: 304",
        MUTATED,
    ),
}


def names(table: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    return frozenset(name for row in table.values() for name in row)


@dataclass(frozen=True)
class Outcome:
    """What a client made of a response. `error` is the name of its reason, or empty."""

    error: str
    status: int
    headers: Mapping[str, bytes]
    body: bytes
    # True when the connection may serve another request.
    kept: bool


Answer = tuple[int, Mapping[str, str], bytes]


async def ask(client: HttpClient, way: str, url: str) -> Answer:
    request = post(url, max_body_bytes=4096)
    if way == "fetch":
        answer = await client.fetch(request)
        return answer.status, answer.headers, answer.body
    stream = await client.open(request)
    body = await (stream.read() if way == "read" else gather_chunks(stream))
    return stream.status, stream.headers, body


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class HangError(Exception):
    """The client waits although nothing can come any more."""


async def over_soon(server: FaultServer, call: Coroutine[Any, Any, Answer]) -> Answer:
    """The call's result; HangError once the server has closed and the call goes on."""
    task = asyncio.create_task(call)
    task.add_done_callback(lambda _: server.changed())
    await server.until(lambda: task.done() or any(end.lost for end in server.connections))
    if not task.done():
        await turns(50)
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
        raise HangError
    return task.result()


async def observe(client: HttpClient, case: Case, way: str, *charset: str) -> Outcome:
    """What the client makes of the case. `charset` is that of the headers it gives."""
    answered = asyncio.Event()

    async def script(connection: FaultConnection) -> None:
        await connection.read_request()
        for piece in case.pieces:
            await connection.send(piece)
            await turns(4)
        # Whoever still waits now waits for the end.
        await turns(10)
        if not answered.is_set() and not connection.transport.is_closing():
            if case.reset:
                connection.reset()
            else:
                connection.close()
        await connection.wait_for_client_close()

    async with FaultServer(script) as server:
        try:
            status, headers, body = await over_soon(server, ask(client, way, server.url))
        except HangError:
            return Outcome("HANGS", 0, {}, b"", kept=False)
        except UpstreamError as error:
            name = v1.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
            return Outcome(name, error.http_status, {}, b"", kept=False)
        finally:
            answered.set()
        # All that was to come after the response has come.
        await turns(4 * len(case.pieces) + 20)
        [connection] = server.connections
        raw = {name: value.encode(*charset) for name, value in headers.items()}
        return Outcome("", status, raw, body, kept=connection.closed_at is None)


def judge(case: Case, own: Outcome, other: Outcome) -> str:
    """Empty when both are the same, else the table that the difference belongs to."""
    if own == other:
        return ""
    # The status is told when its line came before what was wrong; aiohttp tells it or not by
    # how the bytes were cut.
    if own.error and own.error == other.error and 0 in {own.status, other.status}:
        return ""
    # aiohttp forgets a body whose chunks break between two reads; there is nothing to agree to.
    if own.error == BAD and other.error == "HANGS":
        return ""
    if own.error == BAD:
        return "STRICTER"
    same_answer = not own.error and own == Outcome(
        "", other.status, other.headers, other.body, own.kept
    )
    if same_answer and not other.error and not own.kept:
        return "STRICTER"
    if not own.error and other.error == BAD:
        return "LENIENT"
    return f"{own} against {other}"


async def compare(own: HttpClient, other: HttpClient, seed: int) -> str:
    case, way = make_case(seed), WAYS[seed % len(WAYS)]
    return judge(
        case,
        await observe(own, case, way, "latin-1"),
        await observe(other, case, way, "utf-8", "surrogateescape"),
    )


@pytest.fixture
async def clients() -> Any:
    own, other = Http1Client(), AiohttpClient()
    yield own, other
    await own.close()
    await other.close()


Clients = tuple[HttpClient, HttpClient]


@pytest.mark.parametrize("batch", range(BATCHES))
async def test_same_or_stricter(clients: Clients, batch: int) -> None:
    allowed = {"STRICTER": names(STRICTER), "LENIENT": names(LENIENT)}
    for seed in range(batch * CASES_PER_BATCH, (batch + 1) * CASES_PER_BATCH):
        verdict = await compare(*clients, seed)
        oddities = make_case(seed).oddities
        assert not verdict or oddities & allowed.get(verdict, frozenset()), (
            f"seed {seed}, {WAYS[seed % len(WAYS)]}, {sorted(oddities)}: {verdict}"
        )


@pytest.mark.parametrize("table", ["STRICTER", "LENIENT"])
async def test_the_tables_name_nothing_in_vain(clients: Clients, table: str) -> None:
    """Each oddity, as far as it comes alone, makes the difference that it is listed for."""
    listed = names({"STRICTER": STRICTER, "LENIENT": LENIENT}[table])
    unseen = set(listed)
    for seed in range(20_000):
        if not unseen:
            break
        oddities = make_case(seed).oddities
        alone = oddities & unseen if len(oddities) == 1 else frozenset()
        if alone and await compare(*clients, seed) == table:
            unseen -= alone
    assert unseen == set()


async def test_most_cases_are_answered_by_both(clients: Clients) -> None:
    """The comparison is not one of refusals only."""
    seeds = range(300)
    answered = 0
    for seed in seeds:
        outcome = await observe(clients[0], make_case(seed), "fetch", "latin-1")
        answered += not outcome.error
    assert len(seeds) / 4 < answered < len(seeds) * 3 / 4
