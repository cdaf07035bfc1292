"""The Replicate dialect: predictions, which are created, waited for, streamed and cancelled.

Follows https://replicate.com/docs/reference/http and the vendor's own SDK. No recorded traffic
confirms it.
"""

from collections.abc import Mapping

from trunkline import v1
from trunkline_server.errors import UpstreamError, invalid
from trunkline_server.providers.codec import CodecTarget, WireRequest
from trunkline_server.providers.exchange import Exchange
from trunkline_server.providers.replicate_decode import ReplicateStreamDecoder, decode_prediction
from trunkline_server.providers.replicate_encode import FLAGS, encode_prediction
from trunkline_server.providers.replicate_errors import decode_error
from trunkline_server.providers.replicate_exchange import PredictionExchange

__all__ = ["FLAGS", "ReplicateCodec"]


class ReplicateCodec:
    """Codec for language models at `/predictions` and its like, relative to a base URL such as
    `https://api.replicate.com/v1`.

    A model is named `owner/name`, where the vendor keeps it running; by the id of a version,
    alone or as `owner/name:version`; or as `deployments/owner/name`.

    Models there take one prompt, so a conversation of several turns becomes a transcript in it.
    What a model is given beyond that is its own affair: provider_options are merged into its
    input, over what the codec has put there.

    Flags, each with its default:

    - `image_field` ("image"): the input that takes a picture. "": pictures are refused.
    - `image_list` (False): it takes a list of them.
    - `max_tokens_field` ("max_tokens"): the input for max_output_tokens.
    - `poll_ms` (500): how long to wait before a prediction is looked at again, in milliseconds.
    - `stop_field` ("stop_sequences"): the input for stop texts, joined by commas. "": refused.
    - `system_field` ("system_prompt"): the input for system messages. "": they begin the prompt.
    - `wait` (5): how long the vendor may hold back its first reply for the answer, in seconds, 0
      to 60. A call that ends meanwhile can be called off only when that reply has come.
    """

    dialect = "replicate"

    def encode_generate(
        self, request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
    ) -> WireRequest:
        return encode_prediction(request, target, stream=stream)

    def decode_generate(self, body: bytes, into: v1.GenerateResponse) -> None:
        decode_prediction(body, into)

    def stream_decoder(self) -> ReplicateStreamDecoder:
        return ReplicateStreamDecoder()

    def encode_embed(self, request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
        """Refuses: what its embedding models take in and give differs from model to model."""
        raise invalid("model", "this provider's dialect has no embeddings")

    def decode_embed(self, body: bytes, into: v1.EmbedResponse) -> None:
        raise AssertionError("nothing was asked for")

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return decode_error(status, headers, body)

    def exchange(self, target: CodecTarget, *, stream: bool) -> Exchange:
        return PredictionExchange(target, stream=stream)
