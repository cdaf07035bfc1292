"""The retry budget: extra attempts stay a bounded share of the traffic."""


class RetryBudget:
    """A token bucket that calls fill and extra attempts empty.

    Every call deposits `ratio` of a token, and `min_per_second` tokens a second flow in
    besides, so that a quiet service may still retry. At most ten seconds of the latter are
    kept, or a hundred deposits if that is more. During an outage N calls may so add at most
    `ratio` * N attempts beyond the flow, however generous the retry policy of a route.
    """

    def __init__(self, ratio: float = 0.2, min_per_second: float = 10.0) -> None:
        self._ratio = ratio
        self._flow = min_per_second
        self._most = max(10.0 * min_per_second, 100.0 * ratio)
        self._tokens = self._most
        self._filled_at: float | None = None

    def deposit(self) -> None:
        """Counts one call."""
        self._tokens = min(self._most, self._tokens + self._ratio)

    def withdraw(self, now: float) -> bool:
        """Takes a token for an extra attempt at `now`, monotonic seconds; False if none is left."""
        if self._filled_at is not None:
            self._tokens = min(self._most, self._tokens + (now - self._filled_at) * self._flow)
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
