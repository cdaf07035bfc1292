"""The unary operations beside chat and embedding: pictures, transcripts, orders, token counts.

Routing chooses for them only deployments whose dialect has the methods, see
`providers.codec.faculties`: so a codec may be taken for one that has them once it has been asked
to encode. Of a model that is passed through, the dialect is known then alone. An operation
belongs to one call: it knows what that may consume.
"""

from abc import abstractmethod
from typing import cast

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.engine.needs import (
    count_query,
    image_query,
    recording_query,
    rerank_query,
)
from trunkline_server.engine.operations import Operation, RequestT, ResponseT
from trunkline_server.engine.units import (
    NOTHING,
    Units,
    image_units,
    image_variant,
    recording_units,
    rerank_units,
)
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.providers.codec import (
    Codec,
    CodecTarget,
    ImageCodec,
    RerankCodec,
    TokenCountCodec,
    TranscriptionCodec,
    WireRequest,
)
from trunkline_server.routing.query import Query
from trunkline_server.routing.snapshot import Deployment


class MediaOperation(Operation[RequestT, ResponseT]):
    """One call's operation. `units` are the most that it consumes."""

    def __init__(self, units: Units, clock: Clock) -> None:
        self.units = units
        self._clock = clock

    @abstractmethod
    def query(self, request: RequestT, permitted: frozenset[str] | None) -> Query:
        """The routing query of the request. `permitted`: as Query.models."""

    def _consumed(self, target: Deployment) -> v1.Usage:
        return self.units.consumed(target.price, self._clock.wall())


class GenerateImage(MediaOperation[v1.GenerateImageRequest, v1.GenerateImageResponse]):
    """Pictures."""

    def __init__(self, request: v1.GenerateImageRequest, clock: Clock) -> None:
        super().__init__(image_units(request), clock)

    def query(self, request: v1.GenerateImageRequest, permitted: frozenset[str] | None) -> Query:
        return image_query(request, permitted)

    def encode(
        self, codec: Codec, request: v1.GenerateImageRequest, target: CodecTarget
    ) -> WireRequest:
        if not isinstance(codec, ImageCodec):
            raise lacking("image_generation")
        return codec.encode_image(request, target)

    def decode(
        self, codec: Codec, body: bytes, request: v1.GenerateImageRequest, target: Deployment
    ) -> tuple[v1.GenerateImageResponse, v1.Usage]:
        response = v1.GenerateImageResponse()
        cast("ImageCodec", codec).decode_image(body, request, response)
        usage = response.usage
        if not usage.source:
            told = usage.image_variant
            usage.CopyFrom(self._consumed(target))
            usage.image_variant = told
        usage.output_images = len(response.images)
        if not usage.image_variant:
            usage.image_variant = image_variant(request.quality, request.size)
        return response, usage


class Transcribe(MediaOperation[v1.TranscribeSpec, v1.TranscribeResponse]):
    """A transcript. The recording is no part of what is asked for: it is kept here."""

    def __init__(self, spec: v1.TranscribeSpec, audio: bytes, clock: Clock) -> None:
        super().__init__(recording_units(spec, audio), clock)
        self._audio = audio

    def query(self, request: v1.TranscribeSpec, permitted: frozenset[str] | None) -> Query:
        return recording_query(request, permitted)

    def encode(self, codec: Codec, request: v1.TranscribeSpec, target: CodecTarget) -> WireRequest:
        if not isinstance(codec, TranscriptionCodec):
            raise lacking("transcription")
        return codec.encode_transcription(request, self._audio, target)

    def decode(
        self, codec: Codec, body: bytes, request: v1.TranscribeSpec, target: Deployment
    ) -> tuple[v1.TranscribeResponse, v1.Usage]:
        response = v1.TranscribeResponse()
        cast("TranscriptionCodec", codec).decode_transcription(body, request, response)
        usage = response.usage
        if not usage.source:
            usage.CopyFrom(self._consumed(target))
        if response.duration_ms and usage.source != v1.USAGE_SOURCE_PROVIDER:
            # The vendor knows how long it is, if not how it counts that.
            usage.input_audio_ms = response.duration_ms
        return response, usage


class Rerank(MediaOperation[v1.RerankRequest, v1.RerankResponse]):
    """An order of documents."""

    def __init__(self, request: v1.RerankRequest, clock: Clock) -> None:
        super().__init__(rerank_units(request), clock)

    def query(self, request: v1.RerankRequest, permitted: frozenset[str] | None) -> Query:
        return rerank_query(request, permitted)

    def encode(self, codec: Codec, request: v1.RerankRequest, target: CodecTarget) -> WireRequest:
        if not isinstance(codec, RerankCodec):
            raise lacking("rerank")
        return codec.encode_rerank(request, target)

    def decode(
        self, codec: Codec, body: bytes, request: v1.RerankRequest, target: Deployment
    ) -> tuple[v1.RerankResponse, v1.Usage]:
        response = v1.RerankResponse()
        cast("RerankCodec", codec).decode_rerank(body, request, response)
        usage = response.usage
        if not usage.source:
            usage.CopyFrom(self._consumed(target))
        return response, usage


class CountTokens(MediaOperation[v1.CountTokensRequest, v1.CountTokensResponse]):
    """A count by the vendor. It consumes nothing."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(NOTHING, clock)

    def query(self, request: v1.CountTokensRequest, permitted: frozenset[str] | None) -> Query:
        return count_query(request, permitted)

    def counts(self, codec: Codec, request: v1.CountTokensRequest, target: CodecTarget) -> bool:
        """Whether a vendor counts. Raises as `encode`."""
        if not isinstance(codec, TokenCountCodec):
            return False
        return codec.encode_token_count(request, target) is not None

    def encode(
        self, codec: Codec, request: v1.CountTokensRequest, target: CodecTarget
    ) -> WireRequest:
        wire = cast("TokenCountCodec", codec).encode_token_count(request, target)
        if wire is None:
            raise AssertionError("a host that does not count is not asked")
        return wire

    def decode(
        self, codec: Codec, body: bytes, request: v1.CountTokensRequest, target: Deployment
    ) -> tuple[v1.CountTokensResponse, v1.Usage]:
        response = v1.CountTokensResponse(method=v1.TOKEN_COUNT_METHOD_PROVIDER)
        response.input_tokens = cast("TokenCountCodec", codec).decode_token_count(body)
        return response, v1.Usage()


def lacking(what: str) -> TrunklineError:
    """The error for a model whose dialect has no way to ask for something."""
    return invalid("model", f"its dialect has no way to ask for this: {what}")
