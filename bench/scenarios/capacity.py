"""More workers, and what a given rate will need."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from bench.common.compare import Case, Measured, compare
from bench.common.load import Load
from bench.configs import BEARER, STATELESS, Setup, State
from bench.payloads import generate_request
from bench.queueing import Service, capacity, predicted, simulate
from bench.scenarios.base import Result, Scenario, Table, comparison
from bench.scenarios.check import check_generate
from bench.stores import Stores, started
from bench.subjects import Bench

_WORKERS = (1, 2, 4, 8)
_ONE = "1 worker"
# Shares of one worker's saturation: where service times are seen, and where the model is tried.
_QUIET, _TRIED = 0.1, (0.25, 0.5, 0.7)


def workers(bench: Bench) -> Result:
    """Generate by one and by several processes that share the port; then the model of them."""
    body = bench.file("generate.bin", generate_request().SerializeToString())
    load = Load(
        calls=bench.options.calls(6_000),
        body=body,
        method="Generate",
        headers=BEARER,
        concurrency=64,
        # The kernel spreads connections, not calls, over the workers.
        connections=32,
    )
    names = {count: _ONE if count == 1 else f"{count} workers" for count in _WORKERS}
    send = bench.generators.send_grpc
    with ExitStack() as stack:
        setup = _shared(stack.enter_context(started()))
        servers = {
            count: stack.enter_context(bench.router(setup, workers=count)) for count in _WORKERS
        }
        cases = [Case(names[count], servers[count], send, load) for count in _WORKERS]
        for server in servers.values():
            check_generate(server, generate_request())
        measured = compare(cases, bench.options.rounds)
        alone = measured[_ONE].per_second.median

        def at(share: float) -> Load:
            rate = alone * share
            calls = max(round(rate * (2 if bench.options.quick else 5)), 200)
            return replace(load, rate=rate, calls=calls)

        quiet = send(servers[1].address, at(_QUIET))
        tried = {
            share: compare([Case(_ONE, servers[1], send, at(share))], bench.options.rounds)
            for share in _TRIED
        }
    table, figures = comparison(measured, [_ONE])
    service = Service.of(quiet.quantiles, 1000 / alone)
    cpu_us = measured[_ONE].cpu_us.median
    figures["service"] = {
        "shape_ms": list(quiet.quantiles),
        "mean_ms": service.mean,
        "cpu_us": cpu_us,
    }
    # What a call takes beside the worker's own time: the wire and the load generator.
    beside = max(quiet.latency["p50"] - service.mean, 0.0)
    tables = [
        table,
        _throughput(measured, names, figures),
        _latencies({share: each[_ONE] for share, each in tried.items()}, service, beside),
        capacity(service, cpu_us),
    ]
    notes = [
        "Limits and budgets are leased from Redis and the ledger goes to Postgres, both on this "
        "machine's cores too."
        if setup is not STATELESS
        else "Without limits, budget and ledger, for want of a Redis and a Postgres.",
        "Workers share this machine's cores with the upstream and the load generator, so that "
        "more workers than cores show fairness, not speed.",
        "`python -m bench.queueing --core-hour PRICE` derives the capacity anew; the price is an "
        "assumption, and a core of the target machine may be faster or slower than this one's.",
    ]
    return Result(tables, figures, notes=notes)


def _shared(stores: Stores) -> Setup:
    """All features on, with the state where workers share it, if that can be had."""
    redis, postgres = stores.redis, stores.postgres
    if redis is None or postgres is None:
        return STATELESS
    leased = State(
        limit="leased", budget="leased", redis=redis.database(), postgres=postgres.database()
    )
    return Setup(state=leased)


def _throughput(
    measured: Mapping[str, Measured], names: Mapping[int, str], figures: dict[str, Any]
) -> Table:
    """The model's saturation beside the measured one."""
    one, cores = measured[_ONE], os.cpu_count() or 1
    rows = []
    for count, name in names.items():
        if name == _ONE:
            continue
        found = measured[name].per_second
        expected = predicted(count, one.per_second.median, cores, one.machine_us.median)
        figures[name]["predicted_per_second"] = expected
        error = f"{found.median / expected - 1:+.0%}"
        rows.append([name, f"{expected:,.0f}", found.show(), error])
    columns = ["case", "predicted calls/s", "measured calls/s", "measured over predicted"]
    return Table(
        columns, rows, f"The model's saturation on {cores} cores, from the figures of one worker"
    )


def _latencies(tried: Mapping[float, Measured], service: Service, beside: float) -> Table:
    """The model's latency beside the measured one, for one worker."""
    rows = []
    for share, found in tried.items():
        rate = found.case.load.rate
        stays = simulate(rate, 1, service)
        rows.append(
            [
                f"{rate:,.0f} calls/s ({share:.0%})",
                f"{stays.stay_p50 + beside:.2f}",
                found.latency["p50"].show(2),
                f"{stays.stay_p99 + beside:.2f}",
                found.latency["p99"].show(2),
            ]
        )
    columns = ["case", "predicted p50 ms", "measured", "predicted p99 ms", "measured"]
    return Table(columns, rows, "The model's latency for one worker")


SCENARIOS = (
    Scenario(
        name="workers",
        title="Generate: 1 to 8 workers, and capacity",
        config="as generate, with --workers, limits leased from Redis, the ledger in Postgres",
        payload="as generate, over 32 connections",
        expected="every call OK",
        run=workers,
    ),
)
