"""The decision on one call: every rule is looked at, and nothing is taken unless everything is."""

from collections.abc import Callable, Sequence

from trunkline_server.clock import Clock
from trunkline_server.governance.quotas.budgets import SpendGate
from trunkline_server.governance.quotas.compiled import Compiled
from trunkline_server.governance.quotas.denial import Denial, unavailable
from trunkline_server.governance.quotas.desk import Desk, Parts, Taken, Wanted
from trunkline_server.governance.quotas.gates import DRY, Gate, Subject
from trunkline_server.governance.quotas.grants import Ask, Grant
from trunkline_server.governance.quotas.leases import LeaseGate
from trunkline_server.governance.quotas.outage import Fallback, LocalPart, OutageModes
from trunkline_server.governance.quotas.ports import PERIOD_END, UNKNOWN, CountersUnavailableError
from trunkline_server.governance.quotas.rules import Demand, OnOutage
from trunkline_server.governance.quotas.seeding import Seeds

Outcome = Grant | Denial | Ask

# A call that finds its share taken by others each time it has fetched one tries again, for they
# get on by it; so often is not to be expected, and is told as a denial.
_MAX_FETCHES = 100


class Decider:
    """Decides calls; whether they then wait is not its matter.

    `queue` tells how long a newcomer would wait behind the callers that wait for a subject of
    a rule already, as seconds or UNKNOWN; None if nobody waits.
    """

    def __init__(
        self,
        clock: Clock,
        modes: OutageModes,
        seeds: Seeds,
        fallback: Fallback,
        desk: Desk | None,
        *,
        queue: Callable[[Compiled, Subject], float | None],
    ) -> None:
        self._clock = clock
        self._modes = modes
        self._seeds = seeds
        self._fallback = fallback
        self._desk = desk
        self._queue = queue
        self.nothing = self._grant((), ())

    def decide(
        self,
        rules: Sequence[Compiled],
        demand: Demand,
        *,
        fallen: Wanted | None = None,
        in_line: bool = False,
    ) -> Outcome:
        """Looks at every rule, and takes from all of them if that needs no waiting.

        `fallen` are rules to be left to the fallback; who is `in_line` overtakes nobody.
        """
        now = self._clock.monotonic()
        local: list[tuple[Gate, Subject]] = []
        ask = Ask(local, [], [])
        denials: list[Denial] = []
        for compiled in rules:
            subject = compiled.subject_of(demand)
            if subject is None or (fallen and (compiled, subject) in fallen):
                continue
            if compiled.max_wait and not in_line:
                behind = self._queue(compiled, subject)
                if behind is not None:
                    return Denial(compiled.rule, subject, behind)
            gate = compiled.gate
            if gate is None:
                ask.shared.append((compiled, subject))
                continue
            wait = gate.wait(subject, demand, now)
            if wait == 0.0:
                local.append((gate, subject))
            elif wait == DRY:
                ask.dry.append((compiled, subject))
            else:
                denials.append(self._denial(compiled, gate, subject, wait))
        if denials:
            return max(denials, key=Denial.weight)
        if ask.shared or ask.dry or fallen:
            return ask
        return self._grant(_take(local, demand, now), ()) if local else self.nothing

    async def ask(
        self, rules: Sequence[Compiled], demand: Demand, ask: Ask, *, in_line: bool = False
    ) -> Grant | Denial:
        """Fills what is dry, then claims from the shared counters. Raises TrunklineError where
        the mode of an outage is to deny."""
        fallen: Wanted = []
        for _ in range(_MAX_FETCHES):
            if not ask.dry:
                return await self._claim(demand, ask, fallen)
            for compiled, subject in ask.dry:
                try:
                    wait = await self._fill(compiled, subject, demand)
                except CountersUnavailableError:
                    fallen.append((compiled, subject))
                    continue
                if wait:
                    return Denial(compiled.rule, subject, wait)
            outcome = self.decide(rules, demand, fallen=fallen, in_line=in_line)
            if not isinstance(outcome, Ask):
                return outcome
            ask = outcome
        compiled, subject = ask.dry[0]
        return Denial(compiled.rule, subject, UNKNOWN)

    def _denial(self, compiled: Compiled, gate: Gate, subject: Subject, wait: float) -> Denial:
        if wait == PERIOD_END and isinstance(gate, SpendGate):
            wait = max(gate.counter(subject).span.end - self._clock.wall(), 1e-6)
        return Denial(compiled.rule, subject, wait)

    async def _fill(self, compiled: Compiled, subject: Subject, demand: Demand) -> float:
        """Fetches a seed or a lease; gives the wait of a denial, or 0.

        Raises CountersUnavailableError, or TrunklineError where a budget that has no seed is
        to deny.
        """
        gate = compiled.gate
        if isinstance(gate, LeaseGate):
            return await gate.refill(subject, demand)
        if isinstance(gate, SpendGate):
            span = gate.counter(subject).span
            amounts = await self._seeds.amounts(gate.budget, subject, span)
            if amounts is not None:
                gate.seed(subject, amounts)
            elif self._modes.budgets is OnOutage.DENY:
                raise unavailable(compiled.rule, subject)
            else:
                gate.go_unseeded(subject, self._clock.monotonic() + 1.0)
        return 0.0

    async def _claim(self, demand: Demand, ask: Ask, fallen: Wanted) -> Grant | Denial:
        local = _take(ask.local, demand, self._clock.monotonic())
        outcome: Parts | Denial = Parts([], [])
        try:
            if fallen:
                instead = self._fallback.take(fallen, demand)
                if isinstance(instead, Denial):
                    self._undo(local)
                    return instead
                local += instead
            if ask.shared and self._desk is not None:
                outcome = await self._desk.admit(ask.shared, demand)
        except BaseException:
            self._undo(local)
            raise
        if isinstance(outcome, Denial):
            self._undo(local)
            return outcome
        return self._grant([*local, *outcome.local], outcome.shared)

    def _undo(self, parts: Sequence[LocalPart]) -> None:
        now = self._clock.monotonic()
        for gate, subject, taken in parts:
            gate.undo(subject, taken, now)

    def _grant(self, parts: Sequence[LocalPart], taken: Sequence[Taken]) -> Grant:
        return Grant(self._clock, self._finish, parts, taken)

    def _finish(self, taken: Taken, tokens: int, cost: int) -> None:
        if self._desk is not None:
            self._desk.finish(taken, tokens, cost)


def _take(local: list[tuple[Gate, Subject]], demand: Demand, now: float) -> list[LocalPart]:
    return [(gate, subject, gate.take(subject, demand, now)) for gate, subject in local]
