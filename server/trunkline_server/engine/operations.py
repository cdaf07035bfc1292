"""The unary operations as the attempt loop sees them: encode, decode, count."""

from typing import Protocol, TypeVar

from trunkline import v1
from trunkline_server.engine.needs import estimate_usage
from trunkline_server.providers.codec import Codec, CodecTarget, WireRequest

RequestT_contra = TypeVar(
    "RequestT_contra", v1.GenerateRequest, v1.EmbedRequest, contravariant=True
)
ResponseT_co = TypeVar("ResponseT_co", v1.GenerateResponse, v1.EmbedResponse, covariant=True)


class Operation(Protocol[RequestT_contra, ResponseT_co]):
    """One unary RPC."""

    name: str

    def encode(self, codec: Codec, request: RequestT_contra, target: CodecTarget) -> WireRequest:
        """The vendor's request; raises TrunklineError for what the dialect cannot carry."""
        ...

    def decode(self, codec: Codec, body: bytes, request: RequestT_contra) -> ResponseT_co:
        """The answer, its usage estimated if the vendor gave none; raises UpstreamError."""
        ...


class Generate:
    """Generation in one piece."""

    name = "generate"

    def encode(self, codec: Codec, request: v1.GenerateRequest, target: CodecTarget) -> WireRequest:
        return codec.encode_generate(request, target, stream=False)

    def decode(self, codec: Codec, body: bytes, request: v1.GenerateRequest) -> v1.GenerateResponse:
        response = v1.GenerateResponse()
        codec.decode_generate(body, response)
        if not response.usage.source:
            response.usage.CopyFrom(estimate_usage(request, response.message.ByteSize()))
        return response


class Embed:
    """Embedding."""

    name = "embed"

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
