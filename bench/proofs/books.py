"""The books beside what callers were told: whether each call is there once, with its figures."""

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg  # type: ignore[import-untyped] # It ships no marker of its types.

from bench.proofs.callers import Fate, Told
from trunkline.admin import v1 as admin

_SELECT = "SELECT event FROM usage_events WHERE start_time_us >= {}"


async def events_since(database: str, start_us: int) -> list[admin.UsageEvent]:
    """The events in a database that began at a moment or later, by microseconds since 1970.

    Raises OSError or asyncpg's errors while it is away.
    """
    if database.startswith("sqlite:///"):
        path = Path(database.removeprefix("sqlite:///"))
        with closing(sqlite3.connect(path, timeout=10)) as connection:
            rows = connection.execute(_SELECT.format("?"), (start_us,)).fetchall()
    else:
        reader = await asyncpg.connect(database, timeout=5)
        try:
            rows = await reader.fetch(_SELECT.format("$1"), start_us)
        finally:
            await reader.close()
    return [admin.UsageEvent.FromString(row[0]) for row in rows]


@dataclass(slots=True)
class Tally:
    """What callers were told beside what the books hold; sums over answered calls."""

    calls: int = 0
    fates: dict[Fate, int] = field(default_factory=lambda: defaultdict(int))
    told_tokens: int = 0
    told_nanos: int = 0
    booked_tokens: int = 0
    booked_nanos: int = 0
    # Of the calls that their callers left, and of those cut off, the ones in the books.
    left_booked: int = 0
    cut_booked: int = 0
    broken: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Adds another's."""
        self.calls += other.calls
        for fate, count in other.fates.items():
            self.fates[fate] += count
        self.told_tokens += other.told_tokens
        self.told_nanos += other.told_nanos
        self.booked_tokens += other.booked_tokens
        self.booked_nanos += other.booked_nanos
        self.left_booked += other.left_booked
        self.cut_booked += other.cut_booked
        self.broken += other.broken


def owed(told: Told, *, died: bool) -> bool:
    """Whether the call must be in the books. `died` says that a worker was killed meanwhile."""
    if told.fate is Fate.ANSWERED:
        return True
    if told.fate is Fate.REFUSED:
        return told.begun
    return told.begun and not died


def judge(told: Iterable[Told], events: Sequence[admin.UsageEvent], *, died: bool) -> Tally:
    """Compares what callers were told with the events."""
    calls: dict[str, list[admin.UsageEvent]] = defaultdict(list)
    attempts: dict[str, list[admin.UsageEvent]] = defaultdict(list)
    for event in events:
        kind = calls if event.kind == admin.USAGE_EVENT_KIND_CALL else attempts
        kind[event.request_id].append(event)
    tally = Tally()
    for one in told:
        found = calls[one.id]
        tally.calls += 1
        tally.fates[one.fate] += 1
        tally.left_booked += one.fate is Fate.LEFT and bool(found)
        tally.cut_booked += one.fate is Fate.CUT and bool(found)
        if len(found) > 1 or (owed(one, died=died) and not found):
            tally.broken.append(f"{one.id} ({one.kind}, {one.fate}) is booked {len(found)} times")
        if one.fate is Fate.HUNG:
            tally.broken.append(f"{one.id} ({one.kind}) hung")
        if one.fate is Fate.ANSWERED:
            tally.told_tokens += one.input_tokens + one.output_tokens
            tally.told_nanos += one.cost
        for event in found:
            tally.broken += _wrong(one, event, attempts[one.id])
            if one.fate is Fate.ANSWERED:
                tally.booked_tokens += event.usage.input_tokens + event.usage.output_tokens
                tally.booked_nanos += event.cost.total
    return tally


def missing(told: Iterable[Told], events: Iterable[admin.UsageEvent], *, died: bool) -> bool:
    """Whether a call that must be in the books is not there yet."""
    there: Collection[str] = {
        event.request_id for event in events if event.kind == admin.USAGE_EVENT_KIND_CALL
    }
    return any(one.id not in there for one in told if owed(one, died=died))


def _wrong(told: Told, event: admin.UsageEvent, attempts: Sequence[admin.UsageEvent]) -> list[str]:
    """What a call's event says otherwise than its caller was told, or than its attempts."""
    wrong = []
    numbers = sorted(each.attempt_number for each in attempts)
    if numbers != list(range(1, event.attempt_count + 1)):
        wrong.append(f"{told.id}: {event.attempt_count} attempts are booked as {numbers}")
    if sum(each.cost.total for each in attempts) != event.cost.total:
        wrong.append(f"{told.id}: its attempts do not add up to it")
    if told.fate is Fate.ANSWERED and event.outcome != admin.USAGE_OUTCOME_SUCCEEDED:
        wrong.append(f"{told.id} was answered and is booked as {event.outcome}")
    if told.fate in {Fate.ANSWERED, Fate.REFUSED} and told.begun | (told.fate is Fate.ANSWERED):
        figures = (told.input_tokens, told.output_tokens, told.cost)
        booked = (event.usage.input_tokens, event.usage.output_tokens, event.cost.total)
        if figures != booked:
            wrong.append(f"{told.id}: told {figures}, booked {booked}")
    return wrong
