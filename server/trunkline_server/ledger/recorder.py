"""From the engine's calls and attempts to usage events.

Of an event, what a worker, a caller or a deployment always says is serialised once and kept:
protobuf defines the concatenation of serialised messages as their merger, so an event is its
kept parts followed by what is the call's own.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.clock import Clock
from trunkline_server.engine.call import Call, Pace, total_usage
from trunkline_server.engine.ports import OPERATIONS, STREAMED, Caller, NullObserver
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.snapshot import Deployment

T = TypeVar("T")

SCHEMA_VERSION = 1

# The kept parts of so many callers and deployments; a part is some hundred bytes.
_KEPT = 4096

_OUTCOMES = {
    v1.ATTEMPT_OUTCOME_UNSPECIFIED: admin.USAGE_OUTCOME_UNSPECIFIED,
    v1.ATTEMPT_OUTCOME_SUCCEEDED: admin.USAGE_OUTCOME_SUCCEEDED,
    v1.ATTEMPT_OUTCOME_FAILED: admin.USAGE_OUTCOME_FAILED,
    v1.ATTEMPT_OUTCOME_CANCELLED: admin.USAGE_OUTCOME_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Who writes the events: as UsageEvent's fields of these names."""

    replica: str = ""
    worker: str = ""
    router_version: str = ""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who pays for a caller's calls: as UsageEvent's fields of these names."""

    tenant: str = ""
    project: str = ""
    tier: str = ""
    service: str = ""


@dataclass(slots=True)
class CallFacts:
    """What others than the engine know of a call: as UsageEvent's fields of these names."""

    reservation_id: str = ""
    cache_status: v1.CacheStatus.ValueType = v1.CACHE_STATUS_UNSPECIFIED
    cache_hit_kind: v1.CacheHitKind.ValueType = v1.CACHE_HIT_KIND_UNSPECIFIED
    saved_cost_nanos: int = 0


NO_FACTS = CallFacts()


class _Book:
    """What is kept of a call between its first attempt's end and its own."""

    __slots__ = ("common", "decide_us", "id", "last", "offset")

    def __init__(self, call_id: str, offset: float) -> None:
        self.id = call_id
        # From monotonic seconds to seconds since the Unix epoch.
        self.offset = offset
        # What the event of the attempt that ended last has in common with its call's.
        self.common = b""
        self.decide_us = 0
        self.last: Deployment | None = None


class _Parts(Generic[T]):
    """Serialised parts by the identity of what they describe, which the memo keeps alive."""

    def __init__(self, make: Callable[[T], admin.UsageEvent]) -> None:
        self._make = make
        self._parts: dict[int, tuple[T, bytes]] = {}

    def of(self, subject: T) -> bytes:
        """The part of a subject."""
        kept = self._parts.get(id(subject))
        if kept is not None and kept[0] is subject:
            return kept[1]
        if len(self._parts) >= _KEPT:
            self._parts.clear()
        part = self._make(subject).SerializeToString()
        self._parts[id(subject)] = (subject, part)
        return part


class Recorder(NullObserver):
    """Writes an event for each attempt and each call; an engine.ports.Observer.

    `write` takes each serialised event. `owner_of` says who pays for a caller, and is asked
    once for each caller; `facts_of` is asked once for each call, at its end.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        clock: Clock,
        origin: Origin,
        *,
        owner_of: Callable[[Caller], Owner] = lambda _: Owner(),
        facts_of: Callable[[Call], CallFacts] = lambda _: NO_FACTS,
    ) -> None:
        self._redact: Callable[[str], str] | None = None
        self._write = write
        self._clock = clock
        self._facts_of = facts_of
        self._owner_of = owner_of
        self._books: dict[Call, _Book] = {}
        self._callers: _Parts[Caller] = _Parts(self._caller_part)
        self._places: _Parts[Deployment] = _Parts(self._deployment_part)
        self._own = {
            (operation, kind): _own_part(origin, operation, kind)
            for operation in OPERATIONS
            for kind in (admin.USAGE_EVENT_KIND_CALL, admin.USAGE_EVENT_KIND_ATTEMPT)
        }
        # 128 bits: when this recorder began, 40 random ones, and a number. Ids made together
        # are near each other in an index.
        self._id_prefix = f"{round(clock.wall() * 1000):012x}{secrets.randbits(40):010x}"
        self._numbers = count()

    def redact_with(self, redact: Callable[[str], str] | None) -> None:
        """Has personal data taken out of what callers name, from now on; None leaves it."""
        self._redact = redact
        self._places = _Parts(self._deployment_part)

    def attempt_ended(
        self, call: Call, target: Deployment, attempt: v1.Attempt, error: TrunklineError | None
    ) -> None:
        """Writes the attempt's event."""
        book = self._books.get(call) or self._open(call)
        book.last = target
        attempts = call.attempts
        number = 1 if len(attempts) == 1 else _place(attempts, attempt)
        duration_us = attempt.duration_us
        ended = self._clock.monotonic()
        started = ended - duration_us / 1e6
        if number == 1:
            book.decide_us = max(round((started - call.started - call.queued) * 1e6), 0)
        common = _common(call, book.id, self._redact)
        common.upstream_us = duration_us
        if attempt.http_status:
            common.http_status = attempt.http_status
        if attempt.HasField("usage"):
            common.usage.CopyFrom(attempt.usage)
            common.cost.CopyFrom(attempt.cost)
        book.common = common_part = common.SerializeToString()
        event = admin.UsageEvent()
        event.event_id = f"{book.id}-{number}"
        event.attempt_number = number
        event.end_time_unix_us = end_us = round((ended + book.offset) * 1e6)
        event.start_time_unix_us = end_us - duration_us
        event.duration_us = duration_us
        outcome = attempt.outcome
        event.outcome = _OUTCOMES[outcome]
        if outcome != v1.ATTEMPT_OUTCOME_SUCCEEDED:
            event.error_reason = attempt.reason
            event.provider_request_id = attempt.provider_request_id
        if call.first_token is not None:
            # Whoever ends after the first delta is who sent it.
            event.first_token_us = max(round((call.first_token - started) * 1e6), 0)
            if call.pace is not None:
                _add_pace(event, call.pace)
        if attempt.hedged:
            event.hedged = True
        own = self._own[call.operation, admin.USAGE_EVENT_KIND_ATTEMPT]
        caller, place = self._callers.of(call.caller), self._places.of(target)
        self._write(b"".join((own, caller, place, common_part, event.SerializeToString())))

    def call_ended(self, call: Call, error: TrunklineError | None) -> None:
        """Writes the call's event."""
        book = self._books.get(call) or self._open(call)
        del self._books[call]
        facts = self._facts_of(call)
        event = admin.UsageEvent()
        event.event_id = book.id
        event.start_time_unix_us = start_us = round((call.started + book.offset) * 1e6)
        event.duration_us = duration_us = round((call.ended - call.started) * 1e6)
        event.end_time_unix_us = start_us + duration_us
        if error is None:
            event.outcome = admin.USAGE_OUTCOME_SUCCEEDED
            event.answered_model = call.model
            event.finish_reason = call.finish_reason
        else:
            cancelled = error.reason == v1.ERROR_REASON_CANCELLED
            event.outcome = (
                admin.USAGE_OUTCOME_CANCELLED if cancelled else admin.USAGE_OUTCOME_FAILED
            )
            event.error_reason = error.reason
        if call.decision is not None:
            event.expected_cost_nanos = call.decision.estimated_cost.total
        if call.queued:
            event.queue_us = round(call.queued * 1e6)
        if facts is not NO_FACTS:
            _add_facts(event, facts)
        common, place = book.common, b""
        count = len(call.attempts)
        if count:
            event.attempt_count = count
            event.decide_us = book.decide_us
            if call.first_token is not None:
                event.first_token_us = round((call.first_token - call.started) * 1e6)
                if call.pace is not None:
                    _add_pace(event, call.pace)
            target = _answered(call) or book.last
            place = b"" if target is None else self._places.of(target)
        if count != 1:
            together = _common(call, book.id, self._redact)
            if count:
                _add_up(together, call)
            common = together.SerializeToString()
        own = self._own[call.operation, admin.USAGE_EVENT_KIND_CALL]
        caller = self._callers.of(call.caller)
        self._write(b"".join((own, caller, place, common, event.SerializeToString())))

    def _open(self, call: Call) -> _Book:
        call_id = f"{self._id_prefix}{next(self._numbers):010x}"
        book = _Book(call_id, self._clock.wall() - self._clock.monotonic())
        self._books[call] = book
        return book

    def _caller_part(self, caller: Caller) -> admin.UsageEvent:
        owner = self._owner_of(caller)
        return admin.UsageEvent(
            key_name=caller.account,
            tenant=owner.tenant,
            project=owner.project,
            tier=owner.tier,
            service=owner.service,
        )

    def _deployment_part(self, target: Deployment) -> admin.UsageEvent:
        event = admin.UsageEvent(
            model=target.model,
            provider=target.provider,
            deployment=target.name,
            provider_model=target.provider_model,
            region=target.region,
        )
        # Of a model that is passed through, all but the provider are the caller's words.
        if self._redact is not None and "/" in target.name:
            _redact(event, self._redact)
        return event


def _own_part(origin: Origin, operation: str, kind: admin.UsageEventKind.ValueType) -> bytes:
    return admin.UsageEvent(
        kind=kind,
        operation=operation,
        streamed=operation in STREAMED,
        replica=origin.replica,
        worker=origin.worker,
        router_version=origin.router_version,
        schema_version=SCHEMA_VERSION,
    ).SerializeToString()


# What callers put into an event by themselves, beside the labels.
_NAMED = (
    *("request_id", "requested_model", "user_id", "agent_id", "workflow_id"),
    *("model", "deployment", "provider_model"),
)


def _common(call: Call, call_id: str, redact: Callable[[str], str] | None) -> admin.UsageEvent:
    """What a call's event and those of its attempts have in common."""
    request = call.request
    event = admin.UsageEvent()
    event.call_id = call_id
    event.request_id = call.id
    event.trace_id = call.traceparent[3:35]
    event.requested_model = request.model
    if request.HasField("context"):
        context = request.context
        event.user_id = call.user_id
        event.agent_id = context.agent_id
        event.workflow_id = context.workflow_id
        event.labels.update(context.labels)
    if call.course is not None:
        plan = call.course.plan
        event.route = plan.route.name
        event.strategy = plan.strategy
        event.candidate_count = plan.candidate_count
        event.snapshot_version = call.course.table.snapshot.version
    if redact is not None:
        _redact(event, redact)
    return event


def _redact(event: admin.UsageEvent, redact: Callable[[str], str]) -> None:
    """Takes personal data out of what the caller named."""
    for name in _NAMED:
        old = getattr(event, name)
        if old and (new := redact(old)) != old:
            setattr(event, name, new)
    labels = dict(event.labels)
    cleaned = {redact(key): redact(value) for key, value in labels.items()}
    if cleaned != labels:
        event.labels.clear()
        event.labels.update(cleaned)


def _place(attempts: Sequence[v1.Attempt], attempt: v1.Attempt) -> int:
    """The place of an attempt among its call's, from 1; two may be equal, so by identity."""
    return next(place for place, each in enumerate(attempts, 1) if each is attempt)


def _answered(call: Call) -> Deployment | None:
    """The deployment that answered, or None."""
    if call.course is None or call.decision is None:
        return None
    name = call.decision.deployment
    for target in call.course.plan.targets:
        if target.name == name:
            return target
    return None


def _add_up(event: admin.UsageEvent, call: Call) -> None:
    """What several attempts come to together."""
    attempts = call.attempts
    event.http_status = attempts[-1].http_status
    event.upstream_us = round(call.upstream_seconds * 1e6)
    usage = total_usage(attempts)
    if usage is not None:
        event.usage.CopyFrom(usage)
        if call.cost is not None:
            event.cost.CopyFrom(call.cost)
    before = attempts[0].deployment
    for attempt in attempts[1:]:
        if attempt.hedged:
            event.hedge_count += 1
            event.hedged = True
        elif attempt.deployment == before:
            event.retry_count += 1
        else:
            event.fallback_count += 1
        before = attempt.deployment


def _add_pace(event: admin.UsageEvent, pace: Pace) -> None:
    event.chunk_count = pace.chunks
    event.inter_chunk_mean_us = round(pace.mean * 1e6)
    event.inter_chunk_max_us = round(pace.longest * 1e6)


def _add_facts(event: admin.UsageEvent, facts: CallFacts) -> None:
    event.reservation_id = facts.reservation_id
    event.cache_status = facts.cache_status
    event.cache_hit_kind = facts.cache_hit_kind
    event.saved_cost_nanos = facts.saved_cost_nanos
