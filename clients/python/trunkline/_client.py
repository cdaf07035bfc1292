"""The client for ordinary, blocking code. Safe to share between threads."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import grpc

from trunkline import v1
from trunkline._errors import CallCancelledError, TrunklineError, from_rpc
from trunkline._options import (
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT,
    ClientOptions,
    Propagator,
    TlsOptions,
    from_environment,
)
from trunkline._record import StreamRecord, delta_text
from trunkline._requests import embed_request, generate_request, route_request
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub

_Response = TypeVar("_Response")
_Answer_co = TypeVar("_Answer_co", covariant=True)


class _StreamCall(Protocol):
    """What a stream needs of the call that gRPC returns; gRPC names no public type for it."""

    def __next__(self) -> v1.StreamGenerateResponse: ...

    def cancel(self) -> bool: ...


class Client:
    """A connection to a router.

    `target` is a gRPC name such as "host:50051" or "dns:///trunkline.internal:50051".
    `api_key` is sent as a bearer token. Without `tls` the connection is plaintext.
    `timeout` is the deadline of every call that names none, in seconds. `metadata` goes with
    every call. `propagate` fills a dictionary with trace headers for each call, as
    OpenTelemetry's `propagate.inject` does. `channel_options` are gRPC's own, above ours.

    Every method raises a TrunklineError when the call fails and ValueError when it cannot
    be made.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        api_key: str | None = None,
        tls: TlsOptions | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
        propagate: Propagator | None = None,
        channel_options: Mapping[str, str | int] | None = None,
    ) -> None:
        self._open(
            ClientOptions(
                target=target,
                api_key=api_key,
                tls=tls,
                timeout=timeout,
                metadata=metadata or {},
                propagate=propagate,
                channel_options=channel_options or {},
            )
        )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """A client as the TRUNKLINE_* variables say; the README lists them.

        Raises ValueError naming the variable that is wrong, OSError for an unreadable file.
        """
        client = cls.__new__(cls)
        client._open(from_environment(environ))
        return client

    def _open(self, options: ClientOptions) -> None:
        self._options = options
        arguments = options.channel_arguments()
        credentials = options.credentials()
        if credentials is None:
            self._channel = grpc.insecure_channel(options.target, arguments)
        else:
            self._channel = grpc.secure_channel(options.target, credentials, arguments)
        self._stub = InferenceServiceStub(self._channel)

    def __repr__(self) -> str:
        return f"Client(target={self._options.target!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection and cancels the calls still in progress."""
        self._channel.close()

    def generate(
        self,
        request: v1.GenerateRequest | str,
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> v1.GenerateResponse:
        """Answers a conversation, or a prompt given as text, in one piece."""
        message = generate_request(request, model)
        return self._call(self._stub.Generate, message, message.request_id, timeout, metadata)

    def begin_generate(
        self,
        request: v1.GenerateRequest | str,
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> "Pending[v1.GenerateResponse]":
        """Begins what generate() does and returns at once, with a call that can be cancelled."""
        message = generate_request(request, model)
        call = self._stub.Generate.future(
            message,
            timeout=self._options.call_timeout(timeout),
            metadata=self._options.call_metadata(metadata),
        )
        return Pending(call, message.request_id)

    def stream(
        self,
        request: v1.GenerateRequest | str,
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> "Stream":
        """Answers as the answer is written. The timeout covers the whole stream."""
        message = generate_request(request, model)
        call = self._stub.StreamGenerate(
            message,
            timeout=self._options.call_timeout(timeout),
            metadata=self._options.call_metadata(metadata),
        )
        return Stream(call, message.request_id)

    def embed(
        self,
        request: v1.EmbedRequest | str | Sequence[str],
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> v1.EmbedResponse:
        """Turns texts into vectors."""
        message = embed_request(request, model)
        return self._call(self._stub.Embed, message, message.request_id, timeout, metadata)

    def route(
        self,
        request: v1.RouteRequest | None = None,
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> v1.RouteResponse:
        """Tells how a call would be routed, without making it. Retried when unavailable."""
        message = route_request(request, model)
        return self._call(self._stub.Route, message, "", timeout, metadata)

    def batch_route(
        self,
        requests: Iterable[v1.RouteRequest],
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> v1.BatchRouteResponse:
        """Tells how each of up to 10,000 calls would be routed. Retried when unavailable.

        The results are in the order of the requests; one that fails leaves the others alone.
        """
        message = v1.BatchRouteRequest(requests=requests)
        return self._call(self._stub.BatchRoute, message, "", timeout, metadata)

    def _call(
        self,
        method: Callable[..., _Response],
        request: object,
        request_id: str,
        timeout: float | None,
        metadata: Mapping[str, str] | None,
    ) -> _Response:
        try:
            return method(
                request,
                timeout=self._options.call_timeout(timeout),
                metadata=self._options.call_metadata(metadata),
            )
        except grpc.RpcError as error:
            raise _translate(error, request_id) from error


class _Future(Protocol[_Answer_co]):
    """What a call in progress needs of gRPC's, whose future types differ by their publisher."""

    def result(self) -> _Answer_co: ...

    def cancel(self) -> object: ...


class Pending(Generic[_Response]):
    """A call in progress. cancel() may come from any thread, and stops the spend."""

    def __init__(self, call: _Future[_Response], request_id: str) -> None:
        self._call = call
        self._request_id = request_id

    def result(self) -> _Response:
        """Waits for the answer. Raises TrunklineError; CallCancelledError after cancel()."""
        try:
            return self._call.result()
        except grpc.FutureCancelledError as error:
            raise CallCancelledError(
                "the call was cancelled by its caller",
                code=grpc.StatusCode.CANCELLED,
                reason=v1.ERROR_REASON_CANCELLED,
                request_id=self._request_id,
            ) from error
        except grpc.RpcError as error:
            raise _translate(error, self._request_id) from error

    def cancel(self) -> None:
        """Cancels the call. Too late does no harm."""
        self._call.cancel()


class Stream:
    """The events of one streamed answer, in order.

    Iterate it for the events, `text()` for the text alone, or take `message()` whole. Use it
    as a context manager, so that leaving early cancels the call and stops the spend. Read by
    one thread at a time; cancel() may come from any.
    """

    def __init__(self, call: _StreamCall, request_id: str) -> None:
        self._call = call
        self._record = StreamRecord(request_id)
        self._cancelled = False

    @property
    def start(self) -> v1.StreamStart | None:
        """The first event: who answers and why. None until it has come."""
        return self._record.start

    @property
    def end(self) -> v1.StreamEnd | None:
        """The last event: usage, cost and attempts. None until it has come."""
        return self._record.end

    def __iter__(self) -> Iterator[v1.StreamGenerateResponse]:
        return self

    def __next__(self) -> v1.StreamGenerateResponse:
        if self._cancelled:
            raise self._record.cancelled()
        try:
            event = next(self._call)
        except StopIteration:
            self._record.check_complete()
            raise
        except grpc.RpcError as error:
            if self._cancelled:
                raise self._record.cancelled() from error
            raise _translate(error, self._record.request_id) from error
        self._record.take(event)
        return event

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

    def cancel(self) -> None:
        """Cancels the call; reading on raises CallCancelledError. Too late does no harm."""
        if self._record.end is None:
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


def _translate(error: grpc.RpcError, request_id: str) -> TrunklineError:
    # None, whatever the types say, when the call failed before it left.
    trailing = [(entry.key, entry.value) for entry in error.trailing_metadata() or ()]
    return from_rpc(error.code(), error.details(), trailing, request_id)
