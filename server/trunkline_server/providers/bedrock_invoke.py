"""Models of Bedrock asked in their own bodies, by InvokeModel and InvokeModelWithResponseStream.

For what Converse does not serve: imported and custom models, models of SageMaker behind the
runtime, and the older ones that only complete a text.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError, invalid
from trunkline_server.providers.anthropic_decode import decode_message as decode_claude
from trunkline_server.providers.anthropic_encode import encode_body as encode_claude
from trunkline_server.providers.bedrock_decode import SHAPE_ERRORS, decode_message
from trunkline_server.providers.bedrock_encode import encode_body as encode_converse
from trunkline_server.providers.bedrock_errors import bad_response, decode_failure
from trunkline_server.providers.bedrock_guardrail import INTERVENED, native_findings
from trunkline_server.providers.bedrock_invoke_stream import BedrockInvokeDecoder
from trunkline_server.providers.bedrock_text import decode_text, encode_text
from trunkline_server.providers.codec import CodecTarget, StreamDecoder, WireRequest
from trunkline_server.providers.openai_decode import decode_chat
from trunkline_server.providers.openai_encode import encode_chat

Body = dict[str, Any]

_CLAUDE_VERSION = "bedrock-2023-05-31"


class BedrockInvokeCodec:
    """Translates to and from the bodies of models. Flags, the first one demanded:

    - `body` (str): whose body the model takes. "claude": the Messages API's; "openai": chat
      completions, as gpt-oss and Jamba take them; "nova": Nova's messages-v1; "titan", "llama",
      "mistral", "cohere", "cohere_chat", "ai21" and "claude_text": one prompt, for which a
      request must hold one user message of text and nothing else; see bedrock_text.
    - `guardrail_id` (str, none), `guardrail_version` (str, "DRAFT"): the guardrail of every call.

    The flags of the Anthropic, OpenAI and Bedrock dialects hold for their bodies. Answers are
    read by their shape, and reasoning is signed and given back as the body's own dialect does.
    """

    dialect = "bedrock_invoke"
    framing = "aws-eventstream"

    def encode_generate(
        self, request: v1.GenerateRequest, target: CodecTarget, *, stream: bool
    ) -> WireRequest:
        """See Codec."""
        body = _body(request, target)
        operation = "invoke-with-response-stream" if stream else "invoke"
        path = f"/model/{quote(target.provider_model, safe='')}/{operation}"
        return WireRequest(path, orjson.dumps(body), _headers(target.flags))

    def decode_generate(self, body: bytes, into: v1.GenerateResponse) -> None:
        """See Codec."""
        try:
            answer = orjson.loads(body)
            if "output" in answer:
                decode_message(body, into)
            elif answer.get("type") in {"message", "error"}:
                decode_claude(body, into)
            elif "choices" in answer and "message" in answer["choices"][0]:
                decode_chat(body, into)
            else:
                decode_text(answer, into)
            if answer.get("amazon-bedrock-guardrailAction") == INTERVENED:
                into.finish_reason = v1.FINISH_REASON_CONTENT_FILTER
            into.filter_findings.extend(native_findings(answer))
        except SHAPE_ERRORS:
            into.Clear()
            raise bad_response("an answer that is not a message") from None

    def stream_decoder(self) -> StreamDecoder:
        """See Codec."""
        return BedrockInvokeDecoder()

    def encode_embed(self, request: v1.EmbedRequest, target: CodecTarget) -> WireRequest:
        """Refuses: vectors are the Bedrock dialect's."""
        raise invalid("model", "this dialect makes no vectors; the bedrock dialect does")

    def decode_embed(self, body: bytes, into: v1.EmbedResponse) -> None:
        """Refuses: no request for vectors can have been sent."""
        raise bad_response("vectors, which its dialect does not have")

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """See Codec."""
        return decode_failure(status, headers, body)


def _body(request: v1.GenerateRequest, target: CodecTarget) -> Body:
    form = target.flags.get("body")
    if form == "claude":
        body = encode_claude(request, target, stream=False)
        del body["model"]
        body["anthropic_version"] = _CLAUDE_VERSION
        return body
    if form == "openai":
        chat: Body = orjson.loads(encode_chat(request, target, stream=False).body)
        return chat
    if form == "nova":
        body = encode_converse(request, target, stream=False)
        # What is the service's own here stands in headers; the model's own stands at the top.
        body.pop("guardrailConfig", None)
        extra = body.pop("additionalModelRequestFields", {})
        inference = {**body.get("inferenceConfig", {}), **extra.pop("inferenceConfig", {})}
        if inference:
            body["inferenceConfig"] = inference
        return {"schemaVersion": "messages-v1", **body, **extra}
    return encode_text(request, target)


def _headers(flags: Mapping[str, str | int | bool]) -> tuple[tuple[str, str], ...]:
    if "guardrail_id" not in flags:
        return ()
    return (
        ("x-amzn-bedrock-guardrailidentifier", str(flags["guardrail_id"])),
        ("x-amzn-bedrock-guardrailversion", str(flags.get("guardrail_version", "DRAFT"))),
        ("x-amzn-bedrock-trace", "ENABLED"),
    )
