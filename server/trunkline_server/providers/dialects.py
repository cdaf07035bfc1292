"""Every dialect by name; a configuration names the one that its provider speaks."""

from collections.abc import Mapping

from trunkline_server.providers.anthropic_messages import AnthropicMessagesCodec
from trunkline_server.providers.bedrock import BedrockCodec
from trunkline_server.providers.bedrock_invoke import BedrockInvokeCodec
from trunkline_server.providers.codec import Codec
from trunkline_server.providers.cohere import CohereCodec
from trunkline_server.providers.gemini import GeminiCodec
from trunkline_server.providers.openai_chat import OpenAIChatCodec
from trunkline_server.providers.openai_responses import OpenAIResponsesCodec
from trunkline_server.providers.replicate import ReplicateCodec

DIALECTS: Mapping[str, Codec] = {
    codec.dialect: codec
    for codec in (
        OpenAIChatCodec(),
        OpenAIResponsesCodec(),
        AnthropicMessagesCodec(),
        GeminiCodec(),
        BedrockCodec(),
        BedrockInvokeCodec(),
        ReplicateCodec(),
        CohereCodec(),
    )
}
