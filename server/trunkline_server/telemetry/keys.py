"""When callers' keys were last shown, as a metric."""

from collections.abc import Callable, Mapping

from trunkline_server.telemetry.metrics import Metrics


class KeyUse:
    """Tells Prometheus of keys that were shown, with each flush of the metrics."""

    def __init__(self, metrics: Metrics, take: Callable[[], Mapping[str, float]]) -> None:
        """`take` gives when keys were last shown, by name, in Unix seconds: what is new of it."""
        self._take = take
        self._last_used = metrics.key_last_used
        metrics.batches.add(self._flush)

    def _flush(self) -> None:
        # On a scrape's thread, while the event loop may still write to what was taken.
        for name, moment in dict(self._take()).items():
            self._last_used.labels(name).set(moment)
