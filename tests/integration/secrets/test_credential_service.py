"""Stored credentials over the wire: CredentialService, two replicas on one database, and calls."""

import asyncio
import gc
import io
import logging
import pickle
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import grpc
import pytest
import structlog

from tests.integration.secrets.conftest import Serve
from tests.integration.secrets.test_rotation_on_the_wire import Load, under_load
from tests.integration.secrets.test_vault import Vault
from tests.integration.test_telemetry import Collector, collector
from tests.support.admin_server import CallError, Client, serving
from tests.support.admin_world import World, new_world
from tests.support.key_vendor import KeyVendor, key_vendor
from tests.support.replica import Replica, replica
from tests.support.router import PATIENCE, ask
from tests.unit.secrets.world import Ears
from trunkline.admin import v1 as admin
from trunkline_server.clock import SystemClock
from trunkline_server.secrets.master_keys import keyring_of, new_key
from trunkline_server.secrets.records import EncryptedRecords
from trunkline_server.secrets.stored import CREDENTIAL_KIND
from trunkline_server.settings import ConfigError, Secret
from trunkline_server.store.address import open_database
from trunkline_server.store.migrate import upgrade
from trunkline_server.store.sealed import SqlSealedStore

__all__ = ["collector"]

FIRST_KEY, SECOND_KEY = new_key(), new_key()
SECRETS = [f"sk-stored-{number}-secret" for number in range(12)]

CONFIG = """\
state: {{database: "sqlite:///{path}", references: ["vault:team/*", "aws:a"]}}
providers:
  vendor: {{kind: openai, base_url: "{url}/v1", api_key: "credential:main"}}
deployments:
  - {{name: d, provider: vendor, model: gpt-test, capabilities: [chat, streaming]}}
models:
  large: {{deployments: [d], attempts: {{retries: 0}}}}
secrets: {{{more}master_keys: {keys}, on_missing: {missing}, retry: 200ms}}
"""
ONE_KEY = '{"one": "env:ONE"}'
ENV = {"ONE": FIRST_KEY, "TWO": SECOND_KEY, "VAULT": "hvs.root"}


@dataclass
class Rig:
    """A vendor, two replicas on one database, and a client of the first one's control plane."""

    vendor: KeyVendor
    replicas: list[Replica]
    client: Client
    world: World
    config: str
    database: Path
    audited: list[tuple[str, str, str]] = field(default_factory=list)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)
            await asyncio.sleep(0)


@asynccontextmanager
async def rig(
    folder: Path, missing: str = "skip", more: str = "", telemetry: str = "{}"
) -> AsyncGenerator[Rig]:
    database = folder / "state.db"
    await upgrade(f"sqlite:///{database}", "state.database")
    audited: list[tuple[str, str, str]] = []
    async with AsyncExitStack() as stack:
        vendor = await stack.enter_async_context(key_vendor(SECRETS[0]))
        config = CONFIG.format(
            path=database, url=vendor.url, keys=ONE_KEY, missing=missing, more=more
        )
        config += f"telemetry: {telemetry}\n"
        replicas = [
            await stack.enter_async_context(
                replica(
                    config,
                    ENV,
                    audit=lambda act, name, more: audited.append((act, name, str(more))),
                )
            )
            for _ in range(2)
        ]
        world = new_world(folder)
        sources = replace(world.sources(), credentials=replicas[0].credentials.service)
        serve = serving(sources, world.trail, world.heard, world.clock)
        client = await stack.enter_async_context(serve)
        yield Rig(vendor, replicas, client, world, config, database, audited)


async def create(rig: Rig, value: str = SECRETS[0], provider: str = "vendor") -> admin.Credential:
    answer = await rig.client(
        "CredentialService.CreateCredential",
        credential=admin.Credential(name="main", canary_provider=provider),
        value=value,
    )
    made: admin.Credential = answer.credential
    await until(lambda: all(usable(each) for each in rig.replicas))
    return made


def usable(each: Replica) -> bool:
    return each.worker.engine.table.snapshot.deployments[0].enabled


async def rotate(rig: Rig, value: str, **fields: object) -> admin.RotateCredentialResponse:
    answer: admin.RotateCredentialResponse = await rig.client(
        "CredentialService.RotateCredential", name="main", value=value, **fields
    )
    return answer


async def answered(each: Replica) -> None:
    answer = await each.stub.Generate(ask(), timeout=PATIENCE)
    assert answer.message.parts[0].text == "hello"


async def refused(call: Awaitable[object]) -> CallError:
    with pytest.raises(CallError) as caught:
        await call
    return caught.value


async def test_a_provider_comes_into_use_when_its_credential_is_stored(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        for each in it.replicas:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await each.stub.Generate(ask(), timeout=PATIENCE)
            assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        made = await create(it)
        assert [each.version for each in made.versions] == ["1"]
        for each in it.replicas:
            await answered(each)


async def test_a_first_value_that_the_provider_refuses_is_not_stored(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        error = await refused(
            it.client(
                "CredentialService.CreateCredential",
                credential=admin.Credential(name="main", canary_provider="vendor"),
                value=SECRETS[9],
            )
        )
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "PROVIDER_CREDENTIALS")
        assert SECRETS[9] not in str(error)
        listed = await it.client("CredentialService.ListCredentials")
        assert list(listed.credentials) == []


def adopted(each: Replica, count: int) -> bool:
    return each.changes("adopted") >= count


async def rotations(it: Rig, turns: int) -> list[Load]:
    """Rotates under load on both replicas, in turn at a vendor that forgets the old key at once
    and at one that learns the new one late."""
    other = it.replicas[1]
    async with AsyncExitStack() as stack:
        loads = [await stack.enter_async_context(under_load(each.address)) for each in it.replicas]
        for turn in range(1, turns + 1):
            old, new = SECRETS[turn - 1], SECRETS[turn]
            late = turn % 2 == 0
            (it.vendor.trial_keys if late else it.vendor.keys).add(new)
            told = await rotate(it, new)
            assert told.canary.verdict == admin.CANARY_VERDICT_ACCEPTED
            await until(partial(adopted, other, turn))
            if late:
                await asyncio.gather(*(load.a_while(30) for load in loads))
                # No vendor learns one key and forgets another in the same moment: a call that
                # was refused before it under the one would be refused after it under the other.
                it.vendor.keys.add(new)
                await asyncio.gather(*(load.a_while(30) for load in loads))
            it.vendor.keys.discard(old)
            await asyncio.gather(*(load.a_while(30) for load in loads))
    return loads


async def test_no_call_fails_while_a_credential_is_rotated(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        await create(it)
        loads = await rotations(it, 4)
        assert [dict(load.failed) for load in loads] == [{}, {}]
        assert sum(it.vendor.refused.values()) >= 20
        # The replica that did not rotate asked for no trial.
        assert it.vendor.tried[SECRETS[4]] == 1
        # The grace outlives a process.
        async with replica(it.config, ENV) as third:
            it.vendor.keys = {SECRETS[3]}
            await answered(third)


async def test_a_value_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        made = await create(it)
        told = await rotate(it, SECRETS[5])
        assert told.canary.verdict == admin.CANARY_VERDICT_REFUSED
        assert told.credential.etag == made.etag
        it.vendor.down = 503
        told = await rotate(it, SECRETS[5])
        assert told.canary.verdict == admin.CANARY_VERDICT_UNREACHABLE
        it.vendor.down = 0
        await answered(it.replicas[0])
        same = await rotate(it, SECRETS[0])
        assert same.canary.verdict == admin.CANARY_VERDICT_SKIPPED
        assert same.credential.etag == made.etag


async def test_what_is_told_of_a_credential(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        made = await create(it)
        it.vendor.keys.add(SECRETS[1])
        await rotate(it, SECRETS[1])
        found = (await it.client("CredentialService.GetCredential", name="main")).credential
        active, grace = found.versions
        assert (active.state, grace.state) == (
            admin.CREDENTIAL_STATE_ACTIVE,
            admin.CREDENTIAL_STATE_GRACE,
        )
        assert (active.version, grace.version) == ("2", "1")
        assert active.fingerprint != grace.fingerprint == made.versions[0].fingerprint
        assert grace.HasField("grace_until")
        assert found.etag != made.etag
        error = await refused(rotate(it, SECRETS[2], etag=made.etag))
        assert error.reason == "ABORTED"
        error = await refused(it.client("CredentialService.DeleteCredential", name="main"))
        assert (error.reason, "vendor" in error.message) == ("FAILED_PRECONDITION", True)
        error = await refused(it.client("CredentialService.GetCredential", name="other"))
        assert error.reason == "NOT_FOUND"
        error = await refused(create(it))
        assert error.reason == "ALREADY_EXISTS"


@pytest.mark.parametrize(
    "reference", ["file:key", "env:ONE", "credential:main", "aws:b", "vault:x/team/y", SECRETS[7]]
)
async def test_only_permitted_secrets_of_managers_are_referred_to(
    tmp_path: Path, reference: str
) -> None:
    async with rig(tmp_path) as it:
        error = await refused(
            it.client(
                "CredentialService.CreateCredential",
                credential=admin.Credential(name="x", reference=reference),
            )
        )
        assert error.reason == "INVALID_REQUEST"
        assert [field for field, _ in error.violations] == ["credential.reference"]
        assert SECRETS[7] not in str(error)


async def test_a_reference_is_followed_by_every_replica(serve: Serve, tmp_path: Path) -> None:
    """The record says where the value is kept; whichever replica finds a new one there writes it
    down, and a value that the provider refuses stays where it is."""
    vault = Vault(tokens={"hvs.root": {}}, secret={"key": SECRETS[0]})
    more = (
        f"refresh_interval: 1s, vault: {{url: '{await serve(vault.app())}', "
        "auth: {method: token, token: 'env:VAULT'}}, "
    )
    async with rig(tmp_path, more=more) as it:
        await it.client(
            "CredentialService.CreateCredential",
            credential=admin.Credential(
                name="main",
                reference="vault:team/secret/app/openai#key",
                canary_provider="vendor",
            ),
        )
        await until(lambda: all(usable(each) for each in it.replicas))
        vault.secret["key"], vault.version = SECRETS[1], 4
        await until(lambda: it.vendor.tried[SECRETS[1]] >= 2)
        await answered(it.replicas[1])
        it.vendor.keys.add(SECRETS[1])
        await until(lambda: all(adopted(each, 1) for each in it.replicas))
        it.vendor.keys.discard(SECRETS[0])
        for each in it.replicas:
            await answered(each)
        found = (await it.client("CredentialService.GetCredential", name="main")).credential
        assert [each.version for each in found.versions] == ["4", "3"]
        error = await refused(rotate(it, SECRETS[2]))
        assert error.reason == "INVALID_REQUEST"
        # Asked at once, and nothing new there.
        told = await rotate(it, "")
        assert told.canary.verdict == admin.CANARY_VERDICT_SKIPPED


async def test_what_nobody_refers_to_may_be_deleted(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        await it.client(
            "CredentialService.CreateCredential",
            credential=admin.Credential(name="spare"),
            value=SECRETS[3],
        )
        listed = await it.client("CredentialService.ListCredentials", prefix="s")
        assert [each.name for each in listed.credentials] == ["spare"]
        await it.client("CredentialService.DeleteCredential", name="spare")
        listed = await it.client("CredentialService.ListCredentials")
        assert list(listed.credentials) == []


async def test_no_value_is_found_anywhere_outside(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], collector: tuple[Collector, int]
) -> None:
    spans, port = collector
    telemetry = f"{{otlp_endpoint: 'http://127.0.0.1:{port}', trace_ratio: 1}}"
    logged = io.StringIO()
    handler = logging.StreamHandler(logged)
    logging.getLogger().addHandler(handler)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(logged))
    try:
        async with rig(tmp_path, telemetry=telemetry) as it:
            made = await create(it)
            await rotations(it, 2)
            error = await refused(rotate(it, SECRETS[5] + "\n\x00"))
            # The vendor quotes the key, and the caller hears of it.
            it.vendor.down = 503
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await it.replicas[0].stub.Generate(ask(), timeout=PATIENCE)
            trailers = str(failed.value.trailing_metadata())
            shown = [
                logged.getvalue(),
                *(each.metrics for each in it.replicas),
                str(it.audited),
                str(it.world.acts),
                str(made),
                f"{error} {error.raw!r}",
                f"{failed.value} {trailers}",
                "".join(repr(each) for each in gc.get_objects() if _ours(each)),
            ]
            assert "[redacted]" in trailers
            assert "credential.rotate" not in shown[4]
            assert {"secret.write", "secret.read", "credential.adopt"} <= {
                act for act, _, _ in it.audited
            }
    finally:
        structlog.reset_defaults()
        logging.getLogger().removeHandler(handler)
    printed = capfd.readouterr()
    files = _files(tmp_path)
    traces = str(spans.requests)
    assert "STATUS_CODE_ERROR" in traces
    for secret in SECRETS:
        for place, text in enumerate([*shown, printed.out, printed.err, traces]):
            assert secret not in text, place
        assert secret.encode() not in files
    assert FIRST_KEY.encode() not in files
    assert "credential changed" in shown[0]


def _files(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in folder.rglob("*") if each.is_file())


def _ours(thing: object) -> bool:
    """Whatever the secrets room and the composition around it make."""
    module = str(type(thing).__module__)
    return module.startswith(
        ("trunkline_server.secrets", "trunkline_server.app.", "trunkline_server.settings")
    )


async def test_a_wrong_master_key_is_told_at_the_start_and_nothing_is_lost(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        await create(it)
        config, database = it.config, it.database

    def rows() -> list[tuple[object, ...]]:
        with sqlite3.connect(database) as connection:
            found = connection.execute("SELECT * FROM sealed_records").fetchall()
        connection.close()
        return found

    before = rows()
    with pytest.raises(ConfigError, match="'main' was sealed under another key than") as wrong:
        async with replica(config, {"ONE": SECOND_KEY}):
            pass
    assert "secrets.master_keys" in str(wrong.value)
    assert SECOND_KEY not in str(wrong.value)
    other = config.replace(ONE_KEY, '{"two": "env:TWO"}')
    with pytest.raises(ConfigError, match="under master key 'one', which is not configured"):
        async with replica(other, ENV):
            pass
    with pytest.raises(ConfigError, match="master key 'one' is neither base64 nor hex"):
        async with replica(config, {"ONE": "no-key-at-all!"}):
            pass
    assert rows() == before
    async with replica(config, ENV) as right:
        assert usable(right)


async def test_a_start_without_the_credential_fails_unless_it_may_be_missing(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as it:
        strict = it.config.replace("on_missing: skip", "on_missing: fail")
        with pytest.raises(ConfigError, match=r"providers\.vendor\.api_key: credential:main"):
            async with replica(strict, ENV):
                pass


async def test_a_start_without_the_database_says_so(tmp_path: Path) -> None:
    config = CONFIG.format(
        path=tmp_path / "state.db", url="http://127.0.0.1:9", keys=ONE_KEY, missing="fail", more=""
    )
    away = config.replace(f"sqlite:///{tmp_path / 'state.db'}", "env:DSN")
    env = {**ENV, "DSN": "postgres://u:p4ssw0rd@127.0.0.1:9/none"}
    wanted = r"providers\.vendor\.api_key: credential:main: .*127\.0\.0\.1:9"
    with pytest.raises(OSError, match=wanted) as failed:
        async with replica(away, env):
            pass
    assert "p4ssw0rd" not in str(failed.value)
    async with replica(away.replace("on_missing: fail", "on_missing: skip"), env) as waiting:
        assert not usable(waiting)


async def test_a_record_of_a_later_form_is_told_and_harms_no_other(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        await create(it)
        database = await open_database(f"sqlite:///{it.database}", "dsn")
        records = EncryptedRecords(
            SqlSealedStore(database, SystemClock()), keyring_of({"one": FIRST_KEY}), Ears()
        )
        await records.write(CREDENTIAL_KIND, "later", b'{"current": "sk-of-later-form"}')
        await database.close()
        error = await refused(it.client("CredentialService.GetCredential", name="later"))
        assert "of a form that this build does not know" in error.message
        assert "sk-of-later-form" not in str(error)
        it.vendor.keys.add(SECRETS[1])
        await rotate(it, SECRETS[1])
        await until(lambda: all(adopted(each, 1) for each in it.replicas))


def test_secrets_are_not_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret("a", "env:A"))
