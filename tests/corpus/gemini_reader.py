"""A second, deliberately plain reading of Gemini answers, to check the codec against.

Written from knowledge of the vendor's GenerateContentResponse, and confirmed by the recorded
answers; it shares nothing with the codec. Where the codec follows an answer as it comes, this
looks at the whole of it at once.
"""

import json
from dataclasses import dataclass
from typing import Any

# Documented names by number, as `enum-encoding=int` shows them; only these were recorded.
FINISH_NAMES = {1: "STOP", 2: "MAX_TOKENS"}


@dataclass(frozen=True)
class Call:
    """One function call. `arguments` maps each leaf's JSON path to its value, in the order
    written; `id` and `signature` are empty when the vendor gave none."""

    id: str
    name: str
    arguments: tuple[tuple[str, Any], ...]
    signature: str


@dataclass(frozen=True)
class Reading:
    """What a caller must be told of an answer.

    `kinds` names the parts in order, neighbours of one kind once. `items` are what the
    vendor's own tools did; `sources` the addresses that it searched, and `cited` the words that
    rest on them. `signatures` are all, those of calls included.
    `usage` is (input, output, cached, reasoning), empty without a full report.
    """

    model: str
    finish: str
    kinds: tuple[str, ...]
    text: str
    items: tuple[Any, ...]
    sources: tuple[str, ...]
    cited: tuple[str, ...]
    thoughts: str
    calls: tuple[Call, ...]
    media: tuple[tuple[str, str], ...]
    signatures: tuple[str, ...]
    usage: tuple[int, ...]


def read_replies(replies: list[dict[str, Any]]) -> Reading:
    """A whole answer: one reply, or the replies of a stream."""
    candidates = [c for reply in replies for c in reply.get("candidates", [])]
    parts = [part for c in candidates for part in c.get("content", {}).get("parts", [])]
    finishes = [c["finishReason"] for c in candidates if "finishReason" in c]
    calls = _calls(parts)
    grounding = [c["groundingMetadata"] for c in candidates if c.get("groundingMetadata")]
    return Reading(
        model=replies[-1].get("modelVersion", ""),
        finish=str(finishes[-1]) if finishes else "",
        kinds=_kinds(parts),
        text="".join(part.get("text", "") for part in parts if not part.get("thought")),
        items=tuple(part for part in parts if _is_item(part)),
        sources=tuple(
            chunk["web"]["uri"] for told in grounding for chunk in told.get("groundingChunks", [])
        ),
        cited=tuple(
            support["segment"]["text"]
            for told in grounding
            for support in told.get("groundingSupports", [])
        ),
        thoughts="".join(part.get("text", "") for part in parts if part.get("thought")),
        calls=calls,
        media=tuple(
            (part["inlineData"]["mimeType"], part["inlineData"]["data"])
            for part in parts
            if "inlineData" in part
        ),
        signatures=tuple(
            part["thoughtSignature"]
            for part in parts
            if "thoughtSignature" in part and not _is_item(part)
        ),
        usage=_usage(replies),
    )


def _kinds(parts: list[dict[str, Any]]) -> tuple[str, ...]:
    kinds: list[str] = []
    for part in parts:
        if "functionCall" in part:
            # A call in pieces has its name only in the first.
            kind = "call" if "name" in part["functionCall"] else ""
        elif "inlineData" in part:
            kind = "media"
        elif part.get("thought"):
            kind = "thought"
        elif _is_item(part):
            kind = "item"
        else:
            kind = "text" if part.get("text") else ""
        if kind and (kind == "call" or kinds[-1:] != [kind]):
            kinds.append(kind)
    return tuple(kinds)


def _is_item(part: dict[str, Any]) -> bool:
    return "executableCode" in part or "codeExecutionResult" in part


def _calls(parts: list[dict[str, Any]]) -> tuple[Call, ...]:
    """Each piece without a name belongs to the last call that had one."""
    calls: list[tuple[dict[str, Any], str, dict[str, Any]]] = []
    for part in parts:
        piece = part.get("functionCall")
        if piece is None:
            continue
        if "name" in piece:
            calls.append((piece, part.get("thoughtSignature", ""), dict(leaves(piece.get("args")))))
        for leaf in piece.get("partialArgs", []):
            found = calls[-1][2]
            path, value = leaf["jsonPath"], leaf.get("stringValue", leaf.get("numberValue"))
            found[path] = found[path] + value if path in found else value
    return tuple(
        Call(piece.get("id", ""), piece["name"], tuple(arguments.items()), signature)
        for piece, signature, arguments in calls
    )


def leaves(value: Any, path: str = "$") -> list[tuple[str, Any]]:
    """The leaves of a JSON value by their JSON paths, in order."""
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}.{key}")]
    if isinstance(value, list) and value:
        return [leaf for i, inner in enumerate(value) for leaf in leaves(inner, f"{path}[{i}]")]
    return [] if path == "$" else [(path, value)]


def _usage(replies: list[dict[str, Any]]) -> tuple[int, ...]:
    """The last full report. The output is what remains of the total after all input, so that
    the parts it is made of are checked by the vendor's own sum."""
    reports = [reply.get("usageMetadata", {}) for reply in replies]
    full = [report for report in reports if "promptTokenCount" in report]
    if not full:
        return ()
    last = full[-1]
    given = last["promptTokenCount"] + last.get("toolUsePromptTokenCount", 0)
    return (
        given,
        last["totalTokenCount"] - given,
        last.get("cachedContentTokenCount", 0),
        last.get("thoughtsTokenCount", 0),
    )


def read_json(body: bytes) -> dict[str, Any]:
    """One reply."""
    reply: dict[str, Any] = json.loads(body)
    return reply
