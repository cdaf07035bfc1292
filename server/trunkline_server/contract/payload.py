"""What is wrong with a JSON payload that should be a message: every wrong field, by its path.

The rules are those of protobuf's JSON form, https://protobuf.dev/programming-guides/json/; a
payload without findings is one that protobuf's own parser takes.
"""

import difflib
import json
import math
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message_factory import GetMessageClass

from trunkline_server.contract.json_schema import WELL_KNOWN, map_entry
from trunkline_server.errors import Violation, invalid

# What is nested deeper is refused by protobuf's parsers too.
_MAX_DEPTH = 50
_MAX_FLOAT = 3.4028234663852886e38

_RANGES: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
_EXAMPLES = {
    "google.protobuf.Timestamp": "must be a time such as 2030-01-31T12:00:00Z",
    "google.protobuf.Duration": "must be a duration such as 1.5s",
    "google.protobuf.FieldMask": "must be paths of fields, separated by commas",
    "google.protobuf.Struct": "must be a JSON object",
    "google.protobuf.ListValue": "must be a list",
    "google.protobuf.Any": "must be an object with a known @type",
}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOATS = {"NaN", "Infinity", "-Infinity"}
_BASE64_URL = str.maketrans("-_", "+/")


def parse_json(text: str) -> Any:
    """The value that JSON text holds. Raises INVALID_REQUEST, also for a key that is there
    twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise invalid("json_text", "holds an object with a key that is there twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except (json.JSONDecodeError, RecursionError) as error:
        raise invalid("json_text", f"is not JSON: {error}") from None


def findings(value: object, message: Descriptor) -> Iterator[Violation]:
    """What keeps a JSON value from being a message, in the order of the value."""
    yield from _message(value, message, "", 0)


def _message(value: object, message: Descriptor, path: str, depth: int) -> Iterator[Violation]:
    if message.full_name in WELL_KNOWN:
        yield from _well_known(value, message, path)
        return
    if not isinstance(value, dict):
        yield Violation(path, f"must be a JSON object, a {message.name}")
        return
    if depth > _MAX_DEPTH:
        yield Violation(path, f"is nested more than {_MAX_DEPTH} levels deep")
        return
    names = {name: field for field in message.fields for name in (field.name, field.json_name)}
    seen: dict[str, str] = {}
    for name, inner in value.items():
        here = f"{path}.{name}" if path else name
        field = names.get(name)
        if field is None:
            yield Violation(here, f"is no field of {message.name}{_near(name, names)}")
            continue
        if field.name in seen:
            yield Violation(here, f"is there twice, as {seen[field.name]} too")
        seen[field.name] = name
        # A null counts as absent, but where null is a value.
        if inner is None and _full_name(field) != "google.protobuf.Value":
            continue
        oneof = field.containing_oneof
        if oneof is not None:
            if (other := seen.get(f"oneof {oneof.name}")) is not None:
                yield Violation(here, f"cannot be set beside {other}: only one of them can")
            seen[f"oneof {oneof.name}"] = name
        yield from _field(inner, field, here, depth)


def _field(value: object, field: FieldDescriptor, path: str, depth: int) -> Iterator[Violation]:
    entry = map_entry(field)
    if entry is not None:
        if not isinstance(value, dict):
            yield Violation(path, "must be a JSON object")
            return
        inner = entry.fields_by_name["value"]
        for key, each in value.items():
            yield from _element(each, inner, f"{path}[{key!r}]", depth)
    elif field.is_repeated:
        if not isinstance(value, list):
            yield Violation(path, "must be a list")
            return
        for i, each in enumerate(value):
            yield from _element(each, field, f"{path}[{i}]", depth)
    else:
        yield from _single(value, field, path, depth)


def _element(value: object, field: FieldDescriptor, path: str, depth: int) -> Iterator[Violation]:
    if value is None and _full_name(field) != "google.protobuf.Value":
        yield Violation(path, "must not be null")
    else:
        yield from _single(value, field, path, depth)


def _single(value: object, field: FieldDescriptor, path: str, depth: int) -> Iterator[Violation]:
    if field.message_type is not None:
        yield from _message(value, field.message_type, path, depth + 1)
    elif field.enum_type is not None:
        if wrong := _wrong_enum(value, field.enum_type):
            yield Violation(path, wrong)
    elif wrong := _CHECKS[field.type](value, field.type):
        yield Violation(path, wrong)


def _wrong_enum(value: object, enum: EnumDescriptor) -> str:
    if isinstance(value, str):
        names = enum.values_by_name
        return "" if value in names else f"is no {enum.name}{_near(value, names)}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"must be the name of a {enum.name}"
    low, high = _RANGES[FieldDescriptor.TYPE_INT32]
    whole = float(value).is_integer() and low <= value <= high
    return "" if whole else f"must be the name of a {enum.name}"


def _wrong_integer(value: object, kind: int) -> str:
    low, high = _RANGES[kind]
    if isinstance(value, str) and _INTEGER.fullmatch(value) and len(value) <= len(str(low)) + 1:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return "must be a whole number"
    return "" if low <= value <= high else f"must be from {low} to {high}"


def _wrong_float(value: object, kind: int) -> str:
    if isinstance(value, str) and value not in _FLOATS:
        try:
            value = float(value)
        except ValueError:
            return "must be a number"
        if not math.isfinite(value):
            return "must be a number"
    if isinstance(value, str):
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "must be a number"
    if not math.isfinite(value):
        return "must be a number; write NaN and Infinity as strings"
    most = _MAX_FLOAT if kind == FieldDescriptor.TYPE_FLOAT else 1.7976931348623157e308
    return "" if abs(value) <= most else "is too large"


def _wrong_bool(value: object, _kind: int) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def _wrong_string(value: object, _kind: int) -> str:
    if not isinstance(value, str):
        return "must be a string"
    # JSON can spell halves of characters, which UTF-8 cannot.
    return "" if value.isascii() or _is_text(value) else "holds half a surrogate pair"


def _wrong_bytes(value: object, _kind: int) -> str:
    if not isinstance(value, str):
        return "must be a string in base64"
    text = value.translate(_BASE64_URL)
    try:
        b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (Base64Error, ValueError):
        return "is not base64"
    return ""


_CHECKS: Mapping[int, Callable[[object, int], str]] = {
    **dict.fromkeys(_RANGES, _wrong_integer),
    FieldDescriptor.TYPE_DOUBLE: _wrong_float,
    FieldDescriptor.TYPE_FLOAT: _wrong_float,
    FieldDescriptor.TYPE_BOOL: _wrong_bool,
    FieldDescriptor.TYPE_STRING: _wrong_string,
    FieldDescriptor.TYPE_BYTES: _wrong_bytes,
}


def _well_known(value: Any, message: Descriptor, path: str) -> Iterator[Violation]:
    try:
        ParseDict(value, GetMessageClass(message)())
    except (ParseError, ValueError, TypeError, AttributeError, OverflowError):
        # Its parser raises whatever it stumbles over, and quotes the value.
        yield Violation(path, _EXAMPLES.get(message.full_name, f"is no {message.name}"))


def _full_name(field: FieldDescriptor) -> str:
    kind = field.message_type
    return "" if kind is None else str(kind.full_name)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _near(name: str, names: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name[:64], list(names), 1)
    return f"; did you mean {near[0]}?" if near else ""
