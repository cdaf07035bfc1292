"""Tells every process of every change of resources, within a second."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from trunkline_server.store.database import Database, StoreUnavailableError
from trunkline_server.store.resources import CHANNEL, ResourceStore

# Notifications come at once; this finds what they miss, and all on databases without them.
POLL_SECONDS = 0.25


def _nobody(_: StoreUnavailableError | None) -> None:
    """Hears of outages and does nothing."""


class ChangeFeed:
    """Watches the store's revision.

    `heard` is called with the error when the database goes away, and with None when it is back;
    it must not raise.
    """

    def __init__(
        self,
        database: Database,
        store: ResourceStore,
        *,
        poll_seconds: float = POLL_SECONDS,
        heard: Callable[[StoreUnavailableError | None], None] = _nobody,
    ) -> None:
        self._database = database
        self._store = store
        self._poll_seconds = poll_seconds
        self._heard = heard

    async def watch(self) -> AsyncGenerator[int]:
        """Yields the revision at first, and then whenever it is another one, for ever.

        Revisions may be passed over, never the last of them. A lower one than before means that
        the database was put back. An outage of the database ends nothing: what changed
        meanwhile is told after it.
        """
        last: int | None = None
        away = False
        async with self._database.listening(CHANNEL) as bell:
            while True:
                # Before the look, so that what comes after it rings.
                bell.clear()
                try:
                    revision = await self._store.revision()
                except StoreUnavailableError as error:
                    if not away:
                        away = True
                        self._heard(error)
                else:
                    if away:
                        away = False
                        self._heard(None)
                    if revision != last:
                        last = revision
                        yield revision
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await bell.wait()
