"""Streamed answers for ordinary, blocking code."""

from collections.abc import Iterator
from contextlib import closing
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import grpc

from trunkline import v1
from trunkline._errors import TrunklineError, from_rpc
from trunkline._record import SpeechRecord, StreamRecord, delta_text

Event = v1.StreamGenerateResponse | v1.SynthesizeResponse
EventT = TypeVar("EventT", bound=Event)
EventT_co = TypeVar("EventT_co", covariant=True)
EventT_contra = TypeVar("EventT_contra", contravariant=True)


class _StreamCall(Protocol[EventT_co]):
    """What a stream needs of the call that gRPC returns; gRPC names no public type for it."""

    def __next__(self) -> EventT_co: ...

    def cancel(self) -> bool: ...


class _Record(Protocol[EventT_contra]):
    """What a stream needs of its record."""

    @property
    def request_id(self) -> str: ...

    @property
    def end(self) -> object | None: ...

    def take(self, event: EventT_contra) -> None: ...

    def check_complete(self) -> None: ...

    def cancelled(self) -> TrunklineError: ...


class _Events(Generic[EventT]):
    """The events of one call, in order."""

    def __init__(self, call: _StreamCall[EventT], record: _Record[EventT]) -> None:
        self._call = call
        self._events = record
        self._cancelled = False

    def __iter__(self) -> Iterator[EventT]:
        return self

    def __next__(self) -> EventT:
        if self._cancelled:
            raise self._events.cancelled()
        try:
            event = next(self._call)
        except StopIteration:
            self._events.check_complete()
            raise
        except grpc.RpcError as error:
            if self._cancelled:
                raise self._events.cancelled() from error
            raise translate(error, self._events.request_id) from error
        self._events.take(event)
        return event

    def cancel(self) -> None:
        """Cancels the call; reading on raises CallCancelledError. Too late does no harm."""
        if self._events.end is None:
            self._cancelled = True
            self._call.cancel()

    close = cancel

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()


class Stream(_Events[v1.StreamGenerateResponse]):
    """The events of one streamed answer, in order.

    Iterate it for the events, `text()` for the text alone, or take `message()` whole. Use it
    as a context manager, so that leaving early cancels the call and stops the spend. Read by
    one thread at a time; cancel() may come from any.
    """

    def __init__(self, call: _StreamCall[v1.StreamGenerateResponse], request_id: str) -> None:
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

    def text(self) -> Iterator[str]:
        """The pieces of text. Closing the iterator before its end cancels the call."""
        with closing(self):
            for event in self:
                if piece := delta_text(event):
                    yield piece

    def message(self) -> v1.Message:
        """Reads to the end and returns the message that Generate would have returned."""
        for _ in self:
            pass
        return self._record.message()


class SpeechStream(_Events[v1.SynthesizeResponse]):
    """The events of one spoken text, in order: as Stream, with `audio()` and `sound()`."""

    def __init__(self, call: _StreamCall[v1.SynthesizeResponse], request_id: str) -> None:
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

    def audio(self) -> Iterator[bytes]:
        """The pieces of the recording. Closing the iterator before its end cancels the call."""
        with closing(self):
            for event in self:
                if event.audio:
                    yield event.audio

    def sound(self) -> bytes:
        """Reads to the end and returns the whole recording."""
        return b"".join(event.audio for event in self)


def translate(error: grpc.RpcError, request_id: str) -> TrunklineError:
    # None, whatever the types say, when the call failed before it left.
    trailing = [(entry.key, entry.value) for entry in error.trailing_metadata() or ()]
    return from_rpc(error.code(), error.details(), trailing, request_id)
