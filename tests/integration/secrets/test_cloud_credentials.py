"""Identities of clouds on their way to a vendor: a whole router, the clouds' own libraries against
local endpoints, and a vendor that checks what it is sent."""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import grpc
import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials

from tests.integration.secrets.conftest import Serve
from tests.integration.secrets.test_aws_identity import ROLE, Cloud
from tests.integration.secrets.test_google_identity import Google, service_account
from tests.integration.secrets.test_wired_managers import until
from tests.support.key_vendor import KeyVendor, key_vendor, served
from tests.support.replica import replica, settings_of
from tests.support.router import PATIENCE, ask, reason
from trunkline import v1
from trunkline_server.settings import ConfigError
from trunkline_server.simulator.app import Simulator

CONFIG = """\
providers:
  vendor:
    kind: openai
    base_url: "{vendor}/v1"
    region: eu-west-1
    auth: {auth}
  other:
    kind: openai
    base_url: "{other}/v1"
    api_key: env:OTHER_KEY
deployments:
  - {{name: d, provider: vendor, model: gpt-test, capabilities: [chat, streaming]}}
  - {{name: e, provider: other, model: gpt-test, capabilities: [chat, streaming], priority: 1}}
models:
  large: {{deployments: [d], attempts: {{retries: 0}}}}
  small: {{deployments: [e], attempts: {{retries: 0}}}}
routes:
  both: {{deployments: [d, e], strategy: priority}}
secrets: {{retry: 100ms, on_missing: {missing}}}
"""
ENV = {"OTHER_KEY": "sk-other", "ID": "AKIDEXAMPLE", "SECRET": "secret-key"}
STATIC = "{aws: {access_key_id: env:ID, secret_access_key: env:SECRET}}"


@dataclass
class AwsVendor(KeyVendor):
    """Counts requests under their access keys, if botocore signs them likewise under the secret
    that belongs there: `secrets`, with session tokens, by access key."""

    secrets: dict[str, tuple[str, str]] = field(default_factory=dict)

    async def key(self, request: web.Request) -> str:
        given = request.headers["authorization"]
        access = given.partition("Credential=")[2].partition("/")[0]
        secret, token = self.secrets.get(access, ("", ""))
        names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        headers = {name: request.headers[name] for name in names if name != "x-amz-date"}
        if token != headers.pop("x-amz-security-token", ""):
            return "wrong token"
        body = await request.read()
        again = AWSRequest(request.method, str(request.url), headers, body)
        moment = dt.datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ")  # noqa: DTZ007 - as botocore has it
        with mock.patch("botocore.auth.get_current_datetime", return_value=moment):
            credentials = BotocoreCredentials(access, secret, token or None)
            SigV4Auth(credentials, "bedrock", "eu-west-1").add_auth(again)
        return access if again.headers["Authorization"] == given else "wrong signature"


@pytest.fixture
async def vendor() -> AsyncGenerator[AwsVendor]:
    made = AwsVendor({"AKIDEXAMPLE"}, secrets={"AKIDEXAMPLE": ("secret-key", "")})
    async with served(made):
        yield made


@pytest.fixture
async def other() -> AsyncGenerator[KeyVendor]:
    async with key_vendor("sk-other") as made:
        yield made


@pytest.fixture
async def cloud(serve: Serve) -> Cloud:
    made = Cloud()
    made.url = await serve(made.app())
    return made


def config(vendor: KeyVendor, other: KeyVendor, auth: str = STATIC, missing: str = "fail") -> str:
    return CONFIG.format(vendor=vendor.url, other=other.url, auth=auth, missing=missing)


def role(cloud: Cloud) -> str:
    keys = STATIC.removeprefix("{aws: {").removesuffix("}}")
    more = f'role_arn: "{ROLE}", external_id: shared, sts_url: "{cloud.url}"'
    return f"{{aws: {{{keys}, {more}}}}}"


async def test_requests_are_signed_as_botocore_signs(vendor: AwsVendor, other: KeyVendor) -> None:
    async with replica(config(vendor, other), ENV) as router:
        answer = await router.stub.Generate(ask(), timeout=PATIENCE)
        assert answer.message.parts[0].text == "hello"
        events = [each async for each in router.stub.StreamGenerate(ask(), timeout=PATIENCE)]
        assert events[-1].HasField("end")
    assert vendor.answered == {"AKIDEXAMPLE": 2}
    assert not vendor.refused


async def test_new_keys_are_tried_and_then_signed_with(vendor: AwsVendor, other: KeyVendor) -> None:
    async with replica(config(vendor, other), ENV) as router:
        await router.stub.Generate(ask(), timeout=PATIENCE)
        wrong = {**ENV, "ID": "AKIDNEW", "SECRET": "another"}
        router.worker.reload(settings_of(config(vendor, other), wrong))
        await until(lambda: vendor.tried["wrong signature"] > 1)
        await router.stub.Generate(ask(), timeout=PATIENCE)
        assert vendor.answered == {"AKIDEXAMPLE": 2}
        vendor.keys.add("AKIDNEW")
        vendor.secrets["AKIDNEW"] = ("another", "")
        await until(lambda: bool(vendor.tried["AKIDNEW"]))
        async with asyncio.timeout(PATIENCE):
            while not vendor.answered["AKIDNEW"]:
                await router.stub.Generate(ask(), timeout=PATIENCE)
    assert not vendor.refused


async def test_another_accounts_role_signs(
    vendor: AwsVendor, other: KeyVendor, cloud: Cloud
) -> None:
    vendor.keys = {"ASIAROLE"}
    vendor.secrets = {"ASIAROLE": ("role-secret", "role-token")}
    async with replica(config(vendor, other, role(cloud)), ENV) as router:
        await router.stub.Generate(ask(), timeout=PATIENCE)
    assert vendor.answered == {"ASIAROLE": 1}
    assert cloud.asked[0][1]["ExternalId"] == "shared"


async def test_without_a_credential_others_serve_and_callers_are_told(
    vendor: AwsVendor, other: KeyVendor, cloud: Cloud
) -> None:
    vendor.keys = {"ASIAROLE"}
    vendor.secrets = {"ASIAROLE": ("role-secret", "role-token")}
    cloud.error = (403, "AccessDenied")
    async with replica(config(vendor, other, role(cloud), "skip"), ENV) as router:
        answer = await router.stub.Generate(ask(model="route:both"), timeout=PATIENCE)
        assert [attempt.provider for attempt in answer.attempts] == ["vendor", "other"]
        assert answer.attempts[0].reason == v1.ERROR_REASON_AUTHENTICATION
        assert answer.attempts[0].http_status == 0
        with pytest.raises(grpc.RpcError) as failed:
            await router.stub.Generate(ask(), timeout=PATIENCE)
        assert reason(failed.value) == v1.ERROR_REASON_PROVIDER_CREDENTIALS
        assert isinstance(failed.value, grpc.aio.AioRpcError)
        assert failed.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert failed.value.details() == (
            "vendor: there is no valid credential for vendor: providers.vendor.auth.aws: AWS"
            " refuses: AccessDenied; mend providers.vendor.auth.aws, or what it names"
        )
        with pytest.raises(grpc.RpcError) as failed:
            _ = [each async for each in router.stub.StreamGenerate(ask(), timeout=PATIENCE)]
        assert reason(failed.value) == v1.ERROR_REASON_PROVIDER_CREDENTIALS
        # Nothing was learnt of the deployment, so it serves as soon as there is one.
        cloud.error = None
        async with asyncio.timeout(PATIENCE):
            while not vendor.answered:
                await router.stub.Generate(ask(model="route:both"), timeout=PATIENCE)
    assert vendor.answered == {"ASIAROLE": 1}
    assert not vendor.refused


async def test_a_start_says_what_it_lacks(
    vendor: AwsVendor, other: KeyVendor, cloud: Cloud
) -> None:
    cloud.error = (403, "AccessDenied")
    with pytest.raises(ConfigError, match=r"auth\.aws: AWS refuses: AccessDenied"):
        async with replica(config(vendor, other, role(cloud)), ENV):
            pass
    cloud.error = (500, "InternalFailure")
    with pytest.raises(OSError, match=r"vendor\.auth\.aws: AWS fails: InternalFailure"):
        async with replica(config(vendor, other, role(cloud)), ENV):
            pass


async def test_a_token_is_in_no_message(other: KeyVendor, serve: Serve, tmp_path: Path) -> None:
    google = Google()
    google.url = await serve(google.app())
    key = tmp_path / "key.json"
    key.write_text(service_account(google))
    auth = f'{{google: {{credentials: "file:{key}"}}}}'
    async with (
        key_vendor("ya29.token-1") as vendor,
        replica(config(vendor, other, auth), ENV) as router,
    ):
        await router.stub.Generate(ask(), timeout=PATIENCE)
        assert vendor.answered == {"ya29.token-1": 1}
        vendor.down = 500
        with pytest.raises(grpc.RpcError) as failed:
            await router.stub.Generate(ask(), timeout=PATIENCE)
        assert isinstance(failed.value, grpc.aio.AioRpcError)
        assert "no capacity for [redacted]" in (failed.value.details() or "")


BEDROCK = """\
providers:
  aws:
    kind: bedrock
    base_url: "{url}/bedrock"
    region: eu-central-1
    flags: {{family: claude}}
    auth:
      aws: {{access_key_id: env:ID, secret_access_key: env:SECRET, session_token: env:TOKEN}}
deployments:
  - {{name: d, provider: aws, model: sim-large}}
"""


async def test_the_simulated_bedrock_takes_the_signatures() -> None:
    """It computes each anew, as boto3 found in test_simulator_bedrock.py."""
    env = {"ID": "AKIDEXAMPLE", "SECRET": "simulated-secret", "TOKEN": "session"}
    async with Simulator() as sim:
        text = BEDROCK.format(url=sim.url)
        # A model's id with characters that are escaped in a path, and again in what is signed.
        arn = "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdef"
        async with replica(text, env) as router:
            for model in ("aws/sim-large", f"aws/{arn}"):
                answer = await router.stub.Generate(ask(model=model), timeout=PATIENCE)
                assert answer.message.parts[0].text
                call = router.stub.StreamGenerate(ask(model=model), timeout=PATIENCE)
                assert [each async for each in call][-1].HasField("end")
        async with replica(text, {**env, "SECRET": "wrong"}) as router:
            with pytest.raises(grpc.RpcError) as failed:
                await router.stub.Generate(ask(model="aws/sim-large"), timeout=PATIENCE)
        assert reason(failed.value) == v1.ERROR_REASON_PROVIDER_CREDENTIALS
        async with replica(text, {**env, "TOKEN": "expired"}) as router:
            with pytest.raises(grpc.RpcError) as failed:
                await router.stub.Generate(ask(model="aws/sim-large"), timeout=PATIENCE)
        assert reason(failed.value) == v1.ERROR_REASON_PROVIDER_CREDENTIALS
