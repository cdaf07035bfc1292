"""Reads and checks the messages of a request of Converse."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Media, Prompt
from trunkline_server.simulator.signature import is_signature_of, is_token
from trunkline_server.simulator.vendor_error import VendorError

_FORMATS: Mapping[str, frozenset[str]] = {
    "image": frozenset({"png", "jpeg", "gif", "webp"}),
    "document": frozenset({"pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"}),
    "video": frozenset({"mkv", "mov", "mp4", "webm", "flv", "mpeg", "mpg", "wmv", "three_gp"}),
    "audio": frozenset({"mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "mka", "webm", "pcm"}),
}
_MEDIA_KIND = {"image": "image", "document": "file", "video": "file", "audio": "audio"}
_DOCUMENT_NAME = re.compile(r"[a-zA-Z0-9\-()\[\]]+(?: [a-zA-Z0-9\-()\[\]]+)*")
_TOOL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")


def wrong(path: str, message: str) -> VendorError:
    """A refusal that names the path of the wrong field."""
    return VendorError("invalid", f"The value at {path} is invalid: {message}", param=path)


def mark_of(block: Mapping[str, Any], path: str) -> str:
    """The lifetime of a cache point."""
    point = block["cachePoint"]
    if not isinstance(point, dict) or point.get("type") != "default":
        raise wrong(f"{path}.cachePoint.type", "must be default")
    ttl = point.get("ttl", "5m")
    if ttl not in ("5m", "1h"):
        raise wrong(f"{path}.cachePoint.ttl", "must be 5m or 1h")
    return str(ttl)


def text_of(block: Any, path: str) -> str:
    """The text of a block of text, or of what a guardrail is to look at."""
    text = block.get("text") if isinstance(block, dict) else None
    if isinstance(block, dict) and "guardContent" in block:
        text = (block["guardContent"].get("text") or {}).get("text")
    if not isinstance(text, str):
        raise wrong(path, "must set exactly one kind of content")
    if not text.strip():
        raise VendorError(
            "invalid",
            f"The text field in the ContentBlock object at {path} is blank. Add text to the text "
            "field, and try again.",
            param=path,
        )
    return text


class MessageReader:
    """Reads the messages of one request into its prompt."""

    def __init__(self, prompt: Prompt, *, vision: bool) -> None:
        self._prompt = prompt
        self._vision = vision
        self._texts: list[str] = []
        # The calls of the last assistant turn that have no result yet: id to tool name.
        self._open: dict[str, str] = {}
        self._document_names: set[str] = set()

    def read(self, messages: Any) -> None:
        """Raises VendorError for what the service refuses."""
        if not isinstance(messages, list) or not messages:
            raise VendorError(
                "invalid", "A conversation must start with a user message. Try again with one."
            )
        self._prompt.message_count = len(messages)
        for i, message in enumerate(messages):
            self._message(message, i)
        if self._open:
            raise self._unanswered(len(messages) - 1)

    def _message(self, message: Any, i: int) -> None:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant"):
            raise wrong(f"messages.{i}.role", "must be user or assistant")
        if role != ("user", "assistant")[i % 2]:
            begin = "start with a user message" if i == 0 else "alternate between roles"
            raise VendorError(
                "invalid",
                f"A conversation must {begin}. Try again with a conversation that does "
                f"(messages.{i}).",
                param="messages",
            )
        blocks = message.get("content")
        if not isinstance(blocks, list) or not blocks:
            raise wrong(f"messages.{i}.content", "must hold a block")
        if role == "user":
            # Results from before an earlier answer are no longer what is asked about.
            self._prompt.results.clear()
            self._texts.clear()
        for j, block in enumerate(blocks):
            self._block(block, role, f"messages.{i}.content.{j}")
        if role == "user":
            if self._open:
                raise self._unanswered(i)
            if self._texts:
                self._prompt.last_user_text = "".join(self._texts)

    def _unanswered(self, i: int) -> VendorError:
        return VendorError(
            "invalid",
            f"Expected toolResult blocks at messages.{i}.content for the following Ids: "
            f"{', '.join(self._open)}",
            param="messages",
        )

    def _block(self, block: Any, role: str, path: str) -> None:
        if not isinstance(block, dict) or len(block) != 1:
            raise wrong(path, "must set exactly one kind of content")
        ((kind, content),) = block.items()
        prompt = self._prompt
        if kind == "cachePoint":
            if not prompt.units:
                raise wrong(path, "a cache point must follow content")
            prompt.units[-1].mark = mark_of(block, path)
        elif kind in ("text", "guardContent"):
            text = text_of(block, path)
            if role == "user":
                self._texts.append(text)
            prompt.add((role, text), tokens.count(text) + tokens.MESSAGE_TOKENS)
        elif kind in _FORMATS and role == "user":
            self._media(kind, content, path)
            prompt.add(repr(content), tokens.MEDIA_TOKENS)
        elif kind == "toolResult" and role == "user":
            text = self._tool_result(content, path)
            prompt.add((role, kind, text), tokens.count(text) + tokens.MESSAGE_TOKENS)
        elif kind == "toolUse" and role == "assistant":
            text = self._tool_use(content, path)
            prompt.add((role, kind, text), tokens.count(text) + tokens.MESSAGE_TOKENS)
        elif kind == "reasoningContent" and role == "assistant":
            text = self._thought(content, path)
            prompt.add((role, kind, text), tokens.count(text))
        else:
            raise wrong(path, f"{kind} is not allowed in a message of the role {role}")

    def _media(self, kind: str, media: Any, path: str) -> None:
        where = f"{path}.{kind}"
        if kind == "image" and not self._vision:
            raise VendorError("invalid", "This model doesn't support the image content block.")
        if not isinstance(media, dict) or media.get("format") not in _FORMATS[kind]:
            raise wrong(f"{where}.format", f"must be one of {', '.join(sorted(_FORMATS[kind]))}")
        if kind == "document":
            self._document_name(media.get("name"), where)
        source = media.get("source")
        size = None
        if not isinstance(source, dict) or len(source) != 1:
            raise wrong(f"{where}.source", "must set exactly one of bytes and s3Location")
        if "bytes" in source:
            try:
                size = len(base64.b64decode(source["bytes"], validate=True))
            except (binascii.Error, ValueError, TypeError):
                raise wrong(f"{where}.source.bytes", "must be base64") from None
            if not size:
                raise wrong(f"{where}.source.bytes", "must not be empty")
        elif "s3Location" not in source:
            raise wrong(f"{where}.source", "must set exactly one of bytes and s3Location")
        media_type = f"{kind}/{media['format']}"
        self._prompt.media.append(Media(_MEDIA_KIND[kind], media_type, size))

    def _document_name(self, name: Any, where: str) -> None:
        if not isinstance(name, str) or not _DOCUMENT_NAME.fullmatch(name) or len(name) > 200:
            raise VendorError(
                "invalid",
                f"The document file name at {where}.name can only contain alphanumeric "
                "characters, whitespace characters, hyphens, parentheses, and square brackets. The "
                "name can't contain more than one consecutive whitespace character.",
            )
        if name in self._document_names:
            raise VendorError("invalid", f"The messages contain duplicate document names: {where}")
        self._document_names.add(name)

    def _tool_result(self, result: Any, path: str) -> str:
        call_id = result.get("toolUseId") if isinstance(result, dict) else None
        if not isinstance(call_id, str) or call_id not in self._open:
            raise VendorError(
                "invalid",
                f"The toolResult block at {path} has no toolUse block in the previous turn.",
                param="messages",
            )
        if not self._prompt.tools:
            raise _undescribed()
        content = result.get("content")
        if not isinstance(content, list):
            raise wrong(f"{path}.toolResult.content", "is required")
        texts = []
        for k, part in enumerate(content):
            where = f"{path}.toolResult.content.{k}"
            if not isinstance(part, dict) or len(part) != 1:
                raise wrong(where, "must set exactly one kind of content")
            ((kind, inner),) = part.items()
            if kind == "json":
                texts.append(orjson.dumps(inner).decode())
            elif kind in _FORMATS and kind != "audio":
                self._media(kind, inner, where)
            else:
                texts.append(text_of(part, where))
        text = "".join(texts)
        shown = f"error: {text}" if result.get("status") == "error" else text
        self._prompt.results.append((self._open.pop(call_id), shown))
        return text

    def _tool_use(self, use: Any, path: str) -> str:
        if not isinstance(use, dict) or not isinstance(use.get("input"), dict):
            raise wrong(f"{path}.toolUse.input", "must be an object")
        call_id, name = use.get("toolUseId"), use.get("name")
        if not isinstance(call_id, str) or not _TOOL_ID.fullmatch(call_id):
            raise wrong(f"{path}.toolUse.toolUseId", "must match [a-zA-Z0-9_.:-]+")
        if not isinstance(name, str) or not name:
            raise wrong(f"{path}.toolUse.name", "is required")
        if not self._prompt.tools:
            raise _undescribed()
        self._open[call_id] = name
        return f"{name} {orjson.dumps(use['input']).decode()}"

    @staticmethod
    def _thought(content: Any, path: str) -> str:
        if isinstance(content, dict) and "redactedContent" in content:
            data = content["redactedContent"]
            if not isinstance(data, str) or not is_token(data):
                raise wrong(path, "Invalid data in redacted reasoning")
            return data
        text = content.get("reasoningText") if isinstance(content, dict) else None
        thinking = text.get("text") if isinstance(text, dict) else None
        if not isinstance(text, dict) or not isinstance(thinking, str):
            raise wrong(f"{path}.reasoningContent.reasoningText.text", "is required")
        if not is_signature_of(str(text.get("signature")), thinking):
            raise wrong(path, "Invalid signature in reasoning")
        return thinking


def _undescribed() -> VendorError:
    return VendorError(
        "invalid",
        "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
    )
