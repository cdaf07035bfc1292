"""What the gate counts, and how."""

import asyncio
import gc
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from prometheus_client import CollectorRegistry

from bench.common.child import BenchError
from bench.common.counting import Count, function_calls, instructions, moving_system_calls
from bench.common.load import Load
from bench.configs import BEARER, ENVIRONMENT, Setup, router_config
from bench.payloads import generate_request, route_request
from bench.subjects import Bench
from trunkline_server.app.worker import Worker
from trunkline_server.catalogue.known import known
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.clock import SystemClock
from trunkline_server.settings import parse
from trunkline_server.telemetry.logs import configure_logging
from trunkline_server.telemetry.metrics import Metrics

_CALLS = 200
_CHUNKS = 100
_FEW = 40


@dataclass(frozen=True, slots=True)
class _Loads:
    """The same calls for every count."""

    route: Load
    generate: Load
    short_stream: Load
    long_stream: Load


def _loads(bench: Bench) -> _Loads:
    def load(name: str, method: str, message: bytes) -> Load:
        body = bench.file(f"{name}.bin", message)
        # One after another: how calls overlap would depend on the clock.
        return Load(
            calls=_CALLS, body=body, method=method, concurrency=1, connections=1, headers=BEARER
        )

    def stream(name: str, tokens: int) -> Load:
        message = generate_request(f"any/bench:tokens={tokens}").SerializeToString()
        return replace(load(name, "StreamGenerate", message), calls=_FEW, stream=True)

    return _Loads(
        route=load("route", "Route", route_request().SerializeToString()),
        generate=load("generate", "Generate", generate_request().SerializeToString()),
        short_stream=stream("short", 1),
        long_stream=stream("long", 1 + _CHUNKS),
    )


async def in_process(bench: Bench) -> dict[str, float]:
    """Serves in this process and counts what calls execute. Raises BenchError."""
    configure_logging("info", "json")
    config = router_config(bench.upstream.address, Setup())
    settings = parse(config, "gate.yaml", ENVIRONMENT, known())
    worker = Worker(settings, PriceBook(), Metrics(CollectorRegistry()), SystemClock())
    port = await worker.start()

    async def send(load: Load) -> None:
        outcome = await asyncio.to_thread(bench.generators.send_grpc, f"127.0.0.1:{port}", load)
        if outcome.ok != load.calls:
            raise BenchError(f"{load.method}: {outcome.ok} of {load.calls}: {outcome.errors}")

    try:
        return await _counts(_loads(bench), send, bench)
    finally:
        await worker.drain(notice=0.0)


async def _counts(
    loads: _Loads, send: Callable[[Load], Awaitable[None]], bench: Bench
) -> dict[str, float]:
    kinds: dict[str, Callable[[], AbstractContextManager[Count]]] = {
        "function calls": function_calls,
        "instructions": instructions,
    }

    async def count(kind: str, load: Load) -> float:
        with kinds[kind]() as counted:
            await send(load)
            return counted() / load.calls

    for load in (loads.route, loads.generate, loads.long_stream):
        await send(load)
    found: dict[str, float] = {}
    for kind in kinds:
        found[f"Route: {kind}"] = await count(kind, loads.route)
        found[f"Generate: {kind}"] = await count(kind, loads.generate)
        long = await count(kind, loads.long_stream)
        short = await count(kind, loads.short_stream)
        found[f"stream chunk: {kind}"] = (long - short) / _CHUNKS
    many = replace(loads.generate, calls=1_000, concurrency=16, connections=4)
    await send(many)
    connections = (await asyncio.to_thread(bench.upstream_stats))["connections"]
    held = []
    for _ in range(3):
        before = _blocks()
        await send(many)
        held.append(max(_blocks() - before, 0) / many.calls)
    # Spans wait for their export now and then; only what every round leaves behind is a leak.
    found["blocks held for each call"] = min(held)
    opened = (await asyncio.to_thread(bench.upstream_stats))["connections"]
    found["upstream connections for 3,000 calls"] = float(opened - connections)
    return found


def _blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def system_calls(bench: Bench) -> tuple[dict[str, float], dict[str, str]]:
    """System calls that move bytes per call, and why they could not be counted."""
    name = "Generate: system calls that move bytes"
    strace = shutil.which("strace")
    if strace is None:
        return {}, {name: "strace was not found; install it"}
    loads = _loads(bench)
    with bench.router(Setup()) as router:
        bench.generators.send_grpc(router.address, loads.generate)
        summary = bench.scratch / "strace.txt"
        command = [strace, "-c", "-f", "-o", str(summary), "-p", str(router.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            if (refusal := _attached(tracer)) is not None:
                return {}, {name: refusal}
            bench.generators.send_grpc(router.address, loads.generate)
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(30)
    count = moving_system_calls(summary.read_text())
    if not count:
        raise BenchError(f"strace counted nothing:\n{summary.read_text()[:1000]}")
    return {name: count / loads.generate.calls}, {}


def _attached(tracer: subprocess.Popen[bytes]) -> str | None:
    """Waits until strace says that it watches; gives its refusal if it may not."""
    assert tracer.stderr is not None  # noqa: S101 - it is a pipe
    line = tracer.stderr.readline().decode(errors="replace").strip()
    if "attached" not in line:
        return f"strace could not watch the router: {line}"
    # It attaches to the threads one by one, and says so for each.
    time.sleep(0.5)
    return None
