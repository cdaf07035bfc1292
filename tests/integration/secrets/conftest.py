"""Local servers of the secret managers' documented shapes, for the vendors' own clients."""

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from trunkline_server.secrets.threads import BlockingPool

Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves an application on 127.0.0.1, by TLS if given a context, and gives its URL."""
    runners: list[web.AppRunner] = []

    async def start(app: web.Application, tls: ssl.SSLContext | None = None) -> str:
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        port = runner.addresses[0][1]
        return f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"

    yield start
    for runner in runners:
        # Clients that report an error keep its connection for as long as the error lives, and
        # a TLS connection waits for its peer's farewell.
        for connection in runner.server.connections if runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()
    # What was aborted is closed in the loop's next turns; the clients' ends then with it.
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()


@pytest.fixture
async def pool() -> AsyncIterator[BlockingPool]:
    made = BlockingPool(workers=2, timeout=10.0)
    yield made
    made.close()
