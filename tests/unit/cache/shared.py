"""A level that replicas share, in memory, with a switch for trouble."""

from collections.abc import Sequence

from trunkline import v1
from trunkline_server.errors import TrunklineError


class SharedMemory:
    """A SharedStore. `away` makes every call fail as an outage does; `asked` counts calls."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, bytes], tuple[bytes, float]] = {}
        self.away = False
        self.asked = 0

    def _begin(self) -> None:
        self.asked += 1
        if self.away:
            raise TrunklineError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, "away")

    async def get(self, scope: str, digest: bytes) -> bytes | None:
        self._begin()
        value = self.values.get((scope, digest))
        return None if value is None else value[0]

    async def get_many(self, scope: str, digests: Sequence[bytes]) -> list[bytes | None]:
        self._begin()
        found = [self.values.get((scope, digest)) for digest in digests]
        return [None if value is None else value[0] for value in found]

    async def put_many(self, scope: str, values: Sequence[tuple[bytes, bytes, float]]) -> None:
        self._begin()
        for digest, value, ttl in values:
            self.values[scope, digest] = (value, ttl)

    async def delete(self, scope: str, digest: bytes) -> None:
        self._begin()
        self.values.pop((scope, digest), None)
