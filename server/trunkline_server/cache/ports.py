"""What the answer cache asks of others."""

from collections.abc import Callable, Sequence
from typing import Protocol


class Caller(Protocol):
    """Who makes a call."""

    @property
    def name(self) -> str:
        """The name that `source` knows the caller by."""
        ...

    @property
    def source(self) -> str:
        """The record that vouches for the caller; with the name it tells callers apart."""
        ...

    @property
    def tenant(self) -> str:
        """The tenant's id; empty where there are no tenants."""
        ...


class Waiter(Protocol):
    """A call that waits. Times are monotonic seconds."""

    @property
    def id(self) -> str:
        """The call's id."""
        ...

    @property
    def started(self) -> float:
        """When the call began."""
        ...

    @property
    def deadline(self) -> float:
        """Until when it waits."""
        ...

    @property
    def extend(self) -> Callable[[float], None] | None:
        """Hears of later deadlines among those who wait for this call's work, which should then
        go on until them."""
        ...


class SharedStore(Protocol):
    """Values that all replicas see, by scope (whose they are) and digest.

    Every call ends within the store's own hard timeout, and raises TrunklineError with
    SERVICE_UNAVAILABLE when the store is away, too slow, or given up on for a while.
    """

    async def get(self, scope: str, digest: bytes) -> bytes | None:
        """The value, or None."""
        ...

    async def get_many(self, scope: str, digests: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of the digests, in one round trip."""
        ...

    async def put_many(self, scope: str, values: Sequence[tuple[bytes, bytes, float]]) -> None:
        """Keeps (digest, value, seconds to live) each, in one round trip."""
        ...

    async def delete(self, scope: str, digest: bytes) -> None:
        """Forgets a value; no harm if there is none."""
        ...
