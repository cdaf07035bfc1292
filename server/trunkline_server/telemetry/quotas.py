"""What operators should know of limits and budgets; a governance.ports.Audience."""

import structlog

from trunkline_server.telemetry.metrics import Metrics


class QuotaLog:
    """Counts and logs it."""

    def __init__(self, metrics: Metrics) -> None:
        self._thresholds = metrics.budget_thresholds
        self._away = metrics.quota_outage
        self._lost = metrics.settlements_lost
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

    def outage(self, entered: bool, mode: str) -> None:
        """The shared counters went away or came back."""
        self._away.set(int(entered))
        if entered:
            self._log.error("shared counters are away", mode=mode)
        else:
            self._log.warning("shared counters are back", mode="shared")

    def settlements_lost(self, count: int) -> None:
        """Corrections were dropped."""
        self._lost.inc(count)
        self._log.error("settlements lost; the ledger has the truth", count=count)
