"""The port to providers over HTTP: what the attempt loop needs of a client, and no more."""

from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple, Protocol

from trunkline_server.upstream.http1.headers import Headers


def tell_limits(headers: Mapping[str, str]) -> bool:
    """Whether any header says that it is of a rate limit."""
    if isinstance(headers, Headers):
        return headers.tell_limits()
    return any("ratelimit" in name for name in headers)


class HttpRequest(NamedTuple):
    """One request, ready to send.

    `url` is absolute and already encoded. `headers` are complete but for host and
    content-length; accept, accept-encoding and user-agent are added where they are missing.
    `connect_timeout` and `header_timeout` are in seconds: to an established connection, the
    wait for a full pool and TLS included; and from there to the response's headers, the upload
    included, so that a peer that takes nothing cannot hold the call.
    `max_body_bytes` bounds a body that is read whole, as it is after decompression.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connect_timeout: float = 5.0
    header_timeout: float = 600.0
    max_body_bytes: int = 64 * 1024 * 1024


class HttpResponse(NamedTuple):
    """A response read whole. Header names are lower case; of repeated headers the last counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpStream(Protocol):
    """A response whose headers have arrived and whose body has not been read."""

    status: int
    headers: Mapping[str, str]

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, at most once.

        Raises UpstreamError with STREAM_INTERRUPTED when the connection ends before the body,
        and with BAD_PROVIDER_RESPONSE when the body is not framed or compressed as its
        headers say. While nobody asks for a chunk, little more than a socket's worth of the
        body is taken in.
        """
        ...

    async def read(self) -> bytes:
        """The rest of the body, whole; raises as HttpClient.fetch does."""
        ...

    def abort(self) -> None:
        """Closes the connection at once, unless the body has been read to its end. Idempotent."""
        ...


class HttpClient(Protocol):
    """A pooled HTTP client.

    Both calls raise UpstreamError: SERVICE_UNAVAILABLE when no connection can be had
    (`sent` False) or it breaks before the headers, TIMEOUT when connect_timeout or
    header_timeout passes, BAD_PROVIDER_RESPONSE for bytes that are not HTTP, for a body that
    is cut short, or for one over max_body_bytes. Messages name the peer's host and port and
    the cause; never headers, query or payload. Redirects are not followed and cookies not
    kept. A task that is cancelled inside either call, or inside the stream that open gave,
    closes its connection at once.

    A request is repeated once, on a new connection, when it met a kept connection that had
    died: one used before, which ended promptly and without a byte of response. Nothing else is
    repeated; retries belong to the attempt loop.
    """

    async def fetch(self, request: HttpRequest) -> HttpResponse:
        """Sends the request and reads the whole response."""
        ...

    async def open(self, request: HttpRequest) -> HttpStream:
        """Sends the request and returns once the response's headers have arrived."""
        ...

    async def close(self) -> None:
        """Closes every connection."""
        ...
