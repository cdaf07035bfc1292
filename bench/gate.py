"""The regression gate: what one call costs, in counts that every machine agrees on.

usage: python -m bench.gate [--update]

A router serves in this process, with keys and telemetry on, while the compiled loader sends it
a fixed load, one call after another. Counted are, for one call and for one chunk of a stream:

- function calls, Python's and C's, on the router's thread;
- bytecode instructions on it, judged only on the Python that the allowed figures are of;
- memory blocks that each call leaves behind: a leak;
- upstream connections opened for 3,000 calls, 16 at a time;
- function calls and instructions of a Generate with a limit, a budget and the ledger as well;
- round trips to Redis under exact and under leased limits and budgets, and SQL statements of the
  ledger in Postgres, on real servers;
- system calls that move bytes, by strace, on a router in a process of its own.

bench/gate.json holds the allowed figures, 10 % above what was measured when they were set, and
more for counts that vary by nature; `--update` sets them anew. A count above its allowed figure
fails.
"""

from trunkline_server.app.tuning import tune_grpc

# Before anything imports grpc.
tune_grpc()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Collection, Mapping  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import uvloop  # noqa: E402

from bench.common import tools  # noqa: E402
from bench.common.child import BenchError  # noqa: E402
from bench.common.load import Generators  # noqa: E402
from bench.gate_counts import in_process, round_trips, system_calls  # noqa: E402
from bench.subjects import Bench, Options, upstream  # noqa: E402

ALLOWED = Path(__file__).with_name("gate.json")
HEADROOM = 1.10
# Counts that do not come out the same twice, and what is allowed of them at the least.
_VARYING = {
    "blocks held for each call": (1.5, 0.2),
    "upstream connections for 3,000 calls": (1.5, 20.0),
    "Generate: system calls that move bytes": (1.3, 0.0),
    "Generate with limit, budget, ledger: system calls that move bytes": (1.5, 0.0),
    "leased limit and budget: Redis round trips": (1.5, 0.2),
    "ledger: SQL statements": (1.3, 0.0),
}
# Below this share of the allowed figure, the figure is due to be lowered.
_SLACK = 0.8


# The exporter's own variable, in milliseconds. Sampled spans otherwise wait five seconds in its
# queue, longer than a round of calls takes, and look like memory that calls leave behind.
_SPAN_EXPORT_DELAY = {"OTEL_BSP_SCHEDULE_DELAY": "10"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.gate", description="Fail when a call costs more.")
    parser.add_argument("--update", action="store_true", help="set the allowed figures anew")
    update = parser.parse_args().update
    counts, skipped = measure()
    for name, reason in skipped.items():
        print(f"warning: {name} was not counted: {reason}", file=sys.stderr)
    if skipped and os.environ.get("CI"):
        print("error: in CI nothing may be left uncounted", file=sys.stderr)
        return 1
    python = ".".join(platform.python_version_tuple()[:2])
    if update:
        allowed = {name: _allow(name, count) for name, count in counts.items()}
        ALLOWED.write_text(json.dumps({"python": python, "allowed": allowed}, indent=2) + "\n")
    return judge(counts, json.loads(ALLOWED.read_text()), python, skipped)


def measure() -> tuple[dict[str, float], dict[str, str]]:
    """The counts by name, and why others are missing."""
    os.environ.update(_SPAN_EXPORT_DELAY)
    program, loader = tools.build()
    with (
        tempfile.TemporaryDirectory(prefix="trunkline-gate-") as scratch,
        upstream(program, None) as running,
    ):
        # ghz, which chooses its own concurrency, takes no part.
        generators = Generators(Path(), loader, Path())
        bench = Bench(Options(), generators, running, Path(scratch))
        counts = uvloop.run(in_process(bench))
        moved, unmoved = system_calls(bench)
        asked, unasked = round_trips(bench)
    return counts | moved | asked, unmoved | unasked


def _allow(name: str, count: float) -> float:
    headroom, least = _VARYING.get(name, (HEADROOM, 0.0))
    return round(max(count * headroom, least), 1)


def judge(
    counts: Mapping[str, float],
    known: Mapping[str, Any],
    python: str,
    skipped: Collection[str] = (),
) -> int:
    """Prints every count beside its allowed figure; returns the exit code. What is allowed and
    neither counted nor skipped for a known reason fails too."""
    failed = False
    print("| count | measured | allowed | |\n| --- | ---: | ---: | --- |")
    for name, count in counts.items():
        allowed = known["allowed"].get(name)
        if allowed is None:
            word, failed = "**has no allowed figure**; run with --update", True
        elif "instructions" in name and known["python"] != python:
            word = f"not judged: the figure is Python {known['python']}'s"
        elif count > allowed:
            word, failed = "**too many**", True
        else:
            low = count < _SLACK * allowed and name not in _VARYING
            word = "ok; the allowed figure can be lowered" if low else "ok"
        print(f"| {name} | {count:,.1f} | {allowed or 0:,.1f} | {word} |")
    for name in known["allowed"].keys() - counts.keys() - set(skipped):
        print(f"| {name} | | {known['allowed'][name]:,.1f} | **was not counted** |")
        failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(1)
