"""Callers of the proofs: each notes what it was told of its call, and nothing else."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import grpc
from google.rpc import status_pb2
from tests.support.router import channel_to

from bench.payloads import prose
from bench.proofs.world import BEARER
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub

if TYPE_CHECKING:
    from trunkline.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

# No call takes so long unless it hangs. Seconds.
PATIENCE = 30.0
# A caller that could not reach the router waits before its next call.
_PAUSE = 0.1
_METADATA = tuple(BEARER.items())
CHANNEL = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200))


class Kind(StrEnum):
    """What a caller does."""

    WHOLE = "whole"
    STREAM = "stream"
    # Goes away while the answer is written, or before there is one.
    LEAVES_STREAM = "leaves a stream"
    LEAVES = "leaves"
    # The provider breaks the stream off.
    BREAKS = "broken stream"
    AGAIN = "made again"
    ELSEWHERE = "elsewhere"


_MODEL = {
    Kind.WHOLE: "quick",
    Kind.STREAM: "long",
    Kind.LEAVES_STREAM: "long",
    Kind.LEAVES: "long",
    Kind.BREAKS: "breaks",
    Kind.AGAIN: "again",
    Kind.ELSEWHERE: "elsewhere",
}
_SHARES = {
    Kind.WHOLE: 8,
    Kind.STREAM: 6,
    Kind.LEAVES_STREAM: 2,
    Kind.LEAVES: 1,
    Kind.BREAKS: 1,
    Kind.AGAIN: 1,
    Kind.ELSEWHERE: 1,
}


class Fate(StrEnum):
    """What a caller saw of its call."""

    # An answer, or a stream's end.
    ANSWERED = "answered"
    # A failure that the router told.
    REFUSED = "refused"
    # It went away itself.
    LEFT = "left"
    # The connection broke: what became of the call, the caller cannot know.
    CUT = "cut"
    # Nothing came within PATIENCE.
    HUNG = "hung"


@dataclass(slots=True)
class Told:
    """What one caller was told. Tokens, and nanos of a dollar."""

    id: str
    kind: Kind
    fate: Fate = Fate.CUT
    # Whether the router showed that it had begun the call.
    begun: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    # How a refusal was reasoned.
    reason: str = ""

    def learn(self, usage: v1.Usage, cost: v1.Cost) -> None:
        """Notes the figures of an answer or of a failure's report."""
        self.input_tokens, self.output_tokens = usage.input_tokens, usage.output_tokens
        self.cost = cost.total


@dataclass(frozen=True, slots=True)
class Crowd:
    """Callers at the same time; `name` begins the ids of their calls."""

    name: str
    callers: int
    calls: int

    async def call(
        self, address: str, rng: random.Random, on_call: Callable[[int], None]
    ) -> list[Told]:
        """Makes the calls; `on_call` hears of the number of each as it begins."""
        numbers = iter(range(self.calls))
        found: list[Told] = []
        async with channel_to(address, *CHANNEL) as channel:
            stub: InferenceServiceAsyncStub = InferenceServiceStub(channel)

            async def caller() -> None:
                for number in numbers:
                    on_call(number)
                    (kind,) = rng.choices(list(_SHARES), list(_SHARES.values()))
                    told = Told(f"{self.name}-{number}", kind)
                    found.append(told)
                    await make_call(stub, told, rng)
                    if told.fate is Fate.CUT:
                        await asyncio.sleep(_PAUSE)

            async with asyncio.TaskGroup() as group:
                for _ in range(self.callers):
                    group.create_task(caller())
        return found


async def serves(address: str) -> bool:
    """Whether a router takes calls there."""
    async with channel_to(address, *CHANNEL) as channel:
        stub: InferenceServiceAsyncStub = InferenceServiceStub(channel)
        try:
            await stub.Route(v1.RouteRequest(model="quick"), timeout=5.0, metadata=_METADATA)
        except grpc.aio.AioRpcError:
            return False
    return True


async def make_call(stub: "InferenceServiceAsyncStub", told: Told, rng: random.Random) -> None:
    """Makes the call of `told`'s kind, and notes in it what came of it."""
    message = v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text=prose(rng.randrange(20, 2000)))])
    request = v1.GenerateRequest(model=_MODEL[told.kind], messages=[message], request_id=told.id)
    stays = rng.uniform(0.0, 0.02)
    try:
        if told.kind in {Kind.WHOLE, Kind.AGAIN, Kind.ELSEWHERE}:
            answer = await stub.Generate(request, timeout=PATIENCE, metadata=_METADATA)
            told.learn(answer.usage, answer.cost)
            told.fate = Fate.ANSWERED
        elif told.kind is Kind.LEAVES:
            call = stub.Generate(request, timeout=PATIENCE, metadata=_METADATA)
            await asyncio.sleep(stays)
            if not call.cancel():
                answer = await call
                told.learn(answer.usage, answer.cost)
                told.fate = Fate.ANSWERED
            else:
                told.fate = Fate.LEFT
        else:
            await _stream(stub, request, told, rng.randrange(1, 20))
    except grpc.aio.AioRpcError as error:
        _refused(told, error)


async def _stream(
    stub: "InferenceServiceAsyncStub", request: v1.GenerateRequest, told: Told, leaves_after: int
) -> None:
    call = stub.StreamGenerate(request, timeout=PATIENCE, metadata=_METADATA)
    deltas = 0
    async for event in call:
        told.begun = True
        deltas += event.HasField("delta")
        if event.HasField("end"):
            told.learn(event.end.usage, event.end.cost)
            told.fate = Fate.ANSWERED
        elif told.kind is Kind.LEAVES_STREAM and deltas >= leaves_after:
            call.cancel()
            told.fate = Fate.LEFT
            return


def _refused(told: Told, error: grpc.aio.AioRpcError) -> None:
    if told.fate is Fate.ANSWERED:
        return  # The end had come; what follows it says nothing.
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    if isinstance(details, bytes):
        told.fate = Fate.REFUSED
        told.reason = error.code().name
        for packed in status_pb2.Status.FromString(details).details:
            report = v1.CallReport()
            if packed.Unpack(report):
                told.begun = True
                told.learn(report.usage, report.cost)
    elif error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        told.fate = Fate.HUNG
