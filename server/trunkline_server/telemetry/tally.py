"""Counts kept as plain numbers, which Prometheus's own values are told of in batches.

A value of prometheus-client takes a lock, and with several workers writes to a file, for each
addition; a call makes about a dozen. Here the event loop's thread adds to plain numbers, and
`flush` adds what is new to the values. A flush may run on another thread, a scrape's: it only
reads what the loop writes, so that nothing is counted twice or lost, and what it finds half
done it tells of the next time.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector


class Tally:
    """A counter. `total` is what it has counted so far, in the whole units of the owner's
    choice, of which `unit` make 1 for Prometheus."""

    __slots__ = ("_child", "_told", "_unit", "total")

    def __init__(self, child: Counter, unit: int = 1) -> None:
        self.total = 0
        self._told = 0
        self._child = child
        self._unit = unit

    def flush(self) -> None:
        """Tells Prometheus what is new. Not to be run twice at a time."""
        total = self.total
        if total != self._told:
            self._child.inc((total - self._told) / self._unit)
            self._told = total


class Spread:
    """A histogram whose buckets end at `bounds`."""

    __slots__ = ("_bounds", "_child", "_counts", "_sum", "_told_counts", "_told_sum")

    def __init__(self, child: Histogram, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._child = child
        # The last bucket is that of everything above the last bound.
        self._counts = [0] * (len(bounds) + 1)
        self._told_counts = list(self._counts)
        self._sum = self._told_sum = 0.0

    def observe(self, value: float) -> None:
        """Counts one value."""
        self._sum += value
        self._counts[bisect_left(self._bounds, value)] += 1

    def flush(self) -> None:
        """Tells Prometheus what is new. Not to be run twice at a time."""
        # The library has no public way to count many values at once.
        counts, told = self._counts.copy(), self._told_counts
        if counts == told:
            return
        for bucket, now, before in zip(self._child._buckets, counts, told, strict=True):
            if now != before:
                bucket.inc(now - before)
        self._told_counts = counts
        total = self._sum
        self._child._sum.inc(total - self._told_sum)
        self._told_sum = total


class Batches(Collector):
    """Everything that keeps counts of its own, flushed when the registry is read.

    To be made before the registry's metrics, for they are read in the order of their making.
    Several workers are read by way of files: each of them has to flush now and then, and at
    its end.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._flushes: list[Callable[[], None]] = []
        self._lock = Lock()
        registry.register(self)

    def add(self, flush: Callable[[], None]) -> None:
        """Has `flush` called with every flush from now on."""
        self._flushes.append(flush)

    def flush(self) -> None:
        """Tells Prometheus's values what is new. Thread-safe."""
        with self._lock:
            for flush in self._flushes.copy():
                flush()

    def describe(self) -> Iterable[Metric]:
        """Nothing: the metrics are collectors themselves."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Brings the metrics up to date, which are read next."""
        self.flush()
        return ()
