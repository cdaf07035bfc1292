"""Messages as the Messages API's `system` and `messages`: turns, content blocks, sources.

Shapes follow the request schema of POST /v1/messages, version 2023-06-01.
"""

import re
from collections.abc import Iterable
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.providers.anthropic_blocks import (
    DIALECT,
    returned_block,
    returned_citations,
)
from trunkline_server.providers.anthropic_media import file_block, image_block

__all__ = ["DIALECT", "EPHEMERAL", "Block", "encode_messages", "json_object"]

EPHEMERAL = {"type": "ephemeral"}

Block = dict[str, Any]

_FOREIGN_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")


def encode_messages(messages: Iterable[v1.Message]) -> tuple[list[Block], list[Block]]:
    """The system blocks and the alternating turns.

    System messages anywhere in the list are joined, in order. A tool message is a user turn
    of tool_result blocks, which the vendor wants before the turn's other blocks. An assistant
    message of which nothing remains, such as one that held only another vendor's reasoning,
    is left out. Raises TrunklineError(INVALID_REQUEST) for what the vendor cannot be told.
    """
    system: list[Block] = []
    turns: list[Block] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = message.role
        if role == v1.ROLE_USER:
            _add_turn(turns, "user", _user_blocks(message, where))
        elif role == v1.ROLE_ASSISTANT:
            blocks = _assistant_blocks(message, where)
            if blocks:
                _add_turn(turns, "assistant", blocks)
        elif role == v1.ROLE_TOOL:
            _add_results(turns, _tool_blocks(message, where))
        elif role == v1.ROLE_SYSTEM:
            system += _system_blocks(message, where)
        else:
            raise invalid(f"{where}.role", "must be set")
    if not turns:
        raise invalid("messages", "must hold a message that is not a system message")
    return system, turns


def _add_turn(turns: list[Block], role: str, blocks: list[Block]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _add_results(turns: list[Block], blocks: list[Block]) -> None:
    """Joins tool results to a running user turn, behind its results, before all else."""
    if not turns or turns[-1]["role"] != "user":
        turns.append({"role": "user", "content": blocks})
        return
    content = turns[-1]["content"]
    results = sum(block["type"] == "tool_result" for block in content)
    content[results:results] = blocks


def _system_blocks(message: v1.Message, where: str) -> list[Block]:
    blocks = []
    for index, part in enumerate(message.parts):
        if part.WhichOneof("kind") != "text":
            raise _misplaced(part, f"{where}.parts[{index}]", "a system message")
        if part.text:
            blocks.append(_marked(part, {"type": "text", "text": part.text}))
    return blocks


def _user_blocks(message: v1.Message, where: str) -> list[Block]:
    blocks = []
    for index, part in enumerate(message.parts):
        block = _content_block(part, f"{where}.parts[{index}]", "a user message")
        if block is not None:
            blocks.append(block)
    if not blocks:
        raise invalid(f"{where}.parts", "must hold something that is not empty")
    return blocks


def _assistant_blocks(message: v1.Message, where: str) -> list[Block]:
    blocks = []
    for index, part in enumerate(message.parts):
        kind = part.WhichOneof("kind")
        if kind == "text":
            # Models begin turns with line breaks that the vendor refuses to take back.
            if part.text and not part.text.isspace():
                said: Block = {"type": "text", "text": part.text}
                citations = returned_citations(part) if part.HasField("signature") else []
                if citations:
                    said["citations"] = citations
                blocks.append(_marked(part, said))
        elif kind == "tool_call":
            path = f"{where}.parts[{index}].tool_call"
            blocks.append(_marked(part, _tool_use(part.tool_call, path)))
        elif kind == "reasoning":
            block = _thinking(part, f"{where}.parts[{index}]")
            if block is not None:
                blocks.append(block)
        elif kind == "vendor_item":
            kept = returned_block(part.vendor_item, f"{where}.parts[{index}].vendor_item")
            if kept is not None:
                blocks.append(kept)
        else:
            raise _misplaced(part, f"{where}.parts[{index}]", "an assistant message")
    return blocks


def _tool_blocks(message: v1.Message, where: str) -> list[Block]:
    blocks = []
    for index, part in enumerate(message.parts):
        path = f"{where}.parts[{index}]"
        if part.WhichOneof("kind") != "tool_result":
            raise _misplaced(part, path, "a tool message")
        result = part.tool_result
        block: Block = {
            "type": "tool_result",
            "tool_use_id": _allowed_id(result.tool_call_id, f"{path}.tool_result.tool_call_id"),
        }
        content = [
            inner
            for at, piece in enumerate(result.parts)
            if (inner := _content_block(piece, f"{path}.tool_result.parts[{at}]", "a tool result"))
        ]
        if content:
            block["content"] = content
        if result.is_error:
            block["is_error"] = True
        blocks.append(_marked(part, block))
    if not blocks:
        raise invalid(f"{where}.parts", "must hold a tool result")
    return blocks


def _content_block(part: v1.Part, where: str, place: str) -> Block | None:
    """A block for what users and tools may say. None for empty text, which is not sent."""
    kind = part.WhichOneof("kind")
    if kind == "text":
        if not part.text:
            return None
        block: Block = {"type": "text", "text": part.text}
    elif kind == "image":
        block = image_block(part.image, f"{where}.image")
    elif kind == "file":
        block = file_block(part.file, f"{where}.file")
    else:
        raise _misplaced(part, where, place)
    return _marked(part, block)


def _marked(part: v1.Part, block: Block) -> Block:
    if part.cache_breakpoint:
        block["cache_control"] = EPHEMERAL
    return block


def _misplaced(part: v1.Part, where: str, place: str) -> TrunklineError:
    kind = part.WhichOneof("kind")
    if kind is None:
        return invalid(where, "must set a kind of content")
    return invalid(f"{where}.{kind}", f"this provider does not take it in {place}")


def _tool_use(call: v1.ToolCall, where: str) -> Block:
    return {
        "type": "tool_use",
        "id": _allowed_id(call.id, f"{where}.id"),
        "name": call.name,
        "input": json_object(call.arguments_json, f"{where}.arguments_json"),
    }


def _allowed_id(call_id: str, where: str) -> str:
    """The id in the letters the vendor allows, so that calls of other vendors' models pass.

    Call and result are changed alike; the vendor never repeats the ids of earlier turns.
    """
    if not call_id:
        raise invalid(where, "must not be empty")
    return _FOREIGN_IN_ID.sub(lambda found: f"_{ord(found[0]):x}_", call_id)


def json_object(text: str, where: str) -> orjson.Fragment:
    """JSON text of an object, to be embedded as it stands. Empty text is an empty object."""
    if not text:
        return orjson.Fragment(b"{}")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise invalid(where, "must be valid JSON") from None
    if not isinstance(value, dict):
        raise invalid(where, "must be a JSON object")
    return orjson.Fragment(text)


def _thinking(part: v1.Part, where: str) -> Block | None:
    """The model's own thinking, given back; None for thinking of another vendor's model."""
    if part.signature.dialect != DIALECT:
        return None
    reasoning = part.reasoning
    if reasoning.redacted_data:
        block = {"type": "redacted_thinking", "data": reasoning.redacted_data}
    elif part.signature.value:
        block = {
            "type": "thinking",
            "thinking": reasoning.text,
            "signature": part.signature.value,
        }
    else:
        return None
    if part.cache_breakpoint:
        raise invalid(f"{where}.cache_breakpoint", "this provider cannot cache up to a reasoning")
    return block
