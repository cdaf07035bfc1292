"""Answers as bytes: what every call gets alike, with what is each call's own put around it.

Parts of a serialised protobuf message may be put together: fields may stand in any order. So a
kept answer is the serialised message without the fields of its call, and each hit adds its own
without parsing. https://protobuf.dev/programming-guides/encoding/ describes the format.
"""

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor

from trunkline import v1

_VARINT, _LENGTH = 0, 2


def varint(value: int) -> bytes:
    """A whole number, zero or more, as protobuf writes it."""
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(kind: Descriptor, name: str, wire_type: int) -> bytes:
    return varint(kind.fields_by_name[name].number << 3 | wire_type)


_HIT = varint(v1.CACHE_STATUS_HIT)
_KINDS = (v1.CACHE_HIT_KIND_MEMORY, v1.CACHE_HIT_KIND_SHARED, v1.CACHE_HIT_KIND_JOINED)
_TOTAL_US = _tag(v1.Timing.DESCRIPTOR, "total_us", _VARINT)
_FIRST_TOKEN_US = _tag(v1.Timing.DESCRIPTOR, "first_token_us", _VARINT)


class _Marks:
    """The constant bytes around the fields that differ between calls of one message type."""

    def __init__(self, kind: Descriptor) -> None:
        self.id = _tag(kind, "id", _LENGTH)
        self.end = _ends(kind)


def _ends(kind: Descriptor) -> dict[int, bytes]:
    """What stands between a body and the length of its timing, by where the answer came from."""
    status = _tag(kind, "cache_status", _VARINT) + _HIT
    where = _tag(kind, "cache_hit_kind", _VARINT)
    timing = _tag(kind, "timing", _LENGTH)
    return {each: status + where + varint(each) + timing for each in _KINDS}


_GENERATE = _Marks(v1.GenerateResponse.DESCRIPTOR)
_EMBED = _Marks(v1.EmbedResponse.DESCRIPTOR)
_START_ID = _tag(v1.StreamStart.DESCRIPTOR, "id", _LENGTH)
_START_STATUS = _tag(v1.StreamStart.DESCRIPTOR, "cache_status", _VARINT) + _HIT
_STREAM_ENDS = _ends(v1.StreamEnd.DESCRIPTOR)
_STREAM = v1.StreamGenerateResponse.DESCRIPTOR
_EVENT_START = _tag(_STREAM, "start", _LENGTH)
_EVENT_END = _tag(_STREAM, "end", _LENGTH)
_VECTOR = _tag(v1.EmbedResponse.DESCRIPTOR, "embeddings", _LENGTH)


def generate_body(response: v1.GenerateResponse, saved: v1.Cost) -> bytes:
    """What of an answer every call gets alike. A hit makes no attempt, costs nothing, and saves
    what the answer cost."""
    body = v1.GenerateResponse()
    body.CopyFrom(response)
    for name in ("id", "attempts", "cache_status", "cache_hit_kind", "timing"):
        body.ClearField(name)
    _free(body, saved)
    return body.SerializeToString()


def generate_hit(
    body: bytes, call_id: str, total_us: int, kind: v1.CacheHitKind.ValueType
) -> bytes:
    """The serialised GenerateResponse of one hit."""
    return _around(_GENERATE, call_id, body, total_us, kind)


def _free(body: v1.GenerateResponse | v1.StreamEnd, saved: v1.Cost) -> None:
    body.cost.Clear()
    body.cost.SetInParent()
    body.saved.CopyFrom(saved)


def stream_start(start: v1.StreamStart) -> bytes:
    """What of a start every call gets alike."""
    body = v1.StreamStart()
    body.CopyFrom(start)
    body.ClearField("id")
    body.ClearField("cache_status")
    return body.SerializeToString()


def stream_end(end: v1.StreamEnd, saved: v1.Cost) -> bytes:
    """What of an end every call gets alike, as `generate_body`."""
    body = v1.StreamEnd()
    body.CopyFrom(end)
    for name in ("attempts", "cache_status", "cache_hit_kind", "timing"):
        body.ClearField(name)
    _free(body, saved)
    return body.SerializeToString()


def start_hit(body: bytes, call_id: str) -> bytes:
    """The serialised start event of one hit."""
    name = call_id.encode()
    inner = b"".join((_START_ID, varint(len(name)), name, body, _START_STATUS))
    return b"".join((_EVENT_START, varint(len(inner)), inner))


def end_hit(
    body: bytes, total_us: int, first_token_us: int, kind: v1.CacheHitKind.ValueType
) -> bytes:
    """The serialised end event of one hit."""
    timing = _TOTAL_US + varint(total_us)
    if first_token_us:
        timing += _FIRST_TOKEN_US + varint(first_token_us)
    inner = b"".join((body, _STREAM_ENDS[kind], varint(len(timing)), timing))
    return b"".join((_EVENT_END, varint(len(inner)), inner))


def embed_head(response: v1.EmbedResponse) -> bytes:
    """What of an embedding's answer does not depend on the inputs: who answered."""
    return v1.EmbedResponse(
        model=response.model,
        provider=response.provider,
        deployment=response.deployment,
        decision=response.decision,
    ).SerializeToString()


def vector_frame(embedding: v1.Embedding) -> bytes:
    """One vector as it stands in a serialised EmbedResponse."""
    inner = embedding.SerializeToString()
    return b"".join((_VECTOR, varint(len(inner)), inner))


def embed_hit(
    head: bytes,
    frames: list[bytes],
    call_id: str,
    total_us: int,
    *,
    kind: v1.CacheHitKind.ValueType,
    saved: v1.Cost,
) -> bytes:
    """The serialised EmbedResponse of a call all of whose vectors were kept."""
    tail = v1.EmbedResponse(cost=v1.Cost(), saved=saved, cached_inputs=len(frames))
    body = b"".join((head, *frames, tail.SerializeToString()))
    return _around(_EMBED, call_id, body, total_us, kind)


def delimited(pieces: list[bytes]) -> bytes:
    """Pieces one behind the other, each after its length."""
    return b"".join([part for piece in pieces for part in (varint(len(piece)), piece)])


def split(joined: bytes) -> Iterator[bytes]:
    """The pieces that `delimited` joined. Raises ValueError for anything else."""
    position, end = 0, len(joined)
    while position < end:
        size = shift = 0
        while True:
            if position >= end or shift > 56:
                raise ValueError("a length is cut off")
            byte = joined[position]
            position += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if size > end - position:
            raise ValueError("a piece is cut off")
        yield joined[position : position + size]
        position += size


def _around(
    marks: _Marks, call_id: str, body: bytes, total_us: int, kind: v1.CacheHitKind.ValueType
) -> bytes:
    name = call_id.encode()
    timing = _TOTAL_US + varint(total_us)
    return b"".join(
        (marks.id, varint(len(name)), name, body, marks.end[kind], varint(len(timing)), timing)
    )
