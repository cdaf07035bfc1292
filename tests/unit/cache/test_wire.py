"""Answers as bytes, checked against what protobuf itself reads and writes."""

import contextlib
import random

import pytest

from tests.unit.cache.samples import answer, events
from trunkline import v1
from trunkline_server.cache import wire

SAVED = v1.Cost(input=70, output=60, total=130, estimated=True)
MEMORY, SHARED = v1.CACHE_HIT_KIND_MEMORY, v1.CACHE_HIT_KIND_SHARED


def _expected(call_id: str, total_us: int) -> v1.GenerateResponse:
    expected = answer()
    expected.saved.CopyFrom(SAVED)
    expected.cache_hit_kind = SHARED
    expected.id = call_id
    expected.cost.CopyFrom(v1.Cost())
    del expected.attempts[:]
    expected.cache_status = v1.CACHE_STATUS_HIT
    expected.timing.CopyFrom(v1.Timing(total_us=total_us))
    return expected


@pytest.mark.parametrize("size", [1, 12, 127, 128, 300])
@pytest.mark.parametrize("total_us", [0, 1, 127, 128, 16_383, 16_384, 2**40])
def test_a_hit_is_what_protobuf_would_write(size: int, total_us: int) -> None:
    call_id = "i" * size
    raw = wire.generate_hit(wire.generate_body(answer(), SAVED), call_id, total_us, SHARED)
    response = v1.GenerateResponse.FromString(raw)
    expected = _expected(call_id, total_us)
    assert response == expected
    assert response.HasField("cost")
    assert raw.startswith(b"\n")


def test_the_answer_itself_is_left_as_it_was() -> None:
    response = answer()
    wire.generate_body(response, SAVED)
    assert response == answer()


@pytest.mark.parametrize("size", [1, 128])
def test_start_and_end_of_a_stream(size: int) -> None:
    start, end = events()[0].start, events()[-1].end
    told = v1.StreamGenerateResponse.FromString(
        wire.start_hit(wire.stream_start(start), "n" * size)
    )
    start.id = "n" * size
    start.cache_status = v1.CACHE_STATUS_HIT
    assert told == v1.StreamGenerateResponse(start=start)
    for first_token_us in (0, 500):
        told = v1.StreamGenerateResponse.FromString(
            wire.end_hit(wire.stream_end(end, SAVED), 70_000, first_token_us, MEMORY)
        )
        expected = v1.StreamEnd()
        expected.CopyFrom(end)
        del expected.attempts[:]
        expected.cost.CopyFrom(v1.Cost())
        expected.saved.CopyFrom(SAVED)
        expected.cache_status = v1.CACHE_STATUS_HIT
        expected.cache_hit_kind = MEMORY
        expected.timing.CopyFrom(v1.Timing(total_us=70_000, first_token_us=first_token_us))
        assert told == v1.StreamGenerateResponse(end=expected)


def test_vectors_put_together() -> None:
    response = v1.EmbedResponse(
        id="old",
        model="m",
        provider="p",
        deployment="d",
        embeddings=[v1.Embedding(values=[1.5, -2.0]), v1.Embedding(values=[0.25] * 100)],
        usage=v1.Usage(input_tokens=5),
        cost=v1.Cost(total=7),
        decision=v1.Decision(provider="p"),
        cache_status=v1.CACHE_STATUS_MISS,
    )
    frames = [wire.vector_frame(each) for each in response.embeddings]
    told = v1.EmbedResponse.FromString(
        wire.embed_hit(
            wire.embed_head(response),
            [frames[1], frames[0]],
            "new",
            300,
            kind=SHARED,
            saved=SAVED,
        )
    )
    assert told == v1.EmbedResponse(
        id="new",
        model="m",
        provider="p",
        deployment="d",
        embeddings=[response.embeddings[1], response.embeddings[0]],
        cost=v1.Cost(),
        decision=v1.Decision(provider="p"),
        cache_status=v1.CACHE_STATUS_HIT,
        timing=v1.Timing(total_us=300),
        cache_hit_kind=SHARED,
        saved=SAVED,
        cached_inputs=2,
    )


def test_pieces_come_back_as_they_were() -> None:
    rng = random.Random(7)
    for _ in range(200):
        pieces = [
            rng.randbytes(rng.choice([0, 1, 127, 128, 20_000])) for _ in range(rng.randint(0, 5))
        ]
        joined = wire.delimited(pieces)
        assert list(wire.split(joined)) == pieces
        read = []
        with contextlib.suppress(ValueError):
            for piece in wire.split(joined[: rng.randrange(len(joined) + 1)]):
                read.append(piece)  # noqa: PERF402  # What came before the cut counts.
        assert read == pieces[: len(read)]


@pytest.mark.parametrize("broken", [b"\x80", b"\x05abc", b"\xff" * 12])
def test_broken_pieces_are_refused(broken: bytes) -> None:
    with pytest.raises(ValueError, match="cut off"):
        list(wire.split(broken))
