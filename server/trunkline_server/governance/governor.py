"""The one door of limits and budgets: a call is admitted, and what it took is settled.

Rules that this process decides by itself, or from leases, are decided at once; all others
together in one round trip to the shared counters (in a cluster one per tenant, model and
provider concerned, at the same time). Nothing is taken unless everything is.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from trunkline_server.clock import Clock
from trunkline_server.governance.budgets import SpendGate
from trunkline_server.governance.compiled import Compiled
from trunkline_server.governance.denial import Denial, unavailable
from trunkline_server.governance.desk import Desk, Parts, Taken, Wanted
from trunkline_server.governance.gates import DRY, Gate, RateGate, SlotGate, Subject
from trunkline_server.governance.leases import LeaseGate, LeasePolicy, make_lease_gate
from trunkline_server.governance.outage import Fallback, LocalPart, OutageModes
from trunkline_server.governance.ports import (
    NEVER,
    PERIOD_END,
    UNKNOWN,
    Audience,
    CountersUnavailableError,
    SharedCounters,
    SpendSource,
)
from trunkline_server.governance.rules import Budget, Demand, Limit, Measure, Mode, OnOutage
from trunkline_server.governance.seeding import Seeds
from trunkline_server.governance.shared import SLOT_LEASE, SharedBudget, SharedLimit
from trunkline_server.governance.waiting import Line

# A call that finds its share taken by others each time it has fetched one gives up.
_MAX_FETCHES = 5
# How often the first of a line looks whether another replica has freed a slot, in seconds.
_LOOK_SECONDS = 0.05
_TICK_SECONDS = 0.5
_CENSUS_LEASE = 10.0


class Grant:
    """What one call holds. Exactly one of `settle` and `cancel` counts: the first."""

    __slots__ = ("_governor", "_parts", "_taken")

    def __init__(
        self, governor: "Governor", parts: Sequence[LocalPart], taken: Sequence[Taken]
    ) -> None:
        self._governor = governor
        self._parts = parts
        self._taken = taken

    def settle(self, tokens: int, cost_nanos: int) -> None:
        """The call is over, having consumed this. Never blocks, never raises."""
        parts, taken = self._parts, self._taken
        self._parts = self._taken = ()
        if parts:
            now = self._governor.clock.monotonic()
            for gate, subject, what in parts:
                gate.finish(subject, what, tokens, cost_nanos, now)
        for one in taken:
            self._governor.finish(one, tokens, cost_nanos)

    def cancel(self) -> None:
        """Nothing was consumed: tokens and money are given back, the request still counts."""
        self.settle(0, 0)


@dataclass(slots=True)
class _Ask:
    """A call that cannot be decided without waiting: for rules that are dry, then shared ones."""

    local: list[tuple[Gate, Subject]]
    shared: Wanted
    dry: Wanted


Outcome = Grant | Denial | _Ask


class Governor:
    """Limits and budgets of one process. Belongs to one event loop.

    `modes` tell what holds while `counters` are away; without counters this process is alone.
    `source` has the sums with which budgets begin, waited for up to `seed_timeout` seconds.
    """

    def __init__(
        self,
        limits: Sequence[Limit],
        budgets: Sequence[Budget],
        *,
        clock: Clock,
        audience: Audience,
        counters: SharedCounters | None = None,
        source: SpendSource | None = None,
        modes: OutageModes | None = None,
        leases: LeasePolicy | None = None,
        seed_timeout: float = 0.25,
    ) -> None:
        self.clock = clock
        self._audience = audience
        self._modes = modes or OutageModes()
        self._lease_policy = leases or LeasePolicy()
        self._seeds = Seeds(source, clock, seed_timeout)
        self._fallback = Fallback(self._modes, clock, audience, self._released)
        self._desk: Desk | None = None
        if counters is not None:
            self._desk = Desk(
                counters,
                self._seeds,
                self._fallback,
                clock=clock,
                audience=audience,
                on_release=self._released,
            )
        self._lines: dict[tuple[str, Subject], Line] = {}
        self._compiled: dict[tuple[type, str], Compiled] = {}
        self._call_rules: list[Compiled] = []
        self._attempt_rules: list[Compiled] = []
        self._nothing = Grant(self, (), ())
        self._task: asyncio.Task[None] | None = None
        self._away = False
        self.configure(limits, budgets)

    def configure(self, limits: Sequence[Limit], budgets: Sequence[Budget]) -> None:
        """Puts limits and budgets in force. What is unchanged keeps its counters.

        Raises ValueError if two limits or two budgets share a name.
        """
        compiled: dict[tuple[type, str], Compiled] = {}
        rules: list[Limit | Budget] = [*limits, *budgets]
        for rule in rules:
            place = (type(rule), rule.name)
            if place in compiled:
                raise ValueError(f"two rules are named {rule.name!r}")
            compiled[place] = self._compile(rule, self._compiled.get(place))
        kept = {one.gate for one in compiled.values()}
        for gate in self._lease_gates():
            if gate not in kept:
                gate.close()
        self._compiled = compiled
        by_scope = list(compiled.values())
        self._call_rules = [one for one in by_scope if one.rule.scope != "provider"]
        self._attempt_rules = [one for one in by_scope if one.rule.scope == "provider"]

    async def start(self) -> None:
        """Begins the work in the background: leases, renewals, the count of replicas."""
        if self._desk is not None:
            await self._count_replicas(self._desk)
            self._task = asyncio.get_running_loop().create_task(self._tick(self._desk))

    async def close(self, drain: float = 1.0) -> None:
        """Gives leases back and settles what is pending, within so many seconds."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._desk is not None:
            for gate in self._lease_gates():
                gate.close()
            await self._desk.settler.drain(drain)
            await self._desk.settler.close()

    def counters_changed(self, available: bool) -> None:
        """The breaker of the shared counters opened or closed."""
        if available == (not self._away) or self._desk is None:
            return
        self._away = not available
        self._audience.outage(self._away, str(self._modes))
        if available:
            for compiled in self._compiled.values():
                compiled.fallback = None
            self._fallback.pay(self._desk.settler)
            self._desk.settler.nudge()

    def admit(self, demand: Demand) -> Grant | Awaitable[Grant]:
        """Admits a call under all rules but those of providers.

        Raises TrunklineError, at once or when awaited: RATE_LIMIT, QUOTA_EXCEEDED, or
        SERVICE_UNAVAILABLE where the mode of an outage is to deny.
        """
        rules = self._call_rules
        return self._admit(rules, demand) if rules else self._nothing

    def admit_attempt(self, demand: Demand) -> Grant | Awaitable[Grant]:
        """Admits one attempt under the rules of `demand.provider`; raises as `admit` does."""
        rules = self._attempt_rules
        return self._admit(rules, demand) if rules else self._nothing

    def finish(self, taken: Taken, tokens: int, cost: int) -> None:
        """Settles what a grant holds of the shared counters."""
        if self._desk is not None:
            self._desk.finish(taken, tokens, cost)

    def _admit(self, rules: list[Compiled], demand: Demand) -> Grant | Awaitable[Grant]:
        outcome = self._decide(rules, demand)
        if outcome.__class__ is Grant:
            return outcome
        if isinstance(outcome, Denial) and not _waits(outcome):
            raise outcome.error(demand)
        return self._pursue(rules, demand, outcome)

    def _decide(
        self,
        rules: list[Compiled],
        demand: Demand,
        *,
        fallen: Wanted | None = None,
        in_line: bool = False,
    ) -> Outcome:
        """Looks at every rule, and takes from all of them if that needs no waiting.

        `fallen` are rules to be left to the fallback; who is `in_line` overtakes nobody.
        """
        now = self.clock.monotonic()
        local: list[tuple[Gate, Subject]] = []
        ask = _Ask(local, [], [])
        denials: list[Denial] = []
        for compiled in rules:
            subject = compiled.subject_of(demand)
            if subject is None or (fallen and (compiled, subject) in fallen):
                continue
            if compiled.max_wait and not in_line and (compiled.rule.name, subject) in self._lines:
                return Denial(compiled.rule, subject, UNKNOWN)
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
        return Grant(self, _take(local, demand, now), ()) if local else self._nothing

    def _denial(self, compiled: Compiled, gate: Gate, subject: Subject, wait: float) -> Denial:
        if wait == PERIOD_END and isinstance(gate, SpendGate):
            wait = max(gate.counter(subject).span.end - self.clock.wall(), 1e-6)
        return Denial(compiled.rule, subject, wait)

    async def _pursue(self, rules: list[Compiled], demand: Demand, outcome: Outcome) -> Grant:
        """Sees a call through that could not be decided at once. Raises TrunklineError."""
        if isinstance(outcome, _Ask):
            outcome = await self._ask(rules, demand, outcome)
        if isinstance(outcome, Grant):
            return outcome
        rule, subject = outcome.rule, outcome.subject
        if not isinstance(rule, Limit) or not _waits(outcome):
            raise outcome.error(demand)
        now = self.clock.monotonic()
        until = min(now + rule.max_wait, demand.deadline)
        place = (rule.name, subject)
        line = self._lines.setdefault(place, Line())
        try:
            if line.waiting >= rule.max_waiting or now + outcome.wait > until:
                raise outcome.error(demand)
            loop_time = asyncio.get_running_loop().time()
            async with line.turn(loop_time + until - now):
                return await self._first_in_line(rules, demand, line, until)
        except TimeoutError:
            raise outcome.error(demand) from None
        finally:
            if not line.waiting:
                self._lines.pop(place, None)

    async def _first_in_line(
        self, rules: list[Compiled], demand: Demand, line: Line, until: float
    ) -> Grant:
        while True:
            outcome = self._decide(rules, demand, in_line=True)
            if isinstance(outcome, _Ask):
                outcome = await self._ask(rules, demand, outcome, in_line=True)
            if isinstance(outcome, Grant):
                return outcome
            left = until - self.clock.monotonic()
            if not _waits(outcome) or left <= 0.0 or outcome.wait > left:
                raise outcome.error(demand)
            await line.pause(outcome.wait if outcome.wait >= 0.0 else min(_LOOK_SECONDS, left))

    async def _ask(
        self, rules: list[Compiled], demand: Demand, ask: _Ask, in_line: bool = False
    ) -> Grant | Denial:
        """Fills what is dry, then claims from the shared counters."""
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
            outcome = self._decide(rules, demand, fallen=fallen, in_line=in_line)
            if not isinstance(outcome, _Ask):
                return outcome
            ask = outcome
        compiled, subject = ask.dry[0]
        return Denial(compiled.rule, subject, UNKNOWN)

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
                gate.go_unseeded(subject, self.clock.monotonic() + 1.0)
        return 0.0

    async def _claim(self, demand: Demand, ask: _Ask, fallen: Wanted) -> Grant | Denial:
        local = _take(ask.local, demand, self.clock.monotonic())
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
        return Grant(self, [*local, *outcome.local], outcome.shared)

    def _undo(self, parts: Sequence[LocalPart]) -> None:
        now = self.clock.monotonic()
        for gate, subject, taken in parts:
            gate.undo(subject, taken, now)

    def _released(self, rule: Limit, subject: Subject) -> None:
        line = self._lines.get((rule.name, subject))
        if line is not None:
            line.wake()

    def _compile(self, rule: Limit | Budget, before: Compiled | None) -> Compiled:
        if before is not None and before.rule == rule:
            return before
        if self._desk is not None:
            shared = SharedBudget(rule) if isinstance(rule, Budget) else SharedLimit(rule)
            gate: Gate | None = None
            if rule.mode is Mode.LEASED:
                gate = make_lease_gate(shared, self._desk, self._lease_policy)
            return Compiled(rule, gate, shared)
        if isinstance(rule, Limit):
            if rule.measure is not Measure.CONCURRENCY:
                return Compiled(rule, RateGate(rule), None)
            return Compiled(rule, SlotGate(rule, lambda who: self._released(rule, who)), None)
        if before is not None and isinstance(before.gate, SpendGate) and _akin(before.rule, rule):
            before.gate.revise(rule)
            return Compiled(rule, before.gate, None)
        return Compiled(rule, self._spend_gate(rule), None)

    def _spend_gate(self, budget: Budget) -> SpendGate:
        def passed(subject: Subject, fraction: float, spent: int, amount: int) -> None:
            self._audience.budget_threshold(budget.name, subject[1], fraction, spent, amount)

        return SpendGate(budget, self.clock, passed, seeds=self._seeds.present)

    def _lease_gates(self) -> list[LeaseGate]:
        gates = [compiled.gate for compiled in self._compiled.values()]
        return [gate for gate in gates if isinstance(gate, LeaseGate)]

    async def _tick(self, desk: Desk) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            ticks += 1
            for gate in self._lease_gates():
                gate.tick(self.clock.monotonic())
            if ticks % round(SLOT_LEASE / 3.0 / _TICK_SECONDS) == 0:
                desk.renew()
            if ticks % round(_CENSUS_LEASE / 4.0 / _TICK_SECONDS) == 0:
                await self._count_replicas(desk)

    async def _count_replicas(self, desk: Desk) -> None:
        with contextlib.suppress(CountersUnavailableError):
            self._fallback.replicas = await desk.counters.census(desk.replica, _CENSUS_LEASE)
            self._fallback.pay(desk.settler)


def _take(local: list[tuple[Gate, Subject]], demand: Demand, now: float) -> list[LocalPart]:
    return [(gate, subject, gate.take(subject, demand, now)) for gate, subject in local]


def _waits(denial: Denial) -> bool:
    """Whether a call may wait for the rule that denies it."""
    return isinstance(denial.rule, Limit) and denial.rule.max_wait > 0.0 and denial.wait != NEVER


def _akin(before: Limit | Budget, after: Budget) -> bool:
    """Whether a budget's counters stay true under its new version."""
    return isinstance(before, Budget) and (
        (before.scope, before.period, before.window, before.match)
        == (after.scope, after.period, after.window, after.match)
    )
