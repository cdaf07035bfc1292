"""How many workers a rate needs: a simulation of M/G/k, the queue with Poisson arrivals,
service times as measured, and k servers that take from one line.

usage: python -m bench.queueing [--results bench/results/results.json] [--core-hour 0.04]

A worker is a server: its event loop handles one piece of work at a time. Its mean service time
is the inverse of the rate at which one worker saturates, and the shape of the distribution is
that of the latencies at a tenth of that rate. Connections, not calls, are spread over workers,
so that one line for all is the best case; the bound on utilisation leaves room for that.
"""

import argparse
import heapq
import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.scenarios.base import Table

# US dollars; a vCPU of a general-purpose machine on demand costs about so much an hour.
CORE_HOUR = 0.04
RATES = (10_000, 100_000)
UTILISATION = 0.7
# The longest that one call in a hundred may wait for a worker, milliseconds.
WAIT_P99 = 5.0
_WORKERS_OF_A_REPLICA = 8
_ARRIVALS = 100_000


@dataclass(frozen=True, slots=True)
class Service:
    """How long a worker is busy with a call, in milliseconds."""

    # At 0, 1, ... 100 %.
    quantiles: Sequence[float]

    @classmethod
    def of(cls, shape: Sequence[float], mean: float) -> "Service":
        """The shape's distribution, stretched so that its mean is `mean`."""
        if len(shape) < 2 or mean <= 0:
            raise ValueError("a service time needs a shape and a mean above 0")
        present = cls(shape).mean
        return cls([value * mean / present for value in shape])

    @property
    def mean(self) -> float:
        """The mean, of straight lines between the quantiles."""
        steps = pairwise(self.quantiles)
        return sum((low + high) / 2 for low, high in steps) / (len(self.quantiles) - 1)

    def draw(self, rng: random.Random) -> float:
        """One service time."""
        place = rng.random() * (len(self.quantiles) - 1)
        index = int(place)
        low, high = self.quantiles[index], self.quantiles[index + 1]
        return low + (high - low) * (place - index)


@dataclass(frozen=True, slots=True)
class Waits:
    """What a simulation found, in milliseconds; a stay is wait and service together."""

    wait_p99: float
    stay_p50: float
    stay_p99: float


def simulate(
    rate: float, workers: int, service: Service, *, arrivals: int = _ARRIVALS, seed: int = 1
) -> Waits:
    """`rate` calls a second; the first tenth of the arrivals fills the queue and is not counted."""
    rng = random.Random(seed)  # noqa: S311 - a simulation that repeats itself
    gap = 1000.0 / rate
    free = [0.0] * workers
    waits, stays = [], []
    now = 0.0
    for _ in range(arrivals):
        now += rng.expovariate(1.0) * gap
        begins = max(now, free[0])
        busy = service.draw(rng)
        heapq.heapreplace(free, begins + busy)
        waits.append(begins - now)
        stays.append(begins - now + busy)
    counted = arrivals // 10
    waits, stays = sorted(waits[counted:]), sorted(stays[counted:])
    return Waits(_at(waits, 0.99), _at(stays, 0.5), _at(stays, 0.99))


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def workers_for(rate: float, service: Service) -> int:
    """The fewest workers that keep the utilisation and the 99th percentile of the wait."""
    workers = math.ceil(rate * service.mean / 1000 / UTILISATION)
    while simulate(rate, workers, service).wait_p99 > WAIT_P99:
        workers += 1
    return workers


def capacity(service: Service, cpu_us: float, core_hour: float = CORE_HOUR) -> Table:
    """Workers, replicas, cores and cost for each of RATES."""
    rows = []
    for rate in RATES:
        workers = workers_for(rate, service)
        cores = rate * cpu_us / 1e6 / UTILISATION
        rows.append(
            [
                f"{rate:,} calls/s",
                f"{workers:,}",
                f"{math.ceil(workers / _WORKERS_OF_A_REPLICA):,}",
                f"{cores:,.1f}",
                f"{cores * core_hour:,.2f}",
                f"{cores * core_hour / (rate * 3600) * 1e6:,.4f}",
            ]
        )
    columns = ["case", "workers", f"replicas of {_WORKERS_OF_A_REPLICA}", "cores"]
    return Table(
        [*columns, "USD/hour", "USD per million calls"],
        rows,
        f"Capacity at {UTILISATION:.0%} utilisation and at most {WAIT_P99:g} ms of wait at p99, "
        f"{core_hour:g} USD per core-hour",
    )


@dataclass(frozen=True, slots=True)
class StoreUse:
    """What one call takes of a store: its CPU in microseconds; commands of Redis or rows of
    Postgres; bytes received or written to its log."""

    cpu_us: float
    work: float
    volume: float

    def as_json(self) -> dict[str, float]:
        """For the JSON report."""
        return asdict(self)


def store_capacity(uses: Mapping[str, StoreUse], core_hour: float = CORE_HOUR) -> Table:
    """What each of RATES asks of each store. A shard of Redis is one core: it serves commands by
    one thread."""
    rows = []
    for rate in RATES:
        for name, use in uses.items():
            cores = rate * use.cpu_us / 1e6 / UTILISATION
            rows.append(
                [
                    f"{rate:,} calls/s, {name}",
                    f"{rate * use.work:,.0f}",
                    f"{rate * use.volume / 1e6:,.1f}",
                    f"{cores:,.1f}",
                    f"{max(math.ceil(cores), 1):,}" if name.startswith("Redis") else "",
                    f"{cores * core_hour:,.2f}",
                ]
            )
    columns = ["case", "commands or rows/s", "MB/s", "cores", "shards", "USD/hour"]
    return Table(
        columns,
        rows,
        f"The stores' capacity at {UTILISATION:.0%} utilisation, {core_hour:g} USD per core-hour",
    )


def predicted(workers: int, one_worker: float, cores: int, machine_us: float) -> float:
    """The rate at which so many workers saturate on this machine, which the load generator and
    the upstream share: as many times one worker's, until the cores are spent. `machine_us` is
    what all of them together spend on a call when one worker serves."""
    return min(workers * one_worker, cores * 1e6 / machine_us)


def main() -> int:
    default = Path(__file__).with_name("results") / "results.json"
    parser = argparse.ArgumentParser(prog="bench.queueing", description="Derive capacity.")
    parser.add_argument("--results", type=Path, default=default, help="default: %(default)s")
    parser.add_argument("--core-hour", type=float, default=CORE_HOUR, help="US dollars")
    parsed = parser.parse_args()
    if not parsed.results.is_file():
        print(f"error: no {parsed.results}: run 'make bench' first", file=sys.stderr)
        return 1
    scenarios: Mapping[str, Any] = json.loads(parsed.results.read_text())["scenarios"]
    if "workers" not in scenarios:
        print("error: the results lack the scenario 'workers'", file=sys.stderr)
        return 1
    measured = scenarios["workers"]["service"]
    service = Service.of(measured["shape_ms"], measured["mean_ms"])
    tables = [capacity(service, measured["cpu_us"], parsed.core_hour)]
    stores = scenarios.get("state", {}).get("stores")
    if stores:
        uses = {name: StoreUse(**use) for name, use in stores.items()}
        tables.append(store_capacity(uses, parsed.core_hour))
    for table in tables:
        for line in lines(table):
            print(line)
    return 0


def lines(table: Table) -> Iterator[str]:
    """The table as text."""
    yield table.caption
    widths = [
        max(len(column), *(len(row[index]) for row in table.rows))
        for index, column in enumerate(table.columns)
    ]
    for row in (table.columns, *table.rows):
        yield "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))


if __name__ == "__main__":
    sys.exit(main())
