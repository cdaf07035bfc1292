"""Whole answers of the Messages API: content blocks, stop reasons, token counts."""

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.providers.anthropic_blocks import (
    DIALECT,
    arguments_text,
    citations_signature,
    note_citations,
    note_sources,
    vendor_part,
)
from trunkline_server.providers.anthropic_errors import bad_response, reported_error
from trunkline_server.providers.references import References

# The blocks that the contract has parts of its own for. Others are work that the vendor did on its
# own side (server tools and their results, compaction, model fallback) or not yet known, and are
# kept as they are: as tool calls they would ask the caller to run them.
OWN_BLOCKS = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})

FINISH_REASONS: Mapping[str, v1.FinishReason.ValueType] = {
    "end_turn": v1.FINISH_REASON_STOP,
    "stop_sequence": v1.FINISH_REASON_STOP,
    "max_tokens": v1.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": v1.FINISH_REASON_LENGTH,
    "tool_use": v1.FINISH_REASON_TOOL_CALLS,
    "refusal": v1.FINISH_REASON_REFUSAL,
    # The vendor's own tool loop paused, and goes on when its blocks are sent back.
    "pause_turn": v1.FINISH_REASON_OTHER,
}

# What reading JSON of an unexpected shape raises. Protobuf refuses text that is not Unicode
# and numbers out of range with ValueError.
SHAPE_ERRORS = (KeyError, TypeError, ValueError, AttributeError, RecursionError)

# orjson reads integers beyond 64 bits as floats.
_LONG_INTEGER = re.compile(rb"\d{19}")


def decode_message(body: bytes, into: v1.GenerateResponse) -> None:
    """Fills the answer from a body; a body without counts leaves `usage` unset."""
    try:
        answer = orjson.loads(body)
        if answer.get("type") == "error":
            raise reported_error(answer, status=200)
        blocks = answer["content"]
        if any(block["type"] != "text" for block in blocks) and _LONG_INTEGER.search(body):
            blocks = json.loads(body)["content"]
        into.model = answer["model"]
        into.message.role = v1.ROLE_ASSISTANT
        parts = into.message.parts
        references = References()
        for index, block in enumerate(blocks):
            read_block(block, parts.add())
            if block["type"] not in OWN_BLOCKS:
                note_sources(block, references)
            elif block.get("citations"):
                note_citations(block["citations"], index, len(block["text"]), references)
        references.fill(into.message)
        into.vendor_finish_reason = answer.get("stop_reason") or ""
        into.finish_reason = finish_reason(into.vendor_finish_reason)
        if answer.get("usage"):
            read_usage(answer["usage"], into.usage)
    except SHAPE_ERRORS:
        for name in ("model", "message", "finish_reason", "vendor_finish_reason", "usage"):
            into.ClearField(name)
        # Without its cause, which may quote the answer.
        raise bad_response("an answer that is not a message") from None


def decode_count(body: bytes) -> int:
    """As TokenCountCodec.decode_token_count asks."""
    try:
        answer = orjson.loads(body)
        if answer.get("type") == "error":
            raise reported_error(answer, status=200)
        # Nothing counted is no zero.
        return _count({"input_tokens": answer["input_tokens"] + 0}, "input_tokens")
    except SHAPE_ERRORS:
        raise bad_response("an answer that is not a count") from None


def finish_reason(vendor_reason: str) -> v1.FinishReason.ValueType:
    """Unspecified when the vendor gave none, OTHER for one that is not known."""
    if not vendor_reason:
        return v1.FINISH_REASON_UNSPECIFIED
    return FINISH_REASONS.get(vendor_reason, v1.FINISH_REASON_OTHER)


def read_block(block: dict[str, Any], part: v1.Part) -> None:
    """Fills a part from a whole block."""
    kind = block["type"]
    if kind == "text":
        part.text = block["text"]
        if block.get("citations"):
            part.signature.CopyFrom(citations_signature(block["citations"]))
    elif kind == "tool_use":
        call = part.tool_call
        call.id = block["id"]
        call.name = block["name"]
        call.arguments_json = arguments_text(block["input"])
    elif kind == "thinking":
        part.reasoning.text = block["thinking"]
        if block.get("signature"):
            part.signature.dialect = DIALECT
            part.signature.value = block["signature"]
    elif kind == "redacted_thinking":
        # The signature's dialect alone marks whose redacted reasoning it is.
        part.reasoning.redacted_data = block["data"]
        part.signature.dialect = DIALECT
    else:
        vendor_part(block, part)


def read_usage(counts: Mapping[str, Any], usage: v1.Usage) -> None:
    """Fills inclusive counts from the vendor's, of which none contains another.

    `input_tokens` leaves out what was read from and written to the cache. The rounds in which
    the vendor compacted the conversation are billed but in no total; they stand only in
    `iterations`. An advisor's tokens there, which another model's price holds for, are not
    counted: the contract has no place for a second price.
    """
    usage.source = v1.USAGE_SOURCE_PROVIDER
    _add_counts(counts, usage)
    details = counts.get("output_tokens_details")
    if details:
        usage.reasoning_tokens = _count(details, "thinking_tokens")
    tools = counts.get("server_tool_use")
    if tools:
        usage.search_units = _count(tools, "web_search_requests")
    for iteration in counts.get("iterations") or ():
        if iteration["type"] == "compaction":
            _add_counts(iteration, usage)


def _add_counts(counts: Mapping[str, Any], usage: v1.Usage) -> None:
    cached = _count(counts, "cache_read_input_tokens")
    written = _count(counts, "cache_creation_input_tokens")
    usage.input_tokens += _count(counts, "input_tokens") + cached + written
    usage.output_tokens += _count(counts, "output_tokens")
    usage.cached_input_tokens += cached
    usage.cache_write_tokens += written
    by_lifetime = counts.get("cache_creation")
    if by_lifetime:
        usage.cache_write_1h_tokens += _count(by_lifetime, "ephemeral_1h_input_tokens")


def _count(counts: Mapping[str, Any], name: str) -> int:
    value = counts.get(name)
    if value is None:
        return 0
    if type(value) is not int or value < 0:
        raise TypeError(f"{name} is not a count")
    return value
