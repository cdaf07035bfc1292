"""What a stream has brought so far; the same for both kinds of client."""

from typing import Generic, TypeVar

import grpc

from trunkline import v1
from trunkline._errors import CallCancelledError, InternalError
from trunkline.assemble import MessageAssembler

StartT = TypeVar("StartT", v1.StreamStart, v1.SynthesizeStart)
EndT = TypeVar("EndT", v1.StreamEnd, v1.SynthesizeEnd)


class Record(Generic[StartT, EndT]):
    """Notes a stream's first and last event and judges its end.

    `start` is None before the first event; `end` is None until the last, and stays None
    when the stream failed.
    """

    def __init__(self, request_id: str) -> None:
        self.start: StartT | None = None
        self.end: EndT | None = None
        self._request_id = request_id

    @property
    def request_id(self) -> str:
        return self.start.id if self.start is not None else self._request_id

    def check_complete(self) -> None:
        """Raises InternalError for a stream that ended with OK and without its end event."""
        if self.end is None:
            raise InternalError(
                "the stream ended without its end event",
                code=grpc.StatusCode.INTERNAL,
                request_id=self.request_id,
            )

    def cancelled(self) -> CallCancelledError:
        """The error for reading on after cancel()."""
        return CallCancelledError(
            "the stream was cancelled by its reader",
            code=grpc.StatusCode.CANCELLED,
            reason=v1.ERROR_REASON_CANCELLED,
            request_id=self.request_id,
        )


class StreamRecord(Record[v1.StreamStart, v1.StreamEnd]):
    """Of an answer that is written, whose pieces it keeps."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self._deltas: list[v1.StreamDelta] = []

    def take(self, event: v1.StreamGenerateResponse) -> None:
        match event.WhichOneof("event"):
            case "delta":
                self._deltas.append(event.delta)
            case "start":
                self.start = event.start
            case "end":
                self.end = event.end

    def message(self) -> v1.Message:
        """The message as far as it has come."""
        assembler = MessageAssembler()
        for delta in self._deltas:
            assembler.add(delta)
        return assembler.message()


class SpeechRecord(Record[v1.SynthesizeStart, v1.SynthesizeEnd]):
    """Of a text that is spoken. The sound is the reader's to keep."""

    def take(self, event: v1.SynthesizeResponse) -> None:
        match event.WhichOneof("event"):
            case "start":
                self.start = event.start
            case "end":
                self.end = event.end


def delta_text(event: v1.StreamGenerateResponse) -> str:
    """The event's piece of text, empty when it has none."""
    return event.delta.text if event.HasField("delta") else ""
