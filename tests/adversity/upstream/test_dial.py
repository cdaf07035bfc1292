"""Names, addresses and the race between them: how the own client connects."""

import asyncio
import socket
import ssl
from typing import Any

import pytest

from tests.adversity.upstream.calls import post, silent_port, soon
from tests.support.fault_server import FaultServer, hang, read_request, response, send
from trunkline_server.upstream.http1 import dial as subject
from trunkline_server.upstream.http1.client import Http1Client
from trunkline_server.upstream.http1.dial import Resolver, dial
from trunkline_server.upstream.http1.request import Origin

TLS = ssl.create_default_context()


class Names:
    """Stands in for the loop's resolver, which would need a network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
        self.addresses = addresses
        self.asked: list[str] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo)

    async def getaddrinfo(self, host: str, port: int, **options: object) -> list[Any]:
        if host == "127.0.0.1":
            # uvloop asks once more for the address that it is to connect to.
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        self.asked.append(host)
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, at),
            )
            for address, at in self.addresses
        ]


async def reach(resolver: Resolver) -> tuple[str, int]:
    """Where a connection to the name leads; closed again."""
    loop = asyncio.get_running_loop()
    reached: list[asyncio.Transport] = []

    class Client(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            reached.append(transport)

    async with asyncio.timeout(5):
        await dial(loop, resolver, Origin(tls=False, host="api.example", port=80), TLS, Client)
    [transport] = reached
    where: tuple[str, int] = transport.get_extra_info("peername")
    transport.abort()
    return where


def resolver(keep_seconds: float = 30.0) -> Resolver:
    return Resolver(asyncio.get_running_loop(), keep_seconds)


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_an_address_that_refuses_gives_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_HEAD_START", 60.0)
    async with FaultServer(hang) as server:
        Names(monkeypatch, ("127.0.0.1", unused_port()), ("127.0.0.1", server.port))
        assert await reach(resolver()) == ("127.0.0.1", server.port)


async def test_a_silent_address_gets_a_head_start_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_HEAD_START", 0.05)
    with silent_port() as silent:
        async with FaultServer(hang) as server:
            Names(monkeypatch, ("127.0.0.1", silent), ("127.0.0.1", server.port))
            assert await reach(resolver()) == ("127.0.0.1", server.port)
            assert not [task for task in asyncio.all_tasks() if "_connect" in repr(task)]


async def test_the_first_error_is_told_when_none_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, ("127.0.0.1", unused_port()), ("127.0.0.1", unused_port()))
    with pytest.raises(ConnectionRefusedError):
        await reach(resolver())


async def test_a_name_without_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch)
    with pytest.raises(OSError, match="no address"):
        await reach(resolver())


async def test_names_are_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, ("127.0.0.1", 1))
    remembering, forgetful = resolver(), resolver(keep_seconds=0.0)
    for _ in range(3):
        await remembering.resolve("api.example", 80)
    assert names.asked == ["api.example"]
    await remembering.resolve("other.example", 80)
    await forgetful.resolve("api.example", 80)
    await forgetful.resolve("api.example", 80)
    assert names.asked == ["api.example", "other.example", "api.example", "api.example"]


async def test_a_name_is_asked_for_again_when_none_of_its_addresses_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names(monkeypatch, ("127.0.0.1", unused_port()))
    one = resolver()
    with pytest.raises(ConnectionRefusedError):
        await reach(one)
    async with FaultServer(hang) as server:
        names.addresses = (("127.0.0.1", server.port),)
        assert await reach(one) == ("127.0.0.1", server.port)
    assert len(names.asked) == 2


async def test_addresses_need_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch)
    assert await resolver().resolve("127.0.0.1", 80) == [(socket.AF_INET, ("127.0.0.1", 80))]
    assert await resolver().resolve("::1", 80) == [(socket.AF_INET6, ("::1", 80))]
    assert names.asked == []


async def test_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, ("::1", 1), ("::1", 2), ("::1", 3), ("127.0.0.1", 4))
    found = await resolver().resolve("api.example", 80)
    assert [address[1] for _, address in found] == [1, 4, 2, 3]


async def test_what_is_said_before_the_request_answers_one_request() -> None:
    """On uvloop it arrives before the request is sent. aiohttp there gives it twice."""
    early = send(response(b"early"))
    script = [early, read_request, read_request, send(response(b"late")), hang]
    async with FaultServer(script) as server:
        client = Http1Client()
        assert (await soon(client.fetch(post(server.url)))).body == b"early"
        assert (await soon(client.fetch(post(server.url)))).body == b"late"
        assert len(server.connections) == 1
        await client.close()
