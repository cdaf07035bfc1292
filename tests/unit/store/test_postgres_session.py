"""A connection to Postgres that breaks in a way only the client library has a name for."""

from typing import NoReturn

import asyncpg  # type: ignore[import-untyped] # It ships no marker of its types.
import pytest

from trunkline_server.store.database import StoreUnavailableError
from trunkline_server.store.postgres import PostgresSession


class Confused:
    """A connection whose client lost count of what the server says."""

    terminated = False

    async def fetch(self, statement: str) -> NoReturn:
        raise asyncpg.InternalClientError("cannot switch to state 15; another operation is on")

    def terminate(self) -> None:
        self.terminated = True


async def test_a_confused_client_is_an_outage_and_its_connection_is_dropped() -> None:
    connection = Confused()
    session = PostgresSession(connection, "db:5432", 1.0)
    with pytest.raises(StoreUnavailableError, match="db:5432 is unavailable: cannot switch"):
        await session.fetch("SELECT 1")
    assert connection.terminated
