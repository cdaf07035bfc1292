"""Whole answers of Converse: content blocks, stop reasons, token counts."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.providers.bedrock_content import DIALECT
from trunkline_server.providers.bedrock_errors import bad_response
from trunkline_server.providers.bedrock_guardrail import read_findings

FINISH_REASONS: Mapping[str, v1.FinishReason.ValueType] = {
    "end_turn": v1.FINISH_REASON_STOP,
    "stop_sequence": v1.FINISH_REASON_STOP,
    "max_tokens": v1.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": v1.FINISH_REASON_LENGTH,
    "tool_use": v1.FINISH_REASON_TOOL_CALLS,
    "guardrail_intervened": v1.FINISH_REASON_CONTENT_FILTER,
    "content_filtered": v1.FINISH_REASON_CONTENT_FILTER,
}

# What reading JSON of an unexpected shape raises. Protobuf refuses text that is not Unicode
# and numbers out of range with ValueError.
SHAPE_ERRORS = (KeyError, TypeError, ValueError, AttributeError, RecursionError)

# orjson reads integers beyond 64 bits as floats.
_LONG_INTEGER = re.compile(rb"\d{19}")

Block = dict[str, Any]


def decode_message(body: bytes, into: v1.GenerateResponse) -> None:
    """Fills the answer from a body; a body without counts leaves `usage` unset."""
    try:
        answer = orjson.loads(body)
        blocks = answer["output"]["message"]["content"]
        if any("toolUse" in block for block in blocks) and _LONG_INTEGER.search(body):
            blocks = json.loads(body)["output"]["message"]["content"]
        into.message.role = v1.ROLE_ASSISTANT
        for block in blocks:
            read_block(block, into.message)
        into.vendor_finish_reason = answer.get("stopReason") or ""
        into.finish_reason = finish_reason(into.vendor_finish_reason)
        if answer.get("usage"):
            usage = v1.Usage()
            read_usage(answer["usage"], usage)
            if usage.source:
                into.usage.CopyFrom(usage)
        trace = answer.get("trace")
        if trace:
            into.model = routed_model(trace)
            into.filter_findings.extend(read_findings(trace))
    except SHAPE_ERRORS:
        for name in (
            "model",
            "message",
            "finish_reason",
            "vendor_finish_reason",
            "usage",
            "filter_findings",
        ):
            into.ClearField(name)
        # Without its cause, which may quote the answer.
        raise bad_response("an answer that is not a message") from None


def finish_reason(vendor_reason: str) -> v1.FinishReason.ValueType:
    """Unspecified when the vendor gave none, OTHER for one that is not known, such as those for
    output that the service could not make sense of."""
    if not vendor_reason:
        return v1.FINISH_REASON_UNSPECIFIED
    return FINISH_REASONS.get(vendor_reason, v1.FINISH_REASON_OTHER)


def routed_model(trace: Mapping[str, Any]) -> str:
    """The model that a prompt router chose; empty without one. Converse names no other."""
    router = trace.get("promptRouter")
    model = router.get("invokedModelId", "") if router else ""
    if not isinstance(model, str):
        raise TypeError("not a model")
    return model


def read_block(block: Block, message: v1.Message) -> None:
    """Adds a whole block to the message. Blocks of unknown kinds are passed over."""
    parts = message.parts
    if "text" in block:
        parts.add().text = block["text"]
    elif "toolUse" in block:
        use = block["toolUse"]
        if is_server_tool(use):
            read_item("toolUse", use, parts.add())
            return
        call = parts.add().tool_call
        call.id = use["toolUseId"]
        call.name = use["name"]
        call.arguments_json = json_text(use["input"])
    elif "reasoningContent" in block:
        read_reasoning(block["reasoningContent"], parts.add())
    elif "citationsContent" in block:
        content = block["citationsContent"]
        index = len(parts)
        text = "".join(piece["text"] for piece in content.get("content") or ())
        parts.add().text = text
        sources, citations = read_citations(
            content.get("citations") or (), index, len(text), len(message.sources)
        )
        message.sources.extend(sources)
        message.citations.extend(citations)
    elif "image" in block:
        image = block["image"]
        read_image(image["format"], base64.b64decode(image["source"]["bytes"]), parts.add())
    elif "toolResult" in block:
        read_item("toolResult", block["toolResult"], parts.add())


def is_server_tool(use: Mapping[str, Any]) -> bool:
    """Whether the service runs the tool itself, so that nobody must be asked to."""
    return use.get("type") == "server_tool_use"


def read_item(kind: str, content: Any, part: v1.Part) -> None:
    """Fills a part from a record of a tool that the service ran."""
    item = part.vendor_item
    item.dialect = DIALECT
    item.type = kind
    item.json = json_text(content)


def read_image(form: str, data: bytes, part: v1.Part) -> None:
    """Fills a part from a picture that the model made."""
    part.image.media_type = f"image/{form}"
    part.image.data = data


def read_reasoning(content: Block, part: v1.Part) -> None:
    """Fills a part from a block of reasoning. Only what the model signed bears a signature,
    which for redacted reasoning is empty: its dialect alone says whose it is."""
    if "redactedContent" in content:
        part.reasoning.redacted_data = content["redactedContent"]
        part.signature.dialect = DIALECT
        return
    text = content["reasoningText"]
    part.reasoning.text = text["text"]
    if text.get("signature"):
        part.signature.dialect = DIALECT
        part.signature.value = text["signature"]


def read_citations(
    found: Sequence[Block], part_index: int, length: int, known: int
) -> tuple[list[v1.Source], list[v1.Citation]]:
    """The sources that a block of text of so many characters cites, and how it does.

    Each citation brings its own source, numbered from `known`. The words that cite are the whole
    block: the vendor begins a new one for other words.
    """
    sources: list[v1.Source] = []
    citations: list[v1.Citation] = []
    for each in found:
        location = each.get("location") or {}
        web = location.get("web") or {}
        citation = v1.Citation(part_index=part_index, end=length)
        citation.source_indexes.append(known + len(sources))
        citation.quote = "".join(piece["text"] for piece in each.get("sourceContent") or ())
        citations.append(citation)
        sources.append(
            v1.Source(
                id=_source_id(each, location),
                uri=web.get("url") or "",
                title=each.get("title") or web.get("domain") or "",
            )
        )
    return sources, citations


def _source_id(citation: Block, location: Mapping[str, Any]) -> str:
    """The vendor's own name of the source, else which of the request's documents or search
    results it is, such as "document 0"."""
    if citation.get("source"):
        name: str = citation["source"]
        return name
    for kind in ("documentChar", "documentPage", "documentChunk"):
        if kind in location:
            return f"document {location[kind].get('documentIndex', 0)}"
    if "searchResultLocation" in location:
        return f"search result {location['searchResultLocation'].get('searchResultIndex', 0)}"
    return ""


def json_text(value: Any) -> str:
    """A value as JSON text, its keys in the vendor's order."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        # Integers beyond 64 bits, or deep nesting: what orjson cannot write, json can.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def read_usage(counts: Mapping[str, Any], usage: v1.Usage) -> None:
    """Fills inclusive counts: `inputTokens` leaves out what was read from and written to the
    cache, as the service's `totalTokens`, which is the sum of all four, tells.

    Counts that lack one of the two that the service promises leave `usage` as it is: they would
    be billed as if the other were nothing.
    """
    if counts.get("inputTokens") is None or counts.get("outputTokens") is None:
        return
    usage.source = v1.USAGE_SOURCE_PROVIDER
    cached = _count(counts, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = _count(counts, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    usage.input_tokens = _count(counts, "inputTokens") + cached + written
    usage.output_tokens = _count(counts, "outputTokens")
    usage.cached_input_tokens = cached
    usage.cache_write_tokens = written
    for detail in counts.get("cacheDetails") or ():
        if detail["ttl"] == "1h":
            usage.cache_write_1h_tokens += _count(detail, "inputTokens")


def _count(counts: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = counts.get(name)
        if value is not None:
            if type(value) is not int or value < 0:
                raise TypeError(f"{name} is not a count")
            return value
    return 0
