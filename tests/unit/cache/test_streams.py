"""The answer cache and streamed generations, in virtual time."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from tests.support.virtual_time import VirtualClock, run
from tests.unit.cache.samples import ACME, OTHER, SOURCE, Someone, Waiter, answer, ask, events
from tests.unit.cache.shared import SharedMemory
from trunkline import v1
from trunkline_server.cache.answers import Facts
from trunkline_server.cache.cache import (
    AnswerCache,
    Bounds,
    Flight,
    Hit,
    StreamFlight,
    StreamHit,
)
from trunkline_server.errors import TrunklineError

BOUNDS = Bounds(memory_bytes=400_000, entry_bytes=20_000, stream_window=1_000)
Send = Callable[[v1.StreamGenerateResponse], Awaitable[None]]
TEXTS = ("one ", "two ", "three")


class Upstream:
    """Work that sends an event a second, and knows what became of it."""

    def __init__(self, *texts: str, fails: TrunklineError | None = None, step: float = 1.0) -> None:
        self.calls = 0
        self.sent = 0
        self.cancelled_at: list[float] = []
        self._texts = texts or TEXTS
        self._fails = fails
        self._step = step

    async def __call__(self, send: Send) -> None:
        self.calls += 1
        try:
            for number, event in enumerate(events(*self._texts)):
                await asyncio.sleep(self._step)
                if self._fails is not None and number == len(self._texts):
                    raise self._fails
                await send(event)
                self.sent += 1
        except asyncio.CancelledError:
            self.cancelled_at.append(asyncio.get_running_loop().time())
            raise


class Client:
    """A caller that reads a stream, each event in `pace` seconds."""

    def __init__(self, pace: float = 0.0, call_id: str = "me") -> None:
        self.pace = pace
        self.call_id = call_id
        self.got: list[v1.StreamGenerateResponse] = []
        self.at: list[float] = []
        self.settled: list[tuple[int, v1.CacheHitKind.ValueType, float | None]] = []

    async def settle(
        self, facts: Facts, kind: v1.CacheHitKind.ValueType, first_token: float | None
    ) -> None:
        """The books are closed before the end is sent."""
        assert not self.got[-1].HasField("end")
        self.settled.append((facts.saved, kind, first_token))

    async def take(self, raw: bytes) -> None:
        self.got.append(v1.StreamGenerateResponse.FromString(raw))
        self.at.append(asyncio.get_running_loop().time())
        if self.pace:
            await asyncio.sleep(self.pace)

    @property
    def text(self) -> str:
        return "".join(event.delta.text for event in self.got)

    async def call(
        self,
        cache: AnswerCache,
        work: Upstream,
        request: v1.GenerateRequest | None = None,
        *,
        who: Someone = ACME,
        seconds: float = 1_000.0,
        extend: Callable[[float], None] | None = None,
    ) -> None:
        """What the engine does with the cache."""
        found = cache.lookup_stream(request or ask(), who, SOURCE)
        assert found is not None
        if isinstance(found, StreamHit):
            await self.take(found.start(self.call_id))
            for event in found.deltas():
                await self.take(event)
            await self.take(found.end(5, 1, v1.CACHE_HIT_KIND_MEMORY))
        else:
            now = VirtualClock().monotonic()
            waiter = Waiter(self.call_id, now, now + seconds, extend)
            await found.relay(waiter, work, self.take, self.settle)


def new_cache(shared: SharedMemory | None = None, bounds: Bounds = BOUNDS) -> AnswerCache:
    return AnswerCache(bounds, VirtualClock(), shared)


def hit_of(
    told: list[v1.StreamGenerateResponse],
    call_id: str,
    timing: v1.Timing,
    kind: v1.CacheHitKind.ValueType,
) -> list[v1.StreamGenerateResponse]:
    """The events as a hit tells them, by the contract's words."""
    start, *deltas, end = told
    start.start.id = call_id
    start.start.cache_status = v1.CACHE_STATUS_HIT
    end.end.cost.CopyFrom(v1.Cost())
    end.end.saved.CopyFrom(v1.Cost(total=130))
    end.end.cache_status = v1.CACHE_STATUS_HIT
    end.end.cache_hit_kind = kind
    del end.end.attempts[:]
    end.end.timing.CopyFrom(timing)
    return [start, *deltas, end]


def test_a_stream_is_replayed_as_a_stream() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        first, second = Client(call_id="first"), Client(call_id="second")
        await first.call(cache, upstream)
        assert first.got == events(*TEXTS)
        await second.call(cache, upstream)
        timing = v1.Timing(total_us=5, first_token_us=1)
        assert second.got == hit_of(events(*TEXTS), "second", timing, v1.CACHE_HIT_KIND_MEMORY)
        assert upstream.calls == 1
        assert cache.stats.memory_hits == 1

    run(main)


def test_a_unary_call_is_served_from_a_stream_and_the_other_way_round() -> None:
    async def main() -> None:
        cache = new_cache()
        await Client().call(cache, Upstream())
        bodies = []
        for _ in range(2):
            found = cache.lookup(ask(), ACME, SOURCE)
            assert isinstance(found, Hit)
            bodies.append(found.body)
            told = v1.GenerateResponse.FromString(found.response("me", 5))
            assert told.message == answer("".join(TEXTS)).message
            assert isinstance(cache.lookup_stream(ask(), ACME, SOURCE), StreamHit)
        # Made once.
        assert bodies[0] is bodies[1]

        async def work() -> v1.GenerateResponse:
            return answer("whole")

        flight = cache.lookup(ask("other"), ACME, SOURCE)
        assert isinstance(flight, Flight)
        await flight.answer(Waiter("x", 0.0, 100.0), work)
        client = Client()
        await client.call(cache, Upstream(), ask("other"))
        assert client.text == "whole"
        hits = [cache.lookup_stream(ask("other"), ACME, SOURCE) for _ in range(2)]
        assert isinstance(hits[0], StreamHit)
        assert isinstance(hits[1], StreamHit)
        assert hits[0].stream is hits[1].stream
        assert client.got[0].start.cache_status == v1.CACHE_STATUS_HIT

    run(main)


def test_followers_get_the_stream_from_its_start() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        clients = [Client(call_id=f"c{number}") for number in range(4)]
        running = []
        for client in clients:
            running.append(asyncio.create_task(client.call(cache, upstream)))
            await asyncio.sleep(1.1)
        await asyncio.gather(*running)
        assert upstream.calls == 1
        assert clients[0].got == events(*TEXTS)
        for number, client in enumerate(clients[1:], 1):
            total = 5.0 - 1.1 * number
            first = max(2.0 - 1.1 * number, 0.0)
            timing = v1.Timing(total_us=round(total * 1e6), first_token_us=round(first * 1e6))
            kind = v1.CACHE_HIT_KIND_JOINED
            assert client.got == hit_of(events(*TEXTS), f"c{number}", timing, kind)
            assert [told[:2] for told in client.settled] == [(130, kind)]
            # Live, not after the end: each delta comes when it comes to the first.
            assert client.at[-2:] == clients[0].at[-2:]
        assert cache.stats.joined == 3
        assert cache.stats.saved_nanos == 3 * 130

    run(main)


GOES = (None, 0.0, 0.5, 2.5, 4.5)


@pytest.mark.parametrize("leaves", list(itertools.product(GOES, repeat=3)), ids=repr)
def test_whoever_goes_the_others_get_the_rest(leaves: tuple[float | None, ...]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        cache, upstream = new_cache(), Upstream()
        clients = [Client() for _ in leaves]
        calls = [asyncio.create_task(client.call(cache, upstream)) for client in clients]
        await asyncio.sleep(0)
        for task, at in zip(calls, leaves, strict=True):
            if at is not None:
                loop.call_at(at, task.cancel)
        results = await asyncio.gather(*calls, return_exceptions=True)
        for client, result, at in zip(clients, results, leaves, strict=True):
            if at is None:
                assert result is None
                assert client.text == "".join(TEXTS)
            else:
                assert isinstance(result, asyncio.CancelledError)
                assert len(client.got) <= at
        if None in leaves:
            assert (upstream.calls, upstream.cancelled_at) == (1, [])
            assert isinstance(cache.lookup_stream(ask(), ACME, SOURCE), StreamHit)
        else:
            gone = max(at for at in leaves if at is not None)
            assert upstream.cancelled_at == ([gone] if upstream.calls else [])
            assert cache.entries == 0

    run(main)


def test_a_stream_that_breaks_is_never_kept() -> None:
    async def main() -> None:
        broken = TrunklineError(v1.ERROR_REASON_STREAM_INTERRUPTED, "broke")
        cache, upstream = new_cache(SharedMemory()), Upstream(fails=broken)
        clients = [Client() for _ in range(3)]
        results = await asyncio.gather(
            *(client.call(cache, upstream) for client in clients), return_exceptions=True
        )
        assert results[0] is broken
        for client, result in zip(clients, results, strict=True):
            assert isinstance(result, TrunklineError)
            assert result.reason == v1.ERROR_REASON_STREAM_INTERRUPTED
            assert all(event.WhichOneof("event") != "end" for event in client.got)
        assert upstream.calls == 1
        assert cache.entries == 0

    run(main)


def test_a_cut_or_filtered_stream_is_not_kept() -> None:
    async def main() -> None:
        class Filtered(Upstream):
            async def __call__(self, send: Send) -> None:
                async def changed(event: v1.StreamGenerateResponse) -> None:
                    if event.WhichOneof("event") == "end":
                        event.end.finish_reason = v1.FINISH_REASON_CONTENT_FILTER
                    await send(event)

                await super().__call__(changed)

        cache = new_cache()
        await Client().call(cache, Filtered())
        assert cache.entries == 0

    run(main)


@pytest.mark.parametrize("begun", [False, True])
def test_trouble_of_the_first_caller_alone(begun: bool) -> None:
    """Before anything came the next caller makes the call; after that the stream is broken."""

    async def main() -> None:
        spent = TrunklineError(v1.ERROR_REASON_QUOTA_EXCEEDED, "spent", metadata={"scope": "key"})

        class Spent(Upstream):
            async def __call__(self, send: Send) -> None:
                await asyncio.sleep(1.0)
                if begun:
                    await send(events("a")[0])
                raise spent

        cache, poor, rich = new_cache(), Spent(), Upstream()
        clients = [Client() for _ in range(3)]
        works = [poor, rich, rich]
        results = await asyncio.gather(
            *(client.call(cache, work) for client, work in zip(clients, works, strict=True)),
            return_exceptions=True,
        )
        assert results[0] is spent
        if begun:
            assert [
                result.reason for result in results[1:] if isinstance(result, TrunklineError)
            ] == [v1.ERROR_REASON_STREAM_INTERRUPTED] * 2
            assert rich.calls == 0
        else:
            assert results[1:] == [None, None]
            assert clients[1].got == events(*TEXTS)
            assert clients[2].text == "".join(TEXTS)
            assert rich.calls == 1

    run(main)


def test_each_has_its_own_deadline() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        told: list[float] = []
        short, long = Client(), Client()
        calls = [
            asyncio.create_task(short.call(cache, upstream, seconds=2.5, extend=told.append)),
            asyncio.create_task(long.call(cache, upstream, seconds=50.0)),
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results[0], TrunklineError)
        assert results[0].reason == v1.ERROR_REASON_TIMEOUT
        assert short.at[-1] == 2.0
        assert long.text == "".join(TEXTS)
        assert told == [50.0]
        assert isinstance(cache.lookup_stream(ask(), ACME, SOURCE), StreamHit)

    run(main)


def test_a_lone_slow_client_slows_the_upstream_down() -> None:
    async def main() -> None:
        cache = new_cache()
        upstream = Upstream(*["x" * 200] * 60, step=0.0)
        client = Client(pace=1.0)
        running = asyncio.create_task(client.call(cache, upstream))
        for _ in range(20):
            await asyncio.sleep(1.0)
            # A start, and deltas of some 250 bytes each within a window of 1,000.
            assert upstream.sent <= len(client.got) + 6
        await running
        assert client.text == "x" * 12_000
        # It was within the bound, and kept.
        assert isinstance(cache.lookup_stream(ask(), ACME, SOURCE), StreamHit)

    run(main)


def test_a_slow_follower_slows_nobody() -> None:
    async def main() -> None:
        cache = new_cache()
        upstream = Upstream(*["x" * 200] * 60)
        fast, slow = Client(), Client(pace=5.0)
        calls = [
            asyncio.create_task(slow.call(cache, upstream)),
            asyncio.create_task(fast.call(cache, upstream)),
        ]
        await calls[1]
        assert fast.at[-1] == 62.0
        assert len(slow.got) < 20
        await calls[0]
        assert slow.text == fast.text

    run(main)


def test_when_the_fastest_goes_the_next_one_sets_the_pace() -> None:
    async def main() -> None:
        cache = new_cache()
        upstream = Upstream(*["x" * 200] * 60, step=0.1)
        fast, slow = Client(), Client(pace=5.0)
        calls = [asyncio.create_task(each.call(cache, upstream)) for each in (fast, slow)]
        await asyncio.sleep(2.0)
        calls[0].cancel()
        sent = upstream.sent
        await asyncio.sleep(20.0)
        # Far ahead of the slow one, it waits until that one comes near.
        assert sent <= upstream.sent <= sent + 1
        await calls[1]
        assert slow.text == "x" * 12_000

    run(main)


def test_who_comes_after_the_last_has_gone_begins_anew() -> None:
    async def main() -> None:
        class SlowToEnd(Upstream):
            async def __call__(self, send: Send) -> None:
                try:
                    await super().__call__(send)
                finally:
                    await asyncio.sleep(0.5)

        cache, second = new_cache(), Client()
        first = asyncio.create_task(Client().call(cache, SlowToEnd()))
        await asyncio.sleep(2.5)
        first.cancel()
        await asyncio.sleep(0.1)
        assert not first.done()
        await second.call(cache, Upstream("anew"))
        assert second.text == "anew"
        assert first.cancelled()

    run(main)


def test_a_follower_too_far_behind_loses_the_stream_alone() -> None:
    async def main() -> None:
        cache = new_cache()
        upstream = Upstream(*["x" * 1_000] * 60)
        fast, slow, late = Client(), Client(pace=10.0), Client()
        calls = [
            asyncio.create_task(slow.call(cache, upstream)),
            asyncio.create_task(fast.call(cache, upstream)),
        ]
        await asyncio.sleep(40.5)
        # The beginning is gone by now: who comes makes a call of its own.
        calls.append(asyncio.create_task(late.call(cache, upstream)))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results[0], TrunklineError)
        assert results[0].reason == v1.ERROR_REASON_STREAM_INTERRUPTED
        assert results[1:] == [None, None]
        assert fast.text == late.text == "x" * 60_000
        assert upstream.calls == 2
        # Neither was within the bound of what is kept.
        assert cache.entries == 0

    run(main)


def test_streams_of_the_second_level() -> None:
    async def main() -> None:
        shared = SharedMemory()
        one, two, upstream = new_cache(shared), new_cache(shared), Upstream()
        await Client().call(one, upstream)
        await asyncio.sleep(0)
        clients = [Client(call_id=f"c{number}") for number in range(3)]
        await asyncio.gather(*(client.call(two, upstream) for client in clients))
        for client in clients:
            assert client.text == "".join(TEXTS)
            assert client.got[0].start.id == client.call_id
            assert client.got[0].start.cache_status == v1.CACHE_STATUS_HIT
        assert upstream.calls == 1
        assert shared.asked == 3  # Once missed, once written, once found for all three.

    run(main)


def test_only_if_cached() -> None:
    async def main() -> None:
        shared = SharedMemory()
        one, two, upstream = new_cache(shared), new_cache(shared), Upstream()
        only = ask(cache=v1.CachePolicy(mode=v1.CACHE_MODE_ONLY_IF_CACHED))
        client = Client()
        with pytest.raises(TrunklineError) as caught:
            await client.call(two, upstream, only)
        assert caught.value.reason == v1.ERROR_REASON_CACHE_MISS
        assert not client.got
        await Client().call(one, upstream)
        await asyncio.sleep(0)
        await client.call(two, upstream, only)
        assert client.text == "".join(TEXTS)
        assert upstream.calls == 1

    run(main)


def test_refreshes_share_nothing_even_with_the_same_request_id() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        refresh = ask(cache=v1.CachePolicy(mode=v1.CACHE_MODE_REFRESH))
        clients = [Client(call_id="same") for _ in range(3)]
        await asyncio.gather(*(client.call(cache, upstream, refresh) for client in clients))
        assert upstream.calls == 3
        found = cache.lookup_stream(refresh, ACME, SOURCE)
        assert isinstance(found, StreamFlight)
        assert found.status == v1.CACHE_STATUS_BYPASS
        assert isinstance(cache.lookup_stream(ask(), ACME, SOURCE), StreamHit)

    run(main)


def test_no_stream_reaches_another_tenant() -> None:
    async def main() -> None:
        shared = SharedMemory()
        cache = new_cache(shared)
        own, theirs = Upstream("acme"), Upstream("other")
        mine, yours = Client(), Client()
        await asyncio.gather(mine.call(cache, own), yours.call(cache, theirs, who=OTHER))
        assert (mine.text, yours.text) == ("acme", "other")
        again = Client()
        await again.call(cache, own, who=OTHER)
        assert again.text == "other"

    run(main)


def test_closing_breaks_what_is_under_way() -> None:
    async def main() -> None:
        cache, upstream = new_cache(), Upstream()
        call = asyncio.create_task(Client().call(cache, upstream))
        await asyncio.sleep(2.5)
        await cache.close()
        with pytest.raises(TrunklineError) as caught:
            await call
        assert caught.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
        assert upstream.cancelled_at == [2.5]

    run(main)
