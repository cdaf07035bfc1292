"""The answer cache on a real Redis: one alone, a cluster, and one in trouble."""

import random
import time
from collections.abc import AsyncGenerator, Callable

import pytest

from tests.support.redis_server import RedisCluster, RedisServer
from tests.unit.cache.samples import ACME, OTHER, SOURCE, VECTORS, Waiter, answer, ask, events
from trunkline import v1
from trunkline_server.cache.answers import Facts
from trunkline_server.cache.cache import (
    AnswerCache,
    Bounds,
    EmbedFlight,
    EmbedHit,
    Flight,
    Hit,
    StreamFlight,
    StreamHit,
)
from trunkline_server.clock import SystemClock
from trunkline_server.errors import TrunklineError
from trunkline_server.store.cache_redis import RedisAnswers
from trunkline_server.store.redis import ChannelPolicy, RedisClient

NewRedis = Callable[..., RedisServer]
# Long enough for a machine under load; tests of the timeout set their own.
PATIENT = ChannelPolicy(timeout=5.0, connect_timeout=5.0)


def cluster(url: str) -> str:
    """The URL by which the client knows that it is one of a cluster's nodes."""
    return url.replace("redis://", "redis+cluster://")


@pytest.fixture(params=["one", "cluster"])
async def client(request: pytest.FixtureRequest) -> AsyncGenerator[RedisClient]:
    name = "redis_url" if request.param == "one" else "redis_cluster_url"
    url = request.getfixturevalue(name)
    client = RedisClient(url if request.param == "one" else cluster(url), policy=PATIENT)
    assert await client.start()
    yield client
    await client.close()


@pytest.fixture
def store(client: RedisClient) -> RedisAnswers:
    return RedisAnswers(client)


def new_cache(store: RedisAnswers) -> AnswerCache:
    return AnswerCache(Bounds(memory_bytes=2**20), SystemClock(), store)


def waiter() -> Waiter:
    now = time.monotonic()
    return Waiter("me", now, now + 30.0)


async def call(cache: AnswerCache, request: v1.GenerateRequest, text: str) -> str:
    """The text of the answer: `text` if it was made by this call."""

    async def work() -> v1.GenerateResponse:
        return answer(text)

    found = cache.lookup(request, ACME, SOURCE)
    assert found is not None
    told = await found.answer(waiter(), work) if isinstance(found, Flight) else found
    if isinstance(told, Hit):
        told = v1.GenerateResponse.FromString(told.response("me", 1))
        assert told.cache_status == v1.CACHE_STATUS_HIT
    return told.message.parts[0].text


async def test_values_of_any_bytes(store: RedisAnswers) -> None:
    rng = random.Random(1)
    values = [(rng.randbytes(32), rng.randbytes(size), 60.0) for size in (0, 1, 5_000, 500_000)]
    values += [(rng.randbytes(32), rng.randbytes(50), 60.0) for _ in range(300)]
    await store.put_many("t/acme", values)
    digests = [digest for digest, _, _ in values] + [bytes(32)]
    rng.shuffle(digests)
    expected = {digest: value for digest, value, _ in values}
    assert await store.get_many("t/acme", digests) == [expected.get(each) for each in digests]
    assert await store.get("t/acme", values[2][0]) == values[2][1]
    assert await store.get("t/other", values[2][0]) is None
    await store.delete("t/acme", values[2][0])
    assert await store.get("t/acme", values[2][0]) is None
    assert await store.get_many("t/acme", []) == []


async def test_values_end(store: RedisAnswers, client: RedisClient) -> None:
    digest = bytes(32)
    await store.put_many("k/a b", [(digest, b"x", 12.5)])
    key = b"trunkline:{" + digest.hex().encode() + b"}:cache:k/a%20b"
    left = await client.execute(key, b"PTTL", key)
    assert isinstance(left, int)
    assert 7_000 < left <= 12_500


async def test_replicas_share_answers_streams_and_vectors(store: RedisAnswers) -> None:
    one, two = new_cache(store), new_cache(store)
    assert await call(one, ask(), "made") == "made"
    sent: list[bytes] = []
    settled: list[v1.CacheHitKind.ValueType] = []

    async def stream(send: Callable[[v1.StreamGenerateResponse], object]) -> None:
        for event in events("a", "b"):
            await send(event)  # type: ignore[misc]  # The cache's own type is narrower.

    async def take(raw: bytes) -> None:
        sent.append(raw)

    async def settle(
        _facts: Facts, kind: v1.CacheHitKind.ValueType, _first_token: float | None
    ) -> None:
        settled.append(kind)

    flight = one.lookup_stream(ask("s"), ACME, SOURCE)
    assert isinstance(flight, StreamFlight)
    await flight.relay(waiter(), stream, take, settle)

    async def embed(request: v1.EmbedRequest) -> v1.EmbedResponse:
        vectors = [v1.Embedding(values=[float(len(text))]) for text in request.inputs]
        return v1.EmbedResponse(model="e", embeddings=vectors)

    texts = ["x" * size for size in range(1, 200)]
    request = v1.EmbedRequest(model="embed", inputs=texts)
    batch = one.lookup_embed(request, ACME, VECTORS)
    assert isinstance(batch, EmbedFlight)
    await batch.answer(waiter(), embed)
    await one.flush()

    assert await call(two, ask(), "anew") == "made"
    flight = two.lookup_stream(ask("s"), ACME, SOURCE)
    assert isinstance(flight, StreamFlight)
    sent.clear()
    await flight.relay(waiter(), stream, take, settle)
    assert settled == [v1.CACHE_HIT_KIND_SHARED]
    told = [v1.StreamGenerateResponse.FromString(raw) for raw in sent]
    assert [event.delta.text for event in told[1:-1]] == ["a", "b"]
    assert isinstance(two.lookup_stream(ask("s"), ACME, SOURCE), StreamHit)
    batch = two.lookup_embed(request, ACME, VECTORS)
    assert isinstance(batch, EmbedFlight)
    hit = await batch.answer(waiter(), embed)
    assert isinstance(hit, EmbedHit)
    response = v1.EmbedResponse.FromString(hit.response("me", 1))
    assert [each.values[0] for each in response.embeddings] == [float(len(t)) for t in texts]
    assert two.stats.shared_hits == 1 + 1 + 199


async def test_a_tenant_finds_nothing_of_another_in_the_same_redis(
    store: RedisAnswers, client: RedisClient
) -> None:
    await call(one := new_cache(store), ask(), "secret")
    await one.flush()

    async def work() -> v1.GenerateResponse:
        return answer("own")

    found = new_cache(store).lookup(ask(), OTHER, SOURCE)
    assert isinstance(found, Flight)
    assert await found.answer(waiter(), work) == answer("own")


async def test_foreign_and_broken_values_are_misses_and_go(
    redis_url: str, redis_server: RedisServer
) -> None:
    client = RedisClient(redis_url, policy=PATIENT)
    await client.start()
    store = RedisAnswers(client)
    one = new_cache(store)
    assert await call(one, ask(), "made") == "made"
    await one.flush()
    keys = await client.execute(b"", b"KEYS", b"trunkline:*")
    assert isinstance(keys, list)
    (key,) = keys
    assert isinstance(key, bytes)
    for broken in (b"not ours", b""):
        await client.execute(key, b"SET", key, broken)
        only = ask(cache=v1.CachePolicy(mode=v1.CACHE_MODE_ONLY_IF_CACHED))
        replica = new_cache(store)
        with pytest.raises(TrunklineError) as caught:
            await call(replica, only, "never")
        assert caught.value.reason == v1.ERROR_REASON_CACHE_MISS
        assert replica.stats.shared_corrupt == 1
        await replica.flush()
        assert await client.execute(key, b"EXISTS", key) == 0
    # A key of another type: Redis refuses, and the call goes on.
    await client.execute(key, b"RPUSH", key, b"list")
    replica = new_cache(store)
    assert await call(replica, ask(), "anew") == "anew"
    assert replica.stats.shared_errors == 1
    await client.close()


async def test_redis_dead_slow_and_full(new_redis: NewRedis) -> None:
    server = new_redis("--maxmemory", "1", "--maxmemory-policy", "noeviction")
    policy = ChannelPolicy(timeout=0.1, connect_timeout=1.0, failures=2, retry_seconds=60.0)
    client = RedisClient(server.url, policy=policy)
    assert await client.start()
    cache = new_cache(RedisAnswers(client))
    # Full: what cannot be written is counted, the memory still has it.
    assert await call(cache, ask("full"), "made") == "made"
    await cache.flush()
    assert cache.stats.shared_errors == 1
    assert await call(cache, ask("full"), "anew") == "made"
    # Slow: each call waits no longer than the timeout, and after a few not at all.
    server.ask("CONFIG", "SET", "maxmemory", "0")
    server.pause()
    for number in range(4):
        assert await call(cache, ask(f"slow {number}"), "made") == "made"
        await cache.flush()
    assert not client.available
    before = time.monotonic()
    for number in range(50):
        assert await call(cache, ask(f"given up {number}"), "made") == "made"
    assert time.monotonic() - before < 2.0
    # Dead: likewise.
    server.kill()
    assert await call(cache, ask("dead"), "made") == "made"
    await cache.close()
    await client.close()


async def test_the_cluster_spreads_one_tenants_answers(
    redis_cluster_url: str, redis_cluster: RedisCluster
) -> None:
    client = RedisClient(cluster(redis_cluster_url), policy=PATIENT)
    await client.start()
    rng = random.Random(2)
    values = [(rng.randbytes(32), b"x", 60.0) for _ in range(300)]
    await RedisAnswers(client).put_many("t/acme", values)
    sizes = [int(node.ask("DBSIZE")) for node in redis_cluster.nodes]
    assert sum(sizes) == 300
    assert min(sizes) > 60
    await client.close()
