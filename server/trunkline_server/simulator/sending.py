"""How answers leave: whole or in pieces, and with the faults that a script asks for.

Every fault ends the connection or waits for the caller to end it, except those that are bytes
of a wrong kind. A function here that returns after it has broken a connection returns the
response it had begun; the server finds the connection gone and writes nothing more.
"""

import asyncio
import os
import socket
import struct

from aiohttp import web

from trunkline_server.simulator.dialect import Dialect, Reply
from trunkline_server.simulator.script import Script
from trunkline_server.simulator.vendor_error import VendorError

_HTML = (
    b"<html><head><title>502 Bad Gateway</title></head>"
    b"<body><center><h1>502 Bad Gateway</h1></center></body></html>"
)
_GARBAGE = b'\x00\xff{"choices": [}, not JSON'
# Lingering for no time makes the close a reset.
_NO_LINGER = struct.pack("ii", 1, 0)


async def send(
    request: web.Request, reply: Reply, script: Script, headers: dict[str, str]
) -> web.StreamResponse:
    """Sends an answer that nothing goes wrong with."""
    if reply.pieces is None:
        return web.Response(body=reply.body, content_type=reply.content_type, headers=headers)
    response = await _begin(request, reply.content_type, headers)
    pause = script.chunk_ms / 1000
    for piece in reply.pieces:
        await response.write(piece)
        # Without a pause this still gives other calls, and a caller's goodbye, their turn.
        await asyncio.sleep(pause)
    await response.write_eof()
    return response


async def fail_early(
    request: web.Request, fault: str, reply_type: str, headers: dict[str, str]
) -> web.StreamResponse:
    """Strikes before the response's headers, or with headers that nothing sensible follows."""
    if fault == "hang":
        await _forever()
    if fault == "html":
        return web.Response(status=502, body=_HTML, content_type="text/html")
    if fault in {"garbage", "empty"}:
        body = _GARBAGE if fault == "garbage" else b""
        return web.Response(body=body, content_type=reply_type, headers=headers)
    if fault == "not-http":
        _transport(request).write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
    _break(request, reset=fault == "reset")
    return web.Response()


async def fail_midstream(
    request: web.Request, reply: Reply, script: Script, headers: dict[str, str], dialect: Dialect
) -> web.StreamResponse:
    """Sends the answer's beginning and strikes at the script's chunk, at the last at latest."""
    if script.fault == "error-midstream" and reply.pieces is None:
        raise VendorError("overloaded")
    pieces = _halves(reply.body) if reply.pieces is None else list(reply.pieces)
    at = min(script.at_chunk, len(pieces) - 1)
    promised = reply.pieces is None and script.fault != "end-midstream"
    length = len(reply.body) if promised else None
    response = await _begin(request, reply.content_type, headers, length)
    for piece in pieces[:at]:
        await response.write(piece)
        await asyncio.sleep(script.chunk_ms / 1000)
    fault = script.fault
    if fault == "hang-midstream":
        await _forever()
    if fault in {"reset-midstream", "close-midstream"}:
        _break(request, reset=fault == "reset-midstream")
        return response
    if fault == "error-midstream":
        await response.write(dialect.stream_error(VendorError("overloaded")))
    if fault == "garbage-midstream":
        rest = sum(map(len, pieces[at:]))
        whole = (_GARBAGE * (rest // len(_GARBAGE) + 1))[:rest]
        await response.write(dialect.stream_garbage() if reply.pieces is not None else whole)
    await response.write_eof()
    return response


def _halves(body: bytes) -> list[bytes]:
    middle = len(body) // 2
    return [body[:middle], body[middle:]]


async def _begin(
    request: web.Request, content_type: str, headers: dict[str, str], length: int | None = None
) -> web.StreamResponse:
    response = web.StreamResponse(headers={**headers, "content-type": content_type})
    response.content_length = length
    await response.prepare(request)
    return response


async def _forever() -> None:
    """Waits until the caller goes away, which cancels the call."""
    await asyncio.Event().wait()


def _transport(request: web.Request) -> asyncio.Transport:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the caller has gone")
    return transport


def _break(request: web.Request, *, reset: bool) -> None:
    """Ends the connection: with a TCP reset, or in order after what has been written."""
    transport = _transport(request)
    if not reset:
        transport.close()
        return
    own = transport.get_extra_info("socket")
    # A duplicate, because event loops hand out sockets that only pretend to have options.
    with socket.socket(fileno=os.dup(own.fileno())) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
