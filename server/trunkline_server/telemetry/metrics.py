"""Prometheus metrics. Children are bound once for each combination of labels and kept; the
request path only looks them up."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trunkline import v1
from trunkline_server.engine.call import Call
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.snapshot import Deployment

# Seconds: from the router's own refusals to the longest reasoning answers.
_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)

REASONS = {
    int(number): name.removeprefix("ERROR_REASON_").lower()
    for name, number in v1.ErrorReason.items()
}
_OUTCOMES = {
    int(number): name.removeprefix("ATTEMPT_OUTCOME_").lower()
    for name, number in v1.AttemptOutcome.items()
}

# Deployments that callers name as provider/model are unbounded in number: their metrics are
# kept together by provider. No configured deployment has a slash in its name.
PASSTHROUGH = "(passthrough)"


class Metrics:
    """Every metric, registered with one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"trunkline_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"trunkline_{name}", text, labels, buckets=_BUCKETS, registry=registry)

        where = ("provider", "deployment")
        self.calls = counter("calls", "Calls by result.", "operation", "caller", "reason")
        self.call_seconds = histogram(
            "call_duration_seconds", "From a call's arrival to its end.", "operation"
        )
        self.first_token_seconds = histogram(
            "first_token_seconds", "From a streamed call's arrival to its first delta.", *where
        )
        self.attempts = counter(
            "attempts", "Upstream calls by outcome.", *where, "outcome", "reason"
        )
        self.attempt_seconds = histogram(
            "attempt_duration_seconds", "Duration of upstream calls.", *where
        )
        self.tokens = counter("tokens", "Tokens consumed.", *where, "kind")
        self.cost = counter("cost_usd", "Money spent, in US dollars.", *where)
        self.unpriced = counter(
            "unpriced_attempts", "Attempts that consumed tokens at no known price.", *where
        )
        self.decisions = counter("decisions", "Decisions told without a call.", "operation")
        self.refused = counter(
            "calls_not_admitted", "Calls turned away at the door.", "operation", "reason"
        )
        self.defects = counter("internal_errors", "Calls ended by a defect.", "operation")
        self.reloads = counter("config_reloads", "Configuration reloads.", "result")
        self.in_flight = Gauge(
            "trunkline_calls_in_flight",
            "Calls under way.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.circuit_state = Gauge(
            "trunkline_circuit_state",
            "Circuit breaker after its last attempt: 1 closed, 2 open, 3 half-open.",
            where,
            registry=registry,
            multiprocess_mode="livemax",
        )


class _Place:
    """The bound children of one deployment."""

    def __init__(self, metrics: Metrics, provider: str, deployment: str) -> None:
        where = (provider, deployment)
        self._metrics = metrics
        self._where = where
        self.seconds = metrics.attempt_seconds.labels(*where)
        self.first_token = metrics.first_token_seconds.labels(*where)
        self.input_tokens = metrics.tokens.labels(*where, "input")
        self.output_tokens = metrics.tokens.labels(*where, "output")
        self.cached_tokens = metrics.tokens.labels(*where, "cached_input")
        self.cost = metrics.cost.labels(*where)
        self.unpriced = metrics.unpriced.labels(*where)
        self.circuit = metrics.circuit_state.labels(*where)
        self._results: dict[tuple[int, int], Counter] = {}

    def result(self, outcome: int, reason: int) -> Counter:
        """The counter of attempts that ended so."""
        child = self._results.get((outcome, reason))
        if child is None:
            words = (_OUTCOMES[outcome], REASONS[reason] if reason else "")
            child = self._metrics.attempts.labels(*self._where, *words)
            self._results[outcome, reason] = child
        return child


class CallMetrics:
    """Counts calls and attempts; an engine.ports.Observer."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._places: dict[tuple[str, str], _Place] = {}
        self._calls: dict[tuple[str, str, int], Counter] = {}
        self._seconds = {
            operation: metrics.call_seconds.labels(operation)
            for operation in ("generate", "stream_generate", "embed")
        }

    def call_started(self, call: Call) -> None:
        """Counts the call as under way."""
        self._metrics.in_flight.inc()

    def attempt_ended(
        self, call: Call, target: Deployment, attempt: v1.Attempt, error: TrunklineError | None
    ) -> None:
        """Counts the attempt, what it consumed and what that cost."""
        place = self._place(target)
        place.result(attempt.outcome, attempt.reason).inc()
        place.seconds.observe(attempt.duration_us / 1e6)
        if attempt.HasField("usage"):
            usage = attempt.usage
            place.input_tokens.inc(usage.input_tokens)
            place.output_tokens.inc(usage.output_tokens)
            if usage.cached_input_tokens:
                place.cached_tokens.inc(usage.cached_input_tokens)
            if attempt.cost.unpriced:
                place.unpriced.inc()
            else:
                place.cost.inc(attempt.cost.total / 1e9)
        if call.course is not None:
            now = call.started + attempt.duration_us / 1e6
            place.circuit.set(call.course.table.health.state(target.slot, now))
        if attempt.outcome == v1.ATTEMPT_OUTCOME_SUCCEEDED and call.first_token is not None:
            place.first_token.observe(call.first_token - call.started)

    def call_ended(self, call: Call, error: TrunklineError | None) -> None:
        """Counts the call by its result."""
        self._metrics.in_flight.dec()
        reason = v1.ERROR_REASON_UNSPECIFIED if error is None else error.reason
        key = (call.operation, call.caller.name, reason)
        child = self._calls.get(key)
        if child is None:
            word = "ok" if error is None else REASONS[reason]
            child = self._calls[key] = self._metrics.calls.labels(*key[:2], word)
        child.inc()
        self._seconds[call.operation].observe(call.ended - call.started)

    def _place(self, target: Deployment) -> _Place:
        name = PASSTHROUGH if "/" in target.name else target.name
        place = self._places.get((target.provider, name))
        if place is None:
            place = _Place(self._metrics, target.provider, name)
            self._places[target.provider, name] = place
        return place
