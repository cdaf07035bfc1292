"""Overspend: three replicas on one Redis, 200 callers, one cap, and a trace of real traffic.

usage: python -m bench.proofs.overspend [--scale X] [--only CASE]...

Each case replays a stretch of the trace of conversations (arrival, prompt and answer of each
call) 20 times as fast through three routers that share one cap of half of what the stretch
would take, and adds up what callers were told that they took.
"""

import argparse
import asyncio
import csv
import gzip
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import status_pb2
from tests.support.process import RouterProcess, router_process
from tests.support.redis_server import RedisServer
from tests.support.router import channel_to

from bench.common import tools
from bench.configs import BEARER, KEY, UPSTREAM_KEY
from bench.payloads import prose
from bench.proofs.base import BenchError, Options, Result, Stage, Table
from bench.proofs.stage import set_up
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub

if TYPE_CHECKING:
    from trunkline.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

REPLICAS = 3
CALLERS = 200
SPEED = 20.0
# Of the trace, in its own seconds; 600 of them are replayed in 30.
STRETCH = 600.0
_TRACE = "traces/AzureLLMInferenceTrace_conv.csv.gz"
# Answers of so many tokens; a call asks for the next larger one, and may write twice as much.
_SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048)
# Longer prompts are cut: they are rare, and the callers share the machine.
_MOST_PROMPT = 4_000
_MODEL = "gpt-4o"  # Its price is the price table's.
_LATENCY = "1500ms"
_PATIENCE = 60.0
# LeasePolicy's own: what a replica takes ahead of a cap at most.
_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Arrival:
    """One call of the trace: seconds since the first, and tokens."""

    at: float
    prompt: int
    answer: int


@dataclass(frozen=True, slots=True)
class Case:
    """One cap. `kind` is budget, requests or tokens."""

    kind: str
    mode: str

    @property
    def name(self) -> str:
        """As the table names it."""
        return f"{self.kind}, {self.mode}"


CASES = tuple(
    Case(kind, mode) for kind in ("budget", "requests", "tokens") for mode in ("exact", "leased")
)


@dataclass(slots=True)
class Told:
    """What callers were told, added up: nanos of a dollar, tokens and calls."""

    answered: int = 0
    refused: int = 0
    # Redis did not answer in time, on a machine that had more to do than it could.
    unchecked: int = 0
    # Neither: the proof is then worth nothing.
    odd: list[str] = field(default_factory=list)
    nanos: int = 0
    tokens: int = 0
    # Seconds of the replay.
    elapsed: float = 0.0

    def taken(self, kind: str) -> int:
        """What counts against a cap."""
        return {"budget": self.nanos, "requests": self.answered, "tokens": self.tokens}[kind]


def read_trace(path: Path, stretch: float) -> list[Arrival]:
    """The first so many seconds of the trace. Raises BenchError if it is not there."""
    if not path.is_file():
        raise BenchError(f"no trace at {path}: set TRUNKLINE_CORPUS to the folder of data")
    found: list[Arrival] = []
    first: datetime | None = None
    with gzip.open(path, "rt", newline="") as lines:
        for row in csv.DictReader(lines):
            # Seven decimals, of which six are read.
            moment = datetime.fromisoformat(row["TIMESTAMP"][:26])
            first = first or moment
            at = (moment - first).total_seconds()
            if at >= stretch:
                break
            prompt = min(int(row["ContextTokens"]), _MOST_PROMPT)
            found.append(Arrival(at, prompt, int(row["GeneratedTokens"])))
    return found


def size_of(answer: int) -> int:
    """The answer that stands for one of so many tokens."""
    return next((size for size in _SIZES if size >= answer), _SIZES[-1])


def cap_of(case: Case, arrivals: Iterable[Arrival]) -> int:
    """Half of what the calls would take: nanos, calls or tokens."""
    calls = list(arrivals)
    tokens = sum(call.prompt + size_of(call.answer) for call in calls)
    # At the price of the model: 2.5 and 10 dollars a million.
    nanos = sum(call.prompt * 2_500 + size_of(call.answer) * 10_000 for call in calls)
    return {"budget": nanos, "requests": len(calls), "tokens": tokens}[case.kind] // 2


def bound_of(case: Case, cap: int, seconds: float) -> int:
    """What may be taken beyond the cap, as it is declared.

    Limits are rates: in a day the cap comes back once. A leased rate may be used later by what
    replicas have taken ahead, one pot each; a leased budget is exceeded only by the pot of a
    replica that dies, of which there is none here.
    """
    if case.kind == "budget":
        return 0
    refilled = math.ceil(cap * seconds / 86_400)
    pots = REPLICAS * max(1, math.ceil(cap * _SHARE)) if case.mode == "leased" else 0
    return refilled + pots


def config_of(case: Case, cap: int, upstream: str) -> dict[str, Any]:
    """The routers' configuration."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    rules: dict[str, Any] = {}
    if case.kind == "budget":
        amount = f"{cap / 1e9:.9f}"
        rules["budgets"] = {"cap": {"scope": "tenant", "amount": amount, "mode": case.mode}}
    else:
        rule = {"measure": case.kind, "scope": "tenant", "amount": cap, "per": "day"}
        rules["limits"] = {"cap": {**rule, "mode": case.mode}}
    return {
        "providers": {
            f"out-{size}": {
                "kind": "openai",
                "base_url": f"http://{upstream}/latency={_LATENCY},tokens={size}/v1",
                "api_key": "env:BENCH_UPSTREAM_KEY",
            }
            for size in _SIZES
        },
        "deployments": [
            {
                "name": f"out-{size}",
                "provider": f"out-{size}",
                "model": _MODEL,
                "capabilities": ["chat", "streaming"],
            }
            for size in _SIZES
        ],
        "models": {f"out-{size}": {"deployments": [f"out-{size}"]} for size in _SIZES},
        "keys": [{"name": "proofs", "hash": f"sha256:{digest}", "tenant": "acme"}],
        # While Redis does not answer in time there is no exact answer: refused, and counted.
        "state": {
            "redis": "env:PROOF_REDIS",
            "limits_on_outage": "deny",
            "budgets_on_outage": "deny",
        },
        "telemetry": {"log_level": "warning"},
        **rules,
    }


@asynccontextmanager
async def replicas(path: Path, redis: str) -> AsyncGenerator[list[RouterProcess]]:
    """Routers that share a Redis."""
    environment = {"BENCH_UPSTREAM_KEY": UPSTREAM_KEY, "PROOF_REDIS": redis}
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(router_process("--config", str(path), env=environment))
            for _ in range(REPLICAS)
        ]


async def replay(
    addresses: Sequence[str], arrivals: Sequence[Arrival], *, callers: int, speed: float
) -> Told:
    """Makes the calls when they are due, or as soon as one of the callers is free."""
    told = Told()
    waiting = iter(enumerate(arrivals))
    async with AsyncExitStack() as stack:
        stubs: list[InferenceServiceAsyncStub] = [
            InferenceServiceStub(await stack.enter_async_context(channel_to(address)))
            for address in addresses
        ]
        begun = time.monotonic()

        async def caller() -> None:
            for number, arrival in waiting:
                due = begun + arrival.at / speed
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await _call(stubs[number % len(stubs)], arrival, told)

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
        told.elapsed = time.monotonic() - begun
    return told


async def _call(stub: "InferenceServiceAsyncStub", arrival: Arrival, told: Told) -> None:
    size = size_of(arrival.answer)
    # The provider counts four bytes of the message for a token.
    part = v1.Part(text=prose(arrival.prompt * 4))
    request = v1.GenerateRequest(
        model=f"out-{size}",
        messages=[v1.Message(role=v1.ROLE_USER, parts=[part])],
        config=v1.GenerationConfig(max_output_tokens=2 * size),
    )
    try:
        answer = await stub.Generate(request, timeout=_PATIENCE, metadata=tuple(BEARER.items()))
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE and "cannot be checked" in _words(error):
            told.unchecked += 1
            return
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            told.odd.append(f"{error.code().name}: {error.details()}")
            return
        told.refused += 1
        _add_report(error, told)
    else:
        told.answered += 1
        told.nanos += answer.cost.total
        told.tokens += answer.usage.input_tokens + answer.usage.output_tokens


def _words(error: grpc.aio.AioRpcError) -> str:
    return error.details() or ""


def _add_report(error: grpc.aio.AioRpcError, told: Told) -> None:
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    for packed in status_pb2.Status.FromString(bytes(details)).details:
        report = v1.CallReport()
        if packed.Unpack(report):
            told.nanos += report.cost.total
            told.tokens += report.usage.input_tokens + report.usage.output_tokens


async def run(stage: Stage, only: Sequence[str] = ()) -> Result:
    """As the module says."""
    corpus = Path(os.environ.get("TRUNKLINE_CORPUS", tools.ROOT.parent / "shared" / "data"))
    arrivals = read_trace(corpus / _TRACE, STRETCH * stage.options.scale)
    rows, broken = [], []
    figures: dict[str, Any] = {"calls": len(arrivals), "callers": CALLERS, "replicas": REPLICAS}
    for case in CASES:
        if only and case.name not in only:
            continue
        cap = cap_of(case, arrivals)
        path = stage.folder(f"overspend-{case.kind}-{case.mode}") / "trunkline.yaml"
        # JSON is YAML.
        path.write_text(json.dumps(config_of(case, cap, stage.upstream.address), indent=1))
        redis = RedisServer(stage.redis_program)
        try:
            redis.start()
            async with replicas(path, redis.url) as routers:
                addresses = [router.address for router in routers]
                told = await replay(addresses, arrivals, callers=CALLERS, speed=SPEED)
        finally:
            redis.close()
        taken, bound = told.taken(case.kind), bound_of(case, cap, told.elapsed)
        over = max(0, taken - cap)
        rows.append(_row(case, cap, told, over, bound))
        figures[case.name] = {
            "cap": cap,
            "taken": taken,
            "overspend": over,
            "bound": bound,
            "answered": told.answered,
            "refused": told.refused,
            "unchecked": told.unchecked,
            "seconds": round(told.elapsed, 1),
        }
        broken += _judge(case, told, over, bound)
        print(" | ".join(rows[-1]), flush=True)
    columns = [
        *("cap", "calls", "answered", "refused", "Redis late"),
        *("allowed", "taken", "overspend", "bound"),
    ]
    note = (
        f"{len(arrivals):,} calls of the first {STRETCH * stage.options.scale:,.0f} s of the trace"
        f" at {SPEED:g} times its speed, {CALLERS} callers, {REPLICAS} replicas. Budgets in dollars"
        " at the price of gpt-4o. The bound of a limit is what comes back of it in the time of the"
        " run, and of a leased one what replicas may hold ahead. While Redis is late, limits"
        " and budgets deny, as configured."
    )
    return Result([Table(columns, rows)], figures, broken, [note])


def _row(case: Case, cap: int, told: Told, over: int, bound: int) -> list[str]:
    def show(amount: int) -> str:
        return f"{amount / 1e9:.6f}" if case.kind == "budget" else f"{amount:,}"

    calls = told.answered + told.refused + told.unchecked + len(told.odd)
    counts = [f"{number:,}" for number in (calls, told.answered, told.refused, told.unchecked)]
    return [case.name, *counts, *map(show, (cap, told.taken(case.kind), over, bound))]


def _judge(case: Case, told: Told, over: int, bound: int) -> list[str]:
    found = [f"{case.name}: {told.odd[0]}, and {len(told.odd) - 1} more"] if told.odd else []
    if over > bound:
        found.append(f"{case.name}: {over} beyond the cap, of which {bound} were declared")
    if not told.refused:
        found.append(f"{case.name}: the cap was not reached, so that nothing was shown")
    return found


def main() -> int:
    """Carries the proof out by itself and prints its table."""
    parser = argparse.ArgumentParser(prog="bench.proofs.overspend")
    parser.add_argument("--scale", type=float, default=1.0, help="times the stretch of the trace")
    parser.add_argument("--only", action="append", default=[], help="a case; may be repeated")
    parsed = parser.parse_args()
    with set_up(Options(scale=parsed.scale)) as stage:
        result = asyncio.run(run(stage, parsed.only))
    for line in result.broken:
        print(f"broken: {line}")
    return 1 if result.broken else 0


if __name__ == "__main__":
    sys.exit(main())
