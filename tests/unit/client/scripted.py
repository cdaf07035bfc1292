"""A real gRPC server whose answers each test writes, and one way to drive both clients."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2

from trunkline import AsyncClient, AsyncStream, Client, Stream, v1
from trunkline.v1.inference_service_pb2_grpc import (
    InferenceServiceServicer,
    add_InferenceServiceServicer_to_server,
)

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Context], Awaitable[Any]]
Streaming = Callable[[v1.GenerateRequest, Context], AsyncIterator[v1.StreamGenerateResponse]]


@dataclass
class ReceivedCall:
    """One call as the server saw it; `remaining` is its deadline in seconds, None for none."""

    method: str
    request: Any
    metadata: dict[str, str | bytes]
    remaining: float | None


async def fail(
    context: Context, code: grpc.StatusCode, message: str, *details: Message, status_code: int = -1
) -> None:
    """Ends a call with a google.rpc.Status, as the protocol's own rules put it on the wire."""
    status = status_pb2.Status(code=code.value[0] if status_code < 0 else status_code)
    status.message = message
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(code, message)


def start_event(call_id: str = "call-1") -> v1.StreamGenerateResponse:
    return v1.StreamGenerateResponse(start=v1.StreamStart(id=call_id, provider="sim"))


def text_event(text: str) -> v1.StreamGenerateResponse:
    return v1.StreamGenerateResponse(delta=v1.StreamDelta(text=text))


def end_event() -> v1.StreamGenerateResponse:
    return v1.StreamGenerateResponse(
        end=v1.StreamEnd(finish_reason=v1.FINISH_REASON_STOP, usage=v1.Usage(output_tokens=2))
    )


@dataclass
class ScriptedRouter(InferenceServiceServicer):
    """Records every call and answers as the test says. Unset methods must not be called."""

    calls: list[ReceivedCall] = field(default_factory=list)
    on_generate: Unary | None = None
    on_embed: Unary | None = None
    on_route: Unary | None = None
    on_batch_route: Unary | None = None
    on_stream: Streaming | None = None

    def _record(self, method: str, request: Any, context: Context) -> None:
        metadata = {str(key): value for key, value in context.invocation_metadata() or ()}
        remaining = context.time_remaining()
        self.calls.append(ReceivedCall(method, request, metadata, remaining))

    async def _unary(self, method: str, script: Unary | None, request: Any, context: Any) -> Any:
        self._record(method, request, context)
        assert script is not None, f"no script for {method}"
        return await script(request, context)

    async def Generate(self, request: v1.GenerateRequest, context: Any) -> Any:  # noqa: N802 - gRPC's name
        return await self._unary("Generate", self.on_generate, request, context)

    async def Embed(self, request: v1.EmbedRequest, context: Any) -> Any:  # noqa: N802 - gRPC's name
        return await self._unary("Embed", self.on_embed, request, context)

    async def Route(self, request: v1.RouteRequest, context: Any) -> Any:  # noqa: N802 - gRPC's name
        return await self._unary("Route", self.on_route, request, context)

    async def BatchRoute(self, request: v1.BatchRouteRequest, context: Any) -> Any:  # noqa: N802 - gRPC's name
        return await self._unary("BatchRoute", self.on_batch_route, request, context)

    async def StreamGenerate(  # noqa: N802 - gRPC's name
        self, request: v1.GenerateRequest, context: Any
    ) -> AsyncIterator[v1.StreamGenerateResponse]:
        self._record("StreamGenerate", request, context)
        assert self.on_stream is not None, "no script for StreamGenerate"
        async for event in self.on_stream(request, context):
            yield event


class Served:
    """A ScriptedRouter on a socket of 127.0.0.1; can be stopped and started again."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        # What it has no script for is refused as UNIMPLEMENTED by the class that gRPC generates.
        self.router = ScriptedRouter()  # type: ignore[abstract]
        self._credentials = credentials
        self._server: grpc.aio.Server | None = None
        self.port = 0

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            # With it, port 0 may be a port that another server listens on already, and the
            # kernel would share the calls out between the two.
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.aio.server(options=options)
        add_InferenceServiceServicer_to_server(self.router, self._server)
        address = f"127.0.0.1:{self.port}"
        if self._credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, self._credentials)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()


class StreamDriver(Protocol):
    """One stream, read from asyncio whichever client opened it."""

    async def next(self) -> v1.StreamGenerateResponse | None:
        """The next event, None at the end."""

    async def texts(self, limit: int | None = None) -> Sequence[str]:
        """Pieces of text; with a limit, the iterator is closed after so many."""

    async def message(self) -> v1.Message: ...

    async def cancel(self) -> None: ...

    async def leave(self) -> None:
        """Leaves the context that the stream is."""

    @property
    def end(self) -> v1.StreamEnd | None: ...


class ClientDriver(Protocol):
    """Either client, driven from asyncio."""

    async def generate(self, *args: Any, **named: Any) -> v1.GenerateResponse: ...

    async def embed(self, *args: Any, **named: Any) -> v1.EmbedResponse: ...

    async def route(self, *args: Any, **named: Any) -> v1.RouteResponse: ...

    async def batch_route(self, *args: Any, **named: Any) -> v1.BatchRouteResponse: ...

    async def stream(self, *args: Any, **named: Any) -> StreamDriver: ...

    async def close(self) -> None: ...

    def shown(self) -> str: ...


class SyncStreamDriver:
    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def next(self) -> v1.StreamGenerateResponse | None:
        # A StopIteration cannot cross from a thread into a coroutine.
        return await asyncio.to_thread(next, self._stream, None)

    async def texts(self, limit: int | None = None) -> Sequence[str]:
        def read() -> Sequence[str]:
            pieces = []
            for piece in self._stream.text():
                pieces.append(piece)
                if len(pieces) == limit:
                    break
            return pieces

        return await asyncio.to_thread(read)

    async def message(self) -> v1.Message:
        return await asyncio.to_thread(self._stream.message)

    async def cancel(self) -> None:
        self._stream.cancel()

    async def leave(self) -> None:
        with self._stream:
            pass

    @property
    def end(self) -> v1.StreamEnd | None:
        return self._stream.end


class AsyncStreamDriver:
    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream

    async def next(self) -> v1.StreamGenerateResponse | None:
        return await anext(self._stream, None)

    async def texts(self, limit: int | None = None) -> Sequence[str]:
        pieces = []
        iterator = self._stream.text()
        async for piece in iterator:
            pieces.append(piece)
            if len(pieces) == limit:
                break
        await iterator.aclose()
        return pieces

    async def message(self) -> v1.Message:
        return await self._stream.message()

    async def cancel(self) -> None:
        self._stream.cancel()

    async def leave(self) -> None:
        async with self._stream:
            pass

    @property
    def end(self) -> v1.StreamEnd | None:
        return self._stream.end


class SyncDriver:
    def __init__(self, target: str, **options: Any) -> None:
        self._client = Client(target, **options)

    async def generate(self, *args: Any, **named: Any) -> v1.GenerateResponse:
        return await asyncio.to_thread(self._client.generate, *args, **named)

    async def embed(self, *args: Any, **named: Any) -> v1.EmbedResponse:
        return await asyncio.to_thread(self._client.embed, *args, **named)

    async def route(self, *args: Any, **named: Any) -> v1.RouteResponse:
        return await asyncio.to_thread(self._client.route, *args, **named)

    async def batch_route(self, *args: Any, **named: Any) -> v1.BatchRouteResponse:
        return await asyncio.to_thread(self._client.batch_route, *args, **named)

    async def stream(self, *args: Any, **named: Any) -> StreamDriver:
        return SyncStreamDriver(await asyncio.to_thread(self._client.stream, *args, **named))

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    def shown(self) -> str:
        return f"{self._client!r} {vars(self._client)!r}"


class AsyncDriver:
    def __init__(self, target: str, **options: Any) -> None:
        self._client = AsyncClient(target, **options)

    async def generate(self, *args: Any, **named: Any) -> v1.GenerateResponse:
        return await self._client.generate(*args, **named)

    async def embed(self, *args: Any, **named: Any) -> v1.EmbedResponse:
        return await self._client.embed(*args, **named)

    async def route(self, *args: Any, **named: Any) -> v1.RouteResponse:
        return await self._client.route(*args, **named)

    async def batch_route(self, *args: Any, **named: Any) -> v1.BatchRouteResponse:
        return await self._client.batch_route(*args, **named)

    async def stream(self, *args: Any, **named: Any) -> StreamDriver:
        return AsyncStreamDriver(self._client.stream(*args, **named))

    async def close(self) -> None:
        await self._client.close()

    def shown(self) -> str:
        return f"{self._client!r} {vars(self._client)!r}"


DRIVERS: Mapping[str, Callable[..., ClientDriver]] = {"sync": SyncDriver, "async": AsyncDriver}
