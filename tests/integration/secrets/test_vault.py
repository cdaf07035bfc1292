"""HashiCorp Vault by hvac, against its HTTP API as documented; the server itself is not run."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.integration.secrets.conftest import Serve
from trunkline_server.secrets.ports import SecretRefusedError, SecretUnavailableError
from trunkline_server.secrets.threads import BlockingPool
from trunkline_server.secrets.vault import (
    AppRoleAuth,
    KubernetesAuth,
    TokenAuth,
    VaultSettings,
    VaultSource,
)


class SetClock:
    now = 1_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


def _errors(status: int, *errors: str) -> web.Response:
    return web.json_response({"errors": list(errors)}, status=status)


@dataclass
class Vault:
    """Vault's HTTP API v1 as far as it is used: one KV 2, one KV 1, one leasing engine."""

    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    secret: dict[str, str] = field(default_factory=lambda: {"key": "sk-1", "other": "x"})
    version: int = 3
    token_ttl: int = 100
    lease_ttl: int = 60
    renewed_ttl: int = 60
    leases: int = 0
    namespace: str = ""
    sealed: bool = False
    mounts_allowed: bool = True

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self.guard])
        app.router.add_post("/v1/auth/{mount}/login", self.login)
        app.router.add_get("/v1/auth/token/lookup-self", self.lookup)
        app.router.add_post("/v1/auth/token/renew-self", self.renew_self)
        app.router.add_get("/v1/sys/internal/ui/mounts/{path:.+}", self.mounts)
        app.router.add_get("/v1/team/secret/data/{path:.+}", self.kv2)
        app.router.add_get("/v1/old/{path:.+}", self.kv1)
        app.router.add_get("/v1/database/creds/{role}", self.creds)
        app.router.add_route("*", "/v1/sys/leases/renew", self.renew_lease)
        return app

    @web.middleware
    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.log.append(f"{request.method} {request.path}")
        if self.sealed:
            return _errors(503, "Vault is sealed")
        if request.headers.get("X-Vault-Namespace", "") != self.namespace:
            return _errors(403, "permission denied")
        login = request.path.endswith("/login")
        if not login and request.headers.get("X-Vault-Token") not in self.tokens:
            return _errors(403, "permission denied", "invalid token")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def login(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body not in (
            {"role_id": "role", "secret_id": "s3cret"},
            {"role": "trunkline", "jwt": "the.jwt"},
        ):
            return _errors(400, "invalid role or secret ID")
        token = f"hvs.{len(self.tokens)}"
        self.tokens[token] = {}
        return web.json_response({"auth": self._auth(token)})

    def _auth(self, token: str) -> dict[str, Any]:
        return {"client_token": token, "lease_duration": self.token_ttl, "renewable": True}

    async def lookup(self, request: web.Request) -> web.Response:
        return web.json_response({"data": {"ttl": self.token_ttl, "renewable": True}})

    async def renew_self(self, request: web.Request) -> web.Response:
        return web.json_response({"auth": self._auth(request.headers["X-Vault-Token"])})

    async def mounts(self, request: web.Request) -> web.Response:
        if not self.mounts_allowed:
            return _errors(403, "preflight capability check returned 403")
        path = request.match_info["path"]
        for mount, engine, options in (
            ("team/secret/", "kv", {"version": "2"}),
            ("old/", "kv", {"version": "1"}),
            ("database/", "database", None),
        ):
            if path.startswith(mount):
                data = {"path": mount, "type": engine, "options": options}
                return web.json_response({"data": data})
        return _errors(403, "preflight capability check returned 403")

    async def kv2(self, request: web.Request) -> web.Response:
        if request.match_info["path"] != "app/openai":
            return _errors(404)
        data = {"data": self.secret, "metadata": {"version": self.version}}
        return web.json_response({"data": data, "lease_duration": 0})

    async def kv1(self, request: web.Request) -> web.Response:
        if request.match_info["path"] != "openai":
            return _errors(404)
        reply = {"data": {"value": "old-1"}, "lease_duration": 2764800, "lease_id": ""}
        return web.json_response(reply)

    async def creds(self, request: web.Request) -> web.Response:
        self.leases += 1
        return web.json_response(
            {
                "lease_id": f"database/creds/r/{self.leases}",
                "lease_duration": self.lease_ttl,
                "renewable": True,
                "data": {"username": "u", "password": f"p{self.leases}"},
            }
        )

    async def renew_lease(self, request: web.Request) -> web.Response:
        body = await request.json()
        reply = {"lease_id": body["lease_id"], "lease_duration": self.renewed_ttl}
        return web.json_response({**reply, "renewable": True})


class World:
    def __init__(self, serve: Serve, pool: BlockingPool) -> None:
        self.vault = Vault()
        self.clock = SetClock()
        self._serve = serve
        self._pool = pool
        self._made: list[VaultSource] = []

    async def source(
        self, auth: TokenAuth | AppRoleAuth | KubernetesAuth, namespace: str = ""
    ) -> VaultSource:
        url = await self._serve(self.vault.app())
        made = VaultSource(VaultSettings(url, auth, namespace), self._pool, self.clock)
        self._made.append(made)
        return made

    def close(self) -> None:
        for source in self._made:
            source.close()


@pytest.fixture
async def world(serve: Serve, pool: BlockingPool) -> AsyncIterator[World]:
    made = World(serve, pool)
    yield made
    made.close()


APP = "vault:team/secret/app/openai#key"
APPROLE = AppRoleAuth("role", "s3cret")


async def test_kv_2_by_approle(world: World) -> None:
    source = await world.source(APPROLE)
    value = await source.fetch(APP)
    assert (value.value, value.version, value.expires) == ("sk-1", "3", None)
    assert world.vault.log == [
        "POST /v1/auth/approle/login",
        "GET /v1/sys/internal/ui/mounts/team/secret/app/openai",
        "GET /v1/team/secret/data/app/openai",
    ]
    world.vault.secret["key"], world.vault.version = "sk-2", 4
    value = await source.fetch(APP)
    assert (value.value, value.version) == ("sk-2", "4")
    assert world.vault.log.count("POST /v1/auth/approle/login") == 1


async def test_kv_1_and_the_only_field(world: World) -> None:
    source = await world.source(APPROLE)
    assert (await source.fetch("vault:old/openai")).value == "old-1"


async def test_without_sight_of_mounts_kv_2_is_taken_for_granted(world: World) -> None:
    world.vault.mounts_allowed = False
    source = await world.source(APPROLE)
    with pytest.raises(SecretRefusedError):
        # The first segment alone is then the mount.
        await source.fetch(APP)
    assert "GET /v1/team/data/secret/app/openai" in world.vault.log


async def test_kubernetes_reads_its_token_at_every_login(world: World, tmp_path: Path) -> None:
    jwt = tmp_path / "token"
    jwt.write_text("wrong.jwt\n")
    source = await world.source(KubernetesAuth("trunkline", jwt))
    with pytest.raises(SecretRefusedError):
        await source.fetch(APP)
    jwt.write_text("the.jwt\n")
    assert (await source.fetch(APP)).value == "sk-1"
    assert "POST /v1/auth/kubernetes/login" in world.vault.log


async def test_a_token_is_renewed_before_it_ends(world: World) -> None:
    world.vault.tokens["mine"] = {}
    source = await world.source(TokenAuth("mine"))
    await source.fetch(APP)
    world.clock.now += 61
    await source.fetch(APP)
    await source.fetch(APP)
    assert world.vault.log.count("POST /v1/auth/token/renew-self") == 1
    assert "hvs" not in repr(source)
    assert "mine" not in repr(TokenAuth("mine"))


async def test_a_login_follows_where_a_token_is_revoked_or_ends(world: World) -> None:
    source = await world.source(APPROLE)
    await source.fetch(APP)
    world.vault.tokens.clear()
    assert (await source.fetch(APP)).value == "sk-1"
    world.clock.now += 101
    await source.fetch(APP)
    assert world.vault.log.count("POST /v1/auth/approle/login") == 3


async def test_a_namespace_goes_with_every_request(world: World) -> None:
    world.vault.namespace = "team-a"
    source = await world.source(APPROLE, "team-a")
    assert (await source.fetch(APP)).value == "sk-1"
    other = await world.source(APPROLE, "team-b")
    with pytest.raises(SecretRefusedError):
        await other.fetch(APP)


async def test_leases_are_kept_then_renewed_then_taken_anew(world: World) -> None:
    reference = "vault:database/creds/r#password"
    source = await world.source(APPROLE)
    world.vault.token_ttl = 10_000
    first = await source.fetch(reference)
    assert first.value == "p1"
    assert first.expires == world.clock.now + 60
    world.clock.now += 10
    assert (await source.fetch(reference)).value == "p1"
    world.clock.now += 40
    renewed = await source.fetch(reference)
    assert renewed.value == "p1"
    assert renewed.expires == world.clock.now + 60
    # Near its greatest age Vault grants little.
    world.vault.renewed_ttl = 20
    world.clock.now += 40
    assert (await source.fetch(reference)).value == "p2"
    assert world.vault.leases == 2


@pytest.mark.parametrize("reference", ["vault:team/secret/app/nobody#key", APP + "s", "vault:x"])
async def test_what_vault_does_not_have_is_refused(world: World, reference: str) -> None:
    source = await world.source(APPROLE)
    with pytest.raises(SecretRefusedError):
        await source.fetch(reference)


async def test_wrong_credentials_are_refused_and_not_quoted(world: World) -> None:
    source = await world.source(AppRoleAuth("role", "wrong-one"))
    with pytest.raises(SecretRefusedError) as refused:
        await source.fetch(APP)
    assert "wrong-one" not in refused.value.message


async def test_a_sealed_or_absent_vault_is_away(world: World, pool: BlockingPool) -> None:
    source = await world.source(APPROLE)
    await source.fetch(APP)
    world.vault.sealed = True
    with pytest.raises(SecretUnavailableError, match="VaultDown"):
        await source.fetch(APP)
    nobody = VaultSource(VaultSettings("http://127.0.0.1:1", APPROLE), pool, world.clock)
    with pytest.raises(SecretUnavailableError, match="cannot be reached"):
        await nobody.fetch(APP)
    nobody.close()
