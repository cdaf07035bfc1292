"""A vendor that keeps what it is sent, and repeats it in its answers."""

import json
import random
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.support.splits import at_random

_PLACEHOLDER = re.compile(r"\[[A-Z_]+_\d+\]")
USAGE = {"prompt_tokens": 21, "completion_tokens": 9, "total_tokens": 30}


class Vendor:
    """Speaks as OpenAI does. Answers repeat the last user text; with tools, a call of the first
    tool whose arguments are the placeholders of that text. Streams are cut at seeded places, in
    the text and again in the bytes."""

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[str] = []
        self.seed = 0
        self.status = 200
        self.error: dict[str, Any] = {}

    @property
    def received(self) -> str:
        """All that it was sent so far, JSON's escapes undone."""
        return "\n".join(json.dumps(json.loads(each), ensure_ascii=False) for each in self.bodies)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await self._read(request))
        if self.status != 200:
            return web.json_response(self.error, status=self.status)
        said = body["messages"][-1]["content"]
        said = said if isinstance(said, str) else "".join(part["text"] for part in said)
        if body.get("stream"):
            return await self._stream(request, body, said)
        message: dict[str, Any] = {"role": "assistant", "content": f"You said: {said}"}
        if body.get("tools"):
            message = {"role": "assistant", "content": None, "tool_calls": [_call(body, said)]}
        return web.json_response(
            {
                "id": "c-1",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": USAGE,
            }
        )

    async def embed(self, request: web.Request) -> web.Response:
        body = json.loads(await self._read(request))
        vectors = [
            {"object": "embedding", "index": place, "embedding": [float(len(text)), 0.0]}
            for place, text in enumerate(body["input"])
        ]
        return web.json_response(
            {"object": "list", "data": vectors, "model": body["model"], "usage": USAGE}
        )

    async def _read(self, request: web.Request) -> str:
        text = await request.text()
        self.bodies.append(text)
        return text

    async def _stream(
        self, request: web.Request, body: dict[str, Any], said: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        rng = random.Random(self.seed)
        deltas = _tool_deltas(body, said, rng) if body.get("tools") else _text_deltas(said, rng)
        events: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
        ]
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        events.append({"choices": [], "usage": USAGE})
        head: dict[str, Any] = {
            "id": "c-1",
            "object": "chat.completion.chunk",
            "model": body["model"],
        }
        lines = [f"data: {json.dumps(head | event)}\n\n" for event in events]
        for piece in at_random("".join([*lines, "data: [DONE]\n\n"]).encode(), self.seed):
            await response.write(piece)
        await response.write_eof()
        return response


def _pieces(text: str, rng: random.Random) -> Iterator[str]:
    while text:
        size = rng.choice((1, 1, 2, 3, 5, 8, 40))
        yield text[:size]
        text = text[size:]


def _text_deltas(said: str, rng: random.Random) -> Iterator[dict[str, Any]]:
    for piece in _pieces(f"You said: {said}", rng):
        yield {"content": piece}


def _tool_deltas(body: dict[str, Any], said: str, rng: random.Random) -> Iterator[dict[str, Any]]:
    call = _call(body, said)
    arguments = call["function"]["arguments"]
    opening = {**call, "index": 0, "function": {**call["function"], "arguments": ""}}
    yield {"tool_calls": [opening]}
    for piece in _pieces(arguments, rng):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _call(body: dict[str, Any], said: str) -> dict[str, Any]:
    arguments = json.dumps({"to": _PLACEHOLDER.findall(said), "n": [1, 2]})
    function = {"name": body["tools"][0]["function"]["name"], "arguments": arguments}
    return {"id": "t1", "type": "function", "function": function}


@asynccontextmanager
async def vendor() -> AsyncGenerator[Vendor]:
    """A vendor that serves."""
    running = Vendor()
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/chat/completions", running.chat)
    app.router.add_post("/v1/embeddings", running.embed)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    running.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield running
    await runner.cleanup()
