"""The limits and budgets in force, each with the gate that decides on it."""

from collections.abc import Callable, Iterable, Sequence

from trunkline_server.clock import Clock
from trunkline_server.governance.quotas.budgets import SpendGate
from trunkline_server.governance.quotas.compiled import Compiled
from trunkline_server.governance.quotas.desk import Desk
from trunkline_server.governance.quotas.gates import Gate, RateGate, SlotGate, Subject
from trunkline_server.governance.quotas.leases import LeaseGate, LeasePolicy, make_lease_gate
from trunkline_server.governance.quotas.ports import Audience
from trunkline_server.governance.quotas.rules import Budget, Limit, Measure, Mode
from trunkline_server.governance.quotas.shared import SharedBudget, SharedLimit


class RuleBook:
    """Rules by what they are asked about.

    `of_calls` are all but those of providers, which are `of_attempts`; `of_more` are those of
    calls that a further attempt may draw on once more: of tokens and of money. Without a `desk`
    each rule is decided in this process; `seeds` tells whether budgets begin with sums of a
    ledger.
    """

    def __init__(
        self,
        clock: Clock,
        audience: Audience,
        desk: Desk | None,
        leases: LeasePolicy,
        released: Callable[[Limit, Subject], None],
        *,
        seeds: bool,
    ) -> None:
        self.of_calls: list[Compiled] = []
        self.of_attempts: list[Compiled] = []
        self.of_more: list[Compiled] = []
        self._clock = clock
        self._audience = audience
        self._desk = desk
        self._leases = leases
        self._released = released
        self._seeds = seeds
        self._compiled: dict[tuple[type, str], Compiled] = {}

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
        for gate in self.lease_gates():
            if gate not in kept:
                gate.close()
        self._compiled = compiled
        self.of_calls = [one for one in compiled.values() if one.rule.scope != "provider"]
        self.of_attempts = [one for one in compiled.values() if one.rule.scope == "provider"]
        self.of_more = [one for one in self.of_calls if _grows(one.rule)]

    def all(self) -> Iterable[Compiled]:
        """Every rule in force."""
        return self._compiled.values()

    def budget(self, name: str) -> Compiled | None:
        """The budget of a name."""
        return self._compiled.get((Budget, name))

    def lease_gates(self) -> list[LeaseGate]:
        """The gates that hold shares taken ahead."""
        gates = [compiled.gate for compiled in self._compiled.values()]
        return [gate for gate in gates if isinstance(gate, LeaseGate)]

    def _compile(self, rule: Limit | Budget, before: Compiled | None) -> Compiled:
        if before is not None and before.rule == rule:
            return before
        if self._desk is not None:
            shared = SharedBudget(rule) if isinstance(rule, Budget) else SharedLimit(rule)
            gate: Gate | None = None
            if rule.mode is Mode.LEASED:
                gate = make_lease_gate(shared, self._desk, self._leases)
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

        return SpendGate(budget, self._clock, passed, seeds=self._seeds)


def _grows(rule: Limit | Budget) -> bool:
    return isinstance(rule, Budget) or rule.measure is Measure.TOKENS


def _akin(before: Limit | Budget, after: Budget) -> bool:
    """Whether a budget's counters stay true under its new version."""
    return isinstance(before, Budget) and (
        (before.scope, before.period, before.window, before.match)
        == (after.scope, after.period, after.window, after.match)
    )
