"""A second reading of Cohere's answers, to check the codec against.

Written with the standard library alone, from the format as it is commonly known and from the
recorded bodies. It shares no code with the codec.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.support.sse_oracle import read_events


@dataclass
class Reading:
    """What an answer says. `usage` is (input, output) as billed."""

    text: str = ""
    thinking: str = ""
    plan: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    # Where the cited words are, the words, and the ids of their sources.
    citations: list[tuple[int, int, str, tuple[str, ...]]] = field(default_factory=list)
    finish: str = ""
    usage: tuple[int, int] = (0, 0)


def read_whole(body: bytes) -> Reading:
    """The reading of an unstreamed answer."""
    document = json.loads(body)
    message = document["message"]
    reading = Reading(plan=message.get("tool_plan") or "", finish=document["finish_reason"])
    for piece in message.get("content") or []:
        reading.text += piece.get("text", "")
        reading.thinking += piece.get("thinking", "")
    for call in message.get("tool_calls") or []:
        arguments = call["function"]["arguments"]
        reading.calls.append(
            (call["id"], call["function"]["name"], "" if arguments == "null" else arguments)
        )
    for citation in message.get("citations") or []:
        ids = tuple(source["id"] for source in citation["sources"])
        reading.citations.append((citation["start"], citation["end"], citation["text"], ids))
    reading.usage = _usage(document)
    return reading


def read_stream(body: bytes) -> Reading:
    """The reading of a streamed answer."""
    reading = Reading()
    calls: dict[int, list[str]] = {}
    for _, data in read_events(body):
        if data == b"[DONE]":
            break
        event = json.loads(data)
        kind = event["type"]
        delta = event.get("delta") or {}
        if kind == "content-delta":
            content = delta["message"]["content"]
            reading.text += content.get("text", "")
            reading.thinking += content.get("thinking", "")
        elif kind == "tool-plan-delta":
            reading.plan += delta["message"]["tool_plan"]
        elif kind == "tool-call-start":
            call = delta["message"]["tool_calls"]
            function = call["function"]
            calls[event["index"]] = [call["id"], function["name"], function["arguments"]]
        elif kind == "tool-call-delta":
            calls[event["index"]][2] += delta["message"]["tool_calls"]["function"]["arguments"]
        elif kind == "message-end":
            reading.finish = delta["finish_reason"]
            reading.usage = _usage(delta)
    reading.calls = [(call[0], call[1], call[2]) for call in calls.values()]
    return reading


def _usage(document: dict[str, Any]) -> tuple[int, int]:
    billed = document["usage"]["billed_units"]
    return billed["input_tokens"], billed["output_tokens"]
