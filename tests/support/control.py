"""Running routers whose resources the store owns, with their first administrator."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import grpc

from tests.support.admin_server import Client
from tests.support.process import START_SECONDS, RouterProcess, router_process
from tests.support.router import PATIENCE, ask, channel_to
from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.simulator.app import Simulator

ROOT = "tk_root_secret-of-the-first-administrator"
ENV = {"SIM_KEY": "sk-test"}
KINDS = (
    *("providers", "deployments", "models", "routes", "keys", "limits", "budgets"),
    *("tenants", "projects", "tiers", "roles", "bindings", "policies"),
)


def write_config(folder: Path, dsn: str, owns: Sequence[str] = KINDS, more: str = "") -> Path:
    """A configuration of which the store owns some kinds, with one administrator."""
    digest = sha256(ROOT.encode()).hexdigest()
    path = folder / "trunkline.yaml"
    path.write_text(
        f"state:\n  database: env:DSN\n  owns: [{', '.join(owns)}]\n"
        f"admin: {{keys: [{{name: root, hash: 'sha256:{digest}'}}]}}\n"
        f"ledger: {{journal: journal}}\n{more}"
    )
    (folder / "dsn").write_text(dsn)
    return path


@dataclass
class Replica:
    """A running router, its control plane as root, and its contract."""

    process: RouterProcess
    root: Client
    channel: grpc.aio.Channel

    def calls_as(self, secret: str) -> "Callers":
        """Calls it with a key."""
        return Callers(self.channel, secret)

    @asynccontextmanager
    async def another_channel(self) -> AsyncGenerator[Callable[[str], "Callers"]]:
        """A connection of its own, which another worker may take."""
        async with channel_to(self.process.address) as channel:
            yield lambda secret: Callers(channel, secret)

    async def revision(self) -> int:
        """The store's revision that is in force there."""
        _, metrics = await self.process.get("/metrics")
        (line,) = [row for row in metrics.splitlines() if row.startswith("trunkline_config_rev")]
        return int(float(line.split()[-1]))

    async def reached(self, revision: int) -> None:
        """Waits until a revision of the store is in force there."""
        async with asyncio.timeout(START_SECONDS):
            # Another process gets there, and tells nobody.
            while await self.revision() < revision:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@dataclass
class Callers:
    """Calls the contract with a key."""

    channel: grpc.aio.Channel
    secret: str

    async def generate(self, model: str = "large") -> v1.GenerateResponse:
        """One answer."""
        stub = InferenceServiceStub(self.channel)
        metadata = (("authorization", f"Bearer {self.secret}"),) if self.secret else ()
        answer: v1.GenerateResponse = await stub.Generate(
            ask(model=model), metadata=metadata, timeout=PATIENCE
        )
        return answer

    async def decision(self, model: str = "large") -> v1.Decision:
        """Where a call would go now."""
        stub = InferenceServiceStub(self.channel)
        metadata = (("authorization", f"Bearer {self.secret}"),)
        request = v1.RouteRequest(model=model)
        answer: v1.RouteResponse = await stub.Route(request, metadata=metadata, timeout=PATIENCE)
        return answer.decision

    async def code(self, model: str = "large") -> str:
        """The code with which such a call ends."""
        try:
            await self.generate(model)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"


@asynccontextmanager
async def replica_of(config: Path, *arguments: str) -> AsyncGenerator[Replica]:
    """A router process by a configuration."""
    env = {**ENV, "DSN": (config.parent / "dsn").read_text()}
    words = ("--config", str(config), *arguments)
    async with (
        router_process(*words, env=env, control=True) as process,
        channel_to(process.control) as control,
        channel_to(process.address) as channel,
    ):
        yield Replica(process, Client(control, ROOT, process.control), channel)


async def furnish(root: Client, simulator: Simulator) -> str:
    """Makes a model, `large`, and a key to call it with; gives the key."""
    await root(
        "ProviderService.CreateProvider",
        provider=admin.Provider(
            name="sim",
            dialect="openai",
            base_url=f"{simulator.url}/openai/v1",
            api_key="env:SIM_KEY",
        ),
    )
    for name in ("first", "second"):
        await root(
            "DeploymentService.CreateDeployment",
            deployment=admin.Deployment(
                name=name,
                provider="sim",
                model="sim-large",
                priority=int(name == "second"),
                price=admin.Price(input="2", output="8"),
                capabilities=admin.Capabilities(replace=["chat", "streaming"]),
            ),
        )
    await root(
        "RouteService.CreateModel", model=admin.Model(name="large", deployments=["first", "second"])
    )
    made = await root("KeyService.CreateKey", key=admin.Key(name="team", models=["large"]))
    secret: str = made.secret
    return secret


@dataclass
class Convergence:
    """What became of calls and replicas while resources changed. Seconds are from the answer to
    the change to the first decision by it, of each change on each replica."""

    calls: int
    failures: list[str]
    seconds: list[list[float]]
    versions: list[str]


async def converge(
    replicas: Sequence[Replica], secret: str, *, changes: int, callers: int, pause: float = 0.0
) -> Convergence:
    """Changes which of two deployments goes first, on one replica after the other, while
    `callers` at each replica ask for answers, each after a pause of so many seconds."""
    stop = asyncio.Event()
    found = Convergence(0, [], [], [])

    async def load(replica: Replica) -> None:
        calls = replica.calls_as(secret)
        while not stop.is_set():
            code = await calls.code()
            found.calls += 1
            if code != "OK":
                found.failures.append(code)
            await asyncio.sleep(pause)

    async def decided(replica: Replica, deployment: str) -> float:
        calls, clock = replica.calls_as(secret), asyncio.get_running_loop().time
        async with asyncio.timeout(START_SECONDS):
            while (await calls.decision()).deployment != deployment:  # noqa: ASYNC110 - As above.
                await asyncio.sleep(0.005)
        return clock()

    async with asyncio.TaskGroup() as group:
        for replica in replicas:
            for _ in range(callers):
                group.create_task(load(replica))
        for number in range(changes):
            first = number % 2 == 1
            change = admin.Deployment(name="first", priority=0 if first else 5)
            await replicas[number % len(replicas)].root(
                "DeploymentService.UpdateDeployment", deployment=change
            )
            begun = asyncio.get_running_loop().time()
            name = "first" if first else "second"
            ends = await asyncio.gather(*(decided(each, name) for each in replicas))
            found.seconds.append([end - begun for end in ends])
        stop.set()
    for replica in replicas:
        found.versions.append((await replica.calls_as(secret).decision()).snapshot_version)
    return found
