"""Secrets of a manager on their way to a vendor: a whole router, Vault's API by hvac, and calls."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import grpc
import pytest

from tests.integration.secrets.conftest import Serve
from tests.integration.secrets.test_vault import Vault
from tests.support.key_vendor import KeyVendor, key_vendor
from tests.support.replica import Replica, replica, settings_of
from tests.support.router import PATIENCE, ask
from trunkline_server.settings import ConfigError

REFERENCE = "vault:team/secret/app/openai#key"
CONFIG = """\
providers:
  vendor:
    kind: openai
    base_url: "{vendor}/v1"
    api_key: "{reference}"
    headers: {{x-org: "{other}", x-plain: shown}}
deployments:
  - {{name: d, provider: vendor, model: gpt-test, capabilities: [chat, streaming]}}
models:
  large: {{deployments: [d], attempts: {{retries: 0}}}}
secrets:
  on_missing: {missing}
  refresh_interval: 1s
  retry: 100ms
  max_stale: {stale}
  vault: {{url: "{vault}", auth: {{method: token, token: "env:VAULT_TOKEN"}}}}
"""
ENV = {"VAULT_TOKEN": "hvs.root", "ORG": "org-1"}


@pytest.fixture
async def vendor() -> AsyncGenerator[KeyVendor]:
    async with key_vendor("sk-1") as made:
        yield made


class World:
    """A Vault, a vendor, and the configuration that joins them."""

    def __init__(self, vault: Vault, url: str, vendor: KeyVendor) -> None:
        self.vault = vault
        self.url = url
        self.vendor = vendor

    def config(
        self,
        missing: str = "fail",
        stale: str = "0",
        other: str = "env:ORG",
        reference: str = REFERENCE,
        vendor: KeyVendor | None = None,
    ) -> str:
        return CONFIG.format(
            vendor=(vendor or self.vendor).url,
            vault=self.url,
            missing=missing,
            stale=stale,
            other=other,
            reference=reference,
        )


@pytest.fixture
async def world(serve: Serve, vendor: KeyVendor) -> World:
    vault = Vault(tokens={"hvs.root": {}})
    return World(vault, await serve(vault.app()), vendor)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)
            await asyncio.sleep(0)


def usable(each: Replica) -> bool:
    return each.worker.engine.table.snapshot.deployments[0].enabled


async def call(each: Replica) -> None:
    await each.stub.Generate(ask(), timeout=PATIENCE)


async def failure(each: Replica) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call(each)
    return failed.value.code()


async def test_a_secret_that_changes_at_its_manager_is_rotated_to(world: World) -> None:
    async with replica(world.config(), ENV) as router:
        await call(router)
        world.vendor.keys.add("sk-2")
        world.vault.secret["key"] = "sk-2"
        await until(lambda: router.changes("rotated") == 1)
        world.vendor.keys.discard("sk-1")
        await call(router)
        assert world.vendor.answered == {"sk-1": 1, "sk-2": 1}
        # The manager goes away: what it gave stays in use, and operators hear of it.
        world.vault.sealed = True
        stale = "trunkline_secret_stale_seconds"
        await until(lambda: (router.registry.get_sample_value(stale) or 0) > 0)
        await call(router)
        assert 'secret_fetches_total{manager="vault",result="failed"}' in router.metrics


async def test_a_secret_that_cannot_be_had_ends_the_start(world: World) -> None:
    world.vault.sealed = True
    with pytest.raises(OSError, match=rf"providers\.vendor\.api_key: {REFERENCE}: Vault fails"):
        async with replica(world.config(), ENV):
            pass
    world.vault.sealed = False
    wrong = world.config(reference="vault:team/secret/app/other#key")
    with pytest.raises(ConfigError, match=r"providers\.vendor\.api_key: vault:team/secret/app/o"):
        async with replica(wrong, ENV):
            pass
    with pytest.raises(ConfigError, match="Vault refuses") as refused:
        async with replica(world.config(), {**ENV, "VAULT_TOKEN": "hvs.wrong"}):
            pass
    assert "hvs.wrong" not in str(refused.value)


async def test_a_provider_may_wait_for_its_secret(world: World) -> None:
    world.vault.sealed = True
    async with replica(world.config("skip"), ENV) as router:
        assert await failure(router) is grpc.StatusCode.FAILED_PRECONDITION
        assert sum(world.vendor.refused.values()) == 0
        world.vault.sealed = False
        await until(lambda: usable(router))
        await call(router)


async def test_a_secret_may_be_too_old_to_be_used(world: World) -> None:
    async with replica(world.config(stale="500ms"), ENV) as router:
        await call(router)
        world.vault.sealed = True
        await until(lambda: not usable(router))
        assert await failure(router) is grpc.StatusCode.FAILED_PRECONDITION
        world.vault.sealed = False
        await until(lambda: usable(router))
        await call(router)


async def test_several_secrets_of_a_provider_change_as_one(world: World) -> None:
    other = "vault:team/secret/app/openai#other"
    async with replica(world.config(other=other), ENV) as router:
        held = router.worker.engine.table.endpoints["vendor"].credential
        assert dict(held.headers)["x-org"] == "x"
        world.vault.secret["other"] = "y"
        await until(lambda: dict(held.headers)["x-org"] == "y")
        assert dict(held.headers)["authorization"] == "Bearer sk-1"
        assert dict(held.headers)["x-plain"] == "shown"
        before = held.refused(held.headers)
        assert before is not None
        assert dict(before)["x-org"] == "x"
        told = held.redacted("sk-1, x and y of shown", held.headers)
        assert told == "[redacted], [redacted] and [redacted] of shown"


async def test_a_provider_that_moves_shows_its_new_host_no_old_key(
    world: World, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("sk-1")
    config = world.config(reference="file:key")
    async with (
        key_vendor("sk-2") as moved,
        replica(config, ENV, base=tmp_path) as router,
    ):
        await call(router)
        key.write_text("sk-2")
        there = world.config(reference="file:key", vendor=moved)
        router.worker.reload(settings_of(there, ENV, tmp_path))
        await call(router)
        assert (moved.answered, moved.refused, moved.tried) == ({"sk-2": 1}, {}, {})
        # A provider that is gone leaves nothing behind.
        gone = settings_of("providers: {other: {kind: openai, api_key: 'env:ORG'}}", ENV)
        router.worker.reload(gone)
        assert router.worker.engine.table.endpoints.keys() == {"other"}


async def test_a_provider_is_called_as_before_until_a_new_reference_is_fetched(
    world: World,
) -> None:
    plain = world.config(reference="env:KEY")
    async with replica(plain, {**ENV, "KEY": "sk-1"}) as router:
        world.vault.secret["key"] = "sk-2"
        world.vendor.keys.add("sk-2")
        world.vault.sealed = True
        router.worker.reload(settings_of(world.config(), ENV))
        failed = "trunkline_secret_fetches_total", {"manager": "vault", "result": "failed"}
        await until(lambda: (router.registry.get_sample_value(*failed) or 0) >= 2)
        await call(router)
        assert world.vendor.answered == {"sk-1": 1}
        world.vault.sealed = False
        await until(lambda: router.changes("rotated") == 1)
        await call(router)
        assert world.vendor.answered == {"sk-1": 1, "sk-2": 1}


async def test_a_provider_that_moves_waits_for_a_new_reference(world: World) -> None:
    plain = world.config(reference="env:KEY")
    async with key_vendor("sk-2") as moved, replica(plain, {**ENV, "KEY": "sk-1"}) as router:
        world.vault.secret["key"] = "sk-2"
        world.vault.sealed = True
        router.worker.reload(settings_of(world.config(vendor=moved), ENV))
        assert await failure(router) is grpc.StatusCode.FAILED_PRECONDITION
        world.vault.sealed = False
        await until(lambda: usable(router))
        await call(router)
        assert (moved.answered, moved.refused) == ({"sk-2": 1}, {})
