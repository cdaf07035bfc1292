"""Counts told in batches come out as if each had been told at once."""

import os
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from threading import Thread

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

from tests.support.plain_dialect import Answer
from tests.support.virtual_time import run
from tests.unit.engine.world import World, ask
from trunkline_server.telemetry.metrics import CallMetrics, Metrics
from trunkline_server.telemetry.tally import Batches, Spread, Tally

BOUNDS = (0.001, 0.5, 1, 10)


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample but the times at which metrics were made."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def filled(values: Iterable[float], flush_every: int) -> tuple[CollectorRegistry, Histogram]:
    """A registry whose histogram was told of the values in batches."""
    registry = CollectorRegistry()
    batches = Batches(registry)
    histogram = Histogram("h", "-", buckets=BOUNDS, registry=registry)
    spread = Spread(histogram, BOUNDS)
    batches.add(spread.flush)
    for number, value in enumerate(values):
        spread.observe(value)
        if number % flush_every == 0:
            batches.flush()
    return registry, histogram


@pytest.mark.parametrize("flush_every", [1, 7, 10_000])
def test_a_spread_is_the_histogram_that_observed_each_value(flush_every: int) -> None:
    rng = random.Random(5)
    values = [0.0, 0.001, 0.0010001, 0.5, 1.0, 10.0, 10.5, 1e9]
    values += [rng.lognormvariate(0, 4) for _ in range(200)]
    plain = CollectorRegistry()
    direct = Histogram("h", "-", buckets=BOUNDS, registry=plain)
    for value in values:
        direct.observe(value)
    registry, _ = filled(values, flush_every)
    batched, expected = samples(registry), samples(plain)
    assert batched == pytest.approx(expected)
    assert batched["h_count", ()] == len(values)
    assert samples(registry) == batched, "reading twice counts nothing twice"


def test_a_tally_is_told_in_its_unit() -> None:
    registry = CollectorRegistry()
    batches = Batches(registry)
    tally = Tally(Counter("usd", "-", registry=registry), 10**9)
    batches.add(tally.flush)
    tally.total += 1_500_000_000
    assert registry.get_sample_value("usd_total") == 1.5
    tally.total += 250_000_000
    assert registry.get_sample_value("usd_total") == 1.75


def test_nothing_is_lost_or_counted_twice_while_other_threads_read() -> None:
    registry = CollectorRegistry()
    batches = Batches(registry)
    tally = Tally(Counter("c", "-", registry=registry))
    spread = Spread(Histogram("h", "-", buckets=BOUNDS, registry=registry), BOUNDS)
    batches.add(tally.flush)
    batches.add(spread.flush)
    count = 20_000
    done = False

    def read() -> None:
        while not done:
            samples(registry)

    readers = [Thread(target=read) for _ in range(2)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for reader in readers:
            reader.start()
        for _ in range(count):
            tally.total += 1
            spread.observe(0.25)
    finally:
        done = True
        sys.setswitchinterval(before)
        for reader in readers:
            reader.join()
    told = samples(registry)
    assert told["c_total", ()] == count
    assert told["h_count", ()] == count
    assert told["h_sum", ()] == pytest.approx(count * 0.25)


def test_calls_in_flight_are_told_while_they_are() -> None:
    registry = CollectorRegistry()
    told: list[float | None] = []

    async def main() -> None:
        world = World({"alpha": [Answer(b"hello")]})
        metrics = CallMetrics(Metrics(registry))
        call = world.call(ask())
        metrics.call_started(call)
        told.append(registry.get_sample_value("trunkline_calls_in_flight"))
        metrics.call_ended(call, None)
        told.append(registry.get_sample_value("trunkline_calls_in_flight"))

    run(main)
    assert told == [1, 0]


# Two workers' part of it. The first flushes by itself, the second when it drains: sooner than
# its timer would have it.
COUNTING = """
from prometheus_client import CollectorRegistry
from trunkline_server.telemetry.metrics import Metrics
from trunkline_server.telemetry.tally import Spread, Tally

metrics = Metrics(CollectorRegistry())
tally = Tally(metrics.calls.labels("generate", "anonymous", "ok"))
spread = Spread(metrics.call_seconds.labels("generate"), metrics.call_seconds._kwargs["buckets"])
metrics.batches.add(tally.flush)
metrics.batches.add(spread.flush)
for value in (0.0004, 0.2, 700.0):
    tally.total += 1
    spread.observe(value)
    metrics.batches.flush()
"""
DRAINING = """
import asyncio
import grpc
from prometheus_client import CollectorRegistry
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.app.sources import Overrides, read_source
from trunkline_server.app.worker import Worker
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.clock import SystemClock
from trunkline_server.telemetry.metrics import Metrics

async def main():
    settings = read_source(Overrides(listen="127.0.0.1:0"), {}).settings
    worker = Worker(settings, PriceBook(), Metrics(CollectorRegistry()), SystemClock())
    port = await worker.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await InferenceServiceStub(channel).Route(v1.RouteRequest(model="sim-large"), timeout=20)
    # However slow the machine: the timer has nothing to do with what follows.
    worker._metrics_timer.cancel()
    await worker.drain(notice=0.0)

asyncio.run(main())
"""


def test_workers_that_have_ended_are_read_from_their_files_as_one(tmp_path: Path) -> None:
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for worker in (COUNTING, COUNTING, DRAINING):
        subprocess.run([sys.executable, "-c", worker], env=env, check=True)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(tmp_path))
    where = {"operation": "generate"}
    value = registry.get_sample_value
    assert value("trunkline_calls_total", {**where, "caller": "anonymous", "reason": "ok"}) == 6
    assert value("trunkline_call_duration_seconds_count", where) == 6
    assert value("trunkline_call_duration_seconds_sum", where) == pytest.approx(1400.4008)
    bucket = "trunkline_call_duration_seconds_bucket"
    assert value(bucket, {**where, "le": "0.001"}) == 2
    assert value(bucket, {**where, "le": "0.25"}) == 4
    assert value(bucket, {**where, "le": "600.0"}) == 4
    assert value(bucket, {**where, "le": "+Inf"}) == 6
    assert value("trunkline_decisions_total", {"operation": "route"}) == 1
