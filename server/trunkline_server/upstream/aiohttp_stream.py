"""A response on aiohttp whose headers have arrived."""

from collections.abc import AsyncIterator, Mapping

import aiohttp

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream import accounts
from trunkline_server.upstream.aiohttp_pool import Attempt


class AiohttpStream:
    """Implements HttpStream; it is its own iterator of chunks."""

    __slots__ = (
        "_attempt",
        "_content",
        "_limit",
        "_peer",
        "_response",
        "_taken",
        "headers",
        "status",
    )

    def __init__(
        self, response: aiohttp.ClientResponse, attempt: Attempt, peer: str, max_body_bytes: int
    ) -> None:
        self.status: int = response.status
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items()
        }
        self._response = response
        self._content = response.content
        self._attempt = attempt
        self._peer = peer
        self._limit = max_body_bytes
        self._taken = False
        if attempt.protocol is not None and not self._content.is_eof():
            attempt.protocol.attach(self._content)

    def chunks(self) -> AsyncIterator[bytes]:
        if self._taken:
            raise RuntimeError("the body of a response can be read only once")
        self._taken = True
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._next(v1.ERROR_REASON_STREAM_INTERRUPTED)
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def read(self) -> bytes:
        if (self._response.content_length or 0) > self._limit:
            raise self._too_large()
        blocks = []
        size = 0
        while block := await self._next(v1.ERROR_REASON_BAD_PROVIDER_RESPONSE):
            size += len(block)
            if size > self._limit:
                raise self._too_large()
            blocks.append(block)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def abort(self) -> None:
        # Once the body has ended, the connection is back in the pool and no longer ours.
        if self._response.connection is not None:
            self._attempt.abort()
        self._response.close()

    async def _next(self, reason_if_cut: v1.ErrorReason.ValueType) -> bytes:
        """What has arrived of the body, at least a byte; nothing at its end."""
        try:
            block = await self._content.readany()
            if block or not self._ended_by_reset():
                return block
        except (aiohttp.ClientError, OSError, RuntimeError):
            # RuntimeError is how aiohttp refuses to wait on a closed connection. The cause is
            # told by the connection itself; aiohttp's exception may quote what was received.
            pass
        except BaseException:
            self.abort()
            raise
        raise self._broken(reason_if_cut)

    def _ended_by_reset(self) -> bool:
        """True when the body ended only because the connection broke.

        A body without a length lasts until the connection's end; aiohttp takes any end for it.
        """
        protocol = self._attempt.protocol
        return (
            protocol is not None
            and protocol.reset
            and "content-length" not in self.headers
            and "chunked" not in self.headers.get("transfer-encoding", "").lower()
        )

    def _broken(self, reason_if_cut: v1.ErrorReason.ValueType) -> UpstreamError:
        protocol = self._attempt.protocol
        ended = protocol is not None and protocol.ended
        self.abort()
        if ended:
            return UpstreamError(
                reason_if_cut,
                f"{self._peer}: {accounts.ENDED_INSIDE_BODY}",
                http_status=self.status,
            )
        return UpstreamError(
            v1.ERROR_REASON_BAD_PROVIDER_RESPONSE,
            f"{self._peer}: {accounts.BODY_MALFORMED}",
            http_status=self.status,
        )

    def _too_large(self) -> UpstreamError:
        self.abort()
        return UpstreamError(
            v1.ERROR_REASON_BAD_PROVIDER_RESPONSE,
            f"{self._peer}: {accounts.body_too_large(self._limit)}",
            http_status=self.status,
        )
