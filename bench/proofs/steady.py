"""A steady load: calls that begin at fixed moments, whatever becomes of earlier ones."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.router import channel_to

from bench.proofs.callers import CHANNEL, Fate, Kind, Told, make_call
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub

if TYPE_CHECKING:
    from trunkline.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

# Of so many calls one is a stream.
_ONE_STREAM_IN = 5


@dataclass(slots=True)
class Sample:
    """One call: when it was due, by time.monotonic, and how long it then took. Seconds."""

    told: Told
    due: float
    seconds: float = 0.0


@dataclass(slots=True)
class Window:
    """The calls that were due in one stretch of a load."""

    samples: Sequence[Sample]

    @property
    def failed(self) -> int:
        """How many had no answer."""
        return sum(each.told.fate is not Fate.ANSWERED for each in self.samples)

    @property
    def error_rate(self) -> float:
        """The share of those."""
        return self.failed / len(self.samples) if self.samples else 0.0

    @property
    def longest(self) -> float:
        """The longest that any of them took, answered or not. Milliseconds."""
        return max((each.seconds for each in self.samples), default=0.0) * 1000

    def reasons(self) -> dict[str, int]:
        """What those that failed were told, and how often."""
        found: dict[str, int] = {}
        for each in self.samples:
            told = each.told
            if told.fate is not Fate.ANSWERED:
                reason = told.reason or str(told.fate)
                found[reason] = found.get(reason, 0) + 1
        return found

    def percentile(self, share: float) -> float:
        """Of the whole answers, in milliseconds from the moment they were due."""
        times = sorted(
            each.seconds
            for each in self.samples
            if each.told.kind is Kind.WHOLE and each.told.fate is Fate.ANSWERED
        )
        if not times:
            return 0.0
        return times[min(int(share * len(times)), len(times) - 1)] * 1000


@dataclass(slots=True)
class Steady:
    """A load of `rate` calls a second, from `start` to `stop`; `name` begins the calls' ids."""

    name: str
    address: str
    rate: float
    rng: random.Random
    samples: list[Sample] = field(default_factory=list)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins."""
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Begins no more calls, and waits for those under way."""
        self._stopping.set()
        if self._running is not None:
            await self._running

    def window(self, begin: float, end: float) -> Window:
        """The calls due between two moments."""
        return Window([each for each in self.samples if begin <= each.due < end])

    async def _run(self) -> None:
        begun = time.monotonic()
        async with channel_to(self.address, *CHANNEL) as channel, asyncio.TaskGroup() as group:
            stub: InferenceServiceAsyncStub = InferenceServiceStub(channel)
            number = 0
            while not self._stopping.is_set():
                due = begun + number / self.rate
                await asyncio.sleep(max(due - time.monotonic(), 0.0))
                kind = Kind.WHOLE if number % _ONE_STREAM_IN else Kind.STREAM
                sample = Sample(Told(f"{self.name}-{number}", kind), due)
                self.samples.append(sample)
                group.create_task(self._call(stub, sample))
                number += 1

    async def _call(self, stub: "InferenceServiceAsyncStub", sample: Sample) -> None:
        await make_call(stub, sample.told, self.rng)
        sample.seconds = time.monotonic() - sample.due
