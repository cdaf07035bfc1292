"""The answer cache and embeddings, each input on its own."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from tests.support.virtual_time import VirtualClock, run
from tests.unit.cache.samples import ACME, OTHER, SOURCE, VECTORS, Someone, Waiter
from tests.unit.cache.shared import SharedMemory
from trunkline import v1
from trunkline_server.cache.cache import AnswerCache, Bounds, EmbedHit, Source
from trunkline_server.cache.vectors import vectors_of
from trunkline_server.errors import TrunklineError

BOUNDS = Bounds(memory_bytes=500_000)


class Upstream:
    """A vendor whose vectors tell their text; a nano and a token for each character."""

    def __init__(self, model: str = "embed-1", took: float = 1.0) -> None:
        self.asked: list[list[str]] = []
        self.model = model
        self._took = took

    async def __call__(self, request: v1.EmbedRequest) -> v1.EmbedResponse:
        texts = list(request.inputs)
        self.asked.append(texts)
        await asyncio.sleep(self._took)
        size = sum(map(len, texts))
        return v1.EmbedResponse(
            id="leader",
            model=self.model,
            provider="openai",
            deployment="d",
            embeddings=[v1.Embedding(values=vector(text)) for text in texts],
            usage=v1.Usage(input_tokens=size, source=v1.USAGE_SOURCE_PROVIDER),
            cost=v1.Cost(input=size, total=size),
            cache_status=v1.CACHE_STATUS_MISS,
        )


def vector(text: str) -> list[float]:
    return [float(ord(each)) for each in text]


def new_cache(shared: SharedMemory | None = None) -> AnswerCache:
    return AnswerCache(BOUNDS, VirtualClock(), shared)


async def embed(
    cache: AnswerCache,
    texts: Sequence[str],
    work: Upstream,
    who: Someone = ACME,
    *,
    source: Source = VECTORS,
    mode: v1.CacheMode.ValueType = v1.CACHE_MODE_UNSPECIFIED,
) -> v1.EmbedResponse:
    """What the engine does with the cache; the order of the vectors is checked."""
    request = v1.EmbedRequest(model="embed", inputs=texts, cache=v1.CachePolicy(mode=mode))
    found = cache.lookup_embed(request, who, source)
    assert found is not None
    if not isinstance(found, EmbedHit):
        now = VirtualClock().monotonic()
        told = await found.answer(Waiter("me", now, now + 60.0), work)
        if not isinstance(told, EmbedHit):
            assert [list(each.values) for each in told.embeddings] == [vector(t) for t in texts]
            return told
        found = told
    response = v1.EmbedResponse.FromString(found.response("me", 5))
    assert [list(each.values) for each in response.embeddings] == [vector(t) for t in texts]
    assert response.cache_status == v1.CACHE_STATUS_HIT
    assert response.cost == v1.Cost()
    assert response.id == "me"
    return response


def test_only_the_misses_are_asked_for() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        await embed(cache, ["a", "bb"], upstream)
        told = await embed(cache, ["ccc", "a", "dd", "bb"], upstream)
        assert upstream.asked == [["a", "bb"], ["ccc", "dd"]]
        # Those of the misses alone.
        assert told.usage.input_tokens == told.cost.total == 5
        assert told.cache_status == v1.CACHE_STATUS_MISS
        await embed(cache, ["dd", "dd", "a"], upstream)
        assert len(upstream.asked) == 2
        assert (cache.stats.memory_hits, cache.stats.misses) == (5, 4)
        assert cache.stats.saved_nanos == (1 + 2) + (2 + 2 + 1)

    run(main)


def test_each_text_is_asked_for_once() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        await embed(cache, ["a", "b", "a", "a"], upstream)
        assert upstream.asked == [["a", "b"]]

    run(main)


@pytest.mark.parametrize("seed", range(5))
def test_any_mix_in_any_order(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        shared = SharedMemory()
        caches = [new_cache(shared), new_cache(shared)]
        upstream = Upstream(took=0.0)
        known: set[str] = set()
        for _ in range(60):
            texts = [f"text {rng.randrange(40)}" for _ in range(rng.randint(1, 12))]
            before = len(upstream.asked)
            await embed(rng.choice(caches), texts, upstream)
            await asyncio.sleep(0)
            asked = [text for batch in upstream.asked[before:] for text in batch]
            assert asked == [text for text in dict.fromkeys(texts) if text not in known]
            known.update(texts)

    run(main)


def test_the_parts_of_the_saved_cost_sum_up() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        texts = ["a" * size for size in (1, 3, 7, 19)]
        await embed(cache, texts, upstream)
        request = v1.EmbedRequest(model="embed", inputs=texts)
        found = cache.lookup_embed(request, ACME, VECTORS)
        assert isinstance(found, EmbedHit)
        assert found.saved == 30

    run(main)


def test_a_cost_that_does_not_divide_is_parted_without_loss() -> None:
    texts = ["a", "bb", "c", "ddd"]
    response = v1.EmbedResponse(embeddings=[v1.Embedding()] * 4, cost=v1.Cost(total=10))
    parts = [each.saved for each in vectors_of(response, texts)]
    assert sum(parts) == 10
    assert all(part >= 10 * len(text) // 7 for part, text in zip(parts, texts, strict=True))


def test_vectors_of_different_models_are_never_mixed() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        await embed(cache, ["a", "b"], upstream)
        # The vendor moves the name to another model.
        upstream.model = "embed-2"
        told = await embed(cache, ["a", "c"], upstream)
        assert upstream.asked[1:] == [["c"], ["a", "c"]]
        assert told.model == "embed-2"
        # Of what is kept now, "b" is the old model's.
        await embed(cache, ["a", "c"], upstream)
        assert len(upstream.asked) == 3
        await embed(cache, ["a", "b"], upstream)
        assert upstream.asked[3:] == [["a", "b"]]

    run(main)


def test_routes_over_several_models_keep_batches_whole() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        await embed(cache, ["a", "b"], upstream, source=SOURCE)
        await embed(cache, ["a", "c"], upstream, source=SOURCE)
        assert upstream.asked == [["a", "b"], ["a", "c"]]
        await embed(cache, ["c", "a"], upstream, source=SOURCE)
        assert len(upstream.asked) == 2

    run(main)


def test_identical_batches_share_one_call() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        told = await asyncio.gather(*(embed(cache, ["a", "bb"], upstream) for _ in range(4)))
        assert upstream.asked == [["a", "bb"]]
        assert [each.cost.total for each in told] == [3, 0, 0, 0]
        assert (cache.stats.joined, cache.stats.misses, cache.stats.saved_nanos) == (6, 2, 9)

    run(main)


def test_modes() -> None:
    async def main() -> None:
        cache, upstream = new_cache(SharedMemory()), Upstream()
        with pytest.raises(TrunklineError) as caught:
            await embed(cache, ["a"], upstream, mode=v1.CACHE_MODE_ONLY_IF_CACHED)
        assert caught.value.reason == v1.ERROR_REASON_CACHE_MISS
        await embed(cache, ["a"], upstream)
        await embed(cache, ["a", "b"], upstream, mode=v1.CACHE_MODE_REFRESH)
        assert upstream.asked == [["a"], ["a", "b"]]
        await embed(cache, ["b", "a"], upstream, mode=v1.CACHE_MODE_ONLY_IF_CACHED)
        with pytest.raises(TrunklineError):
            await embed(cache, ["b", "c"], upstream, mode=v1.CACHE_MODE_ONLY_IF_CACHED)
        assert len(upstream.asked) == 2
        bypass = v1.EmbedRequest(inputs=["a"], cache=v1.CachePolicy(mode=v1.CACHE_MODE_BYPASS))
        assert cache.lookup_embed(bypass, ACME, VECTORS) is None

    run(main)


def test_no_vector_reaches_another_tenant() -> None:
    async def main() -> None:
        shared = SharedMemory()
        cache, upstream = new_cache(shared), Upstream()
        await asyncio.gather(embed(cache, ["a"], upstream), embed(cache, ["a"], upstream, OTHER))
        await embed(new_cache(shared), ["a"], upstream, Someone("acme"))
        assert upstream.asked == [["a"]] * 3

    run(main)


def test_too_few_vectors_are_a_failure() -> None:
    class Short(Upstream):
        async def __call__(self, request: v1.EmbedRequest) -> v1.EmbedResponse:
            response = await super().__call__(request)
            del response.embeddings[0]
            return response

    async def main() -> None:
        cache = new_cache()
        with pytest.raises(TrunklineError) as caught:
            await embed(cache, ["a", "b"], Short())
        assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
        assert cache.entries == 0

    run(main)
