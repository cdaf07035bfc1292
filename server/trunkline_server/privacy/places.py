"""Where cited words stand once the placeholders before them were given back.

A placeholder and what it stands for differ in length, so what counts characters of a masked text
has to be counted anew.
"""

from bisect import bisect_right


class Places:
    """The pieces of one part's text that were replaced, in order."""

    __slots__ = ("_ends", "_length", "_shifts", "_starts")

    def __init__(self) -> None:
        self._length = 0
        self._starts: list[int] = []
        self._ends: list[int] = []
        # By how much all that stands behind each replaced piece has moved.
        self._shifts: list[int] = []

    def passed(self, length: int) -> None:
        """The masked text goes on for some characters."""
        self._length += length

    def replaced(self, start: int, end: int, length: int) -> None:
        """Of the characters that come next, those from `start` to `end` became `length`."""
        before = self._shifts[-1] if self._shifts else 0
        self._starts.append(self._length + start)
        self._ends.append(self._length + end)
        self._shifts.append(before + length - (end - start))

    def moved(self, place: int, *, end: bool = False) -> int:
        """Where a place of the masked text is. One within a replaced piece is its beginning, or
        with `end` its end."""
        before = bisect_right(self._ends, place) - 1
        shift = self._shifts[before] if before >= 0 else 0
        inside = before + 1
        if inside < len(self._starts) and self._starts[inside] < place:
            if end:
                return self._ends[inside] + self._shifts[inside]
            place = self._starts[inside]
        return place + shift
