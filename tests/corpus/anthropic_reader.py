"""A second, deliberately plain reading of Messages API answers, to check the codec against.

Written from knowledge of the vendor's format of messages, streams and usage, and confirmed by
the recorded answers; it shares nothing with the codec and reads whole bodies only.
"""

import base64
import json
import struct
from dataclasses import dataclass
from typing import Any

from tests.support.sse_oracle import read_events


@dataclass(frozen=True)
class Reading:
    """What a caller must be told of an answer.

    `parts` holds ("text", text, what it cites), ("thinking", text, signature),
    ("redacted_thinking", data), ("tool_use", id, name, arguments as a Python value, or None for
    text that is not JSON) or, of the vendor's own tools, ("vendor", the block).
    `argument_texts` are each call's arguments as a stream spelled them, and empty where they
    came as a JSON value.
    `usage` is (input, output, cached, cache-written, cache-written for 1h, reasoning),
    or empty when the vendor gave no counts.
    """

    model: str
    stop_reason: str
    parts: tuple[tuple[Any, ...], ...]
    argument_texts: tuple[str, ...]
    usage: tuple[int, ...]


def read_answer(body: bytes) -> Reading:
    """A whole answer."""
    message = json.loads(body)
    return _reading_of(message, message["content"], message["stop_reason"], message.get("usage"))


def read_stream(body: bytes) -> Reading:
    """A whole body of server-sent events."""
    return read_stream_events([json.loads(data) for _, data in read_events(body)])


def read_stream_events(events: list[dict[str, Any]]) -> Reading:
    """The events of a stream that came to its end."""
    if not any(event["type"] == "message_stop" for event in events):
        raise ValueError("the stream has no end")
    openings = [event["message"] for event in events if event["type"] == "message_start"]
    if len({message["id"] for message in openings}) != 1:
        raise ValueError("the stream is not of one message")
    closings = [event for event in events if event["type"] == "message_delta"]
    counts = dict(openings[0]["usage"])
    stop_reason = openings[0]["stop_reason"] or ""
    for closing in closings:
        given = {name: count for name, count in closing["usage"].items() if count is not None}
        counts = {**counts, **given}
        stop_reason = closing["delta"]["stop_reason"] or stop_reason
    blocks = _blocks(events)
    ordered = [blocks[index] for index in sorted(blocks)]
    return _reading_of(openings[0], ordered, stop_reason, counts)


def _reading_of(
    message: dict[str, Any], blocks: list[Any], stop_reason: str | None, counts: Any
) -> Reading:
    return Reading(
        model=message["model"],
        stop_reason=stop_reason or "",
        parts=tuple(_part(block) for block in blocks),
        argument_texts=tuple(
            block.get("spelled", "") for block in blocks if block["type"] == "tool_use"
        ),
        usage=_usage(counts) if counts else (),
    )


def read_frames(body: bytes) -> list[dict[str, Any]]:
    """The Messages API events in a body of application/vnd.amazon.eventstream.

    A frame is: total length, headers' length and a checksum, 4 bytes each, big-endian; the
    headers; the payload, whose `bytes` is the event in base64; another checksum.
    """
    events = []
    at = 0
    while at < len(body):
        total, headers = struct.unpack_from(">II", body, at)
        payload = json.loads(body[at + 12 + headers : at + total - 4])
        events.append(json.loads(base64.b64decode(payload["bytes"])))
        at += total
    return events


def _blocks(events: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    # The opening holds the blocks that come before the first of its own events.
    opening = next(event["message"] for event in events if event["type"] == "message_start")
    blocks = {index: {**block, "spelled": ""} for index, block in enumerate(opening["content"])}
    for event in events:
        if event["type"] == "content_block_start":
            blocks[event["index"]] = {**event["content_block"], "spelled": ""}
        elif event["type"] == "content_block_delta":
            block, delta = blocks[event["index"]], event["delta"]
            match delta["type"]:
                case "text_delta":
                    block["text"] += delta["text"]
                case "thinking_delta":
                    block["thinking"] += delta["thinking"]
                case "signature_delta":
                    block["signature"] = delta["signature"]
                case "input_json_delta":
                    block["spelled"] += delta["partial_json"]
                case "citations_delta":
                    block.setdefault("citations", []).append(delta["citation"])
                case "compaction_delta":
                    block["content"] = (block["content"] or "") + delta["content"]
    for block in blocks.values():
        if block["spelled"]:
            block["input"] = _value(block["spelled"])
    return blocks


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None  # A call that the output limit cut.


def _part(block: dict[str, Any]) -> tuple[Any, ...]:
    match block["type"]:
        case "text":
            return ("text", block["text"], block.get("citations") or [])
        case "thinking":
            return ("thinking", block["thinking"], block.get("signature", ""))
        case "redacted_thinking":
            return ("redacted_thinking", block["data"])
        case "tool_use":
            return ("tool_use", block["id"], block["name"], block["input"])
        case _:
            return ("vendor", {name: value for name, value in block.items() if name != "spelled"})


def _usage(counts: dict[str, Any]) -> tuple[int, ...]:
    # Compaction rounds are billed and are in no total.
    rounds = [
        counts,
        *(each for each in counts.get("iterations") or [] if each["type"] == "compaction"),
    ]
    cached = sum(each.get("cache_read_input_tokens") or 0 for each in rounds)
    written = sum(each.get("cache_creation_input_tokens") or 0 for each in rounds)
    hour = sum(
        (each.get("cache_creation") or {}).get("ephemeral_1h_input_tokens", 0) for each in rounds
    )
    return (
        sum(each["input_tokens"] for each in rounds) + cached + written,
        sum(each["output_tokens"] for each in rounds),
        cached,
        written,
        hour,
        (counts.get("output_tokens_details") or {}).get("thinking_tokens", 0),
    )
