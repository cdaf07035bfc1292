"""A simple stand-in for the vendors' prompt caches: it remembers prefixes, not their content.

Vendors cache prompts of at least 1,024 tokens; those that cache without being asked do so in
steps of 128. Entries leave when newer ones need the room, not by age.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

LEAST_TOKENS = 1024
STEP_TOKENS = 128


@dataclass(slots=True)
class Unit:
    """One piece of a prompt in the order that the vendor reads it.

    `mark` is the lifetime of a cache breakpoint that stands at its end, "5m" or "1h"; empty
    means that there is none.
    """

    content: Hashable
    tokens: int
    mark: str = ""


@dataclass(frozen=True, slots=True)
class CacheUse:
    """How many of a prompt's tokens were read from the cache and written to it."""

    read: int = 0
    written: int = 0
    written_1h: int = 0


class PromptCache:
    """The prefixes seen so far, within a scope such as account and model."""

    def __init__(self, size: int = 8192) -> None:
        self._size = size
        self._seen: OrderedDict[int, None] = OrderedDict()

    def clear(self) -> None:
        self._seen.clear()

    def implicit(self, scope: Hashable, units: Iterable[Unit]) -> CacheUse:
        """For vendors that cache every long prompt by themselves, at no charge for writing."""
        total, known, prefix = 0, 0, hash(scope)
        prefixes = []
        for unit in units:
            prefix = hash((prefix, unit.content))
            total += unit.tokens
            prefixes.append(prefix)
            if prefix in self._seen:
                known = total
        if total < LEAST_TOKENS:
            return CacheUse()
        for prefix in prefixes:
            self._remember(prefix)
        read = known // STEP_TOKENS * STEP_TOKENS
        return CacheUse(read if read >= LEAST_TOKENS else 0)

    def explicit(self, scope: Hashable, units: Iterable[Unit]) -> CacheUse:
        """For vendors that cache up to the marks that a request sets."""
        total, read, prefix = 0, 0, hash(scope)
        marks: list[tuple[int, int, str]] = []
        for unit in units:
            prefix = hash((prefix, unit.content))
            total += unit.tokens
            if unit.mark and total >= LEAST_TOKENS:
                marks.append((prefix, total, unit.mark))
                if prefix in self._seen:
                    read = total
        written, written_1h, begin = 0, 0, read
        for prefix, end, mark in marks:
            self._remember(prefix)
            if end > begin:
                written += end - begin
                written_1h += end - begin if mark == "1h" else 0
                begin = end
        return CacheUse(read, written, written_1h)

    def _remember(self, prefix: int) -> None:
        self._seen[prefix] = None
        self._seen.move_to_end(prefix)
        if len(self._seen) > self._size:
            self._seen.popitem(last=False)
