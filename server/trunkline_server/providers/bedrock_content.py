"""Messages as Converse's `system` and `messages`: turns, content blocks, tool ids.

Shapes follow Converse's request in the service's model, version 2023-09-30.
"""

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.providers.bedrock_media import MediaBlocks

DIALECT = "bedrock"

Block = dict[str, Any]

_FOREIGN_IN_ID = re.compile(r"[^a-zA-Z0-9_.:-]")
_LONGEST_ID = 64


class Conversation:
    """The system blocks and the alternating turns of one request.

    System messages anywhere in the list are joined, in order; with `system_in_user` they open the
    first user turn, for models without a system prompt. A tool message is a user turn of
    toolResult blocks, which stand before the turn's other blocks. An assistant message of which
    nothing remains, such as one that held only another vendor's reasoning, is left out.
    `cache_points` says whether the model takes them; to others none are sent.
    """

    def __init__(self, flags: Mapping[str, str | int | bool]) -> None:
        self.system: list[Block] = []
        self.turns: list[Block] = []
        # Whether any block is of a tool, for which the vendor wants the tools described.
        self.uses_tools = False
        self._media = MediaBlocks()
        self._system_in_user = flags.get("system_in_user", False)
        self._cache_point: Block | None = None
        if flags.get("cache_points"):
            point = {"type": "default"}
            if "cache_ttl" in flags:
                point["ttl"] = str(flags["cache_ttl"])
            self._cache_point = {"cachePoint": point}

    def read(self, messages: Iterable[v1.Message]) -> None:
        """Takes the messages in. Raises TrunklineError(INVALID_REQUEST), naming the field, for
        what the vendor cannot be told."""
        for index, message in enumerate(messages):
            where = f"messages[{index}]"
            role = message.role
            if role == v1.ROLE_USER:
                self._add_turn("user", self._user_blocks(message, where))
            elif role == v1.ROLE_ASSISTANT:
                blocks = self._assistant_blocks(message, where)
                if blocks:
                    self._add_turn("assistant", blocks)
            elif role == v1.ROLE_TOOL:
                self._add_results(self._tool_blocks(message, where))
            elif role == v1.ROLE_SYSTEM:
                self.system += self._system_blocks(message, where)
            else:
                raise invalid(f"{where}.role", "must be set")
        if not self.turns:
            raise invalid("messages", "must hold a message that is not a system message")
        if self._system_in_user and self.system:
            if self.turns[0]["role"] != "user":
                self.turns.insert(0, {"role": "user", "content": []})
            self.turns[0]["content"][:0] = self.system
            self.system = []

    def _add_turn(self, role: str, blocks: list[Block]) -> None:
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        else:
            self.turns.append({"role": role, "content": blocks})

    def _add_results(self, blocks: list[Block]) -> None:
        """Joins tool results to a running user turn, behind its results, before all else."""
        if not self.turns or self.turns[-1]["role"] != "user":
            self.turns.append({"role": "user", "content": blocks})
            return
        content = self.turns[-1]["content"]
        last = max((at for at, block in enumerate(content) if "toolResult" in block), default=-1)
        content[last + 1 : last + 1] = blocks

    def _system_blocks(self, message: v1.Message, where: str) -> list[Block]:
        blocks: list[Block] = []
        for index, part in enumerate(message.parts):
            if part.WhichOneof("kind") != "text":
                raise _misplaced(part, f"{where}.parts[{index}]", "a system message")
            if part.text:
                self._add(blocks, {"text": part.text}, marked=part.cache_breakpoint)
        return blocks

    def _user_blocks(self, message: v1.Message, where: str) -> list[Block]:
        blocks: list[Block] = []
        for index, part in enumerate(message.parts):
            block = self._content_block(part, f"{where}.parts[{index}]", "a user message")
            if block is not None:
                self._add(blocks, block, marked=part.cache_breakpoint)
        if not blocks:
            raise invalid(f"{where}.parts", "must hold something that is not blank")
        return blocks

    def _assistant_blocks(self, message: v1.Message, where: str) -> list[Block]:
        blocks: list[Block] = []
        for index, part in enumerate(message.parts):
            path = f"{where}.parts[{index}]"
            kind = part.WhichOneof("kind")
            block: Block | None
            if kind == "text":
                block = _text(part)
            elif kind == "tool_call":
                self.uses_tools = True
                block = {"toolUse": _tool_use(part.tool_call, f"{path}.tool_call")}
            elif kind == "reasoning":
                block = _reasoning(part)
            elif kind == "image":
                block = self._media.image(part.image, f"{path}.image")
            elif kind == "vendor_item":
                block = _vendor_item(part.vendor_item, f"{path}.vendor_item")
            else:
                raise _misplaced(part, path, "an assistant message")
            if block is not None:
                self._add(blocks, block, marked=part.cache_breakpoint)
        return blocks

    def _tool_blocks(self, message: v1.Message, where: str) -> list[Block]:
        blocks: list[Block] = []
        for index, part in enumerate(message.parts):
            path = f"{where}.parts[{index}]"
            if part.WhichOneof("kind") != "tool_result":
                raise _misplaced(part, path, "a tool message")
            result = part.tool_result
            block: Block = {
                "toolUseId": _allowed_id(result.tool_call_id, f"{path}.tool_result.tool_call_id"),
                "content": [
                    inner
                    for at, piece in enumerate(result.parts)
                    if (inner := self._result_block(piece, f"{path}.tool_result.parts[{at}]"))
                ],
            }
            if result.is_error:
                block["status"] = "error"
            # A result's own content has no cache points; the nearest place is behind it.
            marked = part.cache_breakpoint or any(p.cache_breakpoint for p in result.parts)
            self._add(blocks, {"toolResult": block}, marked=marked)
        if not blocks:
            raise invalid(f"{where}.parts", "must hold a tool result")
        self.uses_tools = True
        return blocks

    def _result_block(self, piece: v1.Part, where: str) -> Block | None:
        if piece.WhichOneof("kind") == "audio":
            raise _misplaced(piece, where, "a tool result")
        return self._content_block(piece, where, "a tool result")

    def _content_block(self, part: v1.Part, where: str, place: str) -> Block | None:
        """A block for what users and tools may say. None for blank text, which is not sent."""
        kind = part.WhichOneof("kind")
        if kind == "text":
            return _text(part)
        if kind == "image":
            return self._media.image(part.image, f"{where}.image")
        if kind == "audio":
            return self._media.audio(part.audio, f"{where}.audio")
        if kind == "file":
            return self._media.file(part.file, f"{where}.file")
        raise _misplaced(part, where, place)

    def _add(self, blocks: list[Block], block: Block, *, marked: bool) -> None:
        blocks.append(block)
        if marked and self._cache_point is not None:
            blocks.append(self._cache_point)


def _text(part: v1.Part) -> Block | None:
    """A text block; None for blank text, which the vendor refuses."""
    return {"text": part.text} if part.text and not part.text.isspace() else None


def _misplaced(part: v1.Part, where: str, place: str) -> TrunklineError:
    kind = part.WhichOneof("kind")
    if kind is None:
        return invalid(where, "must set a kind of content")
    return invalid(f"{where}.{kind}", f"this provider does not take it in {place}")


def _tool_use(call: v1.ToolCall, where: str) -> Block:
    return {
        "toolUseId": _allowed_id(call.id, f"{where}.id"),
        "name": call.name,
        "input": json_object(call.arguments_json, f"{where}.arguments_json"),
    }


def _allowed_id(call_id: str, where: str) -> str:
    """The id in the letters and the length that the vendor allows, so that calls of other
    vendors' models pass. Call and result are changed alike."""
    if not call_id:
        raise invalid(where, "must not be empty")
    allowed = _FOREIGN_IN_ID.sub(lambda found: f"_{ord(found[0]):x}_", call_id)
    if len(allowed) > _LONGEST_ID:
        allowed = sha256(call_id.encode()).hexdigest()
    return allowed


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


def _reasoning(part: v1.Part) -> Block | None:
    """The model's own reasoning, given back as it signed it; None for what it did not sign."""
    if part.signature.dialect != DIALECT:
        return None
    reasoning = part.reasoning
    if reasoning.redacted_data:
        return {"reasoningContent": {"redactedContent": reasoning.redacted_data}}
    if not part.signature.value:
        return None
    text = {"text": reasoning.text, "signature": part.signature.value}
    return {"reasoningContent": {"reasoningText": text}}


def _vendor_item(item: v1.VendorItem, where: str) -> Block | None:
    if item.dialect != DIALECT:
        return None
    return {item.type: json_object(item.json, f"{where}.json")}
