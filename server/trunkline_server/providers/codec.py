"""What every dialect implements: pure translation between the contract and vendor bytes.

A codec touches no network, clock, environment or shared state, and never changes the
request it is given: a retry or a fallback encodes the same request again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from trunkline import v1
from trunkline_server.errors import UpstreamError


class WireRequest(NamedTuple):
    """One HTTP request to a provider, without origin and credentials.

    `path` begins with a slash and is joined to the provider's base URL. `headers` holds only
    what this request needs beyond content-type and credentials. A model id in the path is
    already percent-encoded.
    """

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class CodecTarget:
    """What a codec must know of the deployment it encodes for.

    `max_output_tokens` is the model's own limit, for vendors that demand one; None when
    unknown. `flags` are the dialect's switches from the provider's catalogue row or its
    configuration, for hosts that deviate from the dialect; each codec documents its own.
    """

    provider_model: str
    max_output_tokens: int | None = None
    flags: Mapping[str, str | int | bool] = field(default_factory=dict)


class StreamDecoder(Protocol):
    """Turns one answer's events into deltas. One instance serves one stream."""

    # The vendor's name of the model, the vendor's id of the answer, and the usage known so
    # far, for streams that break.
    model: str
    response_id: str
    usage: v1.Usage

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        """The deltas that one server-sent event gives, often one, possibly none.

        `event` is the event's name, empty when it has none; `data` is its joined data lines.

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
    """One dialect. Instances are stateless and shared."""

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
