"""The OpenAI dialect: chat completions, embeddings, images, audio and reranking, of OpenAI and all
who speak it."""

from collections.abc import Mapping

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers import openai_audio, openai_images, openai_rerank
from trunkline_server.providers.codec import CodecTarget, SpeechDecoder, WireRequest
from trunkline_server.providers.openai_decode import decode_chat, decode_embeddings
from trunkline_server.providers.openai_encode import encode_chat, encode_embeddings
from trunkline_server.providers.openai_errors import decode_error
from trunkline_server.providers.openai_flags import FLAGS
from trunkline_server.providers.openai_messages import DIALECT
from trunkline_server.providers.openai_stream import OpenAIStreamDecoder

__all__ = ["FLAGS", "OpenAIChatCodec"]


class OpenAIChatCodec:
    """Codec for `/chat/completions`, `/embeddings`, `/images`, `/audio` and `/rerank`, relative to
    a base URL such as `https://api.openai.com/v1`. The last is not OpenAI's: Jina, Together, vLLM
    and others have it, all in the same way.

    What the caller asks for and the host cannot do is refused with the field's name, never
    dropped. Four things are hints, and go unsent where the dialect has no word for them:
    reasoning parts of earlier turns, cache breakpoints, the error mark of a tool result (its
    text says the same) and the task of an embedding.

    Flags, each with its default:

    - `alternate_turns` (False): the host wants one system message at most, first, and then user
      and assistant by turns; messages are moved and joined for it.
    - `assistant_images` (False): images in assistant messages are sent, in `images`, as
      OpenRouter's image models want them; otherwise they are refused.
    - `audio_form` ("object"): how sound stands in `input_audio`. "text": as base64 alone, which
      is Mistral's. "audio_url": as a data URI in a field of that name, which is Together's. "":
      it is refused.
    - `azure_api_version` (""): when set, the paths are those of Azure OpenAI, below a base URL
      that ends in `/openai`: of a dated version `/deployments/{model}/...?api-version={this}`,
      of "v1" `/v1/...`, of "preview" and "latest" the same with `?api-version={this}`.
    - `builtin_tools` (False): the host has tools of its own, which stand in `tools` by their
      type and their options; otherwise they are refused.
    - `cache_control` (False): cache breakpoints are sent as Anthropic's `cache_control`.
    - `call_index` (False): every tool call says its place in its turn, which Together demands.
    - `chat_path` ("/chat/completions"): Writer's is "/chat".
    - `dimensions_field` ("dimensions"): Mistral's and Voyage's is "output_dimension". "": a
      length is refused.
    - `embed_base64` (False): asks for embeddings as base64, a quarter of the bytes.
      Answers are read in either form.
    - `extra_content` (False): signatures of tool calls go back in `extra_content`, where
      Google's compatible API puts them. They are read in any case.
    - `file_form` ("file"): how a document is given. "document_url": Mistral's piece of that
      name. "": it is refused.
    - `file_urls` (False): the host fetches files by URL.
    - `image_extras` (False): the host takes `negative_prompt` and `seed` for images.
    - `image_media_type` (True): images can be asked for in another format; otherwise they are
      PNG.
    - `image_response_format` (""): the word by which images are asked for in the answer itself,
      "b64_json" at models that would give a link; "": nothing is asked.
    - `image_style` (False): images take a style, as DALL-E 3 does.
    - `image_urls` (True): the host fetches pictures by URL; otherwise only data URIs are taken.
    - `json_schema` (True): the host takes a JSON Schema for its answer; otherwise it is refused.
    - `max_stop` (4): how many stop texts the host takes.
    - `max_tokens_field` ("max_completion_tokens"): the field for max_output_tokens; most
      hosts but OpenAI want "max_tokens".
    - `message_names` (True): the host takes `name` in messages; otherwise it is not sent.
    - `reasoning_request` ("reasoning_effort"): how effort and budget are asked for.
      "reasoning_effort": that field, efforts only. "reasoning": OpenRouter's object, where a
      budget goes before an effort. "thinking": `{"type": "enabled" or "disabled"}`, as Z.AI,
      DeepSeek and Moonshot have it. "": refused. A budget of zero is the effort "none".
    - `reasoning_return` (""): how reasoning of earlier turns goes back: "reasoning_content",
      "reasoning", "reasoning_details" (OpenRouter, Vercel; unchanged, encrypted parts too) or
      "thinking" (Mistral's content chunks). "": it does not.
    - `reasoning_text` (""): how include_reasoning is honoured. "always": the host shows its
      reasoning unasked. "reasoning": by OpenRouter's object. "reasoning_format": by Groq's
      field. "": refused.
    - `rerank_path` ("/rerank"): where documents are put in order.
    - `rerank_top_field` ("top_n"): the field that says how many of them are wanted; Voyage's is
      "top_k".
    - `required_word` ("required"): the word for "some tool must be called"; Mistral's is
      "any".
    - `seed_field` ("seed"): Mistral's is "random_seed". "": a seed is refused.
    - `speech_events` (False): speech is asked for as events, which tell the usage.
    - `speech_instructions` (True): the model is told how to speak.
    - `stream_usage` (True): streams ask for usage by `stream_options`; False for hosts that
      send it unasked and refuse the field.
    - `string_content` (False): the host takes text only as one string; several text parts
      are joined by line feeds, those of a tool's result too.
    - `system_role` ("system"): the role of system messages; "developer" at OpenAI's newer
      models.
    - `tool_call_ids` (""): "mistral" makes of every tool call's id one of nine letters and digits.
    - `tool_choice` (True): the host heeds tool_choice; otherwise only AUTO is taken.
    - `tools` (True): the host takes tools; otherwise they, calls and results are refused.
    - `top_k` (False): the host takes top_k; otherwise it is refused.
    - `translations` (True): recordings can be translated.
    - `user_field` (""): the field that receives the context's user_id, for example "user" or
      "safety_identifier". "": it is not sent.
    - `verbose_transcripts` (True): transcripts tell language, length and times; otherwise times
      are refused.
    """

    dialect = DIALECT

    def encode_generate(
        self, request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
    ) -> WireRequest:
        return encode_chat(request, target, stream=stream)

    def decode_generate(self, body: bytes, into: v1.GenerateResponse) -> None:
        decode_chat(body, into)

    def stream_decoder(self) -> OpenAIStreamDecoder:
        return OpenAIStreamDecoder()

    def encode_embed(self, request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
        return encode_embeddings(request, target)

    def decode_embed(self, body: bytes, into: v1.EmbedResponse) -> None:
        decode_embeddings(body, into)

    def encode_image(self, request: v1.GenerateImageRequest, target: CodecTarget) -> WireRequest:
        return openai_images.encode_image(request, target)

    def decode_image(
        self, body: bytes, request: v1.GenerateImageRequest, into: v1.GenerateImageResponse
    ) -> None:
        openai_images.decode_image(body, into)

    def encode_transcription(
        self, spec: v1.TranscribeSpec, audio: bytes, target: CodecTarget
    ) -> WireRequest:
        return openai_audio.encode_transcription(spec, audio, target)

    def decode_transcription(
        self, body: bytes, spec: v1.TranscribeSpec, into: v1.TranscribeResponse
    ) -> None:
        openai_audio.decode_transcription(body, spec, into)

    def encode_speech(self, request: v1.SynthesizeRequest, target: CodecTarget) -> WireRequest:
        return openai_audio.encode_speech(request, target)

    def speech_decoder(
        self, request: v1.SynthesizeRequest, target: CodecTarget, headers: Mapping[str, str]
    ) -> SpeechDecoder:
        return openai_audio.SpeechReader(request, headers)

    def encode_rerank(self, request: v1.RerankRequest, target: CodecTarget) -> WireRequest:
        return openai_rerank.encode_rerank(request, target)

    def decode_rerank(
        self, body: bytes, request: v1.RerankRequest, into: v1.RerankResponse
    ) -> None:
        openai_rerank.decode_rerank(body, request, into)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return decode_error(status, headers, body)
