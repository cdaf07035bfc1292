"""Embeddings and the cache: each input on its own, and one call for those not kept.

Vectors of different models have nothing to do with each other, so one answer only ever holds
those of one: kept ones are mixed with new ones only where a route has a single model, and not
if the vendor has put another one behind its name since.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from trunkline import v1
from trunkline_server.cache import wire
from trunkline_server.cache.flights import Flights
from trunkline_server.cache.levels import Levels
from trunkline_server.cache.policy import Intent, Source, cache_miss
from trunkline_server.cache.ports import Waiter
from trunkline_server.cache.stats import Stats
from trunkline_server.cache.vectors import Vector, vectors_of
from trunkline_server.errors import TrunklineError

EmbedWork = Callable[[v1.EmbedRequest], Awaitable[v1.EmbedResponse]]
# A response, and its vectors by digest.
Batch = tuple[v1.EmbedResponse, dict[bytes, Vector]]


@dataclass(frozen=True, slots=True)
class EmbedHit:
    """Vectors that were there, in the order of the inputs. This call makes no attempt, and
    costs nothing. Who answered is said of the first input's vector."""

    vectors: Sequence[Vector]
    kind: v1.CacheHitKind.ValueType = v1.CACHE_HIT_KIND_MEMORY

    @property
    def saved(self) -> int:
        """What the vectors cost when they were made, in nanos of a US dollar."""
        return sum(vector.saved for vector in self.vectors)

    @property
    def model(self) -> str:
        """The vendor's name of the model that made them."""
        return v1.EmbedResponse.FromString(self.vectors[0].head).model

    def response(self, call_id: str, total_us: int) -> bytes:
        """The serialised EmbedResponse of this call."""
        frames = [vector.frame for vector in self.vectors]
        saved = _saved(self.vectors)
        head = self.vectors[0].head
        return wire.embed_hit(head, frames, call_id, total_us, kind=self.kind, saved=saved)


def _saved(vectors: Iterable[Vector]) -> v1.Cost:
    """What vectors cost together. Each has its part of a call's cost by length, which is an
    estimate."""
    held = list(vectors)
    unpriced = any(vector.unpriced for vector in held)
    return v1.Cost(total=sum(v.saved for v in held), unpriced=unpriced, estimated=True)


@dataclass(slots=True)
class EmbedDesk:
    """What all flights work with."""

    levels: Levels
    flights: Flights[Batch]
    stats: Stats


def alike(vectors: Iterable[Vector]) -> bool:
    """Whether all vectors come from one model, so that one answer may hold them."""
    return len({vector.space for vector in vectors}) <= 1


class EmbedFlight:
    """An embedding that has to wait. `digests` are the inputs' in order, `kept` what the
    memory has of them."""

    __slots__ = ("_desk", "_digests", "_intent", "_kept", "_kind", "_request", "_scope", "_source")

    def __init__(
        self,
        desk: EmbedDesk,
        request: v1.EmbedRequest,
        intent: Intent,
        source: Source,
        *,
        scope: str,
        digests: Sequence[bytes],
        kept: dict[bytes, Vector],
    ) -> None:
        self._desk = desk
        self._request = request
        self._intent = intent
        self._source = source
        self._scope = scope
        self._digests = digests
        self._kept = kept
        self._kind: v1.CacheHitKind.ValueType = v1.CACHE_HIT_KIND_MEMORY

    @property
    def saved(self) -> int:
        """What the vectors found so far cost when they were made, in nanos of a US dollar."""
        return sum(self._kept[d].saved for d in self._digests if d in self._kept)

    @property
    def status(self) -> v1.CacheStatus.ValueType:
        """What the cache does for this call if its own work makes some of the answer."""
        return v1.CACHE_STATUS_MISS if self._intent.read else v1.CACHE_STATUS_BYPASS

    async def answer(self, waiter: Waiter, work: EmbedWork) -> v1.EmbedResponse | EmbedHit:
        """The response of `work`, with the kept vectors put among its own, or a hit.

        `work` carries out a request for fewer inputs, each once: what it consumed and cost is
        that of the misses. It is run anew for all inputs should the vendor have changed the
        model. Raises what the work raised, TrunklineError with TIMEOUT at the deadline, and
        with CACHE_MISS if only a cached answer is wanted.
        """
        if self._intent.read:
            await self._fetch()
        kept = self._kept
        missing = [digest for digest in dict.fromkeys(self._digests) if digest not in kept]
        if not missing and alike(kept.values()):
            return self._hit(kept)
        if self._intent.only:
            raise cache_miss()
        if not self._source.one_model or not alike(kept.values()):
            kept = self._kept = {}
            missing = list(dict.fromkeys(self._digests))
        (response, made), led = await self._make(waiter, work, missing)
        if not alike([*kept.values(), *made.values()]):
            kept = self._kept = {}
            everything = list(dict.fromkeys(self._digests))
            (response, made), led_again = await self._make(waiter, work, everything)
            led = led or led_again
        self._count(kept, led)
        vectors = kept | made
        if led:
            return self._merged(response, vectors, made)
        self._kind = v1.CACHE_HIT_KIND_JOINED
        return self._hit(vectors)

    async def _fetch(self) -> None:
        here = sum(digest in self._kept for digest in self._digests)
        self._desk.stats.memory_hits += here
        missing = [d for d in dict.fromkeys(self._digests) if d not in self._kept]
        found = await self._desk.levels.fetch_many(self._scope, missing)
        for digest, value in zip(missing, found, strict=True):
            if isinstance(value, Vector):
                self._kept[digest] = value
        total = sum(digest in self._kept for digest in self._digests)
        self._desk.stats.shared_hits += total - here
        if total > here:
            self._kind = v1.CACHE_HIT_KIND_SHARED

    async def _make(
        self, waiter: Waiter, work: EmbedWork, digests: list[bytes]
    ) -> tuple[Batch, bool]:
        texts = dict(zip(self._digests, self._request.inputs, strict=True))
        inputs = [texts[digest] for digest in digests]

        async def make() -> Batch:
            request = self._request
            if inputs != list(request.inputs):
                request = v1.EmbedRequest()
                request.CopyFrom(self._request)
                del request.inputs[:]
                request.inputs.extend(inputs)
            response = await work(request)
            if len(response.embeddings) != len(inputs):
                raise TrunklineError(
                    v1.ERROR_REASON_BAD_PROVIDER_RESPONSE,
                    f"{response.provider}: {len(response.embeddings)} vectors for "
                    f"{len(inputs)} inputs",
                    metadata={"provider": response.provider},
                )
            made = list(zip(digests, vectors_of(response, inputs), strict=True))
            if self._intent.write:
                self._desk.levels.keep(self._scope, made, self._intent.ttl)
            return response, dict(made)

        if not self._intent.read:
            return await make(), True
        digest = hashlib.sha256(b"".join(digests)).digest()
        return await self._desk.flights.run(
            (self._scope, digest), waiter.deadline, make, waiter.extend
        )

    def _merged(
        self, response: v1.EmbedResponse, vectors: dict[bytes, Vector], made: dict[bytes, Vector]
    ) -> v1.EmbedResponse:
        """The response with a vector for each input; as it is if it has just these."""
        if list(made) == list(self._digests):
            return response
        merged = v1.EmbedResponse()
        merged.CopyFrom(response)
        del merged.embeddings[:]
        merged.MergeFromString(b"".join([vectors[digest].frame for digest in self._digests]))
        kept = [vectors[digest] for digest in self._digests if digest not in made]
        if kept:
            merged.cached_inputs = len(kept)
            merged.saved.CopyFrom(_saved(kept))
        return merged

    def _hit(self, vectors: dict[bytes, Vector]) -> EmbedHit:
        hit = EmbedHit([vectors[digest] for digest in self._digests], self._kind)
        self._desk.stats.saved_nanos += hit.saved
        return hit

    def _count(self, kept: dict[bytes, Vector], led: bool) -> None:
        stats = self._desk.stats
        rest = sum(digest not in kept for digest in self._digests)
        if led:
            stats.misses += rest
            stats.saved_nanos += sum(vector.saved for vector in kept.values())
        else:
            stats.joined += rest
