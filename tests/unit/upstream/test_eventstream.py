"""The event-stream parser against botocore's, however the stream is cut, and on damaged bytes."""

import random
import struct
import zlib
from collections.abc import Callable

import pytest
from botocore.eventstream import EventStreamBuffer

from tests.support.corpus import exchanges
from tests.support.eventstream import event, exception, message, read_events
from tests.support.splits import at_random, byte_by_byte, every_way
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream.eventstream import EventStreamParser

STREAM = b"".join(
    [
        event("messageStart", b'{"role":"assistant"}'),
        event("contentBlockDelta", b""),
        event("contentBlockDelta", b'{"delta":{"text":"' + b"x" * 5000 + b'"}}'),
        message({":message-type": "event", ":event-type": "other", "n": 7, "yes": True}, b"{}"),
    ]
)


def parse(pieces: list[bytes]) -> list[tuple[str, bytes]]:
    parser = EventStreamParser()
    events = [found for piece in pieces for found in parser.feed(piece)]
    return [*events, *parser.finish()]


def failure(pieces: list[bytes]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        parse(pieces)
    return caught.value


def test_every_cut_gives_what_botocore_reads() -> None:
    expected = read_events(STREAM)
    assert [name for name, _ in expected] == [
        "messageStart",
        "contentBlockDelta",
        "contentBlockDelta",
        "other",
    ]
    for way, pieces in every_way(STREAM):
        assert parse(pieces) == expected, way


def test_recorded_streams_survive_every_cut() -> None:
    found = [
        exchange
        for exchange in exchanges()
        if "eventstream" in exchange.headers.get("content-type", "")
    ]
    assert len(found) >= 80
    for exchange in found:
        expected = read_events(exchange.response)
        assert expected
        for way, pieces in every_way(exchange.response):
            assert parse(pieces) == expected, (exchange.origin, way)


def test_events_come_as_soon_as_they_are_whole() -> None:
    parser = EventStreamParser()
    first, second = event("a", b"1"), event("b", b"2")
    assert parser.feed(first + second[:5]) == [("a", b"1")]
    assert parser.feed(second[5:-1]) == []
    assert parser.feed(second[-1:]) == [("b", b"2")]
    assert parser.finish() == []


def test_exceptions_and_errors_are_told_from_events() -> None:
    stream = exception("throttlingException", b'{"message":"slow down"}') + message(
        {":message-type": "error", ":error-code": "InternalError", ":error-message": "it broke"}
    )
    assert parse([stream]) == [
        ("exception:throttlingException", b'{"message":"slow down"}'),
        ("error:InternalError", b'{"message":"it broke"}'),
    ]


def test_messages_of_unknown_types_are_passed_over() -> None:
    assert parse([message({":message-type": "news", ":event-type": "x"}, b"{}")]) == []


@pytest.mark.parametrize("cut", [byte_by_byte, lambda data: at_random(data, 4)])
def test_an_end_inside_a_message_is_a_cut_stream(cut: Callable[[bytes], list[bytes]]) -> None:
    error = failure(cut(STREAM[:-1]))
    assert error.reason == v1.ERROR_REASON_STREAM_INTERRUPTED


def test_no_changed_byte_goes_unseen() -> None:
    """Whatever single byte is changed: botocore and the parser agree that the message is bad."""
    whole = event("contentBlockDelta", b'{"delta":{"text":"hello"}}')
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x20
        error = failure([bytes(damaged)])
        assert error.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, at
        assert error.http_status == 200


def test_damage_is_met_as_botocore_meets_it() -> None:
    """Never another exception; and what passes has passed botocore's checks too."""
    rng = random.Random(11)
    outcomes = {True: 0, False: 0}
    for _ in range(600):
        damaged = bytearray(STREAM)
        at = rng.randrange(len(damaged))
        damaged[at : at + rng.choice((0, 1, 2))] = rng.randbytes(rng.choice((0, 1, 3)))
        try:
            events = parse(at_random(bytes(damaged), rng.randrange(1000)))
        except UpstreamError:
            outcomes[False] += 1
            continue
        outcomes[True] += 1
        buffer = EventStreamBuffer()
        buffer.add_data(bytes(damaged))
        assert [payload for _, payload in events] == [each.payload for each in buffer]
    assert all(outcomes.values())


@pytest.mark.parametrize(
    "prelude",
    [(17, 2), (15, 0), (2**31, 4), (200_000, 140_000)],
)
def test_impossible_lengths(prelude: tuple[int, int]) -> None:
    head = struct.pack(">II", *prelude)
    error = failure([head + struct.pack(">I", zlib.crc32(head))])
    assert error.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


def test_a_message_beyond_the_bound_is_refused_before_it_is_held() -> None:
    parser = EventStreamParser(max_message_bytes=100)
    with pytest.raises(UpstreamError) as caught:
        parser.feed(event("a", b"x" * 100)[:12])
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


@pytest.mark.parametrize(
    "headers",
    [b"\x05abc", b"\x01a\x63", b"\x01a\x07\x00\x09abc", b"\x01a", b"\x01\xff\x07\x00\x01a"],
)
def test_headers_that_make_no_sense(headers: bytes) -> None:
    prelude = struct.pack(">II", 16 + len(headers), len(headers))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers
    error = failure([body + struct.pack(">I", zlib.crc32(body))])
    assert "headers" in error.message


def test_a_long_message_in_many_pieces_is_joined_once() -> None:
    """Work grows with the bytes, not with their square: the pieces are kept, and joined once."""
    long = event("contentBlockDelta", b"x" * 200_000)
    parser = EventStreamParser()
    for piece in byte_by_byte(long[:-1]):
        assert parser.feed(piece) == []
    joined = len(parser._pieces)
    # The prelude's bytes were joined when they were all there; nothing has been since.
    assert joined == len(long) - 1 - 12 + 1
    assert parser.feed(long[-1:]) == [("contentBlockDelta", b"x" * 200_000)]
