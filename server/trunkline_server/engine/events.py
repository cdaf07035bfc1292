"""The events of a stream on the wire.

Most events of a stream are deltas of a few bytes. Making the event that holds one copies it and
takes several times as long as to write what stands before it.
"""

from functools import lru_cache

from trunkline import v1

_DELTA = v1.StreamGenerateResponse.DESCRIPTOR.fields_by_name["delta"].number
_LENGTH_DELIMITED = 2


def delta_event(delta: v1.StreamDelta) -> bytes:
    """StreamGenerateResponse(delta=delta), serialised."""
    data = delta.SerializeToString()
    return _head(len(data)) + data


@lru_cache(maxsize=1024)
def _head(size: int) -> bytes:
    """What stands before a delta of so many bytes: the field's tag and the size."""
    return _varint(_DELTA << 3 | _LENGTH_DELIMITED) + _varint(size)


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
