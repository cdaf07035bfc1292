"""What budgets have left: listed for operators, off the request path."""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from trunkline_server.governance.quotas.budgets import SpendGate
from trunkline_server.governance.quotas.compiled import Compiled
from trunkline_server.governance.quotas.ports import SharedCounters
from trunkline_server.governance.quotas.rules import Budget
from trunkline_server.governance.quotas.shared import SharedBudget, tag_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What one subject has spent, and what is held for its calls; amounts in nanos of USD.

    `start` and `end` are Unix seconds; `end` is None for a rolling window. What a replica has
    leased ahead counts as reserved until it is settled.
    """

    tenant: str
    subject: str
    start: float
    end: float | None
    amount: int
    spent: int
    reserved: int


async def balances_of(
    compiled: Compiled, counters: SharedCounters | None, wall: float
) -> Iterable[Balance]:
    """The balances of a budget in the period that holds a moment, in no order.

    From the shared counters where they decide, else from this process. Raises
    CountersUnavailableError.
    """
    shared, gate, budget = compiled.shared, compiled.gate, compiled.rule
    if not isinstance(budget, Budget):
        return []
    if isinstance(shared, SharedBudget) and counters is not None:
        span = shared.span(wall)
        bounds = _bounds(budget, span.start, span.end, wall)
        known = await counters.spends(shared.rule_part, span.name, budget.step, budget.steps)
        return [
            Balance(
                tenant=_tenant_of(one.key),
                subject=_subject_of(one.key),
                start=bounds[0],
                end=bounds[1],
                amount=budget.amount,
                spent=one.used - one.reserved,
                reserved=one.reserved,
            )
            for one in known
        ]
    if not isinstance(gate, SpendGate):
        return []
    return [
        Balance(
            tenant=subject[0],
            subject=subject[1],
            start=bounds[0],
            end=bounds[1],
            amount=budget.amount,
            spent=counter.used - counter.reserved,
            reserved=counter.reserved,
        )
        for subject, counter in gate.present()
        for bounds in [_bounds(budget, counter.span.start, counter.span.end, wall)]
    ]


def _bounds(budget: Budget, start: float, end: float, wall: float) -> tuple[float, float | None]:
    return (wall - budget.window, None) if budget.steps else (start, end)


def _tenant_of(key: str) -> str:
    kind, _, name = tag_of(key).partition("=")
    return unquote(name) if kind == "t" else ""


def _subject_of(key: str) -> str:
    return unquote(key.split(":")[4])
