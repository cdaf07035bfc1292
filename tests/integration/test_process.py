"""The router as a process: start, signals, drain, reload, workers."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.ports import free_port
from tests.support.process import RouterProcess, router_process
from tests.support.router import PATIENCE, ask, channel_to
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub

NO_KEYS = {
    "OPENAI_API_KEY": "",
    "ANTHROPIC_API_KEY": "",
    "GEMINI_API_KEY": "",
    "GOOGLE_API_KEY": "",
}

CONFIG = """\
providers:
  nowhere: {{kind: openai, base_url: "http://127.0.0.1:9/v1", api_key: "env:TEST_KEY"}}
deployments:
  - {{name: d, provider: nowhere, model: {model}, capabilities: [chat]}}
"""


async def test_with_no_configuration_the_simulated_providers_serve_all_four_rpcs() -> None:
    async with router_process(env=NO_KEYS) as router:
        async with channel_to(router.address) as channel:
            stub = InferenceServiceStub(channel)
            answer = await stub.Generate(ask(model="sim-large"), timeout=PATIENCE)
            events = [
                event
                async for event in stub.StreamGenerate(ask(model="sim-small"), timeout=PATIENCE)
            ]
            embedded = await stub.Embed(
                v1.EmbedRequest(model="sim-embed", inputs=["a", "b"]), timeout=PATIENCE
            )
            routed = await stub.Route(v1.RouteRequest(model="sim-large"), timeout=PATIENCE)
        status, metrics = await router.get("/metrics")
    assert answer.model == "sim-large"
    assert answer.cost.total > 0
    assert not answer.cost.unpriced
    assert events[0].HasField("start")
    assert events[-1].end.finish_reason == v1.FINISH_REASON_STOP
    assert len(embedded.embeddings) == 2
    assert routed.decision.deployment
    assert len(routed.candidates) == 3
    assert status == 200
    assert (
        'trunkline_calls_total{caller="anonymous",operation="generate",reason="ok"} 1.0' in metrics
    )


async def test_a_key_in_the_environment_is_a_configuration() -> None:
    """Models and prices come from the price table; nothing is called."""
    env = {**NO_KEYS, "ANTHROPIC_API_KEY": "sk-made-up"}
    async with (
        router_process(env=env) as router,
        channel_to(router.address) as channel,
    ):
        request = v1.RouteRequest(
            model="claude-sonnet-4-5", input_tokens=100_000, max_output_tokens=1_000
        )
        routed = await InferenceServiceStub(channel).Route(request, timeout=PATIENCE)
    assert routed.decision.provider == "anthropic"
    assert routed.decision.provider_model == "claude-sonnet-4-5"
    assert routed.decision.estimated_cost.total > 100_000_000  # More than ten cents.
    assert "sk-made-up" not in str(router.log)


async def test_sighup_without_a_file_is_told_and_harmless() -> None:
    async with router_process(env=NO_KEYS) as router:
        router.send(signal.SIGHUP)
        await router.logged("nothing to reload: the router was started without --config")
        assert (await router.get("/readyz"))[0] == 200


class Load:
    """Calls that follow one another, each of several callers on its own connection."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answered = 0
        self.failures: list[grpc.aio.AioRpcError] = []
        self._stop = asyncio.Event()
        self._progress = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, callers: int) -> None:
        self._tasks = [asyncio.create_task(self._caller(number)) for number in range(callers)]

    async def reach(self, answered: int) -> None:
        """Lets the load run until so many calls have been answered."""
        async with asyncio.timeout(60):
            while self.answered < answered and not self.failures:
                await self._progress.wait()
                self._progress.clear()

    async def finish(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _caller(self, number: int) -> None:
        request = ask(model="sim-openai/sim-large?latency_ms=30")
        # Of its own connection, so that workers share the load.
        async with channel_to(self.address) as channel:
            stub = InferenceServiceStub(channel)
            while not self._stop.is_set():
                try:
                    if number % 2:
                        await stub.Generate(request, timeout=PATIENCE)
                    else:
                        events = [
                            event async for event in stub.StreamGenerate(request, timeout=PATIENCE)
                        ]
                        assert events[-1].HasField("end")
                except grpc.aio.AioRpcError as error:
                    self.failures.append(error)
                    return
                finally:
                    self._progress.set()
                self.answered += 1


HEALTH = health_pb2.HealthCheckRequest(service="trunkline.v1.InferenceService")


async def test_sigterm_says_not_serving_first_and_loses_no_call() -> None:
    """Callers go on until the health service says NOT_SERVING, as balancers do; every call begun
    by then is answered, though each takes longer than the signal."""
    async with router_process(env=NO_KEYS) as router:
        load = Load(router.address)
        load.start(16)
        await load.reach(200)
        async with channel_to(router.address) as channel:
            watching = health_pb2_grpc.HealthStub(channel).Watch(HEALTH, timeout=PATIENCE)
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
            router.send(signal.SIGTERM)
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            status, body = await router.get("/readyz")
            # Calls still flow between the notice and the end of the drain.
            flowing = load.answered
            await load.reach(flowing + 20)
            await load.finish()
        assert (status, "draining" in body) == (503, True)
        assert load.failures == []
        assert await router.process.wait() == 0
        assert (await router.logged("stopped"))["level"] == "info"


async def test_a_long_stream_outlives_sigterm() -> None:
    async with router_process(env=NO_KEYS) as router:
        async with channel_to(router.address) as channel:
            request = ask(model="sim-openai/sim-large?tokens=60&chunk_tokens=1&chunk_ms=40")
            call = InferenceServiceStub(channel).StreamGenerate(request, timeout=PATIENCE)
            events = aiter(call)
            assert (await anext(events)).HasField("start")
            router.send(signal.SIGTERM)
            rest = [event async for event in events]
        assert rest[-1].HasField("end")
        assert await router.process.wait() == 0


def write(path: Path, model: str) -> None:
    """Replaces the configuration as editors do: at once."""
    fresh = path.with_suffix(".new")
    fresh.write_text(CONFIG.format(model=model))
    fresh.replace(path)


async def models_of(router: RouterProcess) -> str:
    """The version in force, by asking for a model of each name."""
    async with channel_to(router.address) as channel:
        stub = InferenceServiceStub(channel)
        for name in ("first", "second", "third"):
            call = stub.Route(v1.RouteRequest(model=name), timeout=PATIENCE)
            if await call.code() == grpc.StatusCode.OK:
                return name
    return ""


@pytest.mark.parametrize("workers", [1, 2])
async def test_reload_on_sighup_and_on_change_and_never_to_a_wrong_file(
    tmp_path: Path, workers: int
) -> None:
    config = tmp_path / "trunkline.yaml"
    write(config, "first")
    arguments = ["--config", str(config), "--workers", str(workers)]
    async with router_process(*arguments, env={"TEST_KEY": "k-test"}) as router:
        assert await models_of(router) == "first"

        config.write_text("providers: {openai: {api_kee: 1}}\n")
        router.send(signal.SIGHUP)
        refused = await router.logged("configuration refused; the one in force stays", workers)
        assert "did you mean api_key" in refused["problems"]
        assert await models_of(router) == "first"

        write(config, "second")
        router.send(signal.SIGHUP)
        await router.logged("configuration reloaded", workers)
        assert await models_of(router) == "second"

        write(config, "third")  # Noticed without a signal.
        await router.logged("configuration reloaded", 2 * workers)
        assert await models_of(router) == "third"


def workers_of(supervisor: int) -> list[int]:
    """The process ids of a supervisor's workers, from Linux's /proc."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(pid) for pid in children if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def counted(router: RouterProcess, calls: int) -> None:
    """Waits until the metrics of all workers together tell of so many calls answered."""
    line = re.compile(
        r'trunkline_calls_total\{.*operation="(?:stream_)?generate",reason="ok"\} (.+)'
    )
    told = 0.0
    async with asyncio.timeout(PATIENCE):
        while told < calls:
            _, metrics = await router.get("/metrics")
            told = sum(map(float, line.findall(metrics)))
            await asyncio.sleep(0.05)
    assert told == calls


async def test_workers_share_the_port_and_the_dead_are_replaced() -> None:
    async with router_process("--workers", "2", env=NO_KEYS) as router:
        load = Load(router.address)
        load.start(16)
        await load.reach(100)
        await load.finish()
        assert load.failures == []
        await counted(router, load.answered)

        workers = workers_of(router.process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        died = await router.logged("a worker died; another one starts")
        assert died["exit_code"] == -signal.SIGKILL
        await router.logged("serving", 3)

        again = Load(router.address)
        again.start(16)
        await again.reach(100)
        await again.finish()
        assert again.failures == []

        router.send(signal.SIGTERM)
        assert await router.process.wait() == 0


async def test_no_worker_outlives_its_supervisor() -> None:
    async with router_process("--workers", "2", env=NO_KEYS) as router:
        router.send(signal.SIGKILL)
        await router.process.wait()
        # Standard error ends when the last process that holds it has ended.
        await router.logged("stopped", 2)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["serve", "--config", "/nowhere.yaml"], 2, "cannot be read"),
        (["serve", "--listen", "0.0.0.0:50051"], 2, "no keys are configured"),
        (["check", "/nowhere.yaml"], 2, "cannot be read"),
        (["sevre"], 2, "invalid choice"),
    ],
)
async def test_wrong_usage_is_one_clear_error(
    arguments: list[str], code: int, message: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("trunkline"),
        *arguments,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **NO_KEYS},
    )
    _, errors = await process.communicate()
    assert process.returncode == code
    assert message in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_a_second_router_on_the_same_port_is_refused() -> None:
    async with router_process(env=NO_KEYS) as router:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("trunkline"),
            *("serve", "--listen", router.address, "--ops-listen", f"127.0.0.1:{free_port()}"),
            *("--simulator-listen", f"127.0.0.1:{free_port()}"),
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **NO_KEYS},
        )
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert "Address already in use" in errors.decode()
