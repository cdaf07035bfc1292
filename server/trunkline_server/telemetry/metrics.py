"""Prometheus metrics. Children are bound once for each combination of labels and kept; the
request path only adds to plain numbers beside them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trunkline import v1
from trunkline_server.engine.call import Call
from trunkline_server.engine.ports import OPERATIONS
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.snapshot import Deployment
from trunkline_server.telemetry.tally import Batches, Spread, Tally

_NANOS_PER_USD = 10**9

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

# Fields of Usage, and the values of the label `unit`.
_UNITS = (
    *("output_images", "input_audio_ms", "output_audio_ms", "input_characters", "search_units"),
)

# Deployments that callers name as provider/model are unbounded in number: their metrics are
# kept together by provider. No configured deployment has a slash in its name.
PASSTHROUGH = "(passthrough)"


class Metrics:
    """Every metric, registered with one registry, and what is still to be told to them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.batches = Batches(registry)

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
        self.units = counter(
            "units", "What was consumed that is not counted in tokens.", *where, "unit"
        )
        self.cost = counter("cost_usd", "Money spent, in US dollars.", *where)
        self.unpriced = counter(
            "unpriced_attempts", "Attempts that consumed something at no known price.", *where
        )
        self.decisions = counter("decisions", "Decisions told without a call.", "operation")
        self.refused = counter(
            "calls_not_admitted", "Calls turned away at the door.", "operation", "reason"
        )
        self.defects = counter("internal_errors", "Calls ended by a defect.", "operation")
        self.key_last_used = Gauge(
            "trunkline_key_last_used_timestamp_seconds",
            "When a key was last shown, in Unix seconds.",
            ("key",),
            registry=registry,
            multiprocess_mode="max",
        )
        self.issuer_fetches = counter(
            "issuer_fetches", "Fetches of the keys of issuers of tokens.", "issuer", "result"
        )
        self.reloads = counter("config_reloads", "Configuration reloads.", "result")
        self.ledger_events = counter(
            "ledger_events", "Usage events by what became of them.", "fate"
        )

        self.budget_thresholds = counter(
            "budget_thresholds", "Soft thresholds passed.", "budget", "threshold"
        )
        self.settlements_lost = counter(
            "settlements_lost", "Corrections of limits and budgets that were dropped."
        )
        self.secret_fetches = counter(
            "secret_fetches", "Secrets fetched from their managers.", "manager", "result"
        )
        self.credential_changes = counter(
            "credential_changes", "Changes of providers' credentials.", "provider", "result"
        )
        self.secret_stale = Gauge(
            "trunkline_secret_stale_seconds",
            "For how long the secret that is longest due could not be fetched again.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.provider_quota = Gauge(
            "trunkline_provider_quota_left",
            "What a deployment's vendor last said that it still admits, less what was sent since.",
            ["deployment", "kind"],
            registry=registry,
            multiprocess_mode="livemin",
        )

        def condition(name: str, text: str) -> Gauge:
            return Gauge(f"trunkline_{name}", text, registry=registry, multiprocess_mode="livemax")

        # Those that /readyz names are in conditions.py.
        self.quota_outage = condition(
            "quota_outage", "Whether the shared counters of limits and budgets are away."
        )
        self.ledger_blocked = condition("ledger_blocked", "Whether the journal cannot be written.")
        self.ledger_away = condition(
            "ledger_away", "Whether the ledger's database takes no events."
        )
        self.masked = counter(
            "masked_calls", "Calls with placeholders in place of personal data.", "label"
        )
        self.raised = counter(
            "raised_labels", "Calls that became of a label by what was found in them.", "label"
        )
        self.analyzer_outage = Gauge(
            "trunkline_analyzer_outage",
            "Whether the analyzer of personal data is away.",
            registry=registry,
            multiprocess_mode="livemax",
        )

        self.cache_lookups = counter(
            "cache_lookups", "What was asked of the answer cache, by where it was.", "result"
        )
        self.cache_saved = counter(
            "cache_saved_usd", "What answers from the cache cost when they were made."
        )
        self.cache_stored = counter("cache_stored", "Answers that the cache kept.")
        self.cache_trouble = counter(
            "cache_trouble", "What the cache could not keep or read, by cause.", "cause"
        )

        def held(name: str, text: str) -> Gauge:
            return Gauge(
                f"trunkline_cache_{name}", text, registry=registry, multiprocess_mode="livesum"
            )

        self.cache_bytes = held("bytes", "Bytes in the memory of the answer cache.")
        self.cache_entries = held("entries", "Values in the memory of the answer cache.")

        def lag(name: str, text: str) -> Gauge:
            return Gauge(
                f"trunkline_ledger_{name}", text, registry=registry, multiprocess_mode="livesum"
            )

        self.ledger_lag_bytes = lag("lag_bytes", "Bytes of the journal not yet in the database.")
        self.ledger_lag_seconds = lag(
            "lag_seconds", "For how long the database has not been level with the journal."
        )
        self.config_revision = Gauge(
            "trunkline_config_revision",
            "The store's revision that is in force; the oldest of all workers.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.store_away = condition("store_away", "Whether the store of resources is away.")
        self.admin_refused = counter(
            "admin_calls_refused", "Calls to the control plane that failed.", "method", "reason"
        )
        self.audit_entries = counter(
            "audit_entries", "Entries of the audit trail by what became of them.", "fate"
        )
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
    """What is counted of one deployment."""

    __slots__ = (
        "_circuit",
        "_metrics",
        "_spreads",
        "_tallies",
        "_told",
        "_where",
        "cached_tokens",
        "circuit",
        "cost",
        "ended",
        "first_token",
        "input_tokens",
        "output_tokens",
        "results",
        "seconds",
        "units",
        "unpriced",
    )

    def __init__(self, metrics: Metrics, provider: str, deployment: str) -> None:
        where = (provider, deployment)
        self._metrics = metrics
        self._where = where
        self._told = 0
        # All attempts. Counted after everything else of an attempt, and read before it.
        self.ended = 0
        self.circuit = 0
        self.seconds = Spread(metrics.attempt_seconds.labels(*where), _BUCKETS)
        self.first_token = Spread(metrics.first_token_seconds.labels(*where), _BUCKETS)
        self.input_tokens = Tally(metrics.tokens.labels(*where, "input"))
        self.output_tokens = Tally(metrics.tokens.labels(*where, "output"))
        self.cached_tokens = Tally(metrics.tokens.labels(*where, "cached_input"))
        self.cost = Tally(metrics.cost.labels(*where), _NANOS_PER_USD)
        self.unpriced = Tally(metrics.unpriced.labels(*where))
        self.results: dict[tuple[int, int], Tally] = {}
        # By field of Usage; few deployments consume any.
        self.units: dict[str, Tally] = {}
        self._circuit = metrics.circuit_state.labels(*where)
        self._spreads = (self.seconds, self.first_token)
        self._tallies = (
            self.input_tokens,
            self.output_tokens,
            self.cached_tokens,
            self.cost,
            self.unpriced,
        )

    def result(self, outcome: int, reason: int) -> Tally:
        """The first count of attempts that ended so."""
        words = (_OUTCOMES[outcome], REASONS[reason] if reason else "")
        tally = Tally(self._metrics.attempts.labels(*self._where, *words))
        self.results[outcome, reason] = tally
        return tally

    def consumed(self, usage: v1.Usage) -> None:
        """Counts what is not counted in tokens."""
        for name in _UNITS:
            count = getattr(usage, name)
            if count:
                tally = self.units.get(name)
                if tally is None:
                    tally = Tally(self._metrics.units.labels(*self._where, name))
                    self.units[name] = tally
                tally.total += count

    def flush(self) -> None:
        """Tells Prometheus what is new."""
        ended = self.ended
        if ended == self._told:
            return
        self._told = ended
        rare = (*self.results.copy().values(), *self.units.copy().values())
        for tally in (*self._tallies, *rare):
            tally.flush()
        for spread in self._spreads:
            spread.flush()
        self._circuit.set(self.circuit)


class CallMetrics:
    """Counts calls and attempts; an engine.ports.Observer."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._in_flight = 0
        self._places: dict[tuple[str, str], _Place] = {}
        self._calls: dict[tuple[str, str, int], Tally] = {}
        self._seconds = {
            operation: Spread(metrics.call_seconds.labels(operation), _BUCKETS)
            for operation in OPERATIONS
        }
        metrics.batches.add(self._flush)

    def call_started(self, call: Call) -> None:
        """Counts the call as under way."""
        self._in_flight += 1

    def attempt_ended(
        self, call: Call, target: Deployment, attempt: v1.Attempt, error: TrunklineError | None
    ) -> None:
        """Counts the attempt, what it consumed and what that cost."""
        place = self._places.get((target.provider, target.name)) or self._place(target)
        outcome, seconds = attempt.outcome, attempt.duration_us / 1e6
        key = (outcome, attempt.reason)
        tally = place.results.get(key) or place.result(*key)
        tally.total += 1
        place.seconds.observe(seconds)
        if attempt.HasField("usage"):
            usage, cost = attempt.usage, attempt.cost
            place.input_tokens.total += usage.input_tokens
            place.output_tokens.total += usage.output_tokens
            place.cached_tokens.total += usage.cached_input_tokens
            if call.units is not None or usage.search_units:
                place.consumed(usage)
            if cost.unpriced:
                place.unpriced.total += 1
            place.cost.total += cost.total
        if call.course is not None:
            place.circuit = call.course.table.health.state(target.slot, call.started + seconds)
        if call.first_token is not None and outcome == v1.ATTEMPT_OUTCOME_SUCCEEDED:
            place.first_token.observe(call.first_token - call.started)
        place.ended += 1

    def call_ended(self, call: Call, error: TrunklineError | None) -> None:
        """Counts the call by its result."""
        self._in_flight -= 1
        reason = v1.ERROR_REASON_UNSPECIFIED if error is None else error.reason
        key = (call.operation, call.caller.group, reason)
        tally = self._calls.get(key)
        if tally is None:
            word = "ok" if error is None else REASONS[reason]
            tally = self._calls[key] = Tally(self._metrics.calls.labels(*key[:2], word))
        tally.total += 1
        self._seconds[call.operation].observe(call.ended - call.started)

    def _place(self, target: Deployment) -> _Place:
        name = PASSTHROUGH if "/" in target.name else target.name
        place = self._places.get((target.provider, name))
        if place is None:
            place = _Place(self._metrics, target.provider, name)
            self._places[target.provider, name] = place
        return place

    def _flush(self) -> None:
        # Copies, because the loop may add to them meanwhile.
        self._metrics.in_flight.set(self._in_flight)
        for place in self._places.copy().values():
            place.flush()
        for tally in self._calls.copy().values():
            tally.flush()
        for spread in self._seconds.values():
            spread.flush()
