"""Privacy of one worker, from its settings: labels, detection, the analyzer, payload logging."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from trunkline_server.clock import Clock
from trunkline_server.privacy.detect import Detector
from trunkline_server.privacy.examiner import Examiner, ExaminerOptions
from trunkline_server.privacy.labels import Classification, LabelPolicy
from trunkline_server.privacy.payload import PayloadRules
from trunkline_server.privacy.ports import Post
from trunkline_server.privacy.presidio import Presidio, PresidioSettings
from trunkline_server.privacy.redact import redact
from trunkline_server.privacy.rules import RULES
from trunkline_server.settings import AnalyzerSettings, LabelSettings, PrivacySettings, Settings
from trunkline_server.telemetry.metrics import Metrics
from trunkline_server.telemetry.privacy import PrivacyLog
from trunkline_server.upstream.http import HttpClient, HttpRequest

# An analyzer's answer lists what it found; this is some ten thousand finds. Bytes.
_MOST_ANSWER = 4 * 2**20

# Users, agents and labels come again and again. Texts.
_MOST_NAMES = 8_192

_JSON = (("content-type", "application/json"),)


class PrivacyOffice:
    """Makes the Examiner of each configuration; what outlives one is kept here."""

    def __init__(self, http: HttpClient, clock: Clock, metrics: Metrics) -> None:
        self._post = poster(http)
        self._clock = clock
        self._log = PrivacyLog(metrics)
        # One at a time: they share the interpreter with the event loop.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="privacy")
        self._presidio: Presidio | None = None
        # What the analyzer was made of.
        self._asked: tuple[object, ...] = ()

    def in_force(self, settings: Settings) -> Examiner | None:
        """What treats calls by a configuration; None if it wants nothing of the kind."""
        privacy = settings.privacy
        if privacy is None:
            self._analyzer(None, None)
            return None
        detector = Detector(rule for rule in RULES if rule.kind in privacy.detect)
        payloads = None
        if privacy.payloads.log:
            # Whatever is looked for in calls, text is stored without any personal data.
            payloads = PayloadRules(privacy.payloads.max_chars, Detector().spans)
        return Examiner(
            Classification([_policy(label) for label in privacy.labels], privacy.default_label),
            ExaminerOptions(detector.spans, self._analyzer(privacy, detector), payloads),
            self._log,
            self._threads,
        )

    @staticmethod
    def redactor() -> Callable[[str], str]:
        """Takes personal data out of names that come again and again, such as the ledger's."""
        return lru_cache(_MOST_NAMES)(redact)

    def close(self) -> None:
        """Lets go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _analyzer(
        self, privacy: PrivacySettings | None, detector: Detector | None
    ) -> Presidio | None:
        """The analyzer, the same as before if nothing about it has changed: it knows whether it
        is well."""
        wanted = None if privacy is None else privacy.presidio
        asked = (wanted, privacy.detect if privacy is not None else ())
        if asked != self._asked:
            self._asked = asked
            self._log.analyzer_replaced()
            self._presidio = None
            if wanted is not None and detector is not None:
                self._presidio = Presidio(
                    _presidio_settings(wanted), self._post, self._clock, self._log, detector.spans
                )
        return self._presidio


def poster(http: HttpClient) -> Post:
    """Posts JSON by the router's own client."""

    async def post(url: str, body: bytes, limit: float) -> tuple[int, bytes]:
        request = HttpRequest("POST", url, _JSON, body, limit, limit, _MOST_ANSWER)
        reply = await http.fetch(request)
        return reply.status, reply.body

    return post


def _policy(label: LabelSettings) -> LabelPolicy:
    return LabelPolicy(
        label=label.name,
        mask=label.mask,
        residency=frozenset(label.residency),
        allowed_providers=frozenset(label.allowed_providers),
        denied_providers=frozenset(label.denied_providers),
        may_cache=label.may_cache,
        may_store_text=label.may_store_text,
        raised_by=frozenset(label.raised_by),
    )


def _presidio_settings(analyzer: AnalyzerSettings) -> PresidioSettings:
    return PresidioSettings(
        url=analyzer.url,
        timeout=analyzer.timeout,
        on_outage="deny" if analyzer.on_outage == "deny" else "inline",
        language=analyzer.language,
        least_score=analyzer.least_score,
        entities=analyzer.entities,
        rest=analyzer.rest,
    )
