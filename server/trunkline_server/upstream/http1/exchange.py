"""One request's response, as far as it has come."""

import asyncio
import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream import accounts
from trunkline_server.upstream.http import HttpRequest
from trunkline_server.upstream.http1.headers import Fields, Headers
from trunkline_server.upstream.http1.inflate import is_packed

if TYPE_CHECKING:
    from trunkline_server.upstream.http1.connection import Connection

_STALE_SECONDS = accounts.STALE_SECONDS
# Of a streamed body, not more than this and one read of the socket is held.
_HIGH_WATER = 64 * 1024
_NO_HEADERS = Headers([])


class Fault(enum.Enum):
    """Why a response is not, or not wholly, there."""

    ENDED = enum.auto()
    MALFORMED = enum.auto()
    TOO_LARGE = enum.auto()
    TIMED_OUT = enum.auto()


class Exchange:
    """Filled by its connection, read by its stream or by the client.

    With `gather` the reader is woken once, when the body is whole; without, when the headers
    have come and then for each piece. Compressed bodies are never gathered, because their size
    shows only as they are unpacked.
    """

    __slots__ = (
        "blocks",
        "complete",
        "connection",
        "encoding",
        "fault",
        "gather",
        "headers",
        "heard",
        "held",
        "length",
        "limit",
        "loop",
        "packed",
        "repeatable",
        "reused",
        "started",
        "status",
        "until_close",
        "woken",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, max_body_bytes: int, *, gather: bool
    ) -> None:
        self.loop = loop
        self.limit = max_body_bytes
        self.gather = gather
        # None before the request is given to a connection, and again when that is done with it.
        self.connection: Connection | None = None
        self.reused = False
        self.started = 0.0
        # True when anything of a response came.
        self.heard = False
        # 0 until the headers are complete.
        self.status = 0
        self.headers: Mapping[str, str] = _NO_HEADERS
        # By the headers: the body's size, 0 where they do not tell, and its compression.
        self.length = 0
        self.encoding = ""
        # True when the body comes compressed.
        self.packed = False
        # True when the body lasts until the connection's end.
        self.until_close = False
        self.blocks: list[bytes] = []
        # The size of the blocks.
        self.held = 0
        self.complete = False
        self.fault: Fault | None = None
        # True when the request surely met a connection that was dead before: it was used
        # before, nothing came back, and it ended as dead connections end.
        self.repeatable = False
        # Done when the reader has something to look at.
        self.woken: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        """The reader has something to look at."""
        if not self.woken.done():
            self.woken.set_result(None)

    async def more(self) -> None:
        """Until `wake` is called anew, for a reader that has looked at all there is. A task
        that is cancelled here closes the connection."""
        self.woken = self.loop.create_future()
        try:
            await self.woken
        except BaseException:
            self.abort()
            raise

    def begin_body(self, status: int, fields: Fields, length: int, encoding: bytes) -> None:
        """The headers are complete."""
        self.status = status
        self.headers = Headers(fields)
        self.length = length
        if encoding:
            self.encoding = encoding.decode("latin-1")
            if is_packed(self.encoding):
                self.packed = True
                self.gather = False
        if self.gather:
            if length > self.limit:
                self.fault = Fault.TOO_LARGE
        else:
            self.wake()

    def take_in(self, block: bytes) -> bool:
        """Holds a piece of the body; False when no more is wanted for now."""
        blocks = self.blocks
        blocks.append(block)
        self.held += len(block)
        if self.gather:
            if self.held > self.limit:
                self.fault = Fault.TOO_LARGE
            return True
        # A reader that waits has taken all there was.
        if len(blocks) == 1:
            self.wake()
        return self.held <= _HIGH_WATER

    def hand_out(self) -> bytes:
        """All that is held of the body; nothing when nothing is."""
        blocks = self.blocks
        if not blocks:
            return b""
        body = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        self.blocks = []
        # Only then has the connection paused.
        if self.held > _HIGH_WATER and self.connection is not None:
            self.connection.resume()
        self.held = 0
        return body

    def fail(self, fault: Fault) -> None:
        """The connection gives up on the response."""
        if self.fault is None:
            self.fault = fault
        self.connection = None
        if self.fault is Fault.ENDED and self.reused and not self.heard:
            self.repeatable = self.loop.time() - self.started < _STALE_SECONDS
        self.wake()

    def release(self) -> None:
        """The body has been read to its end and unpacked."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.free()

    def abort(self) -> None:
        """Closes the connection at once, unless the response is complete. Idempotent."""
        if self.connection is not None:
            connection, self.connection = self.connection, None
            connection.fail(Fault.ENDED)

    def spoil(self, fault: Fault) -> None:
        """The reader gives up on the body."""
        self.abort()
        self.complete = False
        self.fault = fault
        self.blocks.clear()

    def error(
        self,
        request: HttpRequest,
        peer: str,
        if_cut: v1.ErrorReason.ValueType = v1.ERROR_REASON_BAD_PROVIDER_RESPONSE,
    ) -> UpstreamError:
        """The fault as the port tells it. `if_cut` is the reason of a body that was cut."""
        status = self.status
        if self.fault is Fault.TIMED_OUT:
            reason = v1.ERROR_REASON_TIMEOUT
            account = accounts.late_headers(request)
        elif self.fault is Fault.ENDED and not status:
            reason = v1.ERROR_REASON_SERVICE_UNAVAILABLE
            account = accounts.ENDED_BEFORE_HEADERS
        elif self.fault is Fault.ENDED:
            reason = if_cut
            account = accounts.ENDED_INSIDE_BODY
        else:
            reason = v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
            account = self._account(request)
        return UpstreamError(reason, f"{peer}: {account}", http_status=status)

    def _account(self, request: HttpRequest) -> str:
        if self.fault is Fault.TOO_LARGE:
            if not self.status:
                return accounts.HEAD_TOO_LARGE
            return accounts.body_too_large(request.max_body_bytes)
        return accounts.BODY_MALFORMED if self.status else accounts.NOT_HTTP
