"""Reads token counts in the OpenAI dialect and makes them inclusive.

OpenAI counts cached tokens within `prompt_tokens` and reasoning within `completion_tokens`. Some
hosts do not, and their `total_tokens` tells: it exceeds the sum of the two by what they left out.
Both are seen in recorded answers (tests/corpus/test_openai.py).
"""

from typing import Any

from trunkline import v1

_LARGEST = 2**53


def read_usage(usage: dict[str, Any], into: v1.Usage, true_total: int = 0) -> None:
    """Replaces `into` with the vendor's counts.

    `true_total` is the total as the model's own vendor counted it, where a gateway passes it
    on; zero where it is unknown. Counts that are no counts are taken as zero.
    """
    prompt = _nested(usage, "prompt_tokens_details")
    completion = _nested(usage, "completion_tokens_details")
    entered = _count(usage, "prompt_tokens")
    written = _count(usage, "completion_tokens")
    # DeepSeek and Together tell of the cache beside the totals, Vercel of what it wrote there,
    # and Alibaba of that by Anthropic's name among the details.
    cached = (
        _count(prompt, "cached_tokens")
        or _count(usage, "prompt_cache_hit_tokens")
        or _count(usage, "cached_tokens")
    )
    cache_write = (
        _count(prompt, "cache_write_tokens")
        or _count(prompt, "cache_creation_input_tokens")
        or _count(usage, "cache_creation_input_tokens")
    )
    reasoning = _count(completion, "reasoning_tokens")
    if cached + cache_write > entered:
        entered += cached + cache_write  # Gateways before Anthropic: a part exceeds no whole.
    left_out = max(_count(usage, "total_tokens"), true_total) - entered - written
    if left_out > 0:
        if left_out != reasoning and left_out in {cached + cache_write, cache_write}:
            entered += left_out
        else:
            # xAI leaves out reasoning and says how much; Google's compatible API leaves it out
            # and does not.
            written += left_out
            reasoning = reasoning or left_out
    into.Clear()
    into.input_tokens = entered
    into.output_tokens = written
    into.cached_input_tokens = min(cached, entered)
    into.cache_write_tokens = min(cache_write, entered - into.cached_input_tokens)
    # OpenRouter counts the reasoning by another tokenizer, so that it can exceed the whole.
    into.reasoning_tokens = min(reasoning, written)
    into.output_audio_tokens = min(_count(completion, "audio_tokens"), written)
    into.input_audio_tokens = min(_count(prompt, "audio_tokens"), entered)
    if into.input_audio_tokens:
        into.cached_input_audio_tokens = min(
            _count(_nested(prompt, "cached_tokens_details"), "audio_tokens"),
            into.cached_input_tokens,
            into.input_audio_tokens,
        )
    into.source = v1.USAGE_SOURCE_PROVIDER


def true_total_tokens(message: dict[str, Any]) -> int:
    """The total of Google's own report, which Vercel's gateway passes on, or zero.

    The gateway's own total leaves out what those models thought.
    """
    metadata = message.get("provider_metadata")
    if not isinstance(metadata, dict):
        return 0
    return _count(_nested(_nested(metadata, "google"), "usageMetadata"), "totalTokenCount")


def _nested(data: dict[str, Any], name: str) -> dict[str, Any]:
    inner = data.get(name)
    return inner if isinstance(inner, dict) else {}


def _count(data: dict[str, Any], name: str) -> int:
    value = data.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    # By type and not by isinstance: True is no count.
    return value if type(value) is int and 0 <= value <= _LARGEST else 0
