"""Resources with some of everything in them."""

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.admin import v1 as admin
from trunkline_server.rpc.admin.documents import METADATA

_NUMBERS = [0, 1, 2**31 - 1]
_DOUBLES = [0.0, 0.1, 1e-9, 12345.678, 7.0]
_CAPABILITIES = [admin.Capabilities(replace=["a"]), admin.Capabilities(add=["b"], remove=["c"])]
_TEXTS = ["x", "1.25", "\u00f6/\U0001f600", " spaced "]


def scribbled(rng: random.Random, message: Any) -> Any:
    """The message, with some of its fields set to values that a document can hold."""
    for row in message.DESCRIPTOR.fields:
        if row.name in METADATA or rng.random() < 0.4:
            continue
        if row.message_type is not None and row.message_type.GetOptions().map_entry:
            _fill_map(rng, getattr(message, row.name), row.message_type.fields_by_name["value"])
        elif row.message_type is None and row.is_repeated:
            getattr(message, row.name).extend([_scalar(rng, row), _scalar(rng, row)])
        elif row.message_type is None:
            setattr(message, row.name, _scalar(rng, row))
        else:
            part = getattr(message, row.name)
            _fill(rng, part.add() if row.is_repeated else part)
    return message


def _fill_map(rng: random.Random, entries: Any, values: Any) -> None:
    for key in rng.sample("abc", 2):
        if values.message_type is None:
            entries[key] = rng.choice(_TEXTS)
        else:
            _fill(rng, entries[key])


def _fill(rng: random.Random, part: Any) -> None:
    part.SetInParent()
    match part:
        case Duration():
            part.FromNanoseconds(rng.randrange(10**13))
        case Timestamp():
            part.FromMicroseconds(rng.randrange(2**50))
        case Value():
            part.number_value = rng.choice([3, 2.5, -1])
        # These are written in one of two ways.
        case admin.Capabilities():
            part.CopyFrom(rng.choice(_CAPABILITIES))
        case admin.Hedge():
            part.CopyFrom(rng.choice([admin.Hedge(off=True), admin.Hedge(percentile=0.75)]))
        case _:
            scribbled(rng, part)


def _scalar(rng: random.Random, row: Any) -> Any:
    if row.enum_type is not None:
        return rng.choice([value.number for value in row.enum_type.values][1:])
    match row.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return rng.choice(_TEXTS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return rng.choice(_DOUBLES)
        case _:
            return rng.choice(_NUMBERS)
