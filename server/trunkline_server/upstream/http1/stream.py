"""A response whose headers have arrived."""

from collections.abc import AsyncIterator, Mapping

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream.http import HttpRequest
from trunkline_server.upstream.http1.exchange import Exchange, Fault
from trunkline_server.upstream.http1.inflate import InflateError, Inflater, inflater


class Http1Stream:
    """Implements HttpStream; it is its own iterator of chunks.

    A stream that is dropped before its end closes its connection.
    """

    __slots__ = ("_exchange", "_inflater", "_peer", "_request", "_taken", "headers", "status")

    def __init__(self, exchange: Exchange, request: HttpRequest, peer: str) -> None:
        self.status: int = exchange.status
        self.headers: Mapping[str, str] = exchange.headers
        self._exchange = exchange
        self._request = request
        self._peer = peer
        self._taken = False
        self._inflater: Inflater | None = None
        if exchange.encoding:
            try:
                self._inflater = inflater(exchange.encoding)
            except InflateError:
                exchange.spoil(Fault.MALFORMED)

    def __del__(self) -> None:
        if not self._exchange.loop.is_closed():
            self.abort()

    def chunks(self) -> AsyncIterator[bytes]:
        if self._taken:
            raise RuntimeError("the body of a response can be read only once")
        self._taken = True
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while (chunk := self._take(v1.ERROR_REASON_STREAM_INTERRUPTED)) is None:
            await self._exchange.more()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def read(self) -> bytes:
        limit = self._request.max_body_bytes
        if self._inflater is None and self._exchange.length > limit:
            raise self._too_large()
        blocks = []
        size = 0
        while (block := self._take(v1.ERROR_REASON_BAD_PROVIDER_RESPONSE)) != b"":
            if block is None:
                await self._exchange.more()
                continue
            size += len(block)
            if size > limit:
                raise self._too_large()
            blocks.append(block)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def abort(self) -> None:
        self._exchange.abort()

    def _take(self, if_cut: v1.ErrorReason.ValueType) -> bytes | None:
        """What has arrived of the body, at least a byte; nothing at its end, and None while
        there is more to come."""
        exchange = self._exchange
        inflater = self._inflater
        if piece := exchange.hand_out() if inflater is None else self._unpack(inflater):
            return piece
        if exchange.fault is not None:
            raise exchange.error(self._request, self._peer, if_cut)
        if exchange.complete:
            exchange.release()
            return b""
        return None

    def _unpack(self, inflater: Inflater) -> bytes:
        """A piece of the body out of what has arrived, or nothing."""
        exchange = self._exchange
        try:
            while not (piece := inflater.piece()):
                block = exchange.hand_out()
                if not block:
                    if exchange.complete and not inflater.complete:
                        raise InflateError
                    return b""
                inflater.feed(block)
        except InflateError:
            exchange.spoil(Fault.MALFORMED)
            return b""
        return piece

    def _too_large(self) -> UpstreamError:
        self._exchange.spoil(Fault.TOO_LARGE)
        return self._exchange.error(self._request, self._peer)
