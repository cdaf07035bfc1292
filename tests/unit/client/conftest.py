"""Fixtures: a scripted router on a socket, and either client connected to it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.unit.client.scripted import DRIVERS, ClientDriver, Served


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with Served() as served:
        yield served


@pytest.fixture(params=sorted(DRIVERS))
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., ClientDriver]]:
    """Opens clients of one kind: connect(target, **options)."""
    opened: list[ClientDriver] = []

    def open_client(target: str, **options: Any) -> ClientDriver:
        # Channels share connections by address, and the kernel gives ports out again: the
        # back-off of an earlier test's server must not hold for this one's.
        own = {"grpc.use_local_subchannel_pool": 1, **options.pop("channel_options", {})}
        options["channel_options"] = own
        opened.append(DRIVERS[request.param](target, **options))
        return opened[-1]

    yield open_client
    for client in opened:
        await client.close()
