"""Leased shares: a replica takes ahead from the shared counters and decides from memory.

What is taken ahead is charged to the shared counter before it is used, so no share is ever
given twice. The bounds on overshoot, with R replicas and a pot of at most `share` of the
capacity (or one call's need, if that is more):

- rates: within any time t, at most the burst, plus the rate times t, plus R pots, for what was
  taken ahead may be used later;
- concurrency: none while replicas renew their leases; a replica that is cut off for longer
  than a lease may hold one pot besides;
- budgets: none while replicas live; one that dies takes the spend of its pot that it has not
  yet settled, at most one pot, to the ledger alone.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field, replace

from trunkline_server.governance.quotas.budgets import GRACE
from trunkline_server.governance.quotas.desk import Desk
from trunkline_server.governance.quotas.gates import DRY, Subject
from trunkline_server.governance.quotas.ports import (
    PERIOD_END,
    Claim,
    CountersUnavailableError,
    RateCharge,
    RateClaim,
    SlotClaim,
    SlotRelease,
    SlotRenewal,
    SpendClaim,
    SpendRenewal,
)
from trunkline_server.governance.quotas.rules import Demand, Measure
from trunkline_server.governance.quotas.shared import SLOT_LEASE, SharedBudget, SharedLimit

# A denial is remembered this long, in seconds: others may give back what they do not use.
_DENIAL_SECONDS = 0.05
# Refills begin in the background when less than this part of a chunk is left.
_LOW = 0.25
# Chunks smaller than this are fetched when a call needs them.
_AHEAD_FROM = 4.0


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """How much is taken ahead: the use of `seconds`, by recent use, and at most `share` of a
    rule's capacity. What lies idle for that long is given back."""

    seconds: float = 1.0
    share: float = 0.05


@dataclass(slots=True, eq=False)
class Pot:
    """What a replica holds ahead for one subject, in units, slots or nanos."""

    available: float = 0.0
    used: float = 0.0  # Since the last refill.
    rate: float = 0.0  # Units per second, smoothed.
    chunk: float = 0.0
    refilled: float = 0.0
    touched: float = 0.0
    running: int = 0  # Calls that hold part of it.
    waiting: float = 0.0  # What the callers need who wait for it to be filled.
    # The last denial: of how much, with which wait, clear when, remembered until.
    denied: float = 0.0
    wait: float = 0.0
    clear: float = 0.0
    denied_until: float = 0.0
    spent: int = 0  # Of budgets: settled here and not yet there.
    leases: "deque[_Lease]" = field(default_factory=deque)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    refill: "asyncio.Task[None] | None" = None
    last: "_Lease | None" = None


@dataclass(slots=True, eq=False)
class _Lease:
    claim: Claim
    holder: str
    amount: int
    bucket: int = 0
    generation: str = ""
    since: float = 0.0
    renewed: float = 0.0


class LeaseGate(ABC):
    """A gate over pots. `capacity` bounds what one call may ask, `largest` what is held ahead."""

    def __init__(self, desk: Desk, policy: LeasePolicy, capacity: float) -> None:
        self._desk = desk
        self._policy = policy
        self._largest = max(1.0, capacity * policy.share)
        self._pots: dict[tuple[Subject, str], Pot] = {}
        self._clock = desk.clock

    def wait(self, subject: Subject, demand: Demand, now: float) -> float:
        """As of a Gate; DRY if the pot must be refilled first."""
        pot = self._pots.get(self._place(subject))
        if pot is None:
            return DRY
        lacking = self._need(demand) - pot.available
        if lacking <= 0.0:
            return 0.0
        if now < pot.denied_until and lacking == pot.denied:
            return max(pot.clear - now, 1e-6) if pot.wait >= 0.0 else pot.wait
        return DRY

    def take(self, subject: Subject, demand: Demand, now: float) -> object:
        """As of a Gate."""
        need = self._need(demand)
        pot = self._pots[self._place(subject)]
        pot.available -= need
        pot.used += need
        pot.touched = now
        pot.running += 1
        low = pot.chunk >= _AHEAD_FROM and pot.available < _LOW * pot.chunk
        if low and pot.refill is None:
            loop = asyncio.get_running_loop()
            pot.refill = loop.create_task(self._refill_ahead(subject, pot))
        return pot, need

    @abstractmethod
    def finish(self, subject: Subject, taken: object, tokens: int, cost: int, now: float) -> None:
        """As of a Gate."""

    def undo(self, subject: Subject, taken: object, now: float) -> None:
        """As of a Gate."""
        pot, need = _unpack(taken)
        pot.running -= 1
        pot.available += need
        pot.used -= need

    async def refill(self, subject: Subject, demand: Demand) -> float:
        """Fills the pot until it holds what a call needs; 0, or the wait of a denial.

        Raises CountersUnavailableError.
        """
        pot = self._pots.setdefault(self._place(subject), Pot())
        return await self._refill(subject, pot, self._need(demand))

    def tick(self, now: float) -> None:
        """Gives back what lies idle and renews what is in use; to be called twice a second."""
        for place, pot in list(self._pots.items()):
            idle = now - pot.touched > self._policy.seconds
            self._tend(place[0], pot, now, idle=idle)
            empty = not pot.leases and not pot.running and pot.available == 0.0
            if idle and empty and not pot.lock.locked():
                del self._pots[place]

    def close(self) -> None:
        """Gives back all that is not in use."""
        now = self._clock.monotonic()
        for (subject, _), pot in self._pots.items():
            self._tend(subject, pot, now, idle=True)

    async def _refill_ahead(self, subject: Subject, pot: Pot) -> None:
        try:
            async with pot.lock:
                self._size(pot, self._clock.monotonic())
                await self._fetch(subject, pot, pot.chunk)
        except CountersUnavailableError:
            return  # The next call that finds the pot dry learns it.
        finally:
            pot.refill = None

    async def _refill(self, subject: Subject, pot: Pot, need: float) -> float:
        pot.waiting += need
        try:
            async with pot.lock:
                lacking = need - pot.available
                if lacking <= 0.0:
                    return 0.0
                self._size(pot, self._clock.monotonic())
                # For all who wait: a share for one would be gone before the next one looks.
                together = min(pot.waiting - pot.available, self._largest)
                wanted = max(lacking, together, pot.chunk)
                wait = await self._fetch(subject, pot, wanted)
                if wait and wanted > lacking:
                    wait = await self._fetch(subject, pot, lacking)
                if wait:
                    now = self._clock.monotonic()
                    pot.denied, pot.wait, pot.clear = need - pot.available, wait, now + wait
                    pot.denied_until = now + _DENIAL_SECONDS
                return wait
        finally:
            pot.waiting -= need

    def _size(self, pot: Pot, now: float) -> None:
        """Sizes the next chunk by recent use."""
        elapsed = max(now - pot.refilled, 0.05)
        weight = min(1.0, elapsed / self._policy.seconds)
        pot.rate += weight * (pot.used / elapsed - pot.rate)
        pot.used, pot.refilled = 0.0, now
        # Fetched ahead, it comes on top of what is low.
        largest = self._largest / (1.0 + _LOW)
        pot.chunk = max(1.0, min(pot.rate * self._policy.seconds, largest) // 1)

    @abstractmethod
    def _need(self, demand: Demand) -> float: ...

    @abstractmethod
    async def _fetch(self, subject: Subject, pot: Pot, amount: float) -> float:
        """Takes an amount from the shared counter into the pot; 0, or the wait of a denial."""

    @abstractmethod
    def _tend(self, subject: Subject, pot: Pot, now: float, *, idle: bool) -> None: ...

    def _place(self, subject: Subject) -> tuple[Subject, str]:
        return subject, ""


class _RateLease(LeaseGate):
    def __init__(self, shared: SharedLimit, desk: Desk, policy: LeasePolicy) -> None:
        super().__init__(desk, policy, shared.limit.capacity)
        self._shared = shared
        self._tokens = shared.limit.measure is Measure.TOKENS

    def finish(self, subject: Subject, taken: object, tokens: int, cost: int, now: float) -> None:
        pot, need = _unpack(taken)
        pot.running -= 1
        if self._tokens:
            pot.available += need - tokens
            if pot.available < 0.0:
                self._charge(subject, -pot.available)
                pot.available = 0.0

    def _need(self, demand: Demand) -> float:
        return float(demand.tokens) if self._tokens else 1.0

    async def _fetch(self, subject: Subject, pot: Pot, amount: float) -> float:
        shared = self._shared
        claim = RateClaim(shared.key(subject), amount * shared.unit, shared.tolerance)
        admission = await self._desk.counters.admit(self._desk.holder(), [claim])
        if admission.denied is None:
            pot.available += amount
            return 0.0
        return admission.wait

    def _tend(self, subject: Subject, pot: Pot, now: float, *, idle: bool) -> None:
        surplus = pot.available if idle else pot.available - self._largest
        if surplus > 0.0:
            pot.available -= surplus
            self._charge(subject, -surplus)

    def _charge(self, subject: Subject, units: float) -> None:
        key = self._shared.key(subject)
        self._desk.settler.put(RateCharge(key, units * self._shared.unit))


class _SlotLease(LeaseGate):
    def __init__(self, shared: SharedLimit, desk: Desk, policy: LeasePolicy) -> None:
        super().__init__(desk, policy, shared.limit.amount)
        self._shared = shared

    def finish(self, subject: Subject, taken: object, tokens: int, cost: int, now: float) -> None:
        pot, _ = _unpack(taken)
        pot.running -= 1
        pot.available += 1.0
        self._desk.released(self._shared.limit, subject)

    def _need(self, demand: Demand) -> float:
        return 1.0

    async def _fetch(self, subject: Subject, pot: Pot, amount: float) -> float:
        shared, count = self._shared, int(amount)
        claim = SlotClaim(shared.key(subject), shared.limit.amount, SLOT_LEASE, count)
        holder = self._desk.holder()
        try:
            admission = await self._desk.counters.admit(holder, [claim])
        except BaseException:  # Also if the caller goes away: it is not known what was granted.
            self._desk.settler.put(SlotRelease(claim.key, holder, count))
            raise
        if admission.denied is None:
            pot.available += count
            now = self._clock.monotonic()
            pot.leases.append(_Lease(claim, holder, count, since=now, renewed=now))
            return 0.0
        return admission.wait

    def _tend(self, subject: Subject, pot: Pot, now: float, *, idle: bool) -> None:
        put = self._desk.settler.put
        spare = int(pot.available if idle else pot.available - self._largest)
        for lease in pot.leases:
            given = min(spare, lease.amount)
            if given > 0:
                kept = lease.amount - given
                put(SlotRelease(lease.claim.key, lease.holder, lease.amount, kept))
                pot.available -= given
                spare -= given
                lease.amount = kept
            elif now - lease.renewed > SLOT_LEASE / 3.0:
                lease.renewed = now
                put(SlotRenewal(lease.claim.key, lease.holder, SLOT_LEASE, lease.amount))
        pot.leases = deque(lease for lease in pot.leases if lease.amount)


class _SpendLease(LeaseGate):
    def __init__(self, shared: SharedBudget, desk: Desk, policy: LeasePolicy) -> None:
        super().__init__(desk, policy, shared.budget.amount)
        self._shared = shared

    def finish(self, subject: Subject, taken: object, tokens: int, cost: int, now: float) -> None:
        pot, need = _unpack(taken)
        pot.running -= 1
        pot.available += need - cost
        pot.spent += cost

    def _need(self, demand: Demand) -> float:
        return float(demand.cost)

    def _place(self, subject: Subject) -> tuple[Subject, str]:
        return subject, self._shared.span(self._clock.wall()).name

    async def _fetch(self, subject: Subject, pot: Pot, amount: float) -> float:
        shared, count, wall = self._shared, int(-(-amount // 1)), self._clock.wall()
        claim = shared.claim_amount(subject, count, GRACE, wall)
        now = self._clock.monotonic()
        lease = _Lease(claim, self._desk.holder(), count, since=now, renewed=now)
        try:
            admission = await self._desk.admit_spend(shared, subject, claim, lease.holder)
        except BaseException:  # As for slots.
            lease.bucket = int(wall // claim.step) if claim.steps else 0
            self._settle(subject, claim, lease, 0)
            raise
        if admission.denied is None:
            lease.bucket, lease.generation = admission.spends[0][1], admission.generation
            pot.available += count
            pot.leases.append(lease)
            pot.last = lease
            return 0.0
        if admission.wait == PERIOD_END:
            return max(shared.span(wall).end - wall, 1e-6)
        return admission.wait

    def _tend(self, subject: Subject, pot: Pot, now: float, *, idle: bool) -> None:
        """Settles leases whose rest nobody needs with what was spent of them, oldest first."""
        while pot.leases:
            lease = pot.leases[0]
            truth = pot.spent if len(pot.leases) == 1 else min(pot.spent, lease.amount)
            rest = lease.amount - truth
            fresh = now - lease.since <= self._policy.seconds and not idle
            if fresh or 0 < rest > pot.available:
                break
            pot.leases.popleft()
            pot.available -= rest
            pot.spent -= truth
            self._settle(subject, lease.claim, lease, truth)
        if pot.spent and not pot.leases and pot.last is not None:
            # Calls under way when the last lease was settled took more than was leased.
            late = replace(pot.last, holder=self._desk.holder(), amount=0, generation="")
            pot.available += pot.spent
            self._settle(subject, late.claim, late, pot.spent)
            pot.spent = 0
        for lease in pot.leases:
            if now - lease.renewed > GRACE / 3.0:
                lease.renewed = now
                key, holder, amount = lease.claim.key, lease.holder, lease.amount
                self._desk.settler.put(SpendRenewal(key, holder, amount, lease.bucket, GRACE))

    def _settle(self, subject: Subject, claim: Claim, lease: _Lease, truth: int) -> None:
        if isinstance(claim, SpendClaim):
            settlement = self._shared.settlement(
                claim, lease.holder, lease.bucket, lease.generation, truth
            )
            settlement.amount = lease.amount
            self._desk.settle_spend(self._shared, subject, settlement)


def make_lease_gate(
    shared: SharedLimit | SharedBudget, desk: Desk, policy: LeasePolicy
) -> LeaseGate:
    """The gate of a leased rule."""
    if isinstance(shared, SharedBudget):
        return _SpendLease(shared, desk, policy)
    if shared.limit.measure is Measure.CONCURRENCY:
        return _SlotLease(shared, desk, policy)
    return _RateLease(shared, desk, policy)


def _unpack(taken: object) -> tuple[Pot, float]:
    """What `take` gave."""
    match taken:
        case (Pot() as pot, float() as need):
            return pot, need
    raise TypeError("not taken from a pot")
