"""A second, deliberately plain reading of Converse answers, to check the codec against.

Written from the service's published model and confirmed by the recorded answers; it shares nothing
with the codec, reads whole bodies only, and leaves frames and their checksums to botocore.
"""

import json
from dataclasses import dataclass
from typing import Any

from tests.support.eventstream import read_events


@dataclass(frozen=True)
class Reading:
    """What a caller must be told of an answer.

    `parts` holds ("text", text), ("reasoning", text, signature), ("redacted", data) or
    ("tool", id, name, arguments as a Python value, or None for text that is not JSON).
    `argument_texts` are each call's arguments as a stream spelled them, and empty where they came
    as a JSON value. `usage` is (input, output, cached, cache-written), or empty when the vendor
    did not give both counts. `findings` is a set of (of the prompt or not, what, how bad, detected,
    acted).
    """

    stop_reason: str
    parts: tuple[tuple[Any, ...], ...]
    argument_texts: tuple[str, ...]
    usage: tuple[int, ...]
    findings: frozenset[tuple[Any, ...]]


def read_answer(body: bytes) -> Reading:
    """A whole answer."""
    answer = json.loads(body)
    blocks = [{**block, "spelled": ""} for block in answer["output"]["message"]["content"]]
    return _reading(blocks, answer["stopReason"], answer.get("usage"), answer.get("trace"))


def read_stream(body: bytes) -> Reading:
    """A whole body of event-stream messages that came to its end."""
    events = [(name, json.loads(payload)) for name, payload in read_events(body)]
    names = [name for name, _ in events]
    if names[0] != "messageStart" or names.count("messageStop") != 1:
        raise ValueError("the stream is not one message")
    by_name = dict(events)
    metadata = by_name.get("metadata", {})
    return _reading(
        _blocks(events),
        by_name["messageStop"]["stopReason"],
        metadata.get("usage"),
        metadata.get("trace"),
    )


def _blocks(events: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    blocks: dict[int, dict[str, Any]] = {}
    for name, event in events:
        if name == "contentBlockStart":
            use = event["start"]["toolUse"]
            blocks[event["contentBlockIndex"]] = {"toolUse": {**use}, "spelled": ""}
        elif name == "contentBlockDelta":
            block = blocks.setdefault(event["contentBlockIndex"], {"spelled": ""})
            delta = event["delta"]
            if "text" in delta:
                block["text"] = block.get("text", "") + delta["text"]
            elif "toolUse" in delta:
                block["spelled"] += delta["toolUse"]["input"]
            else:
                content = delta["reasoningContent"]
                read = block.setdefault("reasoningContent", {"reasoningText": {"text": ""}})
                for key, value in content.items():
                    held = read["reasoningText"]
                    held[key] = held.get(key, "") + value
    for block in blocks.values():
        if "toolUse" in block:
            block["spelled"] = block["spelled"] or "{}"
            block["toolUse"]["input"] = _value(block["spelled"])
    return [blocks[index] for index in sorted(blocks)]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None  # A call that the output limit cut.


def _reading(blocks: list[Any], stop_reason: str, counts: Any, trace: Any) -> Reading:
    return Reading(
        stop_reason=stop_reason,
        parts=tuple(_part(block) for block in blocks),
        argument_texts=tuple(block["spelled"] for block in blocks if "toolUse" in block),
        usage=_usage(counts or {}),
        findings=frozenset(_findings((trace or {}).get("guardrail", {}))),
    )


def _part(block: dict[str, Any]) -> tuple[Any, ...]:
    if "text" in block:
        return ("text", block["text"])
    if "toolUse" in block:
        use = block["toolUse"]
        return ("tool", use["toolUseId"], use["name"], use["input"])
    content = block["reasoningContent"]
    if "redactedContent" in content:
        return ("redacted", content["redactedContent"])
    text = content["reasoningText"]
    return ("reasoning", text["text"], text.get("signature", ""))


def _usage(counts: dict[str, int]) -> tuple[int, ...]:
    if not {"inputTokens", "outputTokens", "totalTokens"} <= counts.keys():
        return ()  # Half a count would be billed as if it were a whole one.
    cached, written = counts.get("cacheReadInputTokens", 0), counts.get("cacheWriteInputTokens", 0)
    read = counts["inputTokens"] + cached + written
    # The service's own sum, which says that the input leaves out what was cached.
    if read + counts["outputTokens"] != counts["totalTokens"]:
        raise ValueError("counts that do not add up")
    return (read, counts["outputTokens"], cached, written)


def _findings(guardrail: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Everything in the assessments that says what was done about it."""
    found = []
    judged = [(True, one) for one in guardrail.get("inputAssessment", {}).values()]
    for several in guardrail.get("outputAssessments", {}).values():
        judged += [(False, one) for one in several]
    for of_prompt, assessment in judged:
        for policy, content in assessment.items():
            if policy == "invocationMetrics":
                continue
            for entries in content.values():
                for entry in entries:
                    acted = entry["action"] != "NONE"
                    named = entry.get("name") or entry["type"]
                    bad = entry.get("confidence") or (
                        f"{entry['score']:g}" if "score" in entry else ""
                    )
                    told = policy != "contextualGroundingPolicy" or acted
                    found.append((of_prompt, named, bad, entry.get("detected", told), acted))
    return found
