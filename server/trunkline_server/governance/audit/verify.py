"""Verification: finds the first entry that is not as it was written, and says what was done.

The first pass follows the chain until it breaks. What broke it shows in the place that the entry
at the break was written for, which its hash covers, and in what became of the entry that should
be there, for which a second pass looks.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum

from trunkline_server.governance.audit.chain import hash_of, place_of
from trunkline_server.governance.audit.checkpoints import Checkpoint
from trunkline_server.governance.audit.ports import Head, Record

# So many places up and down, the one that a displaced entry was written for is looked for. What
# was moved further counts as edited.
_SEARCHED = 10_000


class Fault(StrEnum):
    """What was done to a chain."""

    EDITED = "edited"
    DELETED = "deleted"
    INSERTED = "inserted"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    # Every hash fits, but not what a checkpoint remembers.
    REWRITTEN = "rewritten"


@dataclass(frozen=True, slots=True)
class Finding:
    """The first thing that is wrong: what, and from which sequence number on."""

    fault: Fault
    seq: int

    def __str__(self) -> str:
        return f"entry {self.seq}: {_TOLD[self.fault]}"


_TOLD: Mapping[Fault, str] = {
    Fault.EDITED: "was changed after it was written",
    Fault.DELETED: "was removed",
    Fault.INSERTED: "was put in later",
    Fault.REORDERED: "is in another entry's place",
    Fault.TRUNCATED: "this and what followed was cut off",
    Fault.REWRITTEN: "from here at the earliest the chain was written anew",
}


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found. `head` is where the chain is sound up to; `checkpoints` is how many of
    those given were compared."""

    head: Head
    checkpoints: int
    finding: Finding | None = None

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.finding is None


async def verify(
    read: Callable[[], AsyncGenerator[Record]], checkpoints: Iterable[Checkpoint] = ()
) -> Verification:
    """Verifies a chain; `read` gives all its entries in order, and is called again if it breaks."""
    walk = _Walk(checkpoints)
    async with aclosing(read()) as records:
        async for record in records:
            if not walk.accepts(record):
                break
    if walk.broken_by is not None:
        search = walk.search()
        async with aclosing(read()) as records:
            async for record in records:
                search.consider(record)
        return walk.verdict(search)
    return walk.verdict(None)


def verify_lines(
    read: Callable[[], Iterator[Record]], checkpoints: Iterable[Checkpoint] = ()
) -> Verification:
    """As verify, for entries that were exported."""
    walk = _Walk(checkpoints)
    for record in read():
        if not walk.accepts(record):
            break
    if walk.broken_by is not None:
        search = walk.search()
        for record in read():
            search.consider(record)
        return walk.verdict(search)
    return walk.verdict(None)


class _Walk:
    """Follows the chain."""

    def __init__(self, checkpoints: Iterable[Checkpoint]) -> None:
        self._heads = sorted({one.head for one in checkpoints}, key=lambda head: head.count)
        self._next = 0
        self._agreed = 0
        # How many entries the first checkpoint counts that differs.
        self._differs: int | None = None
        self.head = Head()
        self.broken_by: Record | None = None
        self._compare()

    def accepts(self, record: Record) -> bool:
        """Whether the chain goes on with an entry."""
        whole = hash_of(record) == record.hash
        if not (whole and record.prev_hash == self.head.hash and record.seq == self.head.count + 1):
            self.broken_by = record
            return False
        self.head = Head(record.seq, record.hash)
        self._compare()
        return True

    def _compare(self) -> None:
        """Compares with the checkpoints of as many entries, until one differs."""
        while self._next < len(self._heads) and self._differs is None:
            head = self._heads[self._next]
            if head.count != self.head.count:
                return
            self._next += 1
            if head.hash == self.head.hash:
                self._agreed = head.count
            else:
                self._differs = head.count

    def search(self) -> "_Search":
        """What the second pass looks for."""
        return _Search(self.head)

    def verdict(self, search: "_Search | None") -> Verification:
        """What was found, `search` having looked for what broke the chain, if it broke."""
        finding: Finding | None = None
        if self.broken_by is not None and search is not None:
            finding = _diagnose(self.broken_by, search)
        elif self._differs is None and self._next < len(self._heads):
            finding = Finding(Fault.TRUNCATED, self.head.count + 1)
        if self._differs is not None and (finding is None or finding.seq > self._differs):
            # What broke the chain, if anything, came after what the checkpoint tells of.
            finding = Finding(Fault.REWRITTEN, self._agreed + 1)
        return Verification(self.head, self._next, finding)


@dataclass(slots=True)
class _Search:
    """What has become of the entry that should follow `head`.

    `displaced` if it is further on; `next_after` is the hash that the entry behind the break was
    written after.
    """

    head: Head
    displaced: bool = False
    next_after: bytes | None = None
    _position: int = 0

    def consider(self, record: Record) -> None:
        """Looks at the next entry."""
        self._position += 1
        place = self.head.count + 1
        if self._position <= place:
            return
        if self._position == place + 1:
            self.next_after = record.prev_hash
        if record.prev_hash == self.head.hash and place_of(record, _SEARCHED) == place:
            self.displaced = True


def _diagnose(record: Record, search: _Search) -> Finding:
    """What was done at the place behind `search.head`, where `record` is now."""
    place = search.head.count + 1
    written_for = place_of(record, _SEARCHED)
    if written_for is None:
        # Nobody wrote it so.
        return Finding(Fault.INSERTED if search.displaced else Fault.EDITED, place)
    if written_for > place:
        return Finding(Fault.REORDERED if search.displaced else Fault.DELETED, place)
    if written_for < place:
        # A copy of an earlier one; or the true one, which what is now in its place displaced.
        return Finding(Fault.INSERTED, place if search.displaced else written_for)
    if record.prev_hash == search.head.hash:
        # In its place, with another number.
        return Finding(Fault.EDITED, place)
    # It was written for this place, after an entry that is no more: the one before was replaced,
    # hash and all, unless what follows does not know this one either.
    unknown = search.next_after not in {None, record.hash}
    return Finding(Fault.EDITED, place if unknown or place == 1 else place - 1)
