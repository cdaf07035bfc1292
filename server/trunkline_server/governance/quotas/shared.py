"""Rules whose counters replicas share: what they claim of a call and how they close it."""

from collections.abc import Sequence
from urllib.parse import quote

from trunkline_server.governance.quotas.budgets import lease_of
from trunkline_server.governance.quotas.gates import Subject
from trunkline_server.governance.quotas.periods import Calendar, Span
from trunkline_server.governance.quotas.ports import (
    Claim,
    Operation,
    RateCharge,
    RateClaim,
    SlotClaim,
    SlotRelease,
    SlotRenewal,
    SpendClaim,
    SpendRenewal,
    SpendSettlement,
)
from trunkline_server.governance.quotas.rules import TENANT_SCOPES, Budget, Demand, Limit, Measure

# Leases of slots are renewed while their call runs; a dead replica's slots are free after this.
SLOT_LEASE = 30.0
# Counters outlive their period, for late settlements.
_KEEP_SECONDS = 2 * 86400
_MAX_KEYS = 10_000


class KeyMaker:
    """Names the counters of one rule, and remembers the names of subjects in use."""

    __slots__ = ("_kind", "_name", "_names", "_scope")

    def __init__(self, kind: str, rule: Limit | Budget) -> None:
        self._kind = kind
        self._name = quote(rule.name, safe="")
        self._scope = rule.scope
        self._names: dict[Subject, str] = {}

    def __call__(self, subject: Subject) -> str:
        """`trunkline:{tag}:kind:rule:subject`. The tag is the tenant, so that all keys of a
        call are together, or for a model or a provider that itself."""
        key = self._names.get(subject)
        if key is None:
            tenant, name = (quote(part, safe="") for part in subject)
            in_tenant = self._scope in TENANT_SCOPES
            tag = f"t={tenant}" if in_tenant else f"{self._scope[0]}={name}"
            key = f"trunkline:{{{tag}}}:{self._kind}:{self._name}:{name}"
            if len(self._names) >= _MAX_KEYS:
                self._names.clear()
            self._names[subject] = key
        return key


def tag_of(key: str) -> str:
    """The hash tag of a counter's key."""
    return key[key.index("{") + 1 : key.index("}")]


class SharedLimit:
    """A limit by the shared counters."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.key = KeyMaker(limit.measure.value[0], limit)
        self.unit = limit.interval * 1e6
        self.tolerance = limit.capacity * self.unit
        self._measure = limit.measure

    def claim(self, subject: Subject, demand: Demand, now: float, wall: float) -> Claim:
        """What a call takes."""
        key = self.key(subject)
        if self._measure is Measure.CONCURRENCY:
            return SlotClaim(key, self.limit.amount, SLOT_LEASE)
        units = demand.tokens if self._measure is Measure.TOKENS else 1
        return RateClaim(key, units * self.unit, self.tolerance)

    def close(self, claim: Claim, holder: str, tokens: int) -> Operation | None:
        """What corrects a claim when the call has consumed this many tokens."""
        if isinstance(claim, SlotClaim):
            return SlotRelease(claim.key, holder)
        if isinstance(claim, RateClaim) and self._measure is Measure.TOKENS:
            delta = tokens * self.unit - claim.cost
            return RateCharge(claim.key, delta) if delta else None
        return None

    def undo(self, claim: Claim, holder: str) -> Operation:
        """What takes a claim back, as if the call had not been."""
        if isinstance(claim, RateClaim):
            return RateCharge(claim.key, -claim.cost)
        return SlotRelease(claim.key, holder)


class SharedBudget:
    """A budget by the shared counters."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.rule_part = quote(budget.name, safe="")  # Of its keys.
        self.thresholds = sorted(budget.thresholds)
        self._steps = (budget.step, budget.steps)
        self._base = KeyMaker("b", budget)
        self._calendar = Calendar(budget.period)

    def span(self, wall: float) -> Span:
        """The period of a moment."""
        return self._calendar.span(wall)

    def key(self, subject: Subject, span: Span) -> str:
        """The counter of a subject's period."""
        return f"{self._base(subject)}:{span.name}"

    def keep(self, wall: float) -> int:
        """For how many seconds a counter is of use."""
        if self._steps[1]:
            return self.budget.window + _KEEP_SECONDS
        return int(self.span(wall).end - wall) + _KEEP_SECONDS

    def claim(self, subject: Subject, demand: Demand, now: float, wall: float) -> SpendClaim:
        """What a call takes."""
        return self.claim_amount(subject, demand.cost, lease_of(demand, now), wall)

    def claim_amount(self, subject: Subject, amount: int, lease: float, wall: float) -> SpendClaim:
        """A reservation of any amount."""
        budget = self.budget
        return SpendClaim(
            self.key(subject, self.span(wall)),
            amount,
            budget.amount,
            lease,
            self.keep(wall),
            *self._steps,
        )

    def settlement(
        self, claim: SpendClaim, holder: str, bucket: int, generation: str, truth: int
    ) -> SpendSettlement:
        """What replaces a claim by the truth."""
        return SpendSettlement(
            *(claim.key, holder, claim.amount, bucket, truth, generation, 0.0),
            keep=claim.keep,
            rolling=bool(claim.steps),
        )


def renewal(claim: Claim, holder: str, bucket: int, lease: float) -> Operation | None:
    """What keeps a claim of a running call from expiring, if it can."""
    if isinstance(claim, SlotClaim):
        return SlotRenewal(claim.key, holder, SLOT_LEASE, claim.count)
    if isinstance(claim, SpendClaim):
        return SpendRenewal(claim.key, holder, claim.amount, bucket, lease)
    return None


def by_tag(claims: Sequence[Claim], clustered: bool) -> list[list[int]]:
    """The places of claims that one script can decide together."""
    if not clustered:
        return [list(range(len(claims)))]
    groups: dict[str, list[int]] = {}
    for place, claim in enumerate(claims):
        groups.setdefault(tag_of(claim.key), []).append(place)
    return list(groups.values())
