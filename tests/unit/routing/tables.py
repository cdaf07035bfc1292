"""Routing tables to test with: written out by hand, or drawn from a seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from trunkline import v1
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.query import Query
from trunkline_server.routing.rates import Rates, Tier, Version
from trunkline_server.routing.snapshot import BalanceWeights, Deployment, Route, Snapshot

BUILT_AT = 1_760_000_000.0
CAPABILITIES = ("streaming", "tools", "vision", "audio", "reasoning", "structured_output")
REGIONS = ("eu", "us", "ch")
EVEN = BalanceWeights()


def flat(input_rate: str, output_rate: str, per_request: str = "0") -> Price:
    """A price in USD per million tokens."""
    return Price.flat(
        Rates(
            input=Decimal(input_rate),
            output=Decimal(output_rate),
            per_request=Decimal(per_request),
        )
    )


def tiered(base: tuple[str, str], above: int, dear: tuple[str, str]) -> Price:
    """A price whose whole request is charged at dearer rates above a size of input."""
    return Price(
        [
            Version(
                Rates(input=Decimal(base[0]), output=Decimal(base[1])),
                (Tier(above, Rates(input=Decimal(dear[0]), output=Decimal(dear[1]))),),
            )
        ]
    )


@dataclass(frozen=True)
class Away:
    """A constraint: keeps calls away from some providers."""

    providers: frozenset[str]

    def excludes(self, row: Deployment) -> str:
        return f"away[{row.provider}]" if row.provider in self.providers else ""


def deployment(slot: int, **changes: object) -> Deployment:
    """A deployment that can chat and stream, with what a test changes."""
    fields: dict[str, object] = {
        "slot": slot,
        "name": f"d{slot}",
        "provider": f"p{slot}",
        "provider_model": f"vendor-{slot}",
        "model": "m",
        "capabilities": frozenset({"chat", "streaming"}),
    }
    return Deployment(**(fields | changes))  # type: ignore[arg-type] # Checked by use.


def one_route(
    members: Sequence[Deployment],
    strategy: v1.Strategy.ValueType = v1.STRATEGY_PRIORITY,
    max_targets: int = 3,
    balance: BalanceWeights = EVEN,
) -> Snapshot:
    """A snapshot in which model "m" may use all members."""
    route = Route("", strategy, tuple(members), max_targets, balance)
    return Snapshot("v1", members, {"m": route}, {"r": route}, {}, BUILT_AT)


def random_price(rng: random.Random) -> Price | None:
    """Flat, tiered or charged per request, like those of vendors; now and then none."""
    base = str(rng.choice((0, 0.05, 0.15, 0.25, 1, 1.25, 2.5, 3, 10, 15)))
    out = str(rng.choice((0.4, 0.6, 1, 2, 4, 10, 12, 15, 60, 75)))
    kind = rng.random()
    if kind < 0.1:
        return None
    if kind < 0.3:
        above = rng.choice((1_000, 32_000, 128_000, 200_000))
        return tiered((base, out), above, (f"{float(base) * 2:g}", f"{float(out) * 1.5:g}"))
    return flat(base, out, "0.005" if kind < 0.4 else "0")


def random_deployment(slot: int, rng: random.Random) -> Deployment:
    return Deployment(
        slot=slot,
        name=f"d{slot}",
        provider=f"p{rng.randrange(5)}",
        provider_model=f"vendor-{slot}",
        model=rng.choice(("m", "n")),
        residency=frozenset(rng.sample(REGIONS, rng.randrange(3))),
        capabilities=frozenset(
            {rng.choice(("chat", "chat", "chat", "embedding"))}
            | set(rng.sample(CAPABILITIES, rng.randrange(len(CAPABILITIES) + 1)))
        ),
        context_tokens=rng.choice((0, 4_096, 8_192, 128_000, 200_000)),
        price=random_price(rng),
        quality=rng.choice((0.0, 0.3, 0.5, 0.8, 1.0)),
        priority=rng.randrange(4),
        weight=rng.choice((0.0, 0.5, 1.0, 1.0, 3.0)),
        enabled=rng.random() < 0.9,
    )


def random_table(size: int, rng: random.Random) -> list[Deployment]:
    return [random_deployment(slot, rng) for slot in range(size)]


def random_query(rng: random.Random) -> Query:
    """A query that sets each condition now and then, always to a value that may bite."""
    providers = [f"p{i}" for i in range(5)]
    return Query(
        model="m",
        input_tokens=rng.choice((0, 100, 4_000, 4_096, 5_000, 150_000, 300_000)),
        output_tokens=rng.choice((0, 1, 96, 4_096, 60_000)),
        kind=rng.choice(("chat", "chat", "chat", "embedding")),
        stream=rng.random() < 0.3,
        capabilities=frozenset(rng.sample(CAPABILITIES, rng.choice((0, 0, 1, 2)))),
        max_cost_per_token=rng.choice((0.0, 0.0, 1e-6, 1e-5, 2.5e-6, 6e-5)),
        data_residency=rng.choice(("", "", "", "eu", "EU", "us")),
        min_quality=rng.choice((0.0, 0.0, 0.3, 0.4, 1.0)),
        allowed_providers=tuple(rng.sample(providers, rng.choice((0, 0, 3)))),
        denied_providers=tuple(rng.sample(providers, rng.choice((0, 0, 1)))),
        models=rng.choice((None, None, frozenset({"m"}), frozenset({"m", "n"}))),
        constraints=tuple(
            Away(frozenset(rng.sample(providers, rng.choice((0, 1, 2)))))
            for _ in range(rng.choice((0, 0, 0, 1, 2)))
        ),
    )
