"""Streamed answers for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, cast

import grpc
import grpc.aio

from trunkline import v1
from trunkline._errors import TrunklineError, from_rpc
from trunkline._record import SpeechRecord, StreamRecord, delta_text
from trunkline._streams import EventT

if TYPE_CHECKING:
    from trunkline._streams import _Record

    _StreamCall = grpc.aio.UnaryStreamCall[Any, EventT]


class _Events(Generic[EventT]):
    """The events of one call, in order."""

    def __init__(self, call: "_StreamCall[EventT]", record: "_Record[EventT]") -> None:
        self._call = call
        self._events = record
        self._cancelled = False

    def __aiter__(self) -> AsyncIterator[EventT]:
        return self

    async def __anext__(self) -> EventT:
        if self._is_cancelled():
            raise self._events.cancelled()
        try:
            event = await self._call.read()
        except asyncio.CancelledError:
            # gRPC raises this for cancel() as well; only then is it ours to translate.
            task = asyncio.current_task()
            if self._is_cancelled() and (task is None or not task.cancelling()):
                raise self._events.cancelled() from None
            # gRPC cancels the call too, but for a task that is cancelled between the sending
            # of its request and its waking up; that call would run on to its deadline.
            self.cancel()
            raise
        except grpc.aio.AioRpcError as error:
            raise translate(error, self._events.request_id) from error
        if event is grpc.aio.EOF:
            self._events.check_complete()
            raise StopAsyncIteration
        received = cast("EventT", event)
        self._events.take(received)
        return received

    def cancel(self) -> None:
        """Cancels the call; reading on raises CallCancelledError. Too late does no harm."""
        if self._events.end is None:
            self._cancelled = True
            self._call.cancel()

    def _is_cancelled(self) -> bool:
        # A call, not the bare attribute: cancel() may run while a read waits.
        return self._cancelled

    async def aclose(self) -> None:
        """The same as cancel(), by the name that contextlib.aclosing calls."""
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()


class AsyncStream(_Events[v1.StreamGenerateResponse]):
    """The events of one streamed answer, in order.

    Iterate it for the events, `text()` for the text alone, or await `message()` whole. Use
    it as an async context manager, so that leaving early cancels the call and stops the
    spend. Cancelling the task that reads cancels the call too.
    """

    def __init__(self, call: "_StreamCall[v1.StreamGenerateResponse]", request_id: str) -> None:
        self._record = StreamRecord(request_id)
        super().__init__(call, self._record)

    @property
    def start(self) -> v1.StreamStart | None:
        """The first event: who answers and why. None until it has come."""
        return self._record.start

    @property
    def end(self) -> v1.StreamEnd | None:
        """The last event: usage, cost and attempts. None until it has come."""
        return self._record.end

    async def text(self) -> AsyncGenerator[str, None]:
        """The pieces of text. Closing the iterator before its end cancels the call."""
        async with aclosing(self):
            async for event in self:
                if piece := delta_text(event):
                    yield piece

    async def message(self) -> v1.Message:
        """Reads to the end and returns the message that Generate would have returned."""
        async for _ in self:
            pass
        return self._record.message()


class AsyncSpeechStream(_Events[v1.SynthesizeResponse]):
    """The events of one spoken text, in order: as AsyncStream, with `audio()` and `sound()`."""

    def __init__(self, call: "_StreamCall[v1.SynthesizeResponse]", request_id: str) -> None:
        self._record = SpeechRecord(request_id)
        super().__init__(call, self._record)

    @property
    def start(self) -> v1.SynthesizeStart | None:
        """The first event: who speaks, and the media type. None until it has come."""
        return self._record.start

    @property
    def end(self) -> v1.SynthesizeEnd | None:
        """The last event: usage, cost and attempts. None until it has come."""
        return self._record.end

    async def audio(self) -> AsyncGenerator[bytes, None]:
        """The pieces of the recording. Closing the iterator before its end cancels the call."""
        async with aclosing(self):
            async for event in self:
                if event.audio:
                    yield event.audio

    async def sound(self) -> bytes:
        """Reads to the end and returns the whole recording."""
        return b"".join([event.audio async for event in self])


def translate(error: grpc.aio.AioRpcError, request_id: str) -> TrunklineError:
    return from_rpc(error.code(), error.details(), error.trailing_metadata(), request_id)
