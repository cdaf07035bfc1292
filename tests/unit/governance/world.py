"""What tests of limits and budgets stand on: a clock to set, an audience that remembers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from trunkline_server.errors import TrunklineError
from trunkline_server.governance.quotas.governor import Governor, Grant
from trunkline_server.governance.quotas.rules import Budget, Demand, Limit

# 2026-03-01T00:00:00Z.
MARCH = 1_772_323_200.0
DAY = 86_400.0


class SetClock:
    """A clock that goes where it is told."""

    def __init__(self, wall: float = MARCH) -> None:
        self.now = 1000.0
        self.offset = wall - self.now

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.offset

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Heard:
    """An audience that remembers."""

    thresholds: list[tuple[str, str, float]] = field(default_factory=list)
    outages: list[tuple[bool, str]] = field(default_factory=list)
    lost: int = 0

    def budget_threshold(
        self, budget: str, subject: str, fraction: float, spent: int, amount: int
    ) -> None:
        assert spent >= fraction * amount
        self.thresholds.append((budget, subject, fraction))

    def outage(self, entered: bool, mode: str) -> None:
        self.outages.append((entered, mode))

    def settlements_lost(self, count: int) -> None:
        self.lost += count


def demand(**changes: object) -> Demand:
    """A demand of one caller, with these fields changed."""
    made = Demand(key="k1", user="u1", project="p1", tenant="t1", service="s1", model="m1")
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def governor(clock: SetClock, *rules: Limit | Budget, audience: Heard | None = None) -> Governor:
    """A governor of one process."""
    limits: Sequence[Limit] = [one for one in rules if isinstance(one, Limit)]
    budgets: Sequence[Budget] = [one for one in rules if isinstance(one, Budget)]
    return Governor(limits, budgets, clock=clock, audience=audience or Heard())


def admit(door: Governor, wish: Demand) -> Grant:
    """Admits a call that is decided at once."""
    grant = door.admit(wish)
    assert isinstance(grant, Grant)
    return grant


def refuse(door: Governor, wish: Demand) -> TrunklineError:
    """The refusal of a call that is decided at once."""
    with pytest.raises(TrunklineError) as caught:
        door.admit(wish)
    return caught.value
