"""What prefix affinity is worth on recorded traffic.

`python -m tests.perf.test_prefix_affinity` prints the table. 12,031 requests of the Mooncake
trace, each a list of prefix blocks of 512 tokens, go to eight deployments. Each deployment's
prompt cache is unlimited, or keeps a block for five minutes after its last use. The ideal is
one deployment that serves everything: 0.366 of all blocks without a limit. With affinity, the
choice is the router's own: `routing.plan` over a snapshot of the eight, their calls under way in
its HealthTable, and what `cache.affinity` remembers.
"""

import heapq
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from gzip import open as open_gzip
from math import inf

import pytest

from tests.support.corpus import corpus_dir
from trunkline import v1
from trunkline_server.cache.affinity import BLOCK_TOKENS, PrefixAffinity
from trunkline_server.routing.health import BreakerPolicy, HealthTable
from trunkline_server.routing.plan import plan
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.query import Query
from trunkline_server.routing.rates import Rates
from trunkline_server.routing.snapshot import Deployment, Route, Snapshot
from trunkline_server.routing.warm import Warmth

CHAT = frozenset({"chat"})
DEPLOYMENTS = tuple(f"deployment-{number}" for number in range(8))
# GPT-5's list prices, USD per million tokens.
PRICE = Price.flat(Rates(input=Decimal("1.25"), output=Decimal(10), cached_input=Decimal("0.125")))


@dataclass(frozen=True)
class Request:
    """One request of the trace; `at` in seconds."""

    at: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]

    @property
    def seconds(self) -> float:
        """How long it takes at 20,000 tokens read a second and 50 written."""
        return self.input_tokens / 20_000 + self.output_tokens / 50


def trace() -> Iterator[Request]:
    """The requests in order of arrival."""
    path = corpus_dir() / "traces" / "mooncake_conversation.jsonl.gz"
    with open_gzip(path, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            yield Request(
                row["timestamp"] / 1_000,
                row["input_length"],
                row["output_length"],
                tuple(row["hash_ids"]),
            )


class VendorCache:
    """One deployment's prompt cache: a block counts if all before it are there too."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._used: dict[int, float] = {}

    def serve(self, request: Request) -> int:
        """How many leading blocks were there."""
        hits = 0
        for block in request.blocks:
            used = self._used.get(block)
            if used is None or request.at - used > self._ttl:
                break
            hits += 1
        for block in request.blocks:
            self._used[block] = request.at
        return hits


@dataclass
class Fleet:
    """The deployments under one policy, and what came of it."""

    ttl: float
    caches: dict[str, VendorCache] = field(init=False)
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DEPLOYMENTS, 0))
    busy: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DEPLOYMENTS, 0))
    hits: int = 0
    blocks: int = 0
    _ends: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.caches = {name: VendorCache(self.ttl) for name in DEPLOYMENTS}

    def arrive(self, now: float) -> None:
        """Ends what is over by now."""
        while self._ends and self._ends[0][0] <= now:
            self.busy[heapq.heappop(self._ends)[1]] -= 1

    def serve(self, request: Request, name: str) -> None:
        """A deployment answers."""
        self.hits += self.caches[name].serve(request)
        self.blocks += len(request.blocks)
        self.tokens[name] += request.input_tokens
        self.busy[name] += 1
        heapq.heappush(self._ends, (request.at + request.seconds, name))

    @property
    def rate(self) -> float:
        """Hits by blocks."""
        return self.hits / self.blocks

    @property
    def imbalance(self) -> float:
        """The tokens of the busiest deployment by those of the mean."""
        return max(self.tokens.values()) * len(self.tokens) / sum(self.tokens.values())


def ideal(requests: list[Request], ttl: float) -> float:
    """One deployment for all."""
    cache = VendorCache(ttl)
    return sum(cache.serve(request) for request in requests) / sum(
        len(request.blocks) for request in requests
    )


def round_robin(requests: list[Request], ttl: float) -> Fleet:
    fleet = Fleet(ttl)
    for number, request in enumerate(requests):
        fleet.arrive(request.at)
        fleet.serve(request, DEPLOYMENTS[number % len(DEPLOYMENTS)])
    return fleet


def least_busy(requests: list[Request], ttl: float) -> Fleet:
    rng = random.Random(0)
    fleet = Fleet(ttl)
    for request in requests:
        fleet.arrive(request.at)
        fleet.serve(request, _least(fleet, rng))
    return fleet


def with_affinity(
    requests: list[Request],
    ttl: float,
    weight: float,
    capacity: int = 100_000,
    strategy: v1.Strategy.ValueType = v1.STRATEGY_ROUND_ROBIN,
) -> Fleet:
    """As the router chooses with `prefix_affinity: {load: weight}`, a strategy behind it."""
    rng = random.Random(0)
    fleet = Fleet(ttl)
    seen = PrefixAffinity(capacity, ttl)
    rows = [
        Deployment(slot, name, "vendor", "gpt-5", "large", price=PRICE, capabilities=CHAT)
        for slot, name in enumerate(DEPLOYMENTS)
    ]
    route = Route("", strategy, tuple(rows))
    snapshot = Snapshot("v1", rows, {"large": route}, {}, {}, 0.0)
    health = HealthTable(DEPLOYMENTS, BreakerPolicy())
    under_way: list[tuple[float, int]] = []
    for request in requests:
        fleet.arrive(request.at)
        while under_way and under_way[0][0] <= request.at:
            end, slot = heapq.heappop(under_way)
            health.succeed(slot, end, 1.0, None)
        matched = seen.affinity(request.blocks, request.at)
        tokens = {name: depth * BLOCK_TOKENS for name, depth in matched.items()}
        query = Query(
            "large",
            request.input_tokens,
            request.output_tokens,
            warmth=Warmth(tokens, weight) if tokens else None,
        )
        chosen = plan(snapshot, query, health, request.at, rng).targets[0]
        seen.saw(request.blocks, chosen.name, request.at)
        fleet.serve(request, chosen.name)
        health.begin(chosen.slot, request.at)
        heapq.heappush(under_way, (request.at + request.seconds, chosen.slot))
    return fleet


def _least(fleet: Fleet, rng: random.Random) -> str:
    return min(DEPLOYMENTS, key=lambda name: (fleet.busy[name], rng.random()))


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    return list(trace())


def test_the_trace_is_the_one_known(requests: list[Request]) -> None:
    assert len(requests) == 12_031
    assert ideal(requests, inf) == pytest.approx(0.366, abs=0.001)


def test_affinity_keeps_most_of_the_ideal_at_an_even_load(requests: list[Request]) -> None:
    best = ideal(requests, inf)
    plain = round_robin(requests, inf)
    chosen = with_affinity(requests, inf, weight=0.5)
    assert chosen.rate > 0.95 * best
    assert plain.rate < 0.4 * best
    assert chosen.imbalance < 1.25


def main() -> None:
    """Prints the table."""
    requests = list(trace())
    print("| prompt cache | policy | block hit rate | of the ideal | imbalance |")
    print("| --- | --- | ---: | ---: | ---: |")
    for title, ttl in (("unlimited", inf), ("five minutes", 300.0)):
        best = ideal(requests, ttl)
        rows: list[tuple[str, Fleet]] = [
            ("round robin", round_robin(requests, ttl)),
            ("least busy", least_busy(requests, ttl)),
        ]
        rows += [
            (f"affinity, load x {weight:g}", with_affinity(requests, ttl, weight))
            for weight in (0.0, 0.25, 0.5, 1.0, 2.0)
        ]
        rows += [
            ("affinity, load x 0.5, 20,000 blocks", with_affinity(requests, ttl, 0.5, 20_000)),
            (
                "affinity, load x 0.5, least latency behind it",
                with_affinity(requests, ttl, 0.5, strategy=v1.STRATEGY_LEAST_LATENCY),
            ),
        ]
        print(f"| {title} | one deployment (ideal) | {best:.3f} | 1.00 | |")
        for name, fleet in rows:
            cells = f"{fleet.rate:.3f} | {fleet.rate / best:.2f} | {fleet.imbalance:.2f}"
            print(f"| {title} | {name} | {cells} |")
    began = time.process_time()
    with_affinity(requests, 300.0, 1.0)
    each = (time.process_time() - began) / len(requests) * 1e6
    print(f"\n{each:.0f} us for a request of 24 blocks, simulation included")


if __name__ == "__main__":
    main()
