"""One call on its way through the engine."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from trunkline import v1
from trunkline_server.engine.ports import Bounds, Caller, Grant, Treatment
from trunkline_server.engine.requests import Request
from trunkline_server.engine.table import Table
from trunkline_server.engine.units import Units
from trunkline_server.routing.plan import Plan
from trunkline_server.routing.query import Constraint


class Course(NamedTuple):
    """What a call goes by from start to end: the table in force when it came, and the
    plan made from it."""

    table: Table
    plan: Plan


class Pace:
    """When the chunks of a streamed answer came. Monotonic seconds."""

    __slots__ = ("chunks", "first", "last", "longest")

    def __init__(self, first: float) -> None:
        self.first = self.last = first
        self.longest = 0.0
        self.chunks = 1

    def chunk(self, now: float) -> None:
        """One more has come."""
        gap = now - self.last
        self.longest = max(self.longest, gap)
        self.last = now
        self.chunks += 1

    @property
    def mean(self) -> float:
        """The mean time between two, in seconds; 0 if there was but one."""
        return (self.last - self.first) / (self.chunks - 1) if self.chunks > 1 else 0.0


@dataclass(slots=True, eq=False)
class Call:
    """What is known of one call; filled in as it proceeds.

    `started`, `deadline`, `first_token` and `ended` are monotonic seconds. `attempts` holds a
    record for each upstream call, in order of start, complete once that call is over. `request`
    is what vendors are asked: a masked copy of what the caller sent, where that is demanded.
    """

    operation: str
    request: Request
    id: str
    caller: Caller
    started: float
    deadline: float
    traceparent: str = ""
    tracestate: str = ""
    # Whether the trace began with this call, so that the router decides on sampling it.
    begins_trace: bool = False
    # The request as it came, for whoever remembers something of it; empty where it no longer
    # tells what `request` is.
    raw: bytes = b""
    # What access rules and others ask of the deployment that serves it.
    constraints: tuple[Constraint, ...] = ()
    # None: the caller may ask for anything.
    bounds: Bounds | None = None
    treatment: Treatment | None = None
    # The person served, where the request does not say so any more.
    served: str = ""
    # The most that it consumes. None: its tokens tell.
    units: Units | None = None

    course: Course | None = None
    grant: Grant | None = None
    decision: v1.Decision | None = None
    attempts: list[v1.Attempt] = field(default_factory=list)
    usage: v1.Usage | None = None
    cost: v1.Cost | None = None
    model: str = ""
    finish_reason: v1.FinishReason.ValueType = v1.FINISH_REASON_UNSPECIFIED
    cache_status: v1.CacheStatus.ValueType = v1.CACHE_STATUS_UNSPECIFIED
    cache_hit_kind: v1.CacheHitKind.ValueType = v1.CACHE_HIT_KIND_UNSPECIFIED
    # What the cache saved, in nanos of a US dollar.
    saved_nanos: int = 0
    # Whether its own work has begun, which then closes its books.
    working: bool = False
    first_token: float | None = None
    # None where nobody keeps books, and before the first delta of a stream.
    pace: Pace | None = None
    ended: float = 0.0
    upstream_seconds: float = 0.0
    # Seconds spent waiting for room under limits and budgets.
    queued: float = 0.0
    # The names of the prompt's blocks, where affinity asks for them.
    blocks: Sequence[int] = ()
    # Whatever the observer keeps of the call, its span for one.
    observed: object | None = None

    @property
    def user_id(self) -> str:
        """The person served, as the caller named them. Empty: nobody in particular."""
        return self.served or self.request.context.user_id

    def extend(self, deadline: float) -> None:
        """Its work goes on for others, until a later deadline."""
        self.deadline = deadline

    def successor(self) -> "Call":
        """A call of the same words, for work that others wait for when this one is over."""
        return Call(
            operation=self.operation,
            request=self.request,
            id=self.id,
            caller=self.caller,
            started=self.started,
            deadline=self.deadline,
            traceparent=self.traceparent,
            tracestate=self.tracestate,
            constraints=self.constraints,
            bounds=self.bounds,
            treatment=self.treatment,
            served=self.served,
            cache_status=self.cache_status,
        )

    def report(self) -> v1.CallReport:
        """What the call did, for the details of its failure.

        The details travel in a trailer, whose size clients bound (8 KiB by default): only the
        last attempts fit.
        """
        return v1.CallReport(
            id=self.id,
            decision=self.decision,
            attempts=self.attempts[-8:],
            usage=total_usage(self.attempts),
            cost=self.cost,
        )


def total_cost(attempts: Sequence[v1.Attempt]) -> v1.Cost:
    """What all attempts cost together; unpriced or estimated if any part of it is."""
    if len(attempts) == 1:
        return attempts[0].cost
    total = v1.Cost()
    for attempt in attempts:
        if attempt.HasField("cost"):
            cost = attempt.cost
            total.input += cost.input
            total.output += cost.output
            total.total += cost.total
            total.unpriced |= cost.unpriced
            total.estimated |= cost.estimated
    return total


def total_tokens(attempts: Sequence[v1.Attempt]) -> int:
    """The tokens that all attempts read and wrote together."""
    if len(attempts) == 1:
        usage = attempts[0].usage
        return usage.input_tokens + usage.output_tokens
    return sum(
        attempt.usage.input_tokens + attempt.usage.output_tokens
        for attempt in attempts
        if attempt.HasField("usage")
    )


_NAMED = frozenset({"source", "image_variant"})
_COUNTS = tuple(field.name for field in v1.Usage.DESCRIPTOR.fields if field.name not in _NAMED)
# Whose count several are together: the least certain one's.
_SOURCES = (
    v1.USAGE_SOURCE_ESTIMATE,
    v1.USAGE_SOURCE_COUNTED,
    v1.USAGE_SOURCE_PROVIDER,
    v1.USAGE_SOURCE_UNSPECIFIED,
)


def total_usage(attempts: Sequence[v1.Attempt]) -> v1.Usage | None:
    """What all attempts consumed together, or None when none reported anything."""
    used = [attempt.usage for attempt in attempts if attempt.HasField("usage")]
    if not used:
        return None
    total = v1.Usage(
        source=min((usage.source for usage in used), key=_SOURCES.index),
        image_variant=next((usage.image_variant for usage in used if usage.image_variant), ""),
    )
    for name in _COUNTS:
        setattr(total, name, sum(getattr(usage, name) for usage in used))
    return total
