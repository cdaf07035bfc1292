"""StreamGenerate: CPU for each chunk, time to the first token, and memory of open streams."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from bench.common.child import BenchError, Running
from bench.common.compare import Case, Measured, compare
from bench.common.load import Load
from bench.common.procfs import resident_bytes
from bench.common.stats import Figure
from bench.configs import BARE, BEARER, Setup
from bench.payloads import chat_json, generate_request
from bench.report.svg import Plot
from bench.scenarios.base import Result, Scenario, Table, comparison
from bench.scenarios.check import check_stream
from bench.scenarios.unary import OFF, ON
from bench.subjects import Bench

_CHUNKS = 100
# Streams begun a second. Thousands at the same instant are another matter: gRPC core itself
# turns calls away once some thousand wait for a handler.
_BEGUN = 400.0
_FLOOR, _BARE = "bare pass-through", "bare chunks"


def _load(bench: Bench, knobs: str, calls: int) -> Load:
    message = generate_request(f"any/bench:{knobs}").SerializeToString()
    return Load(
        calls=calls,
        body=bench.file(f"stream-{knobs}.bin", message),
        method="StreamGenerate",
        headers=BEARER,
        concurrency=16,
        stream=True,
        timeout=120.0,
    )


def _direct(bench: Bench, knobs: str, load: Load) -> Load:
    body = bench.file("stream.json", chat_json(stream=True))
    return replace(load, body=body, method=f"/{knobs}/v1/chat/completions", headers={})


def stream(bench: Bench) -> Result:
    """A hundred chunks as fast as they come; then the first token of a vendor that thinks."""
    fast, thinking = f"tokens={_CHUNKS}", "tokens=5,latency=20ms"
    calls = bench.options.calls(400)
    with ExitStack() as stack:

        def floor(kind: str, knobs: str) -> Running:
            path = f"/{knobs}/v1/chat/completions"
            return stack.enter_context(bench.floor(kind, body=chat_json(stream=True), path=path))

        router = stack.enter_context(bench.router(Setup()))
        plain = stack.enter_context(bench.router(BARE))
        send, load = bench.generators.send_grpc, _load(bench, fast, calls)
        check_stream(router, generate_request(f"any/bench:{fast}"), _CHUNKS)
        cases = [
            Case(_BARE, floor("stream", fast), send, load, _CHUNKS),
            Case(_FLOOR, floor("stream-forward", fast), send, load, _CHUNKS),
            Case(OFF, plain, send, load, _CHUNKS),
            Case(ON, router, send, load, _CHUNKS),
        ]
        chunks = compare(cases, bench.options.rounds)
        timed = replace(_load(bench, thinking, bench.options.calls(300)), rate=50.0)
        http, direct = bench.generators.send_http, _direct(bench, thinking, timed)
        firsts = compare(
            [
                Case("direct call", bench.upstream, http, direct, 5),
                Case(_FLOOR, floor("stream-forward", thinking), send, timed, 5),
                Case(ON, router, send, timed, 5),
            ],
            bench.options.rounds,
        )
    table, figures = comparison(chunks, [_FLOOR, _BARE], "chunk")
    rate = Table(
        ["case", "chunks/s"],
        [
            [name, Figure(tuple(x * _CHUNKS for x in each.per_second.samples)).show()]
            for name, each in chunks.items()
        ],
    )
    first = _first_tokens(firsts)
    figures["first_token"] = {name: each.as_json() for name, each in firsts.items()}
    return Result([table, rate, first], figures)


def _first_tokens(measured: dict[str, Measured]) -> Table:
    base = measured["direct call"].first_token
    rows = []
    for name, each in measured.items():
        added = {
            part: Figure(
                tuple(
                    a - b
                    for a, b in zip(each.first_token[part].samples, base[part].samples, strict=True)
                )
            )
            for part in ("p50", "p99")
        }
        rows.append(
            [
                name,
                *(each.first_token[part].show(2) for part in ("p50", "p99")),
                *(part.show(2) for part in added.values()),
            ]
        )
    columns = ["case", "first token p50 ms", "p99 ms", "added p50 ms", "added p99 ms"]
    return Table(columns, rows, "50 streams begun a second; the upstream thinks for 20 ms")


@dataclass
class _Watch:
    """What was seen of a router while its streams were open."""

    stop: threading.Event = field(default_factory=threading.Event)
    most_open: int = 0
    worker_mb: float = 0.0


@contextmanager
def _watching(bench: Bench, router: Running) -> Iterator[_Watch]:
    """Samples the open streams and the memory twice a second until the block ends."""
    watch = _Watch()

    def look() -> None:
        while not watch.stop.wait(0.5):
            watch.most_open = max(watch.most_open, bench.upstream_stats()["streams_open"])
            worker = max(resident_bytes(router.pid).values(), default=0)
            watch.worker_mb = max(watch.worker_mb, worker / 1e6)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop.set()
        thread.join()


def streams(bench: Bench) -> Result:
    """Streams held open at once: memory of the worker, and whether all end well."""
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    for count in (1, 100, 1_000, 5_000):
        # All have begun well before the first one ends.
        pause = 1 + round(count / _BEGUN / 10)
        load = replace(
            _load(bench, f"tokens=10,interval={pause}s", count), rate=_BEGUN, connections=8
        )
        with bench.router(Setup(max_calls=20_000)) as router:
            idle = max(resident_bytes(router.pid).values()) / 1e6
            with _watching(bench, router) as watch:
                outcome = bench.generators.send_grpc(router.address, load)
        if outcome.ok != count or outcome.chunks != 10 * count:
            raise BenchError(f"{count} streams: {outcome.ok} ended well: {outcome.errors}")
        if watch.most_open < count:
            raise BenchError(f"{count} streams: at most {watch.most_open} were open at once")
        figures[str(count)] = {
            "idle_mb": idle,
            "worker_mb": watch.worker_mb,
            "open": watch.most_open,
            "first_token_ms": outcome.first_token,
        }
        each = (watch.worker_mb - idle) * 1000 / count
        rows.append(
            [
                f"{count:,} open streams",
                f"{watch.worker_mb:.0f}",
                f"{each:.0f}" if count > 1 else "",
                f"{outcome.first_token['p50']:,.0f}",
                f"{outcome.first_token['p99']:,.0f}",
            ]
        )
    columns = ["case", "worker RSS MB", "kB/stream", "first token p50 ms", "first token p99 ms"]
    points = [(float(count), found["worker_mb"]) for count, found in figures.items()]
    plot = Plot(
        "streams",
        "Memory of one worker",
        "open streams",
        "RSS, MB",
        {"trunkline, all on": points},
        log_x=True,
        log_y=False,
    )
    notes = [
        f"{_BEGUN:.0f} streams begin in a second, and none ends before all are open.",
        "Each row is one run.",
    ]
    return Result([Table(columns, rows)], figures, [plot], notes)


SCENARIOS = (
    Scenario(
        name="stream",
        title="StreamGenerate: 100 chunks",
        config="as generate; the upstream writes one token to a chunk, each flushed",
        payload="as generate",
        expected="every stream has one start, 100 deltas, one end",
        run=stream,
        quick=True,
    ),
    Scenario(
        name="streams",
        title="StreamGenerate: 1 to 5,000 streams open at once",
        config="one worker; the upstream pauses for a second or more between chunks",
        payload="as generate",
        expected="all are open at once, and all end well with 10 deltas",
        run=streams,
    ),
)
