"""Portkey's real gateway between the router and the simulated vendors."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc
import pytest

from tests.support.fault_server import FaultServer, read_request, response, send
from tests.support.portkey import PortkeyServer
from tests.support.router import PATIENCE, Router, ask, reason, router
from trunkline import v1
from trunkline_server.simulator.app import Simulator


@asynccontextmanager
async def behind(
    gateway: PortkeyServer, simulator: Simulator, model: str = "sim-large", more: str = ""
) -> AsyncGenerator[Router]:
    """A router that reaches two simulated vendors through one provider, the gateway."""
    config = f"""
providers:
  portkey:
    base_url: '{gateway.url}'
    # The gateway passes the vendor's key on; the vendor's own host stands in for it here.
    auth: {{header: authorization, prefix: 'Bearer '}}
    api_key: env:TEST_KEY
deployments:
  - name: by-openai
    provider: portkey
    model: '{model}'
    capabilities: [chat, streaming, embedding, tools]
    price: {{input: '1', output: '2'}}
    headers:
      x-portkey-provider: openai
      x-portkey-custom-host: '{simulator.url}/openai/v1'
  - name: by-anthropic
    provider: portkey
    model: '{model}'
    capabilities: [chat, streaming]
    price: {{input: '1', output: '2'}}
    headers:
      x-portkey-provider: anthropic
      x-portkey-custom-host: '{simulator.url}/anthropic/v1'
{more}
models:
  large: {{deployments: [by-openai], attempts: {{retries: 0}}}}
  other: {{deployments: [by-anthropic], attempts: {{retries: 0}}}}
"""
    async with router(config) as running:
        yield running


async def test_one_gateway_serves_two_vendors(portkey_gateway: PortkeyServer) -> None:
    async with Simulator() as simulator, behind(portkey_gateway, simulator) as running:
        for model, dialect in (("large", "openai"), ("other", "anthropic")):
            request = ask(model=model)
            request.request_id = f"call-{dialect}"
            request.config.max_output_tokens = 50
            answer = await running.stub.Generate(request, timeout=PATIENCE)
            assert "Simulated answer" in answer.message.parts[0].text
            assert answer.usage.source == v1.USAGE_SOURCE_PROVIDER
            assert simulator.counters.calls[dialect].total() == 1
            (attempt,) = answer.attempts
            # The gateway takes the caller's id for its trace.
            assert attempt.gateway_trace_id == f"call-{dialect}"
            assert attempt.gateway_cache_status in {"DISABLED", "MISS"}


async def test_streams(portkey_gateway: PortkeyServer) -> None:
    async with Simulator() as simulator, behind(portkey_gateway, simulator) as running:
        for model in ("large", "other"):
            request = ask(model=model)
            request.config.max_output_tokens = 50
            events = [
                event async for event in running.stub.StreamGenerate(request, timeout=PATIENCE)
            ]
            text = "".join(event.delta.text for event in events)
            assert "Simulated answer" in text
            end = events[-1].end
            assert end.finish_reason in {v1.FINISH_REASON_STOP, v1.FINISH_REASON_LENGTH}
            assert end.usage.output_tokens > 0
            assert end.attempts[0].gateway_trace_id


async def test_embeddings(portkey_gateway: PortkeyServer) -> None:
    async with (
        Simulator() as simulator,
        behind(portkey_gateway, simulator, "sim-embed") as running,
    ):
        request = v1.EmbedRequest(model="large", inputs=["a", "b"])
        answer = await running.stub.Embed(request, timeout=PATIENCE)
        assert len(answer.embeddings) == 2
        assert answer.attempts[0].gateway_trace_id


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("sim-error-429", v1.ERROR_REASON_RATE_LIMIT),
        ("sim-error-503", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        ("sim-error-401", v1.ERROR_REASON_PROVIDER_CREDENTIALS),
        ("sim-error-context", v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED),
        ("sim-error-model", v1.ERROR_REASON_MODEL_NOT_FOUND),
        ("sim-error-quota", v1.ERROR_REASON_QUOTA_EXCEEDED),
    ],
)
async def test_the_vendors_errors(
    portkey_gateway: PortkeyServer, model: str, expected: v1.ErrorReason.ValueType
) -> None:
    async with Simulator() as simulator, behind(portkey_gateway, simulator, model) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Generate(ask(), timeout=PATIENCE)
        assert reason(caught.value) == expected
        # The failed attempt says whom to ask.
        report = _report(caught.value)
        assert report.attempts[0].gateway_trace_id == report.id


def _report(error: grpc.aio.AioRpcError) -> v1.CallReport:
    from tests.support.router import detail  # noqa: PLC0415 - one use

    return detail(error, v1.CallReport)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("", 400),
        ("x-portkey-provider: no-such-vendor", 400),
        ("x-portkey-provider: openai, x-portkey-custom-host: 'http://10.0.0.1/v1'", 400),
        ("x-portkey-config: '{not json'", 400),
    ],
)
async def test_the_gateways_own_errors(
    portkey_gateway: PortkeyServer, headers: str, status: int
) -> None:
    more = f"""  - name: wrong
    provider: portkey
    model: sim-large
    capabilities: [chat]
    headers: {{{headers}}}
"""
    async with Simulator() as simulator, behind(portkey_gateway, simulator, more=more) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Generate(ask(model="sim-large"), timeout=PATIENCE)
        attempt = _report(caught.value).attempts[0]
        assert attempt.http_status == status
        assert attempt.reason == v1.ERROR_REASON_INVALID_REQUEST
        assert "provider answered with status" not in attempt.message
        assert not simulator.counters.calls


async def test_a_vendor_that_cannot_be_reached(portkey_gateway: PortkeyServer) -> None:
    """The gateway is well and what stands behind it is not: the next deployment answers."""
    async with FaultServer([read_request]) as gone:
        # One attempt each.
        more = f"""  - name: gone
    provider: portkey
    model: sim-large
    capabilities: [chat]
    headers: {{x-portkey-provider: openai, x-portkey-custom-host: '{gone.url}/v1'}}
  - name: well
    provider: portkey
    model: sim-large
    capabilities: [chat]
    priority: 1
    headers: {{x-portkey-provider: openai, x-portkey-custom-host: 'SIM/openai/v1'}}
routing: {{attempts: {{retries: 0}}}}
"""
        async with Simulator() as simulator:
            more = more.replace("SIM", simulator.url)
            async with behind(portkey_gateway, simulator, more=more) as running:
                answer = await running.stub.Generate(ask(model="sim-large"), timeout=PATIENCE)
        assert answer.deployment == "well"
        assert [attempt.deployment for attempt in answer.attempts] == ["gone", "well"]


async def test_a_config_names_the_vendor_and_virtual_keys_are_secrets() -> None:
    """What the hosted gateway is sent, to the letter; nobody here has an account of it."""
    body = json.dumps(
        {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
    ).encode()
    told = ("x-portkey-trace-id: trace-9", "x-portkey-cache-status: SEMANTIC HIT")
    reply = send(response(body, "content-type: application/json", *told))
    env = {"PORTKEY_API_KEY": "pk-secret", "VIRTUAL": "openai-prod-1a2b", "TEST_KEY": "unused"}
    async with FaultServer([read_request, reply]) as server:
        config = f"""
providers:
  portkey:
    base_url: '{server.url}/v1'
    api_key: env:PORTKEY_API_KEY
    headers: {{x-portkey-virtual-key: 'env:VIRTUAL'}}
deployments:
  - name: tail
    provider: portkey
    model: '@anything/model'
    capabilities: [chat]
    headers: {{x-portkey-config: pc-tail-123}}
"""
        async with router(config, env=env) as running:
            request = ask(model="@anything/model")
            request.request_id = "my call"
            answer = await running.stub.Generate(request, timeout=PATIENCE)
        (sent,) = server.requests
        assert sent.headers["x-portkey-api-key"] == "pk-secret"
        assert sent.headers["x-portkey-virtual-key"] == "openai-prod-1a2b"
        assert sent.headers["x-portkey-config"] == "pc-tail-123"
        assert sent.headers["x-portkey-trace-id"] == "my call"
        assert "authorization" not in sent.headers
        (attempt,) = answer.attempts
        assert attempt.gateway_trace_id == "trace-9"
        assert attempt.gateway_cache_status == "SEMANTIC HIT"
