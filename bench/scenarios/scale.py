"""More deployments; how soon it starts, and what one decision costs."""

import re
import subprocess
from contextlib import ExitStack
from dataclasses import replace

from bench.common import tools
from bench.common.child import BenchError
from bench.common.compare import Case, compare
from bench.common.load import Load
from bench.common.procfs import resident_bytes
from bench.common.stats import figure
from bench.configs import BEARER, Setup
from bench.payloads import route_request
from bench.scenarios.base import Result, Scenario, Table, comparison
from bench.scenarios.check import check_decision
from bench.scenarios.unary import ON
from bench.subjects import Bench
from trunkline import v1

_BATCH = 200


def deployments(bench: Bench) -> Result:
    """Decisions as the table grows: one by one with their candidates, and in batches without."""
    route = Load(
        calls=bench.options.calls(4_000),
        body=bench.file("route.bin", route_request().SerializeToString()),
        method="Route",
        headers=BEARER,
    )
    requests = v1.BatchRouteRequest(requests=[route_request()] * _BATCH)
    batch = Load(
        calls=bench.options.calls(200),
        body=bench.file("batch.bin", requests.SerializeToString()),
        method="BatchRoute",
        headers=BEARER,
        concurrency=8,
    )
    send = bench.generators.send_grpc
    ready: dict[str, float] = {}
    singly, together = [], []
    with ExitStack() as stack:
        for count in (10, 100, 1_000, 10_000):
            setup = Setup(deployments=("",) * count, strategy="balanced")
            server = stack.enter_context(bench.router(setup))
            check_decision(server, route_request(), count)
            name = f"{count:,} deployments"
            ready[name] = server.seconds_to_ready
            singly.append(Case(name, server, send, route))
            together.append(Case(name, server, send, batch, _BATCH))
        with_candidates = compare(singly, bench.options.rounds)
        without = compare(together, bench.options.rounds)
    explained, figures = comparison(with_candidates, ["10 deployments"])
    bare, decisions = comparison(without, ["10 deployments"], "decision")
    started = Table(
        ["case", "start to ready s"], [[name, f"{seconds:.2f}"] for name, seconds in ready.items()]
    )
    tables = [
        replace(explained, caption="Route, which lists its candidates"),
        replace(bare, caption=f"BatchRoute of {_BATCH}, without candidates"),
        started,
    ]
    return Result(tables, figures | {"batch": decisions, "seconds_to_ready": ready})


def startup(bench: Bench) -> Result:
    """From the command to the first 200 of /readyz."""
    seconds, memory = [], []
    for _ in range(max(bench.options.rounds, 5)):
        with bench.router(Setup()) as router:
            seconds.append(router.seconds_to_ready)
            memory.append(sum(resident_bytes(router.pid).values()) / 1e6)
    ready, idle = figure(seconds), figure(memory)
    table = Table(["case", "start to ready s", "idle RSS MB"], [[ON, ready.show(2), idle.show()]])
    return Result([table], {"seconds": ready.as_json(), "idle_mb": idle.as_json()})


_ROW = re.compile(
    r"^(\w+)\s+([\d.]+) \([^)]*\)\s+([\d.]+) \([^)]*\)\s+([\d.]+) \([^)]*\)\s+([\d.]+)$"
)


def decision(_bench: Bench) -> Result:
    """One decision in process, by strategy and size of the table."""
    command = [str(tools.python()), "-m", "tests.perf.test_routing_cost"]
    run = subprocess.run(command, cwd=tools.ROOT, capture_output=True, text=True, check=False)
    rows = [found.groups() for line in run.stdout.splitlines() if (found := _ROW.match(line))]
    if run.returncode != 0 or not rows:
        raise BenchError(f"{' '.join(command)}:\n{run.stdout}{run.stderr}")
    figures = {
        "dearest_us": max(float(row[1]) for row in rows),
        "worst_ratio": max(float(row[4]) for row in rows),
        "strategies": {row[0]: [float(value) for value in row[1:4]] for row in rows},
    }
    columns = ["strategy", "10 µs", "1,000 µs", "10,000 µs", "10,000 ÷ 10"]
    return Result([Table(columns, rows)], figures)


SCENARIOS = (
    Scenario(
        name="startup",
        title="Start to ready",
        config="as route",
        payload="none",
        expected="/readyz answers 200",
        run=startup,
        quick=True,
    ),
    Scenario(
        name="decision",
        title="One decision, in process",
        config="one route of 10, 1,000 and 10,000 deployments, under each strategy",
        payload="500 queries of a fixed seed",
        expected="python -m tests.perf.test_routing_cost prints its table",
        run=decision,
        quick=True,
    ),
    Scenario(
        name="deployments",
        title="Route and BatchRoute: 10 to 10,000 deployments",
        config="one model with all deployments, strategy balanced",
        payload="as route; batches of 200 of it",
        expected="every call OK",
        run=deployments,
    ),
)
