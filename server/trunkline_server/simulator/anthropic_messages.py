"""Reads and checks the messages of a request of the Anthropic dialect."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Media, Prompt
from trunkline_server.simulator.signature import is_signature_of, is_token
from trunkline_server.simulator.vendor_error import VendorError

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_THOUGHTS = ("thinking", "redacted_thinking")


def wrong(path: str, message: str) -> VendorError:
    """A refusal whose message begins with the path, the way this vendor names a field."""
    return VendorError("invalid", f"{path}: {message}", param=path)


def mark_of(block: Mapping[str, Any], path: str) -> str:
    """The lifetime of a block's cache breakpoint; empty when it has none."""
    control = block.get("cache_control")
    if control is None:
        return ""
    where = f"{path}.cache_control".lstrip(".")
    if not isinstance(control, dict) or control.get("type") != "ephemeral":
        raise wrong(f"{where}.type", "Input should be 'ephemeral'")
    ttl = control.get("ttl") or "5m"
    if ttl not in ("5m", "1h"):
        raise wrong(f"{where}.ttl", "Input should be '5m' or '1h'")
    return str(ttl)


def text_of(block: Mapping[str, Any], path: str) -> str:
    text = block.get("text")
    if not isinstance(text, str):
        raise wrong(f"{path}.text", "Field required")
    if not text:
        raise VendorError("invalid", f"{path}: text content blocks must be non-empty", param=path)
    return text


class MessageReader:
    """Reads the messages of one request into its prompt.

    `must_think` demands that the last assistant turn, when it uses tools, begins with its
    thinking. Consecutive messages of one role count as one turn.
    """

    def __init__(self, prompt: Prompt, *, must_think: bool, vision: bool) -> None:
        self._prompt = prompt
        self._must_think = must_think
        self._vision = vision
        self._texts: list[str] = []
        # The calls of the last assistant turn that have no result yet: id to tool name.
        self._open: dict[str, str] = {}
        self._called_at = 0

    def read(self, messages: Any) -> None:
        """Raises VendorError for what the vendor refuses."""
        if messages is None:
            raise wrong("messages", "Field required")
        if not isinstance(messages, list):
            raise wrong("messages", "Input should be a valid list")
        if not messages:
            raise wrong("messages", "at least one message is required")
        self._prompt.message_count = len(messages)
        previous = ""
        for i, message in enumerate(messages):
            role = self._role(message, i)
            if role != previous:
                self._begin_turn(role)
            self._message(message, role, i, final=i == len(messages) - 1)
            if role == "assistant" and self._open:
                self._called_at = i
            previous = role
        if self._open:
            raise self._unanswered()
        self._check_thinking(messages)

    @staticmethod
    def _role(message: Any, i: int) -> str:
        role = message.get("role") if isinstance(message, dict) else None
        if role == "system":
            raise wrong(
                "messages",
                'Unexpected role "system". The Messages API accepts a top-level `system` '
                'parameter, not "system" as an input message role.',
            )
        if role not in ("user", "assistant"):
            raise wrong(f"messages.{i}.role", "Input should be 'user' or 'assistant'")
        if i == 0 and role != "user":
            raise wrong("messages", 'first message must use the "user" role')
        return str(role)

    def _begin_turn(self, role: str) -> None:
        if role == "assistant":
            if self._open:
                raise self._unanswered()
        else:
            # Results from before an earlier answer are no longer what is asked about.
            self._prompt.results.clear()
            self._texts.clear()

    def _unanswered(self) -> VendorError:
        return wrong(
            f"messages.{self._called_at}",
            "`tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(self._open)}. Each `tool_use` block must have a corresponding "
            "`tool_result` block in the next message.",
        )

    def _message(self, message: Mapping[str, Any], role: str, i: int, *, final: bool) -> None:
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        path = f"messages.{i}"
        if not isinstance(blocks, list):
            raise wrong(f"{path}.content", "Input should be a valid list")
        if (not blocks or content == "") and not (final and role == "assistant"):
            raise wrong(path, "all messages must have non-empty content")
        if content == "":
            return
        for j, block in enumerate(blocks):
            where = f"{path}.content.{j}"
            if not isinstance(block, dict):
                raise wrong(where, "Input should be a valid dictionary")
            self._block(block, role, where)
        if role == "user" and self._texts:
            self._prompt.last_user_text = "".join(self._texts)

    def _block(self, block: dict[str, Any], role: str, path: str) -> None:
        kind, prompt = block.get("type"), self._prompt
        mark = mark_of(block, path)
        if kind == "text":
            text = text_of(block, path)
            if role == "user":
                self._texts.append(text)
            prompt.add((role, text), tokens.count(text) + tokens.MESSAGE_TOKENS, mark)
        elif kind in ("image", "document") and role == "user":
            self._media(block, path)
            prompt.add(repr(block.get("source")), tokens.MEDIA_TOKENS, mark)
        elif kind == "tool_result" and role == "user":
            text = self._tool_result(block, path)
            prompt.add((role, kind, text), tokens.count(text) + tokens.MESSAGE_TOKENS, mark)
        elif kind == "tool_use" and role == "assistant":
            text = self._tool_use(block, path)
            prompt.add((role, kind, text), tokens.count(text) + tokens.MESSAGE_TOKENS, mark)
        elif kind in _THOUGHTS and role == "assistant":
            text = self._thought(block, path)
            prompt.add((role, kind, text), tokens.count(text), mark)
        else:
            raise wrong(
                path, f"Input tag '{kind}' found using 'type' is not allowed in a {role} message"
            )

    def _media(self, block: Mapping[str, Any], path: str) -> None:
        image = block["type"] == "image"
        if image and not self._vision:
            raise wrong(path, "this model does not support images")
        source = block.get("source")
        kind = source.get("type") if isinstance(source, dict) else None
        if not isinstance(source, dict) or kind not in ("base64", "url", "text", "file"):
            raise wrong(f"{path}.source.type", "Input should be 'base64', 'url' or 'file'")
        media_type, size = source.get("media_type") or "", None
        name = "image" if image else "file"
        if kind == "base64":
            if image and media_type not in IMAGE_TYPES:
                allowed = ", ".join(f"'{one}'" for one in IMAGE_TYPES)
                raise wrong(f"{path}.source.base64.media_type", f"Input should be {allowed}")
            try:
                size = len(base64.b64decode(source.get("data") or "", validate=True))
            except (binascii.Error, ValueError, TypeError):
                raise wrong(f"{path}.source.base64.data", "invalid base64 data") from None
            if not size:
                raise wrong(f"{path}.source.base64", "media cannot be empty")
        elif kind == "text":
            size = len(str(source.get("data", "")).encode())
        elif not isinstance(source.get("url" if kind == "url" else "file_id"), str):
            raise wrong(f"{path}.source.{kind}", "Field required")
        self._prompt.media.append(Media(name, media_type, size))

    def _tool_result(self, block: Mapping[str, Any], path: str) -> str:
        call_id = block.get("tool_use_id")
        if not isinstance(call_id, str):
            raise wrong(f"{path}.tool_result.tool_use_id", "Field required")
        if call_id not in self._open:
            raise wrong(
                path,
                f"unexpected `tool_use_id` found in `tool_result` blocks: {call_id}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the "
                "previous message.",
            )
        content = block.get("content")
        texts = [content] if isinstance(content, str) else []
        for k, part in enumerate(content if isinstance(content, list) else ()):
            where = f"{path}.content.{k}"
            if not isinstance(part, dict) or part.get("type") not in ("text", "image", "document"):
                raise wrong(where, "Input should be a text, image or document block")
            if part["type"] == "text":
                texts.append(text_of(part, where))
            else:
                self._media(part, where)
        text = "".join(texts)
        shown = f"error: {text}" if block.get("is_error") else text
        self._prompt.results.append((self._open.pop(call_id), shown))
        return text

    def _tool_use(self, block: Mapping[str, Any], path: str) -> str:
        for name, kind in (("id", str), ("name", str), ("input", dict)):
            if not isinstance(block.get(name), kind):
                raise wrong(f"{path}.tool_use.{name}", "Field required")
        self._open[block["id"]] = block["name"]
        return f"{block['name']} {orjson.dumps(block['input']).decode()}"

    @staticmethod
    def _thought(block: Mapping[str, Any], path: str) -> str:
        if block["type"] == "redacted_thinking":
            data = block.get("data")
            if not isinstance(data, str) or not is_token(data):
                raise wrong(path, "Invalid `data` in `redacted_thinking` block")
            return data
        thinking, signature = block.get("thinking"), block.get("signature")
        if not isinstance(thinking, str):
            raise wrong(f"{path}.thinking.thinking", "Field required")
        if not isinstance(signature, str):
            raise wrong(f"{path}.thinking.signature", "Field required")
        if not is_signature_of(signature, thinking):
            raise wrong(path, "Invalid `signature` in `thinking` block")
        return thinking

    def _check_thinking(self, messages: list[Any]) -> None:
        if not self._must_think:
            return
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        blocks = messages[answers[-1]].get("content") if answers else ()
        kinds = [block["type"] for block in blocks if isinstance(block, dict)]
        if "tool_use" in kinds and kinds[0] not in _THOUGHTS:
            raise wrong(
                f"messages.{answers[-1]}.content.0.type",
                f"Expected `thinking` or `redacted_thinking`, but found `{kinds[0]}`. When "
                "`thinking` is enabled, a final `assistant` message must start with a "
                "thinking block (preceding the lastmost set of `tool_use` and `tool_result` "
                "blocks).",
            )
