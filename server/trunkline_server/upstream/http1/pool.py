"""The connections to one origin."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from trunkline_server.upstream.http1.connection import Connection
from trunkline_server.upstream.http1.exchange import Fault

Open = Callable[["Pool"], Awaitable[Connection]]


class Pool:
    """At most `limit` connections, or any number when that is 0.

    The connection used last is used first, so that those not needed grow old and end. Whoever
    finds the pool full waits in line and gets a connection that becomes free, or leave to open
    one when a connection ends.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: int,
        open_connection: Open,
        live: set[Connection],
        on_lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._limit = limit
        self._open_connection = open_connection
        # The connections whose sockets are open, of all pools.
        self._live = live
        self._on_lost = on_lost
        self._idle: dict[Connection, None] = {}
        # Those that have been opened and have not ended.
        self._members: set[Connection] = set()
        # Places taken: by the members and by those being opened.
        self._count = 0
        self._line: deque[asyncio.Future[Connection | None]] = deque()

    @property
    def unused(self) -> bool:
        """True when nothing would be lost with the pool."""
        return self._count == 0 and not self._line

    def take(self) -> Connection | None:
        """An idle connection, if there is one."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.usable:
                return connection
            connection.fail(Fault.ENDED)
        return None

    async def acquire(self, *, fresh: bool) -> Connection:
        """A connection, with `fresh` one never used before; raises OSError."""
        if fresh and self._full and self._idle:
            # The oldest is the one least likely to live.
            next(iter(self._idle)).fail(Fault.ENDED)
        while self._full:
            connection = await self._wait_in_line()
            if connection is None:
                return await self._open()
            if connection.usable:
                if not fresh:
                    return connection
                self._count += 1
                connection.fail(Fault.ENDED)
                return await self._open()
        self._count += 1
        return await self._open()

    def made(self, connection: Connection) -> None:
        self._live.add(connection)

    def release(self, connection: Connection) -> None:
        """Gives a connection to whoever waits longest, or keeps it."""
        while self._line:
            waiter = self._line.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle[connection] = None

    def forget(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        # One that ends while it is being opened has no place of its own yet.
        if connection in self._members:
            self._members.discard(connection)
            self._give_up_place()

    def lost(self, connection: Connection) -> None:
        self._live.discard(connection)
        self._on_lost()

    @property
    def _full(self) -> bool:
        return 0 < self._limit <= self._count

    async def _open(self) -> Connection:
        """A new connection, for a place that is already counted."""
        try:
            connection = await self._open_connection(self)
        except BaseException:
            self._give_up_place()
            raise
        if connection.gone:
            self._give_up_place()
        else:
            self._members.add(connection)
        return connection

    async def _wait_in_line(self) -> Connection | None:
        """A connection, or None for a counted place in which to open one."""
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._line.append(waiter)
        try:
            return await waiter
        except BaseException:
            # What it was given in the same moment goes to the next in line.
            if waiter.done() and not waiter.cancelled():
                connection = waiter.result()
                if connection is None:
                    self._give_up_place()
                elif connection.usable:
                    self.release(connection)
                else:
                    connection.fail(Fault.ENDED)
            raise

    def _give_up_place(self) -> None:
        self._count -= 1
        while self._line and not self._full:
            waiter = self._line.popleft()
            if not waiter.done():
                self._count += 1
                waiter.set_result(None)
