"""The client for asyncio. Belongs to the event loop that makes its first call."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import grpc
import grpc.aio

from trunkline import v1
from trunkline._async_streams import AsyncSpeechStream, AsyncStream, translate
from trunkline._options import (
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT,
    ClientOptions,
    Propagator,
    TlsOptions,
    from_environment,
)
from trunkline._requests import (
    async_recording,
    count_request,
    embed_request,
    generate_request,
    image_request,
    route_request,
    speech_request,
)
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub

if TYPE_CHECKING:
    from trunkline.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

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
    ) -> AsyncStream:
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

    async def generate_image(
        self,
        request: v1.GenerateImageRequest | str,
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> v1.GenerateImageResponse:
        """Makes pictures of a request, or one of a prompt given as text."""
        message = image_request(request, model)
        method = self._stub.GenerateImage
        return await self._call(method, message, message.request_id, timeout, metadata)

    async def transcribe(
        self,
        spec: v1.TranscribeSpec,
        audio: bytes | Iterable[bytes] | AsyncIterable[bytes],
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> v1.TranscribeResponse:
        """Writes a recording down, given whole or in pieces, which are sent as they come."""
        messages = async_recording(spec, audio)
        return await self._call(self._stub.Transcribe, messages, spec.request_id, timeout, metadata)

    def synthesize(
        self,
        request: v1.SynthesizeRequest | str,
        *,
        model: str = "",
        voice: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncSpeechStream:
        """Speaks a text. The timeout covers the whole stream.

        The call begins at once, so this needs a running event loop.
        """
        message = speech_request(request, model, voice)
        call = self._stub.Synthesize(
            message,
            timeout=self._options.call_timeout(timeout),
            metadata=self._options.call_metadata(metadata),
        )
        return AsyncSpeechStream(call, message.request_id)

    async def rerank(
        self,
        request: v1.RerankRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> v1.RerankResponse:
        """Puts documents in the order of their relevance."""
        return await self._call(self._stub.Rerank, request, request.request_id, timeout, metadata)

    async def count_tokens(
        self,
        request: v1.CountTokensRequest | str,
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> v1.CountTokensResponse:
        """Counts the tokens of a conversation, or of a prompt given as text."""
        message = count_request(request, model)
        method = self._stub.CountTokens
        return await self._call(method, message, message.request_id, timeout, metadata)

    async def list_models(
        self,
        *,
        capabilities: Iterable[str] = (),
        provider: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[v1.PublicModel]:
        """The models that may be used, by name, page after page as they are asked for. Only
        those with all of some capabilities, and at one provider, if that is said. Retried when
        unavailable; the timeout is that of each page."""
        request = v1.ListModelsRequest(capabilities=capabilities, provider=provider)
        while True:
            page = await self._call(self._stub.ListModels, request, "", timeout, metadata)
            for model in page.models:
                yield model
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def provider_health(
        self,
        provider: str = "",
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Sequence[v1.ProviderHealth]:
        """How the providers fare, or one of them. Retried when unavailable."""
        request = v1.ListProviderHealthRequest(provider=provider)
        response = await self._call(self._stub.ListProviderHealth, request, "", timeout, metadata)
        return response.providers

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
            raise translate(error, request_id) from error
