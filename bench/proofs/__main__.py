"""`python -m bench.proofs`: carries out the proofs and writes bench/results/PROOFS.md.

usage: python -m bench.proofs [--only NAME]... [--rounds N] [--seed N] [--scale X] [--list]
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.common import machine, tools
from bench.common.child import BenchError
from bench.proofs.base import Options, Proof, Result
from bench.proofs.registry import PROOFS
from bench.proofs.report import as_json, section, write
from bench.proofs.stage import set_up

RESULTS = tools.ROOT / "bench" / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 when a promise did not hold or a proof could not be carried out."""
    parser = argparse.ArgumentParser(prog="bench.proofs", description="Prove what was promised.")
    parser.add_argument("--only", action="append", metavar="NAME", help="may be repeated")
    parser.add_argument("--rounds", type=int, help="rounds of proofs that have them")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual length of loads")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--list", action="store_true", help="name the proofs and end")
    parsed = parser.parse_args(argv)
    if parsed.list:
        for proof in PROOFS:
            print(f"{proof.name:14}{proof.title}")
        return 0
    unknown = set(parsed.only or ()) - {proof.name for proof in PROOFS}
    if unknown:
        parser.error(f"no such proof: {', '.join(sorted(unknown))}; see --list")
    options = Options(rounds=parsed.rounds, seed=parsed.seed, scale=parsed.scale)
    chosen = [proof for proof in PROOFS if not parsed.only or proof.name in parsed.only]
    return prove(chosen, options, parsed.output)


def prove(chosen: Sequence[Proof], options: Options, output: Path) -> int:
    """Carries out the proofs in turn and writes the report, broken promises included."""
    results: dict[Proof, Result] = {}
    failed = False
    begun = time.monotonic()
    with set_up(options) as stage:
        for proof in chosen:
            print(f"{proof.name}: {proof.title}", flush=True)
            try:
                result = asyncio.run(proof.run(stage))
            except BenchError as error:
                result = Result((), {}, (f"it could not be carried out: {error}",))
            results[proof] = result
            failed = failed or bool(result.broken)
            print(section(proof, result), flush=True)
    minutes = (time.monotonic() - begun) / 60
    facts = machine.describe() | {"seed": str(options.seed), "minutes": f"{minutes:.1f}"}
    report = write(output, facts, results)
    (output / "proofs.json").write_text(json.dumps(as_json(facts, results), indent=1) + "\n")
    print(f"report: {report}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(1)
