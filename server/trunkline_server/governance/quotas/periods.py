"""The periods of budgets: calendar days and months in UTC, and rolling windows."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from trunkline_server.governance.quotas.rules import Budget, Period


@dataclass(frozen=True, slots=True)
class Span:
    """One period: its name, such as "2026-03-01", and its bounds in Unix seconds.

    A rolling window is one endless span; what leaves it is a matter of its steps.
    """

    name: str
    start: float
    end: float


_ENDLESS = Span("rolling", float("-inf"), float("inf"))


class Calendar:
    """Tells the period of a moment; remembers the last, which the next call most likely needs."""

    __slots__ = ("_last", "_period")

    def __init__(self, period: Period) -> None:
        self._period = period
        self._last = _ENDLESS if period is Period.ROLLING else Span("", 0.0, 0.0)

    def span(self, wall: float) -> Span:
        """The period that holds a moment, in Unix seconds."""
        last = self._last
        if not last.start <= wall < last.end:
            last = self._last = _span(self._period, wall)
        return last


def _span(period: Period, wall: float) -> Span:
    moment = datetime.fromtimestamp(wall, UTC)
    start = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if period is Period.DAILY:
        end = start + timedelta(days=1)
        name = f"{start:%Y-%m-%d}"
    else:
        start = start.replace(day=1)
        # No month has 32 days, and the first of the next lies within.
        end = (start + timedelta(days=32)).replace(day=1)
        name = f"{start:%Y-%m}"
    return Span(name, start.timestamp(), end.timestamp())


def seed_starts(budget: Budget, span: Span, wall: float) -> tuple[list[int], list[float]]:
    """The buckets of a budget in force at a moment, and when each of them starts."""
    if budget.period is not Period.ROLLING:
        return [0], [span.start]
    current = int(wall // budget.step)
    buckets = list(range(current - budget.steps, current + 1))
    return buckets, [float(bucket * budget.step) for bucket in buckets]


def turn_of(budget: Budget, wall: float) -> int:
    """Which of its windows a rolling budget is in, for what happens once per period; 0 for
    calendar periods."""
    return int(wall // budget.window) if budget.steps else 0
