"""One generation and the cache: a hit, or a flight that waits for the answer."""

import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from trunkline import v1
from trunkline_server.cache import answers, wire
from trunkline_server.cache.answers import Answer, Facts, Streamed
from trunkline_server.cache.broadcast import Broadcast, Event
from trunkline_server.cache.flights import Flights, Key
from trunkline_server.cache.levels import Levels
from trunkline_server.cache.policy import Intent, cache_miss, may_keep
from trunkline_server.cache.ports import Waiter
from trunkline_server.cache.stats import Stats
from trunkline_server.cache.streams import Streams
from trunkline_server.clock import Clock

Work = Callable[[], Awaitable[v1.GenerateResponse]]
SendEvent = Callable[[v1.StreamGenerateResponse], Awaitable[None]]
StreamWork = Callable[[SendEvent], Awaitable[None]]
SendBytes = Callable[[bytes], Awaitable[None]]
# What the books want to know of an answer that came from elsewhere, where that was, and when the
# first delta went out, in monotonic seconds; told before the last event goes out.
Settle = Callable[[Facts, v1.CacheHitKind.ValueType, float | None], Awaitable[None]]


@dataclass(slots=True)
class Made:
    """An answer that was found, or the response that a call's work gave."""

    answer: Answer | None
    response: v1.GenerateResponse | None

    def shared(self) -> Answer:
        """The answer for those whose work it was not."""
        if self.answer is None:
            if self.response is None:
                raise AssertionError("an answer is found or made")
            self.answer = answers.of_response(self.response)
        return self.answer


@dataclass(slots=True)
class Desk:
    """What all flights work with."""

    levels: Levels
    flights: Flights[Made]
    streams: Streams
    stats: Stats
    clock: Clock
    numbers: Iterator[int] = field(default_factory=itertools.count)


@dataclass(frozen=True, slots=True)
class Hit:
    """A unary answer that was there. This call makes no attempt and costs nothing."""

    facts: Facts
    body: bytes
    kind: v1.CacheHitKind.ValueType = v1.CACHE_HIT_KIND_MEMORY
    # Where it was found, for who asks again.
    key: Key | None = None

    def response(self, call_id: str, total_us: int) -> bytes:
        """The serialised GenerateResponse of this call."""
        return wire.generate_hit(self.body, call_id, total_us, self.kind)


@dataclass(frozen=True, slots=True)
class StreamHit:
    """A streamed answer that was there. This call makes no attempt and costs nothing."""

    facts: Facts
    stream: Streamed

    def start(self, call_id: str) -> bytes:
        """The serialised first event of this call."""
        return wire.start_hit(self.stream.start, call_id)

    def deltas(self) -> Iterator[bytes]:
        """The serialised events in between."""
        return wire.split(self.stream.deltas)

    def end(self, total_us: int, first_token_us: int, kind: v1.CacheHitKind.ValueType) -> bytes:
        """The serialised last event of this call."""
        return wire.end_hit(self.stream.end, total_us, first_token_us, kind)

    async def replay(self, waiter: Waiter, clock: Clock, send: SendBytes, settle: Settle) -> None:
        """Hands every event to `send`, serialised."""
        viewer = Viewer(clock, waiter, send, settle)
        await viewer.replay(self, v1.CACHE_HIT_KIND_MEMORY)


def unary_hit(
    answer: Answer, kind: v1.CacheHitKind.ValueType = v1.CACHE_HIT_KIND_MEMORY
) -> Hit | None:
    """The hit that an answer is; None if it lacks the form."""
    return None if answer.body is None else Hit(answer.facts, answer.body, kind)


class Flight:
    """A unary call that has to wait: for the second level, for another's work, or for its own."""

    __slots__ = ("_desk", "_intent", "_key", "_request")

    def __init__(self, desk: Desk, request: v1.GenerateRequest, key: Key, intent: Intent) -> None:
        self._desk = desk
        self._request = request
        self._key = key
        self._intent = intent

    @property
    def status(self) -> v1.CacheStatus.ValueType:
        """What the cache does for this call if its own work makes the answer."""
        return v1.CACHE_STATUS_MISS if self._intent.read else v1.CACHE_STATUS_BYPASS

    async def answer(self, waiter: Waiter, work: Work) -> v1.GenerateResponse | Hit:
        """The response that `work` gave, as it gave it, or a hit.

        Raises what the work raised, TrunklineError with TIMEOUT at the deadline, and with
        CACHE_MISS if only a cached answer is wanted.
        """
        stats = self._desk.stats
        if self._intent.only:
            found = await self._fetch()
            if found is None:
                raise cache_miss()
            return self._hit(found)
        if not self._intent.read:
            response = await work()
            self._keep(response)
            return response

        async def make() -> Made:
            found = await self._fetch()
            if found is not None:
                return Made(found, None)
            response = await work()
            return Made(self._keep(response), response)

        made, led = await self._desk.flights.run(self._key, waiter.deadline, make, waiter.extend)
        if led and made.response is not None:
            stats.misses += 1
            return made.response
        if not led:
            stats.joined += 1
        return self._hit(made.shared(), joined=not led)

    async def _fetch(self) -> Answer | None:
        value = await self._desk.levels.fetch(*self._key)
        return value.whole() if isinstance(value, Answer) else None

    def _hit(self, answer: Answer, *, joined: bool = False) -> Hit:
        kind = v1.CACHE_HIT_KIND_JOINED if joined else v1.CACHE_HIT_KIND_SHARED
        hit = unary_hit(answer, kind)
        if hit is None:
            raise AssertionError("an answer of a unary flight is whole")
        self._desk.stats.shared_hits += not joined
        self._desk.stats.saved_nanos += answer.facts.saved
        return hit

    def _keep(self, response: v1.GenerateResponse) -> Answer | None:
        if not self._intent.write or not may_keep(self._request, response.finish_reason):
            return None
        answer = answers.of_response(response)
        scope, digest = self._key
        self._desk.levels.keep(scope, [(digest, answer)], self._intent.ttl)
        return answer


class StreamFlight:
    """A streamed call that has to wait; as Flight."""

    __slots__ = ("_desk", "_intent", "_key", "_request")

    def __init__(self, desk: Desk, request: v1.GenerateRequest, key: Key, intent: Intent) -> None:
        self._desk = desk
        self._request = request
        self._key = key
        self._intent = intent

    @property
    def status(self) -> v1.CacheStatus.ValueType:
        """What the cache does for this call if its own work makes the answer."""
        return v1.CACHE_STATUS_MISS if self._intent.read else v1.CACHE_STATUS_BYPASS

    async def relay(
        self, waiter: Waiter, work: StreamWork, send: SendBytes, settle: Settle
    ) -> None:
        """Hands every event of the answer to `send`, serialised.

        `work` sends the events that this call would send without the cache; `settle` is told of
        an answer that another's work made. Raises as Flight.answer does.
        """
        desk = self._desk
        viewer = Viewer(desk.clock, waiter, send, settle)
        if self._intent.only:
            found = await self._fetch()
            if found is None:
                raise cache_miss()
            await self._replay(found, viewer)
            return
        # A stream that is not to be shared has a key that no other call asks for.
        number = next(desk.numbers).to_bytes(8, "big")
        key = self._key if self._intent.read else (self._key[0], number)

        async def perform(broadcast: Broadcast) -> Answer | None:
            if self._intent.read:
                found = await self._fetch()
                if found is not None:
                    return found
            await work(broadcast.send)
            self._keep(broadcast)
            return None

        found, led = await desk.streams.relay(
            key, waiter.deadline, perform, viewer.taker, waiter.extend
        )
        if not led:
            desk.stats.joined += 1
        if found is not None:
            await self._replay(found, viewer, joined=not led)
        elif led:
            desk.stats.misses += self._intent.read
        else:
            desk.stats.saved_nanos += viewer.saved

    async def _fetch(self) -> Answer | None:
        value = await self._desk.levels.fetch(*self._key)
        return value.streamed() if isinstance(value, Answer) else None

    async def _replay(self, answer: Answer, viewer: "Viewer", *, joined: bool = False) -> None:
        if answer.stream is None:
            raise AssertionError("an answer of a stream's flight is streamed")
        self._desk.stats.shared_hits += not joined
        self._desk.stats.saved_nanos += answer.facts.saved
        kind = v1.CACHE_HIT_KIND_JOINED if joined else v1.CACHE_HIT_KIND_SHARED
        await viewer.replay(StreamHit(answer.facts, answer.stream), kind)

    def _keep(self, broadcast: Broadcast) -> None:
        start, end = broadcast.start, broadcast.end
        if not self._intent.write or not broadcast.whole or start is None or end is None:
            return
        if may_keep(self._request, end.finish_reason):
            answer = answers.of_stream(start, broadcast.deltas, end)
            scope, digest = self._key
            self._desk.levels.keep(scope, [(digest, answer)], self._intent.ttl)


class Viewer:
    """Turns events into what one call sends: its own as they are, another's made its own."""

    __slots__ = ("_clock", "_first_token", "_send", "_settle", "_start", "_waiter", "saved")

    def __init__(self, clock: Clock, waiter: Waiter, send: SendBytes, settle: Settle) -> None:
        self.saved = 0
        self._clock = clock
        self._waiter = waiter
        self._send = send
        self._settle = settle
        self._start = v1.StreamStart()
        self._first_token: float | None = None

    def taker(self, own: bool) -> Callable[[Event], Awaitable[None]]:
        """What takes the events of this call's own work, or of another's."""
        return self._take_own if own else self._take_shared

    async def _take_own(self, event: Event) -> None:
        if isinstance(event, bytes):
            await self._send(event)
        elif isinstance(event, v1.StreamStart):
            await self._send(v1.StreamGenerateResponse(start=event).SerializeToString())
        else:
            await self._send(v1.StreamGenerateResponse(end=event).SerializeToString())

    async def _take_shared(self, event: Event) -> None:
        if isinstance(event, bytes):
            self._mark()
            await self._send(event)
        elif isinstance(event, v1.StreamStart):
            self._start = event
            await self._send(wire.start_hit(wire.stream_start(event), self._waiter.id))
        else:
            facts = answers.facts_of_stream(self._start, event)
            self.saved = facts.saved
            kind = v1.CACHE_HIT_KIND_JOINED
            last = wire.end_hit(answers.shared_end(event), *self._times(), kind)
            await self._settle(facts, kind, self._first_token)
            await self._send(last)

    async def replay(self, hit: StreamHit, kind: v1.CacheHitKind.ValueType) -> None:
        """Sends a kept stream."""
        await self._send(hit.start(self._waiter.id))
        for event in hit.deltas():
            self._mark()
            await self._send(event)
        last = hit.end(*self._times(), kind)
        await self._settle(hit.facts, kind, self._first_token)
        await self._send(last)

    def _mark(self) -> None:
        if self._first_token is None:
            self._first_token = self._clock.monotonic()

    def _times(self) -> tuple[int, int]:
        """Microseconds from the call's start: to now, and to the first delta."""
        started, first = self._waiter.started, self._first_token
        total = round((self._clock.monotonic() - started) * 1e6)
        return total, 0 if first is None else round((first - started) * 1e6)
