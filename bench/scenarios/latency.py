"""Latency at fixed rates, what the router adds at half load, and a recorded day of traffic."""

import base64
import csv
import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from bench.common import tools
from bench.common.child import BenchError
from bench.common.compare import Case, Measured, compare
from bench.common.load import Load
from bench.common.stats import Figure
from bench.configs import BEARER, Setup
from bench.payloads import chat_json, generate_request
from bench.report.svg import Plot
from bench.scenarios.base import Result, Scenario, Skipped, Table
from bench.scenarios.check import check_generate
from bench.scenarios.unary import ON
from bench.subjects import Bench

_FLOOR, _DIRECT, _GHZ = "bare pass-through", "direct call", "trunkline, all on, by ghz"
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
_HALF = 0.5


def rates(bench: Bench) -> Result:
    """Generate at shares of the rate at which the router saturates, arrivals on schedule."""
    body = bench.file("generate.bin", generate_request().SerializeToString())
    load = Load(calls=bench.options.calls(6_000), body=body, method="Generate", headers=BEARER)
    chat = bench.file("chat.json", chat_json())
    tables = []
    at_half: dict[str, Measured] = {}
    lines: dict[str, list[tuple[float, float]]] = {}
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        router = stack.enter_context(bench.router(Setup()))
        floor = stack.enter_context(bench.floor("forward", body=chat_json()))
        send = bench.generators.send_grpc
        check_generate(router, generate_request())
        whole = compare([Case(ON, router, send, load)], bench.options.rounds)[ON]
        saturation = whole.per_second.median
        for share in (0.25, _HALF, 0.9) if bench.options.quick else _SHARES:
            rate = saturation * share
            seconds = 2.0 if bench.options.quick else 4.0
            timed = replace(load, rate=rate, calls=max(round(rate * seconds), 100), connections=8)
            direct = replace(timed, body=chat, method="/v1/chat/completions", headers={})
            cases = [
                Case(_DIRECT, bench.upstream, bench.generators.send_http, direct),
                Case(_FLOOR, floor, send, timed),
                Case(ON, router, send, timed, beyond=share > _HALF),
                Case(_GHZ, router, bench.generators.send_ghz, timed, beyond=share > _HALF),
            ]
            measured = compare(cases, bench.options.rounds)
            tables.append(_percentiles(measured, f"{rate:,.0f} calls/s ({share:.0%})"))
            figures[f"{share:g}"] = {name: each.as_json() for name, each in measured.items()}
            for name in (_DIRECT, _FLOOR, ON):
                for part in ("p50", "p99"):
                    point = (rate, measured[name].latency[part].median)
                    lines.setdefault(f"{name} {part}", []).append(point)
            if share == _HALF:
                at_half = measured
    added = {part: _added(at_half, part) for part in ("p50", "p99")}
    figures |= {
        "saturation_per_second": whole.per_second.as_json(),
        "saturation_latency_ms": {name: each.as_json() for name, each in whole.latency.items()},
        "added_ms": {part: each.median for part, each in added.items()},
        "added_ms_rounds": {part: each.as_json() for part, each in added.items()},
    }
    notes = [
        f"Saturation: {whole.per_second.show()} calls/s with {load.concurrency} calls under way; "
        f"p50 {whole.latency['p50'].show(1)} ms, p99 {whole.latency['p99'].show(1)} ms there.",
        f"Added at half load, over the direct call: p50 {added['p50'].show(2)} ms, "
        f"p99 {added['p99'].show(2)} ms. Latency counts from the moment a call was due.",
    ]
    plot = Plot("latency", "Generate: latency by rate", "calls/s", "ms", lines)
    return Result(tables, figures, [plot], notes)


def _percentiles(measured: Mapping[str, Measured], caption: str) -> Table:
    names = ("p50", "p90", "p99", "max")
    rows = [
        [
            name,
            *(each.latency[part].show(2) for part in names),
            each.per_second.show(),
            f"{each.failed.median:.1%}",
        ]
        for name, each in measured.items()
    ]
    return Table(["case", *(f"{name} ms" for name in names), "answered/s", "failed"], rows, caption)


def _added(measured: Mapping[str, Measured], part: str) -> Figure:
    """The router's percentile less the direct call's, round by round."""
    with_router, without = measured[ON].latency[part], measured[_DIRECT].latency[part]
    pairs = zip(with_router.samples, without.samples, strict=True)
    return Figure(tuple(a - b for a, b in pairs))


_TRACE = "traces/AzureLLMInferenceTrace_conv.csv.gz"
# How many times faster than recorded, and for how many calls.
_SPEEDS = (5, 20)
_BYTES_PER_TOKEN = 4


def trace(bench: Bench) -> Result:
    """Production arrivals, prompt sizes and answer lengths, at k times their speed."""
    corpus = Path(os.environ.get("TRUNKLINE_CORPUS", tools.ROOT.parent / "shared" / "data"))
    path = corpus / _TRACE
    if not path.is_file():
        raise Skipped(f"no trace at {path}: set TRUNKLINE_CORPUS to the folder of reference data")
    rows, figures = [], {}
    for speed in _SPEEDS:
        calls = list(islice(_recorded(path), bench.options.calls(2_000)))
        replay = bench.file("trace.jsonl", _replay(calls, speed))
        length = (calls[-1][0] - calls[0][0]).total_seconds() / speed
        load = Load(
            calls=len(calls),
            body=replay,
            method="StreamGenerate",
            headers=BEARER,
            connections=8,
            rate=len(calls) / length,
            stream=True,
        )

        with bench.router(Setup()) as router:
            outcome = bench.generators.replay(router.address, replay, load)
        if outcome.ok != len(calls) or outcome.chunks != sum(answer for _, _, answer in calls):
            raise BenchError(
                f"{outcome.ok} of {len(calls)} calls, {outcome.chunks} chunks: {outcome.errors}"
            )
        name = f"{speed} x recorded speed"
        figures[str(speed)] = {
            "calls_per_second": outcome.per_second,
            "chunks_per_second": outcome.chunks / outcome.seconds,
            "latency_ms": outcome.latency,
            "first_token_ms": outcome.first_token,
        }
        rows.append(
            [
                name,
                f"{outcome.per_second:,.0f}",
                f"{outcome.chunks / outcome.seconds:,.0f}",
                *(f"{outcome.first_token[part]:.1f}" for part in ("p50", "p99")),
                *(f"{outcome.latency[part]:.1f}" for part in ("p50", "p99")),
            ]
        )
    columns = ["case", "calls/s", "chunks/s", "first token p50 ms", "p99 ms", "whole p50 ms", "p99"]
    note = (
        "The upstream thinks for 20 ms, then writes the recorded number of tokens at once. One run."
    )
    return Result([Table(columns, rows)], figures, notes=[note])


def _replay(calls: Sequence[tuple[datetime, int, int]], speed: int) -> bytes:
    """The calls as the loader reads them, so many times faster than recorded."""
    lines = []
    for moment, prompt, answer in calls:
        model = f"any/bench:tokens={answer},latency=20ms"
        message = generate_request(model, prompt * _BYTES_PER_TOKEN).SerializeToString()
        due = (moment - calls[0][0]).total_seconds() * 1000 / speed
        text = base64.b64encode(message).decode()
        lines.append(json.dumps({"at_ms": due, "body_base64": text}))
    return "\n".join(lines).encode()


def _recorded(path: Path) -> Iterator[tuple[datetime, int, int]]:
    """Arrival, prompt tokens and answer tokens of each call of the trace that has an answer."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            # Seven digits after the second; six are understood.
            moment = datetime.fromisoformat(row["TIMESTAMP"][:26])
            if int(row["GeneratedTokens"]) > 0:
                yield moment, int(row["ContextTokens"]), int(row["GeneratedTokens"])


SCENARIOS = (
    Scenario(
        name="rates",
        title="Generate: latency at fixed rates",
        config="as generate",
        payload="as generate, begun at fixed moments whether or not earlier calls have ended",
        expected="every call OK up to half load; above, failures are counted",
        run=rates,
        quick=True,
    ),
    Scenario(
        name="trace",
        title="StreamGenerate: a recorded day's arrivals",
        config="as generate",
        payload="the Azure LLM inference trace of 2023, conversations: its arrivals and lengths",
        expected="every stream ends well, with the recorded number of tokens",
        run=trace,
    ),
)
