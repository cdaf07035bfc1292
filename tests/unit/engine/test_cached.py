"""The books of calls that go through the cache, on virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from tests.support.plain_dialect import Answer
from tests.support.virtual_time import run
from tests.unit.cache.shared import SharedMemory
from tests.unit.engine.world import World, ask
from trunkline import v1
from trunkline_server.app.caching import Caching
from trunkline_server.cache.cache import AnswerCache, Bounds
from trunkline_server.engine.call import Call
from trunkline_server.engine.engine import Engine
from trunkline_server.errors import TrunklineError
from trunkline_server.settings import CacheSettings, Settings

SETTINGS = Settings(providers={}, cache=CacheSettings(use="on", max_temperature=2.0))


class SlowStore(SharedMemory):
    """A level that takes a second to say that it has nothing."""

    async def get(self, scope: str, digest: bytes) -> bytes | None:
        await asyncio.sleep(1.0)
        return await super().get(scope, digest)


class Cached:
    """A world whose engine keeps answers."""

    def __init__(self, script: Sequence[Answer], store: SharedMemory | None = None) -> None:
        self.world = World({"alpha": script})
        answers = AnswerCache(Bounds(), self.world.clock, store)
        caching = Caching(answers, SETTINGS, self.world.clock)
        services = replace(self.world.engine._services, cache=caching)
        self.engine = Engine(services, self.world.table)

    async def generate(self, call_id: str, patience: float = 60.0) -> v1.GenerateResponse:
        request = ask(request_id=call_id)
        call = self.world.call(request, patience)
        call.id = call_id
        answer = await self.engine.generate(call, request)
        return v1.GenerateResponse.FromString(answer) if isinstance(answer, bytes) else answer

    @property
    def ended(self) -> list[tuple[str, int, int]]:
        """Each call whose books were closed: its id, why it failed, how many attempts it made."""
        return [
            (call.id, 0 if error is None else error.reason, len(call.attempts))
            for call, error in self.world.observer.ended
        ]


def in_cached(
    main: Callable[[Cached], Awaitable[None]],
    *script: Answer,
    store: SharedMemory | None = None,
) -> None:
    async def go() -> None:
        await main(Cached(script or [Answer(b"hello", delay=5.0)], store))

    run(go)


def test_each_call_is_closed_once() -> None:
    async def main(cached: Cached) -> None:
        told = await asyncio.gather(*(cached.generate(name) for name in ("a", "b")))
        assert [answer.cache_status for answer in told] == [2, 1]
        await cached.generate("c")
        assert sorted(cached.ended) == [("a", 0, 1), ("b", 0, 0), ("c", 0, 0)]
        assert len(cached.world.observer.started) == 3
        assert cached.world.http.hosts == ["alpha"]

    in_cached(main)


def test_a_leader_that_goes_away_is_billed_for_the_work_that_goes_on() -> None:
    async def main(cached: Cached) -> None:
        leader = asyncio.create_task(cached.generate("leader"))
        await asyncio.sleep(1.0)
        other = asyncio.create_task(cached.generate("other"))
        await asyncio.sleep(1.0)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert cached.ended == []
        assert (await other).cache_hit_kind == v1.CACHE_HIT_KIND_JOINED
        assert cached.ended == [("leader", 0, 1), ("other", 0, 0)]

    in_cached(main)


def test_work_that_begins_after_its_call_is_over_has_books_of_its_own() -> None:
    async def main(cached: Cached) -> None:
        leader = asyncio.create_task(cached.generate("leader"))
        await asyncio.sleep(0.2)
        other = asyncio.create_task(cached.generate("other"))
        await asyncio.sleep(0.2)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        cancelled = ("leader", v1.ERROR_REASON_CANCELLED, 0)
        assert cached.ended == [cancelled]
        assert (await other).cache_hit_kind == v1.CACHE_HIT_KIND_JOINED
        assert cached.ended == [cancelled, ("leader", 0, 1), ("other", 0, 0)]
        calls = {call for call, _ in cached.world.observer.ended}
        assert len(calls) == 3
        assert len(cached.world.observer.started) == 3

    in_cached(main, store=SlowStore())


def test_a_failure_is_told_to_all_and_each_is_closed_once() -> None:
    async def main(cached: Cached) -> None:
        told = await asyncio.gather(
            *(cached.generate(name) for name in ("a", "b")), return_exceptions=True
        )
        assert all(isinstance(each, TrunklineError) for each in told)
        assert sorted((name, attempts) for name, _, attempts in cached.ended) == [
            ("a", 3),
            ("b", 0),
        ]
        # Failures are not kept.
        again = await cached.generate("c")
        assert again.cache_status == v1.CACHE_STATUS_MISS

    async def go() -> None:
        cached = Cached([])
        down = Answer(b"down", status=503, delay=1.0)
        cached.world.http = cached.world.http.__class__(
            {"alpha": [down, Answer(b"well")], "beta": [down], "gamma": [down]}
        )
        services = replace(cached.engine._services, http=cached.world.http)
        cached.engine = Engine(services, cached.world.table)
        await main(cached)

    run(go)


def test_each_waits_within_its_own_deadline() -> None:
    async def main(cached: Cached) -> None:
        leader = asyncio.create_task(cached.generate("leader", patience=2.0))
        await asyncio.sleep(1.0)
        hasty = asyncio.create_task(cached.generate("hasty", patience=2.0))
        patient = asyncio.create_task(cached.generate("patient", patience=60.0))
        for late in (leader, hasty):
            with pytest.raises(TrunklineError) as caught:
                await late
            assert caught.value.reason == v1.ERROR_REASON_TIMEOUT
        assert cached.world.clock.monotonic() == pytest.approx(3.0)
        assert (await patient).message.parts[0].text == "hello"
        # The work went on for the patient one, and was not begun anew.
        assert cached.world.clock.monotonic() == pytest.approx(5.0)
        assert cached.world.http.hosts == ["alpha"]
        assert cached.ended == [
            ("hasty", v1.ERROR_REASON_TIMEOUT, 0),
            ("leader", 0, 1),
            ("patient", 0, 0),
        ]

    in_cached(main)


def test_a_stream_goes_on_for_those_who_have_more_time() -> None:
    async def main(cached: Cached) -> None:
        async def stream(call_id: str, patience: float) -> str:
            request = ask(request_id=call_id)
            call = cached.world.call(request, patience)
            call.id, call.operation = call_id, "stream_generate"
            text = ""

            async def send(event: v1.StreamGenerateResponse | bytes) -> None:
                nonlocal text
                assert isinstance(event, bytes)
                text += v1.StreamGenerateResponse.FromString(event).delta.text

            await cached.engine.stream_generate(call, request, send)
            return text

        leader = asyncio.create_task(stream("leader", 2.0))
        await asyncio.sleep(0.5)
        patient = asyncio.create_task(stream("patient", 60.0))
        with pytest.raises(TrunklineError) as caught:
            await leader
        assert caught.value.reason == v1.ERROR_REASON_TIMEOUT
        assert len(await patient) > 3
        assert cached.world.http.hosts == ["alpha"]
        assert [ended[:2] for ended in cached.ended] == [("leader", 0), ("patient", 0)]

    pieces = [(1.0, f"data: part {number} \n\n".encode()) for number in range(5)]
    in_cached(main, Answer(chunks=[*pieces, (0.0, b"data: [end]\n\n")]))


def test_what_treatment_forbids_is_neither_read_nor_kept() -> None:
    class Secret:
        constraints = ()
        may_cache = False
        may_store_text = False
        masked = None
        veil = None

    class Rules:
        def treat(self, request: object, call_id: str) -> Secret:
            return Secret()

        async def examine(self, request: object, call_id: str) -> Secret:
            return Secret()

        def constraints(self, context: object) -> tuple[()]:
            return ()

    async def main(cached: Cached) -> None:
        await cached.generate("a")
        cached.engine.privacy = Rules()
        told = await cached.generate("b")
        assert told.cache_status == v1.CACHE_STATUS_UNSPECIFIED
        assert told.attempts
        request = ask(cache=v1.CachePolicy(mode=v1.CACHE_MODE_ONLY_IF_CACHED))
        call: Call = cached.world.call(request)
        with pytest.raises(TrunklineError) as caught:
            await cached.engine.generate(call, request)
        assert caught.value.reason == v1.ERROR_REASON_CACHE_MISS

    in_cached(main, Answer(b"one"), Answer(b"two"))
