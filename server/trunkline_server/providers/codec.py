"""What every dialect implements: pure translation between the contract and vendor bytes.

A codec touches no network, clock, environment or shared state, and never changes the
request it is given: a retry or a fallback encodes the same request again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from trunkline import v1
from trunkline_server.errors import UpstreamError


class WireRequest(NamedTuple):
    """One HTTP request to a provider, without origin and credentials.

    `path` begins with a slash and is joined to the provider's base URL. `headers` holds only
    what this request needs beyond content-type and credentials. A model id in the path is
    already percent-encoded. `content_type` empty means the provider's own, which is JSON.
    """

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    method: str = "POST"
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class CodecTarget:
    """What a codec must know of the deployment it encodes for.

    `max_output_tokens` is the model's own limit, for vendors that demand one; None when
    unknown. `flags` are the dialect's switches from the provider's catalogue row or its
    configuration, for hosts that deviate from the dialect; each codec documents its own.
    `reasons` is False for a model that is known not to reason.
    """

    provider_model: str
    max_output_tokens: int | None = None
    flags: Mapping[str, str | int | bool] = field(default_factory=dict)
    reasons: bool = True


class StreamDecoder(Protocol):
    """Turns one answer's events into deltas. One instance serves one stream."""

    # The vendor's name of the model, the vendor's id of the answer, and the usage known so
    # far, for streams that break.
    model: str
    response_id: str
    usage: v1.Usage

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        """The deltas that one event gives, often one, possibly none.

        `event` is the event's name, empty when it has none; `data` is its data: of a server-sent
        event its joined data lines.

        Raises UpstreamError for an error the vendor reports inside the stream
        (http_status 200) and, as BAD_PROVIDER_RESPONSE, for an event that makes no sense.
        """
        ...

    def finish(self) -> v1.StreamEnd:
        """The end of the answer, once the connection has ended in order.

        Sets finish_reason, vendor_finish_reason, usage and model. Raises UpstreamError with
        STREAM_INTERRUPTED when the vendor's own end mark was never seen.
        """
        ...


class Codec(Protocol):
    """One dialect. Instances are stateless and shared.

    A dialect whose streams are not server-sent events says so by an attribute `framing`, the name
    of one of the framings of `upstream.framing`; its decoders are fed that framing's events.

    What a dialect may do beyond this are protocols of their own: it does what it has the
    methods for, and `faculties` tells which these are when a routing table is made.
    """

    dialect: str

    def encode_generate(
        self, request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
    ) -> WireRequest:
        """The vendor's request. Raises TrunklineError(INVALID_REQUEST) naming the field for
        content that the dialect cannot carry."""
        ...

    def decode_generate(self, body: bytes, into: v1.GenerateResponse) -> None:
        """Fills message, finish_reason, vendor_finish_reason, usage and model from a 2xx body.

        Raises UpstreamError: BAD_PROVIDER_RESPONSE for a body that makes no sense,
        CONTENT_FILTER for a prompt that the vendor blocked.
        """
        ...

    def stream_decoder(self) -> StreamDecoder:
        """A decoder for one streamed answer."""
        ...

    def encode_embed(self, request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
        """The vendor's request for vectors; raises as encode_generate does."""
        ...

    def decode_embed(self, body: bytes, into: v1.EmbedResponse) -> None:
        """Fills embeddings, usage and model from a 2xx body; raises as decode_generate does."""
        ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Classifies a non-2xx answer. Header names are lower case. Never raises: a body that
        makes no sense is classified by its status alone. The message quotes the vendor's own
        message, at most 500 characters of it, and never the request."""
        ...


@runtime_checkable
class ImageCodec(Protocol):
    """A dialect in which pictures can be asked for."""

    def encode_image(self, request: v1.GenerateImageRequest, target: CodecTarget) -> WireRequest:
        """The vendor's request for pictures; raises as encode_generate does."""
        ...

    def decode_image(
        self, body: bytes, request: v1.GenerateImageRequest, into: v1.GenerateImageResponse
    ) -> None:
        """Fills images, model and, as far as the vendor tells, usage from a 2xx body.

        What the vendor does not tell of output_images and image_variant is left for the
        engine to fill in. Raises as decode_generate does; CONTENT_FILTER when every picture
        was held back.
        """
        ...


@runtime_checkable
class TranscriptionCodec(Protocol):
    """A dialect in which recordings can be written down."""

    def encode_transcription(
        self, spec: v1.TranscribeSpec, audio: bytes, target: CodecTarget
    ) -> WireRequest:
        """The vendor's request for a transcript of a whole recording; raises as
        encode_generate does."""
        ...

    def decode_transcription(
        self, body: bytes, spec: v1.TranscribeSpec, into: v1.TranscribeResponse
    ) -> None:
        """Fills text, language, duration_ms, segments, model and usage from a 2xx body; raises
        as decode_generate does."""
        ...


class SpeechDecoder(Protocol):
    """Turns the chunks of one answer's body into a recording. One instance serves one answer."""

    # The vendor's name of the model, the IANA media type of the recording, and the usage known
    # so far, for answers that break. The first two are final once a piece has been given.
    model: str
    media_type: str
    usage: v1.Usage

    def feed(self, event: str, data: bytes) -> Sequence[bytes]:
        """The pieces that one chunk of the body gives, often one, possibly none, none empty.

        Of a body whose content type is text/event-stream these are its events, as
        StreamDecoder.feed has them; of any other its bytes as they come, and `event` is empty.
        Raises UpstreamError as StreamDecoder.feed does.
        """
        ...

    def finish(self) -> Sequence[bytes]:
        """What is left once the connection has ended in order; `usage` is complete then.

        Raises UpstreamError with STREAM_INTERRUPTED when the vendor has an end mark and it was
        never seen.
        """
        ...


@runtime_checkable
class SpeechCodec(Protocol):
    """A dialect in which text can be spoken."""

    def encode_speech(self, request: v1.SynthesizeRequest, target: CodecTarget) -> WireRequest:
        """The vendor's request for speech, streamed where it can be; raises as encode_generate
        does."""
        ...

    def speech_decoder(
        self, request: v1.SynthesizeRequest, target: CodecTarget, headers: Mapping[str, str]
    ) -> SpeechDecoder:
        """A decoder for one answer, of which `headers` are the 2xx response's, in lower case."""
        ...


@runtime_checkable
class RerankCodec(Protocol):
    """A dialect in which documents can be put in order."""

    def encode_rerank(self, request: v1.RerankRequest, target: CodecTarget) -> WireRequest:
        """The vendor's request for an order; raises as encode_generate does."""
        ...

    def decode_rerank(
        self, body: bytes, request: v1.RerankRequest, into: v1.RerankResponse
    ) -> None:
        """Fills results, the most relevant first, usage and model from a 2xx body; raises as
        decode_generate does, and BAD_PROVIDER_RESPONSE for an index that the request has no
        document for."""
        ...


@runtime_checkable
class TokenCountCodec(Protocol):
    """A dialect whose vendors count tokens."""

    def encode_token_count(
        self, request: v1.CountTokensRequest, target: CodecTarget
    ) -> WireRequest | None:
        """The vendor's request for a count, or None where a flag says that this host does not
        count; raises as encode_generate does."""
        ...

    def decode_token_count(self, body: bytes) -> int:
        """The tokens that a 2xx body tells; raises as decode_generate does."""
        ...


# What a deployment must be able to do for a call of one kind, and what its dialect must have
# for that. Chat and embedding are every dialect's; which hosts and models have them is data.
_FACULTIES: Mapping[str, type] = {
    "image_generation": ImageCodec,
    "transcription": TranscriptionCodec,
    "speech": SpeechCodec,
    "rerank": RerankCodec,
}
OPTIONAL_FACULTIES = frozenset(_FACULTIES)


def faculties(codec: Codec) -> frozenset[str]:
    """The optional capabilities that a dialect has the methods for."""
    return frozenset(name for name, kind in _FACULTIES.items() if isinstance(codec, kind))
