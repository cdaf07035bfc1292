"""Providers that come, change, drain and go while calls are served: by the control plane and by
the file. Calls to a provider that nobody touched never fail."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.struct_pb2 import Value

from tests.support.admin_server import Client
from tests.support.control import ENV, Callers, furnish, replica_of, write_config
from tests.support.dialects import SPOKEN
from tests.support.process import router_process
from tests.support.router import channel_to
from trunkline.admin import v1 as admin
from trunkline_server.simulator.app import Simulator
from trunkline_server.store.migrate import upgrade


@pytest.fixture
async def simulator() -> AsyncGenerator[Simulator]:
    async with Simulator() as running:
        yield running


class Traffic:
    """What became of the calls to the untouched provider."""

    def __init__(self) -> None:
        self.calls = 0
        self.failures: list[str] = []
        self._moved = asyncio.Condition()

    async def run(self, callers: Callers) -> None:
        while True:
            try:
                await callers.generate("large")
            except grpc.aio.AioRpcError as error:
                self.failures.append(f"{error.code().name}: {error.details()}")
            async with self._moved:
                self.calls += 1
                self._moved.notify_all()
            # One that is always busy shows no more, and leaves the others less of the machine.
            await asyncio.sleep(0.005)

    async def goes_on(self) -> None:
        """Returns when some calls more have been made."""
        wanted = self.calls + 3
        async with self._moved:
            await self._moved.wait_for(lambda: self.calls >= wanted)


@asynccontextmanager
async def traffic(callers: Callers) -> AsyncGenerator[Traffic]:
    """Calls without a pause, from two sides; none may fail."""
    made = Traffic()
    tasks = [asyncio.create_task(made.run(callers)) for _ in range(2)]
    try:
        yield made
        await made.goes_on()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert made.failures == []


async def test_by_the_control_plane(tmp_path: Path, simulator: Simulator) -> None:
    dsn = f"sqlite:///{tmp_path / 'state.db'}"
    await upgrade(dsn, "dsn")
    async with replica_of(write_config(tmp_path, dsn)) as replica:
        secret = await furnish(replica.root, simulator)
        await replica.root(
            "KeyService.UpdateKey", key=admin.Key(name="team", models=["large", "fresh"])
        )
        callers = replica.calls_as(secret)
        async with traffic(callers) as running:
            for dialect in SPOKEN:
                await life(replica.root, callers, running, dialect, simulator.url)


async def life(root: Client, callers: Callers, running: Traffic, dialect: str, url: str) -> None:
    """A provider of one dialect comes, changes, drains and goes."""
    spoken = SPOKEN[dialect]
    # A provider without a kind says itself where its vendor wants the key.
    auth = admin.ProviderAuth(header=spoken.key_header) if spoken.key_header else None
    await root(
        "ProviderService.CreateProvider",
        provider=admin.Provider(
            name="new",
            dialect=dialect,
            base_url=f"{url}{spoken.base}",
            api_key="env:SIM_KEY",
            auth=auth,
        ),
    )
    await root(
        "DeploymentService.CreateDeployment",
        deployment=admin.Deployment(
            name="new-one",
            provider="new",
            model=spoken.model.format("sim-small"),
            max_output_tokens=100,
            capabilities=admin.Capabilities(replace=["chat"]),
            headers={"x-sim-script": "tokens=9"},
        ),
    )
    await root("RouteService.CreateModel", model=admin.Model(name="fresh", deployments=["new-one"]))
    await _until(callers, "OK")
    answer = await callers.generate("fresh")
    assert (answer.provider, answer.usage.output_tokens) == ("new", 9)
    await running.goes_on()

    # Changed: other headers, and a switch of the dialect where it has one.
    change = admin.Provider(name="new", headers={"x-sim-script": "status=503"})
    if dialect == "replicate":
        change.flags["poll_ms"].CopyFrom(Value(number_value=20))
    await root("ProviderService.UpdateProvider", provider=change)
    await root(
        "DeploymentService.UpdateDeployment",
        deployment=admin.Deployment(name="new-one", headers={"x-other": "yes"}),
    )
    await _until(callers, "UNAVAILABLE")
    await root(
        "ProviderService.UpdateProvider",
        provider=admin.Provider(name="new", headers={"x-sim-script": "tokens=7"}),
    )
    await _until(callers, "OK")
    await _writes(callers, 7)
    await running.goes_on()

    await root("ProviderService.DrainProvider", name="new", reason="going")
    await _until(callers, "FAILED_PRECONDITION", "UNAVAILABLE")
    await root("ProviderService.UndrainProvider", name="new")
    await _until(callers, "OK")
    await running.goes_on()

    await root("RouteService.DeleteModel", name="fresh")
    await root("DeploymentService.DeleteDeployment", name="new-one")
    await root("ProviderService.DeleteProvider", name="new")
    await _until(callers, "NOT_FOUND", "PERMISSION_DENIED")


async def _until(callers: Callers, *wanted: str) -> None:
    """Waits until a call ends so: another process gets there, and tells nobody."""
    async with asyncio.timeout(60):
        while await callers.code("fresh") not in wanted:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)


async def _writes(callers: Callers, tokens: int) -> None:
    """Waits until answers have this length."""
    async with asyncio.timeout(60):
        while (await callers.generate("fresh")).usage.output_tokens != tokens:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


FIRST = """
providers:
  sim: {{dialect: openai, base_url: '{url}/openai/v1', api_key: 'env:SIM_KEY'}}
{provider}
deployments:
  - {{name: first, provider: sim, model: sim-large, capabilities: [chat]}}
{deployment}
models:
  large: {{deployments: [first]}}
{model}
"""


async def test_by_the_file(tmp_path: Path, simulator: Simulator) -> None:
    path = tmp_path / "trunkline.yaml"

    def write(dialect: str, *, there: bool, tokens: int = 9, enabled: bool = True) -> None:
        spoken = SPOKEN[dialect]
        provider = spoken.provider("new", dialect, simulator.url, "env:SIM_KEY")
        deployment = (
            f"  - {{name: new-one, provider: new, model: {spoken.model.format('sim-small')}, "
            f"capabilities: [chat], max_output_tokens: 100, enabled: {str(enabled).lower()}, "
            f"headers: {{x-sim-script: tokens={tokens}}}}}"
        )
        path.write_text(
            FIRST.format(
                url=simulator.url,
                provider=provider if there else "",
                deployment=deployment if there else "",
                model="  fresh: {deployments: [new-one]}" if there else "",
            )
        )

    write("openai", there=False)
    async with (
        router_process("--config", str(path), env=ENV) as process,
        channel_to(process.address) as channel,
    ):
        callers = Callers(channel, "")

        async with traffic(callers) as running:
            for dialect in SPOKEN:
                write(dialect, there=True)
                process.send(signal.SIGHUP)
                await _until(callers, "OK")
                await _writes(callers, 9)
                write(dialect, there=True, tokens=7)
                process.send(signal.SIGHUP)
                await _writes(callers, 7)
                await running.goes_on()
                write(dialect, there=True, enabled=False)
                process.send(signal.SIGHUP)
                await _until(callers, "FAILED_PRECONDITION", "UNAVAILABLE")
                write(dialect, there=False)
                process.send(signal.SIGHUP)
                await _until(callers, "NOT_FOUND")
