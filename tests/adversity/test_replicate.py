"""Predictions through the whole router: whoever leaves, and whenever, the vendor is told to stop.

The simulated vendor works on when its caller has gone, as the real one does, so that nothing but
a cancel ends a prediction here.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.support.router import PATIENCE, Router, ask, reason, router
from trunkline import v1
from trunkline_server.simulator.app import Simulator

SLOW = "latency_ms=60000"
DRIPPING = "chunk_ms=200;chunk_tokens=1;tokens=500"


@asynccontextmanager
async def predicting(
    script: str = "", flags: str = "poll_ms: 20", more: str = "", **server: Any
) -> AsyncGenerator[tuple[Router, Simulator]]:
    """A router whose model `large` is a prediction at the simulated vendor."""
    async with (
        Simulator() as simulator,
        router(config(simulator, script, flags, more), **server) as running,
    ):
        yield running, simulator


def config(simulator: Simulator, script: str, flags: str, more: str = "") -> str:
    name = f"sim/sim-large?{script}" if script else "sim/sim-large"
    return f"""
providers:
  rep: {{kind: replicate, base_url: '{simulator.url}/replicate/v1', api_key: 'env:TEST_KEY',
        flags: {{{flags}}}}}
  other: {{kind: openai, base_url: '{simulator.url}/openai/v1', api_key: 'env:TEST_KEY'}}
deployments:
  - {{name: first, provider: rep, model: '{name}', capabilities: [chat, streaming],
     price: {{input: '1', output: '2'}}}}
{more}
models: {{large: {{deployments: [first{", second" if more else ""}], attempts: {{retries: 0}}}}}}
"""


SECOND = (
    "  - {name: second, provider: other, model: sim-large, priority: 1, "
    "capabilities: [chat, streaming], price: {input: '1', output: '2'}}"
)


async def seen(simulator: Simulator, cancels: int) -> None:
    """Waits until the vendor has seen so many cancels, and no call runs any more."""
    async with asyncio.timeout(PATIENCE):
        # The vendor is another server, which tells nobody.
        while sum(each.total() for each in simulator.counters.cancelled.values()) < cancels:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def begun(simulator: Simulator) -> None:
    """Waits until the vendor has a prediction."""
    async with asyncio.timeout(PATIENCE):
        while not simulator.counters.calls.get("replicate"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("flags", ["poll_ms: 20, wait: 1", "poll_ms: 20, wait: 0"])
async def test_an_answer(flags: str) -> None:
    async with predicting("chunk_ms=5", flags) as (running, simulator):
        response = await running.stub.Generate(ask(), timeout=PATIENCE)
        assert "Simulated answer from sim-large" in response.message.parts[0].text
        assert response.usage.source == v1.USAGE_SOURCE_PROVIDER
        assert response.usage.output_tokens > 10
        assert response.cost.total > 0
        assert len(response.attempts) == 1
        assert not simulator.counters.cancelled


async def test_a_streamed_answer() -> None:
    async with predicting("chunk_ms=2") as (running, simulator):
        events = [event async for event in running.stub.StreamGenerate(ask(), timeout=PATIENCE)]
        deltas = [event.delta.text for event in events if event.HasField("delta")]
        whole = await running.stub.Generate(ask(), timeout=PATIENCE)
        assert len(deltas) > 5
        assert "".join(deltas) == whole.message.parts[0].text
        end = events[-1].end
        assert end.usage == whole.usage
        assert end.attempts[0].cost == whole.attempts[0].cost
        assert not simulator.counters.cancelled


async def test_what_is_counted_by_seconds_alone_is_estimated() -> None:
    async with predicting() as (running, _):
        request = ask(model="rep/sim/sim-uncounted")
        response = await running.stub.Generate(request, timeout=PATIENCE)
        assert response.usage.source == v1.USAGE_SOURCE_ESTIMATE
        assert response.usage.output_tokens > 0


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("script", "flags"),
    [
        (SLOW, "poll_ms: 20, wait: 1"),
        (SLOW, "poll_ms: 20, wait: 0"),
        (DRIPPING, "poll_ms: 20, wait: 0"),
    ],
    ids=["before the first reply", "while it waits its turn", "while it is written"],
)
async def test_a_caller_who_leaves(script: str, flags: str, streamed: bool) -> None:
    async with predicting(script, flags) as (running, simulator):
        stub = running.stub
        call: Any = (stub.StreamGenerate if streamed else stub.Generate)(ask(), timeout=PATIENCE)
        if streamed and script == DRIPPING:
            reader = call.__aiter__()
            while not (await anext(reader)).delta.text:
                pass
        else:
            task = asyncio.ensure_future(_drained(call))
            await begun(simulator)
            call.cancel()
            with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
                await task
        call.cancel()
        await seen(simulator, 1)


async def _drained(call: object) -> None:
    if isinstance(call, grpc.aio.UnaryStreamCall):
        async for _ in call:
            pass
    else:
        assert isinstance(call, grpc.aio.UnaryUnaryCall)
        await call


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_deadline_that_passes(streamed: bool) -> None:
    async with predicting(SLOW, "poll_ms: 20, wait: 0") as (running, simulator):
        stub = running.stub
        call = (stub.StreamGenerate if streamed else stub.Generate)(ask(), timeout=0.3)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _drained(call)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await seen(simulator, 1)


async def test_a_router_that_ends_calls_off_first() -> None:
    async with Simulator() as simulator:
        text = config(simulator, SLOW, "poll_ms: 20, wait: 0")
        async with router(text, drain_timeout="1ms") as running:
            task = asyncio.ensure_future(_drained(running.stub.Generate(ask(), timeout=PATIENCE)))
            await begun(simulator)
        with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
            await task
        await seen(simulator, 1)


@pytest.mark.parametrize("streamed", [False, True])
async def test_failing_after_start(streamed: bool) -> None:
    """From the vendor's documented shapes; no recording holds one."""
    script = "fault=error-midstream;at_chunk=0"
    async with predicting(script, "poll_ms: 20, wait: 0", SECOND) as (running, _):
        if streamed:
            events = [event async for event in running.stub.StreamGenerate(ask(), timeout=PATIENCE)]
            attempts = events[-1].end.attempts
        else:
            attempts = (await running.stub.Generate(ask(), timeout=PATIENCE)).attempts
        first, second = attempts
        assert first.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
        assert "E1001" in first.message
        assert second.outcome == v1.ATTEMPT_OUTCOME_SUCCEEDED
        assert second.provider == "other"


async def test_failing_in_the_midst_of_a_stream_ends_it_non_ok() -> None:
    async with predicting("fault=error-midstream;at_chunk=2;chunk_ms=30", more=SECOND) as made:
        running, _ = made
        events: list[v1.StreamGenerateResponse] = []

        async def read() -> None:
            call = running.stub.StreamGenerate(ask(), timeout=PATIENCE)
            while isinstance(event := await call.read(), v1.StreamGenerateResponse):
                events.append(event)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read()
        assert any(event.delta.text for event in events)
        assert reason(caught.value) == v1.ERROR_REASON_STREAM_INTERRUPTED


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("error=quota", v1.ERROR_REASON_QUOTA_EXCEEDED),
        ("error=authentication", v1.ERROR_REASON_PROVIDER_CREDENTIALS),
        ("error=model", v1.ERROR_REASON_MODEL_NOT_FOUND),
        ("error=context", v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED),
        ("error=filter", v1.ERROR_REASON_CONTENT_FILTER),
        ("status=429", v1.ERROR_REASON_RATE_LIMIT),
        ("fault=html", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        ("fault=garbage", v1.ERROR_REASON_BAD_PROVIDER_RESPONSE),
        ("fault=empty", v1.ERROR_REASON_BAD_PROVIDER_RESPONSE),
        ("fault=reset", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_refusals(script: str, expected: v1.ErrorReason.ValueType, streamed: bool) -> None:
    async with predicting(script) as (running, _):
        stub = running.stub
        call = (stub.StreamGenerate if streamed else stub.Generate)(ask(), timeout=PATIENCE)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _drained(call)
        assert reason(caught.value) == expected
