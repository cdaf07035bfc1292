"""What operators should know of credentials; a secrets.ports.SecretWatch.

References and providers are named, versions too; no method is ever handed a value.
"""

from collections.abc import Mapping

import structlog

from trunkline_server.telemetry.metrics import Metrics

# Acts of the audit trail that change what calls are made with, as the metric calls them.
_CHANGES = {
    "credential.load": "loaded",
    "credential.rotate": "rotated",
    "credential.adopt": "adopted",
}


class SecretLog:
    """Counts and logs it."""

    def __init__(self, metrics: Metrics) -> None:
        self._fetches = metrics.secret_fetches
        self._changes = metrics.credential_changes
        self._stale = metrics.secret_stale
        self._staleness: dict[str, float] = {}
        self._log = structlog.get_logger()

    def fetched(self, reference: str, version: str, seconds: float) -> None:
        """As SecretWatch.fetched."""
        self._fetches.labels(_manager(reference), "ok").inc()
        if self._staleness.pop(reference, None) is not None:
            self._tell_staleness()
            self._log.warning("secret fetched again", secret=reference, version=version)

    def fetch_failed(self, reference: str, problem: str, stale_for: float) -> None:
        """As SecretWatch.fetch_failed."""
        self._fetches.labels(_manager(reference), "failed").inc()
        first = reference not in self._staleness
        self._staleness[reference] = stale_for
        self._tell_staleness()
        tell = self._log.error if first else self._log.debug
        tell("secret not fetched", secret=reference, problem=problem, stale_seconds=stale_for)

    def changed(self, action: str, provider: str, detail: Mapping[str, str]) -> None:
        """Something was done with a provider's credential."""
        if action in _CHANGES:
            self._changes.labels(provider, _CHANGES[action]).inc()
            self._log.info("credential changed", provider=provider, how=_CHANGES[action], **detail)

    def not_changed(self, provider: str, problem: str, retry: float) -> None:
        """A new credential was not taken into use; it is tried again in so many seconds."""
        self._changes.labels(provider, "failed").inc()
        self._log.error(
            "credential not changed", provider=provider, problem=problem, retry_seconds=retry
        )

    def missing(self, provider: str, reference: str) -> None:
        """A provider is out of use for want of a secret."""
        self._log.error("provider without its credential", provider=provider, secret=reference)

    def unreadable(self, name: str, problem: str) -> None:
        """A stored credential could not be read."""
        self._log.error("stored credential not read", credential=name, problem=problem)

    def unreachable(self, away: bool, problem: str) -> None:
        """The database of stored credentials went away or came back."""
        if away:
            self._log.error("stored credentials are away; those in use stay", problem=problem)
        else:
            self._log.warning("stored credentials are back")

    def _tell_staleness(self) -> None:
        self._stale.set(max(self._staleness.values(), default=0.0))


def _manager(reference: str) -> str:
    return reference.partition(":")[0]
