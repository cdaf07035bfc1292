"""Values as the second level holds them."""

import random
import zlib

import pytest

from tests.unit.cache.samples import answer, events
from trunkline import v1
from trunkline_server.cache import answers, frame
from trunkline_server.cache.frame import CorruptError, Value
from trunkline_server.cache.vectors import vectors_of

DIGEST = bytes(range(32))
LIMIT = 2**20
LONG = "All work and no play makes a dull answer. " * 500


def _stream(*texts: str) -> answers.Answer:
    start, *deltas, end = events(*texts)
    return answers.of_stream(start.start, [each.SerializeToString() for each in deltas], end.end)


def _values() -> list[Value]:
    response = v1.EmbedResponse(
        model="m", provider="p", deployment="d", embeddings=[v1.Embedding(values=[0.5, 1.0])]
    )
    response.cost.total = 12
    return [
        answers.of_response(answer()),
        answers.of_response(answer(LONG)),
        _stream("a", "b"),
        _stream(),
        _stream(*LONG.split()),
        *vectors_of(response, ["text"]),
    ]


@pytest.mark.parametrize(
    "value", _values(), ids=lambda value: f"{type(value).__name__} {value.size}"
)
def test_a_value_comes_back(value: Value) -> None:
    data = frame.encode(DIGEST, value, 1_767_225_600.5)
    assert frame.decode(DIGEST, data, LIMIT) == (value, 1_767_225_600.5)


def test_large_answers_are_compressed_and_small_ones_are_not() -> None:
    large = answers.of_response(answer(LONG))
    assert len(frame.encode(DIGEST, large, 0.0)) < large.size / 4
    small = answers.of_response(answer())
    assert small.body is not None
    assert small.body in frame.encode(DIGEST, small, 0.0)


def test_what_does_not_shrink_is_left_alone() -> None:
    noise = "".join(chr(each) for each in random.Random(1).choices(range(32, 127), k=20_000))
    value = answers.of_response(answer(noise))
    assert value.body is not None
    assert value.body in frame.encode(DIGEST, value, 0.0)


@pytest.mark.parametrize("value", _values()[:4])
def test_no_flipped_bit_goes_unnoticed(value: Value) -> None:
    data = frame.encode(DIGEST, value, 1.0)
    rng = random.Random(5)
    places = range(len(data)) if len(data) < 600 else rng.sample(range(len(data)), 300)
    for place in places:
        broken = bytearray(data)
        broken[place] ^= 1 << rng.randrange(8)
        with pytest.raises(CorruptError):
            frame.decode(DIGEST, bytes(broken), LIMIT)


def test_no_cut_goes_unnoticed() -> None:
    data = frame.encode(DIGEST, answers.of_response(answer()), 1.0)
    for size in range(len(data)):
        with pytest.raises(CorruptError):
            frame.decode(DIGEST, data[:size], LIMIT)


@pytest.mark.parametrize(
    "foreign", [b"", b"0", b'{"answer": 42}', b"TLC\x02" + bytes(200), bytes(99)]
)
def test_what_others_wrote_is_refused(foreign: bytes) -> None:
    with pytest.raises(CorruptError):
        frame.decode(DIGEST, foreign, LIMIT)


def test_a_value_of_another_key_is_refused() -> None:
    data = frame.encode(DIGEST, answers.of_response(answer()), 1.0)
    with pytest.raises(CorruptError, match="another key"):
        frame.decode(bytes(32), data, LIMIT)


def _sealed(kind: int, rest: bytes) -> bytes:
    """A frame that is right but for its contents."""
    checked = DIGEST + (1_000).to_bytes(8, "big") + bytes((kind,)) + rest
    return b"TLC\x01" + zlib.crc32(checked).to_bytes(4, "big") + checked


def test_a_bomb_is_not_inflated() -> None:
    with pytest.raises(CorruptError, match="too large"):
        frame.decode(DIGEST, _sealed(0x81, zlib.compress(bytes(50_000_000))), LIMIT)


@pytest.mark.parametrize(
    ("kind", "rest"),
    [
        (9, b""),
        (1, b""),
        (1, b"\x05ab"),
        (1, b"\x02\xff\xff\x01a"),
        (2, b"\x00\x00"),
        (3, b"\x02\xff\xff\x00\x00"),
        (0x81, b"not deflated"),
    ],
)
def test_wrong_contents_are_refused(kind: int, rest: bytes) -> None:
    with pytest.raises(CorruptError):
        frame.decode(DIGEST, _sealed(kind, rest), LIMIT)
