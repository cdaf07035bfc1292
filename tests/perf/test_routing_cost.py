"""The cost of one decision does not grow with the table.

Counted, not timed: the bytecode instructions that decisions execute at 10, 1,000 and 10,000
deployments in one route. The same seed gives the same count on every machine.

`python -m tests.perf.test_routing_cost` prints microseconds side by side instead.
"""

import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from tests.unit.routing.tables import BUILT_AT, flat
from trunkline import v1
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.plan import explain, plan
from trunkline_server.routing.query import Query
from trunkline_server.routing.snapshot import Deployment, Route, Snapshot

SIZES = (10, 1_000, 10_000)
STRATEGIES = sorted(set(v1.Strategy.values()) - {v1.STRATEGY_UNSPECIFIED})
NOW = 100.0

pytestmark = pytest.mark.perf


def table(size: int, prices: int = 300) -> tuple[Deployment, ...]:
    """Deployments of many kinds, all fit for a plain chat; up to `prices` distinct prices."""
    rng = random.Random(size)
    rates = [
        flat(str(rng.randint(5, 1_000) / 100), str(rng.randint(20, 6_000) / 100))
        for _ in range(min(prices, size))
    ]
    return tuple(
        Deployment(
            slot=slot,
            name=f"d{slot}",
            provider=f"p{slot % 7}",
            provider_model="vendor-model",
            model="m",
            capabilities=frozenset({"chat", *rng.sample(("tools", "vision", "audio"), 2)}),
            context_tokens=rng.choice((0, 128_000, 200_000)),
            price=rates[slot % len(rates)],
            quality=rng.random(),
            priority=rng.randrange(3),
            weight=rng.choice((1.0, 2.0, 5.0)),
        )
        for slot in range(size)
    )


def queries(count: int) -> list[Query]:
    rng = random.Random(count)
    return [Query("m", rng.randint(50, 8_000), rng.randint(10, 2_000)) for _ in range(count)]


class Bench:
    """One route of one size under one strategy, measured before: all memos are warm."""

    def __init__(
        self, members: tuple[Deployment, ...], strategy: v1.Strategy.ValueType, asked: list[Query]
    ) -> None:
        route = Route("", strategy, members)
        self.snapshot = Snapshot("v1", members, {"m": route}, {}, {}, BUILT_AT)
        self.health = HealthTable([row.name for row in members])
        self.rng = random.Random(1)
        self.asked = asked
        for row in members:
            self.health.begin(row.slot, NOW - 1)
            self.health.succeed(row.slot, NOW - 1, 0.1 + self.rng.random())
        self.run()

    def break_some(self, share: float) -> None:
        rng = random.Random(9)
        for slot in range(self.snapshot.slots):
            if rng.random() < share:
                self.health.begin(slot, NOW)
                self.health.fail(slot, NOW, cooldown=True, retry_after=100.0)

    def run(self) -> None:
        for query in self.asked:
            plan(self.snapshot, query, self.health, NOW, self.rng)


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """Counts the bytecode instructions executed inside the block."""
    count = 0

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "opcode":
            count += 1
        return local

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return local

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lambda: count
    finally:
        sys.settrace(before)


def instructions(bench: Bench) -> float:
    """Instructions per decision, the loop around it included."""
    with counting() as counted:
        bench.run()
    return counted() / len(bench.asked)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=v1.Strategy.Name)
def test_a_decision_costs_at_most_twice_as_much_in_a_large_table(
    strategy: v1.Strategy.ValueType,
) -> None:
    asked = queries(60)
    small, middle, large = (instructions(Bench(table(size), strategy, asked)) for size in SIZES)
    assert small > 50, "nothing was counted"
    assert middle <= 2 * small
    assert large <= 2 * small


@pytest.mark.parametrize("share", [0.3, 0.999])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=v1.Strategy.Name)
def test_broken_deployments_do_not_make_decisions_dear(
    strategy: v1.Strategy.ValueType, share: float
) -> None:
    """Probing is bounded; what it costs when all but a few are broken is bounded too."""
    asked = queries(40)
    bench = Bench(table(10_000), strategy, asked)
    healthy = instructions(bench)
    bench.break_some(share)
    bench.run()
    assert instructions(bench) <= healthy + 3_000


@pytest.mark.parametrize("strategy", STRATEGIES, ids=v1.Strategy.Name)
@pytest.mark.parametrize("broken", [False, True])
def test_an_explanation_costs_no_more_in_a_larger_table(
    strategy: v1.Strategy.ValueType, *, broken: bool
) -> None:
    """It tells of 100 candidates at most, whether all are fit or one is not.

    The memory at its height is compared too: C can walk a table without one instruction.
    """
    counts, peaks = [], []
    for size in (1_000, 10_000):
        bench = Bench(table(size), strategy, queries(5))
        if broken:
            bench.health.begin(3, NOW)
            bench.health.fail(3, NOW, cooldown=True, retry_after=100.0)
        plans = [plan(bench.snapshot, query, bench.health, NOW, bench.rng) for query in bench.asked]
        for chosen in plans:
            explain(bench.snapshot, bench.health, NOW, chosen)
        with counting() as counted:
            for chosen in plans:
                explain(bench.snapshot, bench.health, NOW, chosen)
        counts.append(counted())
        tracemalloc.start()
        explain(bench.snapshot, bench.health, NOW, plans[0])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert counts[0] > 1_000, "nothing was counted"
    assert counts[1] <= 1.2 * counts[0]
    assert peaks[1] <= 2 * peaks[0]


def report(rounds: int = 15) -> None:
    """Prints processor time per decision in microseconds: median and best of the rounds.

    The rounds of the three sizes are interleaved, so that what else the machine does falls
    on all alike.
    """
    asked = queries(500)
    tables = {size: table(size) for size in SIZES}
    print("us per decision: median (best)")
    print(f"{'strategy':22}" + "".join(f"{size:>16,}" for size in SIZES) + "   ratio of medians")
    for strategy in STRATEGIES:
        benches = [Bench(tables[size], strategy, asked) for size in SIZES]
        times: list[list[float]] = [[] for _ in benches]
        for _ in range(rounds):
            for bench, spent in zip(benches, times, strict=True):
                start = time.process_time()
                bench.run()
                spent.append((time.process_time() - start) / len(asked) * 1e6)
        medians = [statistics.median(spent) for spent in times]
        name = v1.Strategy.Name(strategy).removeprefix("STRATEGY_").lower()
        figures = "".join(
            f"{median:9.1f} ({min(spent):4.1f})"
            for median, spent in zip(medians, times, strict=True)
        )
        print(f"{name:22}{figures}{medians[-1] / medians[0]:8.2f}")


if __name__ == "__main__":
    report()
