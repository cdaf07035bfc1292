"""Keys for AWS by botocore: given, of a profile, of a role, of an instance, against local endpoints
of STS's query protocol and of the instance metadata service."""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from botocore.credentials import RefreshableCredentials

from tests.integration.secrets.conftest import Serve
from trunkline_server.secrets.aws_identity import AwsIdentity
from trunkline_server.secrets.ports import (
    SecretRefusedError,
    SecretUnavailableError,
    SecretValue,
)
from trunkline_server.secrets.threads import BlockingPool

WHAT = "providers.bedrock.auth.aws"
ROLE = "arn:aws:iam::210987654321:role/llm"
EXPIRES = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
STATIC = AwsIdentity("eu-west-1", access_key="AKIDEXAMPLE", secret_key="secret-key")


@dataclass
class Cloud:
    """STS at `/`, an instance's metadata at `/latest`, a container's keys at `/container`."""

    url: str = ""
    asked: list[tuple[Mapping[str, str], dict[str, str]]] = field(default_factory=list)
    error: tuple[int, str] | None = None
    role: str = "llm"

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/", self.sts)
        app.router.add_put("/latest/api/token", self.token)
        app.router.add_get("/latest/meta-data/iam/security-credentials/", self.name)
        app.router.add_get("/latest/meta-data/iam/security-credentials/{role}", self.instance)
        app.router.add_get("/container", self.container)
        return app

    async def sts(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append((dict(request.headers), form))
        if self.error is not None:
            status, code = self.error
            error = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
            text = f"<ErrorResponse>{error}</ErrorResponse>"
            return web.Response(status=status, text=text, content_type="text/xml")
        action = form["Action"]
        text = (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>'
            f"<Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>role-secret"
            f"</SecretAccessKey><SessionToken>role-token</SessionToken><Expiration>"
            f"{EXPIRES:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials></{action}Result>"
            f"</{action}Response>"
        )
        return web.Response(text=text, content_type="text/xml")

    async def token(self, request: web.Request) -> web.Response:
        return web.Response(text="imds-v2-token")

    async def name(self, request: web.Request) -> web.Response:
        assert request.headers["x-aws-ec2-metadata-token"] == "imds-v2-token"
        return web.Response(text=self.role) if self.role else web.Response(status=404)

    async def instance(self, request: web.Request) -> web.Response:
        return web.Response(text=self._keys("ASIAINSTANCE", {"Code": "Success"}))

    async def container(self, request: web.Request) -> web.Response:
        return web.json_response(orjson.loads(self._keys("ASIACONTAINER", {})))

    @staticmethod
    def _keys(access: str, more: dict[str, Any]) -> str:
        keys = {
            "AccessKeyId": access,
            "SecretAccessKey": "machine-secret",
            "Token": "machine-token",
            "Expiration": f"{EXPIRES:%Y-%m-%dT%H:%M:%SZ}",
        }
        return orjson.dumps({**keys, **more}).decode()


Fetch = Callable[..., Any]


@pytest.fixture
async def cloud(serve: Serve) -> Cloud:
    made = Cloud()
    made.url = await serve(made.app())
    return made


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any identity."""
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_ROLE_ARN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


async def fetched(pool: BlockingPool, identity: AwsIdentity) -> SecretValue:
    return await pool.run(WHAT, partial(identity.fetch, WHAT, pool.timeout))


def keys(value: SecretValue) -> list[str]:
    found: list[str] = orjson.loads(value.value)
    return found


async def test_keys_that_were_given_have_no_end(pool: BlockingPool) -> None:
    value = await fetched(pool, STATIC)
    assert keys(value) == ["AKIDEXAMPLE", "secret-key", ""]
    assert (value.version, value.expires) == ("AKIDEXAMPLE", None)
    temporary = AwsIdentity("eu-west-1", "AKIDEXAMPLE", "secret-key", session_token="token")
    assert keys(await fetched(pool, temporary))[2] == "token"


async def test_a_profile_is_read_anew_each_time(pool: BlockingPool, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    for secret in ("first", "second"):
        file.write_text(
            f"[llm]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = {secret}\n"
        )
        found = await fetched(pool, AwsIdentity("eu-west-1", profile="llm"))
        assert keys(found) == ["AKIDPROFILE", secret, ""]
    with pytest.raises(SecretRefusedError, match=f"{WHAT}: the profile 'nobody' is not"):
        await fetched(pool, AwsIdentity("eu-west-1", profile="nobody"))


async def test_another_accounts_role_is_assumed(cloud: Cloud, pool: BlockingPool) -> None:
    identity = AwsIdentity(
        "eu-west-1",
        access_key="AKIDEXAMPLE",
        secret_key="secret-key",
        role_arn=ROLE,
        external_id="shared-with-them",
        duration=1800.0,
        sts_url=cloud.url,
    )
    value = await fetched(pool, identity)
    assert keys(value) == ["ASIAROLE", "role-secret", "role-token"]
    assert value.expires == EXPIRES.timestamp()
    ((headers, form),) = cloud.asked
    assert form["Action"] == "AssumeRole"
    assert form["RoleArn"] == ROLE
    assert form["ExternalId"] == "shared-with-them"
    assert form["RoleSessionName"] == "trunkline"
    assert form["DurationSeconds"] == "1800"
    assert "Credential=AKIDEXAMPLE/" in headers["Authorization"]
    assert "/eu-west-1/sts/aws4_request" in headers["Authorization"]


async def test_a_profiles_identity_assumes_a_role(
    cloud: Cloud, pool: BlockingPool, tmp_path: Path
) -> None:
    (tmp_path / "credentials").write_text(
        "[base]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = secret\n"
    )
    identity = AwsIdentity("eu-west-1", profile="base", role_arn=ROLE, sts_url=cloud.url)
    assert keys(await fetched(pool, identity))[0] == "ASIAROLE"
    ((headers, form),) = cloud.asked
    assert "Credential=AKIDPROFILE/" in headers["Authorization"]
    assert "ExternalId" not in form


async def test_a_web_identitys_token_is_read_at_each_fetch(
    cloud: Cloud, pool: BlockingPool, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    identity = AwsIdentity(
        "eu-west-1", role_arn=ROLE, web_identity_token_file=file, sts_url=cloud.url
    )
    with pytest.raises(SecretUnavailableError, match="token cannot be read: FileNotFoundError"):
        await fetched(pool, identity)
    for token in ("ey.first", "ey.second"):
        file.write_text(token + "\n")
        assert keys(await fetched(pool, identity))[0] == "ASIAROLE"
        headers, form = cloud.asked[-1]
        assert (form["Action"], form["WebIdentityToken"]) == ("AssumeRoleWithWebIdentity", token)
        assert "Authorization" not in headers


async def test_the_environments_web_identity(
    cloud: Cloud, pool: BlockingPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("ey.cluster")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", cloud.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    value = await fetched(pool, AwsIdentity("eu-west-1"))
    assert keys(value)[0] == "ASIAROLE"
    assert value.expires == EXPIRES.timestamp()
    assert cloud.asked[0][1]["WebIdentityToken"] == "ey.cluster"


async def test_an_instances_and_a_containers_role(
    cloud: Cloud, pool: BlockingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", cloud.url)
    value = await fetched(pool, AwsIdentity("eu-west-1"))
    assert keys(value) == ["ASIAINSTANCE", "machine-secret", "machine-token"]
    # botocore tells of an end in one place alone; were it to go, renewals would come too late.
    assert value.expires == EXPIRES.timestamp()
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{cloud.url}/container")
    value = await fetched(pool, AwsIdentity("eu-west-1"))
    assert (keys(value)[0], value.expires) == ("ASIACONTAINER", EXPIRES.timestamp())
    # Such an identity, too, assumes another account's role.
    far = AwsIdentity("eu-west-1", role_arn=ROLE, external_id="shared", sts_url=cloud.url)
    assert keys(await fetched(pool, far))[0] == "ASIAROLE"
    assert cloud.asked[-1][0]["X-Amz-Security-Token"] == "machine-token"


async def test_a_machine_without_an_identity_is_told(
    cloud: Cloud, pool: BlockingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for identity in (AwsIdentity("eu-west-1"), AwsIdentity("eu-west-1", role_arn=ROLE)):
        with pytest.raises(SecretRefusedError, match=f"{WHAT}: AWS finds no identity .* set acc"):
            await fetched(pool, identity)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", cloud.url)
    cloud.role = ""
    with pytest.raises(SecretRefusedError, match="finds no identity"):
        await fetched(pool, AwsIdentity("eu-west-1"))


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        ((403, "AccessDenied"), SecretRefusedError, "AWS refuses: AccessDenied"),
        ((400, "ValidationError"), SecretRefusedError, "AWS refuses: ValidationError"),
        ((400, "Throttling"), SecretUnavailableError, "AWS fails: Throttling"),
        ((500, "InternalFailure"), SecretUnavailableError, "AWS fails: InternalFailure"),
    ],
)
async def test_errors_of_sts_are_told_apart(
    cloud: Cloud,
    pool: BlockingPool,
    error: tuple[int, str],
    kind: type[Exception],
    told: str,
) -> None:
    cloud.error = error
    identity = AwsIdentity(
        "eu-west-1",
        access_key="AKIDEXAMPLE",
        secret_key="secret-key",
        role_arn=ROLE,
        sts_url=cloud.url,
    )
    with pytest.raises(kind, match=f"{WHAT}: {told}"):
        await fetched(pool, identity)
    # Retries are the keeper's.
    assert len(cloud.asked) == 1


async def test_an_endpoint_that_is_not_there_is_away(pool: BlockingPool) -> None:
    identity = AwsIdentity(
        "eu-west-1",
        access_key="AKIDEXAMPLE",
        secret_key="secret-key",
        role_arn=ROLE,
        sts_url="http://127.0.0.1:1",
    )
    with pytest.raises(SecretUnavailableError, match="AWS cannot be reached"):
        await fetched(pool, identity)


def test_no_repr_shows_a_secret() -> None:
    assert "secret-key" not in repr(STATIC)
    assert hasattr(RefreshableCredentials("a", "b", "c", EXPIRES, dict, "x"), "_expiry_time")
