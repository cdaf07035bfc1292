"""A million calls to one worker, and its memory over them: it must stay flat.

usage: python -m bench.soak [--calls 1000000] [--output bench/results]

After a first tenth, in which caches and pools fill, memory may grow by at most 5 %.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.common import machine, tools
from bench.common.child import BenchError, Running
from bench.common.load import Generators, Load
from bench.common.procfs import cpu_seconds, resident_bytes
from bench.configs import BEARER, Setup
from bench.payloads import generate_request, route_request, write_protoset
from bench.report.svg import Plot, draw
from bench.subjects import Bench, Options, upstream

_SLICES = 50
_GROWTH = 1.05


@dataclass(frozen=True, slots=True)
class Moment:
    """The worker after so many calls."""

    calls: int
    resident_mb: float
    cpu_us: float


def soak(bench: Bench, router: Running, calls: int) -> list[Moment]:
    """Nine parts Generate, one part Route, in slices; any failed call is a BenchError."""
    generate = bench.file("generate.bin", generate_request().SerializeToString())
    route = bench.file("route.bin", route_request().SerializeToString())
    each = max(calls // _SLICES, 10)
    loads = (
        Load(calls=each * 9 // 10, body=generate, method="Generate", headers=BEARER),
        Load(calls=each - each * 9 // 10, body=route, method="Route", headers=BEARER),
    )
    moments = []
    for number in range(1, _SLICES + 1):
        before = cpu_seconds(router.pid)
        for load in loads:
            outcome = bench.generators.send_grpc(router.address, load)
            if outcome.ok != load.calls:
                raise BenchError(f"{load.method}: {outcome.ok} of {load.calls}: {outcome.errors}")
        spent = cpu_seconds(router.pid) - before
        resident = sum(resident_bytes(router.pid).values()) / 1e6
        moments.append(Moment(number * each, resident, spent / each * 1e6))
        print(f"{number * each:>9,} calls  {resident:6.1f} MB  {moments[-1].cpu_us:6.0f} us/call")
        sys.stdout.flush()
    return moments


def growth(moments: Sequence[Moment]) -> float:
    """The last memory over that after a tenth of the calls."""
    return moments[-1].resident_mb / moments[len(moments) // 10 - 1].resident_mb


def write(folder: Path, moments: Sequence[Moment]) -> None:
    """The plot and the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    points = [(float(moment.calls), moment.resident_mb) for moment in moments]
    plot = Plot(
        "soak", "Memory of one worker", "calls", "RSS, MB", {"trunkline": points}, log_y=False
    )
    (folder / "soak.svg").write_text(draw(plot))
    report = {
        "machine": machine.describe(),
        "growth": growth(moments),
        "moments": [
            {"calls": each.calls, "resident_mb": each.resident_mb, "cpu_us": each.cpu_us}
            for each in moments
        ],
    }
    (folder / "soak.json").write_text(json.dumps(report, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.soak", description="Watch memory over calls.")
    parser.add_argument("--calls", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=tools.ROOT / "bench" / "results")
    parsed = parser.parse_args()
    program, loader = tools.build()
    with (
        tempfile.TemporaryDirectory(prefix="trunkline-soak-") as scratch,
        upstream(program, None) as running,
    ):
        folder = Path(scratch)
        generators = Generators(Path(), loader, write_protoset(folder / "contract.protoset"))
        bench = Bench(Options(), generators, running, folder)
        with bench.router(Setup()) as router:
            moments = soak(bench, router, parsed.calls)
    write(parsed.output, moments)
    grown = growth(moments)
    print(f"memory at the end is {grown:.3f} of that after a tenth; at most {_GROWTH} is allowed")
    return 0 if grown <= _GROWTH else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(1)
