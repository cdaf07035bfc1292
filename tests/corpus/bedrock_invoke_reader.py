"""A second, deliberately plain reading of what InvokeModel answers in the models' own words.

It shares nothing with the codec, reads whole bodies only, and leaves frames and their checksums
to botocore. Streams are read as the list of what their chunks hold.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.eventstream import read_events


@dataclass(frozen=True)
class Invoked:
    """What a caller must be told: all text, the calls as name and arguments, the vendor's word
    for the end, input and output tokens or nothing, and whether a guardrail stepped in."""

    text: str
    calls: tuple[tuple[str, Any], ...]
    word: str
    usage: tuple[int, ...]
    intervened: bool


def read_invoked(body: bytes, *, frames: bool) -> Invoked:
    """An answer, whole or of frames."""
    if frames:
        chunks = [
            json.loads(base64.b64decode(json.loads(payload)["bytes"]))
            for _, payload in read_events(body)
        ]
    else:
        chunks = [json.loads(body)]
    texts: list[str] = []
    calls: dict[Any, list[Any]] = {}
    word = ""
    for chunk in chunks:
        for kind, key, value in _said(chunk):
            if kind == "text":
                texts.append(value)
            elif kind == "call":
                calls[key] = [value, None, ""]
            elif kind == "whole":
                calls[key][1] = value
            elif kind == "piece":
                calls[key][2] += value
            else:
                word = value or word
    return Invoked(
        "".join(texts),
        tuple(
            (name, json.loads(text) if text else whole or {})
            for name, whole, text in calls.values()
        ),
        word,
        _usage(chunks),
        any(chunk.get("amazon-bedrock-guardrailAction") == "INTERVENED" for chunk in chunks),
    )


def _said(chunk: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What a chunk, or a whole answer, says: kind, which call, and the words."""
    if "output" in chunk:
        for index, block in enumerate(chunk["output"]["message"]["content"]):
            yield from _block(index, block)
        yield "word", None, chunk["stopReason"]
    elif chunk.get("type") == "message":
        for index, block in enumerate(chunk["content"]):
            yield from _claude_block(index, block)
        yield "word", None, chunk["stop_reason"]
    elif "choices" in chunk:
        yield from _chat(chunk)
    elif chunk.get("type") in {"content_block_start", "content_block_delta", "message_delta"}:
        yield from _claude_event(chunk)
    elif "contentBlockStart" in chunk:
        start = chunk["contentBlockStart"]
        yield "call", start["contentBlockIndex"], start["start"]["toolUse"]["name"]
    elif "contentBlockDelta" in chunk:
        delta = chunk["contentBlockDelta"]
        if "text" in delta["delta"]:
            yield "text", None, delta["delta"]["text"]
        else:
            yield "piece", delta["contentBlockIndex"], delta["delta"]["toolUse"]["input"]
    elif "messageStop" in chunk:
        yield "word", None, chunk["messageStop"]["stopReason"]
    else:
        yield from _completion(chunk)


def _block(index: int, block: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    if "text" in block:
        yield "text", None, block["text"]
    else:
        yield "call", index, block["toolUse"]["name"]
        yield "whole", index, block["toolUse"]["input"]


def _claude_block(index: int, block: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    if block["type"] == "text":
        yield "text", None, block["text"]
    elif block["type"] == "tool_use":
        yield "call", index, block["name"]
        yield "whole", index, block["input"]


def _claude_event(event: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    if event["type"] == "content_block_start":
        yield from _claude_block(event["index"], event["content_block"])
    elif event["type"] == "message_delta":
        yield "word", None, event["delta"]["stop_reason"]
    elif event["delta"]["type"] == "text_delta":
        yield "text", None, event["delta"]["text"]
    elif event["delta"]["type"] == "input_json_delta":
        yield "piece", event["index"], event["delta"]["partial_json"]


def _chat(chunk: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for choice in chunk["choices"]:
        said = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
        yield "text", None, said.get("content") or ""
        for at, call in enumerate(said.get("tool_calls") or []):
            key = call.get("index", at)
            if call["function"].get("name"):
                yield "call", key, call["function"]["name"]
            yield "piece", key, call["function"].get("arguments") or ""
        yield "word", None, choice["finish_reason"]


def _completion(chunk: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """One of the bodies that hold nothing but a text and why it ended."""
    paths = (
        ("outputText", "completionReason"),
        ("generation", "stop_reason"),
        ("completion", "stop_reason"),
        ("text", "finish_reason"),
    )
    inner = chunk
    for holder in ("results", "outputs", "generations", "completions"):
        if holder in chunk:
            inner = chunk[holder][0]
    if "data" in inner:
        yield "text", None, inner["data"]["text"]
        yield "word", None, inner["finishReason"]["reason"]
        return
    for text, why in paths:
        if text in inner:
            yield "text", None, inner[text]
            yield "word", None, inner.get(why) or inner.get("stop_reason") or ""
            return


def _usage(chunks: list[dict[str, Any]]) -> tuple[int, ...]:
    """Input and output as the service or the body counted them; empty if one is missing."""
    read: Any = None
    written: Any = None
    for chunk in chunks:
        counts = dict(chunk.get("usage") or {})
        counts.update((chunk.get("message") or {}).get("usage") or {})
        counts.update((chunk.get("metadata") or {}).get("usage") or {})
        counts.update((chunk.get("results") or [{}])[0])
        counts.update(chunk)
        for name in ("input_tokens", "inputTokens", "prompt_tokens", "inputTextTokenCount"):
            read = read if counts.get(name) is None else counts[name] + _cached(counts)
        read = read if chunk.get("prompt_token_count") is None else chunk["prompt_token_count"]
        for name in (
            "output_tokens",
            "outputTokens",
            "completion_tokens",
            "tokenCount",
            "totalOutputTextTokenCount",
            "generation_token_count",
        ):
            written = written if counts.get(name) is None else counts[name]
    if read is None or written is None:
        # What the service counted itself, beside a body that counts nothing.
        metrics = chunks[-1].get("amazon-bedrock-invocationMetrics") or {}
        read, written = metrics.get("inputTokenCount"), metrics.get("outputTokenCount")
    return () if read is None or written is None else (int(read), int(written))


def _cached(counts: dict[str, Any]) -> int:
    names = ("cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(counts.get(name) or 0 for name in names)
