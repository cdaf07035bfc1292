"""Budgets in this process: reserve the worst case, settle the truth, expire what is orphaned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trunkline_server.clock import Clock
from trunkline_server.governance.quotas.gates import DRY, Subject
from trunkline_server.governance.quotas.periods import Calendar, Span, turn_of
from trunkline_server.governance.quotas.ports import NEVER, PERIOD_END, UNKNOWN
from trunkline_server.governance.quotas.rules import Budget, Demand

# A reservation outlives its call's deadline by this, in seconds, before it counts as orphaned.
GRACE = 30.0
# The longest lease, for calls that have no deadline.
MAX_LEASE = 3600.0
# How often orphans are looked for, in seconds.
_SWEEP_SECONDS = 10.0
# Counters of past periods are kept this long, for late settlements and clocks set back.
_KEEP_SECONDS = 2 * 86400.0


def lease_of(demand: Demand, now: float) -> float:
    """For how many seconds what a call takes is held for it."""
    return min(max(demand.deadline - now, 0.0) + GRACE, MAX_LEASE)


@dataclass(slots=True, eq=False)
class Counter:
    """The spend of one subject in one period: `used` is settled plus `reserved`, in nanos."""

    span: Span
    seeded: bool
    used: int = 0
    reserved: int = 0
    ask_again: float = 0.0  # Monotonic; until then an unseeded counter goes by what it has.
    announced: int = 0  # How many of the thresholds, in ascending order,
    turn: int = 0  # in this turn of a rolling window.
    buckets: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Reservation:
    """A worst case, held until it is settled or its holder is taken for dead."""

    id: int
    counter: Counter
    subject: Subject
    amount: int
    bucket: int
    expires: float
    expired: bool = False


# Subject, fraction, spent, amount.
OnThreshold = Callable[[Subject, float, int, int], None]


class SpendGate:
    """One budget, exact in this process.

    `seeds` tells whether counters begin with sums of the ledger: they are then DRY until
    `seed` is called, but for periods that began after this gate did. `share` is the part of
    what is left that this replica may spend.
    """

    def __init__(
        self,
        budget: Budget,
        clock: Clock,
        on_threshold: OnThreshold,
        *,
        seeds: bool = False,
        on_settled: Callable[[Subject, Span, int, int], None] | None = None,
        share: float = 1.0,
    ) -> None:
        self.budget = budget
        self._clock = clock
        self._calendar = Calendar(budget.period)
        self._thresholds = sorted(budget.thresholds)
        self._on_threshold = on_threshold
        self._on_settled = on_settled
        self._seeds = seeds
        self._born = clock.wall()
        self._share = share
        self._counters: dict[tuple[Subject, str], Counter] = {}
        self._caps: dict[tuple[Subject, str], int] = {}
        self._live: dict[int, Reservation] = {}
        self._gone: dict[int, Reservation] = {}
        self._next_id = 0
        self._sweep_at = clock.monotonic() + _SWEEP_SECONDS

    def counter(self, subject: Subject) -> Counter:
        """The subject's counter of the period in force, up to date."""
        wall = self._clock.wall()
        span = self._calendar.span(wall)
        counter = self._counters.get((subject, span.name))
        if counter is None:
            seeded = not self._seeds or span.start >= self._born
            counter = self._counters[subject, span.name] = Counter(span, seeded)
            self._forget(wall)
        if self.budget.steps:
            self._prune(counter, int(wall // self.budget.step))
        return counter

    def present(self) -> list[tuple[Subject, Counter]]:
        """The counters of the period in force, up to date."""
        self._sweep(self._clock.monotonic())
        name = self._calendar.span(self._clock.wall()).name
        subjects = [subject for subject, period in self._counters if period == name]
        return [(subject, self.counter(subject)) for subject in subjects]

    def seed(self, subject: Subject, amounts: Sequence[tuple[int, int]]) -> None:
        """Adds what the ledger has settled, as (bucket, nanos), to an unseeded counter."""
        counter = self.counter(subject)
        if counter.seeded:
            return
        counter.seeded = True
        for bucket, amount in amounts:
            self._bump(counter, bucket, amount)
        if self._share < 1.0:
            left = max(0, self.budget.amount - counter.used)
            self._caps[subject, counter.span.name] = counter.used + int(left * self._share)

    def revise(self, budget: Budget) -> None:
        """Goes by another amount and other thresholds from now on."""
        self.budget = budget
        self._thresholds = sorted(budget.thresholds)
        for counter in self._counters.values():
            counter.announced = 0

    def go_unseeded(self, subject: Subject, until: float) -> None:
        """Lets an unseeded counter serve as it is until a monotonic moment."""
        self.counter(subject).ask_again = until

    def cap(self, subject: Subject, counter: Counter) -> int:
        """How much may be used of a counter."""
        if self._share == 1.0:
            return self.budget.amount
        default = int(self.budget.amount * self._share)
        return self._caps.get((subject, counter.span.name), default)

    def wait(self, subject: Subject, demand: Demand, now: float) -> float:
        if now >= self._sweep_at:
            self._sweep(now)
        counter = self.counter(subject)
        if not counter.seeded and now >= counter.ask_again:
            return DRY
        cap = self.cap(subject, counter)
        if counter.used + demand.cost <= cap:
            return 0.0
        if demand.cost > cap:
            return NEVER
        if not self.budget.steps:
            return PERIOD_END
        return self._rolling_wait(counter, demand.cost, cap)

    def take(self, subject: Subject, demand: Demand, now: float) -> int:
        return self.reserve(subject, demand.cost, now + lease_of(demand, now))

    def finish(self, subject: Subject, taken: object, tokens: int, cost: int, now: float) -> None:
        if isinstance(taken, int):
            self.settle(taken, cost)

    def undo(self, subject: Subject, taken: object, now: float) -> None:
        if isinstance(taken, int):
            self.cancel(taken)

    def reserve(self, subject: Subject, amount: int, expires: float) -> int:
        """Reserves nanos until a monotonic moment, whether or not there is room: `wait` tells
        that. Gives the reservation's id."""
        counter = self.counter(subject)
        bucket = int(self._clock.wall() // self.budget.step) if self.budget.steps else 0
        self._next_id += 1
        made = Reservation(self._next_id, counter, subject, amount, bucket, expires)
        self._live[made.id] = made
        counter.reserved += amount
        self._bump(counter, bucket, amount)
        return made.id

    def settle(self, reservation: int, truth: int) -> None:
        """Replaces a reservation by what was spent; once, also after it expired."""
        found = self._live.pop(reservation, None)
        if found is None:
            found = self._gone.pop(reservation, None)
            if found is None:
                return
        counter = found.counter
        if found.expired:
            self._bump(counter, found.bucket, truth)
        else:
            counter.reserved -= found.amount
            self._bump(counter, found.bucket, truth - found.amount)
        if self._on_settled is not None:
            self._on_settled(found.subject, counter.span, found.bucket, truth)
        if self._thresholds:
            self._announce(found.subject, counter)

    def cancel(self, reservation: int) -> None:
        """Gives a reservation back."""
        self.settle(reservation, 0)

    def _bump(self, counter: Counter, bucket: int, delta: int) -> None:
        if not self.budget.steps:
            counter.used += delta
            return
        if bucket not in counter.buckets and delta < 0:
            return  # It has left the window, with its reservation.
        if bucket < int(self._clock.wall() // self.budget.step) - self.budget.steps:
            return
        counter.used += delta
        counter.buckets[bucket] = counter.buckets.get(bucket, 0) + delta

    def _prune(self, counter: Counter, current: int) -> None:
        """Drops what has left the window; the oldest, partly left bucket counts in full."""
        buckets = counter.buckets
        while buckets and (oldest := min(buckets)) < current - self.budget.steps:
            counter.used -= buckets.pop(oldest)

    def _rolling_wait(self, counter: Counter, amount: int, cap: int) -> float:
        used = counter.used
        for bucket in sorted(counter.buckets):
            used -= counter.buckets[bucket]
            if used + amount <= cap:
                leaves = (bucket + self.budget.steps + 1) * self.budget.step
                return max(leaves - self._clock.wall(), 1e-6)
        return UNKNOWN

    def _announce(self, subject: Subject, counter: Counter) -> None:
        turn = turn_of(self.budget, self._clock.wall())
        if counter.turn != turn:
            counter.turn, counter.announced = turn, 0
        spent = counter.used - counter.reserved
        while counter.announced < len(self._thresholds):
            fraction = self._thresholds[counter.announced]
            if spent < fraction * self.budget.amount:
                return
            counter.announced += 1
            self._on_threshold(subject, fraction, spent, self.budget.amount)

    def _sweep(self, now: float) -> None:
        self._sweep_at = now + _SWEEP_SECONDS
        for orphan in [one for one in self._live.values() if one.expires <= now]:
            del self._live[orphan.id]
            orphan.expired = True
            orphan.counter.reserved -= orphan.amount
            self._bump(orphan.counter, orphan.bucket, -orphan.amount)
            self._gone[orphan.id] = orphan
        forgotten = now - _KEEP_SECONDS
        for late in [one for one in self._gone.values() if one.expires <= forgotten]:
            del self._gone[late.id]

    def _forget(self, wall: float) -> None:
        past = [
            one
            for one, counter in self._counters.items()
            if counter.span.end < wall - _KEEP_SECONDS
        ]
        for one in past:
            del self._counters[one]
            self._caps.pop(one, None)
