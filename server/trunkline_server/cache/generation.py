"""One generation and the cache: a hit, or a flight that waits for the answer."""

import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from trunkline import v1
from trunkline_server.cache import answers, wire
from trunkline_server.cache.answers import Answer, Facts, Streamed
from trunkline_server.cache.broadcast import Broadcast, Event
from trunkline_server.cache.flights import Extend, Flights, Key
from trunkline_server.cache.levels import Levels
from trunkline_server.cache.policy import Intent, cache_miss, may_keep
from trunkline_server.cache.stats import Stats
from trunkline_server.cache.streams import Streams
from trunkline_server.clock import Clock

Work = Callable[[], Awaitable[v1.GenerateResponse]]
SendEvent = Callable[[v1.StreamGenerateResponse], Awaitable[None]]
StreamWork = Callable[[SendEvent], Awaitable[None]]
SendBytes = Callable[[bytes], Awaitable[None]]


@dataclass(slots=True)
class Waiter:
    """A call that waits: its id, its start and its deadline in monotonic seconds. `extend`
    hears of later deadlines among those who wait for this call's work, which should then go
    on until them."""

    id: str
    started: float
    deadline: float
    extend: Extend | None = None


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

    def response(self, call_id: str, total_us: int) -> bytes:
        """The serialised GenerateResponse of this call."""
        return wire.generate_hit(self.body, call_id, total_us)


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

    def end(self, total_us: int, first_token_us: int) -> bytes:
        """The serialised last event of this call."""
        return wire.end_hit(self.stream.end, total_us, first_token_us)


def unary_hit(answer: Answer) -> Hit | None:
    """The hit that an answer is; None if it lacks the form."""
    return None if answer.body is None else Hit(answer.facts, answer.body)


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
        hit = unary_hit(answer)
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


@dataclass(frozen=True, slots=True)
class Relayed:
    """How a stream was given. `facts` is None if this call's own work made it; the books of
    that are its own. `first_token` is in monotonic seconds, None without any delta."""

    facts: Facts | None
    first_token: float | None


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

    async def relay(self, waiter: Waiter, work: StreamWork, send: SendBytes) -> Relayed:
        """Hands every event of the answer to `send`, serialised.

        `work` sends the events that this call would send without the cache. Raises as
        Flight.answer does.
        """
        desk = self._desk
        viewer = _Viewer(desk.clock, waiter, send)
        if self._intent.only:
            found = await self._fetch()
            if found is None:
                raise cache_miss()
            return await self._replay(found, viewer)
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
            return await self._replay(found, viewer, joined=not led)
        if led:
            desk.stats.misses += self._intent.read
            return Relayed(None, viewer.first_token)
        if viewer.facts is None:
            raise AssertionError("a stream that ends in order has sent its end")
        desk.stats.saved_nanos += viewer.facts.saved
        return Relayed(viewer.facts, viewer.first_token)

    async def _fetch(self) -> Answer | None:
        value = await self._desk.levels.fetch(*self._key)
        return value.streamed() if isinstance(value, Answer) else None

    async def _replay(self, answer: Answer, viewer: "_Viewer", *, joined: bool = False) -> Relayed:
        if answer.stream is None:
            raise AssertionError("an answer of a stream's flight is streamed")
        await viewer.replay(StreamHit(answer.facts, answer.stream))
        self._desk.stats.shared_hits += not joined
        self._desk.stats.saved_nanos += answer.facts.saved
        return Relayed(answer.facts, viewer.first_token)

    def _keep(self, broadcast: Broadcast) -> None:
        start, end = broadcast.start, broadcast.end
        if not self._intent.write or not broadcast.whole or start is None or end is None:
            return
        if may_keep(self._request, end.finish_reason):
            answer = answers.of_stream(start, broadcast.deltas, end)
            scope, digest = self._key
            self._desk.levels.keep(scope, [(digest, answer)], self._intent.ttl)


class _Viewer:
    """Turns events into what one call sends: its own as they are, another's made its own."""

    __slots__ = ("_clock", "_send", "_start", "_waiter", "facts", "first_token")

    def __init__(self, clock: Clock, waiter: Waiter, send: SendBytes) -> None:
        self.facts: Facts | None = None
        self._clock = clock
        self._waiter = waiter
        self._send = send
        self._start = v1.StreamStart()
        self.first_token: float | None = None

    def taker(self, own: bool) -> Callable[[Event], Awaitable[None]]:
        """What takes the events of this call's own work, or of another's."""
        return self._take_own if own else self._take_shared

    async def _take_own(self, event: Event) -> None:
        if isinstance(event, bytes):
            self._mark()
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
            self.facts = answers.facts_of_stream(self._start, event)
            await self._send(wire.end_hit(wire.stream_end(event), *self._times()))

    async def replay(self, hit: StreamHit) -> None:
        """Sends a kept stream."""
        await self._send(hit.start(self._waiter.id))
        for event in hit.deltas():
            self._mark()
            await self._send(event)
        await self._send(hit.end(*self._times()))

    def _mark(self) -> None:
        if self.first_token is None:
            self.first_token = self._clock.monotonic()

    def _times(self) -> tuple[int, int]:
        """Microseconds from the call's start: to now, and to the first delta."""
        started, first = self._waiter.started, self.first_token
        total = round((self._clock.monotonic() - started) * 1e6)
        return total, 0 if first is None else round((first - started) * 1e6)
