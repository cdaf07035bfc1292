"""What a run leaves behind - log, ledger, traces, audit trail - names nobody it was about."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from tests.integration.privacy.vendor import Vendor, vendor
from tests.integration.test_telemetry import Collector
from tests.integration.test_telemetry import collector as collector  # noqa: PLC0414 - a fixture.
from tests.support.process import START_SECONDS, RouterProcess, router_process
from tests.support.router import PATIENCE, ask, channel_to
from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub

ANN, BOB = "ann@example.org", "bob.the.builder@example.com"
CARD, SSN, IBAN = "4111111111111111", "536-22-1234", "DE89370400440532013000"
PHONE, ADDRESS, KEY = "+49 151 23456789", "93.184.216.34", "sk-proj-Ab3dE6gH9jK2mN5pQ8sT1vW4"
SECRETS = (ANN, BOB, CARD, SSN, IBAN, PHONE, ADDRESS, KEY)


@pytest.fixture
async def upstream() -> AsyncGenerator[Vendor]:
    async with vendor() as running:
        yield running


def config(folder: Path, upstream: Vendor, collector_port: int, privacy: str) -> str:
    path = folder / "trunkline.yaml"
    path.write_text(
        "providers:\n"
        f"  sim: {{kind: openai, base_url: '{upstream.url}/v1', api_key: 'env:TEST_KEY'}}\n"
        "deployments:\n"
        "  - {name: d, provider: sim, model: large, capabilities: [chat, streaming, embedding]}\n"
        "models: {large: {deployments: [d], attempts: {retries: 0}}}\n"
        "state: {database: 'sqlite:///usage.db'}\n"
        "ledger: {journal: journal}\n"
        "audit: {decisions: all, spool: spool}\n"
        "telemetry: {log_level: debug, trace_ratio: 1.0,"
        f" otlp_endpoint: 'http://127.0.0.1:{collector_port}'}}\n"
        f"privacy: {privacy}\n"
    )
    return str(path)


def about_people(label: str) -> v1.GenerateRequest:
    """Personal data wherever a caller can put it."""
    request = ask(f"{ANN} {BOB} card {CARD} SSN {SSN} {IBAN} call {PHONE} at {ADDRESS} key {KEY}")
    request.request_id = f"order of {ANN}"
    context = request.context
    context.user_id, context.agent_id, context.workflow_id = ANN, f"agent {BOB}", f"for {IBAN}"
    context.labels.update({"data_classification": label, "customer": ANN, f"phone {BOB}": SSN})
    return request


async def run(router: RouterProcess, upstream: Vendor, label: str) -> int:
    """Calls that succeed and fail in many ways; how many of them reach the engine."""
    async with channel_to(router.address) as channel:
        stub = InferenceServiceStub(channel)
        request = about_people(label)
        answer = await stub.Generate(request, timeout=PATIENCE)
        assert CARD in answer.message.parts[0].text
        async for _ in stub.StreamGenerate(request, timeout=PATIENCE):
            pass
        embed = v1.EmbedRequest(model="large", inputs=[ANN, SSN], context=request.context)
        await stub.Embed(embed, timeout=PATIENCE)
        calls = 3
        # Vendors that quote what they were asked, each failure of another kind.
        for status in (400, 401, 404, 429, 500):
            upstream.status = status
            said = f"no: {ANN} {CARD} {SSN} {PHONE} {ADDRESS} {KEY}"
            upstream.error = {"error": {"message": said, "type": "t", "code": None}}
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Generate(request, timeout=PATIENCE)
            calls += 1
        for model in (f"sim/of {ANN}", f"{BOB}", f"route:{ANN}", f"nowhere/{SSN}"):
            request.model = model
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Generate(request, timeout=PATIENCE)
            calls += 1
        request.context.labels["data_classification"] = f"like {ANN}"
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Generate(request, timeout=PATIENCE)
        return calls + 1


def events_in(database: Path) -> list[admin.UsageEvent]:
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT event FROM usage_events").fetchall()
    return [admin.UsageEvent.FromString(event) for (event,) in rows]


def everything_in(folder: Path) -> bytes:
    """The bytes of the database, the journal and whatever else was written."""
    return b"".join(each.read_bytes() for each in folder.rglob("*") if each.is_file())


async def shipped(database: Path, calls: int) -> list[admin.UsageEvent]:
    """All events, once those of so many calls are there."""
    async with asyncio.timeout(START_SECONDS):
        # Another process fills it, and tells nobody.
        while True:
            found = events_in(database)
            ended = [row for row in found if row.kind == admin.USAGE_EVENT_KIND_CALL]
            if len(ended) >= calls:
                return found
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("label", ["internal", "confidential", "restricted"])
async def test_nothing_that_is_kept_of_a_run_names_anyone(
    tmp_path: Path, upstream: Vendor, collector: tuple[Collector, int], label: str
) -> None:
    kept, port = collector
    path = config(tmp_path, upstream, port, "{payloads: {log: true}}")
    async with router_process("--config", path, env={"TEST_KEY": "sk-test"}) as router:
        calls = await run(router, upstream, label)
        events = await shipped(tmp_path / "usage.db", calls)
        await asyncio.wait_for(kept.received.wait(), PATIENCE)
        log = json.dumps(router.log, ensure_ascii=False)
    spans = "".join(str(each) for each in kept.requests)
    files = everything_in(tmp_path)
    for secret in SECRETS:
        assert secret not in log, secret
        assert secret not in spans, secret
        assert secret.encode() not in files, secret
    # What is looked at is really there.
    assert "order of [EMAIL_ADDRESS]" in log
    assert "order of [EMAIL_ADDRESS]" in spans
    assert {row.user_id for row in events} == {"[EMAIL_ADDRESS]"}
    labels = dict(events[0].labels)
    assert labels["customer"] == "[EMAIL_ADDRESS]"
    assert labels["phone [EMAIL_ADDRESS]"] == "[US_SSN]"
    assert "429" in log
    assert b"sim/of [EMAIL_ADDRESS]" in files
    noted = [row for row in router.log if row.get("event") == "payload"]
    if label == "restricted":
        # Text that may not be stored is not, redacted or not; nor is what vendors said.
        assert noted == []
        assert "no: " not in log
        return
    # Of a failed call there is no answer, and of an embedding no text.
    assert [row["what"] for row in noted].count("answer") == 2
    assert len(noted) == calls - 1 + 2
    value = "[EMAIL_ADDRESS]" if label == "internal" else "[EMAIL_ADDRESS_1]"
    assert noted[0]["text"].startswith(f"user: {value} ")
    assert noted[1]["text"].startswith(f"You said: {value} ")
    assert "no: [EMAIL_ADDRESS]" in log


async def test_payloads_are_not_logged_unless_that_is_asked_for(
    tmp_path: Path, upstream: Vendor, collector: tuple[Collector, int]
) -> None:
    path = config(tmp_path, upstream, collector[1], "{}")
    async with router_process("--config", path, env={"TEST_KEY": "sk-test"}) as router:
        await run(router, upstream, "internal")
        log = json.dumps(router.log, ensure_ascii=False)
    assert not [row for row in router.log if row.get("event") == "payload"]
    assert "You said" not in log
    assert "card" not in log
