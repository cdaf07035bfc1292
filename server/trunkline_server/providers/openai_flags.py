"""The switches of the OpenAI dialect, for hosts that deviate from it."""

from collections.abc import Mapping
from urllib.parse import quote

from trunkline_server.providers.codec import CodecTarget

# Every flag and its default, which is what OpenAI's own API wants. The meanings stand in the
# docstrings of OpenAIChatCodec and OpenAIResponsesCodec, which share some.
FLAGS: Mapping[str, str | int | bool] = {
    "alternate_turns": False,
    "assistant_images": False,
    "audio_form": "object",
    "azure_api_version": "",
    "builtin_tools": False,
    "cache_control": False,
    "call_index": False,
    "chat_path": "/chat/completions",
    "dimensions_field": "dimensions",
    "embed_base64": False,
    "encrypted_reasoning": True,
    "extra_content": False,
    "file_form": "file",
    "file_urls": False,
    "image_extras": False,
    "image_media_type": True,
    "image_response_format": "",
    "image_style": False,
    "image_urls": True,
    "json_schema": True,
    "max_stop": 4,
    "max_tokens_field": "max_completion_tokens",
    "message_names": True,
    "reasoning_request": "reasoning_effort",
    "reasoning_return": "",
    "reasoning_text": "",
    "required_word": "required",
    "rerank_path": "/rerank",
    "rerank_top_field": "top_n",
    "seed_field": "seed",
    "speech_events": False,
    "speech_instructions": True,
    "stream_usage": True,
    "string_content": False,
    "system_role": "system",
    "tool_call_ids": "",
    "tool_choice": True,
    "tools": True,
    "top_k": False,
    "translations": True,
    "user_field": "",
    "verbose_transcripts": True,
}


def enabled(target: CodecTarget, name: str) -> bool:
    """Whether a switch is on."""
    return bool(target.flags.get(name, FLAGS[name]))


def word(target: CodecTarget, name: str) -> str:
    """The word that a flag holds; empty when it is switched off."""
    return str(target.flags.get(name, FLAGS[name]))


def number(target: CodecTarget, name: str) -> int:
    """The number that a flag holds."""
    return int(target.flags.get(name, FLAGS[name]))


def operation_path(path: str, target: CodecTarget, *, deployed: bool = True) -> str:
    """The path of an operation such as /chat/completions: where `azure_api_version` is set, that
    of Azure OpenAI.

    Its v1 surface has its operations at OpenAI's own paths, and takes "preview" and "latest" for
    a version; of dated versions the operations stand below the deployment, unless they are not
    `deployed`: then the model stands in the body, as with /responses. After
    learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle.
    """
    version = word(target, "azure_api_version")
    if not version:
        return path
    if version == "v1":
        return f"/v1{path}"
    query = f"?api-version={quote(version, safe='')}"
    if version in {"preview", "latest"}:
        return f"/v1{path}{query}"
    if not deployed:
        return path + query
    return f"/deployments/{quote(target.provider_model, safe='')}{path}{query}"
