"""The HTTP client on httptools."""

import asyncio
import os
import ssl

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream import accounts
from trunkline_server.upstream.http import HttpRequest, HttpResponse
from trunkline_server.upstream.http1.connection import Connection
from trunkline_server.upstream.http1.dial import Resolver, dial
from trunkline_server.upstream.http1.exchange import Exchange, Fault
from trunkline_server.upstream.http1.pool import Pool
from trunkline_server.upstream.http1.request import Origin, RequestEncoder
from trunkline_server.upstream.http1.stream import Http1Stream

# Beyond this many origins, those without connections are forgotten.
_MANY_ORIGINS = 256


class Http1Client:
    """Implements HttpClient. To be made inside a running event loop, one for each loop.

    `max_connections_per_origin` bounds the pools; 0 means no bound. A request that finds its
    pool full waits for a connection within its connect_timeout. `idle_seconds` is how long an
    unused connection is kept. `ca_file` replaces the system's authorities. It knows no proxies.

    Both calls raise ValueError, before anything is sent, for a method, URL or header that HTTP
    cannot carry.

    Fetched bodies may come compressed and are bounded as they are decompressed. Streams are
    asked for uncompressed, because intermediaries that compress hold events back; one that
    comes compressed all the same is unpacked as it arrives.
    """

    def __init__(
        self,
        *,
        max_connections_per_origin: int = 0,
        idle_seconds: float = 30.0,
        dns_cache_seconds: float = 30.0,
        ca_file: str | os.PathLike[str] | None = None,
        user_agent: str = "trunkline",
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._tls.set_alpn_protocols(["http/1.1"])
        self._resolver = Resolver(self._loop, dns_cache_seconds)
        self._limit = max_connections_per_origin
        self._idle_seconds = idle_seconds
        self._unary = RequestEncoder(user_agent, "gzip, deflate")
        self._streamed = RequestEncoder(user_agent, "identity")
        self._pools: dict[Origin, Pool] = {}
        self._live: set[Connection] = set()
        # The time limits of those who are getting a connection.
        self._connecting: set[asyncio.Timeout] = set()
        self._closed = False
        self._all_lost = asyncio.Event()

    async def fetch(self, request: HttpRequest) -> HttpResponse:
        origin, exchange = await self._perform(request, self._unary, gather=True)
        if exchange.complete and exchange.gather:
            return HttpResponse(exchange.status, exchange.headers, exchange.hand_out())
        stream = Http1Stream(exchange, request, origin.peer)
        return HttpResponse(stream.status, stream.headers, await stream.read())

    async def open(self, request: HttpRequest) -> Http1Stream:
        origin, exchange = await self._perform(request, self._streamed, gather=False)
        # What was sent may be large, and is not kept for as long as the answer takes.
        return Http1Stream(exchange, request._replace(body=b""), origin.peer)

    async def close(self) -> None:
        self._closed = True
        for timer in self._connecting:
            timer.reschedule(self._loop.time())
        for connection in list(self._live):
            connection.fail(Fault.ENDED)
        while self._live:
            self._all_lost.clear()
            await self._all_lost.wait()

    async def _perform(
        self, request: HttpRequest, encoder: RequestEncoder, *, gather: bool
    ) -> tuple[Origin, Exchange]:
        """The exchange once its headers have arrived or, if gathered, its body; after at most
        one repetition."""
        origin, head = encoder.encode(request)
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._new_pool(origin)
        exchange: Exchange
        for fresh in (False, True):
            connection = None if fresh else pool.take()
            if connection is None:
                if self._closed:
                    raise _closed(origin)
                connection = await self._connect(origin, pool, request, fresh=fresh)
            exchange = Exchange(self._loop, request.max_body_bytes, gather=gather)
            connection.begin(exchange, head, request.body, request.header_timeout)
            try:
                await exchange.woken
            except BaseException:
                # A task that is cancelled here closes the connection.
                exchange.abort()
                raise
            if not exchange.repeatable or self._closed:
                break
        if exchange.fault is not None and (gather or not exchange.status):
            raise exchange.error(request, origin.peer)
        return origin, exchange

    async def _connect(
        self, origin: Origin, pool: Pool, request: HttpRequest, *, fresh: bool
    ) -> Connection:
        timer = asyncio.timeout(request.connect_timeout)
        self._connecting.add(timer)
        try:
            async with timer:
                connection = await pool.acquire(fresh=fresh)
        except OSError as error:
            reason, account = _no_connection(error, request)
            refusal = UpstreamError(reason, f"{origin.peer}: {account}", sent=False)
        else:
            if not self._closed:
                return connection
            connection.fail(Fault.ENDED)
        finally:
            self._connecting.discard(timer)
        # Raised out here, without the network's own error as its context.
        raise _closed(origin) if self._closed else refusal

    def _new_pool(self, origin: Origin) -> Pool:
        if len(self._pools) >= _MANY_ORIGINS:
            self._pools = {at: pool for at, pool in self._pools.items() if not pool.unused}

        async def open_connection(pool: Pool) -> Connection:
            return await dial(
                self._loop,
                self._resolver,
                origin,
                self._tls,
                lambda: Connection(self._loop, pool, self._idle_seconds),
            )

        pool = Pool(self._loop, self._limit, open_connection, self._live, self._all_lost.set)
        self._pools[origin] = pool
        return pool


def _closed(origin: Origin) -> UpstreamError:
    account = f"{origin.peer}: {accounts.CLOSED}"
    return UpstreamError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, account, sent=False)


def _no_connection(error: OSError, request: HttpRequest) -> tuple[v1.ErrorReason.ValueType, str]:
    """Why no connection could be had."""
    if isinstance(error, TimeoutError):
        return v1.ERROR_REASON_TIMEOUT, accounts.late_connection(request)
    return v1.ERROR_REASON_SERVICE_UNAVAILABLE, accounts.unreachable(error)
