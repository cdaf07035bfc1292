"""JSON Schema, draft 2020-12, of the JSON form of messages.

The JSON form is protobuf's, https://protobuf.dev/programming-guides/json/, by the contract's own
names; the router takes their camelCase too.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from trunkline_server.contract.comments import comment

Json = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_DEFINITIONS = "#/$defs/"
_INT32, _INT64, _UINT32 = 2**31, 2**63, 2**32

# A 64-bit number is written as a string, since JSON's readers round large numbers.
_LONG: Json = {"type": ["string", "integer"], "format": "int64", "pattern": "^-?[0-9]+$"}
_SCALARS: Mapping[int, Json] = {
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT32: {
        "type": "integer",
        "format": "int32",
        "minimum": -_INT32,
        "maximum": _INT32 - 1,
    },
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": _UINT32 - 1},
    FieldDescriptor.TYPE_INT64: _LONG,
    FieldDescriptor.TYPE_UINT64: {**_LONG, "format": "uint64", "pattern": "^[0-9]+$"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
# The types that protobuf writes in a way of their own.
WELL_KNOWN: Mapping[str, Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {
        "type": "string",
        "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$",
        "description": "Seconds, such as 1.5s.",
    },
    "google.protobuf.FieldMask": {
        "type": "string",
        "description": "Paths of fields, separated by commas.",
    },
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
    },
}


def schema_of(message: Descriptor) -> Json:
    """A JSON Schema of one message; what it is made of stands in `$defs`."""
    return {
        "$schema": DRAFT,
        "$ref": _DEFINITIONS + message.full_name,
        "$defs": definitions([message]),
    }


def schema_of_all(messages: Iterable[Descriptor]) -> Json:
    """A JSON Schema whose `$defs` hold these messages and what they are made of; each may be
    referred to, and the whole permits anything."""
    return {"$schema": DRAFT, "$defs": definitions(messages)}


def definitions(messages: Iterable[Descriptor], prefix: str = _DEFINITIONS) -> dict[str, Json]:
    """The schemas of messages and of all that they are made of, by full name. References to
    others begin with `prefix`."""
    found: dict[str, Json] = {}
    waiting: list[Descriptor | EnumDescriptor] = list(messages)
    while waiting:
        each = waiting.pop()
        if each.full_name in found or each.full_name in WELL_KNOWN:
            continue
        if isinstance(each, EnumDescriptor):
            found[each.full_name] = _enum(each)
        else:
            found[each.full_name] = _message(each, prefix)
            waiting += _parts(each)
    return dict(sorted(found.items()))


def field_schema(field: FieldDescriptor, prefix: str = _DEFINITIONS) -> Json:
    """The schema of a field's value, with its comment."""
    entry = map_entry(field)
    if entry is not None:
        value = entry.fields_by_name["value"]
        schema: Json = {"type": "object", "additionalProperties": _value(value, prefix)}
    elif field.is_repeated:
        schema = {"type": "array", "items": _value(field, prefix)}
    else:
        schema = dict(_value(field, prefix))
    text = comment(field.full_name)
    if text:
        schema["description"] = text
    if field.GetOptions().debug_redact:
        schema["writeOnly"] = True
    return schema


def _value(field: FieldDescriptor, prefix: str) -> Json:
    kind = field.message_type or field.enum_type
    if kind is None:
        return _SCALARS[field.type]
    return WELL_KNOWN.get(kind.full_name, {"$ref": prefix + kind.full_name})


def _message(message: Descriptor, prefix: str) -> Json:
    schema: Json = {"type": "object"}
    text = comment(message.full_name)
    if text:
        schema["description"] = text
    schema["properties"] = {field.name: field_schema(field, prefix) for field in message.fields}
    schema["additionalProperties"] = False
    choices = [
        _at_most_one([field.name for field in oneof.fields])
        for oneof in message.oneofs
        # An optional field is one of one.
        if len(oneof.fields) > 1
    ]
    if choices:
        schema["allOf"] = choices
    return schema


def _at_most_one(names: Iterable[str]) -> Json:
    set_: list[Json] = [{"required": [name]} for name in names]
    return {"oneOf": [*set_, {"not": {"anyOf": set_}}]}


def _enum(enum: EnumDescriptor) -> Json:
    values = [value.name for value in enum.values]
    lines = [comment(enum.full_name)]
    package = enum.full_name
    lines += [f"{name}: {text}" for name in values if (text := comment(f"{package}.{name}"))]
    return {"type": "string", "enum": values, "description": "\n\n".join(filter(None, lines))}


def _parts(message: Descriptor) -> Iterable[Descriptor | EnumDescriptor]:
    fields = chain.from_iterable(
        [field] if (entry := map_entry(field)) is None else entry.fields for field in message.fields
    )
    kinds = (field.message_type or field.enum_type for field in fields)
    return [kind for kind in kinds if kind is not None]


def map_entry(field: FieldDescriptor) -> Descriptor | None:
    """The message of key and value that a map repeats; None for what is no map."""
    kind = field.message_type
    return kind if kind is not None and kind.GetOptions().map_entry else None
