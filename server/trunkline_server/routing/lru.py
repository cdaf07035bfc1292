"""A bounded memo: the least recently used entries go first."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """A mapping whose entries have sizes; the sum of the sizes stays within `capacity`.

    The newest entry is kept even when it alone exceeds the capacity.
    """

    __slots__ = ("_capacity", "_entries", "_used")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._used = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, which becomes the most recently used; None when it is not held."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V, size: int = 1) -> None:
        """Holds the value, and lets go of the oldest ones that no longer fit beside it."""
        entries = self._entries
        replaced = entries.pop(key, None)
        if replaced is not None:
            self._used -= replaced[1]
        entries[key] = (value, size)
        self._used += size
        while self._used > self._capacity and len(entries) > 1:
            _, (_, freed) = entries.popitem(last=False)
            self._used -= freed
