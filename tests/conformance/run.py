"""Plays cases against clients, one after the other, in one world."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from tests.conformance.clients import Client
from tests.conformance.driver import Driver, DriverError
from tests.conformance.play import API_KEY, Case, CaseError, Play
from tests.conformance.world import World
from tests.support.mortal import mortal

# The row of the table that is no case of the list.
EXAMPLE = "example"

_LIST = Path(__file__).with_name("cases.yaml")


@dataclass(frozen=True)
class Outcome:
    """How a case went with a client: ok, failed or skipped, and why."""

    state: str
    reason: str = ""


def cases(names: Sequence[str] | None = None) -> list[Case]:
    """The named cases, or all. Raises SystemExit for a name that is not listed."""
    rows: list[Case] = yaml.safe_load(_LIST.read_text("utf-8"))
    if unknown := set(names or ()) - {row["name"] for row in rows}:
        sys.exit(f"error: no such case: {', '.join(sorted(unknown))}")
    return [row for row in rows if not names or row["name"] in names]


async def play_all(
    clients: Sequence[Client], listed: Sequence[Case], *, examples: bool = False
) -> dict[str, dict[str, Outcome]]:
    """The outcome of each case with each client; and of their examples, if they are to run."""
    outcomes: dict[str, dict[str, Outcome]] = {}
    async with World() as world:
        for client in clients:
            outcomes[client.name] = await _play_client(world, client, listed)
            if examples and client.example:
                outcomes[client.name][EXAMPLE] = await _run_example(world, client)
    return outcomes


async def _run_example(world: World, client: Client) -> Outcome:
    """Holds a conversation of two turns with a client's example program."""
    environment = {"TRUNKLINE_TARGET": world.routers["main"].address, "TRUNKLINE_API_KEY": API_KEY}
    process = await asyncio.create_subprocess_exec(
        *mortal([*client.example, "large"]),
        cwd=client.folder,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate(b"red or blue?\nand green?\n")
    told = out.decode(errors="replace")
    # The second answer has read the question, the answer and the question.
    wanted = ("Read 1 messages, the last user text being: red or blue?", "Read 3 messages")
    right = process.returncode == 0 and all(text in told for text in wanted)
    state = "ok" if right else "failed"
    print(f"{client.name}: {EXAMPLE}: {state}", flush=True)
    return Outcome(state, "" if right else f"{told}\n{error.decode(errors='replace')}")


async def _play_client(world: World, client: Client, listed: Sequence[Case]) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    errors = world.directory / f"{client.name}.log"
    waiting = list(listed)
    while waiting:
        # A driver that failed is replaced, so that one failure does not hide what follows.
        try:
            async with Driver(_own_names(world, client.drive), client.folder, errors) as driver:
                while waiting:
                    case = waiting.pop(0)
                    outcome = await _play(world, driver, case)
                    outcomes[case["name"]] = outcome
                    print(f"{client.name}: {case['name']}: {outcome.state}", flush=True)
                    if outcome.state == "failed":
                        break
        except DriverError as error:
            outcomes[case["name"]] = Outcome("failed", str(error))
    return outcomes


async def _play(world: World, driver: Driver, case: Case) -> Outcome:
    if "name" in case.get("needs", ()) and (lacking := _lacking_names()):
        state = "failed" if os.environ.get("CI") == "true" else "skipped"
        print(f"warning: {case['name']} cannot be played: {lacking}", file=sys.stderr)
        return Outcome(state, lacking)
    await world.fresh()
    try:
        await Play(world, driver).run(case)
    except (CaseError, DriverError, TimeoutError) as error:
        return Outcome("failed", str(error) or "nothing came in time")
    return Outcome("ok")


# A name with two addresses, without touching the machine: the driver alone sees another hosts
# file, in a mount namespace of its own.
_MOUNT = 'mount --bind "$0" /etc/hosts && exec "$@"'


@cache
def _unshare() -> tuple[str, ...]:
    return ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))


@cache
def _lacking_names() -> str:
    """Why no driver can have a hosts file of its own; empty when it can."""
    if shutil.which("unshare") is None:
        return "unshare, of util-linux, was not found"
    tried = subprocess.run(
        [*_unshare(), "sh", "-c", _MOUNT, "/etc/hosts", "true"], capture_output=True, check=False
    )
    return tried.stderr.decode(errors="replace").strip() if tried.returncode else ""


def _own_names(world: World, command: Sequence[str]) -> Sequence[str]:
    if _lacking_names():
        return command
    return [*_unshare(), "sh", "-c", _MOUNT, str(world.hosts), *command]
