"""BatchRoute: many decisions in one call."""

from contextlib import ExitStack

from bench.common.compare import Case, compare
from bench.common.load import Load
from bench.common.stats import Figure
from bench.configs import BEARER, STATELESS
from bench.payloads import route_request
from bench.scenarios.base import Result, Scenario, Table, comparison
from bench.scenarios.check import check_batch
from bench.subjects import Bench
from trunkline import v1

_SIZE = 1_000


def batch_request() -> v1.BatchRouteRequest:
    """A thousand requests that differ in their token counts."""
    requests = []
    for number in range(_SIZE):
        request = route_request()
        request.input_tokens = 100 + number
        requests.append(request)
    return v1.BatchRouteRequest(requests=requests)


def batch(bench: Bench) -> Result:
    """One and two workers, beside single decisions."""
    body = bench.file("batch.bin", batch_request().SerializeToString())
    load = Load(
        calls=bench.options.calls(200, 40),
        body=body,
        method="BatchRoute",
        headers=BEARER,
        concurrency=8,
        # So many that the kernel gives some to each worker.
        connections=16,
    )
    send = bench.generators.send_grpc
    with ExitStack() as stack:
        one = stack.enter_context(bench.router(STATELESS))
        check_batch(one, batch_request())
        two = stack.enter_context(bench.router(STATELESS, workers=2))
        single = Load(
            calls=bench.options.calls(10_000),
            body=bench.file("route.bin", route_request().SerializeToString()),
            method="Route",
            headers=BEARER,
        )
        cases = [
            Case("Route", one, send, single),
            Case("BatchRoute, 1 worker", one, send, load, _SIZE),
            Case("BatchRoute, 2 workers", two, send, load, _SIZE),
        ]
        measured = compare(cases, bench.options.rounds)
    table, figures = comparison(measured, ["Route"], "decision")
    rows = []
    for name, each in measured.items():
        rate = Figure(tuple(x * each.case.units for x in each.per_second.samples))
        figures[name]["decisions_per_second"] = rate.as_json()
        rows.append([name, rate.show(), f"{2e6 / each.cpu_us.median:,.0f}"])
    columns = ["case", "decisions/s, measured", "decisions/s that two cores have the CPU for"]
    note = "The load generator shares the cores; the last column leaves it out."
    return Result([table, Table(columns, rows)], figures, notes=[note])


SCENARIOS = (
    Scenario(
        name="batch",
        title="BatchRoute: a thousand decisions in a call",
        config="as route",
        payload="1,000 RouteRequests that differ in their token counts",
        expected="every call OK, every result a decision",
        run=batch,
        quick=True,
    ),
)
