"""Reads token counts in the OpenAI dialect and makes them inclusive.

OpenAI counts cached tokens within `prompt_tokens` and reasoning within `completion_tokens`. Some
hosts do not, and their `total_tokens` tells: it exceeds the sum of the two by what they left out.
Both are seen in recorded answers (tests/corpus/test_openai.py).
"""

from collections.abc import Mapping
from typing import Any

from trunkline import v1

_LARGEST = 2**53
_NONE: Mapping[str, int] = {}
_TOTALS = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})


def read_usage(usage: dict[str, Any], into: v1.Usage, true_total: int = 0) -> None:
    """Replaces `into` with the vendor's counts.

    `true_total` is the total as the model's own vendor counted it, where a gateway passes it
    on; zero where it is unknown. Counts that are no counts are taken as zero.
    """
    counts = counts_of(usage)
    prompt = counts_of(usage.get("prompt_tokens_details"))
    completion = counts_of(usage.get("completion_tokens_details"))
    entered = counts.get("prompt_tokens", 0)
    written = counts.get("completion_tokens", 0)
    cached = cache_write = searches = 0
    if prompt or not counts.keys() <= _TOTALS:
        # DeepSeek and Together tell of the cache beside the totals, Vercel of what it wrote
        # there, and Alibaba of that by Anthropic's name among the details.
        cached = (
            prompt.get("cached_tokens")
            or counts.get("prompt_cache_hit_tokens")
            or counts.get("cached_tokens", 0)
        )
        cache_write = (
            prompt.get("cache_write_tokens")
            or prompt.get("cache_creation_input_tokens")
            or counts.get("cache_creation_input_tokens", 0)
        )
        searches = counts.get("num_search_queries", 0)  # Perplexity's.
    reasoning = completion.get("reasoning_tokens", 0)
    if cached + cache_write > entered:
        entered += cached + cache_write  # Gateways before Anthropic: a part exceeds no whole.
    left_out = max(counts.get("total_tokens", 0), true_total) - entered - written
    if left_out > 0:
        if left_out != reasoning and left_out in {cached + cache_write, cache_write}:
            entered += left_out
        else:
            # xAI leaves out reasoning and says how much; Google's compatible API leaves it out
            # and does not.
            written += left_out
            reasoning = reasoning or left_out
    into.Clear()
    into.source = v1.USAGE_SOURCE_PROVIDER
    into.input_tokens = entered
    into.output_tokens = written
    if searches:
        into.search_units = searches
    if reasoning:
        # OpenRouter counts the reasoning by another tokenizer, so that it can exceed the whole.
        into.reasoning_tokens = min(reasoning, written)
    if cached:
        cached = into.cached_input_tokens = min(cached, entered)
    if cache_write:
        into.cache_write_tokens = min(cache_write, entered - cached)
    if "audio_tokens" in completion:
        into.output_audio_tokens = min(completion["audio_tokens"], written)
    if "audio_tokens" in prompt:
        audio = into.input_audio_tokens = min(prompt["audio_tokens"], entered)
        details = counts_of(usage["prompt_tokens_details"].get("cached_tokens_details"))
        into.cached_input_audio_tokens = min(details.get("audio_tokens", 0), cached, audio)


def true_total_tokens(message: dict[str, Any]) -> int:
    """The total of Google's own report, which Vercel's gateway passes on, or zero.

    The gateway's own total leaves out what those models thought.
    """
    metadata = message.get("provider_metadata")
    if not isinstance(metadata, dict):
        return 0
    google = metadata.get("google")
    report = google.get("usageMetadata") if isinstance(google, dict) else None
    return counts_of(report).get("totalTokenCount", 0)


def counts_of(data: Any) -> Mapping[str, int]:
    """The counts in an object that are not zero, by name; none in what is no object."""
    if not data or not isinstance(data, dict):
        return _NONE
    found = {}
    for name, value in data.items():
        # By type and not by isinstance: True is no count.
        if type(value) is int:
            count = value
        elif type(value) is float and value.is_integer():
            count = int(value)
        else:
            continue
        if 0 < count <= _LARGEST:
            found[name] = count
    return found
