"""What the ledger asks of others: a place for events, and someone who watches it work.

What it asks of a store that answers questions stands in queries.py.
"""

from collections.abc import Sequence
from typing import Protocol

from trunkline.admin import v1 as admin


class SinkRefusedError(Exception):
    """The store will never take one of these events as it is."""


class EventSink(Protocol):
    """Where events are kept for good."""

    async def insert(self, events: Sequence[admin.UsageEvent]) -> None:
        """Keeps events, all or none of them; those whose event_id it holds are dropped.

        Raises TrunklineError while the store is away, and SinkRefusedError.
        """
        ...


class LedgerWatch(Protocol):
    """Watches the ledger, for metrics and logs. Called on the event loop: must not block or
    raise."""

    def journal_failed(self, problem: str) -> None:
        """The journal's disk refuses writes from now on; `problem` says why."""
        ...

    def journal_recovered(self, waited: int) -> None:
        """The journal writes again; so many events had waited in memory."""
        ...

    def lost(self, events: int) -> None:
        """So many events were dropped, because neither disk nor memory had room."""
        ...

    def torn(self, segment: str, size: int) -> None:
        """A segment ended inside a record, as after a crash; the bytes were put aside."""
        ...

    def damaged(self, segment: str, offset: int, size: int) -> None:
        """Bytes inside a segment are no record; they were put aside."""
        ...

    def unreadable(self, segment: str, problem: str) -> None:
        """A record is whole, but the store or the reader refuses it; it was put aside."""
        ...

    def adopted(self, directory: str, segments: int) -> None:
        """The journal of a worker that is no more was taken over."""
        ...

    def shipped(self, events: int) -> None:
        """So many events have reached the store."""
        ...

    def ship_failed(self, problem: str, failures: int) -> None:
        """The store did not take a batch, the `failures`-th time in a row."""
        ...

    def shipping(self, available: bool) -> None:
        """The breaker opened (False) or closed (True)."""
        ...

    def clock_jumped(self, seconds: float) -> None:
        """The wall clock was set forward by so much; nothing is deleted by it yet."""
        ...

    def lag(self, size: int, seconds: float) -> None:
        """So many bytes wait to be shipped; the store has not been level for so long."""
        ...


class NullWatch:
    """Watches nothing."""

    def journal_failed(self, problem: str) -> None:
        pass

    def journal_recovered(self, waited: int) -> None:
        pass

    def lost(self, events: int) -> None:
        pass

    def torn(self, segment: str, size: int) -> None:
        pass

    def damaged(self, segment: str, offset: int, size: int) -> None:
        pass

    def unreadable(self, segment: str, problem: str) -> None:
        pass

    def adopted(self, directory: str, segments: int) -> None:
        pass

    def shipped(self, events: int) -> None:
        pass

    def ship_failed(self, problem: str, failures: int) -> None:
        pass

    def shipping(self, available: bool) -> None:
        pass

    def lag(self, size: int, seconds: float) -> None:
        pass

    def clock_jumped(self, seconds: float) -> None:
        pass
