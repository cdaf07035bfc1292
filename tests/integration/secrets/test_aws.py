"""AWS Secrets Manager by boto3, against its JSON 1.1 protocol at a local endpoint."""

import base64
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.integration.secrets.conftest import Serve
from trunkline_server.secrets.cloud import AwsSettings, AwsSource
from trunkline_server.secrets.ports import (
    SecretRefusedError,
    SecretUnavailableError,
    SecretValue,
)
from trunkline_server.secrets.threads import BlockingPool

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:openai-AbCdEf"


class SecretsManager:
    """GetSecretValue as the API reference has it."""

    def __init__(self) -> None:
        self.requests: list[tuple[Mapping[str, str], Any]] = []
        self.error: tuple[int, str] | None = None
        self.secrets: dict[str, dict[str, str]] = {
            "openai": {"SecretString": '{"key": "sk-1"}'},
            ARN: {"SecretString": "plain"},
            "binary": {"SecretBinary": base64.b64encode(b"bytes").decode()},
            "no-text": {"SecretBinary": base64.b64encode(b"\xff\xfe").decode()},
        }

    async def handle(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        self.requests.append((dict(request.headers), body))
        kind = "application/x-amz-json-1.1"
        secret = self.secrets.get(body["SecretId"])
        status, code = self.error or (400, "ResourceNotFoundException")
        if self.error or secret is None:
            reply = {"__type": code, "message": "it is so"}
            return web.json_response(reply, status=status, content_type=kind)
        found = {"ARN": ARN, "Name": body["SecretId"], "VersionId": "v-1", **secret}
        return web.json_response(found, content_type=kind)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret-key",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)


async def started(serve: Serve, pool: BlockingPool) -> tuple[SecretsManager, AwsSource]:
    manager = SecretsManager()
    app = web.Application()
    app.router.add_post("/", manager.handle)
    url = await serve(app)
    return manager, AwsSource(AwsSettings("us-east-1", url), pool)


async def test_secrets_by_name_by_arn_and_as_bytes(serve: Serve, pool: BlockingPool) -> None:
    manager, source = await started(serve, pool)
    assert await source.fetch("aws:openai#key") == SecretValue("sk-1", "v-1")
    assert (await source.fetch(f"aws:{ARN}")).value == "plain"
    assert (await source.fetch("aws:binary")).value == "bytes"
    headers, body = manager.requests[0]
    assert body == {"SecretId": "openai"}
    assert headers["X-Amz-Target"] == "secretsmanager.GetSecretValue"
    assert "/us-east-1/secretsmanager/aws4_request" in headers["Authorization"]
    # The region of an ARN is the one that is asked.
    assert "/eu-west-1/secretsmanager/aws4_request" in manager.requests[1][0]["Authorization"]


@pytest.mark.parametrize("name", ["nobody", "no-text", "openai#no"])
async def test_what_is_not_there_is_refused(serve: Serve, pool: BlockingPool, name: str) -> None:
    _, source = await started(serve, pool)
    with pytest.raises(SecretRefusedError):
        await source.fetch(f"aws:{name}")


async def test_errors_are_told_apart(serve: Serve, pool: BlockingPool) -> None:
    manager, source = await started(serve, pool)
    manager.error = (400, "AccessDeniedException")
    with pytest.raises(SecretRefusedError, match="AccessDenied"):
        await source.fetch("aws:openai")
    for error in ((500, "InternalServiceError"), (400, "ThrottlingException")):
        manager.error = error
        before = len(manager.requests)
        with pytest.raises(SecretUnavailableError, match=error[1]):
            await source.fetch("aws:openai")
        # Retries are the refresher's.
        assert len(manager.requests) == before + 1


async def test_an_endpoint_that_is_not_there_is_away(pool: BlockingPool) -> None:
    source = AwsSource(AwsSettings("us-east-1", "http://127.0.0.1:1"), pool)
    with pytest.raises(SecretUnavailableError, match="cannot be reached"):
        await source.fetch("aws:openai")


async def test_missing_credentials_are_told(
    serve: Serve, pool: BlockingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, source = await started(serve, pool)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SecretRefusedError, match="not set up"):
        await source.fetch("aws:openai")
