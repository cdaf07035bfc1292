"""The client of Redis: commands and scripts, on one server, a Sentinel service or a Cluster.

A thin layer over `redis.asyncio`, whose connections it uses and whose pools and retries it does
not: each server has one pipelined channel (see redis_channel), so that the calls of one tick
share a write, and a command fails within its hard timeout whatever Redis does.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from redis.asyncio import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisError,
)

from trunkline_server.store.redis_channel import (
    ChannelPolicy,
    RedisChannel,
    RedisUnavailableError,
    Reply,
)
from trunkline_server.store.redis_url import RedisAddress, Topology, parse_redis_url

__all__ = [
    "ChannelPolicy",
    "RedisClient",
    "RedisUnavailableError",
    "Reply",
    "Script",
    "load_script",
]

Host = tuple[str, int]
Connect = Callable[[], Awaitable[Connection]]

# How many keys a server looks at before it lets others in.
_SCAN_COUNT = 1000


class Script:
    """A Lua script. Its last ARGV is the generation of the server that runs it."""

    __slots__ = ("digest", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        # SHA-1 is how Redis names scripts.
        self.digest = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


def load_script(name: str) -> Script:
    """The script in the file of that name beside this module."""
    return Script(files(__package__).joinpath(name).read_bytes())


class RedisClient:
    """One Redis, whatever its topology. Belongs to the event loop that it was started on.

    `on_change(available, what)` hears when a server goes down or comes up, and may hear the same
    twice; `what` is the server, and why it is down, each time that this changes. With a Cluster,
    `available` is False while any server in use is down. It must not raise.
    """

    def __init__(
        self,
        url: str,
        *,
        policy: ChannelPolicy | None = None,
        on_change: Callable[[bool, str], None] | None = None,
    ) -> None:
        """Raises ValueError if the URL is wrong, OSError if a file of its TLS is."""
        self._address = parse_redis_url(url)
        if self._address.tls is not None:
            self._address.tls.context()  # Wrong files are the operator's to mend, at start.
        self._policy = policy or ChannelPolicy()
        self._on_change = on_change
        self._channels: dict[Host | None, RedisChannel] = {}
        self._single: RedisChannel | None = None
        self._slots: list[Host] = []
        self._refreshing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"RedisClient({self._address.display!r})"

    @property
    def clustered(self) -> bool:
        """Whether the keys of one script must share a hash tag."""
        return self._address.topology is Topology.CLUSTER

    @property
    def available(self) -> bool:
        """Whether no server in use is known to be down."""
        return bool(self._channels) and all(one.available for one in self._channels.values())

    async def start(self) -> bool:
        """Connects, and tells whether that succeeded at once; if not, attempts go on."""
        if not self.clustered:
            self._single = self._open(None, self._address.display, self._connect_primary)
            return await self._single.first_try()
        try:
            self._slots = await self._read_slots()
        except RedisUnavailableError:
            if self._on_change is not None:
                self._on_change(False, f"{self._address.display}: no node tells of the slots")
            self._refresh()
            return False
        channels = [self._channel_of(host) for host in sorted(set(self._slots))]
        return all([await channel.first_try() for channel in channels])

    async def close(self) -> None:
        """Drops all connections."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))
        self._channels.clear()
        self._single = None

    def reachable(self, key: bytes) -> bool:
        """Whether the server of a key is not known to be down."""
        channel = self._single or self._owner(key)
        return channel is not None and channel.available

    async def execute(self, key: bytes, *words: bytes) -> Reply:
        """Carries out one command, which works on `key`: GET, SET, ...

        Raises RedisUnavailableError, or redis.ResponseError if Redis refuses the command.
        """
        return await self._send(key, words, signed=False)

    async def run(self, script: Script, keys: Sequence[bytes], *args: bytes) -> Reply:
        """Runs a script, whose keys share one hash tag. Raises as `execute` does."""
        words = (b"EVALSHA", script.digest, b"%d" % len(keys), *keys, *args)
        try:
            return await self._send(keys[0], words, signed=True, script=script)
        except NoScriptError:
            await self._send(keys[0], (b"SCRIPT", b"LOAD", script.text), signed=False)
            try:
                return await self._send(keys[0], words, signed=True, script=script)
            except NoScriptError:
                raise RedisUnavailableError("Redis forgets scripts as they are loaded") from None

    async def scan(self, pattern: bytes) -> list[bytes]:
        """The keys that match a pattern, on every server. Looks at all of them: not for the
        request path. Raises RedisUnavailableError."""
        if self._single is not None:
            channels = [self._single]
        else:
            channels = [self._channel_of(host) for host in sorted(set(self._slots))]
        if not channels:
            raise RedisUnavailableError(f"{self._address.display} is down")
        found: set[bytes] = set()
        for channel in channels:
            cursor = b"0"
            while True:
                words = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % _SCAN_COUNT)
                reply = await channel.send(words)
                match reply:
                    case [bytes() as cursor, list() as keys]:
                        found.update(key for key in keys if isinstance(key, bytes))
                    case _:
                        raise RedisUnavailableError("Redis answered SCAN with something else")
                if cursor == b"0":
                    break
        return list(found)

    async def _send(
        self, key: bytes, words: Sequence[bytes], *, signed: bool, script: Script | None = None
    ) -> Reply:
        channel = self._single or self._owner(key)
        if channel is None:
            raise RedisUnavailableError(f"{self._address.display} is down")
        try:
            return await channel.send(words, signed=signed)
        except MovedError as moved:
            owner = (moved.host, moved.port)
            # At once, for what follows before the whole map is read anew: a script may have to
            # be loaded there.
            self._slots[key_slot(key)] = owner
            self._refresh()
            return await self._channel_of(owner).send(words, signed=signed)
        except AskError as ask:
            return await self._ask(self._channel_of((ask.host, ask.port)), words, script)
        except ClusterDownError:
            self._refresh()
            raise RedisUnavailableError("the Redis cluster does not serve the slot") from None

    async def _ask(
        self, target: RedisChannel, words: Sequence[bytes], script: Script | None
    ) -> Reply:
        """Sends a command to the node to which a slot is on its way, for this one time."""
        signed = script is not None
        target.send((b"ASKING",)).add_done_callback(_consume)
        try:
            return await target.send(words, signed=signed)
        except NoScriptError:
            if script is None:
                raise
            await target.send((b"SCRIPT", b"LOAD", script.text))
            target.send((b"ASKING",)).add_done_callback(_consume)
            return await target.send(words, signed=signed)

    def _owner(self, key: bytes) -> RedisChannel | None:
        return self._channel_of(self._slots[key_slot(key)]) if self._slots else None

    def _channel_of(self, host: Host) -> RedisChannel:
        channel = self._channels.get(host)
        if channel is None:
            name = f"Redis at {host[0]}:{host[1]}"
            channel = self._open(host, name, partial(self._connect_host, host))
        return channel

    def _open(self, host: Host | None, name: str, connect: Connect) -> RedisChannel:
        channel = RedisChannel(name, connect, self._policy, self._changed)
        self._channels[host] = channel
        return channel

    def _changed(self, channel: RedisChannel) -> None:
        if self.clustered and not channel.available:
            self._refresh()
        if self._on_change is not None:
            cause = f": {channel.cause}" if channel.cause else ""
            self._on_change(self.available, f"{channel.name}{cause}")

    async def _connect_primary(self) -> Connection:
        if self._address.topology is Topology.SINGLE:
            return await self._connect_host(self._address.hosts[0])
        options = _options(self._address, self._policy.connect_timeout)
        if self._address.tls is not None:
            options["ssl"] = True
        sentinels = Sentinel(  # type: ignore[no-untyped-call]  # redis-py leaves it so.
            list(self._address.hosts), sentinel_kwargs=options
        )
        try:
            host, port = await sentinels.discover_master(self._address.service)
        finally:
            for sentinel in sentinels.sentinels:
                await sentinel.aclose()
        return await self._connect_host((host, port))

    async def _connect_host(self, host: Host) -> Connection:
        connection = _connection(self._address, host, self._policy.connect_timeout)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it so.
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    def _refresh(self) -> None:
        """Reads the cluster's map anew, in the background, one reading at a time."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh_slots())

    async def _refresh_slots(self) -> None:
        pause = self._policy.retry_seconds
        while True:
            try:
                self._slots = await self._read_slots()
            except RedisUnavailableError:
                await asyncio.sleep(pause)
                pause = min(2.0 * pause, self._policy.max_retry_seconds)
            else:
                break
        hosts = set(self._slots)
        for new in hosts - self._channels.keys():
            await self._channel_of(new).first_try()
        if self._on_change is not None:
            self._on_change(self.available, self._address.display)
        for host in [one for one in self._channels if one not in hosts]:
            await self._channels.pop(host).close()

    async def _read_slots(self) -> list[Host]:
        """The owner of each slot, by the first node that tells. Raises RedisUnavailableError."""
        known = dict.fromkeys([*self._slots, *self._address.hosts])
        for host in known:
            try:
                async with asyncio.timeout(self._policy.connect_timeout):
                    connection = await self._connect_host(host)
                    try:
                        await connection.send_command("CLUSTER", "SLOTS")
                        ranges = await connection.read_response(disable_decoding=True)
                    finally:
                        await connection.disconnect(nowait=True)
            except (OSError, RedisError):
                continue
            if slots := _owners(ranges, host):
                return slots
        raise RedisUnavailableError("no node of the Redis cluster knows the owners of all slots")


def _options(address: RedisAddress, connect_timeout: float) -> dict[str, Any]:
    """Options of redis-py's connections, of sentinels too, that leave retries to the channel."""
    options: dict[str, Any] = {
        "socket_connect_timeout": connect_timeout,
        "socket_timeout": connect_timeout,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,
        "protocol": 2,
    }
    if address.tls is not None:
        options |= {
            "ssl_ca_certs": address.tls.ca_file or None,
            "ssl_certfile": address.tls.cert_file or None,
            "ssl_keyfile": address.tls.key_file or None,
        }
    return options


def _connection(address: RedisAddress, host: Host, connect_timeout: float) -> Connection:
    options = _options(address, connect_timeout) | {
        "host": host[0],
        "port": host[1],
        "db": address.database,
        "username": address.username or None,
        "password": address.password or None,
        # The channel has timeouts of its own, and reads also while no reply is due.
        "socket_timeout": None,
    }
    return Connection(**options) if address.tls is None else SSLConnection(**options)


def _owners(ranges: Sequence[Sequence[Any]], asked: Host) -> list[Host]:
    """The host of each slot from a reply to CLUSTER SLOTS, or nothing if one has no owner.

    Each range is [first slot, last slot, [host, port, id, ...], replicas...]. A node that does
    not know its own name leaves the host empty.
    """
    slots: list[Host | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, primary, *_replicas in ranges:
        host = (bytes(primary[0] or b"").decode() or asked[0], int(primary[1]))
        slots[first : last + 1] = [host] * (last + 1 - first)
    owned = [host for host in slots if host is not None]
    return owned if len(owned) == len(slots) else []


def _consume(future: "asyncio.Future[Reply]") -> None:
    """Takes note of a failure that the next command on the channel meets as well."""
    if not future.cancelled():
        future.exception()
