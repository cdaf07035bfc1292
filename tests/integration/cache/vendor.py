"""An OpenAI-like host that counts what it is asked, and a router whose calls go there."""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.support.fault_server import FaultConnection, FaultServer, response
from tests.support.router import PATIENCE, Router, openai_at, router


class Vendor:
    """Answers each request with a text that says which one it was, from 1. While `held` is not
    set, answers wait."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.held = asyncio.Event()
        self.held.set()
        self.finish = "stop"
        self.cancelled = 0
        self._news = asyncio.Event()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Waits until something has become true of it."""
        async with asyncio.timeout(PATIENCE):
            while not reached():
                self._news.clear()
                await self._news.wait()

    @property
    def calls(self) -> int:
        """How often it was asked."""
        return len(self.asked)

    async def __call__(self, connection: FaultConnection) -> None:
        """Serves one connection, as a script of a FaultServer."""
        while True:
            body = json.loads((await connection.read_request()).body)
            self.asked.append(body)
            self._news.set()
            number = self.calls
            waiting = asyncio.ensure_future(self.held.wait())
            closed = asyncio.ensure_future(connection.wait_for_client_close())
            await asyncio.wait((waiting, closed), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                self.cancelled += 1
                self._news.set()
                return
            closed.cancel()
            await asyncio.wait((closed,))
            if "input" in body:
                await connection.send(response(_json(self._vectors(body["input"]))))
            elif body.get("stream"):
                events = b"".join(
                    b"data: " + _json(each) + b"\n\n" for each in self._chunks(number)
                )
                await connection.send(
                    response(events + b"data: [DONE]\n\n", "content-type: text/event-stream")
                )
            else:
                await connection.send(response(_json(self._answer(number))))

    def _answer(self, number: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": f"answer {number}"}
        return {
            "id": f"c{number}",
            "model": "gpt-test-2026",
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }

    def _chunks(self, number: int) -> list[dict[str, Any]]:
        def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return {"id": f"c{number}", "model": "gpt-test-2026", "choices": [choice]}

        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return [
            chunk({"role": "assistant", "content": "answer "}),
            chunk({"content": str(number)}),
            chunk({}, self.finish),
            {"id": f"c{number}", "model": "gpt-test-2026", "choices": [], "usage": usage},
        ]

    def _vectors(self, inputs: list[str]) -> dict[str, Any]:
        rows = [
            {"index": index, "embedding": [float(len(text)), float(self.calls)]}
            for index, text in enumerate(inputs)
        ]
        count = sum(len(text) for text in inputs)
        usage = {"prompt_tokens": count, "total_tokens": count}
        return {"model": "embed-2026", "data": rows, "usage": usage}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def key_line(name: str, *, tenant: str = "", more: str = "") -> str:
    """A configured key whose text is `tk_NAME`."""
    digest = hashlib.sha256(f"tk_{name}".encode()).hexdigest()
    owner = f", tenant: {tenant}" if tenant else ""
    return f"  - {{name: {name}, hash: 'sha256:{digest}'{owner}{more}}}"


def bearer(name: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with that key."""
    return (("authorization", f"Bearer tk_{name}"),)


CACHE = "cache: {use: 'on', max_temperature: 2}"


@asynccontextmanager
async def cached(
    *lines: str, policy: str = "attempts: {retries: 0}", cache: str = CACHE
) -> AsyncGenerator[tuple[Router, Vendor]]:
    """A router with a cache, and the vendor behind it."""
    vendor = Vendor()
    async with FaultServer(vendor) as server:
        config = "\n".join([openai_at(server.url, policy=policy), cache, *lines])
        async with router(config) as running:
            yield running, vendor
