"""The harness' end of a driver: a client's small program, told what to do line by line."""

import asyncio
import base64
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.mortal import mortal

# No call of a case takes so long; a driver that does is broken. Seconds.
PATIENCE = 60.0

Answer = dict[str, Any]


class DriverError(Exception):
    """The driver died, or did not answer as the protocol says."""


class Pending:
    """What a driver has answered to one line so far."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.result: Answer | None = None
        self._changed = asyncio.Condition()

    async def take(self, answer: Answer) -> None:
        async with self._changed:
            if "event" in answer:
                self.events.append(base64.b64decode(answer["event"]))
            elif self.result is None:
                self.result = answer
            else:
                self.result = {"failed": f"two results: {self.result} and {answer}"}
            self._changed.notify_all()

    async def event(self, count: int) -> None:
        """Waits until so many events have come, or the result."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: self.result or len(self.events) >= count)

    async def done(self) -> Answer:
        """The result."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: self.result is not None)
        assert self.result is not None
        return self.result


class Driver:
    """A running driver; see README.md for what is said over its standard input and output."""

    def __init__(self, command: Sequence[str], directory: Path, errors: Path) -> None:
        self._command = command
        self._directory = directory
        self._errors = errors
        self._pending: dict[int, Pending] = {}
        self._dead = False

    async def __aenter__(self) -> Self:
        with self._errors.open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *mortal(self._command),
                cwd=self._directory,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=2**27,
            )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), PATIENCE)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            if error is None:
                raise DriverError("the driver did not end with its input") from None
        finally:
            await self._reading
        if error is None and self._process.returncode != 0:
            raise DriverError(f"the driver ended with {self._process.returncode}: {self.said()}")

    def said(self) -> str:
        """The end of what it wrote to standard error."""
        return self._errors.read_text("utf-8", "replace")[-2000:]

    def tell(self, op: str, **words: Any) -> tuple[int, Pending]:
        """Sends a line; gives its number and what will be answered to it."""
        number = len(self._pending) + 1
        pending = self._pending[number] = Pending()
        line = json.dumps({"id": number, "op": op, **words})
        if self._dead:
            raise DriverError(f"the driver has ended: {self.said()}")
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        return number, pending

    async def ask(self, op: str, **words: Any) -> Answer:
        """Sends a line and waits for its result."""
        return await self.tell(op, **words)[1].done()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            answer = json.loads(line)
            await self._pending[answer["id"]].take(answer)
        self._dead = True
        for pending in self._pending.values():
            if pending.result is None:
                await pending.take({"failed": f"the driver has ended: {self.said()}"})
