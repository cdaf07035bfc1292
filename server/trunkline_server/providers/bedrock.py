"""The Bedrock runtime's dialect:
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html.
"""

import re
from collections.abc import Mapping
from urllib.parse import quote

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.bedrock_content import DIALECT
from trunkline_server.providers.bedrock_decode import SHAPE_ERRORS, decode_message
from trunkline_server.providers.bedrock_embed import decode_vectors, encode_texts
from trunkline_server.providers.bedrock_encode import encode_body
from trunkline_server.providers.bedrock_errors import bad_response, decode_failure
from trunkline_server.providers.bedrock_images import decode_pictures, encode_picture
from trunkline_server.providers.bedrock_rerank import decode_order, encode_documents
from trunkline_server.providers.bedrock_stream import BedrockStreamDecoder
from trunkline_server.providers.codec import CodecTarget, StreamDecoder, WireRequest

# What stands before a model's own id in that of a region's inference profile.
_REGION = re.compile(r"^[a-z-]+\.(?=[a-z0-9]+\.)")


class BedrockCodec:
    """Translates to and from Converse, ConverseStream and CountTokens, and InvokeModel for
    vectors, pictures and orders of documents.

    The model's id may be a foundation model's, an inference profile's, or the ARN of a
    provisioned, imported or custom model, an inference profile or a prompt router. Flags, all
    optional; the catalogue sets the first eight for the models it knows:

    - `family` (str, none): whose words a model has for what Converse has no field for: "claude",
      "nova", "mistral", "cohere", "ai21" or "openai". Without it `top_k`, `seed`, penalties and
      reasoning are refused.
    - `effort` (str, "adaptive"): how a reasoning effort is sent to Claude: "adaptive" as adaptive
      thinking with `outputConfig.effort`; "budget", for models before the effort scale, as a
      budget of 1024, 2048, 8192 or 24576 tokens from minimal to high, at most three quarters of
      the output limit.
    - `cache_points` (bool, False): whether the model takes cache points, which are sent where a
      part has a cache_breakpoint.
    - `system_in_user` (bool, False): opens the first user turn with the system prompt, for models
      that have none.
    - `embed_as` (str, none): what vectors are asked for with: "titan", "titan_v1", "titan_image",
      "cohere" or "cohere_v4"; see bedrock_embed.
    - `image_as` (str, none): what pictures are asked for with: "titan", "canvas" or "stability";
      see bedrock_images. `rerank_as` (str, none): likewise orders: "cohere" or "amazon".
    - `counts_tokens` (bool, False): whether the service counts tokens for the model.
    - `cache_ttl` (str, none): the `ttl` of cache points, "5m" or "1h".
    - `guardrail_id` (str, none), `guardrail_version` (str, "DRAFT"), `guardrail_trace` (str,
      "enabled"), `guardrail_stream_mode` (str, none): the guardrail of every call, which callers
      cannot replace. What it found, but not the text it found it in, stands in the answer.

    Reasoning is given back when its part's signature names this dialect, and dropped when not.
    The service's own tools and their results are kept as vendor items. Passed over are
    blocks of unknown kinds, `additionalModelResponseFields` and what `serverToolUsage` counts.
    """

    dialect = DIALECT
    framing = "aws-eventstream"

    def encode_generate(
        self, request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
    ) -> WireRequest:
        """See Codec."""
        body = encode_body(request, target, stream=stream)
        operation = "converse-stream" if stream else "converse"
        return WireRequest(path=_path(target, operation), body=orjson.dumps(body))

    def decode_generate(self, body: bytes, into: v1.GenerateResponse) -> None:
        """See Codec."""
        decode_message(body, into)

    def stream_decoder(self) -> StreamDecoder:
        """See Codec."""
        return BedrockStreamDecoder()

    def encode_embed(self, request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
        """See Codec."""
        body = encode_texts(request, target)
        return WireRequest(path=_path(target, "invoke"), body=orjson.dumps(body))

    def decode_embed(self, body: bytes, into: v1.EmbedResponse) -> None:
        """See Codec."""
        decode_vectors(body, into)

    def encode_image(self, request: v1.GenerateImageRequest, target: CodecTarget) -> WireRequest:
        """See ImageCodec."""
        body = encode_picture(request, target)
        return WireRequest(path=_path(target, "invoke"), body=orjson.dumps(body))

    def decode_image(
        self, body: bytes, request: v1.GenerateImageRequest, into: v1.GenerateImageResponse
    ) -> None:
        """See ImageCodec."""
        decode_pictures(body, request, into)

    def encode_rerank(self, request: v1.RerankRequest, target: CodecTarget) -> WireRequest:
        """See RerankCodec."""
        body = encode_documents(request, target)
        return WireRequest(path=_path(target, "invoke"), body=orjson.dumps(body))

    def decode_rerank(
        self, body: bytes, request: v1.RerankRequest, into: v1.RerankResponse
    ) -> None:
        """See RerankCodec."""
        decode_order(body, request, into)

    def encode_token_count(
        self, request: v1.CountTokensRequest, target: CodecTarget
    ) -> WireRequest | None:
        """See TokenCountCodec. The service counts for foundation models, and not for a region's
        profile of one, whose model is therefore asked about."""
        if not target.flags.get("counts_tokens"):
            return None
        generate = v1.GenerateRequest(messages=request.messages, tools=request.tools)
        body = encode_body(generate, target, stream=False)
        body.pop("guardrailConfig", None)
        model = _REGION.sub("", target.provider_model.rpartition("/")[2])
        path = f"/model/{quote(model, safe='')}/count-tokens"
        return WireRequest(path=path, body=orjson.dumps({"input": {"converse": body}}))

    def decode_token_count(self, body: bytes) -> int:
        """See TokenCountCodec."""
        try:
            count = orjson.loads(body)["inputTokens"]
        except SHAPE_ERRORS:
            count = None
        if type(count) is not int or count < 0:
            raise bad_response("an answer that holds no count of tokens")
        return count

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """See Codec."""
        return decode_failure(status, headers, body)


def _path(target: CodecTarget, operation: str) -> str:
    """The path of an operation on the model, whose id may be an ARN with slashes and colons."""
    return f"/model/{quote(target.provider_model, safe='')}/{operation}"
