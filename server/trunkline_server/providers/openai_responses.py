"""The Responses API's dialect: OpenAI's newest models, and all who speak it."""

from collections.abc import Mapping

from trunkline import v1
from trunkline_server.errors import UpstreamError, Violation
from trunkline_server.providers.codec import CodecTarget, WireRequest
from trunkline_server.providers.openai_decode import decode_embeddings
from trunkline_server.providers.openai_encode import encode_embeddings
from trunkline_server.providers.openai_errors import decode_error
from trunkline_server.providers.openai_responses_decode import decode_response
from trunkline_server.providers.openai_responses_encode import encode_response
from trunkline_server.providers.openai_responses_items import DIALECT
from trunkline_server.providers.openai_responses_stream import OpenAIResponsesStreamDecoder


class OpenAIResponsesCodec:
    """Codec for `/responses` and `/embeddings`, relative to a base URL such as
    `https://api.openai.com/v1`.

    Requests ask the vendor to store nothing, and for the encrypted reasoning of models that
    reason, so that the caller's messages are all that a next turn needs. Each output item is a
    part, in order; a message is one for each piece of its content:

    - Text and refusals. The signature keeps the message's id and phase.
    - Calls of functions and of custom tools, whose input stands for the arguments. The
      signature keeps id, namespace and caller.
    - Reasoning: the summary, or what the host shows, as text; encrypted_content as
      redacted_data. The signature keeps how the text was cut. It goes back as it came;
      reasoning that only the vendor's storage knows goes back only with `store: true`.
    - All else, such as web_search_call, mcp_call and image_generation_call, is a vendor item,
      which goes back as it came. Answers to such as wait for one, for example
      computer_call_output, are given in an assistant message as vendor items too.

    Annotations, what file searches found and the listed sources of web searches become sources
    and citations. What Azure's content filters say becomes findings.

    What the API has no field for is refused by name: stop texts, a seed, top_k and penalties.
    Hints go unsent: names of messages, cache breakpoints and the error mark of a tool result.
    In provider_options objects are joined with what the codec wrote, `include` is added to,
    and all else replaced; input, model, stream and background cannot be set.

    Flags are those of OpenAIChatCodec, of which these count here: `azure_api_version`,
    `reasoning_request` ("reasoning" sends a budget as OpenRouter wants it), `system_role`,
    `user_field`, `dimensions_field` and `embed_base64`. Of its own:

    - `encrypted_reasoning` (True): asks for encrypted reasoning.
    """

    dialect = DIALECT

    def encode_generate(
        self, request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
    ) -> WireRequest:
        return encode_response(request, target, stream=stream)

    def decode_generate(self, body: bytes, into: v1.GenerateResponse) -> None:
        decode_response(body, into)

    def stream_decoder(self) -> OpenAIResponsesStreamDecoder:
        return OpenAIResponsesStreamDecoder()

    def encode_embed(self, request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
        return encode_embeddings(request, target)

    def decode_embed(self, body: bytes, into: v1.EmbedResponse) -> None:
        decode_embeddings(body, into)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        error = decode_error(status, headers, body)
        # What embeddings call their input is here the conversation.
        error.violations = tuple(
            Violation("messages", each.description) if each.field == "inputs" else each
            for each in error.violations
        )
        return error
