"""Which target a call tries next, and after what pause: the policy of the attempt loop.

Pure: time and randomness are passed in, and nothing is awaited. The one owner of retries:
no other layer repeats an attempt.
"""

import random
from dataclasses import dataclass

from trunkline import v1
from trunkline_server.engine.budget import RetryBudget
from trunkline_server.engine.verdict import Verdict
from trunkline_server.errors import UpstreamError
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.plan import Plan
from trunkline_server.routing.snapshot import Deployment, HedgePolicy


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt to make: its target, and the pause before it in seconds."""

    target: Deployment
    delay: float = 0.0


class Itinerary:
    """One call's way along its plan.

    A retry of the same target and a hedge each draw on the retry budget, for they add load
    where load may be the trouble. A fallback draws on it only when its target's breaker is
    not closed: moving a call from a failing deployment to a sound one adds nothing to what
    fails, and refusing it would turn one provider's trouble into the caller's.
    """

    def __init__(
        self,
        plan: Plan,
        health: HealthTable,
        budget: RetryBudget,
        rng: random.Random,
        deadline: float,
    ) -> None:
        self._targets = plan.targets
        self._policy = plan.route.attempts
        self._health = health
        self._budget = budget
        self._rng = rng
        self._deadline = deadline
        self._position = 0
        self._retries = 0

    def first(self) -> Step:
        """The first attempt; it is always made."""
        return Step(self._targets[0])

    def after(self, error: UpstreamError, verdict: Verdict, now: float) -> Step | None:
        """The next attempt after a failure of the present target, or None to give up."""
        if verdict.retry and self._retries < self._policy.retries:
            step = self._retry(error, now)
            if step is not None:
                return step
        if not verdict.fallback:
            return None
        return self.skip(now)

    def skip(self, now: float) -> Step | None:
        """Moves on to the next target, without judging the present one."""
        while self._position + 1 < len(self._targets):
            self._position += 1
            self._retries = 0
            target = self._targets[self._position]
            if not self._can_finish(target, now):
                continue
            sound = self._health.state(target.slot, now) == v1.CIRCUIT_STATE_CLOSED
            if sound or self._budget.withdraw(now):
                return Step(target)
        return None

    def hedge(self, now: float) -> Step | None:
        """A second attempt beside a slow one: the next target if there is one and it is sound."""
        if self._position + 1 >= len(self._targets):
            return None
        target = self._targets[self._position + 1]
        if not self._health.available(target.slot, now) or not self._can_finish(target, now):
            return None
        if not self._budget.withdraw(now):
            return None
        self._position += 1
        self._retries = 0
        return Step(target)

    def hedge_delay(self, wanted: bool | None, *, first_token: bool = False) -> float | None:
        """Seconds after which the first attempt counts as slow; None when that is unknown, or
        when hedging is not wanted.

        `wanted` is the request's word: None leaves it to the route. For streams what counts is
        the first token.
        """
        hedge = self._policy.hedge
        if wanted is False or len(self._targets) < 2 or (hedge is None and not wanted):
            return None
        hedge = hedge or HedgePolicy()
        usual = self._health.latency_percentile(
            self._targets[0].slot, hedge.percentile, first_token=first_token
        )
        return None if usual is None else max(usual, hedge.min_delay)

    def _retry(self, error: UpstreamError, now: float) -> Step | None:
        target = self._targets[self._position]
        policy = self._policy
        ceiling = min(policy.backoff_max, policy.backoff_base * 2**self._retries)
        delay = self._rng.uniform(0.0, ceiling)
        if error.retry_after is not None:
            # A vendor that names a pause knows better; one longer than our own patience
            # means that the next target is tried at once.
            if error.retry_after > policy.backoff_max:
                return None
            delay = max(delay, error.retry_after)
        if not self._can_finish(target, now + delay) or not self._budget.withdraw(now):
            return None
        self._retries += 1
        return Step(target, delay)

    def _can_finish(self, target: Deployment, start: float) -> bool:
        """Whether an attempt begun at `start` has a fair chance before the deadline: half the
        target's usual latency at least, or any time at all while that is unknown."""
        remaining = self._deadline - start
        usual = self._health.latency(target.slot)
        return remaining > (0.5 * usual if usual is not None else 0.0)
