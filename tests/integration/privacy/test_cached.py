"""Masking and the answer cache: it sees what vendors see, and each caller gets back their own."""

import asyncio
from collections.abc import AsyncGenerator

import grpc
import pytest

from tests.integration.privacy.test_masking import asked, streamed
from tests.integration.privacy.vendor import Vendor, vendor
from tests.support.router import PATIENCE, Router, openai_at, reason, router
from trunkline import v1

ANN, BOB = "ann@example.org", "bob@example.com"
MASKED = {"data_classification": "confidential"}
RESTRICTED = {"data_classification": "restricted"}
CACHE = "\ncache: {use: 'on', max_temperature: 2}\nprivacy: {}"


@pytest.fixture
async def upstream() -> AsyncGenerator[Vendor]:
    async with vendor() as running:
        yield running


@pytest.fixture
async def trunkline(upstream: Vendor) -> AsyncGenerator[Router]:
    async with router(openai_at(upstream.url) + CACHE) as running:
        yield running


async def test_two_who_ask_alike_share_an_answer_and_see_their_own_values(
    upstream: Vendor, trunkline: Router
) -> None:
    first = await trunkline.stub.Generate(asked(f"I am {ANN}", MASKED), timeout=PATIENCE)
    second = await trunkline.stub.Generate(asked(f"I am {BOB}", MASKED), timeout=PATIENCE)
    assert len(upstream.bodies) == 1
    assert first.cache_status == v1.CACHE_STATUS_MISS
    assert second.cache_status == v1.CACHE_STATUS_HIT
    assert first.message.parts[0].text == f"You said: I am {ANN}"
    assert second.message.parts[0].text == f"You said: I am {BOB}"
    assert second.usage == first.usage
    assert second.saved == first.cost
    # From the same kept answer, as a stream.
    message, end = await streamed(trunkline, asked(f"I am {ANN}", MASKED))
    assert message.parts[0].text == f"You said: I am {ANN}"
    assert end.cache_status == v1.CACHE_STATUS_HIT
    assert len(upstream.bodies) == 1


async def test_a_kept_stream_gives_each_caller_their_own_values(
    upstream: Vendor, trunkline: Router
) -> None:
    for seed, who in enumerate((ANN, BOB, ANN)):
        upstream.seed = seed
        message, _ = await streamed(trunkline, asked(f"I am {who}, {who}", MASKED))
        assert message.parts[0].text == f"You said: I am {who}, {who}"
    assert len(upstream.bodies) == 1


async def test_callers_who_ask_alike_at_once_see_their_own_values(
    upstream: Vendor, trunkline: Router
) -> None:
    people = [f"person{number}@example.org" for number in range(12)]
    whole, parts = await asyncio.gather(
        asyncio.gather(
            *(
                trunkline.stub.Generate(asked(f"I am {who}", MASKED), timeout=PATIENCE)
                for who in people
            )
        ),
        asyncio.gather(*(streamed(trunkline, asked(f"I am also {who}", MASKED)) for who in people)),
    )
    texts = [answer.message.parts[0].text for answer in whole]
    texts += [message.parts[0].text for message, _ in parts]
    assert texts == [
        *(f"You said: I am {who}" for who in people),
        *(f"You said: I am also {who}" for who in people),
    ]
    assert len(upstream.bodies) == 2


async def test_a_masked_call_never_meets_the_answer_of_an_unmasked_one(
    upstream: Vendor, trunkline: Router
) -> None:
    for labels in ({}, MASKED):
        answer = await trunkline.stub.Generate(asked(f"I am {ANN}", labels), timeout=PATIENCE)
        assert answer.cache_status == v1.CACHE_STATUS_MISS
        assert answer.message.parts[0].text == f"You said: I am {ANN}"
    assert len(upstream.bodies) == 2


async def test_a_label_whose_answers_may_not_be_cached_goes_by_the_cache(
    upstream: Vendor, trunkline: Router
) -> None:
    for _ in range(2):
        answer = await trunkline.stub.Generate(asked("hello", RESTRICTED), timeout=PATIENCE)
        assert answer.cache_status == v1.CACHE_STATUS_UNSPECIFIED
        _, end = await streamed(trunkline, asked("hello", RESTRICTED))
        assert end.cache_status == v1.CACHE_STATUS_UNSPECIFIED
        embed = v1.EmbedRequest(
            model="large", inputs=["hello"], context=v1.CallContext(labels=RESTRICTED)
        )
        told = await trunkline.stub.Embed(embed, timeout=PATIENCE)
        assert told.cache_status == v1.CACHE_STATUS_UNSPECIFIED
    assert len(upstream.bodies) == 6
    assert trunkline.metric("trunkline_cache_entries") == 0
    request = asked("hello", RESTRICTED)
    request.cache.mode = v1.CACHE_MODE_ONLY_IF_CACHED
    with pytest.raises(grpc.aio.AioRpcError) as missed:
        await trunkline.stub.Generate(request, timeout=PATIENCE)
    assert reason(missed.value) == v1.ERROR_REASON_CACHE_MISS


async def test_vectors_are_kept_of_what_the_vendor_saw(upstream: Vendor, trunkline: Router) -> None:
    context = v1.CallContext(labels=MASKED)
    for who in (ANN, BOB):
        request = v1.EmbedRequest(model="large", inputs=[f"I am {who}"], context=context)
        told = await trunkline.stub.Embed(request, timeout=PATIENCE)
        assert len(told.embeddings) == 1
    assert len(upstream.bodies) == 1
    assert told.cache_status == v1.CACHE_STATUS_HIT
