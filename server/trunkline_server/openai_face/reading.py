"""Reads OpenAI's JSON with its types checked; whatever is wrong is named by its path."""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from trunkline_server.errors import TrunklineError, invalid

Json = dict[str, Any]

INT32 = 2**31 - 1
INT64 = 2**63 - 1


class Fields:
    """The fields of a JSON object at a path. A field that is null counts as absent.

    Every method that reads raises INVALID_REQUEST, naming the field by its path.
    """

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, dict):
            raise invalid(path or "(request)", "must be a JSON object")
        self._value: Json = value
        self.path = path

    def at(self, name: str) -> str:
        """The path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def names(self) -> Sequence[str]:
        """The fields that are there."""
        return [name for name, value in self._value.items() if value is not None]

    def raw(self, name: str) -> Any:
        """A field as it is; None if it is absent."""
        return self._value.get(name)

    def required(self, name: str) -> Any:
        """A field that must be there."""
        value = self._value.get(name)
        if value is None:
            raise invalid(self.at(name), "is required")
        return value

    def only(self, *known: str) -> None:
        """Refuses fields that are not known."""
        for name in self.names():
            if name not in known:
                raise invalid(self.at(name), "is not known here")

    def text(self, name: str) -> str:
        """A string; empty if it is absent."""
        value = self._value.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise invalid(self.at(name), "must be a string")
        return value

    def flag(self, name: str) -> bool | None:
        """A boolean."""
        value = self._value.get(name)
        if value is not None and not isinstance(value, bool):
            raise invalid(self.at(name), "must be true or false")
        return value

    def number(self, name: str) -> float | None:
        """A number."""
        value = self._value.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid(self.at(name), "must be a number")
        return float(value)

    def integer(self, name: str, most: int = INT32) -> int | None:
        """A whole number from -most - 1 to most."""
        value = self._value.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid(self.at(name), "must be a whole number")
        if not -most - 1 <= value <= most:
            raise invalid(self.at(name), "is out of range")
        return value

    def object(self, name: str) -> "Fields | None":
        """An object."""
        value = self._value.get(name)
        return None if value is None else Fields(value, self.at(name))

    def list(self, name: str) -> Sequence[Any]:
        """A list; empty if it is absent."""
        value = self._value.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise invalid(self.at(name), "must be a list")
        return value

    def objects(self, name: str) -> "Sequence[Fields]":
        """A list of objects."""
        path = self.at(name)
        return [Fields(each, f"{path}[{i}]") for i, each in enumerate(self.list(name))]

    def word(self, name: str, known: Mapping[str, Any]) -> Any:
        """What one of some words stands for; None if the field is absent."""
        value = self._value.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or value not in known:
            raise invalid(self.at(name), f"must be one of {', '.join(known)}")
        return known[value]


def parse_body(body: bytes) -> Fields:
    """The object that a request's body holds. Raises INVALID_REQUEST."""
    try:
        return Fields(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise invalid("(request)", f"is not JSON: {error}") from None


def from_base64(text: str, path: str) -> bytes:
    """The bytes. Raises INVALID_REQUEST."""
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise invalid(path, "is not base64") from None


def from_data_url(url: str, path: str) -> tuple[str, bytes] | None:
    """The media type and the bytes of a base64 data URL; None for another URL. Raises
    INVALID_REQUEST."""
    if url[:5].lower() != "data:":
        return None
    head, comma, text = url[5:].partition(",")
    media_type, _, encoding = head.partition(";")
    if not comma or not encoding.endswith("base64"):
        raise invalid(path, "must be a data URL in base64")
    return media_type, from_base64(text, path)


def json_text(value: object) -> str:
    """A value as JSON text, its keys in their order."""
    return orjson.dumps(value).decode()


def unsupported(path: str, instead: str = "") -> TrunklineError:
    """The error for what OpenAI has and the router does not."""
    return invalid(path, f"is not supported{': ' + instead if instead else ''}")
