"""The HTTP/JSON face: Envoy's transcoder before a real router, judged by the OpenAPI document."""

import asyncio
import base64
import json
import re
import ssl
import struct
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import jsonschema
import openai
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration.envoy.conftest import ADMIN_KEY, KEY, Front, fronted
from tests.support.envoy import DEPLOY
from tests.support.router import PATIENCE
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.contract.descriptors import services
from trunkline_server.contract.openapi import openapi

pytestmark = pytest.mark.asyncio(loop_scope="package")

ASKED = {
    "model": "large",
    "messages": [{"role": "ROLE_USER", "parts": [{"text": "Why is the sky blue?"}]}],
}


def conforms(value: Any, message: str) -> None:
    """Fails unless a body is what the OpenAPI document says."""
    schemas = openapi()["components"]["schemas"]
    root = {"$ref": f"#/components/schemas/{message}", "components": {"schemas": schemas}}
    jsonschema.Draft202012Validator(root).validate(value)


def details(status: Any) -> dict[str, Any]:
    """The details of a google.rpc.Status by their types."""
    conforms(status, "google.rpc.Status")
    return {each["@type"].rpartition("/")[2]: each for each in status["details"]}


@pytest.mark.parametrize("name", ["envoy.yaml", "envoy.mtls.yaml"])
async def test_envoy_accepts_the_configuration(
    name: str, envoy_home: Path, front: Front, tmp_path: Path
) -> None:
    envoy = front.envoy
    text = (DEPLOY / name).read_text("utf-8")
    path = tmp_path / "envoy.yaml"
    # As it stands but for where its files are.
    text = text.replace("/etc/trunkline/tls", str(envoy.directory))
    path.write_text(text.replace("/etc/trunkline", str(envoy.directory)))
    done = await asyncio.to_thread(
        subprocess.run,
        [str(envoy_home), "--mode", "validate", "-c", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


async def test_every_service_is_transcoded() -> None:
    for name in ("envoy.yaml", "envoy.mtls.yaml"):
        text = (DEPLOY / name).read_text("utf-8")
        listed = set(re.findall(r"- (trunkline\.\S+Service)$", text, re.MULTILINE))
        assert listed == {service.full_name for service in services()}


async def test_both_configurations_differ_in_certificates_alone() -> None:
    def tree(name: str) -> Any:
        return json.loads(json.dumps(yaml.safe_load((DEPLOY / name).read_text("utf-8"))))

    plain, mutual = tree("envoy.yaml"), tree("envoy.mtls.yaml")
    for cluster in mutual["static_resources"]["clusters"]:
        assert ("transport_socket" in cluster) == (cluster["name"] != "trunkline_ops")
        cluster.pop("transport_socket", None)
    (chain,) = mutual["static_resources"]["listeners"][0]["filter_chains"]
    shown = chain["transport_socket"]["typed_config"]
    assert shown.pop("require_client_certificate") is True
    assert shown["common_tls_context"].pop("validation_context")
    assert mutual == plain


async def test_a_call_in_one_piece(http: aiohttp.ClientSession) -> None:
    async with http.post("/api/v1/generate", json=ASKED) as answer:
        assert answer.status == 200
        body = await answer.json()
    conforms(body, "trunkline.v1.GenerateResponse")
    assert body["finish_reason"] == "FINISH_REASON_STOP"
    assert "Why is the sky blue?" in body["message"]["parts"][0]["text"]
    # 64-bit numbers are strings, as protobuf writes them.
    assert int(body["cost"]["total"]) > 0


async def test_the_edge_paths_are_the_same_methods(http: aiohttp.ClientSession) -> None:
    async with http.post("/api/v1/edge/execute", json=ASKED) as answer:
        assert (await answer.json())["deployment"] == "large"
    for path in ("/api/v1/route", "/api/v1/edge/route"):
        async with http.post(path, json={"model": "large", "input_tokens": 10}) as answer:
            body = await answer.json()
        conforms(body, "trunkline.v1.RouteResponse")
        assert body["decision"]["deployment"] == "large"


@pytest.mark.parametrize("events", [False, True])
async def test_a_stream(http: aiohttp.ClientSession, events: bool) -> None:
    accept = {"accept": "text/event-stream"} if events else {}
    async with http.post("/api/v1/generate/stream", json=ASKED, headers=accept) as answer:
        assert answer.status == 200
        text = (await answer.read()).decode()
    if events:
        pieces = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        assert all(line.startswith("data: ") for line in text.split("\n\n") if line)
    else:
        pieces = text.splitlines()
    rows = [json.loads(piece) for piece in pieces]
    for row in rows:
        conforms(row, "trunkline.v1.StreamGenerateResponse")
    assert list(rows[0]) == ["start"]
    assert list(rows[-1]) == ["end"]
    assert all(list(row) == ["delta"] for row in rows[1:-1])
    said = "".join(row["delta"].get("text", "") for row in rows[1:-1])
    assert "Why is the sky blue?" in said


class TestFailures:
    """Failures are google.rpc.Status in JSON, with their details."""

    async def test_without_a_key(self, http: aiohttp.ClientSession) -> None:
        headers = {"authorization": "Bearer tk_nobody"}
        for path in ("/api/v1/generate", "/api/v1/generate/stream"):
            async with http.post(path, json=ASKED, headers=headers) as answer:
                assert answer.status == 401
                found = details(await answer.json())
            assert found["google.rpc.ErrorInfo"]["reason"] == "ERROR_REASON_AUTHENTICATION"

    async def test_a_wrong_field(self, http: aiohttp.ClientSession) -> None:
        wrong = {**ASKED, "config": {"temperature": 7}}
        async with http.post("/api/v1/generate", json=wrong) as answer:
            assert answer.status == 400
            found = details(await answer.json())
        (violation,) = found["google.rpc.BadRequest"]["field_violations"]
        assert violation["field"] == "config.temperature"

    async def test_a_body_that_is_no_request(self, http: aiohttp.ClientSession) -> None:
        async with http.post("/api/v1/generate", json={"modle": "large"}) as answer:
            assert answer.status == 400
        async with http.post("/api/v1/generate", data=b"{") as answer:
            assert answer.status == 400

    async def test_a_vendor_that_fails(self, http: aiohttp.ClientSession) -> None:
        for model, status, reason in (
            ("sim/sim-error-503", 503, "ERROR_REASON_SERVICE_UNAVAILABLE"),
            ("sim/sim-error-quota", 429, "ERROR_REASON_QUOTA_EXCEEDED"),
            ("no-such", 404, "ERROR_REASON_MODEL_NOT_FOUND"),
        ):
            async with http.post("/api/v1/generate", json={**ASKED, "model": model}) as answer:
                assert answer.status == status
                found = details(await answer.json())
            assert found["google.rpc.ErrorInfo"]["reason"] == reason
            assert ("trunkline.v1.CallReport" in found) == (model != "no-such")

    async def test_a_stream_that_breaks_has_no_end(self, http: aiohttp.ClientSession) -> None:
        asked = {**ASKED, "model": "sim/sim-close-midstream"}
        async with http.post("/api/v1/generate/stream", json=asked) as answer:
            assert answer.status == 200
            try:
                rows = [json.loads(line) async for line in answer.content]
            except aiohttp.ClientPayloadError:
                # A connection that is cut says it too.
                return
        assert "start" in rows[0]
        assert not any("end" in row for row in rows)

    async def test_an_unknown_path(self, http: aiohttp.ClientSession) -> None:
        async with http.get("/api/v1/no/such") as answer:
            assert answer.status == 404
        async with http.get("/metrics") as answer:
            assert answer.status == 404


async def test_schemas(http: aiohttp.ClientSession) -> None:
    async with http.get("/api/v1/schemas") as answer:
        body = await answer.json()
    conforms(body, "trunkline.v1.ListSchemasResponse")
    assert [row["provider"] for row in body["providers"]] == ["sim"]
    async with http.get("/api/v1/schemas/sim") as answer:
        body = await answer.json()
    conforms(body, "trunkline.v1.GetProviderSchemaResponse")
    where = {row["field"]: row for row in body["schema"]["fields"]}
    assert where["config.max_output_tokens"]["vendor_fields"] == ["max_completion_tokens"]
    async with http.get("/api/v1/schemas/unified", params={"message": "Usage"}) as answer:
        schema = (await answer.json())["json_schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    asked = {"json": {"model": 7}, "message": "GenerateRequest"}
    async with http.post("/api/v1/validate", json=asked) as answer:
        assert answer.status == 200
        body = await answer.json()
    assert body["findings"] == [
        {"field": "model", "description": "must be a string", "severity": "FINDING_SEVERITY_ERROR"}
    ]


async def test_the_control_plane(http: aiohttp.ClientSession) -> None:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    path = "/api/v1/config/tenants"
    async with http.post(path, json={"name": "acme"}, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        etag = (await answer.json())["tenant"]["etag"]
    async with http.post(path, json={"name": "acme"}, headers=headers) as answer:
        assert answer.status == 409
        found = details(await answer.json())
        assert found["google.rpc.ErrorInfo"]["reason"] == "ERROR_REASON_ALREADY_EXISTS"
    changes = {"suspended": True, "etag": etag}
    async with http.patch(
        f"{path}/acme", json=changes, params={"update_mask": "suspended"}, headers=headers
    ) as answer:
        assert answer.status == 200, await answer.text()
        assert (await answer.json())["tenant"]["suspended"] is True
    async with http.get(path, params={"prefix": "ac"}, headers=headers) as answer:
        assert [row["name"] for row in (await answer.json())["tenants"]] == ["acme"]
    async with http.get("/api/v1/governance/audit/log", headers=headers) as answer:
        body = await answer.json()
        conforms(body, "trunkline.admin.v1.ListAuditEntriesResponse")
    actions = [row["action"] for row in body["entries"]]
    assert "admin.tenants.create" in actions
    async with http.delete(f"{path}/acme", headers=headers) as answer:
        assert answer.status == 200
    async with http.get(f"{path}/acme", headers=headers) as answer:
        assert answer.status == 404
    # A caller's key opens no control plane.
    async with http.get(path) as answer:
        assert answer.status in {401, 403}


async def test_grpc_passes_and_health_is_told(front: Front) -> None:
    credentials = grpc.ssl_channel_credentials(front.authority.certificate)
    async with grpc.aio.secure_channel(front.envoy.address, credentials) as channel:
        stub = InferenceServiceStub(channel)
        request = v1.GenerateRequest(model="large")
        request.messages.add(role=v1.ROLE_USER).parts.add(text="Hello")
        metadata = (("authorization", f"Bearer {KEY}"),)
        answer = await stub.Generate(request, metadata=metadata, timeout=PATIENCE)
        assert answer.deployment == "large"
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Generate(request, timeout=PATIENCE)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        health = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service="trunkline.v1.SchemaService")
        told = await health.Check(asked, timeout=PATIENCE)
        assert told.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("text", [False, True])
async def test_grpc_web(http: aiohttp.ClientSession, text: bool) -> None:
    """As browsers speak it: frames with a flag and a length, the last holding the trailers."""
    request = v1.GenerateRequest(model="large")
    request.messages.add(role=v1.ROLE_USER).parts.add(text="Hello")
    raw = request.SerializeToString()
    framed = struct.pack(">BI", 0, len(raw)) + raw
    kind = "application/grpc-web-text+proto" if text else "application/grpc-web+proto"
    async with http.post(
        "/trunkline.v1.InferenceService/StreamGenerate",
        data=base64.b64encode(framed) if text else framed,
        headers={"content-type": kind, "accept": kind, "x-grpc-web": "1"},
    ) as answer:
        assert answer.status == 200
        body = await answer.read()
    if text:
        # Each chunk is padded by itself.
        body = b"".join(base64.b64decode(part) for part in re.findall(rb"[^=]+=*", body))
    frames = []
    while body:
        flag, length = struct.unpack(">BI", body[:5])
        frames.append((flag, body[5 : 5 + length]))
        body = body[5 + length :]
    *data, (flag, trailers) = frames
    assert flag == 0x80
    assert b"grpc-status:0" in trailers.replace(b" ", b"")
    events = [v1.StreamGenerateResponse.FromString(each) for _, each in data]
    assert events[-1].HasField("end")


async def test_a_page_of_the_allowed_origin_may_call(http: aiohttp.ClientSession) -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-grpc-web",
    }
    path = "/trunkline.v1.InferenceService/Generate"
    for origin, allowed in (("https://app.example.com", True), ("https://evil.example", False)):
        async with http.options(path, headers={"origin": origin, **asked}) as answer:
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed


async def test_what_operators_show_the_world(http: aiohttp.ClientSession) -> None:
    async with http.get("/docs/openapi.yaml") as answer:
        assert answer.status == 200
        told = yaml.load(await answer.text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe one
    assert told == openapi()
    async with http.get("/readyz") as answer:
        assert answer.status == 200


async def test_the_openai_sdk_through_envoy(front: Front) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{front.url}/v1",
        api_key=KEY,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(verify=front.tls()),
    ) as client:
        stream = await client.chat.completions.create(
            model="large", messages=[{"role": "user", "content": "Hello"}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert "Hello" in text
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(
                model="nothing", messages=[{"role": "user", "content": "Hello"}]
            )


async def test_a_client_that_goes_away_cancels_the_call(
    front: Front, http: aiohttp.ClientSession
) -> None:
    asked = {**ASKED, "model": "sim/sim-hang-midstream"}
    answer = await http.post("/api/v1/generate/stream", json=asked)
    assert "start" in json.loads(await answer.content.readline())
    answer.close()
    line = re.compile(r'^trunkline_calls_total\{.*reason="cancelled".*\} 1\.0$', re.MULTILINE)
    async with asyncio.timeout(PATIENCE):
        while not line.search((await front.router.get("/metrics"))[1]):  # noqa: ASYNC110 - it is asked
            await asyncio.sleep(0.02)


async def test_older_tls_is_refused(front: Front) -> None:
    context = front.tls()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{front.url}/readyz")


async def test_with_certificates_on_both_sides(envoy_home: Path, tmp_path: Path) -> None:
    tls = (
        f", tls: {{cert: {tmp_path}/server.pem, key: {tmp_path}/server.key, "
        f"client_ca: {tmp_path}/clients-ca.pem, require_client_cert: true}}"
    )
    async with fronted(envoy_home, tmp_path, "envoy.mtls.yaml", tls) as front:
        client = front.authority.issue(subject="a client")
        headers = {"authorization": f"Bearer {KEY}"}
        connector = aiohttp.TCPConnector(ssl=front.tls(client, tmp_path))
        async with aiohttp.ClientSession(
            front.url, connector=connector, headers=headers
        ) as session:
            async with session.post("/api/v1/generate", json=ASKED) as answer:
                assert answer.status == 200, await answer.text()
            chat = {"model": "large", "messages": [{"role": "user", "content": "Hello"}]}
            async with session.post("/v1/chat/completions", json=chat) as answer:
                assert answer.status == 200, await answer.text()
        connector = aiohttp.TCPConnector(ssl=front.tls())
        async with aiohttp.ClientSession(front.url, connector=connector) as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get("/readyz")
