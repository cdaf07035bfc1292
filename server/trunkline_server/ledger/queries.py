"""Questions to the ledger, and the port of the stores that answer them.

All times are microseconds since the Unix epoch; a range holds its start and not its end. An
event belongs to the time at which it started. Calls and attempts are never counted together:
each question is about one kind.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from trunkline.admin import v1 as admin


class Dimension(StrEnum):
    """What events are filtered and grouped by: fields of UsageEvent that hold text."""

    TENANT = "tenant"
    PROJECT = "project"
    KEY = "key_name"
    TIER = "tier"
    SERVICE = "service"
    USER = "user_id"
    AGENT = "agent_id"
    WORKFLOW = "workflow_id"
    REQUEST = "request_id"
    OPERATION = "operation"
    REQUESTED_MODEL = "requested_model"
    MODEL = "model"
    ROUTE = "route"
    PROVIDER = "provider"
    DEPLOYMENT = "deployment"
    PROVIDER_MODEL = "provider_model"
    REGION = "region"
    REPLICA = "replica"


class Result(StrEnum):
    """What events are grouped by beside text: fields that hold an enum's value. The group's
    text is the name of the value."""

    OUTCOME = "outcome"
    ERROR_REASON = "error_reason"
    CACHE_STATUS = "cache_status"


@dataclass(frozen=True, slots=True)
class Label:
    """Grouping by the value of a label; the text is empty where an event lacks it."""

    name: str


GroupKey = Dimension | Result | Label


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which events a question is about: those that meet all of it.

    `among` names, for each dimension, the values of which an event has one. Every label must
    be there with its value. None and empty mean any.
    """

    kind: admin.UsageEventKind.ValueType = admin.USAGE_EVENT_KIND_CALL
    start_us: int | None = None
    end_us: int | None = None
    among: Mapping[Dimension, Sequence[str]] = field(default_factory=dict)
    outcomes: Sequence[admin.UsageOutcome.ValueType] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """A question for sums.

    bucket_us: the width of the time buckets, which begin at multiples of it since the epoch,
        so that whole days are days of UTC. Zero means one bucket for all.
    percentiles: of the latencies, from 0 to 1.
    limit: the most rows; the buckets and groups that come first in order.
    """

    where: UsageFilter = UsageFilter()
    group_by: Sequence[GroupKey] = ()
    bucket_us: int = 0
    percentiles: Sequence[float] = ()
    limit: int = 10_000


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The sums of one group in one time bucket.

    `group` has the text of each of the query's keys, in their order; `bucket_us` is when the
    bucket begins, zero without buckets. `unpriced` and `estimated` count events. The latencies
    are those of the query's percentiles, interpolated, in microseconds: of the events that
    succeeded, and for the first token of those among them that were streamed; None where
    there are no such events.
    """

    group: tuple[str, ...]
    bucket_us: int
    events: int
    succeeded: int
    failed: int
    cancelled: int
    attempts: int
    retries: int
    fallbacks: int
    hedges: int
    cache_hits: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    output_images: int
    input_audio_ms: int
    output_audio_ms: int
    input_characters: int
    search_units: int
    cost_input_nanos: int
    cost_output_nanos: int
    cost_total_nanos: int
    saved_cost_nanos: int
    unpriced: int
    estimated: int
    duration_us: tuple[float | None, ...]
    first_token_us: tuple[float | None, ...]

    @property
    def error_rate(self) -> float:
        """The share of those that failed, cancelled ones aside; 0 when there are none."""
        ended = self.succeeded + self.failed
        return self.failed / ended if ended else 0.0


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Some events in the order of their start, and the token for those after; empty: none."""

    events: list[admin.UsageEvent]
    next_page_token: str


class UsageQueries(Protocol):
    """A store that answers. Raises TrunklineError, SERVICE_UNAVAILABLE while it is away."""

    async def summarize(self, query: UsageQuery) -> list[UsageRow]:
        """Sums by bucket and group, in the order of both."""
        ...

    async def spent(
        self, where: Mapping[Dimension, str], start_us: int, end_us: int | None = None
    ) -> int:
        """What was spent, in nanos of a US dollar, by all that `where` says.

        Where that names a place, such as a provider, attempts count, for a call may have paid
        several; else calls do. Events without a price count nothing.
        """
        ...

    async def page(self, where: UsageFilter, size: int, token: str = "") -> UsagePage:
        """Single events, oldest first. Raises INVALID_REQUEST for a token of another question.

        An event that arrives late may belong to a page that has been turned.
        """
        ...

    def scan(self, where: UsageFilter) -> AsyncIterator[Sequence[admin.UsageEvent]]:
        """All such events in batches, oldest first, as of one moment."""
        ...

    async def delete_before(self, end_us: int, limit: int) -> int:
        """Deletes up to `limit` events that started before a time, oldest first; how many
        were."""
        ...
