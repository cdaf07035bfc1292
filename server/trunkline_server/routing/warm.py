"""Prompts that a vendor has the beginning of: when it pays to go where that is.

A strategy has chosen; a deployment whose vendor keeps the beginning of this prompt goes first in
its place when what the cached tokens save is more than what the change costs: the dearer price
of the rest, and the load, which is worth a share of the prompt's price for each time that a
deployment has as many calls under way as the mean, beyond the idlest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from trunkline import v1
from trunkline_server.routing.draws import Case
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.snapshot import Deployment

# In pools larger than this the mean load is that of the deployments compared.
_MEAN_OF = 64


@dataclass(frozen=True, slots=True)
class Warmth:
    """How many tokens from a prompt's beginning each deployment has seen lately, by name, and
    what load is worth, as a part of the prompt's price."""

    tokens: dict[str, int] = field(default_factory=dict)
    load: float = 0.5


def warm_first(case: Case, targets: Sequence[Deployment], warmth: Warmth) -> Sequence[Deployment]:
    """The targets, with the deployment first whose cached beginning is worth most beyond what
    choosing it costs; as they are when none pays.

    It must be as eligible as they are, and under a strategy of priorities of the first one's.
    """
    first = targets[0]
    if first.price is None:
        return targets
    rivals = _rivals(case, first, warmth)
    if not rivals:
        return targets
    inputs, outputs = case.query.input_tokens, case.query.output_tokens
    at = case.pool.priced_at
    base = first.price.estimate(inputs, outputs, at)
    loads = _loads(case, [first, *rivals])
    worth = warmth.load * first.price.estimate(inputs, 0, at)
    best, most = first, _saved(first.price, warmth.tokens.get(first.name, 0), inputs, at)
    most -= worth * loads[0]
    for row, load in zip(rivals, loads[1:], strict=True):
        if row.price is None:
            continue
        gain = _saved(row.price, warmth.tokens[row.name], inputs, at) - worth * load
        gain -= row.price.estimate(inputs, outputs, at) - base
        if gain > most:
            best, most = row, gain
    if best is first:
        return targets
    return [best, *(row for row in targets if row is not best)][: case.want]


def _rivals(case: Case, first: Deployment, warmth: Warmth) -> list[Deployment]:
    names = _names(case.pool)
    found = [names[name] for name in warmth.tokens if name in names]
    strict = (case.query.strategy or case.pool.route.strategy or v1.STRATEGY_PRIORITY) == (
        v1.STRATEGY_PRIORITY
    )
    return [
        row
        for row in found
        if row is not first
        and row.weight > 0
        and row.slot not in case.unfit
        and case.health.available(row.slot, case.now)
        and not (strict and row.priority != first.priority)
    ]


def _names(pool: Pool) -> dict[str, Deployment]:
    names: dict[str, Deployment] | None = pool.prepared.get(_names)
    if names is None:
        names = pool.prepared[_names] = {row.name: row for row in pool.members}
    return names


def _loads(case: Case, rows: Sequence[Deployment]) -> list[float]:
    """Calls under way at each beyond the idlest, by the mean."""
    busy = [case.health.in_flight(row.slot) for row in rows]
    slots = case.pool.slots
    others = busy if len(slots) > _MEAN_OF else [case.health.in_flight(slot) for slot in slots]
    mean, least = max(sum(others) / len(others), 1.0), min(others)
    return [(each - least) / mean for each in busy]


def _saved(price: Price, cached: int, inputs: int, at: float) -> float:
    """What so many cached tokens save, in nanos."""
    if not cached:
        return 0.0
    plain = price.cost(v1.Usage(input_tokens=inputs), at)
    warm = price.cost(v1.Usage(input_tokens=inputs, cached_input_tokens=min(cached, inputs)), at)
    return float(plain.total - warm.total)
