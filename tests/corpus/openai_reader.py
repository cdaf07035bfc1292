"""A second reading of chat completions, to check the codec against.

Written with the standard library alone, from the format as it is commonly known and from the
recorded bodies, with each host's own additions. It shares no code with the codec, and it takes
from a list of hosts, not from arithmetic, whether reasoning is counted outside
`completion_tokens`.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.support.sse_oracle import read_events


@dataclass
class Reading:
    """What an answer says. `usage` is (input, output, cached, cache write, reasoning)."""

    model: str = ""
    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    encrypted: list[str] = field(default_factory=list)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    finish: str = ""
    usage: tuple[int, int, int, int, int] | None = None


# Hosts whose completion_tokens leave out what was spent on reasoning, all models or those
# whose name begins so. xAI's recorded totals exceed the other two counts by the reasoning; the
# charge in the answers of Vercel's gateway before Google's models pays for both.
REASONING_OUTSIDE = {
    "api.x.ai": "",
    "vercel-ai:xai": "",
    "vercel-ai:openai-compatible": "grok",
    "ai-gateway.vercel.sh": "google/",
}


def read_whole(body: bytes, host: str) -> Reading:
    """The reading of an unstreamed answer."""
    document = json.loads(body)
    choice = document["choices"][0]
    # Azure sends no message where its filter has withheld it.
    message = choice.get("message", {})
    reading = Reading(model=document.get("model") or "", finish=choice.get("finish_reason") or "")
    _add_content(reading, message)
    for call in message.get("tool_calls") or []:
        function = call["function"]
        reading.calls.append((call.get("id") or "", function["name"], function["arguments"]))
    if message.get("function_call"):
        legacy = message["function_call"]
        reading.calls.append(("", legacy["name"], legacy["arguments"]))
    reading.usage = _usage(document.get("usage"), host, reading.model)
    return reading


def read_stream(body: bytes, host: str) -> Reading:
    """The reading of a streamed answer."""
    reading = Reading()
    calls: dict[Any, list[str]] = {}
    usage = None
    for _, data in read_events(body):
        if data == b"[DONE]":
            break
        chunk = json.loads(data)
        reading.model = reading.model or chunk.get("model") or ""
        usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage") or usage
        for choice in chunk["choices"]:
            if choice["index"] != 0:
                continue
            usage = choice.get("usage") or usage
            reading.finish = reading.finish or choice.get("finish_reason") or ""
            delta = choice["delta"]
            _add_content(reading, delta)
            for fragment in delta.get("tool_calls") or []:
                key = fragment.get("index", fragment.get("id"))
                call = calls.setdefault(key, ["", "", ""])
                function = fragment["function"]
                call[0] = call[0] or fragment.get("id") or ""
                call[1] = call[1] or function.get("name") or ""
                call[2] += function.get("arguments") or ""
    reading.calls = [(call[0], call[1], call[2]) for call in calls.values()]
    reading.usage = _usage(usage, host, reading.model)
    return reading


def _add_content(reading: Reading, message: dict[str, Any]) -> None:
    content = message.get("content") or ""
    if isinstance(content, list):
        # Mistral's chunks.
        for piece in content:
            if piece["type"] == "thinking":
                reading.reasoning += "".join(inner["text"] for inner in piece["thinking"])
            elif piece["type"] == "text":
                reading.text += piece["text"]
    else:
        reading.text += content
    reading.refusal += message.get("refusal") or ""
    reading.reasoning += message.get("reasoning") or message.get("reasoning_content") or ""
    for detail in message.get("reasoning_details") or []:
        if detail["type"] == "reasoning.encrypted":
            reading.encrypted.append(detail["data"])


def _usage(
    usage: dict[str, Any] | None, host: str, model: str
) -> tuple[int, int, int, int, int] | None:
    if not usage:
        return None
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    reasoning = completion.get("reasoning_tokens") or 0
    output = usage["completion_tokens"]
    outside = REASONING_OUTSIDE.get(host)
    if outside is not None and model.startswith(outside):
        output += reasoning
    cached = (
        prompt.get("cached_tokens")
        or usage.get("prompt_cache_hit_tokens")
        or usage.get("cached_tokens")
        or 0
    )
    written = prompt.get("cache_write_tokens") or usage.get("cache_creation_input_tokens") or 0
    # OpenRouter counts the reasoning anew, with a tokenizer that is not the model's.
    return usage["prompt_tokens"], output, cached, written, min(reasoning, output)
