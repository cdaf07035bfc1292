"""What only a fetch can tell; apart from the fetching, which not every router needs."""

import asyncio

from trunkline import v1
from trunkline_server.errors import TrunklineError


class KeysPendingError(TrunklineError):
    """Only a fetch that is under way can tell whether a caller is known.

    An outage for whoever does not wait; who does, awaits `fetched` and asks again.
    """

    def __init__(self, issuer: str, fetching: "asyncio.Task[None]") -> None:
        super().__init__(
            v1.ERROR_REASON_SERVICE_UNAVAILABLE,
            f"the keys of the issuer {issuer!r} are being fetched",
            metadata={"issuer": issuer},
            retry_after=1.0,
        )
        self._fetching = fetching

    async def fetched(self) -> None:
        """Returns when the fetch has ended, well or badly, within its timeout."""
        # Others wait for the same one, and it goes on if this caller gives up.
        await asyncio.shield(self._fetching)
