"""Whatever the wire brings, validation passes it or refuses it, and comes to an end."""

import functools
import math
import random
import time
from typing import Any, cast

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from tests.unit.rpc.test_validation import GENERATE, VALID, violations
from trunkline import v1
from trunkline_server.rpc.validation import validate_generate

REQUESTS_PER_SEED = 2_500
SEEDS = range(4)

ODD: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.CPPTYPE_STRING: ("", "c1", "weather", "é\n\x00", "x" * 300, "{}", "[", "gs:"),
    FieldDescriptor.CPPTYPE_BOOL: (True, False),
    FieldDescriptor.CPPTYPE_DOUBLE: (math.nan, math.inf, -math.inf, -0.0, 1.0, 5e-324, 1e308),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 2, 3, 4, 77, -1),
    FieldDescriptor.CPPTYPE_INT32: (0, 1, -1, 2**31 - 1, -(2**31)),
    FieldDescriptor.CPPTYPE_INT64: (0, 1, -1, 2**63 - 1, -(2**63)),
}
ODD_BYTES = (b"", b"x", b"x" * 1000)


def mutate(request: Message, rng: random.Random) -> None:
    """Changes, adds or drops one field, somewhere down in the request."""
    message = request
    while True:
        field = cast("FieldDescriptor", rng.choice(list(message.DESCRIPTOR.fields)))
        value = getattr(message, field.name)
        kind = field.message_type
        if kind is None:
            break
        if kind.GetOptions().map_entry or kind.full_name == "google.protobuf.Struct":
            message.ClearField(field.name)
            return
        if not field.is_repeated:
            value.SetInParent()
            message = value
        elif not value or rng.random() < 0.2:
            value.add()
            return
        elif rng.random() < 0.2:
            del value[rng.randrange(len(value))]
            return
        else:
            message = rng.choice(value)
        if not message.DESCRIPTOR.fields:
            return
    odd = ODD_BYTES if field.type == FieldDescriptor.TYPE_BYTES else ODD[field.cpp_type]
    if field.is_repeated:
        value.append(rng.choice(odd))
    else:
        setattr(message, field.name, rng.choice(odd))


def odd_wire(samples: list[v1.GenerateRequest], rng: random.Random) -> bytes:
    """Random bytes, or a known request with changed fields or with damaged bytes."""
    way = rng.random()
    if way < 0.2:
        return rng.randbytes(rng.randrange(60))
    request = v1.GenerateRequest()
    request.CopyFrom(rng.choice(samples))
    if way < 0.8:
        for _ in range(rng.randrange(6)):
            mutate(request, rng)
        return request.SerializeToString()
    wire = bytearray(request.SerializeToString())
    for _ in range(rng.randrange(4) if wire else 0):
        wire[rng.randrange(len(wire))] = rng.randrange(256)
    return bytes(wire)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_comes_is_passed_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    known = [*VALID.values(), *(request for request, _ in GENERATE.values())]
    samples = [request for request in known if request.ByteSize() < 10_000]
    checked = refused = 0
    started = time.process_time()
    while checked < REQUESTS_PER_SEED:
        try:
            request = v1.GenerateRequest.FromString(odd_wire(samples, rng))
        except DecodeError:
            continue
        checked += 1
        # `violations` lets everything but TrunklineError through.
        refused += bool(violations(functools.partial(validate_generate, request)))
    assert 0 < refused < checked
    # A hundred times what it takes; a check that runs away takes longer.
    assert time.process_time() - started < 30
