"""What operators should know of masking and labels; a privacy.ports.PrivacyWatch and
AnalyzerWatch."""

import structlog

from trunkline_server.telemetry.metrics import Metrics
from trunkline_server.telemetry.tally import Tally


class PrivacyLog:
    """Counts and logs it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._masked: dict[str, Tally] = {}
        self._raised: dict[str, Tally] = {}
        self._away = metrics.analyzer_outage
        self._log = structlog.get_logger()
        metrics.batches.add(self._flush)

    def masked(self, label: str) -> None:
        """A call went on with placeholders."""
        tally = self._masked.get(label)
        if tally is None:
            tally = self._masked[label] = Tally(self._metrics.masked.labels(label))
        tally.total += 1

    def raised(self, label: str) -> None:
        """A call became one of this label."""
        tally = self._raised.get(label)
        if tally is None:
            tally = self._raised[label] = Tally(self._metrics.raised.labels(label))
        tally.total += 1

    def analyzer_outage(self, entered: bool, mode: str) -> None:
        """The analyzer went away or came back."""
        self._away.set(int(entered))
        if entered:
            self._log.error("analyzer of personal data is away", mode=mode)
        else:
            self._log.warning("analyzer of personal data is back")

    def analyzer_replaced(self) -> None:
        """Another analyzer, or none, is asked from now on."""
        self._away.set(0)

    def payload(self, call_id: str, label: str, what: str, text: str, cut: bool) -> None:
        """What a call asked or was answered, where that is logged."""
        self._log.info("payload", request_id=call_id, label=label, what=what, text=text, cut=cut)

    def _flush(self) -> None:
        for tally in (*self._masked.copy().values(), *self._raised.copy().values()):
            tally.flush()
