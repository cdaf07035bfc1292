"""A vendor that speaks OpenAI's dialect and takes some keys and not others, as a test has it."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from aiohttp import web

_USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}


@dataclass
class KeyVendor:
    """Answers under `keys`; the list of models, which is what trials ask for, under `trial_keys`
    too. `answered` and `refused` count calls by key, `tried` trials."""

    keys: set[str] = field(default_factory=set)
    trial_keys: set[str] = field(default_factory=set)
    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    url: str = ""
    # How long an answer takes: calls are then under way when a key is forgotten.
    delay: float = 0.005
    # Answers everything with this status while it is not 0.
    down: int = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def key(self, request: web.Request) -> str:
        """What a request is counted under."""
        return request.headers.get("authorization", "").removeprefix("Bearer ")

    async def _models(self, request: web.Request) -> web.Response:
        key = await self.key(request)
        if self.down:
            # It quotes what it should not.
            error = {"message": f"no capacity for {key}"}
            return web.json_response({"error": error}, status=self.down)
        self.tried[key] += 1
        if key not in self.keys | self.trial_keys:
            return self._refuse(key)
        return web.json_response({"object": "list", "data": []})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        key = await self.key(request)
        body = await request.json()
        if self.down:
            # It quotes what it should not.
            error = {"message": f"no capacity for {key}"}
            return web.json_response({"error": error}, status=self.down)
        if key not in self.keys:
            self.refused[key] += 1
            return self._refuse(key)
        self.answered[key] += 1
        if self.delay:
            await asyncio.sleep(self.delay)
        if body.get("stream"):
            return await _stream(request)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "hello"},
            "finish_reason": "stop",
        }
        return web.json_response(
            {
                "id": "c-1",
                "object": "chat.completion",
                "created": 0,
                "model": "gpt-test",
                "choices": [choice],
                "usage": _USAGE,
            }
        )

    @staticmethod
    def _refuse(key: str) -> web.Response:
        # As the vendor does, but whole.
        error = {
            "message": f"Incorrect API key provided: {key}.",
            "type": "invalid_request_error",
            "code": "invalid_api_key",
        }
        return web.json_response({"error": error}, status=401)


V = TypeVar("V", bound=KeyVendor)


async def _stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    head = '"id": "c-1", "object": "chat.completion.chunk", "created": 0, "model": "gpt-test"'
    for choices, usage in (
        ('[{"index": 0, "delta": {"role": "assistant", "content": "hel"}}]', "null"),
        ('[{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]', "null"),
        ("[]", '{"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}'),
    ):
        event = f'data: {{{head}, "choices": {choices}, "usage": {usage}}}\n\n'
        await response.write(event.encode())
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


@asynccontextmanager
async def key_vendor(*keys: str) -> AsyncGenerator[KeyVendor]:
    """A vendor on 127.0.0.1 that takes these keys."""
    async with served(KeyVendor(set(keys))) as vendor:
        yield vendor


@asynccontextmanager
async def served(vendor: V) -> AsyncGenerator[V]:
    """A vendor, on 127.0.0.1."""
    runner = web.AppRunner(vendor.app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    vendor.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield vendor
    finally:
        await runner.cleanup()
