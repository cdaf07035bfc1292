"""Tokens of Entra by azure-identity: an authority and a managed identity's endpoint, local ones."""

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme
from aiohttp import web

from tests.integration.secrets.conftest import Serve
from trunkline_server.secrets.entra_identity import EntraIdentity
from trunkline_server.secrets.ports import (
    SecretRefusedError,
    SecretUnavailableError,
    SecretValue,
)
from trunkline_server.secrets.threads import BlockingPool

WHAT = "providers.azure.auth.entra"
TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "99999999-8888-7777-6666-555555555555"
SCOPE = "https://cognitiveservices.azure.com/.default"


@dataclass
class Entra:
    """An authority, and App Service's endpoint of managed identities."""

    origin: str = ""
    forms: list[dict[str, str]] = field(default_factory=list)
    managed: list[tuple[Mapping[str, str], Mapping[str, str]]] = field(default_factory=list)
    error: tuple[int, str] | None = None
    issued: int = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{tenant}/v2.0/.well-known/openid-configuration", self.discovery)
        app.router.add_post("/{tenant}/oauth2/v2.0/token", self.token)
        app.router.add_get("/msi/token", self.managed_token)
        return app

    async def discovery(self, request: web.Request) -> web.Response:
        base = f"{self.origin}/{request.match_info['tenant']}"
        return web.json_response(
            {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            }
        )

    async def token(self, request: web.Request) -> web.Response:
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        if self.error is not None:
            status, code = self.error
            told = {"error": "invalid_client", "error_description": f"{code}: it quotes the-secret"}
            return web.json_response(told, status=status)
        return web.json_response(self._issue())

    async def managed_token(self, request: web.Request) -> web.Response:
        self.managed.append((dict(request.headers), dict(request.query)))
        if self.error is not None:
            return web.json_response({"message": "no"}, status=self.error[0])
        issued = self._issue()
        issued["expires_on"] = str(round(time.time()) + issued.pop("expires_in"))
        return web.json_response(issued)

    def _issue(self) -> dict[str, Any]:
        self.issued += 1
        token = f"entra-token-{self.issued}"
        return {"token_type": "Bearer", "expires_in": 3599, "access_token": token}


@pytest.fixture
async def entra(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entra:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    made = Entra()
    made.origin = await serve(made.app(), tls)
    # As operators do who have a certificate authority of their own.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "AZURE_CLIENT_ID"):
        monkeypatch.delenv(name, raising=False)
    return made


def principal(entra: Entra, **more: Any) -> EntraIdentity:
    return EntraIdentity(SCOPE, TENANT, CLIENT, authority=entra.origin, **more)


async def fetched(pool: BlockingPool, identity: EntraIdentity) -> SecretValue:
    return await pool.run(WHAT, partial(identity.fetch, WHAT, pool.timeout))


async def test_a_service_principals_secret(entra: Entra, pool: BlockingPool) -> None:
    identity = principal(entra, client_secret="the-secret")
    before = time.time()
    value = await fetched(pool, identity)
    assert value.value == "entra-token-1"
    assert value.expires == pytest.approx(before + 3599, abs=30)
    assert value.version == f"until-{value.expires:.0f}"
    (form,) = entra.forms
    assert form["grant_type"] == "client_credentials"
    assert (form["client_id"], form["client_secret"]) == (CLIENT, "the-secret")
    assert form["scope"] == SCOPE
    # Each fetch gives a new token, though the one before is still good.
    assert (await fetched(pool, identity)).value == "entra-token-2"


async def test_a_service_principals_certificate(entra: Entra, pool: BlockingPool) -> None:
    issuer = trustme.CA(key_type=trustme.KeyType.RSA)
    issued = issuer.issue_cert("router", key_type=trustme.KeyType.RSA)
    pem = issued.private_key_and_cert_chain_pem.bytes().decode()
    value = await fetched(pool, principal(entra, client_certificate=pem))
    assert value.value == "entra-token-1"
    (form,) = entra.forms
    claims = jwt.decode(form["client_assertion"], options={"verify_signature": False})
    assert (claims["iss"], claims["sub"]) == (CLIENT, CLIENT)
    assert claims["aud"] == f"{entra.origin}/{TENANT}/oauth2/v2.0/token"
    with pytest.raises(SecretRefusedError, match=f"{WHAT}: .* the certificate is malformed"):
        await fetched(pool, principal(entra, client_certificate="no certificate"))


async def test_a_workload_identitys_token_is_read_at_each_fetch(
    entra: Entra, pool: BlockingPool, tmp_path: Path
) -> None:
    file = tmp_path / "federated"
    identity = principal(entra, federated_token_file=file)
    with pytest.raises(SecretUnavailableError, match="federated cannot be read"):
        await fetched(pool, identity)
    for token in ("ey.first", "ey.second"):
        file.write_text(token)
        await fetched(pool, identity)
        assert entra.forms[-1]["client_assertion"] == token
        assert entra.forms[-1]["client_id"] == CLIENT


async def test_a_managed_identity(
    entra: Entra, pool: BlockingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{entra.origin}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header-secret")
    value = await fetched(pool, EntraIdentity(SCOPE))
    assert value.value == "entra-token-1"
    assert value.expires is not None
    headers, query = entra.managed[0]
    assert headers["X-IDENTITY-HEADER"] == "header-secret"
    assert query["resource"] == SCOPE.removesuffix("/.default")
    assert "client_id" not in query
    assert (await fetched(pool, EntraIdentity(SCOPE, client_id=CLIENT))).value == "entra-token-2"
    assert entra.managed[1][1]["client_id"] == CLIENT


async def test_errors_are_told_apart(entra: Entra, pool: BlockingPool) -> None:
    identity = principal(entra, client_secret="the-secret")
    entra.error = (401, "AADSTS7000215")
    with pytest.raises(SecretRefusedError) as refused:
        await fetched(pool, identity)
    assert refused.value.message == f"{WHAT}: Entra refuses: AADSTS7000215"
    entra.error = (400, "AADSTS90033")
    with pytest.raises(SecretUnavailableError, match="Entra fails: AADSTS90033"):
        await fetched(pool, identity)
    away = replace(identity, authority="https://127.0.0.1:1")
    with pytest.raises(SecretUnavailableError, match=f"{WHAT}: Entra"):
        await fetched(pool, away)
    with pytest.raises(SecretRefusedError, match="the tenant, the authority or"):
        await fetched(pool, replace(identity, tenant_id="no/tenant"))


def test_no_repr_shows_a_secret() -> None:
    shown = repr(EntraIdentity(SCOPE, client_secret="the-secret", client_certificate="the-key"))
    assert "the-" not in shown
