"""How soon three replicas go by a change of what the store holds, under load.

    .venv/bin/python -m tests.perf.convergence

Prints, for SQLite and for a Postgres that it starts (if there is one), how many calls were made
and failed, and the times from the answer to a change to the first decision by it.
"""

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from tests.support.control import converge, furnish, replica_of, write_config
from tests.support.postgres_server import PostgresServer, postgres_programs
from trunkline_server.simulator.app import Simulator
from trunkline_server.store.migrate import upgrade

REPLICAS = 3
CHANGES = 30
CALLERS = 4
# Between the calls of each. Without it the load generator would starve what it measures, where
# both share a few cores. Seconds.
PAUSE = 0.05


async def measure(name: str, dsn: str, folder: Path) -> None:
    """Measures on one database, and prints a line."""
    await upgrade(dsn, "state.database")
    config = write_config(folder, dsn)
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(port=0))
        replicas = [await stack.enter_async_context(replica_of(config)) for _ in range(REPLICAS)]
        secret = await furnish(replicas[0].root, simulator)
        for replica in replicas:
            await replica.reached(5)
        found = await converge(replicas, secret, changes=CHANGES, callers=CALLERS, pause=PAUSE)
    slowest = sorted(max(each) for each in found.seconds)
    print(
        f"{name}: {CHANGES} changes on {REPLICAS} replicas during {found.calls} calls, "
        f"{len(found.failures)} failed; all replicas after {median(slowest) * 1000:.0f} ms "
        f"(median), {slowest[-1] * 1000:.0f} ms (slowest); "
        f"{len(set(found.versions))} version in the end"
    )


async def main() -> None:
    """Measures on both databases."""
    with tempfile.TemporaryDirectory() as folder:
        await measure("SQLite", f"sqlite:///{folder}/state.db", Path(folder))
    programs = postgres_programs()
    if programs is None:
        sys.exit("no postgres was found: not measured there")
    server = PostgresServer(programs)
    try:
        server.start()
        with tempfile.TemporaryDirectory() as folder:
            async with server.database() as name:
                await measure("Postgres", server.dsn(name), Path(folder))
    finally:
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
