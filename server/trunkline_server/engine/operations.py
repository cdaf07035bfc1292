"""The unary operations as the attempt loop sees them: encode, decode, count."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from trunkline import v1
from trunkline_server.engine.needs import estimate_usage
from trunkline_server.engine.requests import Request
from trunkline_server.providers.codec import Codec, CodecTarget, WireRequest
from trunkline_server.routing.snapshot import Deployment

RequestT = TypeVar("RequestT", bound=Request)
ResponseT = TypeVar(
    "ResponseT",
    bound=v1.GenerateResponse
    | v1.EmbedResponse
    | v1.GenerateImageResponse
    | v1.TranscribeResponse
    | v1.RerankResponse
    | v1.CountTokensResponse,
)


class Operation(ABC, Generic[RequestT, ResponseT]):
    """One unary RPC."""

    @abstractmethod
    def encode(self, codec: Codec, request: RequestT, target: CodecTarget) -> WireRequest:
        """The vendor's request; raises TrunklineError for what the dialect cannot carry."""

    @abstractmethod
    def decode(
        self, codec: Codec, body: bytes, request: RequestT, target: Deployment
    ) -> tuple[ResponseT, v1.Usage]:
        """The answer and what it consumed, estimated if the vendor did not say; raises
        UpstreamError."""


class Generate(Operation[v1.GenerateRequest, v1.GenerateResponse]):
    """Generation in one piece."""

    def encode(self, codec: Codec, request: v1.GenerateRequest, target: CodecTarget) -> WireRequest:
        return codec.encode_generate(request, target, stream=False)

    def decode(
        self, codec: Codec, body: bytes, request: v1.GenerateRequest, target: Deployment
    ) -> tuple[v1.GenerateResponse, v1.Usage]:
        response = v1.GenerateResponse()
        codec.decode_generate(body, response)
        usage = response.usage
        if not usage.source:
            usage.CopyFrom(estimate_usage(request, response.message.ByteSize()))
        return response, usage


class Embed(Operation[v1.EmbedRequest, v1.EmbedResponse]):
    """Embedding."""

    def encode(self, codec: Codec, request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
        return codec.encode_embed(request, target)

    def decode(
        self, codec: Codec, body: bytes, request: v1.EmbedRequest, target: Deployment
    ) -> tuple[v1.EmbedResponse, v1.Usage]:
        response = v1.EmbedResponse()
        codec.decode_embed(body, response)
        usage = response.usage
        if not usage.source:
            usage.CopyFrom(estimate_usage(request, 0))
        return response, usage


# They know nothing of a single call, and so are shared.
GENERATE = Generate()
EMBED = Embed()
