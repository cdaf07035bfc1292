"""New connections: the name resolved, the first address that answers, TLS.

The race between addresses is RFC 8305's, in its simple form. It is run here because uvloop's
`create_connection` tries one address after another and waits for each.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Any, TypeVar

from trunkline_server.upstream.http1.request import Origin

# How long an address may keep silent before the next is tried beside it. RFC 8305, 5, gives
# 250 ms as its recommendation.
_HEAD_START = 0.25

_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)
# Family and address, as sockets take them.
_Address = tuple[int, Any]


class Resolver:
    """Addresses of hosts, kept for `keep_seconds`. Not more than a few hundred hosts."""

    def __init__(self, loop: asyncio.AbstractEventLoop, keep_seconds: float) -> None:
        self._loop = loop
        self._keep_seconds = keep_seconds
        self._known: dict[tuple[str, int], tuple[float, list[_Address]]] = {}

    async def resolve(self, host: str, port: int) -> list[_Address]:
        """The host's addresses in the order in which to try them; raises OSError."""
        if literal := _literal(host, port):
            return [literal]
        now = self._loop.time()
        expires, addresses = self._known.get((host, port), (0.0, []))
        if now < expires:
            return addresses
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = _alternate([(family, address) for family, _, _, _, address in found])
        if len(self._known) >= 256:
            self._known.clear()
        self._known[host, port] = (now + self._keep_seconds, addresses)
        return addresses

    def forget(self, host: str, port: int) -> None:
        """Asks anew next time: none of the addresses answered."""
        self._known.pop((host, port), None)


async def dial(
    loop: asyncio.AbstractEventLoop,
    resolver: Resolver,
    origin: Origin,
    tls: ssl.SSLContext,
    make_protocol: Callable[[], _Protocol],
) -> _Protocol:
    """An established connection; raises OSError."""
    addresses = await resolver.resolve(origin.host, origin.port)
    try:
        if len(addresses) == 1:
            sock = await _connect(loop, addresses[0])
        else:
            sock = await _race(loop, addresses)
    except OSError:
        resolver.forget(origin.host, origin.port)
        raise
    if origin.tls:
        _, protocol = await loop.create_connection(
            make_protocol, sock=sock, ssl=tls, server_hostname=origin.host
        )
    else:
        _, protocol = await loop.create_connection(make_protocol, sock=sock)
    return protocol


async def _connect(loop: asyncio.AbstractEventLoop, address: _Address) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


async def _race(loop: asyncio.AbstractEventLoop, addresses: list[_Address]) -> socket.socket:
    """The first connection that stands. If none does, the first error is raised."""
    left = list(reversed(addresses))
    running: set[asyncio.Task[socket.socket]] = set()
    first_error: OSError | None = None
    try:
        while left or running:
            if left:
                running.add(loop.create_task(_connect(loop, left.pop())))
            done, running = await asyncio.wait(
                running,
                timeout=_HEAD_START if left else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            running |= {task for task in done if task.exception() is None}
            for task in done - running:
                error = task.exception()
                if isinstance(error, OSError):
                    first_error = first_error or error
                elif error is not None:
                    raise error
            for task in done & running:
                running.discard(task)
                return task.result()
    finally:
        for task in running:
            task.cancel()
        for outcome in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(outcome, socket.socket):
                outcome.close()
    raise first_error or OSError("the host has no address")


def _literal(host: str, port: int) -> _Address | None:
    """An address that needs no resolver, and no thread of its pool."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return family, (host, port)
    return None


def _alternate(addresses: list[_Address]) -> list[_Address]:
    """The families in turn, beginning with the one that the resolver prefers."""
    if not addresses:
        return []
    preferred = addresses[0][0]
    first = [address for address in addresses if address[0] == preferred]
    others = [address for address in addresses if address[0] != preferred]
    turns = chain.from_iterable(zip_longest(first, others))
    return [address for address in turns if address is not None]
