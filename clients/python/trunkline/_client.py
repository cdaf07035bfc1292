"""The client for ordinary, blocking code. Safe to share between threads."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import grpc

from trunkline import v1
from trunkline._errors import CallCancelledError
from trunkline._options import (
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT,
    ClientOptions,
    Propagator,
    TlsOptions,
    from_environment,
)
from trunkline._requests import (
    count_request,
    embed_request,
    generate_request,
    image_request,
    recording,
    route_request,
    speech_request,
)
from trunkline._streams import SpeechStream, Stream, translate
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub

_Response = TypeVar("_Response")
_Answer_co = TypeVar("_Answer_co", covariant=True)


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
    ) -> Stream:
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

    def generate_image(
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
        return self._call(method, message, message.request_id, timeout, metadata)

    def transcribe(
        self,
        spec: v1.TranscribeSpec,
        audio: bytes | Iterable[bytes],
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> v1.TranscribeResponse:
        """Writes a recording down, given whole or in pieces, which are sent as they come."""
        messages = recording(spec, audio)
        return self._call(self._stub.Transcribe, messages, spec.request_id, timeout, metadata)

    def synthesize(
        self,
        request: v1.SynthesizeRequest | str,
        *,
        model: str = "",
        voice: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> SpeechStream:
        """Speaks a text. The timeout covers the whole stream."""
        message = speech_request(request, model, voice)
        call = self._stub.Synthesize(
            message,
            timeout=self._options.call_timeout(timeout),
            metadata=self._options.call_metadata(metadata),
        )
        return SpeechStream(call, message.request_id)

    def rerank(
        self,
        request: v1.RerankRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> v1.RerankResponse:
        """Puts documents in the order of their relevance."""
        return self._call(self._stub.Rerank, request, request.request_id, timeout, metadata)

    def count_tokens(
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
        return self._call(method, message, message.request_id, timeout, metadata)

    def list_models(
        self,
        *,
        capabilities: Iterable[str] = (),
        provider: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Iterator[v1.PublicModel]:
        """The models that may be used, by name, page after page as they are asked for. Only
        those with all of some capabilities, and at one provider, if that is said. Retried when
        unavailable; the timeout is that of each page."""
        request = v1.ListModelsRequest(capabilities=capabilities, provider=provider)
        while True:
            page = self._call(self._stub.ListModels, request, "", timeout, metadata)
            yield from page.models
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def provider_health(
        self,
        provider: str = "",
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Sequence[v1.ProviderHealth]:
        """How the providers fare, or one of them. Retried when unavailable."""
        request = v1.ListProviderHealthRequest(provider=provider)
        response = self._call(self._stub.ListProviderHealth, request, "", timeout, metadata)
        return response.providers

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
            raise translate(error, request_id) from error


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
            raise translate(error, self._request_id) from error

    def cancel(self) -> None:
        """Cancels the call. Too late does no harm."""
        self._call.cancel()
