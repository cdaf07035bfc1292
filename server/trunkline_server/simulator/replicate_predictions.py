"""The predictions of the simulated Replicate: work that goes on whoever listens, until it is over
or called off."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Answer
from trunkline_server.simulator.script import Script

# Old predictions are forgotten, as the vendor forgets their input and output after an hour.
_MOST_KEPT = 10_000

OVER = frozenset({"canceled", "failed", "succeeded"})
FAILED_AFTER_START = (
    "Prediction failed for an unknown reason. It might have run out of memory? (E1001)"
)


@dataclass(eq=False)
class Prediction:
    """One prediction. `model` is honest; `fault` and `at_chunk` as a script has them."""

    id: str
    model: str
    version: str
    input: dict[str, Any]
    answer: Answer
    script: Script
    fault: str
    status: str = "starting"
    error: str | None = None
    output: list[str] = field(default_factory=list)
    created: float = field(default_factory=time.time)
    started: float | None = None
    completed: float | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def over(self) -> bool:
        return self.status in OVER

    def end(self, status: str, error: str | None = None) -> None:
        """Ends it, unless it has ended."""
        if not self.over:
            self.status, self.error, self.completed = status, error, time.time()
            self._tell()

    async def run(self) -> None:
        """Does the work, at the script's pace."""
        await asyncio.sleep(self.script.latency_ms / 1000)
        self.status, self.started = "processing", time.time()
        self._tell()
        pieces = list(tokens.pieces(self.answer.text, self.script.chunk_tokens))
        at = min(self.script.at_chunk, len(pieces) - 1) if self.fault else len(pieces)
        for piece in pieces[:at]:
            await asyncio.sleep(self.script.chunk_ms / 1000)
            self.output.append(piece)
            self._tell()
        if self.fault == "hang-midstream":
            await asyncio.Event().wait()
        if self.fault:
            self.end("failed", FAILED_AFTER_START)
        else:
            self.end("succeeded")

    async def wait(self, seconds: float) -> None:
        """Returns when it is over, or after that time."""
        try:
            async with asyncio.timeout(seconds):
                while not self.over:
                    await self.changed.wait()
        except TimeoutError:
            return

    async def pieces(self) -> AsyncIterator[str]:
        """The output as it comes, until the prediction is over."""
        told = 0
        while True:
            for piece in self.output[told:]:
                told += 1
                yield piece
            if self.over:
                return
            await self.changed.wait()

    def document(self, base: str) -> dict[str, Any]:
        """It as the vendor tells it; `base` is the URL that the paths stand below."""
        under = f"{base}/predictions/{self.id}"
        return {
            "id": self.id,
            "model": self.model,
            "version": self.version,
            "input": self.input,
            "logs": "",
            "output": list(self.output) if self.started is not None else None,
            "data_removed": False,
            "error": self.error,
            "source": "api",
            "status": self.status,
            "created_at": _told(self.created),
            "started_at": _told(self.started),
            "completed_at": _told(self.completed),
            "metrics": self._metrics(),
            "urls": {
                "get": under,
                "cancel": f"{under}/cancel",
                "stream": f"{base}/stream/{self.id}",
                "web": f"https://replicate.com/p/{self.id}",
            },
        }

    def _metrics(self) -> dict[str, Any]:
        if self.completed is None or self.started is None:
            return {}
        metrics: dict[str, Any] = {
            "predict_time": self.completed - self.started,
            "total_time": self.completed - self.created,
        }
        if self.model != "sim/sim-uncounted":
            written = tokens.count("".join(self.output))
            metrics["input_token_count"] = self.answer.input_tokens
            metrics["output_token_count"] = written
        return metrics

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Predictions:
    """All predictions of a simulator, each with the task that does its work."""

    def __init__(self) -> None:
        self._kept: dict[str, Prediction] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, prediction: Prediction, life: float | None) -> None:
        """Begins the work; it is called off after `life` seconds, if given."""
        while len(self._kept) >= _MOST_KEPT:
            self.cancel(self._kept.pop(next(iter(self._kept))))
        self._kept[prediction.id] = prediction
        task = asyncio.create_task(prediction.run())
        self._tasks[prediction.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(prediction.id, None))
        if life is not None:
            asyncio.get_running_loop().call_later(life, self.cancel, prediction)

    def find(self, name: str) -> Prediction | None:
        return self._kept.get(name)

    def all(self) -> Sequence[Prediction]:
        """The newest first."""
        return list(self._kept.values())[::-1]

    def cancel(self, prediction: Prediction) -> None:
        """Ends the work."""
        prediction.end("canceled")
        task = self._tasks.get(prediction.id)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Ends all work."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _told(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
