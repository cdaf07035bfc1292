"""A second reading of responses, to check the codec against.

Written with the standard library alone, from the recorded bodies. It shares no code with the
codec, and takes a stream's items from the events that hold them whole, not from the deltas.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.support.sse_oracle import read_events


@dataclass
class Reading:
    """What an answer says. `pieces` are a stream's texts by their places. `usage` is (input,
    output, cached, reasoning); a citation is the source's id or address, and the words cited or
    "" where the vendor does not say which."""

    model: str = ""
    items: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""
    pieces: dict[tuple[int, int], str] = field(default_factory=dict)
    reasoning: list[str] = field(default_factory=list)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    citations: list[tuple[str, str]] = field(default_factory=list)
    finish: str = ""
    usage: tuple[int, int, int, int] | None = None
    findings: set[tuple[str, str, bool]] = field(default_factory=set)


def read_whole(body: bytes) -> Reading:
    """The reading of an unstreamed answer."""
    document = json.loads(body)
    return _reading(document, document["output"])


def read_stream(body: bytes) -> Reading:
    """The reading of a streamed answer that has ended in order."""
    done: dict[int, dict[str, Any]] = {}
    last = None
    for _, data in read_events(body):
        if data == b"[DONE]":
            break
        event = json.loads(data)
        if event["type"] == "response.output_item.done":
            done[event.get("output_index", 0)] = event["item"]
        elif event["type"] in {"response.completed", "response.incomplete"}:
            last = event["response"]
    assert last is not None
    # What the end of the response holds beyond the items that were done: those cut short.
    seen = {item.get("id") for item in done.values()}
    for index, item in enumerate(last.get("output") or []):
        if item.get("id") not in seen:
            done.setdefault(index, item)
    reading = _reading(last, [done[index] for index in sorted(done)])
    for index, item in done.items():
        if item["type"] == "message":
            for number, piece in enumerate(item["content"]):
                reading.pieces[index, number] = piece.get("text") or ""
    return reading


def joined_deltas(body: bytes) -> dict[tuple[int, int], str]:
    """The texts of a stream's messages, from its deltas alone, by output_index and
    content_index."""
    texts: dict[tuple[int, int], str] = {}
    for _, data in read_events(body):
        event = {} if data == b"[DONE]" else json.loads(data)
        if event.get("type") == "response.output_text.delta":
            place = (event["output_index"], event["content_index"])
            texts[place] = texts.get(place, "") + event["delta"]
    return texts


def _reading(document: dict[str, Any], items: list[dict[str, Any]]) -> Reading:
    reading = Reading(model=document["model"], items=items)
    for item in items:
        _add(reading, item)
    reading.finish = document["status"]
    if reading.finish == "incomplete":
        reading.finish = document["incomplete_details"]["reason"]
    usage = document.get("usage")
    if usage:
        reading.usage = (
            usage["input_tokens"],
            usage["output_tokens"],
            (usage.get("input_tokens_details") or {}).get("cached_tokens", 0),
            (usage.get("output_tokens_details") or {}).get("reasoning_tokens", 0),
        )
    for report in document.get("content_filters") or []:
        for category, result in report["content_filter_results"].items():
            reading.findings.add((report["source_type"], category, result["filtered"]))
    return reading


def _add(reading: Reading, item: dict[str, Any]) -> None:
    if item["type"] == "message":
        for piece in item["content"]:
            text = piece["text"] if piece["type"] == "output_text" else piece["refusal"]
            reading.text += text
            for note in piece.get("annotations") or []:
                words = ""
                if note.get("end_index"):
                    words = text[note["start_index"] : note["end_index"]]
                reading.citations.append((note.get("url") or note["file_id"], words))
    elif item["type"] == "reasoning":
        pieces = [*(item.get("summary") or []), *(item.get("content") or [])]
        reading.reasoning.append("\n\n".join(each["text"] for each in pieces))
    elif item["type"] == "function_call":
        reading.calls.append((item["call_id"], item["name"], item["arguments"]))
    elif item["type"] == "custom_tool_call":
        reading.calls.append((item["call_id"], item["name"], item["input"]))
