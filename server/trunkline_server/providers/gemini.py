"""The Gemini dialect: generateContent, streamGenerateContent, batchEmbedContents, predict and
countTokens."""

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers import (
    gemini_contents,
    gemini_decode,
    gemini_encode,
    gemini_errors,
    gemini_images,
    gemini_speech,
)
from trunkline_server.providers.codec import (
    CodecTarget,
    SpeechDecoder,
    StreamDecoder,
    WireRequest,
)
from trunkline_server.providers.gemini_stream import GeminiStreamDecoder
from trunkline_server.providers.gemini_vertex import vertex_embed

_COLLECTIONS = ("models/", "tunedModels/")


class GeminiCodec:
    """Codec for hosts that speak Gemini, relative to a base URL such as
    https://generativelanguage.googleapis.com/v1beta or, on Vertex AI,
    .../v1/projects/P/locations/L/publishers/google.

    A provider_model is a bare id, or a resource name in `models/` or `tunedModels/`.

    Flags:
      effort_as: "level" (default) sends config.reasoning.effort as thinkingLevel; "budget"
        sends it as thinkingBudget by the vendor's own table (1,024, 1,024, 8,192 and 24,576
        tokens from MINIMAL to HIGH), for Gemini 2.5 models, which refuse levels. In either
        case a budget_tokens that is set goes out as thinkingBudget in the effort's place,
        and REASONING_EFFORT_NONE as a budget of zero.
      vertex: true for Vertex AI, whose embeddings are asked for otherwise (see gemini_vertex), and
        whose countTokens wants the conversation itself and not in a generateContentRequest.
      embed_by: "predict" for models whose embeddings Vertex AI gives by that method alone.
      image_call: "generate" (default) asks for pictures by generateContent; "predict" as Imagen
        wants it.
      skip_signature_check: true gives the first call of an assistant message that has no
        signature of this dialect the vendor's placeholder, without which Gemini 3 refuses
        calls that another vendor's model made. False (default) sends none.

    What the dialect cannot carry is refused by name: tool_choice.disable_parallel, more than
    five stop texts, seeds beyond 32 bits, tool arguments and schemas that are not JSON
    objects, and provider_options that replace the conversation or ask for more than one
    candidate. Tool.strict becomes the mode VALIDATED, which holds the model to the schemas
    of all tools. JSON schemas go out verbatim. provider_options are merged deeply; `tools`
    among them are added to the request's own.

    Reasoning goes back only with a signature of this dialect; the vendor asks for no more. A
    made-up id stands in for a call's id where the vendor gives none, and is sent back like
    any other. How parts are read, PartReader tells. Grounding metadata, recitations and pages
    read become sources and citations, safety ratings become findings; log probabilities of
    replies are not kept. Builtin tools go by the vendor's name, in snake case too.
    """

    dialect = gemini_contents.DIALECT

    def encode_generate(
        self, request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
    ) -> WireRequest:
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return WireRequest(
            path=f"/{_resource_path(target.provider_model)}:{verb}",
            body=gemini_encode.generate_body(request, target),
        )

    def decode_generate(self, body: bytes, into: v1.GenerateResponse) -> None:
        gemini_decode.decode_generate(body, into)

    def stream_decoder(self) -> StreamDecoder:
        return GeminiStreamDecoder()

    def encode_embed(self, request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
        if target.flags.get("vertex"):
            predict = target.flags.get("embed_by") == "predict"
            verb, body = vertex_embed(request, predict=predict)
            return WireRequest(f"/{_resource_path(target.provider_model)}:{verb}", body)
        return WireRequest(
            path=f"/{_resource_path(target.provider_model)}:batchEmbedContents",
            body=gemini_encode.embed_body(request, "".join(_resource(target.provider_model))),
        )

    def decode_embed(self, body: bytes, into: v1.EmbedResponse) -> None:
        gemini_decode.decode_embed(body, into)

    def encode_image(self, request: v1.GenerateImageRequest, target: CodecTarget) -> WireRequest:
        verb, body = gemini_images.encode_image(request, target)
        return WireRequest(path=f"/{_resource_path(target.provider_model)}:{verb}", body=body)

    def decode_image(
        self, body: bytes, request: v1.GenerateImageRequest, into: v1.GenerateImageResponse
    ) -> None:
        gemini_images.decode_image(body, into)

    def encode_speech(self, request: v1.SynthesizeRequest, target: CodecTarget) -> WireRequest:
        return WireRequest(
            path=f"/{_resource_path(target.provider_model)}:streamGenerateContent?alt=sse",
            body=gemini_speech.speech_body(request),
        )

    def speech_decoder(
        self, request: v1.SynthesizeRequest, target: CodecTarget, headers: Mapping[str, str]
    ) -> SpeechDecoder:
        return gemini_speech.GeminiSpeechDecoder()

    def encode_token_count(
        self, request: v1.CountTokensRequest, target: CodecTarget
    ) -> WireRequest | None:
        model = "".join(_resource(target.provider_model))
        return WireRequest(
            path=f"/{_resource_path(target.provider_model)}:countTokens",
            body=gemini_encode.count_body(request, target, model),
        )

    def decode_token_count(self, body: bytes) -> int:
        return gemini_decode.decode_count(body)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return gemini_errors.decode_error(status, headers, body)


def _resource(model: str) -> tuple[str, str]:
    """The model's collection, with its slash, and its id."""
    for collection in _COLLECTIONS:
        if model.startswith(collection):
            return collection, model[len(collection) :]
    return "models/", model


@lru_cache(maxsize=1024)
def _resource_path(model: str) -> str:
    """The model's resource name as a path of two segments, whatever the id holds."""
    collection, model_id = _resource(model)
    return collection + quote(model_id, safe="@")
