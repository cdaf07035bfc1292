"""What governance asks of others: counters that replicas share, sums of spend, an audience.

Keys of shared counters are `trunkline:{tag}:...`; the keys of one call of `admit` or `settle`
share their tag where the store is `clustered`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class CountersUnavailableError(Exception):
    """The shared counters did not answer in time. Whether they changed is not known."""


class CountersRefusedError(CountersUnavailableError):
    """The shared counters answered that they cannot do it: no memory, no rights."""


@dataclass(slots=True)
class RateClaim:
    """Takes `cost` from a rate whose bucket holds `tolerance`; both are microseconds of the
    rate, so that n units cost n times the period divided by the amount."""

    key: str
    cost: float
    tolerance: float


@dataclass(slots=True)
class SlotClaim:
    """Takes `count` of `capacity` slots for `lease` seconds."""

    key: str
    capacity: int
    lease: float
    count: int = 1


@dataclass(slots=True)
class SpendClaim:
    """Reserves `amount` nanos of USD below `cap`, for `lease` seconds.

    A calendar period's counter has a key of its own and `steps` 0. A rolling window spans
    `steps` buckets of `step` seconds. The counter is kept for `keep` seconds after its last
    claim. `seed` holds (bucket, settled nanos); None asks for one if the counter is missing,
    and a `stopgap` serves without being remembered.
    """

    key: str
    amount: int
    cap: int
    lease: float
    keep: int
    step: int = 1
    steps: int = 0
    seed: Sequence[tuple[int, int]] | None = None
    stopgap: bool = False


Claim = RateClaim | SlotClaim | SpendClaim

# Waits of a denial that are no number of seconds.
NEVER = -1.0  # The claim is more than there ever is.
UNKNOWN = -2.0  # Until somebody gives something back.
PERIOD_END = -3.0  # Until the calendar period of the claim is over.


@dataclass(slots=True)
class Admission:
    """The verdict on the claims of one call.

    Granted if `denied` is None and `unseeded` is empty. `denied` is the place of the claim
    that stands most in the way and `wait` the seconds until it would pass, or one of NEVER,
    UNKNOWN and PERIOD_END. `unseeded` holds the places of spend claims that need a seed.
    `spends` holds (used nanos, bucket) of each spend claim in turn.
    """

    denied: int | None = None
    wait: float = 0.0
    unseeded: Sequence[int] = ()
    spends: Sequence[tuple[int, int]] = ()
    generation: str = ""


@dataclass(slots=True)
class RateCharge:
    """Corrects a rate by `delta` microseconds of it, negative to give back."""

    key: str
    delta: float


@dataclass(slots=True)
class SlotRelease:
    """Frees the slots that a holder took, all `count` but the first `kept`."""

    key: str
    holder: str
    count: int = 1
    kept: int = 0


@dataclass(slots=True)
class SlotRenewal:
    """Prolongs a holder's slots to `lease` seconds from now."""

    key: str
    holder: str
    lease: float
    count: int = 1


@dataclass(slots=True)
class SpendRenewal:
    """Prolongs a reservation, if it still stands, to `lease` seconds from now."""

    key: str
    holder: str
    amount: int
    bucket: int
    lease: float


@dataclass(slots=True)
class SpendSettlement:
    """Replaces a reservation by the truth, 0 to cancel it; idempotent by key and holder.

    `generation` is that of the admission, "" for spend that was never reserved here. `age` is
    how many seconds ago it was first to be settled.
    """

    key: str
    holder: str
    amount: int
    bucket: int
    truth: int
    generation: str
    age: float
    keep: int
    rolling: bool = False


@dataclass(slots=True)
class MarkOnce:
    """Sets a mark for `keep` seconds; the result is 1 for whoever is first."""

    key: str
    keep: int


Operation = RateCharge | SlotRelease | SlotRenewal | SpendRenewal | SpendSettlement | MarkOnce


@dataclass(frozen=True, slots=True)
class SpendSum:
    """What a spend counter holds, in nanos: `used` is settled plus `reserved`."""

    key: str
    used: int
    reserved: int


class SharedCounters(Protocol):
    """Counters that all replicas share. Every method raises CountersUnavailableError."""

    @property
    def clustered(self) -> bool:
        """Whether all keys of one call must share a tag."""
        ...

    def reachable(self, key: str) -> bool:
        """Whether it makes sense to ask; False while an outage is known."""
        ...

    async def admit(self, holder: str, claims: Sequence[Claim]) -> Admission:
        """Grants all claims or none, in one round trip. `holder` is unique to the call."""
        ...

    async def settle(self, operations: Sequence[Operation]) -> Sequence[int]:
        """Carries out operations; a result each: spent nanos for a settlement."""
        ...

    async def census(self, replica: str, lease: float) -> int:
        """Counts the replicas that were heard of, this one too, within `lease` seconds."""
        ...

    async def spends(self, rule: str, period: str, step: int, steps: int) -> Sequence[SpendSum]:
        """The spend counters of a rule in a period, named as in their keys, in no order.

        `step` and `steps` are those of the claims. Looks at every key: not for the request
        path.
        """
        ...


class SpendSource(Protocol):
    """Sums of settled spend, kept by the ledger."""

    async def spent(
        self,
        scope: str,
        tenant: str,
        subject: str,
        starts: Sequence[float],
        end: float,
        *,
        match: Mapping[str, Sequence[str]],
    ) -> Sequence[int]:
        """Nanos of USD settled in [starts[i], starts[i+1]), the last up to `end`.

        `scope` is one of key, project, tenant, service and provider; times are Unix seconds, and
        equally far from each other. `match` is the budget's. Raises any error if the ledger is
        away.
        """
        ...


class Audience(Protocol):
    """Hears of what operators should know. Called on the request path: must not block or raise."""

    def budget_threshold(
        self, budget: str, subject: str, fraction: float, spent: int, amount: int
    ) -> None:
        """A soft threshold was passed; once per period over all replicas."""
        ...

    def outage(self, entered: bool, mode: str) -> None:
        """The shared counters went away, so that limits and budgets go by `mode`; or are back."""
        ...

    def settlements_lost(self, count: int) -> None:
        """Corrections were dropped because too many waited for an outage to end; reservations
        then expire, and the ledger alone has the truth."""
        ...
