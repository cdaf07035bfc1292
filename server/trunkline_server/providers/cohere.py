"""The Cohere dialect: version 2 of its chat, its embeddings and its reranking."""

from collections.abc import Mapping

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.codec import CodecTarget, WireRequest
from trunkline_server.providers.cohere_decode import decode_chat, decode_embeddings, decode_order
from trunkline_server.providers.cohere_encode import encode_chat, encode_embeddings, encode_order
from trunkline_server.providers.cohere_errors import decode_failure
from trunkline_server.providers.cohere_json import DIALECT
from trunkline_server.providers.cohere_stream import CohereStreamDecoder


class CohereCodec:
    """Codec for `/v2/chat`, `/v2/embed` and `/v2/rerank`, relative to a base URL such as
    `https://api.cohere.com`. It has no flags.

    The shapes are those of recorded answers (tests/corpus/test_cohere.py) and of the types of
    the vendor's own SDK, which judge the golden requests and replies (tests/golden/cohere).

    - A text file of the user's is sent as one of the request's documents, which the answer then
      cites by "doc:0", "doc:1" and so on; other files are refused.
    - `tool_plan`, what the model says of the calls that it is about to make, is a reasoning
      part, and so is its thinking. A signature tells them apart on their way back; reasoning
      of other dialects does not go.
    - Counts are those that the vendor bills. It reads a preamble of its own besides, which it
      counts apart and does not charge, so what it says of its cache concerns more than it bills
      and is left out; only where it bills nothing are all tokens told.
    - `truncate` is set to NONE, so that an input that is too long is refused and not cut.
    - Answers do not name their model, so `model` stays empty.
    """

    dialect = DIALECT

    def encode_generate(
        self, request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
    ) -> WireRequest:
        return encode_chat(request, target, stream=stream)

    def decode_generate(self, body: bytes, into: v1.GenerateResponse) -> None:
        decode_chat(body, into)

    def stream_decoder(self) -> CohereStreamDecoder:
        return CohereStreamDecoder()

    def encode_embed(self, request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
        return encode_embeddings(request, target)

    def decode_embed(self, body: bytes, into: v1.EmbedResponse) -> None:
        decode_embeddings(body, into)

    def encode_rerank(self, request: v1.RerankRequest, target: CodecTarget) -> WireRequest:
        return encode_order(request, target)

    def decode_rerank(
        self, body: bytes, request: v1.RerankRequest, into: v1.RerankResponse
    ) -> None:
        decode_order(body, request, into)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return decode_failure(status, headers, body)
