"""Rotation under load through the gRPC server: `trunkline serve`, a mounted file, no failed call.

    .venv/bin/python -m tests.integration.secrets.test_rotation_on_the_wire

prints the figures.
"""

import asyncio
import os
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import grpc
import pytest

from tests.support.admin_server import Client
from tests.support.control import ROOT
from tests.support.key_vendor import KeyVendor, key_vendor
from tests.support.process import RouterProcess, router_process
from tests.support.router import PATIENCE, ask, channel_to
from trunkline.admin import v1 as admin
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.secrets.master_keys import new_key
from trunkline_server.store.address import open_database
from trunkline_server.store.audit import SqlAuditStore
from trunkline_server.store.migrate import upgrade

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


@pytest.fixture(params=["sqlite", "postgres"])
def empty_dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The DSN of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    dsn: str = request.getfixturevalue("postgres_dsn")
    return dsn


@pytest.fixture
async def dsn(empty_dsn: str) -> str:
    """The DSN of a database with this build's schema."""
    await upgrade(empty_dsn, "state.database")
    return empty_dsn


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


async def rotated(router: RouterProcess, count: int, result: str = "rotated") -> None:
    async with asyncio.timeout(60):
        while await rotations(router, result) < count:
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


def stored_config(folder: Path, vendor: KeyVendor) -> Path:
    """A configuration whose provider's key is in the database, and that has a control plane."""
    digest = sha256(ROOT.encode()).hexdigest()
    path = folder / "trunkline.yaml"
    path.write_text(
        CONFIG.format(url=vendor.url, workers=WORKERS)
        .replace("file:mounted/key", "credential:main")
        .replace("secrets: {", "secrets: {master_keys: {one: 'env:MASTER'}, ")
        + "state: {database: 'env:DSN'}\naudit: {decisions: all}\n"
        f"admin: {{keys: [{{name: root, hash: 'sha256:{digest}'}}]}}\n"
    )
    return path


async def trunkline(*arguments: str, env: Mapping[str, str], given: str = "") -> tuple[int, str]:
    """Runs a command; gives its exit code and all that it prints."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("trunkline")),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **env},
    )
    printed, _ = await process.communicate(given.encode())
    assert process.returncode is not None
    return process.returncode, printed.decode()


async def rotate_by_call(folder: Path, dsn: str, turns: int) -> tuple[Load, KeyVendor, list[str]]:
    """Rotates through the control plane of a router of two workers, under load."""
    secrets = [f"sk-call-{turn}-secret" for turn in range(turns + 1)]
    env = {"DSN": dsn, "MASTER": new_key()}
    async with key_vendor(secrets[0]) as vendor:
        config = str(stored_config(folder, vendor))
        code, printed = await trunkline("secrets", "put", config, "main", env=env, given=secrets[0])
        assert code == 0, printed
        assert printed == "credential:main has version 1\n"
        async with (
            router_process("--config", config, env=env, control=True) as router,
            channel_to(router.control) as channel,
        ):
            root = Client(channel, ROOT, router.control)
            named = admin.Credential(name="main", canary_provider="vendor")
            await root("CredentialService.UpdateCredential", credential=named)
            async with under_load(router.address) as load:
                for turn in range(1, turns + 1):
                    await load.a_while()
                    late = turn % 2 == 0
                    (vendor.trial_keys if late else vendor.keys).add(secrets[turn])
                    told = await root(
                        "CredentialService.RotateCredential", name="main", value=secrets[turn]
                    )
                    assert told.canary.verdict == admin.CANARY_VERDICT_ACCEPTED
                    await rotated(router, WORKERS * turn, "adopted")
                    if late:
                        # It learns the new key late, and knows both for a moment.
                        await load.a_while()
                        vendor.keys.add(secrets[turn])
                        await load.a_while()
                    vendor.keys.discard(secrets[turn - 1])
                    await load.a_while()
            _, metrics = await router.get("/metrics")
            router.send(signal.SIGTERM)
            await router.process.wait()
            shown = [str(router.log), metrics, str(told)]
    return load, vendor, [*shown, *await audited(dsn)]


async def audited(dsn: str) -> list[str]:
    """The entries of the audit trail."""
    database = await open_database(dsn, "state.database")
    try:
        return [str(entry) async for entry in SqlAuditStore(database).stream()]
    finally:
        await database.close()


async def test_no_call_fails_while_a_stored_key_is_rotated(dsn: str, tmp_path: Path) -> None:
    load, vendor, shown = await rotate_by_call(tmp_path, dsn, 4)
    assert load.failed == {}
    assert load.answered >= 400
    assert sum(vendor.refused.values()) >= 100
    # One worker tries a key, and the other takes its word.
    assert [vendor.tried[f"sk-call-{turn}-secret"] for turn in range(1, 5)] == [1] * 4
    assert all("-secret" not in text for text in shown)
    # Every read and every change is in the trail: who asked for it, and what each worker did.
    entries = "".join(shown[3:])
    for action in ("admin.credentials.rotate", "credential.adopt", "secret.read", "secret.write"):
        assert f"action='{action}'" in entries, action


async def test_master_keys_are_replaced_by_command(dsn: str, tmp_path: Path) -> None:
    old, new = new_key(), new_key()
    env = {"DSN": dsn, "MASTER": old, "NEXT": new}
    async with key_vendor("sk-kept") as vendor:
        path = stored_config(tmp_path, vendor)
        config = str(path)
        for name in ("main", "spare"):
            code, printed = await trunkline(
                "secrets", "put", config, name, env=env, given="sk-kept\n"
            )
            assert (code, printed) == (0, f"credential:{name} has version 1\n")
        # A key that is another one opens nothing, and loses nothing.
        code, printed = await trunkline("secrets", "rekey", config, env={**env, "MASTER": new})
        assert code == 1
        assert (
            "left as it was: credential/main: credential 'main' was sealed under anoth" in printed
        )
        text = path.read_text()
        path.write_text(text.replace("{one: 'env:MASTER'}", "{two: 'env:NEXT', one: 'env:MASTER'}"))
        code, printed = await trunkline("secrets", "rekey", config, env=env)
        assert (code, printed) == (0, "sealed anew under 'two': 2; sealed under it before: 0\n")
        path.write_text(text.replace("one: 'env:MASTER'", "two: 'env:NEXT'"))
        async with (
            router_process("--config", config, "--admin-listen", "off", env=env) as router,
            channel_to(router.address) as channel,
        ):
            await InferenceServiceStub(channel).Generate(ask(), timeout=PATIENCE)
        code, printed = await trunkline("secrets", "make-key", env={})
        assert (code, len(printed.strip())) == (0, 44)
        # A start with the wrong key says so and exits.
        path.write_text(text)
        code, printed = await trunkline(
            "serve", "--config", config, "--listen", "127.0.0.1:0", "--workers", "1", env=env
        )
        assert code == 2
        assert "was sealed under master key 'two', which is not configured" in printed
        assert not any(secret in printed for secret in (old, new, "sk-kept"))


async def _by_call(folder: Path, turns: int) -> tuple[Load, KeyVendor]:
    dsn = f"sqlite:///{folder / 'state.db'}"
    await upgrade(dsn, "state.database")
    return (await rotate_by_call(folder, dsn, turns))[:2]


if __name__ == "__main__":
    TURNS = 10
    with tempfile.TemporaryDirectory() as folder:
        run, seen, _ = asyncio.run(rotate_by_file(Path(folder), TURNS))
        print(
            f"{TURNS} rotations by a mounted file, {WORKERS} workers:"
            f" {run.answered} calls and {run.streamed} streams answered,"
            f" {sum(run.failed.values())} failed;"
            f" the vendor refused {sum(seen.refused.values())} requests, each repeated"
        )
    with tempfile.TemporaryDirectory() as folder:
        run, seen = asyncio.run(_by_call(Path(folder), TURNS))
        print(
            f"{TURNS} rotations by RotateCredential, {WORKERS} workers:"
            f" {run.answered} calls and {run.streamed} streams answered,"
            f" {sum(run.failed.values())} failed;"
            f" the vendor refused {sum(seen.refused.values())} requests, each repeated"
        )
