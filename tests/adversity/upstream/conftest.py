"""Every test here runs against every client behind the upstream port, on every event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import uvloop

from trunkline_server.upstream.aiohttp_client import AiohttpClient
from trunkline_server.upstream.http import HttpClient
from trunkline_server.upstream.http1.client import Http1Client


class MakeClient(Protocol):
    """Builds the client under test; each client's constructor takes these by these names."""

    def __call__(
        self, *, ca_file: Path | None = None, max_connections_per_origin: int = 0
    ) -> HttpClient: ...


CLIENTS: Mapping[str, MakeClient] = {"aiohttp": AiohttpClient, "http1": Http1Client}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the service runs on, and the plain one."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=CLIENTS)
async def make_client(request: pytest.FixtureRequest) -> AsyncIterator[MakeClient]:
    """Builds clients and closes them; then nothing of them may be left running, and nothing
    may have failed where nobody looked."""
    loop = asyncio.get_running_loop()
    unseen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    before = asyncio.all_tasks()
    made: list[HttpClient] = []

    def make(**options: Any) -> HttpClient:
        client: HttpClient = CLIENTS[request.param](**options)
        made.append(client)
        return client

    yield make
    for client in made:
        await client.close()
    if left := asyncio.all_tasks() - before - {asyncio.current_task()}:
        _, running = await asyncio.wait(left, timeout=1)
        assert not running
    assert unseen == []


@pytest.fixture
async def client(make_client: MakeClient) -> HttpClient:
    return make_client()
