"""The client for asyncio. Belongs to the event loop that makes its first call."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, cast

import grpc
import grpc.aio

from trunkline import v1
from trunkline._errors import TrunklineError, from_rpc
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

if TYPE_CHECKING:
    from trunkline.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

    _StreamCall = grpc.aio.UnaryStreamCall[v1.GenerateRequest, v1.StreamGenerateResponse]

_Response = TypeVar("_Response")


class AsyncClient:
    """A connection to a router, for asyncio. The arguments are those of Client.

    It connects with its first call, so that it can be made before the event loop runs.
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
        self._prepare(
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
        client._prepare(from_environment(environ))
        return client

    def _prepare(self, options: ClientOptions) -> None:
        self._options = options
        self._channel: grpc.aio.Channel | None = None
        self._opened_stub: InferenceServiceAsyncStub | None = None
        self._closed = False

    @property
    def _stub(self) -> "InferenceServiceAsyncStub":
        if self._closed:
            raise ValueError("the client is closed")
        if self._opened_stub is None:
            arguments = self._options.channel_arguments()
            credentials = self._options.credentials()
            if credentials is None:
                self._channel = grpc.aio.insecure_channel(self._options.target, arguments)
            else:
                self._channel = grpc.aio.secure_channel(
                    self._options.target, credentials, arguments
                )
            self._opened_stub = InferenceServiceStub(self._channel)
        return self._opened_stub

    def __repr__(self) -> str:
        return f"AsyncClient(target={self._options.target!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection and cancels the calls still in progress."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def generate(
        self,
        request: v1.GenerateRequest | str,
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> v1.GenerateResponse:
        """Answers a conversation, or a prompt given as text, in one piece."""
        message = generate_request(request, model)
        return await self._call(self._stub.Generate, message, message.request_id, timeout, metadata)

    def stream(
        self,
        request: v1.GenerateRequest | str,
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> "AsyncStream":
        """Answers as the answer is written. The timeout covers the whole stream.

        The call begins at once, so this needs a running event loop.
        """
        message = generate_request(request, model)
        call = self._stub.StreamGenerate(
            message,
            timeout=self._options.call_timeout(timeout),
            metadata=self._options.call_metadata(metadata),
        )
        return AsyncStream(call, message.request_id)

    async def embed(
        self,
        request: v1.EmbedRequest | str | Sequence[str],
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> v1.EmbedResponse:
        """Turns texts into vectors."""
        message = embed_request(request, model)
        return await self._call(self._stub.Embed, message, message.request_id, timeout, metadata)

    async def route(
        self,
        request: v1.RouteRequest | None = None,
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> v1.RouteResponse:
        """Tells how a call would be routed, without making it. Retried when unavailable."""
        message = route_request(request, model)
        return await self._call(self._stub.Route, message, "", timeout, metadata)

    async def batch_route(
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
        return await self._call(self._stub.BatchRoute, message, "", timeout, metadata)

    async def _call(
        self,
        method: Callable[..., Awaitable[_Response]],
        request: object,
        request_id: str,
        timeout: float | None,
        metadata: Mapping[str, str] | None,
    ) -> _Response:
        try:
            return await method(
                request,
                timeout=self._options.call_timeout(timeout),
                metadata=self._options.call_metadata(metadata),
            )
        except grpc.aio.AioRpcError as error:
            raise _translate(error, request_id) from error


class AsyncStream:
    """The events of one streamed answer, in order.

    Iterate it for the events, `text()` for the text alone, or await `message()` whole. Use
    it as an async context manager, so that leaving early cancels the call and stops the
    spend. Cancelling the task that reads cancels the call too.
    """

    def __init__(self, call: "_StreamCall", request_id: str) -> None:
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

    def __aiter__(self) -> AsyncIterator[v1.StreamGenerateResponse]:
        return self

    async def __anext__(self) -> v1.StreamGenerateResponse:
        if self._is_cancelled():
            raise self._record.cancelled()
        try:
            event = await self._call.read()
        except asyncio.CancelledError:
            # gRPC raises this for cancel() as well; only then is it ours to translate.
            task = asyncio.current_task()
            if self._is_cancelled() and (task is None or not task.cancelling()):
                raise self._record.cancelled() from None
            # gRPC cancels the call too, but for a task that is cancelled between the sending
            # of its request and its waking up; that call would run on to its deadline.
            self.cancel()
            raise
        except grpc.aio.AioRpcError as error:
            raise _translate(error, self._record.request_id) from error
        if event is grpc.aio.EOF:
            self._record.check_complete()
            raise StopAsyncIteration
        received = cast("v1.StreamGenerateResponse", event)
        self._record.take(received)
        return received

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

    def cancel(self) -> None:
        """Cancels the call; reading on raises CallCancelledError. Too late does no harm."""
        if self._record.end is None:
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


def _translate(error: grpc.aio.AioRpcError, request_id: str) -> TrunklineError:
    return from_rpc(error.code(), error.details(), error.trailing_metadata(), request_id)
