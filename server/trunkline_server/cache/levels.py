"""Both levels as one: memory first, then what the replicas share, which fills the memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from trunkline_server.cache.frame import Value
from trunkline_server.cache.memory import Memory
from trunkline_server.cache.ports import SharedStore
from trunkline_server.cache.second import SecondLevel
from trunkline_server.cache.stats import Stats
from trunkline_server.clock import Clock


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the cache may take: of memory in all, the part of it for one scope, and for one
    value. A shared stream may be `stream_window` bytes ahead of its fastest reader."""

    memory_bytes: int = 64 * 2**20
    share: float = 1.0
    entry_bytes: int = 2**20
    stream_window: int = 16 * 2**10


class Levels:
    """Values by scope and digest. Times to live are seconds."""

    def __init__(
        self, bounds: Bounds, clock: Clock, stats: Stats, store: SharedStore | None
    ) -> None:
        self.memory: Memory[Value] = Memory(bounds.memory_bytes, bounds.share)
        self.second = (
            None
            if store is None
            else SecondLevel(store, clock, stats, entry_bytes=bounds.entry_bytes)
        )
        self._clock = clock
        self._stats = stats
        self._most = bounds.entry_bytes

    def peek(self, scope: str, digest: bytes) -> Value | None:
        """What the memory has."""
        return self.memory.get(scope, digest, self._clock.monotonic())

    async def fetch(self, scope: str, digest: bytes) -> Value | None:
        """What the memory has by now, or the second level; from now on both have it."""
        value = self.peek(scope, digest)
        if value is not None or self.second is None:
            return value
        found = await self.second.get(scope, digest)
        if found is None:
            return None
        self._hold(scope, digest, found.value, found.ttl)
        return found.value

    async def fetch_many(self, scope: str, digests: Sequence[bytes]) -> list[Value | None]:
        """What the second level has, in the order of the digests, from now on also in memory."""
        if self.second is None:
            return [None] * len(digests)
        values: list[Value | None] = []
        for digest, found in zip(digests, await self.second.get_many(scope, digests), strict=True):
            if found is not None:
                self._hold(scope, digest, found.value, found.ttl)
            values.append(None if found is None else found.value)
        return values

    def keep(self, scope: str, values: Sequence[tuple[bytes, Value]], ttl: float) -> None:
        """Keeps values in both levels, in the second one soon. Too large ones are not kept."""
        fitting = [pair for pair in values if pair[1].size <= self._most]
        self._stats.stored += len(fitting)
        self._stats.too_large += len(values) - len(fitting)
        for digest, value in fitting:
            self._hold(scope, digest, value, ttl)
        if self.second is not None and fitting:
            self.second.put_soon(scope, fitting, ttl)

    def reshape(self, scope: str, digest: bytes, value: Value) -> None:
        """Puts another form of a value that the memory has in its place, for as long."""
        expires = self.memory.expires(scope, digest)
        if expires is not None and value.size <= self._most:
            now = self._clock.monotonic()
            self.memory.put(scope, digest, value, value.size, expires=expires, now=now)

    def _hold(self, scope: str, digest: bytes, value: Value, ttl: float) -> None:
        now = self._clock.monotonic()
        self.memory.put(scope, digest, value, value.size, expires=now + ttl, now=now)
