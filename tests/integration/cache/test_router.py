"""The answer cache over the wire: hits, joined calls, replays, what is told and what it costs."""

import asyncio

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.integration.cache.vendor import bearer, cached, key_line
from tests.support.router import PATIENCE, Router, ask, reason
from trunkline import v1

# 10 tokens at 2 dollars a million and 5 at 8.
COST = v1.Cost(input=20_000, output=40_000, total=60_000)
ONLY = v1.CachePolicy(mode=v1.CACHE_MODE_ONLY_IF_CACHED)


async def generate(
    router: Router, request: v1.GenerateRequest | None = None, key: str = ""
) -> v1.GenerateResponse:
    metadata = bearer(key) if key else None
    return await router.stub.Generate(request or ask(), timeout=PATIENCE, metadata=metadata)


async def stream(
    router: Router, request: v1.GenerateRequest | None = None, key: str = ""
) -> list[v1.StreamGenerateResponse]:
    metadata = bearer(key) if key else None
    call = router.stub.StreamGenerate(request or ask(), timeout=PATIENCE, metadata=metadata)
    return [event async for event in call]


def text(events: list[v1.StreamGenerateResponse]) -> str:
    return "".join(event.delta.text for event in events)


def with_cache(request: v1.GenerateRequest, policy: v1.CachePolicy) -> v1.GenerateRequest:
    request.cache.CopyFrom(policy)
    return request


async def test_the_second_call_is_a_hit_that_tells_what_it_saved() -> None:
    async with cached() as (router, vendor):
        first = await generate(router)
        request = ask()
        request.request_id = "mine"
        second = await generate(router, request)
        assert vendor.calls == 1
        assert first.cache_status == v1.CACHE_STATUS_MISS
        assert first.cost == COST
        assert not first.HasField("saved")
        assert second.cache_status == v1.CACHE_STATUS_HIT
        assert second.cache_hit_kind == v1.CACHE_HIT_KIND_MEMORY
        assert second.saved == COST
        assert second.cost == v1.Cost()
        assert second.HasField("cost")
        assert (second.id, second.message, second.usage) == ("mine", first.message, first.usage)
        assert not second.attempts
        assert router.metric("trunkline_cache_lookups_total", result="memory") == 1
        assert router.metric("trunkline_cache_lookups_total", result="miss") == 1
        assert router.metric("trunkline_cache_saved_usd_total") == pytest.approx(60e-6)
        assert router.metric("trunkline_cache_entries") == 1
        assert router.metric("trunkline_cache_bytes") > 100
        calls = {"operation": "generate", "caller": "anonymous", "reason": "ok"}
        assert router.metric("trunkline_calls_total", **calls) == 2
        assert router.metric("trunkline_calls_in_flight") == 0
        # The vendor is paid once.
        where = {"provider": "p0", "deployment": "d0"}
        assert router.metric("trunkline_cost_usd_total", **where) == pytest.approx(60e-6)


async def test_a_stream_is_replayed_as_one_and_serves_the_unary_call() -> None:
    async with cached() as (router, vendor):
        first = await stream(router)
        second = await stream(router)
        whole = await generate(router)
        assert vendor.calls == 1
        assert text(first) == text(second) == "answer 1"
        assert whole.message.parts[0].text == "answer 1"
        assert whole.cache_status == v1.CACHE_STATUS_HIT
        # Piece by piece, as it came.
        assert [e.delta for e in second[1:-1]] == [e.delta for e in first[1:-1]]
        assert len(second) > 3
        start, end = second[0].start, second[-1].end
        assert first[0].start.cache_status == first[-1].end.cache_status == v1.CACHE_STATUS_MISS
        assert start.cache_status == end.cache_status == v1.CACHE_STATUS_HIT
        assert end.cache_hit_kind == v1.CACHE_HIT_KIND_MEMORY
        assert end.saved == COST
        assert end.cost == v1.Cost()
        assert start.id != first[0].start.id
        assert end.timing.first_token_us <= end.timing.total_us


async def test_identical_calls_in_flight_are_made_once() -> None:
    async with cached() as (router, vendor):
        vendor.held.clear()
        unary = [asyncio.create_task(generate(router)) for _ in range(10)]
        streams = [asyncio.create_task(stream(router, ask("other"))) for _ in range(5)]
        await vendor.until(lambda: vendor.calls == 2)
        # The others have arrived by the time that this one, sent after them, is answered.
        with pytest.raises(grpc.aio.AioRpcError):
            await generate(router, with_cache(ask("none"), ONLY))
        vendor.held.set()
        answers, streamed = await asyncio.gather(*unary), await asyncio.gather(*streams)
        assert vendor.calls == 2
        kinds = sorted(answer.cache_hit_kind for answer in answers)
        assert kinds == [0] + 9 * [v1.CACHE_HIT_KIND_JOINED]
        assert {answer.message.parts[0].text for answer in answers} <= {"answer 1", "answer 2"}
        assert len({answer.id for answer in answers}) == 10
        assert sorted(events[-1].end.cache_hit_kind for events in streamed) == [0, 3, 3, 3, 3]
        assert len({text(events) for events in streamed}) == 1


async def test_the_leader_who_goes_away_does_not_fail_the_others() -> None:
    async with cached() as (router, vendor):
        vendor.held.clear()
        leader = router.stub.Generate(ask(), timeout=PATIENCE)
        await vendor.until(lambda: vendor.calls == 1)
        others = [asyncio.create_task(generate(router)) for _ in range(3)]
        with pytest.raises(grpc.aio.AioRpcError):
            await generate(router, with_cache(ask("none"), ONLY))
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        vendor.held.set()
        answers = await asyncio.gather(*others)
        assert vendor.calls == 1
        assert {answer.cache_hit_kind for answer in answers} == {v1.CACHE_HIT_KIND_JOINED}
        assert router.metric("trunkline_calls_in_flight") == 0


async def test_the_last_who_goes_away_closes_the_upstream() -> None:
    async with cached() as (router, vendor):
        vendor.held.clear()
        calls = [router.stub.Generate(ask(), timeout=PATIENCE) for _ in range(2)]
        await vendor.until(lambda: vendor.calls == 1)
        for call in calls:
            call.cancel()
        await vendor.until(lambda: vendor.cancelled == 1)
        vendor.held.set()
        assert (await generate(router)).cache_status == v1.CACHE_STATUS_MISS


async def test_what_a_call_asks_of_the_cache() -> None:
    async with cached() as (router, vendor):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generate(router, with_cache(ask(), ONLY))
        assert reason(caught.value) == v1.ERROR_REASON_CACHE_MISS
        assert vendor.calls == 0
        await generate(router)
        bypass = v1.CachePolicy(mode=v1.CACHE_MODE_BYPASS)
        told = await generate(router, with_cache(ask(), bypass))
        assert told.cache_status == v1.CACHE_STATUS_BYPASS
        assert told.message.parts[0].text == "answer 2"
        assert (await generate(router)).message.parts[0].text == "answer 1"
        refresh = v1.CachePolicy(mode=v1.CACHE_MODE_REFRESH)
        told = await generate(router, with_cache(ask(), refresh))
        assert told.message.parts[0].text == "answer 3"
        told = await generate(router, with_cache(ask(), ONLY))
        assert told.message.parts[0].text == "answer 3"
        # A lifetime of nothing is never kept.
        never = v1.CachePolicy(ttl=Duration())
        await generate(router, with_cache(ask("once"), never))
        await generate(router, with_cache(ask("once"), never))
        assert vendor.calls == 5


async def test_failures_and_withheld_answers_are_never_kept() -> None:
    async with cached() as (router, vendor):
        vendor.finish = "content_filter"
        for _ in range(2):
            told = await generate(router)
            assert told.cache_status == v1.CACHE_STATUS_MISS
        assert vendor.calls == 2


async def test_embeddings_are_kept_by_input() -> None:
    async with cached() as (router, vendor):
        request = v1.EmbedRequest(model="large", inputs=["one", "three"])
        first = await router.stub.Embed(request, timeout=PATIENCE)
        mixed = v1.EmbedRequest(model="large", inputs=["three", "eleven", "one"])
        second = await router.stub.Embed(mixed, timeout=PATIENCE)
        third = await router.stub.Embed(mixed, timeout=PATIENCE)
        assert [body["input"] for body in vendor.asked] == [["one", "three"], ["eleven"]]
        assert second.embeddings[0] == first.embeddings[1]
        assert second.embeddings[2] == first.embeddings[0]
        assert (first.cache_status, first.cached_inputs) == (v1.CACHE_STATUS_MISS, 0)
        assert (second.cache_status, second.cached_inputs) == (v1.CACHE_STATUS_MISS, 2)
        # 8 tokens at 2 dollars a million were saved, and 6 paid.
        assert (second.saved.total, second.cost.total) == (16_000, 12_000)
        assert (third.cache_status, third.cached_inputs) == (v1.CACHE_STATUS_HIT, 3)
        assert third.cache_hit_kind == v1.CACHE_HIT_KIND_MEMORY
        assert third.saved.total == 28_000
        assert third.embeddings == second.embeddings


async def test_a_router_that_keeps_no_cache_says_so() -> None:
    async with cached(cache="") as (router, vendor):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generate(router, with_cache(ask(), ONLY))
        assert reason(caught.value) == v1.ERROR_REASON_CACHE_MISS
        assert (await generate(router)).cache_status == v1.CACHE_STATUS_UNSPECIFIED
        await generate(router)
        assert vendor.calls == 2


async def test_a_route_has_rules_of_its_own() -> None:
    rules = "cache: {use: 'off', max_temperature: 2, routes: {r: {use: 'on'}}}"
    async with cached("routes: {r: {deployments: [d0]}}", cache=rules) as (router, vendor):
        for _ in range(2):
            await generate(router)
        assert vendor.calls == 2
        for _ in range(2):
            told = await generate(router, ask(model="route:r"))
        assert vendor.calls == 3
        assert told.cache_status == v1.CACHE_STATUS_HIT


KEYS = ("keys:", key_line("a1", tenant="acme"), key_line("a2", tenant="acme"))


async def test_keys_of_a_tenant_share_answers() -> None:
    async with cached(*KEYS) as (router, vendor):
        await generate(router, key="a1")
        assert (await generate(router, key="a2")).cache_status == v1.CACHE_STATUS_HIT
        assert vendor.calls == 1
