"""A simulator on the test's own loop."""

from collections.abc import AsyncIterator

import pytest

from trunkline_server.simulator.app import Simulator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running
