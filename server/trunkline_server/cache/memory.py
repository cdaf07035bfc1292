"""The first level: values in memory, bounded in bytes, and fair to every scope.

What goes first when room is needed is decided twice. Whose: the scope that holds most, so that
one which holds no more than its even share loses nothing to another's appetite. Which: the one
that entered first, except that each one asked for since then is passed over and put behind once
for each time, up to three (second chance, also known as CLOCK). Of the Mooncake trace that keeps
as much as least recently used or more (tests/perf/test_cache_replay.py prints the figures), and
a hit costs one increment; S3-FIFO keeps more with room for 1 % of what is asked for, and less
from 5 % on.
"""

import heapq
from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")

_MOST_CHANCES = 3

# What an entry takes besides its value: the entry, its key, its places in the shelf and among
# the expiries, and its part of a rank. A shelf: itself and its empty mapping. Bytes, measured
# on 64-bit CPython 3.11 on the safe side, and checked by a test.
ENTRY_OVERHEAD = 610
SHELF_OVERHEAD = 700

# So many entries whose time is over are dropped at each new one.
_SWEEP = 4


class _Entry(Generic[V]):
    __slots__ = ("chances", "expires", "size", "value")

    def __init__(self, value: V, size: int, expires: float) -> None:
        self.value = value
        self.size = size
        self.expires = expires
        self.chances = 0


class _Shelf(Generic[V]):
    __slots__ = ("entries", "used")

    def __init__(self) -> None:
        self.entries: OrderedDict[bytes, _Entry[V]] = OrderedDict()
        self.used = 0


class Memory(Generic[V]):
    """A mapping from (scope, digest) to values of known size, each for a limited time.

    `capacity` bounds the bytes of all, `share` (0 to 1) those of one scope as a part of it.
    Times are monotonic seconds. Nothing is ever above its bound, not even for a moment.
    """

    def __init__(self, capacity: int, share: float = 1.0) -> None:
        if capacity < 1 or not 0 < share <= 1:
            raise ValueError("a capacity is at least 1 byte, a share above 0 and at most 1")
        self.capacity = capacity
        self.used = 0
        self.count = 0
        self.evicted = 0
        self._most = int(capacity * share)
        self._shelves: dict[str, _Shelf[V]] = {}
        # For every shelf an entry (-bytes, scope) that is not below its bytes; stale ones are
        # corrected when they come to the top.
        self._ranks: list[tuple[int, str]] = []
        self._expiries: list[tuple[float, bytes, str]] = []

    def get(self, scope: str, digest: bytes, now: float) -> V | None:
        """The value, unless its time is over."""
        shelf = self._shelves.get(scope)
        if shelf is None:
            return None
        entry = shelf.entries.get(digest)
        if entry is None:
            return None
        if entry.expires <= now:
            self._remove(scope, shelf, digest)
            return None
        if entry.chances < _MOST_CHANCES:
            entry.chances += 1
        return entry.value

    def expires(self, scope: str, digest: bytes) -> float | None:
        """When the time of a value is over; None when none is held."""
        shelf = self._shelves.get(scope)
        entry = None if shelf is None else shelf.entries.get(digest)
        return None if entry is None else entry.expires

    def put(
        self, scope: str, digest: bytes, value: V, size: int, *, expires: float, now: float
    ) -> bool:
        """Holds a value of `size` bytes in place of the present one, if it fits at all."""
        size += ENTRY_OVERHEAD
        self.discard(scope, digest)
        if size + SHELF_OVERHEAD > self._most or expires <= now:
            return False
        self._sweep(now)
        while (shelf := self._shelves.get(scope)) and shelf.used + size > self._most:
            self._evict(scope, shelf)
        # Evicting may empty and remove the scope's own shelf.
        while self.used + size + self._shelf_cost(scope) > self.capacity:
            self._evict_for(scope, size)
        shelf = self._shelves.get(scope)
        if shelf is None:
            shelf = self._shelves[scope] = _Shelf()
            shelf.used = SHELF_OVERHEAD
            self.used += SHELF_OVERHEAD
        shelf.entries[digest] = _Entry(value, size, expires)
        shelf.used += size
        self.used += size
        self.count += 1
        self._rank(scope, shelf)
        self._note_expiry(expires, digest, scope)
        return True

    def discard(self, scope: str, digest: bytes) -> None:
        """Forgets a value; no harm if there is none."""
        shelf = self._shelves.get(scope)
        if shelf is not None and digest in shelf.entries:
            self._remove(scope, shelf, digest)

    def clear(self, scope: str) -> None:
        """Forgets all that a scope holds."""
        shelf = self._shelves.pop(scope, None)
        if shelf is not None:
            self.used -= shelf.used
            self.count -= len(shelf.entries)

    def used_by(self, scope: str) -> int:
        """The bytes that a scope holds."""
        shelf = self._shelves.get(scope)
        return 0 if shelf is None else shelf.used

    def _shelf_cost(self, scope: str) -> int:
        return 0 if scope in self._shelves else SHELF_OVERHEAD

    def _remove(self, scope: str, shelf: _Shelf[V], digest: bytes) -> None:
        size = shelf.entries.pop(digest).size
        shelf.used -= size
        self.used -= size
        self.count -= 1
        if not shelf.entries:
            del self._shelves[scope]
            self.used -= shelf.used

    def _evict(self, scope: str, shelf: _Shelf[V]) -> None:
        entries = shelf.entries
        while True:
            digest, entry = next(iter(entries.items()))
            if not entry.chances:
                break
            entry.chances -= 1
            entries.move_to_end(digest)
        self._remove(scope, shelf, digest)
        self.evicted += 1

    def _evict_for(self, scope: str, size: int) -> None:
        """Makes some room at the cost of the scope that holds most, the new value included."""
        largest, shelf = self._largest()
        own = self._shelves.get(scope)
        if own is not None and own.used + size > shelf.used:
            largest, shelf = scope, own
        self._evict(largest, shelf)

    def _largest(self) -> tuple[str, _Shelf[V]]:
        ranks = self._ranks
        while True:
            negative, scope = ranks[0]
            shelf = self._shelves.get(scope)
            if shelf is not None and shelf.used == -negative:
                return scope, shelf
            if shelf is not None and shelf.used < -negative:
                heapq.heapreplace(ranks, (-shelf.used, scope))
            else:
                # Outgrown: a higher one stood, and was corrected, before this.
                heapq.heappop(ranks)

    def _rank(self, scope: str, shelf: _Shelf[V]) -> None:
        ranks = self._ranks
        if len(ranks) > 4 * len(self._shelves) + 64:
            ranks[:] = [(-each.used, name) for name, each in self._shelves.items()]
            heapq.heapify(ranks)
        else:
            heapq.heappush(ranks, (-shelf.used, scope))

    def _note_expiry(self, expires: float, digest: bytes, scope: str) -> None:
        expiries = self._expiries
        if len(expiries) > 2 * self.count + 64:
            expiries[:] = [
                (entry.expires, key, name)
                for name, shelf in self._shelves.items()
                for key, entry in shelf.entries.items()
            ]
            heapq.heapify(expiries)
        else:
            heapq.heappush(expiries, (expires, digest, scope))

    def _sweep(self, now: float) -> None:
        expiries = self._expiries
        for _ in range(_SWEEP):
            if not expiries or expiries[0][0] > now:
                return
            _, digest, scope = heapq.heappop(expiries)
            shelf = self._shelves.get(scope)
            entry = None if shelf is None else shelf.entries.get(digest)
            if shelf is not None and entry is not None and entry.expires <= now:
                self._remove(scope, shelf, digest)
