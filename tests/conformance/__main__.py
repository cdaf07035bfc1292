"""Plays the list of cases against the clients and prints the table of case and client.

usage: python -m tests.conformance [CLIENT]... [--case NAME]... [--test]

Exits with 1 when a case fails, or when a client's toolchain is missing and CI=true.
"""

import argparse
import asyncio
import sys

from tests.conformance.clients import Client, clients
from tests.conformance.run import cases, play_all
from tests.conformance.table import failures, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("clients", nargs="*", help="the clients; all when none is named")
    parser.add_argument("--case", action="append", help="play these cases only")
    parser.add_argument("--test", action="store_true", help="build and test the clients first")
    words = parser.parse_args()
    chosen = clients(words.clients)
    built: list[Client] = []
    missing: list[Client] = []
    broken = []
    for client in chosen:
        if client.missing():
            missing.append(client)
        elif client.prepare(test=words.test):
            built.append(client)
        else:
            broken.append(client.name)
    listed = cases(words.case)
    outcomes = asyncio.run(play_all(built, listed, examples=not words.case)) if built else {}
    print(table(listed, outcomes, [client.name for client in missing]))
    for line in failures(outcomes):
        print(line)
    for client in missing:
        print(
            f"{'error' if client.must_be_there else 'warning'}: the {client.name} client was "
            f"neither built nor tested: not on PATH: {', '.join(client.missing())}"
        )
    for name in broken:
        print(f"error: the {name} client failed its own build or tests, see above")
    failed = bool(broken or failures(outcomes) or any(each.must_be_there for each in missing))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
