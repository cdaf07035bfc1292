"""How fetching the keys of issuers goes; a governance.identity.issuers.IssuerWatch."""

import structlog

from trunkline_server.telemetry.metrics import Metrics


class IssuerLog:
    """Counts fetches, and logs those that fail and the first one that then works."""

    def __init__(self, metrics: Metrics) -> None:
        self._fetches = metrics.issuer_fetches
        self._failing: set[str] = set()
        self._log = structlog.get_logger()

    def issuer_fetched(self, issuer: str, keys: int) -> None:
        """An issuer's keys are fresh."""
        self._fetches.labels(issuer, "ok").inc()
        if issuer in self._failing:
            self._failing.discard(issuer)
            self._log.warning("issuer's keys are fetched again", issuer=issuer, keys=keys)

    def issuer_failed(self, issuer: str, problem: str, age: float | None) -> None:
        """A fetch failed."""
        self._fetches.labels(issuer, "failed").inc()
        self._failing.add(issuer)
        self._log.error(
            "issuer's keys cannot be fetched",
            issuer=issuer,
            problem=problem,
            keys_are_seconds_old=None if age is None else round(age),
        )
