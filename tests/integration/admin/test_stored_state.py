"""What the store holds while it is away, wrong, or both: calls go on, and operators are told."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from tests.support.control import ENV, Replica, furnish, replica_of, write_config
from tests.support.ports import free_port
from tests.support.postgres_server import QUOTED_PASSWORD, PostgresServer
from tests.support.process import START_SECONDS
from trunkline.admin import v1 as admin
from trunkline_server.app.last_good import LastGood
from trunkline_server.clock import SystemClock
from trunkline_server.settings import Stored
from trunkline_server.simulator.app import Simulator
from trunkline_server.store.address import open_database
from trunkline_server.store.migrate import upgrade
from trunkline_server.store.resources import ResourceStore

TRUNKLINE = str(Path(sys.executable).with_name("trunkline"))


@pytest.fixture
async def simulator() -> AsyncGenerator[Simulator]:
    async with Simulator(port=0) as running:
        yield running


def with_copy(config: Path) -> Path:
    """The configuration with a last good copy."""
    config.write_text(config.read_text().replace("state:\n", "state:\n  last_good: copy.json\n"))
    return config


async def start_fails(config: Path) -> tuple[int, str]:
    """The exit code and the words of a start that must fail."""
    env = {**ENV, "DSN": (config.parent / "dsn").read_text()}
    words = [TRUNKLINE, "serve", "--config", str(config), "--listen", f"127.0.0.1:{free_port()}"]
    words += ["--ops-listen", "off", "--admin-listen", "off"]
    done = await asyncio.to_thread(
        subprocess.run, words, env=env, capture_output=True, text=True, timeout=START_SECONDS
    )
    return done.returncode, done.stderr


async def spoil(dsn: str, name: str, body: bytes) -> None:
    """Writes a provider as no control plane would let it be written."""
    database = await open_database(dsn, "dsn")
    try:
        await ResourceStore(database, SystemClock()).update("providers", name, body)
    finally:
        await database.close()


async def note_of(replica: Replica) -> str:
    """What /readyz says of the store; empty while all is well."""
    status, body = await replica.process.get("/readyz")
    assert status == 200
    note: str = json.loads(body).get("store", "")
    return note


async def test_a_store_that_goes_away_and_comes_back(
    tmp_path: Path, simulator: Simulator, new_postgres: Callable[..., PostgresServer]
) -> None:
    server = new_postgres()
    await upgrade(server.dsn(), "dsn")
    config = with_copy(write_config(tmp_path, server.dsn()))
    async with replica_of(config) as replica:
        secret = await furnish(replica.root, simulator)
        await replica.reached(5)
        team = replica.calls_as(secret)
        await asyncio.to_thread(server.kill)
        told = await replica.process.logged("store is away; the configuration in force stays")
        assert server.address in told["error"]
        assert QUOTED_PASSWORD not in json.dumps(replica.process.log)
        assert (await note_of(replica)).startswith("away, changes wait: Postgres at ")
        assert [await team.code() for _ in range(5)] == ["OK"] * 5
        await asyncio.to_thread(server.start)
        await replica.process.logged("store is back")
        assert await note_of(replica) == ""
        await replica.root("DeploymentService.DrainDeployment", name="first")
        await replica.reached(6)
        assert (await team.generate()).deployment == "second"
    # Now it is away at the start.
    await asyncio.to_thread(server.kill)
    async with replica_of(config) as replica:
        copied = await replica.process.logged("started from the last good copy of the store")
        assert copied["revision"] == 6
        team = replica.calls_as(secret)
        # Drains are among what is kept.
        assert (await team.generate()).deployment == "second"
        await asyncio.to_thread(server.start)
        await replica.process.logged("store is back")
        await replica.root("DeploymentService.UndrainDeployment", name="first")
        await replica.reached(7)
        assert (await team.generate()).deployment == "first"
    await asyncio.to_thread(server.kill)
    LastGood(tmp_path / "copy.json").path.write_bytes(b"00000000\n{}")
    code, words = await start_fails(config)
    assert (code, "cannot be used: it is damaged" in words) == (1, True)
    config.write_text(config.read_text().replace("  last_good: copy.json\n", ""))
    code, words = await start_fails(config)
    assert (code, "Set state.last_good to start from a copy next time" in words) == (1, True)
    assert QUOTED_PASSWORD not in words


async def test_what_does_not_load_keeps_what_is_in_force(
    tmp_path: Path, simulator: Simulator
) -> None:
    dsn = f"sqlite:///{tmp_path / 'state.db'}"
    config = with_copy(write_config(tmp_path, dsn))
    good = json.dumps(
        {
            "dialect": "openai",
            "base_url": f"{simulator.url}/openai/v1",
            "api_key": "env:SIM_KEY",
        }
    ).encode()
    refused = "the store: providers 'sim': dialect: is 'opnai'"
    async with replica_of(config) as replica:
        secret = await furnish(replica.root, simulator)
        await replica.reached(5)
        team = replica.calls_as(secret)
        await spoil(dsn, "sim", good.replace(b"openai", b"opnai", 1))
        told = await replica.process.logged("configuration refused; the one in force stays")
        assert refused in told["problems"]
        assert await replica.revision() == 5
        assert (await team.generate()).deployment == "first"
        # The control plane still changes what has nothing to do with it.
        await replica.root("TenantService.CreateTenant", tenant=admin.Tenant(name="acme"))
    async with replica_of(config) as replica:
        copied = await replica.process.logged("started from the last good copy of the store")
        assert copied["revision"] == 5
        assert refused in copied["problem"]
        assert await replica.calls_as(secret).code() == "OK"
        await spoil(dsn, "sim", good)
        await replica.reached(8)
        assert await replica.calls_as(secret).code() == "OK"
        await spoil(dsn, "sim", good.replace(b"openai", b"opnai", 1))
        await replica.process.logged("configuration refused; the one in force stays")
    config.write_text(config.read_text().replace("  last_good: copy.json\n", ""))
    code, words = await start_fails(config)
    assert (code, refused in words) == (2, True)


async def test_workers_agree_and_one_of_them_serves_the_control_plane(
    tmp_path: Path, simulator: Simulator
) -> None:
    config = write_config(tmp_path, f"sqlite:///{tmp_path / 'state.db'}")
    more = "server: {workers: 2}\nstate:\n  owns: [providers, deployments, models, routes, keys]\n"
    text = config.read_text().partition("  owns: ")
    config.write_text(text[0].replace("state:\n", more) + text[2].partition("\n")[2])
    async with replica_of(config) as replica:
        secret = await furnish(replica.root, simulator)
        # The oldest of both.
        await replica.reached(5)
        versions = set()
        for _ in range(12):
            async with replica.another_channel() as calls:
                versions.add((await calls(secret).decision()).snapshot_version)
        assert len(versions) == 1
        answer = await replica.root("ProviderService.GetProviderHealth", name="sim")
        again = await replica.root("ProviderService.GetProviderHealth", name="sim")
        assert answer.replica == again.replica


def test_a_copy_comes_back_as_it_was_and_is_its_owner_s_alone(tmp_path: Path) -> None:
    copy = LastGood(tmp_path / "new" / "copy.json")
    stored = Stored({"models": {"a/b": {"deployments": ["é"]}}}, frozenset({"providers/x"}), 9)
    copy.write(stored)
    assert copy.read() == stored
    assert copy.path.stat().st_mode & 0o777 == 0o600
    assert list(copy.path.parent.iterdir()) == [copy.path]
    data = copy.path.read_bytes()
    for place in range(0, len(data), 7):
        copy.path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            copy.read()
