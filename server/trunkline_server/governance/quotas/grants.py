"""What a call holds of limits and budgets, and what it must still ask for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trunkline_server.clock import Clock
from trunkline_server.governance.quotas.desk import Taken, Wanted
from trunkline_server.governance.quotas.gates import Gate, Subject
from trunkline_server.governance.quotas.outage import LocalPart

# Settles what a grant holds of the shared counters: the part, tokens, nanos.
Finish = Callable[[Taken, int, int], None]


class Grant:
    """What one call holds. Exactly one of `settle` and `cancel` counts: the first."""

    __slots__ = ("_clock", "_finish", "_parts", "_taken")

    def __init__(
        self, clock: Clock, finish: Finish, parts: Sequence[LocalPart], taken: Sequence[Taken]
    ) -> None:
        self._clock = clock
        self._finish = finish
        self._parts = parts
        self._taken = taken

    def settle(self, tokens: int, cost_nanos: int) -> None:
        """The call is over, having consumed this. Never blocks, never raises."""
        parts, taken = self._parts, self._taken
        self._parts = self._taken = ()
        if parts:
            now = self._clock.monotonic()
            for gate, subject, what in parts:
                gate.finish(subject, what, tokens, cost_nanos, now)
        for one in taken:
            self._finish(one, tokens, cost_nanos)

    def cancel(self) -> None:
        """Nothing was consumed: tokens and money are given back, the request still counts."""
        self.settle(0, 0)


@dataclass(slots=True)
class Ask:
    """A call that cannot be decided without waiting: for rules that are dry, then shared ones."""

    local: list[tuple[Gate, Subject]]
    shared: Wanted
    dry: Wanted
