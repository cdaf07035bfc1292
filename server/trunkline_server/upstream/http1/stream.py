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
        if "content-encoding" in exchange.headers:
            try:
                self._inflater = inflater(exchange.headers["content-encoding"])
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
        chunk = await self._next(v1.ERROR_REASON_STREAM_INTERRUPTED)
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def read(self) -> bytes:
        limit = self._request.max_body_bytes
        if self._inflater is None and int(self.headers.get("content-length", "0")) > limit:
            raise self._too_large()
        blocks = []
        size = 0
        while block := await self._next(v1.ERROR_REASON_BAD_PROVIDER_RESPONSE):
            size += len(block)
            if size > limit:
                raise self._too_large()
            blocks.append(block)
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def abort(self) -> None:
        self._exchange.abort()

    async def _next(self, if_cut: v1.ErrorReason.ValueType) -> bytes:
        """What has arrived of the body, at least a byte; nothing at its end."""
        exchange = self._exchange
        while True:
            if piece := self._piece():
                return piece
            if exchange.fault is not None:
                raise exchange.error(self._request, self._peer, if_cut)
            if exchange.complete:
                exchange.release()
                return b""
            await exchange.wait()

    def _piece(self) -> bytes:
        """A piece of the body out of what has arrived, or nothing."""
        if self._inflater is None:
            return self._exchange.hand_out()
        try:
            return self._unpack(self._inflater)
        except InflateError:
            self._exchange.spoil(Fault.MALFORMED)
            return b""

    def _unpack(self, inflater: Inflater) -> bytes:
        exchange = self._exchange
        while not (piece := inflater.piece()):
            block = exchange.hand_out()
            if not block:
                if exchange.complete and not inflater.complete:
                    raise InflateError
                return b""
            inflater.feed(block)
        return piece

    def _too_large(self) -> UpstreamError:
        self._exchange.spoil(Fault.TOO_LARGE)
        return self._exchange.error(self._request, self._peer)
