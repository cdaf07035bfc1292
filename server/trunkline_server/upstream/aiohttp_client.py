"""The HTTP client on aiohttp."""

import asyncio
import functools
import io
import os
import ssl
import urllib.request
from typing import NamedTuple

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream import accounts
from trunkline_server.upstream.aiohttp_failure import Failure
from trunkline_server.upstream.aiohttp_pool import Attempt, Pool, current_attempt
from trunkline_server.upstream.aiohttp_stream import AiohttpStream
from trunkline_server.upstream.http import HttpRequest, HttpResponse

# Vendors send long policy headers, and many; aiohttp's own bounds are 8 KiB each and 128.
_MAX_HEADER_BYTES = 32 * 1024
_MAX_HEADERS = 256
# The reader stops taking from the socket when twice this much has not been consumed.
_READ_BUFFER_BYTES = 64 * 1024
# aiohttp writes larger bodies piecewise only when they come as files, and warns otherwise.
_WRITE_WHOLE_BYTES = 1024 * 1024


class _Origin(NamedTuple):
    """Where a URL leads: parsed, as host:port for messages, and through which proxy."""

    url: URL
    peer: str
    proxy: URL | None


class AiohttpClient:
    """Implements HttpClient. To be made inside a running event loop, one for each loop.

    `max_connections` and `max_connections_per_origin` bound the pool; 0 means no bound. A
    request that finds it full waits for a connection within its connect_timeout.
    `idle_seconds` is how long an unused connection is kept. `ca_file` replaces the system's
    authorities. `trust_env` takes proxies from the environment, once, when the client is made.

    Fetched bodies may come compressed and are bounded as they are decompressed. Streams are
    asked for uncompressed, because intermediaries that compress hold events back.
    """

    def __init__(
        self,
        *,
        max_connections: int = 0,
        max_connections_per_origin: int = 0,
        idle_seconds: float = 30.0,
        dns_cache_seconds: int = 30,
        ca_file: str | os.PathLike[str] | None = None,
        trust_env: bool = False,
        user_agent: str = "trunkline",
    ) -> None:
        tls = ssl.create_default_context(cafile=ca_file)
        tls.set_alpn_protocols(["http/1.1"])
        self._session = aiohttp.ClientSession(
            connector=Pool(
                limit=max_connections,
                limit_per_host=max_connections_per_origin,
                keepalive_timeout=idle_seconds,
                ttl_dns_cache=dns_cache_seconds,
                ssl=tls,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Time is kept by the attempt's own timer, phase by phase.
            timeout=aiohttp.ClientTimeout(),
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            max_headers=_MAX_HEADERS,
        )
        # aiohttp repeats idempotent requests after any disconnection. Here one rule serves
        # all methods: Failure.repeatable.
        self._session._retry_connection = False
        self._user_agent = user_agent
        self._proxies = urllib.request.getproxies() if trust_env else {}
        self._origin = functools.lru_cache(maxsize=1024)(self._resolve_origin)

    async def fetch(self, request: HttpRequest) -> HttpResponse:
        stream = await self._send(request, "gzip, deflate")
        return HttpResponse(stream.status, stream.headers, await stream.read())

    async def open(self, request: HttpRequest) -> AiohttpStream:
        return await self._send(request, "identity")

    async def close(self) -> None:
        await self._session.close()

    def _resolve_origin(self, url: str) -> _Origin:
        parsed = URL(url, encoded=True)
        peer = f"{parsed.host_subcomponent}:{parsed.port}"
        proxy = self._proxies.get(parsed.scheme)
        if proxy is None or urllib.request.proxy_bypass(parsed.host or ""):
            return _Origin(parsed, peer, None)
        return _Origin(parsed, peer, URL(proxy))

    async def _send(self, request: HttpRequest, encodings: str) -> AiohttpStream:
        """The response once its headers have arrived, after at most one repetition."""
        if self._session.closed:
            raise UpstreamError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, accounts.CLOSED, sent=False)
        origin = self._origin(request.url)
        headers = CIMultiDict(request.headers)
        headers.setdefault("accept-encoding", encodings)
        headers.setdefault("user-agent", self._user_agent)
        outcome = await self._try(request, origin, headers, fresh_only=False)
        if isinstance(outcome, Failure) and outcome.repeatable:
            outcome = await self._try(request, origin, headers, fresh_only=True)
        if isinstance(outcome, Failure):
            # Raised out here so that aiohttp's exception, which holds the request with its
            # headers, is not carried along as the context.
            raise outcome.error(request, origin.peer)
        return outcome

    async def _try(
        self, request: HttpRequest, origin: _Origin, headers: CIMultiDict[str], *, fresh_only: bool
    ) -> AiohttpStream | Failure:
        attempt = Attempt(request.header_timeout, fresh_only=fresh_only)
        token = current_attempt.set(attempt)
        try:
            async with asyncio.timeout(request.connect_timeout) as attempt.timer:
                response = await self._session.request(
                    request.method,
                    origin.url,
                    headers=headers,
                    data=_payload(request.body),
                    allow_redirects=False,
                    proxy=origin.proxy,
                )
                if response.status == 101:
                    # An upgrade that nobody asked for: what follows is not HTTP.
                    response.close()
                    raise aiohttp.ClientResponseError(response.request_info, ())
        except (aiohttp.ClientError, OSError) as cause:
            attempt.abort()
            return Failure(cause, attempt, asyncio.get_running_loop().time())
        except BaseException:
            attempt.abort()
            raise
        finally:
            current_attempt.reset(token)
        return AiohttpStream(response, attempt, origin.peer, request.max_body_bytes)


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    if len(body) > _WRITE_WHOLE_BYTES:
        return io.BytesIO(body)
    return body or None
