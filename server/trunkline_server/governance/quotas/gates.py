"""Limits in this process: rates by GCRA and concurrency slots.

A gate decides for all subjects of one rule. `wait` looks and changes nothing, `take` takes
what `wait` found room for; between the two nothing may be awaited.
"""

from collections.abc import Callable
from typing import Protocol

from trunkline_server.governance.quotas.ports import NEVER, UNKNOWN
from trunkline_server.governance.quotas.rules import Demand, Limit, Measure

# (tenant, name in the rule's scope); no tenant for a model or a provider.
Subject = tuple[str, str]

# A gate that must first ask elsewhere: its pot is empty or its counter has no seed.
DRY = -4.0
# Seconds by which rounding may make a moment seem too early.
_SLACK = 1e-6
# Idle subjects are looked for when their number has doubled, from this one on.
_SWEEP_FROM = 1024


class Gate(Protocol):
    """Decides on one rule."""

    def wait(self, subject: Subject, demand: Demand, now: float) -> float:
        """0 if there is room, else the seconds until there is, or NEVER, UNKNOWN, PERIOD_END,
        DRY."""
        ...

    def take(self, subject: Subject, demand: Demand, now: float) -> object:
        """Takes the room; what it gives goes to `finish` or `undo`."""
        ...

    def finish(self, subject: Subject, taken: object, tokens: int, cost: int, now: float) -> None:
        """The call is over, having consumed this."""
        ...

    def undo(self, subject: Subject, taken: object, now: float) -> None:
        """The call did not take place."""
        ...


class RateGate:
    """Requests or tokens by GCRA (generic cell rate algorithm): a bucket of `capacity` units
    that refills at one unit per interval, kept as the moment at which it would be full."""

    __slots__ = ("_arrivals", "_interval", "_sweep_at", "_tokens", "_tolerance")

    def __init__(self, limit: Limit, share: float = 1.0) -> None:
        capacity = max(1.0, limit.capacity * share)
        self._interval = limit.interval / share
        self._tolerance = capacity * self._interval
        self._tokens = limit.measure is Measure.TOKENS
        self._arrivals: dict[Subject, float] = {}
        self._sweep_at = _SWEEP_FROM

    def wait(self, subject: Subject, demand: Demand, now: float) -> float:
        cost = demand.tokens * self._interval if self._tokens else self._interval
        arrival = self._arrivals.get(subject, now)
        wait = cost - self._tolerance
        if arrival > now:
            wait += arrival - now
        if wait <= _SLACK:
            return 0.0
        return NEVER if cost > self._tolerance + _SLACK else wait

    def take(self, subject: Subject, demand: Demand, now: float) -> int:
        units = demand.tokens if self._tokens else 1
        self._charge(subject, units, now)
        return units

    def finish(self, subject: Subject, taken: object, tokens: int, cost: int, now: float) -> None:
        # What was taken on an estimate is corrected by the truth, which may leave a debt.
        if self._tokens and isinstance(taken, int) and tokens != taken:
            self._charge(subject, tokens - taken, now)

    def undo(self, subject: Subject, taken: object, now: float) -> None:
        if isinstance(taken, int):
            self._charge(subject, -taken, now)

    def _charge(self, subject: Subject, units: int, now: float) -> None:
        arrivals = self._arrivals
        arrival = arrivals.get(subject, now)
        arrivals[subject] = max(arrival, now) + units * self._interval
        if len(arrivals) > self._sweep_at:
            self._arrivals = {one: when for one, when in arrivals.items() if when > now}
            self._sweep_at = max(_SWEEP_FROM, 2 * len(self._arrivals))


class SlotGate:
    """Calls at the same time. `on_release` hears of each subject that has a slot again."""

    __slots__ = ("_capacity", "_on_release", "_taken")

    def __init__(
        self, limit: Limit, on_release: Callable[[Subject], None], share: float = 1.0
    ) -> None:
        self._capacity = max(1, int(limit.amount * share))
        self._on_release = on_release
        self._taken: dict[Subject, int] = {}

    def wait(self, subject: Subject, demand: Demand, now: float) -> float:
        return 0.0 if self._taken.get(subject, 0) < self._capacity else UNKNOWN

    def take(self, subject: Subject, demand: Demand, now: float) -> None:
        self._taken[subject] = self._taken.get(subject, 0) + 1

    def finish(self, subject: Subject, taken: object, tokens: int, cost: int, now: float) -> None:
        left = self._taken[subject] - 1
        if left:
            self._taken[subject] = left
        else:
            del self._taken[subject]
        self._on_release(subject)

    def undo(self, subject: Subject, taken: object, now: float) -> None:
        self.finish(subject, taken, 0, 0, now)
