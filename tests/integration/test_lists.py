"""ListModels and ListProviderHealth of a running router: what may be used, and how it fares."""

import hashlib
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.support.fault_server import read_request, response, send
from tests.support.router import PATIENCE, Router, ask, detail, openai_at, routed, router
from trunkline import v1

CONFIG = """
providers:
  a: {kind: openai, base_url: "http://127.0.0.1:9/v1", api_key: "env:TEST_KEY", region: eu}
  b: {kind: openai, base_url: "http://127.0.0.1:9/v1", api_key: "env:TEST_KEY", residency: [us]}
deployments:
  - {name: a-chat, provider: a, model: x, capabilities: [chat, streaming, vision],
     context_tokens: 1000, max_output_tokens: 100,
     price: {input: "2", output: "8", cached_input: "1"}}
  - {name: b-chat, provider: b, model: x, capabilities: [chat]}
  - {name: a-image, provider: a, model: painter, capabilities: [image_generation],
     price: {image: "0.04", images: {hd: "0.08"}, per_request: "0.01"}}
  - {name: a-off, provider: a, model: unused, capabilities: [chat], enabled: false}
models: {talker: {deployments: [a-chat, b-chat]}}
"""


def names(response: v1.ListModelsResponse) -> list[str]:
    return [model.name for model in response.models]


async def models(trunkline: Router, **fields: Any) -> v1.ListModelsResponse:
    return await trunkline.stub.ListModels(v1.ListModelsRequest(**fields), timeout=PATIENCE)


async def test_models_are_told_with_what_they_can_do_and_cost() -> None:
    async with router(CONFIG) as trunkline:
        listed = await models(trunkline)
    assert names(listed) == ["painter", "talker"]
    painter, talker = listed.models
    assert list(talker.capabilities) == ["chat", "streaming", "vision"]
    first, second = talker.deployments
    assert (first.name, first.provider, first.provider_model, first.region) == (
        *("a-chat", "a", "x", "eu"),
    )
    assert (first.context_tokens, first.max_output_tokens) == (1000, 100)
    assert first.prices == v1.UnitPrices(
        input=2_000_000_000, output=8_000_000_000, cached_input=1_000_000_000,
        cache_write=2_000_000_000,
    )  # fmt: skip
    assert first.health == v1.HEALTH_STATE_UNSPECIFIED
    assert list(second.residency) == ["us"]
    assert not second.HasField("prices")
    (drawn,) = painter.deployments
    assert drawn.prices == v1.UnitPrices(image=80_000_000, request=10_000_000)


async def test_models_by_what_they_can_do_and_where_they_are() -> None:
    async with router(CONFIG) as trunkline:
        seeing = await models(trunkline, capabilities=["vision", "chat"])
        at_b = await models(trunkline, provider="b")
        nowhere = await models(trunkline, provider="c")
    assert names(seeing) == ["talker"]
    assert [each.name for each in seeing.models[0].deployments] == ["a-chat"]
    assert [each.name for each in at_b.models[0].deployments] == ["b-chat"]
    assert names(nowhere) == []


async def test_pages() -> None:
    async with router(CONFIG) as trunkline:
        first = await models(trunkline, page_size=1)
        second = await models(trunkline, page_size=1, page_token=first.next_page_token)
        other = trunkline.stub.ListModels(
            v1.ListModelsRequest(page_size=1, provider="a", page_token=first.next_page_token),
            timeout=PATIENCE,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await other
    assert names(first) + names(second) == ["painter", "talker"]
    assert second.next_page_token == ""
    (violation,) = detail(caught.value, error_details_pb2.BadRequest).field_violations
    assert violation.field == "page_token"


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"page_size": -1}, "page_size"), ({"page_size": 1001}, "page_size"),
     ({"capabilities": [""]}, "capabilities[0]")],
)  # fmt: skip
async def test_a_wrong_request(fields: dict[str, Any], field: str) -> None:
    async with router(CONFIG) as trunkline:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await models(trunkline, **fields)
    (violation,) = detail(caught.value, error_details_pb2.BadRequest).field_violations
    assert violation.field == field


async def test_a_caller_is_shown_what_it_may_use() -> None:
    key = "tk_of_the_painter"
    keys = (
        f"keys: [{{name: p, hash: 'sha256:{hashlib.sha256(key.encode()).hexdigest()}', "
        "models: [painter]}]\n"
    )
    mine = [("authorization", f"Bearer {key}")]
    async with router(CONFIG + keys) as trunkline:
        listed = await trunkline.stub.ListModels(
            v1.ListModelsRequest(), timeout=PATIENCE, metadata=mine
        )
        health = await trunkline.stub.ListProviderHealth(
            v1.ListProviderHealthRequest(), timeout=PATIENCE, metadata=mine
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await models(trunkline)
    assert names(listed) == ["painter"]
    assert [each.provider for each in health.providers] == ["a"]
    assert [each.deployment for each in health.providers[0].deployments] == ["a-image"]
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_health_is_what_calls_have_shown() -> None:
    failing = [read_request, send(response(b"{}", status="503 Service Unavailable"))]
    breaker = "\nrouting: {breaker: {consecutive_failures: 1, open_time: 60s}}"
    async with routed(failing) as (trunkline, _):
        before = await trunkline.stub.ListProviderHealth(
            v1.ListProviderHealthRequest(), timeout=PATIENCE
        )
        with pytest.raises(grpc.aio.AioRpcError):
            await trunkline.stub.Generate(ask(), timeout=PATIENCE)
        after = await trunkline.stub.ListProviderHealth(
            v1.ListProviderHealthRequest(provider="p0"), timeout=PATIENCE
        )
    assert before.providers[0].state == v1.HEALTH_STATE_UNSPECIFIED
    assert not before.providers[0].deployments[0].HasField("success_rate")
    (told,) = after.providers[0].deployments
    assert after.providers[0].state == told.state == v1.HEALTH_STATE_DEGRADED
    assert told.success_rate < 1
    async with router(openai_at("http://127.0.0.1:9") + breaker) as trunkline:
        with pytest.raises(grpc.aio.AioRpcError):
            await trunkline.stub.Generate(ask(), timeout=PATIENCE)
        broken = await trunkline.stub.ListProviderHealth(
            v1.ListProviderHealthRequest(), timeout=PATIENCE
        )
    (down,) = broken.providers[0].deployments
    assert down.state == v1.HEALTH_STATE_UNHEALTHY
    assert 50_000 < down.cooldown_ms <= 60_000
