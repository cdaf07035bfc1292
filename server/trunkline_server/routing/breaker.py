"""The circuit breaker of one deployment: a state machine that is told the time.

States: closed; open until a moment; half-open from then on. No timer moves it: the state is
a function of what was reported and of `now` (monotonic seconds).
"""

from dataclasses import dataclass
from math import exp

from trunkline import v1


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a deployment is kept away from, and for how long. Times are seconds.

    The error rate is taken over calls that fade with `ewma_seconds`, at least `min_calls` of
    them. The open time doubles each time the breaker opens again, up to `max_cooldown`.
    """

    consecutive_failures: int = 5
    error_rate: float = 0.5
    min_calls: int = 20
    open_seconds: float = 10.0
    half_open_calls: int = 2
    ewma_seconds: float = 30.0
    default_cooldown: float = 5.0
    max_cooldown: float = 300.0


class Breaker:
    """Opens on failures, then lets a few calls try, and closes when all of them succeed.

    Calls are not told apart: one that began before the breaker opened and ends when it is
    half-open counts as a trial. Reports that come while it is open change nothing.
    """

    __slots__ = (
        "_calls",
        "_closed_at",
        "_consecutive",
        "_failures",
        "_open_for",
        "_passed",
        "_stamp",
        "_trials",
        "is_closed",
        "open_until",
    )

    def __init__(self) -> None:
        self.is_closed = True
        self.open_until = 0.0
        self._open_for = 0.0  # How long it was last open.
        self._closed_at = 0.0
        self._trials = 0  # Half-open calls in flight,
        self._passed = 0  # and those that succeeded.
        self._consecutive = 0
        self._calls = 0.0  # Both fade with time since _stamp.
        self._failures = 0.0
        self._stamp = 0.0

    def state(self, now: float) -> v1.CircuitState.ValueType:
        if self.is_closed:
            return v1.CIRCUIT_STATE_CLOSED
        return v1.CIRCUIT_STATE_OPEN if now < self.open_until else v1.CIRCUIT_STATE_HALF_OPEN

    def admits(self, now: float, policy: BreakerPolicy) -> bool:
        """Whether a call may begin."""
        return self.is_closed or (
            now >= self.open_until and self._trials + self._passed < policy.half_open_calls
        )

    def begin(self, now: float) -> None:
        """A call begins; in the half-open state it takes one of the places."""
        if not self.is_closed and now >= self.open_until:
            self._trials += 1

    def neutral(self, now: float) -> None:
        """A call ended without a verdict; in the half-open state its place is free again."""
        if not self.is_closed and now >= self.open_until and self._trials:
            self._trials -= 1

    def succeed(self, now: float, policy: BreakerPolicy) -> None:
        if self.is_closed:
            self._consecutive = 0
            self._fade(now, policy)
            self._calls += 1.0
        elif now >= self.open_until:
            self.neutral(now)
            self._passed += 1
            if self._passed >= policy.half_open_calls:
                self._close(now)

    def fail(self, now: float, policy: BreakerPolicy) -> None:
        if self.is_closed:
            self._consecutive += 1
            self._fade(now, policy)
            self._calls += 1.0
            self._failures += 1.0
            if self._consecutive >= policy.consecutive_failures or (
                self._calls >= policy.min_calls
                and self._failures >= policy.error_rate * self._calls
            ):
                self._open(now, policy)
        elif now >= self.open_until:
            self._open(now, policy)

    def _fade(self, now: float, policy: BreakerPolicy) -> None:
        kept = exp((self._stamp - now) / policy.ewma_seconds)
        self._calls *= kept
        self._failures *= kept
        self._stamp = now

    def _open(self, now: float, policy: BreakerPolicy) -> None:
        # Earlier openings are forgotten once it has stayed closed as long as it was open.
        again = not self.is_closed or now - self._closed_at < self._open_for
        wanted = 2.0 * self._open_for if again else policy.open_seconds
        self._open_for = min(max(wanted, policy.open_seconds), policy.max_cooldown)
        self.open_until = now + self._open_for
        self.is_closed = False
        self._trials = self._passed = 0

    def _close(self, now: float) -> None:
        self.is_closed = True
        self._closed_at = now
        self._consecutive = 0
        self._calls = self._failures = 0.0
