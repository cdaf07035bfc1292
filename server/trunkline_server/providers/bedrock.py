"""The Bedrock runtime's dialect:
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html.
"""

from collections.abc import Mapping
from urllib.parse import quote

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.bedrock_content import DIALECT
from trunkline_server.providers.bedrock_decode import decode_message
from trunkline_server.providers.bedrock_embed import decode_vectors, encode_texts
from trunkline_server.providers.bedrock_encode import encode_body
from trunkline_server.providers.bedrock_errors import decode_failure
from trunkline_server.providers.bedrock_stream import BedrockStreamDecoder
from trunkline_server.providers.codec import CodecTarget, StreamDecoder, WireRequest


class BedrockCodec:
    """Translates to and from Converse and ConverseStream, and InvokeModel for vectors.

    The model's id may be a foundation model's, an inference profile's, or the ARN of a
    provisioned, imported or custom model, an inference profile or a prompt router. Flags, all
    optional; the catalogue sets the first five for the models it knows:

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

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """See Codec."""
        return decode_failure(status, headers, body)


def _path(target: CodecTarget, operation: str) -> str:
    """The path of an operation on the model, whose id may be an ARN with slashes and colons."""
    return f"/model/{quote(target.provider_model, safe='')}/{operation}"
