"""The answer cache as the engine sees it: unary generations, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.support.virtual_time import VirtualClock, run
from tests.unit.cache.samples import ACME, ANY, OTHER, SOURCE, Someone, Waiter, answer, ask
from tests.unit.cache.shared import SharedMemory
from trunkline import v1
from trunkline_server.cache.cache import (
    AnswerCache,
    Bounds,
    Flight,
    Hit,
    Source,
    fingerprint,
)
from trunkline_server.errors import TrunklineError

BOUNDS = Bounds(memory_bytes=200_000, entry_bytes=50_000)


class Upstream:
    """Work that counts how often it was done."""

    def __init__(self, response: v1.GenerateResponse | None = None, took: float = 1.0) -> None:
        self.calls = 0
        self._response = response or answer()
        self._took = took

    async def __call__(self) -> v1.GenerateResponse:
        self.calls += 1
        await asyncio.sleep(self._took)
        response = v1.GenerateResponse()
        response.CopyFrom(self._response)
        return response


def new_cache(shared: SharedMemory | None = None) -> AnswerCache:
    return AnswerCache(BOUNDS, VirtualClock(), shared)


def waiter(call_id: str = "me", seconds: float = 60.0) -> Waiter:
    now = VirtualClock().monotonic()
    return Waiter(call_id, now, now + seconds)


async def call(
    cache: AnswerCache,
    request: v1.GenerateRequest,
    work: Callable[[], Awaitable[v1.GenerateResponse]],
    who: Someone = ACME,
    *,
    source: Source = SOURCE,
    call_id: str = "me",
) -> v1.GenerateResponse:
    """What the engine does with the cache."""
    found = cache.lookup(request, who, source)
    if found is None:
        return await work()
    if isinstance(found, Flight):
        told = await found.answer(waiter(call_id), work)
    else:
        told = found
    if isinstance(told, Hit):
        return v1.GenerateResponse.FromString(told.response(call_id, 5))
    return told


MEMORY, SHARED, JOINED = (
    v1.CACHE_HIT_KIND_MEMORY,
    v1.CACHE_HIT_KIND_SHARED,
    v1.CACHE_HIT_KIND_JOINED,
)


def hit_of(
    response: v1.GenerateResponse,
    call_id: str = "me",
    kind: v1.CacheHitKind.ValueType = MEMORY,
) -> v1.GenerateResponse:
    """The response as a hit tells it, by the contract's words."""
    expected = v1.GenerateResponse()
    expected.CopyFrom(response)
    expected.id = call_id
    expected.cost.CopyFrom(v1.Cost())
    del expected.attempts[:]
    expected.cache_status = v1.CACHE_STATUS_HIT
    expected.cache_hit_kind = kind
    expected.saved.CopyFrom(v1.Cost(total=130))
    expected.timing.CopyFrom(v1.Timing(total_us=5))
    return expected


def test_the_second_call_is_a_hit() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        assert await call(cache, ask(), upstream) == answer()
        found = cache.lookup(ask(request_id="r2"), ACME, SOURCE)
        assert isinstance(found, Hit)
        assert v1.GenerateResponse.FromString(found.response("r2", 5)) == hit_of(answer(), "r2")
        assert upstream.calls == 1
        assert (found.facts.saved, found.facts.provider) == (130, "openai")
        assert (cache.stats.memory_hits, cache.stats.misses) == (1, 1)
        assert cache.stats.saved_nanos == 130

    run(main)


def test_an_answer_is_gone_at_its_time() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        request = ask(cache=v1.CachePolicy(ttl=Duration(seconds=10)))
        await call(cache, request, upstream)
        await asyncio.sleep(9.9)
        await call(cache, request, upstream)
        assert upstream.calls == 1
        await asyncio.sleep(0.2)
        await call(cache, request, upstream)
        assert upstream.calls == 2

    run(main)


@pytest.mark.parametrize(
    "mode", [v1.CACHE_MODE_BYPASS, v1.CACHE_MODE_REFRESH, v1.CACHE_MODE_ONLY_IF_CACHED]
)
@pytest.mark.parametrize("there", [False, True])
def test_modes(mode: v1.CacheMode.ValueType, there: bool) -> None:
    async def main() -> None:
        cache, old, new = new_cache(), Upstream(answer("old")), Upstream(answer("new"))
        if there:
            await call(cache, ask(), old)
        request = ask(cache=v1.CachePolicy(mode=mode))
        if mode == v1.CACHE_MODE_ONLY_IF_CACHED:
            if there:
                assert await call(cache, request, new) == hit_of(answer("old"))
            else:
                with pytest.raises(TrunklineError) as caught:
                    await call(cache, request, new)
                assert caught.value.reason == v1.ERROR_REASON_CACHE_MISS
            assert new.calls == 0
            return
        assert await call(cache, request, new) == answer("new")
        after = await call(cache, ask(), Upstream(answer("third")))
        if mode == v1.CACHE_MODE_REFRESH:
            assert after == hit_of(answer("new"))
        else:
            assert after == (hit_of(answer("old")) if there else answer("third"))

    run(main)


def test_a_refresh_neither_joins_nor_is_joined() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        refresh = ask(cache=v1.CachePolicy(mode=v1.CACHE_MODE_REFRESH))
        found = cache.lookup(refresh, ACME, SOURCE)
        assert isinstance(found, Flight)
        assert found.status == v1.CACHE_STATUS_BYPASS
        calls = [call(cache, each, upstream) for each in (ask(), refresh, refresh, ask())]
        await asyncio.gather(*calls)
        assert upstream.calls == 3

    run(main)


def test_samples_stay_different() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        request = ask(config=v1.GenerationConfig(temperature=0.8))
        await asyncio.gather(*(call(cache, request, upstream) for _ in range(3)))
        assert upstream.calls == 3
        assert cache.entries == 0

    run(main)


@pytest.mark.parametrize(
    "reason", [value for value in v1.FinishReason.values() if value not in {1, 3}]
)
def test_what_is_not_whole_is_not_kept(reason: v1.FinishReason.ValueType) -> None:
    async def main() -> None:
        response = answer()
        response.finish_reason = reason
        shared = SharedMemory()
        cache, upstream = new_cache(shared), Upstream(response)
        # Those who were waiting get it; those who come later do not.
        told = await asyncio.gather(*(call(cache, ask(), upstream) for _ in range(3)))
        assert told == [response, hit_of(response, kind=JOINED), hit_of(response, kind=JOINED)]
        await call(cache, ask(), upstream)
        assert upstream.calls == 2
        assert not shared.values

    run(main)


def test_failures_are_never_kept() -> None:
    async def main() -> None:
        shared = SharedMemory()
        cache = new_cache(shared)

        async def fail() -> v1.GenerateResponse:
            raise TrunklineError(v1.ERROR_REASON_CONTENT_FILTER, "no")

        for _ in range(2):
            with pytest.raises(TrunklineError):
                await call(cache, ask(), fail)
        assert await call(cache, ask(), Upstream()) == answer()

    run(main)


def test_identical_calls_cost_once() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        calls = [call(cache, ask(), upstream, call_id=f"c{each}") for each in range(5)]
        told = await asyncio.gather(*calls)
        assert told[0] == answer()
        assert told[1:] == [hit_of(answer(), f"c{each}", JOINED) for each in range(1, 5)]
        assert upstream.calls == 1
        assert (cache.stats.joined, cache.stats.misses) == (4, 1)
        assert cache.stats.saved_nanos == 4 * 130

    run(main)


def test_a_call_that_looked_before_the_answer_came_and_waits_after_it_finds_it() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        late = cache.lookup(ask(), ACME, SOURCE)
        assert isinstance(late, Flight)
        await call(cache, ask(), upstream)
        assert isinstance(await late.answer(waiter(), upstream), Hit)
        assert upstream.calls == 1

    run(main)


def test_too_large_answers_are_not_kept() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream(answer("x" * 60_000))
        for _ in range(2):
            await call(cache, ask(), upstream)
        assert upstream.calls == 2
        assert cache.stats.too_large == 2
        assert cache.memory_bytes == 0

    run(main)


def test_replicas_share_the_second_level() -> None:
    async def main() -> None:
        shared = SharedMemory()
        one, two, upstream = new_cache(shared), new_cache(shared), Upstream()
        await call(one, ask(), upstream)
        await asyncio.sleep(0)
        assert await call(two, ask(), upstream) == hit_of(answer(), kind=SHARED)
        assert two.stats.shared_hits == 1
        shared.away = True
        # From now on it is in memory too.
        assert isinstance(two.lookup(ask(), ACME, SOURCE), Hit)
        assert upstream.calls == 1

    run(main)


def test_what_the_second_level_gives_lives_no_longer_in_memory() -> None:
    async def main() -> None:
        shared = SharedMemory()
        one, two, upstream = new_cache(shared), new_cache(shared), Upstream(took=0.0)
        request = ask(cache=v1.CachePolicy(ttl=Duration(seconds=10)))
        await call(one, request, upstream)
        await asyncio.sleep(8.0)
        await call(two, request, upstream)
        assert isinstance(two.lookup(request, ACME, SOURCE), Hit)
        await asyncio.sleep(2.5)
        assert not isinstance(two.lookup(request, ACME, SOURCE), Hit)
        # The store of this test drops nothing by itself: the value's own date counts.
        await call(two, request, upstream)
        assert upstream.calls == 2

    run(main)


def test_only_if_cached_asks_both_levels() -> None:
    async def main() -> None:
        shared = SharedMemory()
        one, two, upstream = new_cache(shared), new_cache(shared), Upstream()
        only = ask(cache=v1.CachePolicy(mode=v1.CACHE_MODE_ONLY_IF_CACHED))
        with pytest.raises(TrunklineError):
            await call(two, only, upstream)
        await call(one, ask(), upstream)
        await asyncio.sleep(0)
        assert await call(two, only, upstream) == hit_of(answer(), kind=SHARED)
        assert upstream.calls == 1

    run(main)


def test_only_if_cached_does_not_wait_for_others() -> None:
    async def main() -> None:
        cache, upstream = new_cache(SharedMemory()), Upstream(took=30.0)
        running = asyncio.create_task(call(cache, ask(), upstream))
        await asyncio.sleep(1.0)
        only = ask(cache=v1.CachePolicy(mode=v1.CACHE_MODE_ONLY_IF_CACHED))
        with pytest.raises(TrunklineError):
            await call(cache, only, upstream)
        assert VirtualClock().monotonic() == 1.0
        await running

    run(main)


def test_an_outage_of_the_second_level_is_a_miss() -> None:
    async def main() -> None:
        shared = SharedMemory()
        cache, upstream = new_cache(shared), Upstream()
        shared.away = True
        assert await call(cache, ask(), upstream) == answer()
        assert await call(cache, ask(), upstream) == hit_of(answer())
        assert cache.stats.shared_errors == 2

    run(main)


@pytest.mark.parametrize("damage", ["cut", "foreign", "another key's"])
def test_a_corrupted_value_is_a_miss_and_goes(damage: str) -> None:
    async def main() -> None:
        shared = SharedMemory()
        one, two, upstream = new_cache(shared), new_cache(shared), Upstream()
        await call(one, ask(), upstream)
        await call(one, ask("else"), Upstream(answer("else")))
        await asyncio.sleep(0)
        first, second = shared.values
        old = shared.values[first][0]
        broken = {"cut": old[:-3], "foreign": b"{}", "another key's": shared.values[second][0]}
        shared.values[first] = (broken[damage], 1.0)
        only = ask(cache=v1.CachePolicy(mode=v1.CACHE_MODE_ONLY_IF_CACHED))
        with pytest.raises(TrunklineError):
            await call(two, only, upstream)
        await two.flush()
        assert two.stats.shared_corrupt == 1
        assert list(shared.values) == [second]
        assert await call(two, ask(), Upstream(answer("anew"))) == answer("anew")
        await two.flush()
        again = await call(new_cache(shared), ask(), upstream)
        assert again == hit_of(answer("anew"), kind=SHARED)

    run(main)


def test_no_answer_ever_reaches_another_tenant() -> None:
    """By every way that an answer can take: memory, the second level, a flight under way,
    values moved in the store, keys and tenants of the same name."""

    async def main() -> None:
        shared = SharedMemory()
        cache = new_cache(shared)
        secret = Upstream(answer("secret of acme"), took=5.0)
        others = [
            OTHER,
            Someone("app", ""),
            Someone("acme", ""),
            Someone("acme", "app"),
            Someone("t/acme", ""),
            Someone("app", "t/acme"),
            Someone("app", "acme "),
            Someone("app", "ACME"),
        ]
        running = asyncio.create_task(call(cache, ask(), secret))
        await asyncio.sleep(1.0)
        # While it is under way.
        for number, who in enumerate(others):
            theirs = answer(f"of {number}")
            assert await call(cache, ask(), Upstream(theirs, took=0.0), who) == theirs
        await running
        # Once it is kept.
        for number, who in enumerate(others):
            assert await call(cache, ask(), Upstream(), who) == hit_of(answer(f"of {number}"))
        # From another replica, and with all values put where others look for theirs.
        await asyncio.sleep(0)
        stolen = next(value for (scope, _), value in shared.values.items() if scope == "t/acme")
        for each in shared.values:
            shared.values[each] = stolen
        replica = new_cache(shared)
        for who in others:
            told = await call(replica, ask(), Upstream(answer("own"), took=0.0), who)
            assert told == answer("own")
        # Only the owner's own keys get it.
        told = await call(replica, ask(), Upstream(), Someone("second key", "acme"))
        assert told == hit_of(answer("secret of acme"), kind=SHARED)
        assert secret.calls == 1

    run(main)


def test_one_tenants_appetite_does_not_starve_another() -> None:
    async def main() -> None:
        cache = new_cache()
        await call(cache, ask(), Upstream(took=0.0))
        for number in range(300):
            big = Upstream(answer("x" * 3_000), took=0.0)
            await call(cache, ask(str(number)), big, OTHER)
        assert isinstance(cache.lookup(ask(), ACME, SOURCE), Hit)
        assert cache.memory_bytes <= BOUNDS.memory_bytes

    run(main)


def test_forgetting_a_tenant() -> None:
    async def main() -> None:
        cache = new_cache()
        for who in (ACME, OTHER):
            await call(cache, ask(), Upstream(), who)
        cache.forget(ACME)
        assert isinstance(cache.lookup(ask(), ACME, SOURCE), Flight)
        assert isinstance(cache.lookup(ask(), OTHER, SOURCE), Hit)

    run(main)


def test_a_model_pointed_elsewhere_is_asked_anew() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        await call(cache, ask(), upstream)
        moved = Source(fingerprint([("anthropic", "claude")]))
        await call(cache, ask(), upstream, source=moved)
        assert upstream.calls == 2

    run(main)


def test_writing_to_the_second_level_never_holds_a_call_up() -> None:
    class Slow(SharedMemory):
        async def put_many(self, scope: str, values: object) -> None:
            await asyncio.sleep(50.0)

    async def main() -> None:
        cache = new_cache(Slow())
        await call(cache, ask(), Upstream(took=1.0))
        assert VirtualClock().monotonic() == 1.0
        # What cannot be written in time is dropped, and counted.
        for number in range(400):
            work = Upstream(answer("x" * 40_000), took=0.0)
            await call(cache, ask(str(number)), work, source=ANY)
        assert cache.stats.shared_dropped > 0
        await cache.close()

    run(main)
