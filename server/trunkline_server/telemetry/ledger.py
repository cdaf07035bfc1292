"""What the ledger goes through, as metrics and log lines; a ledger.ports.LedgerWatch."""

import structlog

from trunkline_server.telemetry.metrics import Metrics
from trunkline_server.telemetry.sparsely import Sparsely


class LedgerLog:
    """Counts the ledger's events, and logs what an operator must know of it."""

    def __init__(self, metrics: Metrics) -> None:
        self._shipped = metrics.ledger_events.labels("shipped")
        self._lost = metrics.ledger_events.labels("lost")
        self._blocked = metrics.ledger_blocked
        self._away = metrics.ledger_away
        self._lag_bytes = metrics.ledger_lag_bytes
        self._lag_seconds = metrics.ledger_lag_seconds
        self._log = structlog.get_logger()
        self._sparsely = Sparsely()
        # Why the database took no batch; empty while it takes them.
        self._problem = ""

    def journal_failed(self, problem: str) -> None:
        """The journal's disk refuses writes."""
        self._blocked.set(1)
        self._log.error("ledger cannot be written", problem=problem)

    def journal_recovered(self, waited: int) -> None:
        """The journal writes again."""
        self._blocked.set(0)
        self._log.warning("ledger is written again", events_that_waited=waited)

    def lost(self, events: int) -> None:
        """Events were dropped."""
        self._lost.inc(events)
        since = self._sparsely.due(events)
        if since:
            self._log.error("usage events lost", events=since)

    def torn(self, segment: str, size: int) -> None:
        """A segment ended inside a record."""
        self._log.warning("ledger segment was cut short", segment=segment, bytes_put_aside=size)

    def damaged(self, segment: str, offset: int, size: int) -> None:
        """Bytes inside a segment are no record."""
        self._log.error(
            "ledger segment is damaged", segment=segment, offset=offset, bytes_put_aside=size
        )

    def unreadable(self, segment: str, problem: str) -> None:
        """A record was put aside."""
        self._log.error("usage event put aside", segment=segment, problem=problem)

    def adopted(self, directory: str, segments: int) -> None:
        """The journal of a worker that is no more was taken over."""
        self._log.warning("ledger of a lost worker adopted", directory=directory, segments=segments)

    def shipped(self, events: int) -> None:
        """Events have reached the database."""
        self._shipped.inc(events)
        if self._problem:
            self._problem = ""
            self._log.warning("ledger database is back")

    def ship_failed(self, problem: str, failures: int) -> None:
        """The database did not take a batch; the first failure and the breaker's are told."""
        self._problem = problem
        if failures <= 1:
            self._log.warning("ledger database does not answer", problem=problem)

    def shipping(self, available: bool) -> None:
        """The breaker opened or closed."""
        self._away.set(int(not available))
        if not available:
            self._log.error(
                "ledger database is away; events wait in the journal", problem=self._problem
            )

    def clock_jumped(self, seconds: float) -> None:
        """The wall clock was set forward."""
        self._log.error(
            "the clock was set forward; usage events are not deleted by it before the next look",
            seconds=round(seconds),
        )

    def lag(self, size: int, seconds: float) -> None:
        """What waits to be shipped."""
        self._lag_bytes.set(size)
        self._lag_seconds.set(seconds)
