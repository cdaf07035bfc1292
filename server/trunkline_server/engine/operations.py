"""The unary operations as the attempt loop sees them: encode, decode, count."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from trunkline import v1
from trunkline_server.engine.needs import estimate_usage
from trunkline_server.providers.codec import Codec, CodecTarget, WireRequest

RequestT = TypeVar("RequestT", bound=v1.GenerateRequest | v1.EmbedRequest)
ResponseT = TypeVar("ResponseT", bound=v1.GenerateResponse | v1.EmbedResponse)


class Operation(ABC, Generic[RequestT, ResponseT]):
    """One unary RPC."""

    @abstractmethod
    def encode(self, codec: Codec, request: RequestT, target: CodecTarget) -> WireRequest:
        """The vendor's request; raises TrunklineError for what the dialect cannot carry."""

    @abstractmethod
    def decode(self, codec: Codec, body: bytes, request: RequestT) -> ResponseT:
        """The answer, its usage estimated if the vendor gave none; raises UpstreamError."""


class Generate(Operation[v1.GenerateRequest, v1.GenerateResponse]):
    """Generation in one piece."""

    def encode(self, codec: Codec, request: v1.GenerateRequest, target: CodecTarget) -> WireRequest:
        return codec.encode_generate(request, target, stream=False)

    def decode(self, codec: Codec, body: bytes, request: v1.GenerateRequest) -> v1.GenerateResponse:
        response = v1.GenerateResponse()
        codec.decode_generate(body, response)
        if not response.usage.source:
            response.usage.CopyFrom(estimate_usage(request, response.message.ByteSize()))
        return response


class Embed(Operation[v1.EmbedRequest, v1.EmbedResponse]):
    """Embedding."""

    def encode(self, codec: Codec, request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
        return codec.encode_embed(request, target)

    def decode(self, codec: Codec, body: bytes, request: v1.EmbedRequest) -> v1.EmbedResponse:
        response = v1.EmbedResponse()
        codec.decode_embed(body, response)
        if not response.usage.source:
            response.usage.CopyFrom(estimate_usage(request, 0))
        return response


GENERATE = Generate()
EMBED = Embed()
