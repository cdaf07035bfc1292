"""Makes Converse answers for tests, whole and as the events of the same answer streamed."""

import base64
import json
import random
from collections.abc import Iterator
from typing import Any

from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.providers.bedrock import BedrockCodec

CODEC = BedrockCodec()

USAGE = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}

Event = tuple[str, dict[str, Any]]


def answer(blocks: list[Any], stop_reason: str = "end_turn") -> dict[str, Any]:
    message = {"role": "assistant", "content": blocks}
    return {"output": {"message": message}, "stopReason": stop_reason, "usage": USAGE}


def events_of(whole: dict[str, Any], rng: random.Random) -> Iterator[Event]:
    """The same answer streamed, its texts cut at random."""
    yield "messageStart", {"role": "assistant"}
    for index, block in enumerate(whole["output"]["message"]["content"]):
        yield from _block(index, block, rng)
    yield "messageStop", {"stopReason": whole["stopReason"]}
    yield "metadata", {"usage": whole["usage"], "metrics": {"latencyMs": 7}, "p": "abc"}


def _block(index: int, block: dict[str, Any], rng: random.Random) -> Iterator[Event]:
    start, deltas = _streamed(block, rng)
    if start is not None:
        yield "contentBlockStart", {"contentBlockIndex": index, "start": start}
    for delta in deltas:
        yield "contentBlockDelta", {"contentBlockIndex": index, "delta": delta}
    yield "contentBlockStop", {"contentBlockIndex": index}


def _streamed(
    block: dict[str, Any], rng: random.Random
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """What opens a block, if anything does, and what follows."""
    ((kind, content),) = block.items()
    match kind:
        case "text":
            return None, [{"text": piece} for piece in ("", *pieces(content, rng))]
        case "citationsContent":
            texts = [{"text": piece["text"]} for piece in content["content"]]
            return None, [*texts, *({"citation": each} for each in content["citations"])]
        case "toolUse":
            written = json.dumps(content["input"], separators=(",", ":"))
            spelled = content["input"] or rng.random() < 0.5
            inputs = [
                {"toolUse": {"input": piece}} for piece in pieces(written if spelled else "", rng)
            ]
            return {"toolUse": _without(content, "input")}, inputs
        case "toolResult":
            results = [{"toolResult": [piece]} for piece in content["content"]]
            return {"toolResult": _without(content, "content")}, results
        case "image":
            return {"image": {"format": content["format"]}}, [{"image": content}]
        case _:
            return None, [{"reasoningContent": piece} for piece in _reasoning(content, rng)]


def _without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


def _reasoning(content: dict[str, Any], rng: random.Random) -> Iterator[dict[str, Any]]:
    if "redactedContent" in content:
        raw = base64.b64decode(content["redactedContent"])
        for part in (raw[:1], raw[1:]):
            yield {"redactedContent": base64.b64encode(part).decode()}
        return
    text = content["reasoningText"]
    for piece in pieces(text["text"], rng):
        yield {"text": piece}
    if "signature" in text:
        yield {"signature": text["signature"]}


def pieces(text: str, rng: random.Random) -> Iterator[str]:
    at = 0
    while at < len(text):
        size = rng.choice((1, 2, 5, 40))
        yield text[at : at + size]
        at += size


def random_blocks(rng: random.Random) -> list[dict[str, Any]]:
    return [rng.choice(blocks(number, rng)) for number in range(rng.randrange(5))]


def blocks(number: int, rng: random.Random) -> list[dict[str, Any]]:
    """One block of every kind."""
    grounding = {"name": "nova_grounding", "type": "server_tool_use", "input": {"q": "x"}}
    arguments = rng.choice([{}, {"b": [1, None], "a": "ü"}])
    cited = {"title": "W", "location": {"web": {"url": f"https://{number}"}}}
    return [
        {"text": rng.choice(["", "Hello", "Grüße \U0001f600 und mehr davon " * 3])},
        {"toolUse": {"toolUseId": f"tooluse_{number}", "name": "f", "input": arguments}},
        {"toolUse": {"toolUseId": f"s{number}", **grounding}},
        {"toolResult": {"toolUseId": f"s{number}", "content": [{"text": "r"}]}},
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}},
        {"reasoningContent": {"reasoningText": {"text": "so it is"}}},
        {"reasoningContent": {"redactedContent": "UkVEQUNU"}},
        {"image": {"format": "png", "source": {"bytes": "AQID"}}},
        {
            "citationsContent": {
                "content": [{"text": "It rains"}, {"text": "."}],
                "citations": [cited],
            }
        },
    ]


def streamed(events: list[tuple[str, bytes]]) -> tuple[v1.Message, v1.StreamEnd]:
    """What the codec makes of a stream's events."""
    decoder = CODEC.stream_decoder()
    assembler = MessageAssembler()
    sources: list[v1.Source] = []
    citations: list[v1.Citation] = []
    for name, data in events:
        for delta in decoder.feed(name, data):
            kind = delta.WhichOneof("kind")
            if kind == "source":
                sources.append(delta.source)
            elif kind == "citation":
                citations.append(delta.citation)
            else:
                assembler.add(delta)
    end = decoder.finish()
    message = assembler.message()
    message.sources.extend(sources)
    message.citations.extend(citations)
    return message, end


def as_data(events: Iterator[Event]) -> list[tuple[str, bytes]]:
    return [(name, json.dumps(body).encode()) for name, body in events]
