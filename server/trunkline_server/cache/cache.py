"""The answer cache as the engine sees it: look first, at once; then wait, if at all.

    found = cache.lookup(request, caller, source)
    Hit:     hand out found.response(id, total_us), which is serialised already
    Flight:  await found.answer(waiter, work)
    None:    carry the call out; the cache has no part in it

`work` carries the call out as it would be without the cache, in a task of its own and once for
all identical calls that are under way. Its books are those of the call that brought it, even
when that call goes away and others wait on; the others spent nothing, and are told what they
saved.
"""

from trunkline import v1
from trunkline_server.cache.answers import Answer
from trunkline_server.cache.embeddings import Batch, EmbedDesk, EmbedFlight, EmbedHit, alike
from trunkline_server.cache.flights import Flights, Key, Tasks
from trunkline_server.cache.generation import (
    Desk,
    Flight,
    Hit,
    Made,
    StreamFlight,
    StreamHit,
)
from trunkline_server.cache.key import embed_keys, fingerprint, generate_key, scope_of
from trunkline_server.cache.levels import Bounds, Levels
from trunkline_server.cache.policy import (
    Rules,
    Source,
    cache_miss,
    embed_intent,
    generate_intent,
)
from trunkline_server.cache.ports import Caller, SharedStore, Waiter
from trunkline_server.cache.stats import Stats
from trunkline_server.cache.streams import Streams
from trunkline_server.cache.vectors import Vector
from trunkline_server.clock import Clock

__all__ = [
    "AnswerCache",
    "Bounds",
    "EmbedFlight",
    "EmbedHit",
    "Flight",
    "Hit",
    "Key",
    "Rules",
    "Source",
    "Stats",
    "StreamFlight",
    "StreamHit",
    "Waiter",
    "fingerprint",
    "scope_of",
]


class AnswerCache:
    """One process's cache. Not thread-safe: it belongs to one event loop.

    `store` is the level that the replicas share; without one there is the memory alone.
    """

    def __init__(self, bounds: Bounds, clock: Clock, store: SharedStore | None = None) -> None:
        self.stats = Stats()
        self._tasks = Tasks()
        self._levels = Levels(bounds, clock, self.stats, store)
        flights: Flights[Made] = Flights(clock, self._tasks)
        streams = Streams(clock, self._tasks, bounds.stream_window, bounds.entry_bytes)
        self._desk = Desk(self._levels, flights, streams, self.stats, clock)
        batches: Flights[Batch] = Flights(clock, self._tasks)
        self._embed_desk = EmbedDesk(self._levels, batches, self.stats)

    @property
    def memory_bytes(self) -> int:
        """The bytes that the memory holds now."""
        return self._levels.memory.used

    @property
    def entries(self) -> int:
        """The values that the memory holds now."""
        return self._levels.memory.count

    def lookup(
        self, request: v1.GenerateRequest, caller: Caller, source: Source
    ) -> Hit | Flight | None:
        """What the cache has for a unary generation. Raises CACHE_MISS."""
        intent = generate_intent(request, source.rules)
        if intent is None:
            return None
        scope = scope_of(caller)
        digest = generate_key(request, scope, source)
        if intent.read:
            answer = self._levels.peek(scope, digest)
            if isinstance(answer, Answer):
                whole = answer.whole()
                if whole is not None and whole.body is not None:
                    if whole is not answer:
                        self._levels.reshape(scope, digest, whole)
                    self._count(answer)
                    return Hit(whole.facts, whole.body, key=(scope, digest))
        if intent.only and self._levels.second is None:
            raise cache_miss()
        return Flight(self._desk, request, (scope, digest), intent)

    def again(self, key: Key) -> Hit | None:
        """What the memory still has where a hit was found before, by its key."""
        answer = self._levels.peek(*key)
        if not isinstance(answer, Answer) or answer.body is None:
            return None
        self._count(answer)
        return Hit(answer.facts, answer.body, key=key)

    def lookup_stream(
        self, request: v1.GenerateRequest, caller: Caller, source: Source
    ) -> StreamHit | StreamFlight | None:
        """What the cache has for a streamed generation. Raises CACHE_MISS."""
        intent = generate_intent(request, source.rules)
        if intent is None:
            return None
        scope = scope_of(caller)
        digest = generate_key(request, scope, source)
        if intent.read:
            answer = self._levels.peek(scope, digest)
            if isinstance(answer, Answer):
                streamed = answer.streamed()
                if streamed is not None and streamed.stream is not None:
                    if streamed is not answer:
                        self._levels.reshape(scope, digest, streamed)
                    self._count(answer)
                    return StreamHit(streamed.facts, streamed.stream)
        if intent.only and self._levels.second is None:
            raise cache_miss()
        return StreamFlight(self._desk, request, (scope, digest), intent)

    def lookup_embed(
        self, request: v1.EmbedRequest, caller: Caller, source: Source
    ) -> EmbedHit | EmbedFlight | None:
        """What the cache has for an embedding. Raises CACHE_MISS."""
        intent = embed_intent(request, source.rules)
        if intent is None:
            return None
        scope = scope_of(caller)
        digests = embed_keys(request, scope, source)
        kept: dict[bytes, Vector] = {}
        if intent.read:
            for digest in digests:
                value = self._levels.peek(scope, digest)
                if isinstance(value, Vector):
                    kept[digest] = value
            if all(digest in kept for digest in digests) and alike(kept.values()):
                hit = EmbedHit([kept[digest] for digest in digests])
                self.stats.memory_hits += len(digests)
                self.stats.saved_nanos += hit.saved
                return hit
        if intent.only and self._levels.second is None:
            raise cache_miss()
        return EmbedFlight(
            self._embed_desk, request, intent, source, scope=scope, digests=digests, kept=kept
        )

    def forget(self, caller: Caller) -> None:
        """Drops from memory all that the caller's scope holds."""
        self._levels.memory.clear(scope_of(caller))

    async def flush(self) -> None:
        """Waits until what goes to the second level in the background is there, or lost."""
        if self._levels.second is not None:
            await self._levels.second.flush()

    async def close(self) -> None:
        """Ends the work under way and the writing to the second level."""
        await self._tasks.close()
        if self._levels.second is not None:
            await self._levels.second.close()

    def _count(self, answer: Answer) -> None:
        self.stats.memory_hits += 1
        self.stats.saved_nanos += answer.facts.saved
