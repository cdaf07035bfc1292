"""What operators should know of limits and budgets; a governance.quotas.ports.Audience."""

import structlog

from trunkline_server.telemetry.metrics import Metrics
from trunkline_server.telemetry.sparsely import Sparsely


class QuotaLog:
    """Counts and logs it."""

    def __init__(self, metrics: Metrics) -> None:
        # Who has the shared counters, and what ails it.
        self._server = ""
        self._outage = False
        self._thresholds = metrics.budget_thresholds
        self._away = metrics.quota_outage
        self._lost = metrics.settlements_lost
        self._sparsely = Sparsely()
        self._log = structlog.get_logger()

    def budget_threshold(
        self, budget: str, subject: str, fraction: float, spent: int, amount: int
    ) -> None:
        """A soft threshold was passed."""
        self._thresholds.labels(budget, f"{fraction:g}").inc()
        self._log.warning(
            "budget threshold passed",
            budget=budget,
            subject=subject,
            threshold=fraction,
            spent_usd=spent / 1e9,
            amount_usd=amount / 1e9,
        )

    def server_told(self, available: bool, what: str) -> None:
        """Redis went down or came up, or something else ails it now."""
        if self._outage and not available and what != self._server:
            self._log.warning("shared counters are away for another reason now", problem=what)
        self._server = what

    def outage(self, entered: bool, mode: str) -> None:
        """The shared counters went away or came back."""
        self._outage = entered
        self._away.set(int(entered))
        if entered:
            self._log.error("shared counters are away", mode=mode, problem=self._server)
        else:
            self._log.warning("shared counters are back", mode="shared", server=self._server)

    def settlements_lost(self, count: int) -> None:
        """Corrections were dropped."""
        self._lost.inc(count)
        since = self._sparsely.due(count)
        if since:
            self._log.error("settlements lost; the ledger has the truth", count=since)
