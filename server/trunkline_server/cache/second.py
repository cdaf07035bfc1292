"""The second level: what all replicas share, never trusted and never waited for to write."""

from collections.abc import Sequence
from typing import NamedTuple

from trunkline_server.cache import frame
from trunkline_server.cache.flights import Tasks
from trunkline_server.cache.frame import Value
from trunkline_server.cache.ports import SharedStore
from trunkline_server.cache.stats import Stats
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError

# What may be on its way to the store at one time, in bytes; more is not written.
_MOST_WRITING = 8 * 2**20


class Found(NamedTuple):
    """A value and the seconds that it may still be kept."""

    value: Value
    ttl: float


class SecondLevel:
    """Reads and writes values in a SharedStore. An outage is a miss; it is counted."""

    def __init__(self, store: SharedStore, clock: Clock, stats: Stats, entry_bytes: int) -> None:
        self._store = store
        self._clock = clock
        self._tasks = Tasks()
        self._stats = stats
        self._limit = entry_bytes
        self._writing = 0

    async def get(self, scope: str, digest: bytes) -> Found | None:
        """One value."""
        try:
            data = await self._store.get(scope, digest)
        except TrunklineError:
            self._stats.shared_errors += 1
            return None
        return None if data is None else self._read(scope, digest, data)

    async def get_many(self, scope: str, digests: Sequence[bytes]) -> list[Found | None]:
        """Values in the order of the digests."""
        try:
            values = await self._store.get_many(scope, digests)
        except TrunklineError:
            self._stats.shared_errors += 1
            return [None] * len(digests)
        return [
            None if data is None else self._read(scope, digest, data)
            for digest, data in zip(digests, values, strict=True)
        ]

    def put_soon(self, scope: str, values: Sequence[tuple[bytes, Value]], ttl: float) -> None:
        """Writes values in the background, each for `ttl` seconds."""
        size = sum(value.size for _, value in values)
        if self._writing + size > _MOST_WRITING:
            self._stats.shared_dropped += len(values)
            return
        self._writing += size
        self._tasks.start(self._put(scope, values, ttl, size))

    async def flush(self) -> None:
        """Waits until what was begun in the background is over."""
        await self._tasks.wait()

    async def close(self) -> None:
        """Ends what is under way in the background."""
        await self._tasks.close()

    async def _put(
        self, scope: str, values: Sequence[tuple[bytes, Value]], ttl: float, size: int
    ) -> None:
        expiry = self._clock.wall() + ttl
        try:
            await self._store.put_many(
                scope,
                [(digest, frame.encode(digest, value, expiry), ttl) for digest, value in values],
            )
        except TrunklineError:
            self._stats.shared_errors += 1
        finally:
            self._writing -= size

    def _read(self, scope: str, digest: bytes, data: bytes) -> Found | None:
        try:
            value, expiry = frame.decode(digest, data, self._limit)
        except frame.CorruptError:
            self._stats.shared_corrupt += 1
            self._tasks.start(self._delete(scope, digest))
            return None
        ttl = expiry - self._clock.wall()
        return Found(value, ttl) if ttl > 0 else None

    async def _delete(self, scope: str, digest: bytes) -> None:
        try:
            await self._store.delete(scope, digest)
        except TrunklineError:
            self._stats.shared_errors += 1
