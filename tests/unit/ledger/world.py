"""Events, a watch that remembers, and a store that can be told to fail."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.errors import TrunklineError
from trunkline_server.ledger.directory import Quarantine
from trunkline_server.ledger.journal import Journal
from trunkline_server.ledger.ports import NullWatch, SinkRefusedError
from trunkline_server.ledger.reader import JournalReader


def event(number: int, size: int = 0) -> admin.UsageEvent:
    """An event of its own number, with a label of `size` bytes."""
    made = admin.UsageEvent(
        event_id=f"{number:032x}",
        kind=admin.USAGE_EVENT_KIND_CALL,
        end_time_unix_us=1_767_225_600_000_000 + number,
    )
    if size:
        made.labels["filling"] = "x" * size
    return made


def payload(number: int, size: int = 0) -> bytes:
    """The same, serialised."""
    return event(number, size).SerializeToString(deterministic=True)


class Watch(NullWatch):
    """A LedgerWatch that remembers what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        # Set when the journal writes again.
        self.mended = asyncio.Event()

    def names(self) -> list[object]:
        """What happened, without particulars."""
        return [row[0] for row in self.told]

    def all(self, name: str) -> list[tuple[object, ...]]:
        """The particulars of each happening of a name."""
        return [row[1:] for row in self.told if row[0] == name]

    def journal_failed(self, problem: str) -> None:
        self.told.append(("failed", problem))

    def journal_recovered(self, waited: int) -> None:
        self.told.append(("recovered", waited))
        self.mended.set()

    def lost(self, events: int) -> None:
        self.told.append(("lost", events))

    def torn(self, segment: str, size: int) -> None:
        self.told.append(("torn", Path(segment).name, size))

    def damaged(self, segment: str, offset: int, size: int) -> None:
        self.told.append(("damaged", Path(segment).name, offset, size))

    def unreadable(self, segment: str, problem: str) -> None:
        self.told.append(("unreadable", problem))

    def adopted(self, directory: str, segments: int) -> None:
        self.told.append(("adopted", directory, segments))

    def shipped(self, events: int) -> None:
        self.told.append(("shipped", events))

    def ship_failed(self, problem: str, failures: int) -> None:
        self.told.append(("ship_failed", problem, failures))

    def shipping(self, available: bool) -> None:
        self.told.append(("shipping", available))

    def clock_jumped(self, seconds: float) -> None:
        self.told.append(("clock_jumped", seconds))

    def lag(self, size: int, seconds: float) -> None:
        self.told.append(("lag", size, seconds))


class MemorySink:
    """An EventSink that keeps events by id, and counts how often each came.

    `failures` says what the next inserts do: an error to raise before anything is kept, or
    after all is ("lost answer"). `refused` are ids that it will never take.
    """

    def __init__(self) -> None:
        self.kept: dict[str, admin.UsageEvent] = {}
        self.came: Counter[str] = Counter()
        self.batches: list[int] = []
        self.failures: list[str] = []
        self.refused: set[str] = set()

    async def insert(self, events: Sequence[admin.UsageEvent]) -> None:
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "away":
            raise away()
        if any(event.event_id in self.refused for event in events):
            raise SinkRefusedError("a value is out of range")
        self.batches.append(len(events))
        for each in events:
            self.came[each.event_id] += 1
            self.kept.setdefault(each.event_id, each)
        if failure == "lost answer":
            raise away()


def away() -> TrunklineError:
    return TrunklineError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, "the store is away")


def read_all(reader: JournalReader, limit: int = 7) -> list[bytes]:
    """Every event that a reader has, each batch marked as shipped."""
    payloads: list[bytes] = []
    while (batch := reader.read(limit)) is not None:
        assert 0 < len(batch.payloads) <= limit
        payloads += batch.payloads
        reader.shipped(batch)
    return payloads


def reader_of(journal: Journal, root: Path, watch: Watch) -> JournalReader:
    """A reader beside a journal's writer."""
    return JournalReader(
        journal.directory,
        Quarantine(root),
        watch,
        active=lambda: journal.active_segment,
        freed=journal.freed,
    )


def sizes(directory: Path) -> list[int]:
    """The sizes of the segments, in order."""
    return [path.stat().st_size for path in sorted(directory.glob("*.seg"))]
