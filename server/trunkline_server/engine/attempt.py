"""One upstream call and its books; what unary and streamed calls share."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.engine.budget import RetryBudget
from trunkline_server.engine.call import Call
from trunkline_server.engine.errands import Errands
from trunkline_server.engine.needs import estimate_usage
from trunkline_server.engine.ports import (
    Admission,
    AnswerCache,
    Books,
    Credential,
    Headers,
    Observer,
    Ticket,
)
from trunkline_server.engine.requests import Cacheable
from trunkline_server.engine.table import Endpoint, Gateway, Table
from trunkline_server.engine.verdict import Blame, verdict_on
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.providers.codec import WireRequest
from trunkline_server.providers.quotas import told_quotas
from trunkline_server.routing.pricing import cost_of
from trunkline_server.routing.snapshot import Deployment
from trunkline_server.upstream.http import HttpClient, HttpRequest, tell_limits

# Where a deployment's latency is not known yet, a caller's deadline shorter than this says
# nothing against it.
PRESUMED_LATENCY = 1.0

# A vendor's word that it does not take a request's credential.
CREDENTIAL_REFUSED = frozenset({v1.ERROR_REASON_AUTHENTICATION, v1.ERROR_REASON_AUTHORIZATION})


@dataclass(frozen=True, slots=True)
class Services:
    """What every call of an engine shares."""

    http: HttpClient
    clock: Clock
    observer: Observer
    budget: RetryBudget
    rng: random.Random
    # None: nobody keeps books.
    books: Books | None = None
    # None: nothing is limited.
    admission: Admission | None = None
    # None: no answers are kept.
    cache: AnswerCache | None = None
    # What calls leave behind to be done.
    errands: Errands = field(default_factory=Errands)


class Attempt:
    """The books of one upstream call: health, duration, outcome, usage, cost.

    Exactly one of `succeed`, `fail` and `cancel` ends it.
    """

    __slots__ = (
        "_call",
        "_credential",
        "_health",
        "_services",
        "_table",
        "first_token",
        "headers",
        "learns",
        "record",
        "started",
        "target",
        "ticket",
    )

    def __init__(
        self,
        services: Services,
        table: Table,
        call: Call,
        target: Deployment,
        credential: Credential,
        *,
        hedged: bool,
        ticket: Ticket | None = None,
    ) -> None:
        self._services = services
        self._table = table
        self._health = table.health
        self._call = call
        self.target = target
        self._credential = credential
        # Those that the request goes out under.
        self.headers = credential.headers
        self.ticket = ticket
        self.learns = False  # Whether its vendor tells of its own limits.
        record = v1.Attempt()
        record.provider = target.provider
        record.deployment = target.name
        if hedged:
            record.hedged = True
        self.record = record
        call.attempts.append(record)
        self.started = services.clock.monotonic()
        self.first_token: float | None = None
        self._health.begin(target.slot, self.started)

    def answered(self, headers: Mapping[str, str], gateway: Gateway | None) -> None:
        """Takes note of what the headers of an answer tell of the vendor's own limits, and of
        what the gateway before it did, if there is one."""
        if gateway is not None:
            gateway.note(headers, self.record)
        if tell_limits(headers):
            quotas = told_quotas(headers, self._services.clock.wall())
            if quotas:
                now = self._services.clock.monotonic()
                self.learns = True
                self._health.told(self.target.slot, quotas, now)

    def succeed(self, http_status: int, usage: v1.Usage) -> None:
        """Ends it with an answer that consumed `usage`."""
        record, target = self.record, self.target
        record.outcome = v1.ATTEMPT_OUTCOME_SUCCEEDED
        record.http_status = http_status
        self.consumed(usage)
        now = self._close()
        if self.learns:
            self._health.took(target.slot, usage.input_tokens, usage.output_tokens)
        self._health.succeed(target.slot, now, now - self.started, self.first_token)
        self._services.observer.attempt_ended(self._call, target, record, None)

    def fail(self, error: UpstreamError) -> None:
        """Ends it with a failure, and judges the target's health by it."""
        error.message = self._credential.redacted(error.message, self.headers)
        record = self.record
        record.outcome = v1.ATTEMPT_OUTCOME_FAILED
        record.reason = error.reason
        record.message = error.message
        record.http_status = error.http_status
        record.provider_request_id = error.provider_request_id
        now = self._close()
        blame = self._blame(error, now - self.started)
        if blame is Blame.NONE:
            self._health.neutral(self.target.slot, now)
        else:
            self._health.fail(
                self.target.slot,
                now,
                latency=now - self.started,
                retry_after=error.retry_after,
                cooldown=blame is Blame.COOLDOWN,
            )
        self._services.observer.attempt_ended(self._call, self.target, record, error)

    def repeats(self, refusal: UpstreamError) -> bool:
        """Whether a refused request is to be sent again, as a part of this attempt: the vendor
        refused the credential, and there is another, which `headers` then hold. At most once.

        While a credential is changed a vendor may know only one of the two. Which one is no
        sign of its health and nothing that callers pay for.
        """
        if refusal.reason not in CREDENTIAL_REFUSED:
            return False
        other = self._credential.refused(self.headers)
        if other is None:
            return False
        self.headers = other
        return True

    def cancel(self) -> None:
        """Ends it without a verdict: the caller went away, or another attempt won."""
        self.record.outcome = v1.ATTEMPT_OUTCOME_CANCELLED
        self.record.reason = v1.ERROR_REASON_CANCELLED
        self._health.neutral(self.target.slot, self._close())
        self._services.observer.attempt_ended(self._call, self.target, self.record, None)

    def consumed(self, usage: v1.Usage) -> None:
        """Books what the attempt consumed, at the price in force now."""
        record = self.record
        record.usage.CopyFrom(usage)
        at = self._services.clock.wall()
        record.cost.CopyFrom(cost_of(self.target.price, usage, at))

    def abandoned(self, known: v1.Usage | None = None, output_chars: int = 0) -> None:
        """Books an attempt that is given up after its request was sent.

        The vendor may bill what it has read and written by then: its own count so far where
        it gave one, the router's estimate otherwise.
        """
        call = self._call
        if call.units is not None:
            usage = self.expected()
        else:
            # Whatever else is asked says in its call's units what it consumes.
            usage = estimate_usage(cast("Cacheable", call.request), output_chars)
        if known is not None and known.source:
            usage.MergeFrom(known)
            usage.output_tokens = max(known.output_tokens, usage.output_tokens)
            usage.source = v1.USAGE_SOURCE_ESTIMATE
        self.consumed(usage)

    def expected(self) -> v1.Usage:
        """What its call is taken to consume here, where that is not told by tokens alone."""
        units = self._call.units
        if units is None:
            return v1.Usage()
        return units.consumed(self.target.price, self._services.clock.wall())

    def _blame(self, error: UpstreamError, elapsed: float) -> Blame:
        blame = verdict_on(error).blame
        if error.reason == v1.ERROR_REASON_TIMEOUT and blame is Blame.FAILURE:
            usual = self._health.latency(self.target.slot)
            if elapsed < (PRESUMED_LATENCY if usual is None else usual):
                # The caller was in more of a hurry than this deployment ever promised.
                return Blame.NONE
        if error.reason == v1.ERROR_REASON_AUTHENTICATION and not error.sent:
            # It had no credential to go out under, so nothing was learnt of the deployment.
            return Blame.NONE
        if error.reason == v1.ERROR_REASON_MODEL_NOT_FOUND and "/" in self.target.name:
            # The caller named the vendor's model; other callers name others. No configured
            # deployment has a slash in its name.
            return Blame.NONE
        return blame

    def _close(self) -> float:
        now = self._services.clock.monotonic()
        elapsed = now - self.started
        self.record.duration_us = round(elapsed * 1e6)
        self._call.upstream_seconds += elapsed
        if self.ticket is not None:
            usage = self.record.usage
            tokens = usage.input_tokens + usage.output_tokens
            self.ticket.settle(tokens, self.record.cost.total)
        return now


async def admitted(call: Call, target: Deployment) -> Ticket | None:
    """The ticket of an attempt, if there is any rule to ask. Raises TrunklineError."""
    grant = call.grant
    if grant is None or not grant.asks(target):
        return None
    return await grant.attempt(target)


def http_request(
    endpoint: Endpoint, wire: WireRequest, call: Call, headers: Headers
) -> HttpRequest:
    """The HTTP request of one attempt, with the attempt's headers and trace context, signed.

    Raises UpstreamError where it is to be signed and cannot be.
    """
    if wire.headers:
        headers += wire.headers
    if wire.content_type:
        headers = (
            *(header for header in headers if header[0] != "content-type"),
            ("content-type", wire.content_type),
        )
    if endpoint.gateway is not None and endpoint.gateway.request_id:
        headers = (*headers, (endpoint.gateway.request_id, call.id))
    if call.traceparent:
        headers = (*headers, ("traceparent", call.traceparent))
        if call.tracestate:
            headers = (*headers, ("tracestate", call.tracestate))
    request = HttpRequest(
        wire.method,
        endpoint.base_url + wire.path,
        headers,
        wire.body,
        endpoint.connect_timeout,
        endpoint.header_timeout,
        endpoint.max_body_bytes,
    )
    return request if endpoint.sign is None else endpoint.sign(request)


def timed_out(what: str, seconds: float) -> UpstreamError:
    """The failure of an attempt that ran out of time waiting for `what`."""
    return UpstreamError(v1.ERROR_REASON_TIMEOUT, f"no {what} within {seconds:.3g} s")


def deadline_passed(call: Call) -> TrunklineError:
    """The error of a call whose time is up."""
    tried = len(call.attempts)
    return TrunklineError(
        v1.ERROR_REASON_TIMEOUT,
        f"deadline exceeded after {tried} attempt{'' if tried == 1 else 's'}",
        metadata={"attempts": str(tried)},
    )


async def pause(seconds: float) -> None:
    """Waits before a retry."""
    if seconds > 0:
        await asyncio.sleep(seconds)
