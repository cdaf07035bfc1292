"""Measured figures: what fades with time, what rises at once, and what came last.

`now` is monotonic seconds; `seconds` is the time in which a sample fades to 1/e.
"""

from array import array
from math import ceil, exp

# Percentiles are taken from so many latest samples, and not from fewer than the minimum.
_RING = 64
_MIN_SAMPLES = 20


class Samples:
    """A mean whose samples fade with time, and the latest samples."""

    __slots__ = ("mean", "recent", "seen", "stamp", "weight")

    def __init__(self) -> None:
        self.mean = 0.0
        self.weight = 0.0
        self.stamp = 0.0
        self.recent = array("f")
        self.seen = 0

    def add(self, value: float, now: float, seconds: float) -> None:
        self.weight = self.weight * exp((self.stamp - now) / seconds) + 1.0
        self.mean += (value - self.mean) / self.weight
        self.stamp = now
        if self.seen < _RING:
            self.recent.append(value)
        else:
            self.recent[self.seen % _RING] = value
        self.seen += 1

    def percentile(self, q: float) -> float | None:
        count = len(self.recent)
        if count < _MIN_SAMPLES:
            return None
        return sorted(self.recent)[min(max(ceil(q * count), 1), count) - 1]


class Peaks:
    """By slot, a figure that rises at once to a higher sample and falls back with time.

    Without samples it falls towards nothing: who was slow once is tried again. Flat arrays,
    because decisions read random slots of large tables. 0 means unmeasured.
    """

    __slots__ = ("stamps", "values")

    def __init__(self, slots: int) -> None:
        self.values = array("d", bytes(8 * slots))
        self.stamps = array("d", bytes(8 * slots))

    def add(self, slot: int, value: float, now: float, seconds: float) -> None:
        kept = exp((self.stamps[slot] - now) / seconds)
        self.values[slot] = max(value, self.values[slot] * kept + value * (1.0 - kept))
        self.stamps[slot] = now

    def raise_to(self, slot: int, value: float, now: float, seconds: float) -> None:
        """A failure's duration: it can make a measured figure worse and nothing better."""
        known = self.values[slot]
        if known and known * exp((self.stamps[slot] - now) / seconds) < value:
            self.values[slot] = value
            self.stamps[slot] = now

    def copy(self, slot: int, other: "Peaks", other_slot: int) -> None:
        self.values[slot] = other.values[other_slot]
        self.stamps[slot] = other.stamps[other_slot]
