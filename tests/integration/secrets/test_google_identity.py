"""Access tokens of Google Cloud by google-auth, against local endpoints: OAuth's token endpoint,
the exchange of workload identities, IAM's impersonation, an instance's metadata."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import google.auth.iam
import jwt
import orjson
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.auth.compute_engine import _metadata

from tests.integration.secrets.conftest import Serve
from trunkline_server.secrets.google_identity import GoogleIdentity
from trunkline_server.secrets.ports import (
    SecretRefusedError,
    SecretUnavailableError,
    SecretValue,
)
from trunkline_server.secrets.threads import BlockingPool

WHAT = "providers.vertex.auth.google"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TARGET = "llm@project.iam.gserviceaccount.com"
POOL = "workloadIdentityPools/p/providers/q"

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@dataclass
class Google:
    """The endpoints; `forms` are what the token endpoints were sent."""

    url: str = ""
    forms: list[dict[str, str]] = field(default_factory=list)
    impersonated: list[tuple[Mapping[str, str], dict[str, Any]]] = field(default_factory=list)
    error: tuple[int, dict[str, Any]] | None = None
    issued: int = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/token", self.token)
        app.router.add_post("/sts/token", self.exchange)
        app.router.add_post("/impersonate/{account}:generateAccessToken", self.impersonate)
        app.router.add_get("/", self.ping)
        app.router.add_get("/computeMetadata/v1/{rest:.*}", self.metadata)
        return app

    def _issue(self) -> str:
        self.issued += 1
        return f"ya29.token-{self.issued}"

    async def token(self, request: web.Request) -> web.Response:
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        if self.error is not None:
            return web.json_response(self.error[1], status=self.error[0])
        return web.json_response(
            {"access_token": self._issue(), "expires_in": 3599, "token_type": "Bearer"}
        )

    async def exchange(self, request: web.Request) -> web.Response:
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        return web.json_response(
            {
                "access_token": self._issue(),
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "token_type": "Bearer",
                "expires_in": 3599,
            }
        )

    async def impersonate(self, request: web.Request) -> web.Response:
        assert request.match_info["account"] == TARGET
        self.impersonated.append((request.headers, await request.json()))
        return web.json_response(
            {"accessToken": self._issue(), "expireTime": "2099-01-01T00:00:00Z"}
        )

    async def ping(self, request: web.Request) -> web.Response:
        return web.Response(headers={"Metadata-Flavor": "Google"})

    async def metadata(self, request: web.Request) -> web.Response:
        rest = request.match_info["rest"]
        told: Any = {
            "project/project-id": "project",
            "universe/universe-domain": "googleapis.com",
        }.get(rest)
        if rest.startswith("instance/service-accounts/default"):
            told = {"email": TARGET, "scopes": [SCOPE], "aliases": ["default"]}
            if rest.endswith("/token"):
                told = {
                    "access_token": self._issue(),
                    "expires_in": 3599,
                    "token_type": "Bearer",
                }
        headers = {"Metadata-Flavor": "Google"}
        if isinstance(told, dict):
            return web.json_response(told, headers=headers)
        return web.Response(text=told or "", headers=headers, status=200 if told else 404)


@pytest.fixture
async def cloud(serve: Serve) -> Google:
    made = Google()
    made.url = await serve(made.app())
    return made


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any identity."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def service_account(cloud: Google) -> str:
    key = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "k-1",
        "private_key": PEM,
        "client_email": "router@project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": f"{cloud.url}/token",
    }
    return orjson.dumps(key).decode()


def federation(cloud: Google, file: Path, **more: Any) -> str:
    configuration = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/" + POOL,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{cloud.url}/sts/token",
        "credential_source": {"file": str(file)},
        **more,
    }
    return orjson.dumps(configuration).decode()


async def fetched(pool: BlockingPool, identity: GoogleIdentity) -> SecretValue:
    return await pool.run(WHAT, partial(identity.fetch, WHAT, pool.timeout))


async def test_a_service_accounts_key(cloud: Google, pool: BlockingPool) -> None:
    identity = GoogleIdentity((SCOPE,), service_account(cloud))
    before = time.time()
    value = await fetched(pool, identity)
    assert value.value == "ya29.token-1"
    assert value.expires == pytest.approx(before + 3599, abs=30)
    (form,) = cloud.forms
    audience = "https://oauth2.googleapis.com/token"
    claims = jwt.decode(form["assertion"], KEY.public_key(), ["RS256"], audience=audience)
    assert claims["iss"] == "router@project.iam.gserviceaccount.com"
    assert claims["scope"] == SCOPE
    assert (await fetched(pool, identity)).value == "ya29.token-2"


async def test_application_default_credentials(
    cloud: Google, pool: BlockingPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SecretRefusedError, match=f"{WHAT}: Google finds no .* set credentials"):
        await fetched(pool, GoogleIdentity((SCOPE,)))
    file = tmp_path / "adc.json"
    file.write_text(service_account(cloud))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    assert (await fetched(pool, GoogleIdentity((SCOPE,)))).value == "ya29.token-1"


async def test_an_instances_service_account(
    cloud: Google, pool: BlockingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The library reads where its metadata is when it is imported.
    host = cloud.url.removeprefix("http://")
    monkeypatch.delenv("NO_GCE_CHECK")
    monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", host)
    monkeypatch.setenv("GCE_METADATA_IP", host)
    value = await fetched(pool, GoogleIdentity((SCOPE,)))
    assert value.value == "ya29.token-1"
    assert value.expires is not None


async def test_workload_identity_federation(
    cloud: Google, pool: BlockingPool, tmp_path: Path
) -> None:
    file = tmp_path / "subject"
    identity = GoogleIdentity((SCOPE,), federation(cloud, file))
    for token in ("ey.first", "ey.second"):
        file.write_text(token)
        await fetched(pool, identity)
        assert cloud.forms[-1]["subject_token"] == token
        assert cloud.forms[-1]["scope"] == SCOPE
    url = f"{cloud.url}/impersonate/{TARGET}:generateAccessToken"
    document = federation(cloud, file, service_account_impersonation_url=url)
    value = await fetched(pool, GoogleIdentity((SCOPE,), document))
    assert value.value == f"ya29.token-{cloud.issued}"
    ((headers, body),) = cloud.impersonated
    assert headers["authorization"] == f"Bearer ya29.token-{cloud.issued - 1}"
    assert body["scope"] == [SCOPE]


async def test_impersonation(
    cloud: Google, pool: BlockingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The address of IAM is fixed in the library.
    endpoint = f"{cloud.url}/impersonate/{{}}:generateAccessToken"
    monkeypatch.setattr(google.auth.iam, "_IAM_ENDPOINT", endpoint)
    identity = GoogleIdentity((SCOPE,), service_account(cloud), TARGET)
    value = await fetched(pool, identity)
    assert value.value == "ya29.token-2"
    assert value.expires == 4_070_908_800.0
    ((headers, body),) = cloud.impersonated
    assert headers["authorization"] == "Bearer ya29.token-1"
    assert body["scope"] == [SCOPE]


async def test_errors_are_told_apart(cloud: Google, pool: BlockingPool) -> None:
    identity = GoogleIdentity((SCOPE,), service_account(cloud))
    cloud.error = (400, {"error": "invalid_grant", "error_description": "it quotes the key"})
    with pytest.raises(SecretRefusedError) as refused:
        await fetched(pool, identity)
    assert refused.value.message == f"{WHAT}: Google refuses: invalid_grant"
    away = service_account(Google(url="http://127.0.0.1:1"))
    with pytest.raises(SecretUnavailableError, match="Google cannot be reached: TransportError"):
        await fetched(pool, GoogleIdentity((SCOPE,), away))


@pytest.mark.parametrize(
    "document", ["no JSON", "[]", '{"type": "service_account"}', '{"type": "other"}']
)
async def test_malformed_credentials_are_refused(pool: BlockingPool, document: str) -> None:
    with pytest.raises(SecretRefusedError, match=f"{WHAT}: the credentials are"):
        await fetched(pool, GoogleIdentity((SCOPE,), document))


def test_no_repr_shows_a_secret() -> None:
    assert "PRIVATE" not in repr(GoogleIdentity((SCOPE,), PEM))
