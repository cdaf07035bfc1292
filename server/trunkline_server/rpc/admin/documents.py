"""Messages of the contract as documents of the store, and back, by their descriptors alone.

A document has a message's set fields under the same names, as the configuration file writes
them: a duration is a text such as 1.5s, a time one such as 2027-01-31T00:00:00Z, an enum's
value its last words in lower case, an integer a number whatever its size. What describes the
resource (name, etag, revision, times) is no part of it.

Reading takes all that the file may hold in such a place: 250ms or a number of seconds, a date,
one text where a list stands, a number where an amount is meant. Fields that a message does not
have are passed over, null is unset.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.admin import v1 as admin

M = TypeVar("M", bound=Message)

# The fields that every resource has and no document.
METADATA = frozenset({"name", "etag", "revision", "create_time", "update_time"})

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)\Z")
_SECONDS = {
    unit: Decimal(seconds)
    for unit, seconds in (("ms", "0.001"), ("s", 1), ("m", 60), ("h", 3600), ("d", 86_400))
}
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")
_SAFE_INTEGER = 2**53


class DocumentError(ValueError):
    """A value that cannot stand where it does: the field's path, and what is wrong with it,
    which never quotes the value."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


def to_document(message: Message, path: str = "") -> dict[str, Any]:
    """The document of a message; raises DocumentError for a duration or time out of range."""
    found: dict[str, Any] = {}
    for row, value in message.ListFields():
        here = f"{path}.{row.name}" if path else row.name
        if row.name in METADATA and not path:
            continue
        if _is_map(row):
            of_values = _values_of(row)
            found[row.name] = {
                key: _written(of_values, each, f"{here}.{key}") for key, each in value.items()
            }
        elif row.is_repeated:
            found[row.name] = [
                _written(row, each, f"{here}[{place}]") for place, each in enumerate(value)
            ]
        else:
            found[row.name] = _written(row, value, here)
    return found


def from_document(kind: type[M], document: Mapping[str, Any], path: str = "") -> M:
    """The message of a document; raises DocumentError."""
    message = kind()
    rows: Mapping[str, Any] = kind.DESCRIPTOR.fields_by_name
    for name, value in document.items():
        row = rows.get(name)
        if row is None or value is None or (name in METADATA and not path):
            continue
        here = f"{path}.{name}" if path else name
        if _is_map(row):
            _fill_map(message, row, value, here)
        elif row.is_repeated:
            items = value if isinstance(value, list | tuple) else [value]
            for place, item in enumerate(items):
                _add(message, row, item, f"{here}[{place}]")
        elif row.message_type is not None:
            getattr(message, name).CopyFrom(_read_message(row, value, here))
        else:
            _assign(message, row, _read_scalar(row, value, here), here)
    return message


def _written(row: FieldDescriptor, value: Any, path: str) -> Any:
    if row.message_type is not None:
        special = _WRITERS.get(row.message_type.full_name)
        return special(value, path) if special else to_document(value, path)
    if row.enum_type is not None:
        known = row.enum_type.values_by_number.get(value)
        if known is None or known.number == 0:
            raise DocumentError(path, "is a value that this version does not know")
        return known.name.removeprefix(_prefix(row.enum_type)).lower()
    return value


def _read_message(row: FieldDescriptor, value: Any, path: str) -> Message:
    descriptor: Any = row.message_type
    special = _READERS.get(descriptor.full_name)
    if special is not None:
        return special(value, path)
    if not isinstance(value, Mapping):
        raise DocumentError(path, "is no map")
    return from_document(GetMessageClass(descriptor), value, path)


def _read_scalar(row: FieldDescriptor, value: Any, path: str) -> Any:
    if row.enum_type is not None:
        name = _prefix(row.enum_type) + str(value).upper()
        known = row.enum_type.values_by_name.get(name)
        if known is None:
            raise DocumentError(path, "is a value that this version does not know")
        return known.number
    if row.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            raise DocumentError(path, "is neither true nor false")
        return value
    if row.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
            raise DocumentError(path, "is no text")
        return str(value)
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value) if row.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE else int(value)
    except (TypeError, ValueError):
        raise DocumentError(path, "is no number") from None


def _assign(message: Message, row: FieldDescriptor, value: Any, path: str) -> None:
    try:
        setattr(message, row.name, value)
    except ValueError:
        raise DocumentError(path, "is out of range") from None


def _add(message: Message, row: FieldDescriptor, item: Any, path: str) -> None:
    values = getattr(message, row.name)
    if row.message_type is not None:
        values.append(_read_message(row, item, path))
    else:
        values.append(_read_scalar(row, item, path))


def _fill_map(message: Message, row: FieldDescriptor, value: Any, path: str) -> None:
    if not isinstance(value, Mapping):
        raise DocumentError(path, "is no map")
    of_values = _values_of(row)
    entries = getattr(message, row.name)
    for key, each in value.items():
        if of_values.message_type is not None:
            entries[key].CopyFrom(_read_message(of_values, each, f"{path}.{key}"))
        else:
            entries[key] = _read_scalar(of_values, each, f"{path}.{key}")


def _is_map(row: FieldDescriptor) -> bool:
    return row.message_type is not None and row.message_type.GetOptions().map_entry


def _values_of(row: FieldDescriptor) -> FieldDescriptor:
    """The field that holds the values of a map."""
    entry: Any = row.message_type
    values: FieldDescriptor = entry.fields_by_name["value"]
    return values


def _prefix(enum: EnumDescriptor) -> str:
    """What the names of its values begin with, as buf's lint demands."""
    return _WORDS.sub("_", enum.name).upper() + "_"


def _write_time(value: Any, path: str) -> str:
    try:
        text: str = value.ToJsonString()
    except ValueError:
        raise DocumentError(path, "is out of range") from None
    return text


def _read_duration(value: Any, path: str) -> Duration:
    match = _DURATION.match(value) if isinstance(value, str) else None
    duration = Duration()
    try:
        if match:
            seconds = Decimal(match[1]) * _SECONDS[match[2]]
        elif isinstance(value, bool | str):
            raise TypeError
        else:
            seconds = Decimal(str(value))
        duration.FromNanoseconds(round(seconds * 10**9))
    except (TypeError, ValueError, ArithmeticError):
        raise DocumentError(path, "is no duration") from None
    return duration


def _read_moment(value: Any, path: str) -> Timestamp:
    moment = Timestamp()
    try:
        parsed = datetime.fromisoformat(value)
        moment.FromDatetime(parsed.astimezone(UTC) if parsed.tzinfo else parsed)
    except (TypeError, ValueError, OverflowError):
        raise DocumentError(path, "is no date or time") from None
    return moment


def _write_value(value: Value, _path: str) -> Any:
    plain: Any = json_format.MessageToDict(value)
    if isinstance(plain, float) and plain.is_integer() and abs(plain) < _SAFE_INTEGER:
        return int(plain)
    return plain


def _read_value(value: Any, path: str) -> Value:
    try:
        return json_format.ParseDict(value, Value())
    except json_format.ParseError:
        raise DocumentError(path, "is nothing that JSON can hold") from None


def _write_capabilities(value: admin.Capabilities, path: str) -> Any:
    if not value.replace:
        return to_document(value, path)
    if value.add or value.remove:
        raise DocumentError(path, "holds replace and also add or remove; set one or the other")
    return list(value.replace)


def _read_capabilities(value: Any, path: str) -> admin.Capabilities:
    if isinstance(value, Mapping):
        return from_document(admin.Capabilities, value, path)
    return from_document(admin.Capabilities, {"replace": value}, path)


def _write_hedge(value: admin.Hedge, path: str) -> Any:
    if not value.off:
        return to_document(value, path)
    if len(value.ListFields()) > 1:
        raise DocumentError(path, "is switched off and holds other fields as well")
    return False


def _read_hedge(value: Any, path: str) -> admin.Hedge:
    if isinstance(value, bool):
        return admin.Hedge(off=not value)
    return from_document(admin.Hedge, value, path)


def _write_patterns(value: admin.LabelPatterns, _path: str) -> list[str]:
    return list(value.patterns)


def _read_patterns(value: Any, path: str) -> admin.LabelPatterns:
    return from_document(admin.LabelPatterns, {"patterns": value}, path)


# Messages that a document writes otherwise than as a map of their fields.
_WRITERS: Mapping[str, Callable[[Any, str], Any]] = {
    "google.protobuf.Duration": _write_time,
    "google.protobuf.Timestamp": _write_time,
    "google.protobuf.Value": _write_value,
    "trunkline.admin.v1.Capabilities": _write_capabilities,
    "trunkline.admin.v1.Hedge": _write_hedge,
    "trunkline.admin.v1.LabelPatterns": _write_patterns,
}
_READERS: Mapping[str, Callable[[Any, str], Message]] = {
    "google.protobuf.Duration": _read_duration,
    "google.protobuf.Timestamp": _read_moment,
    "google.protobuf.Value": _read_value,
    "trunkline.admin.v1.Capabilities": _read_capabilities,
    "trunkline.admin.v1.Hedge": _read_hedge,
    "trunkline.admin.v1.LabelPatterns": _read_patterns,
}
