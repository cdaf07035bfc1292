"""Azure Key Vault by its own client, over TLS: the challenge, the token, the secret.

The client's check that the challenge's resource is the vault's own domain is switched off
here: no local name ends in vault.azure.net. Tokens come from azure-identity, which asks a
local authority.
"""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from azure.identity import ClientSecretCredential

from tests.integration.secrets.conftest import Serve
from trunkline_server.secrets.cloud import AzureSettings, AzureSource
from trunkline_server.secrets.ports import SecretRefusedError, SecretUnavailableError
from trunkline_server.secrets.threads import BlockingPool

TENANT = "11111111-2222-3333-4444-555555555555"


class KeyVault:
    """One vault, and the authority that it sends its callers to."""

    def __init__(self) -> None:
        self.origin = ""
        self.log: list[str] = []
        self.status = 200

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{tenant}/v2.0/.well-known/openid-configuration", self.discovery)
        app.router.add_post("/{tenant}/oauth2/v2.0/token", self.token)
        app.router.add_get("/secrets/{name}/{version:.*}", self.secret)
        return app

    async def discovery(self, request: web.Request) -> web.Response:
        base = f"{self.origin}/{TENANT}"
        return web.json_response(
            {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            }
        )

    async def token(self, request: web.Request) -> web.Response:
        form = await request.post()
        self.log.append(f"token for {form['scope']!s} by {form['client_id']!s}")
        if form["client_secret"] != "right":
            reply = {"error": "invalid_client", "error_description": "AADSTS7000215"}
            return web.json_response(reply, status=401)
        reply_: dict[str, Any] = {"token_type": "Bearer", "expires_in": 3599}
        return web.json_response({**reply_, "access_token": "the-token"})

    async def secret(self, request: web.Request) -> web.Response:
        name, version = request.match_info["name"], request.match_info["version"]
        if request.headers.get("Authorization") != "Bearer the-token":
            self.log.append("challenge")
            challenge = f'Bearer authorization="{self.origin}/{TENANT}", resource="{self.origin}"'
            return web.json_response({}, status=401, headers={"WWW-Authenticate": challenge})
        self.log.append(f"get {name}/{version}")
        if self.status != 200 or name != "openai":
            status = self.status if self.status != 200 else 404
            reply = {"error": {"code": "SecretNotFound", "message": "it is so"}}
            return web.json_response(reply, status=status)
        return web.json_response(
            {
                "value": '{"key": "sk-1"}',
                "id": f"{self.origin}/secrets/openai/{version or 'abc123'}",
                "attributes": {"enabled": True, "exp": 1900000000},
            }
        )


class World:
    def __init__(self, vault: KeyVault, ca: str, pool: BlockingPool) -> None:
        self.vault = vault
        self._ca = ca
        self._pool = pool
        self._credentials: list[ClientSecretCredential] = []
        self._sources: list[AzureSource] = []

    def source(self, secret: str = "right", verify: bool = False) -> AzureSource:
        made = AzureSource(
            AzureSettings(
                vault_url=self.vault.origin,
                credential=lambda: self._credential(secret),
                options=(("connection_verify", self._ca), ("verify_challenge_resource", verify)),
            ),
            self._pool,
        )
        self._sources.append(made)
        return made

    def _credential(self, secret: str) -> ClientSecretCredential:
        made = ClientSecretCredential(
            TENANT,
            "client",
            secret,
            authority=self.vault.origin,
            disable_instance_discovery=True,
            connection_verify=self._ca,
            retry_total=0,
        )
        self._credentials.append(made)
        return made

    def close(self) -> None:
        for source in self._sources:
            source.close()
        for credential in self._credentials:
            credential.close()


@pytest.fixture
async def world(serve: Serve, tmp_path: Path, pool: BlockingPool) -> AsyncIterator[World]:
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    vault = KeyVault()
    vault.origin = await serve(vault.app(), context)
    made = World(vault, str(ca), pool)
    yield made
    made.close()


async def test_challenge_token_secret(world: World) -> None:
    source = world.source()
    value = await source.fetch("azure:myvault/openai#key")
    assert (value.value, value.version, value.expires) == ("sk-1", "abc123", 1900000000.0)
    scope = f"{world.vault.origin}/.default"
    assert world.vault.log == ["challenge", f"token for {scope} by client", "get openai/"]
    value = await source.fetch("azure:myvault/openai/v7")
    assert value.version == "v7"
    # The token is kept.
    assert world.vault.log[3:] == ["get openai/v7"]


async def test_what_is_not_there_is_refused(world: World) -> None:
    for reference in ("azure:myvault/nobody", "azure:myvault"):
        with pytest.raises(SecretRefusedError):
            await world.source().fetch(reference)


async def test_wrong_credentials_are_refused_and_not_quoted(world: World) -> None:
    with pytest.raises(SecretRefusedError) as refused:
        await world.source("wrong-one").fetch("azure:myvault/openai")
    assert "wrong-one" not in refused.value.message


async def test_a_vault_that_asks_for_anothers_token_does_not_get_it(world: World) -> None:
    with pytest.raises(SecretRefusedError, match="another's token"):
        await world.source(verify=True).fetch("azure:myvault/openai")
    assert world.vault.log == ["challenge"]


async def test_failures_are_told_apart(world: World) -> None:
    source = world.source()
    world.vault.status = 403
    with pytest.raises(SecretRefusedError, match="403"):
        await source.fetch("azure:myvault/openai")
    for status in (429, 503):
        world.vault.status = status
        before = len(world.vault.log)
        with pytest.raises(SecretUnavailableError, match=str(status)):
            await source.fetch("azure:myvault/openai")
        # Retries are the refresher's.
        assert len(world.vault.log) == before + 1
