"""What operators should know of the answer cache."""

from typing import Protocol

from trunkline_server.telemetry.metrics import Metrics
from trunkline_server.telemetry.tally import Tally

_NANOS_PER_USD = 10**9


class Counts(Protocol):
    """What a cache has counted since its start."""

    memory_hits: int
    shared_hits: int
    joined: int
    misses: int
    saved_nanos: int
    stored: int
    too_large: int
    shared_errors: int
    shared_corrupt: int
    shared_dropped: int


class Watched(Protocol):
    """A cache, as far as it is watched."""

    @property
    def stats(self) -> Counts:
        """Its counts."""
        ...

    @property
    def memory_bytes(self) -> int:
        """The bytes that its memory holds."""
        ...

    @property
    def entries(self) -> int:
        """The values that its memory holds."""
        ...


class CacheMetrics:
    """Tells Prometheus what a cache counted, with every flush."""

    def __init__(self, metrics: Metrics, cache: Watched) -> None:
        self._cache = cache
        self._bytes, self._entries = metrics.cache_bytes, metrics.cache_entries
        results, trouble = metrics.cache_lookups, metrics.cache_trouble
        self._tallies = {
            "memory_hits": Tally(results.labels("memory")),
            "shared_hits": Tally(results.labels("shared")),
            "joined": Tally(results.labels("joined")),
            "misses": Tally(results.labels("miss")),
            "saved_nanos": Tally(metrics.cache_saved, _NANOS_PER_USD),
            "stored": Tally(metrics.cache_stored),
            "too_large": Tally(trouble.labels("too_large")),
            "shared_errors": Tally(trouble.labels("shared_away")),
            "shared_corrupt": Tally(trouble.labels("shared_corrupt")),
            "shared_dropped": Tally(trouble.labels("shared_behind")),
        }
        metrics.batches.add(self._flush)

    def _flush(self) -> None:
        stats = self._cache.stats
        for name, tally in self._tallies.items():
            tally.total = getattr(stats, name)
            tally.flush()
        self._bytes.set(self._cache.memory_bytes)
        self._entries.set(self._cache.entries)
