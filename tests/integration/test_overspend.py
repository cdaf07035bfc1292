"""Three replicas on one Redis and sixty callers under one cap: nothing is overspent."""

import asyncio
import hashlib
import json
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from tests.support.process import RouterProcess, router_process
from tests.support.router import PATIENCE, ask, channel_to, reason
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.simulator.app import Simulator

REPLICAS, CALLERS, EACH = 3, 60, 3
# What a call may write, and what it writes.
MOST, WRITTEN = 200, 40
CASES = [(kind, mode) for kind in ("budget", "requests", "tokens") for mode in ("exact", "leased")]
# 84 of 180 calls, in each kind's own unit: nanos of a dollar, calls, tokens.
CAPS = {"budget": 84 * 480_000, "requests": 84, "tokens": 84 * 120}
ENV = {"TEST_KEY": "sk-test"}


def settings(upstream: str) -> dict[str, object]:
    """One rule for each case, each for a key of its own."""
    limits: dict[str, object] = {}
    budgets: dict[str, object] = {}
    for kind, mode in CASES:
        match = {"key": [f"{kind}-{mode}"]}
        rule = {"scope": "tenant", "match": match, "mode": mode}
        if kind == "budget":
            budgets[f"{kind}-{mode}"] = {**rule, "amount": f"{CAPS[kind] / 1e9:.9f}"}
        else:
            amount = {"measure": kind, "amount": CAPS[kind], "per": "day"}
            limits[f"{kind}-{mode}"] = {**rule, **amount}
    return {
        "providers": {
            "sim": {
                "kind": "openai",
                "base_url": f"{upstream}/openai/v1",
                "api_key": "env:TEST_KEY",
            }
        },
        "deployments": [
            {
                "name": "d",
                "provider": "sim",
                "model": f"sim-large?tokens={WRITTEN};latency_ms=30",
                "capabilities": ["chat", "streaming"],
                "price": {"input": "2", "output": "8"},
            }
        ],
        "models": {"m": {"deployments": ["d"]}},
        "keys": [
            {
                "name": f"{kind}-{mode}",
                "hash": f"sha256:{hashlib.sha256(f'tk_{kind}_{mode}'.encode()).hexdigest()}",
                "tenant": f"{kind}-{mode}",
            }
            for kind, mode in CASES
        ],
        "limits": limits,
        "budgets": budgets,
        # Not what each would decide by itself while a loaded machine keeps Redis waiting.
        "state": {
            "redis": "env:REDIS",
            "limits_on_outage": "deny",
            "budgets_on_outage": "deny",
        },
    }


@pytest.fixture
async def simulator() -> AsyncGenerator[Simulator]:
    async with Simulator(port=0) as running:
        yield running


class Taken:
    """What callers were told, in each kind's unit."""

    def __init__(self) -> None:
        self.of = {"budget": 0, "requests": 0, "tokens": 0}
        self.refusals: list[v1.ErrorReason.ValueType] = []

    def add(self, answer: v1.GenerateResponse) -> None:
        self.of["budget"] += answer.cost.total
        self.of["requests"] += 1
        self.of["tokens"] += answer.usage.input_tokens + answer.usage.output_tokens


async def spend(routers: Sequence[RouterProcess], kind: str, mode: str) -> Taken:
    """Sixty callers at once, who go from replica to replica."""
    taken = Taken()
    metadata = (("authorization", f"Bearer tk_{kind}_{mode}"),)
    async with AsyncExitStack() as stack:
        stubs = [
            InferenceServiceStub(await stack.enter_async_context(channel_to(router.address)))
            for router in routers
        ]

        async def caller(number: int) -> None:
            for turn in range(EACH):
                request = ask("a" * (10 + 7 * number % 90), model="m")
                request.config.max_output_tokens = MOST
                stub = stubs[(number + turn) % len(stubs)]
                try:
                    answer = await stub.Generate(request, timeout=PATIENCE, metadata=metadata)
                except grpc.aio.AioRpcError as error:
                    taken.refusals.append(reason(error))
                else:
                    taken.add(answer)

        await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    return taken


async def test_no_cap_is_overspent_beyond_what_is_declared(
    tmp_path: Path, simulator: Simulator, redis_url: str
) -> None:
    path = tmp_path / "trunkline.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(settings(simulator.url)))
    env = {**ENV, "REDIS": redis_url}
    async with AsyncExitStack() as stack:
        routers = [
            await stack.enter_async_context(router_process("--config", str(path), env=env))
            for _ in range(REPLICAS)
        ]
        for kind, mode in CASES:
            cap = CAPS[kind]
            taken = await spend(routers, kind, mode)
            # A limit of a day comes back while the calls run: for a minute at most.
            back = 0 if kind == "budget" else math.ceil(cap / 1440)
            pots = 0
            if mode == "leased" and kind != "budget":
                pots = REPLICAS * math.ceil(0.05 * cap)
            assert taken.of[kind] <= cap + back + pots, (kind, mode)
            wanted = "QUOTA_EXCEEDED" if kind == "budget" else "RATE_LIMIT"
            expected = v1.ErrorReason.Value(f"ERROR_REASON_{wanted}")
            assert expected in taken.refusals, (kind, mode)
            assert set(taken.refusals) <= {expected, v1.ERROR_REASON_SERVICE_UNAVAILABLE}
            # And the cap is put to use: what was not taken is less than what may be held.
            assert taken.of[kind] >= cap // 4, (kind, mode)
