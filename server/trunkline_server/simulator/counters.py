"""What the simulator remembers between calls: counts, strikes of faults, limits of requests."""

import random
from collections import Counter
from collections.abc import Callable

from trunkline_server.simulator.dialect import Quota
from trunkline_server.simulator.script import Script

_WINDOW_SECONDS = 60.0
# An account is anything that calls itself one: keep only so many, oldest first out.
_MOST_ACCOUNTS = 10_000


class Counters:
    """What has been called and how it ended, for GET /sim/calls."""

    def __init__(self) -> None:
        self.active = 0
        self.clear()

    def clear(self) -> None:
        """Forgets everything but the calls that are still running."""
        self.calls: dict[str, Counter[str]] = {}
        self.cancelled: dict[str, Counter[str]] = {}
        self.statuses: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()

    def called(self, dialect: str, model: str) -> None:
        self.calls.setdefault(dialect, Counter())[model] += 1

    def gone(self, dialect: str, model: str) -> None:
        """A caller went away before its answer had ended."""
        self.cancelled.setdefault(dialect, Counter())[model] += 1

    def report(self, open_connections: int) -> dict[str, object]:
        return {
            "total": sum(models.total() for models in self.calls.values()),
            "calls": self.calls,
            "cancelled": sum(models.total() for models in self.cancelled.values()),
            "cancelled_calls": self.cancelled,
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "faults": self.faults,
            "active": self.active,
            "open_connections": open_connections,
        }


class Strikes:
    """Decides which of the calls that a script lets fail do fail.

    Calls are told apart by the script's own words, so that two tests with different scripts
    do not take each other's failures.
    """

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._random: dict[str, random.Random] = {}

    def clear(self) -> None:
        self._count.clear()
        self._random.clear()

    def strikes(self, words: str, script: Script) -> bool:
        """True when this call is one that fails."""
        if not script.may_fail:
            return False
        if script.fail_first:
            self._count[words] += 1
            if self._count[words] <= script.fail_first:
                return True
        if script.error_rate:
            rng = self._random.get(words)
            if rng is None:
                # Repeatable, not secret.
                rng = self._random[words] = random.Random(script.seed)  # noqa: S311
            return rng.random() < script.error_rate
        return not script.fail_first


class RequestLimit:
    """Counts requests per account in windows of a minute that begin with the first one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._windows: dict[str, tuple[float, int]] = {}

    def clear(self) -> None:
        self._windows.clear()

    def take(self, account: str, limit: int) -> tuple[bool, Quota]:
        """Counts one request; False when it is over the limit, and then it is not counted."""
        now = self._clock()
        begin, used = self._windows.get(account, (now, 0))
        if now - begin >= _WINDOW_SECONDS:
            begin, used = now, 0
        allowed = used < limit
        used += allowed
        if account not in self._windows and len(self._windows) >= _MOST_ACCOUNTS:
            del self._windows[next(iter(self._windows))]
        self._windows[account] = (begin, used)
        return allowed, Quota(limit, limit - used, begin + _WINDOW_SECONDS - now)
