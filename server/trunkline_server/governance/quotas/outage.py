"""What holds while the shared counters are away: each replica's share, and what it then owes."""

from collections.abc import Callable
from dataclasses import dataclass

from trunkline_server.clock import Clock
from trunkline_server.governance.quotas.budgets import SpendGate
from trunkline_server.governance.quotas.compiled import Compiled
from trunkline_server.governance.quotas.denial import Denial, unavailable
from trunkline_server.governance.quotas.gates import DRY, Gate, RateGate, SlotGate, Subject
from trunkline_server.governance.quotas.periods import Span
from trunkline_server.governance.quotas.ports import PERIOD_END, Audience, SpendSettlement
from trunkline_server.governance.quotas.rules import Budget, Demand, Limit, Measure, OnOutage
from trunkline_server.governance.quotas.settling import Settler
from trunkline_server.governance.quotas.shared import SharedBudget

# What is owed is summed up over this many seconds, so that little of it can be counted twice
# when the counters come back with the ledger's sums.
_DEBT_SECONDS = 5.0
_MAX_DEBTS = 10_000
_MAX_REMEMBERED = 10_000

LocalPart = tuple[Gate, Subject, object]


@dataclass(frozen=True, slots=True)
class OutageModes:
    """What holds for limits and for budgets while the shared counters are away."""

    limits: OnOutage = OnOutage.LOCAL
    budgets: OnOutage = OnOutage.LOCAL

    def __str__(self) -> str:
        if self.limits is self.budgets:
            return self.limits.value
        return f"limits {self.limits.value}, budgets {self.budgets.value}"

    def of(self, rule: Limit | Budget) -> OnOutage:
        """The mode of a rule."""
        return self.budgets if isinstance(rule, Budget) else self.limits


@dataclass(slots=True)
class _Debt:
    shared: SharedBudget
    key: str
    bucket: int
    keep: int
    amount: int = 0
    latest: float = 0.0


class Fallback:
    """Decides calls without the shared counters.

    A budget's local counter goes on from what the shared one was last seen to hold, and of
    what is left spends this replica's share. What it spends is owed to the shared counter.
    """

    def __init__(
        self,
        modes: OutageModes,
        clock: Clock,
        audience: Audience,
        on_release: Callable[[Limit, Subject], None],
    ) -> None:
        self.replicas = 1  # As last counted.
        self._modes = modes
        self._clock = clock
        self._audience = audience
        self._on_release = on_release
        self._used: dict[str, int] = {}
        self._debts: dict[tuple[str, int, int], _Debt] = {}

    def take(
        self, wanted: list[tuple[Compiled, Subject]], demand: Demand
    ) -> list[LocalPart] | Denial:
        """Takes from all rules or none. Raises TrunklineError where the mode is to deny."""
        now = self._clock.monotonic()
        worst: Denial | None = None
        parts: list[tuple[Gate, Subject]] = []
        for compiled, subject in wanted:
            mode = self._modes.of(compiled.rule)
            if mode is OnOutage.DENY:
                raise unavailable(compiled.rule, subject)
            if mode is OnOutage.ALLOW and isinstance(compiled.rule, Limit):
                continue
            gate = self._gate(compiled)
            wait = self._wait(compiled, gate, subject, demand, now)
            if wait and mode is OnOutage.LOCAL:
                if wait == PERIOD_END and isinstance(gate, SpendGate):
                    wait = gate.counter(subject).span.end - self._clock.wall()
                denial = Denial(compiled.rule, subject, wait)
                if worst is None or denial.weight() > worst.weight():
                    worst = denial
            parts.append((gate, subject))
        if worst is not None:
            return worst
        return [(gate, subject, gate.take(subject, demand, now)) for gate, subject in parts]

    def remember(self, key: str, used: int) -> None:
        """Takes note of what a shared counter holds, to go on from there."""
        if len(self._used) >= _MAX_REMEMBERED:
            self._used.clear()
        self._used[key] = used

    def pay(self, settler: Settler) -> None:
        """Hands what is owed to the shared counters, which are back."""
        debts, self._debts = self._debts, {}
        for number, debt in enumerate(debts.values()):
            holder = f"{settler.replica}-owed-{debt.latest:.6f}-{number}"
            settler.put(
                SpendSettlement(
                    *(debt.key, holder, 0, debt.bucket, debt.amount, "", 0.0),
                    keep=debt.keep,
                    rolling=bool(debt.shared.budget.steps),
                ),
                since=debt.latest,
            )

    def _wait(
        self, compiled: Compiled, gate: Gate, subject: Subject, demand: Demand, now: float
    ) -> float:
        wait = gate.wait(subject, demand, now)
        if wait == DRY and isinstance(gate, SpendGate):
            shared = compiled.shared
            if isinstance(shared, SharedBudget):
                wall = self._clock.wall()
                key = shared.key(subject, shared.span(wall))
                bucket = int(wall // shared.budget.step) if shared.budget.steps else 0
                gate.seed(subject, [(bucket, self._used.get(key, 0))])
            wait = gate.wait(subject, demand, now)
        return wait

    def _gate(self, compiled: Compiled) -> Gate:
        gate, share = compiled.fallback, 1.0 / self.replicas
        if gate is None or (share != compiled.share and not isinstance(gate, SpendGate)):
            gate = compiled.fallback = self._make(compiled, share)
            compiled.share = share
        return gate

    def _make(self, compiled: Compiled, share: float) -> Gate:
        rule = compiled.rule
        if isinstance(rule, Budget):
            shared = compiled.shared

            def owe(subject: Subject, span: Span, bucket: int, truth: int) -> None:
                if truth and isinstance(shared, SharedBudget):
                    self._owe(shared, subject, span, bucket, truth)

            def passed(subject: Subject, fraction: float, spent: int, amount: int) -> None:
                self._audience.budget_threshold(rule.name, subject[1], fraction, spent, amount)

            return SpendGate(rule, self._clock, passed, seeds=True, on_settled=owe, share=share)
        if rule.measure is Measure.CONCURRENCY:
            return SlotGate(rule, lambda subject: self._on_release(rule, subject), share)
        return RateGate(rule, share)

    def _owe(
        self, shared: SharedBudget, subject: Subject, span: Span, bucket: int, truth: int
    ) -> None:
        now = self._clock.monotonic()
        key = shared.key(subject, span)
        place = (key, bucket, int(now // _DEBT_SECONDS))
        debt = self._debts.get(place)
        if debt is None:
            if len(self._debts) >= _MAX_DEBTS:
                self._audience.settlements_lost(1)
                return
            keep = shared.keep(self._clock.wall())
            debt = self._debts[place] = _Debt(shared, key, bucket, keep)
        debt.amount += truth
        debt.latest = now
