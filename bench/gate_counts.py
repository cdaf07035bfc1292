"""What the gate counts, and how."""

import asyncio
import gc
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, replace

from prometheus_client import CollectorRegistry

from bench.common.child import BenchError, Running
from bench.common.counting import Count, function_calls, instructions, moving_system_calls
from bench.common.load import Load
from bench.common.procfs import await_rest
from bench.configs import BEARER, STATELESS, Setup, State, environment, router_config
from bench.payloads import generate_request, route_request
from bench.stores import started
from bench.subjects import Bench
from trunkline_server.app.bookkeeping import books_kept, prepare_database
from trunkline_server.app.caching import caching_kept
from trunkline_server.app.quotas import quotas_kept
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


Send = Callable[[Load], Awaitable[None]]


async def in_process(bench: Bench) -> dict[str, float]:
    """Serves in this process and counts what calls execute. Raises BenchError."""
    configure_logging("info", "json")
    loads = _loads(bench)
    async with _serving(bench, STATELESS, "stateless") as send:
        found = await _counts(loads, send, bench)
    # The ledger is kept in SQLite, whose statements another thread executes; what prepares and
    # awaits them is counted with the calls they are of.
    async with _serving(bench, Setup(), "state") as send:
        await send(loads.generate)
        for kind in _KINDS:
            count = await _count(kind, loads.generate, send)
            found[f"Generate with limit, budget, ledger: {kind}"] = count
    async with _serving(bench, Setup(state=None, cache={"use": "on"}), "cache") as send:
        # The first fills the cache, and the second has its request remembered.
        await send(loads.generate)
        for kind in _KINDS:
            found[f"cache hit: {kind}"] = await _count(kind, loads.generate, send)
    return found


@asynccontextmanager
async def _serving(bench: Bench, setup: Setup, name: str) -> AsyncGenerator[Send]:
    """A worker in this process, and what sends it a load."""
    config = router_config(bench.upstream.address, setup, name)
    settings = parse(config, name, environment(setup), known(), base=bench.scratch)
    clock, metrics = SystemClock(), Metrics(CollectorRegistry())
    await prepare_database(settings)
    async with (
        books_kept(settings, clock, metrics) as books,
        quotas_kept(settings, clock, metrics, books) as quotas,
        caching_kept(settings, clock, metrics) as caching,
    ):
        worker = Worker(
            settings, PriceBook(), metrics, clock, books=books, quotas=quotas, caching=caching
        )
        port = await worker.start()

        async def send(load: Load) -> None:
            outcome = await asyncio.to_thread(bench.generators.send_grpc, f"127.0.0.1:{port}", load)
            if outcome.ok != load.calls:
                raise BenchError(f"{load.method}: {outcome.ok} of {load.calls}: {outcome.errors}")
            while books is not None and books.ledger.waiting:  # noqa: ASYNC110 - sizes of files
                await asyncio.sleep(0.01)

        try:
            yield send
        finally:
            await worker.drain(notice=0.0)


_KINDS: Mapping[str, Callable[[], AbstractContextManager[Count]]] = {
    "function calls": function_calls,
    "instructions": instructions,
}


async def _count(kind: str, load: Load, send: Send) -> float:
    """So many of a kind for each call of a load."""
    with _KINDS[kind]() as counted:
        await send(load)
        return counted() / load.calls


async def _counts(loads: _Loads, send: Send, bench: Bench) -> dict[str, float]:
    for load in (loads.route, loads.generate, loads.long_stream):
        await send(load)
    found: dict[str, float] = {}
    for kind in _KINDS:
        found[f"Route: {kind}"] = await _count(kind, loads.route, send)
        found[f"Generate: {kind}"] = await _count(kind, loads.generate, send)
        long = await _count(kind, loads.long_stream, send)
        short = await _count(kind, loads.short_stream, send)
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


_MOVED = "Generate: system calls that move bytes"
_MOVED_WITH_STATE = "Generate with limit, budget, ledger: system calls that move bytes"


def system_calls(bench: Bench) -> tuple[dict[str, float], dict[str, str]]:
    """System calls that move bytes per call, and why they could not be counted."""
    strace = shutil.which("strace")
    if strace is None:
        missing = "strace was not found; install it"
        return {}, {_MOVED: missing, _MOVED_WITH_STATE: missing}
    found, skipped = {}, {}
    for name, setup in ((_MOVED, STATELESS), (_MOVED_WITH_STATE, Setup())):
        count = _moved(bench, strace, setup)
        if isinstance(count, str):
            skipped[name] = count
        else:
            found[name] = count
    return found, skipped


def _moved(bench: Bench, strace: str, setup: Setup) -> float | str:
    """System calls that move bytes for each Generate, or why they could not be counted."""
    load = _loads(bench).generate
    with bench.router(setup) as router:
        bench.generators.send_grpc(router.address, load)
        summary = bench.scratch / "strace.txt"
        command = [strace, "-c", "-f", "-o", str(summary), "-p", str(router.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            if (refusal := _attached(tracer)) is not None:
                return refusal
            bench.generators.send_grpc(router.address, load)
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(30)
    count = moving_system_calls(summary.read_text())
    if not count:
        raise BenchError(f"strace counted nothing:\n{summary.read_text()[:1000]}")
    return count / load.calls


# Sent to routers with shared state; what leases and batches take is spread over many calls.
_ROUND_TRIP_CALLS = 3_000


def round_trips(bench: Bench) -> tuple[dict[str, float], dict[str, str]]:
    """What is asked of real stores for each call, and why it could not be counted.

    Redis counts what it has read, each read being a round trip while calls come one after
    another; Postgres logs each statement.
    """
    names = {
        "exact": "exact limit and budget: Redis round trips",
        "leased": "leased limit and budget: Redis round trips",
        "ledger": "ledger: SQL statements",
    }
    load = replace(_loads(bench).generate, calls=_ROUND_TRIP_CALLS)
    found: dict[str, float] = {}
    with started(log_statement="all") as stores:
        if stores.redis is None or stores.postgres is None:
            return {}, dict.fromkeys(names.values(), "; ".join(stores.missing))
        redis, postgres = stores.redis, stores.postgres

        def sent(router: Running, counter: Callable[[], int]) -> float:
            bench.generators.send_grpc(router.address, load)
            await_rest(router.pid)
            before = counter()
            bench.generators.send_grpc(router.address, load)
            await_rest(router.pid)
            return (counter() - before) / load.calls

        for mode in ("exact", "leased"):
            kept = State(limit=mode, budget=mode, ledger=False, redis=redis.database())
            with bench.router(Setup(state=kept)) as router:
                found[names[mode]] = sent(router, lambda: redis.counter("total_reads_processed"))
        kept = State(limit="", budget="", postgres=postgres.database())
        with bench.router(Setup(state=kept)) as router:
            found[names["ledger"]] = sent(router, postgres.statements)
    return found, {}


def _attached(tracer: subprocess.Popen[bytes]) -> str | None:
    """Waits until strace says that it watches; gives its refusal if it may not."""
    assert tracer.stderr is not None  # noqa: S101 - it is a pipe
    line = tracer.stderr.readline().decode(errors="replace").strip()
    if "attached" not in line:
        return f"strace could not watch the router: {line}"
    # It attaches to the threads one by one, and says so for each.
    time.sleep(0.5)
    return None
