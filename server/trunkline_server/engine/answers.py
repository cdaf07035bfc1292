"""One streamed attempt: what has come of it, and what of that is not yet sent."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from trunkline import v1
from trunkline_server.engine.attempt import Attempt, timed_out
from trunkline_server.engine.needs import estimate_usage
from trunkline_server.engine.patience import Patience
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.codec import (
    CodecTarget,
    SpeechCodec,
    SpeechDecoder,
    StreamDecoder,
)
from trunkline_server.upstream.framing import Framing
from trunkline_server.upstream.http import HttpStream
from trunkline_server.upstream.sse import SseParser

PieceT = TypeVar("PieceT")
EndT = TypeVar("EndT", v1.StreamEnd, v1.SynthesizeEnd)


class Answer(ABC, Generic[PieceT, EndT]):
    """One streamed attempt. `sent_size` is how much of it has been sent, in characters or bytes.

    A kind of answer says how its pieces are read off the chunks of the body.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.unsent: list[PieceT] = []
        self.sent_size = 0
        self.end: EndT | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._response: HttpStream | None = None

    @property
    @abstractmethod
    def model(self) -> str:
        """The vendor's name of the model, as far as it has said."""

    @property
    @abstractmethod
    def usage(self) -> v1.Usage | None:
        """What the vendor has said of the usage so far."""

    @abstractmethod
    def read(self, chunk: bytes) -> None:
        """Decodes what a chunk completes. Raises UpstreamError."""

    @abstractmethod
    def finish(self) -> None:
        """Takes the end of the body for the end of the answer. Raises UpstreamError if the
        vendor's own end mark is missing."""

    @abstractmethod
    def sending(self) -> Iterator[PieceT]:
        """The unsent, each counted as sent when it is taken."""

    def opened(self, response: HttpStream) -> None:
        """Notes the response, which is then closed with the answer; one that was refused before
        it has been read to its end."""
        self._response = response

    def more(self) -> AsyncIterator[bytes]:
        """The chunks not yet read."""
        if self._chunks is None:
            if self._response is None:
                raise AssertionError("an answer is read after it was opened")
            self._chunks = self._response.chunks()
        return self._chunks

    def succeed(self) -> EndT:
        """Closes the books of an answer that has ended in order, and gives its end."""
        if self._response is None or self.end is None:
            raise AssertionError("an answer succeeds after its end")
        self._response.abort()
        self.attempt.succeed(self._response.status, self.end.usage)
        return self.end

    def cancel(self) -> None:
        """Gives the attempt up: the upstream is closed, and what it may bill is booked."""
        self.attempt.abandoned(self.usage, self.sent_size)
        self.attempt.cancel()
        self._close()

    @contextmanager
    def settled(self, patience: Patience) -> Generator[None]:
        """Closes the upstream and the books when what is done inside fails."""
        try:
            yield
        except UpstreamError as error:
            self._fail(error)
            raise
        except TimeoutError:
            late = timed_out(*patience.exceeded())
            self._fail(late)
            raise late from None
        except BaseException:
            self.cancel()
            raise

    def _fail(self, error: UpstreamError) -> None:
        # A failure before the first piece is billed by no vendor, but for one that may have
        # been writing all the time.
        if self.sent_size or error.reason == v1.ERROR_REASON_TIMEOUT:
            self.attempt.abandoned(self.usage, self.sent_size)
        self.attempt.fail(error)
        self._close()

    def _close(self) -> None:
        if self._response is not None:
            self._response.abort()


class WrittenAnswer(Answer[v1.StreamDelta, v1.StreamEnd]):
    """A generation, in events."""

    def __init__(
        self,
        attempt: Attempt,
        decoder: StreamDecoder,
        parser: Framing,
        request: v1.GenerateRequest,
    ) -> None:
        super().__init__(attempt)
        self._decoder = decoder
        self._request = request
        self._parser = parser

    @property
    def model(self) -> str:
        return self._decoder.model

    @property
    def usage(self) -> v1.Usage:
        return self._decoder.usage

    def read(self, chunk: bytes) -> None:
        for event, data in self._parser.feed(chunk):
            self.unsent += self._decoder.feed(event, data)

    def sending(self) -> Iterator[v1.StreamDelta]:
        for delta in self.unsent:
            self.sent_size += delta.ByteSize()
            yield delta
        self.unsent.clear()

    def finish(self) -> None:
        for event, data in self._parser.finish():
            self.unsent += self._decoder.feed(event, data)
        end = self._decoder.finish()
        if not end.usage.source:
            pending = sum(delta.ByteSize() for delta in self.unsent)
            end.usage.CopyFrom(estimate_usage(self._request, self.sent_size + pending))
        self.end = end


class SpokenAnswer(Answer[bytes, v1.SynthesizeEnd]):
    """A recording of a text. What its chunks hold is told by the response's headers."""

    def __init__(
        self,
        attempt: Attempt,
        codec: SpeechCodec,
        request: v1.SynthesizeRequest,
        target: CodecTarget,
    ) -> None:
        super().__init__(attempt)
        self._codec = codec
        self._request = request
        self._target = target
        self._decoder: SpeechDecoder | None = None
        # None: the body is the recording itself.
        self._parser: SseParser | None = None

    @property
    def model(self) -> str:
        return "" if self._decoder is None else self._decoder.model

    @property
    def media_type(self) -> str:
        """The IANA media type of the recording, once its first piece has come."""
        return "" if self._decoder is None else self._decoder.media_type

    @property
    def usage(self) -> v1.Usage | None:
        return None if self._decoder is None else self._decoder.usage

    def opened(self, response: HttpStream) -> None:
        super().opened(response)
        headers = response.headers
        self._decoder = self._codec.speech_decoder(self._request, self._target, headers)
        if headers.get("content-type", "").lower().startswith("text/event-stream"):
            self._parser = SseParser()

    def read(self, chunk: bytes) -> None:
        decoder = self._known()
        if self._parser is None:
            self.unsent += decoder.feed("", chunk)
            return
        for event, data in self._parser.feed(chunk):
            self.unsent += decoder.feed(event, data)

    def sending(self) -> Iterator[bytes]:
        for piece in self.unsent:
            self.sent_size += len(piece)
            yield piece
        self.unsent.clear()

    def finish(self) -> None:
        decoder = self._known()
        if self._parser is not None:
            for event, data in self._parser.finish():
                self.unsent += decoder.feed(event, data)
        self.unsent += decoder.finish()
        end = v1.SynthesizeEnd(usage=decoder.usage)
        if not self.sent_size and not self.unsent:
            raise UpstreamError(v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, "the answer holds no sound")
        if not end.usage.source:
            end.usage.CopyFrom(self.attempt.expected())
        self.end = end

    def _known(self) -> SpeechDecoder:
        if self._decoder is None:
            raise AssertionError("an answer is read after it was opened")
        return self._decoder
