"""The answer cache's second level on Redis: a trunkline_server.cache.ports.SharedStore.

Keys are `trunkline:{DIGEST}:cache:SCOPE`. The digest alone is the hash tag, so that a tenant's
answers are spread over a Cluster. Give the cache a client of its own, with a connection apart
from that of limits and budgets: a large answer on its way must not hold those up. A Redis with
`maxmemory-policy allkeys-lru` or `volatile-ttl` needs no other care.
"""

import asyncio
from collections.abc import Sequence
from urllib.parse import quote

from redis.exceptions import ResponseError

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.store.redis import RedisClient, RedisUnavailableError, Reply

# Commands sent at a time: one write, and no stall for the calls beside it.
_BATCH = 64


class RedisAnswers:
    """Values in Redis, each with its time to live. The client's timeout and breaker hold."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def get(self, scope: str, digest: bytes) -> bytes | None:
        """The value, or None. Raises SERVICE_UNAVAILABLE, as all calls here do."""
        key = _key(scope, digest)
        return _value(await self._execute(key, b"GET", key))

    async def get_many(self, scope: str, digests: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of the digests."""
        keys = [_key(scope, digest) for digest in digests]
        values: list[bytes | None] = []
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            if self._client.clustered:
                # Its keys have different owners, which no single command spans.
                replies = await asyncio.gather(*(self._execute(key, b"GET", key) for key in batch))
            else:
                reply = await self._execute(batch[0], b"MGET", *batch)
                replies = reply if isinstance(reply, list) else []
            values += map(_value, replies)
        return values

    async def put_many(self, scope: str, values: Sequence[tuple[bytes, bytes, float]]) -> None:
        """Keeps (digest, value, seconds to live) each."""
        for start in range(0, len(values), _BATCH):
            commands = []
            for digest, value, ttl in values[start : start + _BATCH]:
                key = _key(scope, digest)
                milliseconds = b"%d" % max(round(ttl * 1_000), 1)
                commands.append(self._execute(key, b"SET", key, value, b"PX", milliseconds))
            await asyncio.gather(*commands)

    async def delete(self, scope: str, digest: bytes) -> None:
        """Forgets a value."""
        key = _key(scope, digest)
        # Off the server's own thread, as values may be large.
        await self._execute(key, b"UNLINK", key)

    async def _execute(self, key: bytes, *words: bytes) -> Reply:
        try:
            return await self._client.execute(key, *words)
        except RedisUnavailableError as error:
            raise TrunklineError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, str(error)) from error
        except ResponseError as error:
            # Out of memory, a wrong type, no permission: nothing that a call could mend.
            raise TrunklineError(
                v1.ERROR_REASON_SERVICE_UNAVAILABLE, f"Redis refused {words[0].decode()}"
            ) from error


def _key(scope: str, digest: bytes) -> bytes:
    return f"trunkline:{{{digest.hex()}}}:cache:{quote(scope)}".encode()


def _value(reply: Reply) -> bytes | None:
    return reply if isinstance(reply, bytes) else None
