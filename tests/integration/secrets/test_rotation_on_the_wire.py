"""Rotation under load through the gRPC server: `trunkline serve`, a mounted file, no failed call.

    .venv/bin/python -m tests.integration.secrets.test_rotation_on_the_wire

prints the figures.
"""

import asyncio
import re
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from tests.support.key_vendor import KeyVendor, key_vendor
from tests.support.process import RouterProcess, router_process
from tests.support.router import PATIENCE, ask, channel_to
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub

WORKERS = 2
CALLERS = 8

CONFIG = """\
server: {{workers: {workers}}}
providers:
  vendor: {{kind: openai, base_url: "{url}/v1", api_key: "file:mounted/key"}}
deployments:
  - {{name: d, provider: vendor, model: gpt-test, capabilities: [chat, streaming]}}
models:
  large: {{deployments: [d], attempts: {{retries: 0}}}}
secrets: {{grace: 60s, retry: 200ms}}
"""


class Mount:
    """A secret as Kubernetes mounts it: a link to a link to a folder, swapped as a whole."""

    def __init__(self, at: Path) -> None:
        self._at = at
        self._versions = 0
        at.mkdir()

    def put(self, key: str) -> None:
        self._versions += 1
        folder = self._at / f"..data-{self._versions}"
        folder.mkdir()
        (folder / "key").write_text(key + "\n")
        link = self._at / "..tmp"
        link.symlink_to(folder.name)
        link.rename(self._at / "..data")
        if not (self._at / "key").is_symlink():
            (self._at / "key").symlink_to("..data/key")


@dataclass
class Load:
    """Callers that call for as long as they are let, unary and streamed in turn."""

    address: str
    answered: int = 0
    streamed: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    running: bool = True
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def caller(self) -> None:
        async with channel_to(self.address) as channel:
            stub = InferenceServiceStub(channel)
            while self.running:
                try:
                    await stub.Generate(ask(), timeout=PATIENCE)
                    self.answered += 1
                    events = [each async for each in stub.StreamGenerate(ask(), timeout=PATIENCE)]
                    assert events[-1].HasField("end")
                    self.streamed += 1
                except grpc.aio.AioRpcError as error:
                    self.failed[f"{error.code().name}: {error.details()}"] += 1
                self._moved.set()

    async def a_while(self, calls: int = 60) -> None:
        until = self.answered + calls
        async with asyncio.timeout(60):
            while self.answered < until and not self.failed:
                self._moved.clear()
                await self._moved.wait()


@asynccontextmanager
async def under_load(address: str) -> AsyncGenerator[Load]:
    load = Load(address)
    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(load.caller())
        try:
            yield load
        finally:
            load.running = False


async def rotations(router: RouterProcess, result: str = "rotated") -> int:
    _, metrics = await router.get("/metrics")
    pattern = rf'trunkline_credential_changes_total{{provider="vendor",result="{result}"}} (\S+)'
    found = re.search(pattern, metrics)
    return round(float(found[1])) if found else 0


async def rotated(router: RouterProcess, count: int) -> None:
    async with asyncio.timeout(60):
        while await rotations(router) < count:
            assert router.process.returncode is None, router.log
            await asyncio.sleep(0.05)


async def change(vendor: KeyVendor, mount: Mount, router: RouterProcess, turn: int) -> str:
    """One rotation, by the file; gives the key before, which the vendor still takes."""
    old, new = f"sk-file-{turn - 1}-secret", f"sk-file-{turn}-secret"
    vendor.keys.add(new)
    mount.put(new)
    await rotated(router, WORKERS * turn)
    return old


async def rotate_by_file(folder: Path, turns: int) -> tuple[Load, KeyVendor, RouterProcess]:
    mount = Mount(folder / "mounted")
    mount.put("sk-file-0-secret")
    config = folder / "trunkline.yaml"
    async with key_vendor("sk-file-0-secret") as vendor:
        config.write_text(CONFIG.format(url=vendor.url, workers=WORKERS))
        async with router_process("--config", str(config)) as router:
            async with under_load(router.address) as load:
                for turn in range(1, turns + 1):
                    await load.a_while()
                    if turn % 2:
                        # A vendor that forgets the old key at once, calls being under way.
                        vendor.keys.discard(await change(vendor, mount, router, turn))
                        await load.a_while()
                        continue
                    # One that takes the new key when it is tried, and learns it late elsewhere.
                    new = f"sk-file-{turn}-secret"
                    vendor.trial_keys.add(new)
                    mount.put(new)
                    await rotated(router, WORKERS * turn)
                    await load.a_while()
                    vendor.keys.add(new)
                    await load.a_while()
                    vendor.keys.discard(f"sk-file-{turn - 1}-secret")
            return load, vendor, router


async def test_no_call_fails_while_a_mounted_key_is_changed(tmp_path: Path) -> None:
    load, vendor, router = await rotate_by_file(tmp_path, 4)
    assert load.failed == {}
    assert load.answered >= 400
    # The vendor did refuse, and calls were repeated.
    assert sum(vendor.refused.values()) >= 100
    assert vendor.answered["sk-file-4-secret"] > 0
    # Whatever the router wrote, no key is in it.
    assert [row["provider"] for row in router.log if row.get("event") == "credential changed"]
    assert "-secret" not in str(router.log)


async def test_a_wrong_key_is_not_taken_into_use(tmp_path: Path) -> None:
    mount = Mount(tmp_path / "mounted")
    mount.put("sk-good")
    config = tmp_path / "trunkline.yaml"
    async with key_vendor("sk-good") as vendor:
        config.write_text(CONFIG.format(url=vendor.url, workers=1))
        async with router_process("--config", str(config)) as router:
            async with under_load(router.address) as load:
                await load.a_while()
                mount.put("sk-wrong-secret")
                row = await router.logged("credential not changed", 2)
                await load.a_while()
                assert vendor.answered.keys() == {"sk-good"}
                # Until it is mended, whoever mends it.
                vendor.keys.add("sk-wrong-secret")
                await rotated(router, 1)
                await load.a_while()
            _, metrics = await router.get("/metrics")
    assert load.failed == {}
    assert vendor.answered["sk-wrong-secret"] > 0
    assert "refused by the provider" in row["problem"]
    assert "sk-wrong-secret" not in str(router.log)
    assert "sk-wrong-secret" not in metrics


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        TURNS = 10
        run, seen, _ = asyncio.run(rotate_by_file(Path(folder), TURNS))
        print(
            f"{TURNS} rotations by a mounted file, {WORKERS} workers:"
            f" {run.answered} calls and {run.streamed} streams answered,"
            f" {sum(run.failed.values())} failed;"
            f" the vendor refused {sum(seen.refused.values())} requests, each repeated"
        )
