"""Reads and checks the contents of a request of the Gemini dialect."""

from functools import lru_cache
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Media, Prompt
from trunkline_server.simulator.known_fields import GEMINI_PART
from trunkline_server.simulator.signature import decode_base64, is_token
from trunkline_server.simulator.vendor_error import VendorError

Fields = dict[str, Any]


@lru_cache(maxsize=1024)
def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in rest)


def wrong(path: str, message: str) -> VendorError:
    return VendorError("invalid", message, param=path)


def fields(value: Any, path: str, allowed: frozenset[str] | None = None) -> Fields:
    """The object's fields by their camelCase names. Raises VendorError for an unknown name."""
    if not isinstance(value, dict):
        raise wrong(path, f"Invalid value at '{path}': expected an object.")
    named = {_camel(name): item for name, item in value.items()}
    if allowed is not None and not named.keys() <= allowed:
        name = next(name for name in value if _camel(name) not in allowed)
        where = f" at '{path}'" if path else ""
        raise wrong(
            path,
            f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.',
        )
    return named


def texts_of(content: Any, path: str) -> list[str]:
    """The texts of a content that may hold nothing but text."""
    parts = fields(content, path).get("parts")
    parts = [parts] if isinstance(parts, dict) else parts
    if not isinstance(parts, list):
        raise wrong(path, f"Invalid value at '{path}': parts are missing.")
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return [text for text in texts if isinstance(text, str)]


class Contents:
    """Reads the contents of one request into its prompt."""

    def __init__(self, prompt: Prompt, *, vision: bool) -> None:
        self._prompt = prompt
        self._vision = vision
        self._calls: list[str] = []
        self._responses: list[tuple[str, str]] = []
        self._texts: list[str] = []

    def read(self, contents: Any) -> None:
        """Raises VendorError for what the vendor refuses."""
        if isinstance(contents, dict):
            contents = [contents]
        if not contents or not isinstance(contents, list):
            raise wrong("contents", "* GenerateContentRequest.contents: contents is not specified")
        self._prompt.message_count = len(contents)
        previous = ""
        waiting: list[str] = []
        for i, content in enumerate(contents):
            path = f"contents[{i}]"
            turn = fields(content, path)
            role = turn.get("role") or "user"
            if role not in ("user", "model", "function"):
                raise wrong(f"{path}.role", "Please use a valid role: user, model.")
            self._calls, self._responses, self._texts = [], [], []
            self._parts(turn.get("parts"), role, path)
            self._check_order(previous, waiting, path)
            waiting = self._calls
            if role != "model":
                self._prompt.results = self._responses
                if self._texts:
                    self._prompt.last_user_text = "".join(self._texts)
            previous = role

    def _check_order(self, previous: str, waiting: list[str], path: str) -> None:
        if len(waiting) != len(self._responses):
            if not waiting:
                message = "function response turn comes immediately after a function call turn."
            else:
                message = (
                    "the number of function response parts is equal to the number of function "
                    "call parts of the function call turn."
                )
            raise wrong(path, f"Please ensure that {message}")
        if self._calls and previous not in ("user", "function"):
            raise wrong(
                path,
                "Please ensure that function call turn comes immediately after a user turn or "
                "after a function response turn.",
            )

    def _parts(self, parts: Any, role: str, path: str) -> None:
        parts = [parts] if isinstance(parts, dict) else parts
        if not parts or not isinstance(parts, list):
            raise wrong(
                f"{path}.parts",
                f"* GenerateContentRequest.{path}.parts: contents.parts must not be empty.",
            )
        for j, one in enumerate(parts):
            self._part(fields(one, f"{path}.parts[{j}]", GEMINI_PART), role, f"{path}.parts[{j}]")

    def _part(self, part: Fields, role: str, path: str) -> None:
        prompt = self._prompt
        signature = part.get("thoughtSignature")
        if signature is not None and not (isinstance(signature, str) and is_token(signature)):
            raise wrong(path, "Thought signature is not valid.")
        if (text := part.get("text")) is not None:
            if not isinstance(text, str):
                raise wrong(f"{path}.text", f"Invalid value at '{path}.text' (TYPE_STRING)")
            if role != "model":
                self._texts.append(text)
            prompt.add((role, text), tokens.count(text) + tokens.MESSAGE_TOKENS)
        elif "inlineData" in part or "fileData" in part:
            prompt.media.append(self._media(part, path))
            prompt.add(repr(part), tokens.MEDIA_TOKENS)
        elif "functionCall" in part and role == "model":
            call = fields(part["functionCall"], f"{path}.function_call")
            self._calls.append(self._name(call, f"{path}.function_call"))
            self._add_json(role, call)
        elif "functionResponse" in part and role != "model":
            response = fields(part["functionResponse"], f"{path}.function_response")
            name = self._name(response, f"{path}.function_response")
            shown = orjson.dumps(response.get("response")).decode()
            self._responses.append((name, shown))
            self._add_json(role, response)
        else:
            raise wrong(
                path,
                f"* GenerateContentRequest.{path}.data: required oneof field 'data' must have "
                "one initialized field",
            )

    def _add_json(self, role: str, value: Fields) -> None:
        text = orjson.dumps(value).decode()
        self._prompt.add((role, text), tokens.count(text) + tokens.MESSAGE_TOKENS)

    @staticmethod
    def _name(value: Fields, path: str) -> str:
        name = value.get("name")
        if not isinstance(name, str) or not name:
            raise wrong(
                f"{path}.name", f"* GenerateContentRequest.{path}.name: Name cannot be empty."
            )
        return name

    def _media(self, part: Fields, path: str) -> Media:
        kind = "inline_data" if "inlineData" in part else "file_data"
        data = fields(part[_camel(kind)], f"{path}.{kind}")
        media_type = data.get("mimeType")
        if not isinstance(media_type, str | None) or (kind == "inline_data" and not media_type):
            raise wrong(f"{path}.{kind}", "Unable to determine the mime type of inline data.")
        family = (media_type or "").partition("/")[0]
        family = family if family in ("image", "audio") else "file"
        if family == "image" and not self._vision:
            raise wrong(path, "Image input modality is not enabled for this model")
        if kind == "file_data":
            if not isinstance(data.get("fileUri"), str):
                raise wrong(f"{path}.file_data", "Invalid or unsupported file uri.")
            return Media(family, media_type or "", None)
        try:
            size = len(decode_base64(str(data.get("data") or "")))
        except ValueError:
            raise wrong(
                f"{path}.inline_data.data",
                f"Invalid value at '{path}.inline_data.data' (TYPE_BYTES), Base64 decoding failed.",
            ) from None
        return Media(family, str(media_type), size)
