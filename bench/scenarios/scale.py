"""More deployments; how soon it starts, and what one decision costs."""

import re
import subprocess
from contextlib import ExitStack

from bench.common import tools
from bench.common.child import BenchError
from bench.common.compare import Case, compare
from bench.common.load import Load
from bench.common.procfs import resident_bytes
from bench.common.stats import figure
from bench.configs import BEARER, Setup
from bench.payloads import route_request
from bench.scenarios.base import Result, Scenario, Table, comparison
from bench.scenarios.unary import ON
from bench.subjects import Bench


def deployments(bench: Bench) -> Result:
    """Route as the table grows."""
    body = bench.file("route.bin", route_request().SerializeToString())
    load = Load(calls=bench.options.calls(4_000), body=body, method="Route", headers=BEARER)
    ready: dict[str, float] = {}
    with ExitStack() as stack:
        cases = []
        for count in (10, 100, 1_000, 10_000):
            setup = Setup(deployments=("",) * count, strategy="balanced")
            server = stack.enter_context(bench.router(setup))
            name = f"{count:,} deployments"
            ready[name] = server.seconds_to_ready
            cases.append(Case(name, server, bench.generators.send_ghz, load))
        measured = compare(cases, bench.options.rounds_of(3))
    table, figures = comparison(measured, ["10 deployments"])
    started = Table(
        ["case", "start to ready s"], [[name, f"{seconds:.2f}"] for name, seconds in ready.items()]
    )
    figures["seconds_to_ready"] = ready
    return Result([table, started], figures)


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
        title="Route: 10 to 10,000 deployments",
        config="one model with all deployments, strategy balanced",
        payload="as route",
        expected="every call OK",
        run=deployments,
    ),
)
