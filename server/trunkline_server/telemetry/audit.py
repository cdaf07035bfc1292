"""How writing the audit trail goes; a governance.audit.ports.AuditWatch."""

import structlog

from trunkline_server.telemetry.metrics import Metrics


class AuditLog:
    """Counts entries, and logs what an operator must know of them."""

    def __init__(self, metrics: Metrics) -> None:
        self._written = metrics.audit_entries.labels("written")
        self._lost = metrics.audit_entries.labels("lost")
        self._delayed = False
        self._losing = False
        self._log = structlog.get_logger()

    def audit_delayed(self, waiting: int, problem: str) -> None:
        """Entries wait; told once until they are written."""
        if not self._delayed:
            self._delayed = True
            self._log.error("audit trail cannot be written", waiting=waiting, problem=problem)

    def audit_written(self, count: int) -> None:
        """Entries were written."""
        self._written.inc(count)
        self._losing = False
        if self._delayed:
            self._delayed = False
            self._log.warning("audit trail is written again", entries=count)

    def audit_lost(self, count: int) -> None:
        """Entries were dropped; told once until some are written."""
        self._lost.inc(count)
        if not self._losing:
            self._losing = True
            self._log.error("audit entries lost", entries=count)

    def checkpoint(self, entries: int, digest: str) -> None:
        """The end of the chain, for whoever keeps the log elsewhere."""
        self._log.info("audit checkpoint", entries=entries, hash=digest)

    def stopped(self, error: BaseException) -> None:
        """A defect ended the writing."""
        self._log.error("audit trail has stopped", exc_info=error)
