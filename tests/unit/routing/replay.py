"""Makes a thousand decisions from a seed and prints a digest of them.

`python -m tests.unit.routing.replay` is run in processes of their own, to see that nothing
depends on the hash seed. With `fresh` every decision starts from an empty memo.
"""

import hashlib
import random
import sys

from tests.unit.routing.tables import BUILT_AT, random_query, random_table
from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.health import BreakerPolicy, HealthTable
from trunkline_server.routing.plan import explain, plan
from trunkline_server.routing.snapshot import Route, Snapshot


def decisions(count: int = 1_000, *, fresh: bool = False) -> list[str]:
    """One line for each decision, while calls succeed and fail as the seed has it."""
    rng = random.Random(20)
    rows = random_table(60, rng)
    strategies = sorted(set(v1.Strategy.values()) - {v1.STRATEGY_UNSPECIFIED})

    def snapshot() -> Snapshot:
        route = Route("r", v1.STRATEGY_BALANCED, tuple(rows))
        return Snapshot("v1", rows, {"m": route}, {"r": route}, {}, BUILT_AT)

    table = snapshot()
    health = HealthTable([row.name for row in rows], BreakerPolicy(consecutive_failures=2))
    lines = []
    now = 0.0
    for number in range(count):
        now += rng.random()
        query = random_query(rng)
        query.strategy = strategies[number % len(strategies)]
        query.max_latency_ms = rng.choice((0, 0, 0, 900))
        choice = random.Random(number)
        try:
            chosen = plan(snapshot() if fresh else table, query, health, now, choice)
        except TrunklineError as error:
            lines.append(f"{v1.ErrorReason.Name(error.reason)} {error.message} {error.metadata}")
            continue
        first = chosen.targets[0].slot
        health.begin(first, now)
        if rng.random() < 0.4:
            health.fail(first, now, cooldown=rng.random() < 0.5)
        else:
            health.succeed(first, now, rng.random(), rng.choice((None, 0.1)))
        told = explain(table, health, now, chosen) if number % 10 == 0 else []
        lines.append(
            f"{[row.name for row in chosen.targets]} {chosen.forced} "
            f"{[row.SerializeToString(deterministic=True).hex() for row in told]}"
        )
    return lines


if __name__ == "__main__":
    text = "\n".join(decisions(fresh="fresh" in sys.argv))
    sys.stdout.write(hashlib.sha256(text.encode()).hexdigest())
