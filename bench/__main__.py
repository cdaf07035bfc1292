"""`python -m bench`: runs the scenarios and writes bench/results/.

usage: python -m bench [--quick] [--only NAME]... [--rounds N] [--scale X] [--list]
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.common import machine, tools
from bench.common.child import BenchError
from bench.common.load import Generators
from bench.payloads import write_protoset
from bench.report import markdown
from bench.report.markdown import Run
from bench.report.targets import Verdict, judge
from bench.scenarios.base import Result, Scenario, Skipped
from bench.scenarios.registry import SCENARIOS
from bench.subjects import Bench, Options, upstream

RESULTS = tools.ROOT / "bench" / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 when a scenario did not give what it should."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure the router.")
    parser.add_argument("--quick", action="store_true", help="the core scenarios, in 4 minutes")
    parser.add_argument("--only", action="append", metavar="NAME", help="may be repeated")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default: 5; quick: 3)")
    parser.add_argument("--scale", type=float, help="times the usual number of calls")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parsed = parser.parse_args(argv)
    if parsed.list:
        for scenario in SCENARIOS:
            print(f"{scenario.name:12}{scenario.title}{' (quick)' if scenario.quick else ''}")
        return 0
    unknown = set(parsed.only or ()) - {scenario.name for scenario in SCENARIOS}
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; see --list")
    options = Options(
        rounds=parsed.rounds or (3 if parsed.quick else 5),
        scale=parsed.scale or (0.4 if parsed.quick else 1.0),
        quick=parsed.quick,
    )
    chosen = [
        scenario
        for scenario in SCENARIOS
        if (scenario.name in parsed.only if parsed.only else scenario.quick or not parsed.quick)
    ]
    return measure(chosen, options, parsed.output)


def measure(chosen: Sequence[Scenario], options: Options, output: Path) -> int:
    """Runs the scenarios in turn and writes the report, failures included."""
    facts = machine.describe()
    # Thousands of streams are as many sockets, in every program that is started here.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    results: dict[Scenario, Result] = {}
    skipped: dict[Scenario, str] = {}
    failed = False
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as scratch:
        folder = Path(scratch)
        program, loader = tools.build()
        generators = Generators(tools.ghz(), loader, write_protoset(folder / "contract.protoset"))
        cores = os.cpu_count() or 1
        with upstream(program, cores - 1 if cores > 1 else None) as running:
            bench = Bench(options, generators, running, folder)
            for scenario in chosen:
                say(f"{scenario.name}: {scenario.title}")
                try:
                    results[scenario] = scenario.run(bench)
                except Skipped as reason:
                    skipped[scenario] = str(reason)
                    say(f"  skipped: {reason}")
                except BenchError as error:
                    skipped[scenario] = f"**failed**: {error}"
                    say(f"  failed: {error}")
                    failed = True
                else:
                    for table in results[scenario].tables:
                        say(markdown.table(table))
    minutes = (time.monotonic() - begun) / 60
    settings = f"{options.rounds} rounds, scale {options.scale:g}, {minutes:.1f} minutes"
    run = Run(settings=settings, machine=facts, results=results, skipped=skipped)
    verdicts = judge(run.figures)
    report = markdown.write(output, run, verdicts)
    (output / "results.json").write_text(json.dumps(as_json(run, options, verdicts), indent=1))
    say(markdown.targets([verdict for verdict in verdicts if verdict.figure is not None]))
    say(f"report: {report}")
    return 1 if failed else 0


def as_json(run: Run, options: Options, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The report for programs."""
    targets = [
        {
            "promise": verdict.target.promise,
            "at_least" if verdict.target.at_least else "at_most": verdict.target.bound,
            "unit": verdict.target.unit,
            "measured": verdict.figure,
            "verdict": verdict.word.strip("*"),
        }
        for verdict in verdicts
    ]
    return {
        "machine": run.machine,
        "options": asdict(options),
        "targets": targets,
        "scenarios": run.figures,
        "skipped": {scenario.name: why for scenario, why in run.skipped.items()},
    }


def say(text: str) -> None:
    """Progress, as it happens."""
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(1)
