"""Whoever may not have an answer does not get it from the cache either: over the running router,
every way that another caller may try."""

import asyncio
from collections.abc import Callable

import grpc
import pytest

from tests.integration.cache.vendor import CACHE, Vendor, bearer, cached, key_line
from tests.support.fault_server import FaultServer
from tests.support.redis_server import RedisServer
from tests.support.router import (
    ENVIRONMENT,
    PATIENCE,
    Router,
    ask,
    openai_at,
    reason,
    router,
)
from trunkline import v1
from trunkline_server.catalogue.known import known
from trunkline_server.settings import parse

KEYS = (
    "keys:",
    key_line("acme1", tenant="acme"),
    key_line("acme2", tenant="acme"),
    key_line("globex", tenant="globex"),
    # A key without a tenant that is called as a tenant is.
    key_line("lone"),
    key_line("acme"),
)
STRANGERS = ("globex", "lone", "acme")
ONLY = v1.CachePolicy(mode=v1.CACHE_MODE_ONLY_IF_CACHED)


async def generate(router: Router, key: str, request: v1.GenerateRequest) -> v1.GenerateResponse:
    return await router.stub.Generate(request, timeout=PATIENCE, metadata=bearer(key))


async def stream(router: Router, key: str, request: v1.GenerateRequest) -> str:
    call = router.stub.StreamGenerate(request, timeout=PATIENCE, metadata=bearer(key))
    return "".join([event.delta.text async for event in call])


async def refusal(router: Router, key: str, request: v1.GenerateRequest) -> str:
    """The reason for which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await generate(router, key, request)
    return v1.ErrorReason.Name(reason(caught.value))


def only(request: v1.GenerateRequest) -> v1.GenerateRequest:
    request.cache.CopyFrom(ONLY)
    return request


async def test_the_same_request_of_another_tenant_is_another_call() -> None:
    async with cached(*KEYS) as (router, vendor):
        mine = await generate(router, "acme1", ask())
        for stranger in STRANGERS:
            assert await refusal(router, stranger, only(ask())) == "ERROR_REASON_CACHE_MISS"
            theirs = await generate(router, stranger, ask())
            assert theirs.cache_status == v1.CACHE_STATUS_MISS
            assert theirs.message != mine.message
            assert await stream(router, stranger, ask()) == theirs.message.parts[0].text
        assert vendor.calls == 1 + len(STRANGERS)
        again = await generate(router, "acme2", ask())
        assert again.message == mine.message


async def test_the_very_bytes_of_a_request_that_was_a_hit_are_no_key_to_it() -> None:
    async with cached(*KEYS) as (router, vendor):
        for _ in range(3):  # From the second on what is remembered of the request is used.
            mine = await generate(router, "acme1", ask())
        for stranger in STRANGERS:
            told = [await generate(router, stranger, ask()) for _ in range(3)]
            assert mine.message not in [each.message for each in told]
            statuses = [each.cache_status for each in told]
            assert statuses == [v1.CACHE_STATUS_MISS] + 2 * [v1.CACHE_STATUS_HIT]
        assert vendor.calls == 1 + len(STRANGERS)


async def test_nobody_joins_a_call_of_another_tenant() -> None:
    async with cached(*KEYS) as (router, vendor):
        vendor.held.clear()
        calls = [
            asyncio.create_task(generate(router, key, ask()))
            for key in ("acme1", "acme2", *STRANGERS)
        ]
        await vendor.until(lambda: vendor.calls == 1 + len(STRANGERS))
        vendor.held.set()
        first, second, *others = await asyncio.gather(*calls)
        assert first.message == second.message
        texts = {answer.message.parts[0].text for answer in others}
        assert len(texts | {first.message.parts[0].text}) == 1 + len(STRANGERS)


async def test_nobody_gets_another_tenants_vectors() -> None:
    async with cached(*KEYS) as (router, vendor):
        request = v1.EmbedRequest(model="large", inputs=["secret"])
        for number, key in enumerate(("acme1", "acme2", *STRANGERS)):
            told = await router.stub.Embed(request, timeout=PATIENCE, metadata=bearer(key))
            assert told.cached_inputs == (number == 1)
        assert vendor.calls == 1 + len(STRANGERS)


async def test_a_model_that_a_key_may_not_use_is_refused_though_its_answer_is_there() -> None:
    keys = ("keys:", key_line("a", tenant="t"), key_line("b", tenant="t", more=", models: [x]"))
    async with cached(*keys, "routes: {r: {deployments: [d0]}}") as (router, vendor):
        for model in ("large", "route:r", ""):
            await generate(router, "a", ask(model=model))
        calls = vendor.calls
        assert await refusal(router, "b", ask()) == "ERROR_REASON_AUTHORIZATION"
        for model in ("route:r", ""):
            # The route and the choice among all are open to it, their deployment is not.
            assert await refusal(router, "b", ask(model=model)) == "ERROR_REASON_AUTHORIZATION"
        assert vendor.calls == calls


async def test_expiry_and_access_rules_hold_for_hits() -> None:
    keys = (
        "keys:",
        key_line("a", tenant="t"),
        key_line("old", tenant="t", more=", expires: 2020-01-01"),
    )
    rule = "policies: {hush: {effect: deny, when: {labels: {class: [secret]}}}}"
    async with cached(*keys, rule) as (router, vendor):
        for _ in range(3):
            await generate(router, "a", ask())
        assert await refusal(router, "old", ask()) == "ERROR_REASON_AUTHENTICATION"
        assert await refusal(router, "nobody", ask()) == "ERROR_REASON_AUTHENTICATION"
        # A label is no part of what an answer is kept under.
        labelled = ask()
        labelled.context.labels["class"] = "public"
        assert (await generate(router, "a", labelled)).cache_status == v1.CACHE_STATUS_HIT
        labelled.context.labels["class"] = "secret"
        assert await refusal(router, "a", labelled) == "ERROR_REASON_AUTHORIZATION"
        assert vendor.calls == 1


async def test_answers_of_a_deployment_that_a_rule_denies_are_not_given() -> None:
    vendor, other = Vendor(), Vendor()
    rule = "policies: {not-p0: {effect: deny, when: {caller: [b], provider: [p0]}}}"
    keys = ("keys:", key_line("a", tenant="t"), key_line("b", tenant="t"))
    async with FaultServer(vendor) as first, FaultServer(other) as second:
        config = "\n".join([openai_at(first.url, second.url), CACHE, rule, *keys])
        async with router(config) as running:
            assert (await generate(running, "a", ask())).provider == "p0"
            told = await generate(running, "b", ask())
            assert (told.provider, told.cache_status) == ("p1", v1.CACHE_STATUS_MISS)
            for key, provider in (("a", "p0"), ("b", "p1")):
                told = await generate(running, key, ask())
                assert (told.provider, told.cache_status) == (provider, v1.CACHE_STATUS_HIT)


async def test_a_tiers_bounds_are_written_into_nobody_elses_request() -> None:
    keys = ("keys:", key_line("a", tenant="t"), key_line("b", tenant="t", more=", tier: small"))
    tiers = "tiers: {small: {max_output_tokens: 7}, bare: {features: [tools]}}"
    more = key_line("c", tenant="t", more=", tier: bare")
    async with cached(*keys, more, tiers) as (router, vendor):
        for _ in range(3):
            mine = await generate(router, "a", ask())
        bounded = [await generate(router, "b", ask()) for _ in range(3)]
        assert [told.cache_status for told in bounded] == [2, 1, 1]
        assert {told.message.parts[0].text for told in bounded} == {"answer 2"}
        assert (await generate(router, "a", ask())).message == mine.message
        assert [body.get("max_completion_tokens") for body in vendor.asked] == [None, 7]
        # A tier without the feature goes without the cache, and may not ask for it.
        for _ in range(2):
            told = await generate(router, "c", ask())
            assert told.cache_status == v1.CACHE_STATUS_UNSPECIFIED
        assert vendor.calls == 4
        assert await refusal(router, "c", only(ask())) == "ERROR_REASON_AUTHORIZATION"


async def test_without_keys_all_share_and_no_key_sees_it() -> None:
    vendor = Vendor()
    async with FaultServer(vendor) as server:
        config = "\n".join([openai_at(server.url), CACHE])
        async with router(config) as running:
            for status in (v1.CACHE_STATUS_MISS, v1.CACHE_STATUS_HIT):
                told = await running.stub.Generate(ask(), timeout=PATIENCE)
                assert told.cache_status == status
            settings = parse(
                "\n".join([config, "keys:", key_line("anonymous")]), "test", ENVIRONMENT, known()
            )
            # The cache outlives the change.
            running.worker.reload(settings)
            told = await generate(running, "anonymous", ask())
            assert told.cache_status == v1.CACHE_STATUS_MISS


def shared(redis: RedisServer) -> str:
    return CACHE.replace("}", f", shared: true}}\nstate: {{redis: '{redis.url}'}}")


async def test_replicas_share_answers_within_a_tenant_alone(redis_server: RedisServer) -> None:
    vendor = Vendor()
    redis_server.ask("FLUSHALL")
    async with FaultServer(vendor) as server:
        config = "\n".join([openai_at(server.url), shared(redis_server), *KEYS])
        async with router(config) as one:
            mine = await generate(one, "acme1", ask())
            await stream(one, "acme1", ask("streamed"))
            assert mine.cache_status == v1.CACHE_STATUS_MISS
        async with router(config) as two:
            calls = vendor.calls
            told = await generate(two, "acme2", ask())
            assert told.cache_hit_kind == v1.CACHE_HIT_KIND_SHARED
            assert told.message == mine.message
            # From there it is in memory.
            told = await generate(two, "acme2", only(ask()))
            assert told.cache_hit_kind == v1.CACHE_HIT_KIND_MEMORY
            assert await stream(two, "acme2", only(ask("streamed"))) == "answer 2"
            assert vendor.calls == calls
            for stranger in STRANGERS:
                assert await refusal(two, stranger, only(ask())) == "ERROR_REASON_CACHE_MISS"
                theirs = await generate(two, stranger, ask())
                assert theirs.message != mine.message
            assert two.metric("trunkline_cache_lookups_total", result="shared") == 2


async def test_without_redis_there_is_the_memory(
    new_redis: Callable[..., RedisServer],
) -> None:
    redis, vendor = new_redis(), Vendor()
    async with FaultServer(vendor) as server:
        config = "\n".join([openai_at(server.url), shared(redis), *KEYS])
        async with router(config) as running:
            await generate(running, "acme1", ask())
            redis.kill()
            told = await generate(running, "acme1", ask())
            assert told.cache_hit_kind == v1.CACHE_HIT_KIND_MEMORY
            told = await generate(running, "acme1", ask("another"))
            assert told.cache_status == v1.CACHE_STATUS_MISS
            told = await generate(running, "acme1", ask("another"))
            assert told.cache_hit_kind == v1.CACHE_HIT_KIND_MEMORY
            assert running.metric("trunkline_cache_trouble_total", cause="shared_away") >= 1
