"""A router as operators run it: a child process, told by signals, asked over sockets."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.mortal import mortal
from tests.support.ports import free_port

# What goes before a command that must not write where it may not: root does, without this one
# capability it does not.
PLAIN_USER = ("setpriv", "--bounding-set", "-dac_override") if os.geteuid() == 0 else ()

# A loaded machine starts slowly; a router that takes longer does not start at all.
START_SECONDS = 60.0


@dataclass
class RouterProcess:
    """A running `trunkline serve`. `log` holds its log lines so far, as they come."""

    process: asyncio.subprocess.Process
    address: str
    ops: str
    # Where its control plane is, if it was started with one.
    control: str = ""
    # Where its OpenAI-compatible face is, likewise.
    openai: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def send(self, number: signal.Signals) -> None:
        """Signals the process."""
        self.process.send_signal(number)

    async def logged(self, event: str, count: int = 1) -> dict[str, Any]:
        """Waits for the count-th line with this event, and gives it."""
        async with asyncio.timeout(START_SECONDS), self.changed:
            while len(lines := [row for row in self.log if row.get("event") == event]) < count:
                await self.changed.wait()
        return lines[count - 1]

    async def get(self, path: str) -> tuple[int, str]:
        """The status and the body at an ops path; status 0 when nobody answers."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{self.ops}{path}") as answer,
            ):
                return answer.status, await answer.text()
        except aiohttp.ClientConnectionError:
            return 0, ""


@asynccontextmanager
async def router_process(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    control: bool = False,
    openai: bool = False,
    listen: str = "",
) -> AsyncGenerator[RouterProcess]:
    """Starts the router on free ports, those of its control plane and of its OpenAI-compatible
    face among them if it is to have them, or at the address to listen at, and waits until it is
    ready."""
    address, ops = listen or f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    admin = f"127.0.0.1:{free_port()}" if control else ""
    if admin:
        arguments = (*arguments, "--admin-listen", admin)
    face = f"127.0.0.1:{free_port()}" if openai else ""
    if face:
        arguments = (*arguments, "--openai-listen", face)
    process = await asyncio.create_subprocess_exec(
        *mortal(_command(address, ops, arguments)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    router = RouterProcess(process, address, ops, admin, face)
    reading = asyncio.create_task(_read(router))
    try:
        async with asyncio.timeout(START_SECONDS):
            while (await router.get("/readyz"))[0] != 200:
                assert process.returncode is None, router.log
                await asyncio.sleep(0.05)
        yield router
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


def _command(address: str, ops: str, arguments: Sequence[str]) -> list[str]:
    trunkline = Path(sys.executable).with_name("trunkline")
    simulator = f"127.0.0.1:{free_port()}"
    return [
        str(trunkline),
        "serve",
        *("--listen", address, "--ops-listen", ops, "--simulator-listen", simulator),
        *arguments,
    ]


async def _read(router: RouterProcess) -> None:
    assert router.process.stderr is not None
    async for line in router.process.stderr:
        try:
            row = json.loads(line)
        except ValueError:
            row = {"event": "", "text": line.decode(errors="replace")}
        async with router.changed:
            router.log.append(row)
            router.changed.notify_all()
