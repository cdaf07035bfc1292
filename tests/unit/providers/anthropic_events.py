"""Makes Messages API answers for tests, whole and as the events of the same answer streamed."""

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.providers.anthropic_messages import AnthropicMessagesCodec

Event = dict[str, Any]

USAGE = {"input_tokens": 10, "output_tokens": 1}
SKIPPED = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}


def opening(**fields: Any) -> Event:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": USAGE,
        **fields,
    }
    return {"type": "message_start", "message": message}


def start(index: int, block: dict[str, Any]) -> Event:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **fields: Any) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def stop(index: int) -> Event:
    return {"type": "content_block_stop", "index": index}


def closing(reason: str = "end_turn", **usage: Any) -> list[Event]:
    return [
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": 20, **usage},
        },
        {"type": "message_stop"},
    ]


def data(event: Event) -> bytes:
    return json.dumps(event).encode()


def decode(events: Sequence[Event]) -> tuple[v1.Message, v1.StreamEnd]:
    """The message and the end of a stream; its part indices have no gaps."""
    decoder = AnthropicMessagesCodec().stream_decoder()
    assembler = MessageAssembler()
    indices = set()
    for event in events:
        for piece in decoder.feed(event["type"], data(event)):
            indices.add(piece.part_index)
            assembler.add(piece)
    assert indices == set(range(len(indices)))
    return assembler.message(), decoder.finish()


def random_blocks(rng: random.Random) -> list[dict[str, Any]]:
    """Content as a whole answer has it: every kind of block, empty ones among them."""
    return [_random_block(rng, number) for number in range(rng.randrange(7))]


def _random_block(rng: random.Random, number: int) -> dict[str, Any]:
    text = rng.choice(["", "é\u2028\n", "plain ", '\U0001f600 "quoted" \\']) * rng.randrange(4)
    match rng.randrange(6):
        case 0:
            return {"type": "text", "text": text}
        case 1:
            return {"type": "thinking", "thinking": text, "signature": rng.choice(["", "c2ln"])}
        case 2:
            return {"type": "redacted_thinking", "data": "b3BhcXVl"}
        case 3:
            return {**SKIPPED, "input": {"query": text}}
        case _:
            arguments = {"z": text, "a": [1, 2.5, None]} if rng.random() < 0.7 else {}
            return {"type": "tool_use", "id": f"toolu_{number}", "name": "f", "input": arguments}


def streamed(blocks: Sequence[dict[str, Any]], rng: random.Random) -> list[Event]:
    """The events of the content; blocks that stand side by side may run into one another."""
    scripts = [list(_script(index, block, rng)) for index, block in enumerate(blocks)]
    events: list[Event] = []
    running: list[list[Event]] = []
    while scripts or running:
        if scripts and (not running or rng.random() < 0.3):
            script = scripts.pop(0)
            events.append(script.pop(0))  # Starts come in order.
            running.append(script)
        script = rng.choice(running)
        events.append(script.pop(0))
        running = [script for script in running if script]
        if rng.random() < 0.2:
            events.append({"type": "ping"})
    return events


def _script(index: int, block: dict[str, Any], rng: random.Random) -> Iterator[Event]:
    match block["type"]:
        case "text":
            yield start(index, {"type": "text", "text": ""})
            for piece in _pieces(block["text"], rng):
                yield delta(index, "text_delta", text=piece)
        case "thinking":
            yield start(index, {"type": "thinking", "thinking": "", "signature": ""})
            for piece in _pieces(block["thinking"], rng):
                yield delta(index, "thinking_delta", thinking=piece)
            yield delta(index, "signature_delta", signature=block["signature"])
        case "tool_use" | "server_tool_use":
            yield start(index, {**block, "input": {}})
            text = json.dumps(block["input"], ensure_ascii=False, separators=(",", ":"))
            for piece in ["", *_pieces(text if block["input"] else "", rng)]:
                yield delta(index, "input_json_delta", partial_json=piece)
        case _:
            yield start(index, block)
    yield stop(index)


def _pieces(text: str, rng: random.Random) -> Iterator[str]:
    while text:
        size = rng.randrange(1, 12)
        yield text[:size]
        text = text[size:]
