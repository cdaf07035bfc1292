"""A control plane over stores in memory."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.support.admin_server import Client
from tests.support.admin_world import World, new_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """What it is made of, to look at and to change."""
    return new_world(tmp_path)


@pytest.fixture
async def root(world: World) -> AsyncGenerator[Client]:
    """Calls it with every permission."""
    async with world.serving() as client:
        yield client
