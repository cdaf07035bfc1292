"""Keeps worker processes alive: starts them, restarts what dies, drains them at the end.

A worker is any program that prints the line "ready" on its standard output once it serves,
that drains and exits on SIGTERM, and that does the same when its standard input ends, so
that no worker outlives its supervisor.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

READY_LINE = b"ready\n"

# Seconds between restarts of a worker that keeps dying: doubled from the first to the last,
# and forgotten once it has served for a while.
_FIRST_BACKOFF = 0.2
_LAST_BACKOFF = 10.0
_STEADY_AFTER = 30.0


@dataclass
class _Slot:
    """One place for a worker, and who holds it."""

    number: int
    process: asyncio.subprocess.Process | None = None
    ready: bool = False


class Supervisor:
    """Runs `count` workers of one command until told to stop."""

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        environment: Mapping[str, str],
        drain_timeout: float,
        on_exit: Callable[[int], None],
        *,
        others: Sequence[str] = (),
    ) -> None:
        """`on_exit` hears of the pid of each worker that has ended. `others` are arguments that
        all workers but the first get besides."""
        self._command = tuple(command)
        self._others = tuple(others)
        self._slots = [_Slot(number) for number in range(count)]
        self._environment = dict(environment)
        self._drain_timeout = drain_timeout
        self._on_exit = on_exit
        self._stopping = asyncio.Event()
        self._serving = asyncio.Event()
        self._failed_start = False
        self._log = structlog.get_logger()

    async def run(self) -> int:
        """Supervises until `stop`; returns the exit code: 1 if the workers could not start."""
        async with asyncio.TaskGroup() as group:
            for slot in self._slots:
                group.create_task(self._keep(slot))
        return 1 if self._failed_start else 0

    async def serving(self) -> bool:
        """Waits until every worker serves once; False if the start failed."""
        waits = [
            asyncio.create_task(self._serving.wait()),
            asyncio.create_task(self._stopping.wait()),
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return self._serving.is_set()

    def unready(self) -> str | None:
        """Why no calls are wanted now, or None."""
        if self._stopping.is_set():
            return "draining"
        if not any(slot.ready for slot in self._slots):
            return "no worker is ready"
        return None

    def stop(self) -> None:
        """Asks every worker to drain and exit."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def hang_up(self) -> None:
        """Asks every worker to read its configuration again."""
        self._signal(signal.SIGHUP)

    def _signal(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.process is not None and slot.process.returncode is None:
                slot.process.send_signal(number)

    async def _keep(self, slot: _Slot) -> None:
        loop = asyncio.get_running_loop()
        backoff = _FIRST_BACKOFF
        while not self._stopping.is_set():
            begun = loop.time()
            code = await self._serve_once(slot)
            if self._stopping.is_set():
                return
            if not self._serving.is_set():
                self._log.error("a worker could not start", worker=slot.number, exit_code=code)
                self._failed_start = True
                self.stop()
                return
            if loop.time() - begun > _STEADY_AFTER:
                backoff = _FIRST_BACKOFF
            self._log.error(
                "a worker died; another one starts",
                worker=slot.number,
                exit_code=code,
                backoff_seconds=backoff,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff)
            backoff = min(2 * backoff, _LAST_BACKOFF)

    async def _serve_once(self, slot: _Slot) -> int:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *(self._others if slot.number else ()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **self._environment},
            # An interrupt typed at a terminal goes to the whole foreground group; the workers
            # are told by their supervisor alone.
            start_new_session=True,
        )
        slot.process = process
        if self._stopping.is_set():
            process.terminate()
        watcher = asyncio.create_task(self._watch(slot, process.stdout))
        try:
            return await self._wait(process)
        finally:
            slot.ready = False
            watcher.cancel()
            self._on_exit(process.pid)

    async def _watch(self, slot: _Slot, output: asyncio.StreamReader | None) -> None:
        while output is not None and (line := await output.readline()):
            if line == READY_LINE:
                slot.ready = True
                if all(other.ready for other in self._slots):
                    self._serving.set()

    async def _wait(self, process: asyncio.subprocess.Process) -> int:
        exited = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({exited, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not exited.done():
                try:
                    await asyncio.wait_for(asyncio.shield(exited), self._drain_timeout)
                except TimeoutError:
                    self._log.error("a worker did not drain in time; killed", pid=process.pid)
                    process.kill()
            return await exited
        finally:
            stopping.cancel()
