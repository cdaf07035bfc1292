"""Rotation under load, over real connections: a vendor that forgets the old key at once."""

import asyncio

from aiohttp import web

from tests.integration.secrets.conftest import Serve
from tests.unit.secrets.world import Ears
from trunkline import v1
from trunkline_server.clock import SystemClock
from trunkline_server.errors import UpstreamError
from trunkline_server.secrets.ports import Headers, SecretValue
from trunkline_server.secrets.rotation import CredentialVault
from trunkline_server.upstream.http import HttpRequest, HttpResponse
from trunkline_server.upstream.http1.client import Http1Client


def render(value: str) -> Headers:
    return (("authorization", f"Bearer {value}"),)


class Load:
    """A vendor, and callers who do what the attempt loop is to do with a 401."""

    def __init__(self) -> None:
        self.keys = {"Bearer k0"}
        self.url = ""
        self.client = Http1Client()
        self.vault = CredentialVault(SystemClock(), self.probe, Ears())
        self.vault.load("vendor", SecretValue("k0", "0"), render)
        self.held = self.vault.credential("vendor")
        self.answered = self.refused = 0
        self.failed: list[int] = []
        self.running = True

    async def answer(self, request: web.Request) -> web.Response:
        known = request.headers["authorization"] in self.keys
        return web.json_response({}, status=200 if known else 401)

    async def probe(self, provider: str, headers: Headers) -> None:
        if (await self.send(headers)).status != 200:
            raise UpstreamError(v1.ERROR_REASON_AUTHENTICATION, "refused")

    async def send(self, headers: Headers) -> HttpResponse:
        return await self.client.fetch(HttpRequest("POST", self.url + "/", headers, b"{}"))

    async def call(self) -> None:
        headers = self.held.headers
        reply = await self.send(headers)
        if reply.status == 401:
            self.refused += 1
            other = self.held.refused(headers)
            if other is not None:
                reply = await self.send(other)
        if reply.status == 200:
            self.answered += 1
        else:
            self.failed.append(reply.status)

    async def caller(self) -> None:
        while self.running:
            await self.call()

    async def a_while(self) -> None:
        for _ in range(8):
            await self.call()

    async def rotate(self, number: int) -> None:
        old, new = f"Bearer k{number - 1}", f"Bearer k{number}"
        self.keys.add(new)
        await self.vault.rotate("vendor", SecretValue(f"k{number}", str(number)), grace=60)
        # At once: calls are on their way under the old one.
        self.keys.discard(old)
        await self.a_while()
        # And the vendor falls back to a moment before the new key was made.
        self.keys.add(old)
        await self.a_while()
        self.keys.discard(new)
        await self.a_while()
        self.keys.add(new)


async def test_no_call_fails(serve: Serve) -> None:
    load = Load()
    app = web.Application()
    app.router.add_post("/", load.answer)
    load.url = await serve(app)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for _ in range(16):
            tasks.create_task(load.caller())
        for number in range(1, 6):
            await load.a_while()
            await load.rotate(number)
        load.running = False
    await load.client.close()
    assert load.failed == []
    assert load.answered >= 1000
    assert load.refused >= 100
