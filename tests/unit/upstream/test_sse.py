"""The event parser against a slow reading of the standard, however the stream is cut."""

import random

import pytest

from tests.support.corpus import exchanges
from tests.support.splits import at_random, byte_by_byte, every_way
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.upstream.sse import SseEvent, SseParser


def oracle_lines(stream: bytes) -> tuple[list[bytes], bool]:
    """The complete lines, and whether something follows the last of them."""
    lines = []
    line = b""
    position = 0
    while position < len(stream):
        byte = stream[position : position + 1]
        if byte in {b"\r", b"\n"}:
            lines.append(line)
            line = b""
            if stream[position : position + 2] == b"\r\n":
                position += 1
        else:
            line += byte
        position += 1
    return lines, line != b""


def oracle(stream: bytes) -> list[tuple[str, bytes]]:
    """The standard's algorithm, one byte at a time over the whole stream.

    Differs from the standard only where the parser does: data stays bytes, and at the end an
    event whose lines are all complete is dispatched.
    """
    lines, torn = oracle_lines(stream[3:] if stream[:3] == b"\xef\xbb\xbf" else stream)
    if not torn:
        lines.append(b"")
    dispatched = []
    data_buffer = b""
    event_buffer = b""
    for line in lines:
        if line == b"":
            if data_buffer:
                dispatched.append((event_buffer.decode("utf-8", "replace"), data_buffer[:-1]))
            data_buffer = b""
            event_buffer = b""
        colon = line.find(b":")
        name = line if colon < 0 else line[:colon]
        value = b"" if colon < 0 else line[colon + 1 :]
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            data_buffer += value + b"\n"
        elif name == b"event":
            event_buffer = value
    return dispatched


def parse(pieces: list[bytes], limit: int = 1024 * 1024) -> list[SseEvent]:
    parser = SseParser(limit)
    events = []
    for piece in pieces:
        events += parser.feed(piece)
    return events + parser.finish()


CASES: dict[str, tuple[bytes, list[tuple[str, bytes]]]] = {
    "nothing": (b"", []),
    "one": (b'data: {"a":1}\n\n', [("", b'{"a":1}')]),
    "several": (b"data: a\n\ndata: b\n\ndata: c\n\n", [("", b"a"), ("", b"b"), ("", b"c")]),
    "named": (b"event: ping\ndata: {}\n\n", [("ping", b"{}")]),
    "name after data": (b"data: 1\nevent: late\n\n", [("late", b"1")]),
    "last name counts": (b"event: a\nevent: b\ndata: 1\n\n", [("b", b"1")]),
    "name emptied": (b"event: a\nevent\ndata: 1\n\n", [("", b"1")]),
    "name does not carry over": (b"event: a\n\ndata: 1\n\n", [("", b"1")]),
    "name not utf-8": (b"event: \xff\ndata: 1\n\n", [("\ufffd", b"1")]),
    "multi-line": (b"data: a\ndata: b\ndata:\ndata: c\n\n", [("", b"a\nb\n\nc")]),
    "empty data": (b"data:\n\ndata\n\ndata: \n\n", [("", b""), ("", b""), ("", b"")]),
    "no data": (b"event: ping\n\nid: 7\n\n: hello\n\n\n\n", []),
    "no space": (b"data:a\n\n", [("", b"a")]),
    "one space only": (b"data:  a \n\n", [("", b" a ")]),
    "tab is kept": (b"data:\ta\n\n", [("", b"\ta")]),
    "colons in the value": (b"data: a: b:c\n\n", [("", b"a: b:c")]),
    "comments": (b": keep-alive\n\n:\ndata: a\n: x\ndata: b\n\n", [("", b"a\nb")]),
    "comment that looks like data": (b":data: a\n\n: data: b\n\n", []),
    "ignored fields": (b"id: 1\nretry: 5\ndata: a\nfoo: b\nbar\n\n", [("", b"a")]),
    "names are exact": (b" data: a\nDATA: b\ndata : c\ndatax: d\n\n", []),
    "crlf": (b"event: x\r\ndata: a\r\n\r\ndata: b\r\n\r\n", [("x", b"a"), ("", b"b")]),
    "cr": (b"event: x\rdata: a\r\rdata: b\r\r", [("x", b"a"), ("", b"b")]),
    "mixed ends": (
        b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n",
        [("", b"a"), ("", b"b"), ("", b"c")],
    ),
    "lf cr is two line ends": (b"data: a\n\rdata: b\n\r", [("", b"a"), ("", b"b")]),
    "cr inside a data line": (b"data: a\rb\n\n", [("", b"a")]),
    "bom": (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [("", b"a")]),
    "bom, then a blank line": (b"\xef\xbb\xbf\ndata: a\n\n", [("", b"a")]),
    "bom twice": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    "bom not first": (b"data: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n", [("", b"a"), ("", b"c")]),
    "other line separators are text": (
        "data: a\x0b\x0c\x1c\x85\u2028\u2029b\n\n".encode(),
        [("", "a\x0b\x0c\x1c\x85\u2028\u2029b".encode())],
    ),
    "not utf-8": (b"data: \xff\xfe\x00\n\n", [("", b"\xff\xfe\x00")]),
    "end without blank line": (b"data: a\n\ndata: [DONE]\n", [("", b"a"), ("", b"[DONE]")]),
    "end without blank line, cr": (b"data: [DONE]\r", [("", b"[DONE]")]),
    "end in a named event": (b"event: x\ndata: a\n", [("x", b"a")]),
    "end without data": (b"data: a\n\nevent: x\n", [("", b"a")]),
    "end in a cut line": (b"data: a\n\ndata: {", [("", b"a")]),
    "end in a cut second line": (b"data: a\n\ndata: b\ndata: {", [("", b"a")]),
    "end in a cut comment": (b"data: a\n: b", []),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    stream, expected = CASES[name]
    assert oracle(stream) == expected
    for way, pieces in every_way(stream):
        assert parse(pieces) == expected, way


def test_two_pieces_cut_anywhere() -> None:
    for stream, expected in CASES.values():
        for place in range(len(stream) + 1):
            assert parse([stream[:place], b"", stream[place:]]) == expected, (stream, place)


def random_stream(rng: random.Random) -> bytes:
    words = (
        b"data: {}", b"data:", b"data", b"data: x", b"event: e", b"event:", b": c", b":", b"id: 1",
        b"\n", b"\n", b"\n\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b"\xef\xbb\xbf", b" ", b"\x00",
        b"data: " + b"y" * 50 + b"\n\n",
    )  # fmt: skip
    return b"".join(rng.choices(words, k=rng.randrange(40)))


@pytest.mark.parametrize("seed", range(5))
def test_random_streams_agree_with_the_standard(seed: int) -> None:
    rng = random.Random(seed)
    found = 0
    for _ in range(300):
        stream = random_stream(rng)
        expected = oracle(stream)
        found += len(expected)
        for way, pieces in every_way(stream):
            assert parse(pieces) == expected, (way, stream)
    assert found > 300


def test_recorded_streams_agree_with_the_standard() -> None:
    streams = [
        exchange.response
        for exchange in exchanges()
        if exchange.headers.get("content-type", "").startswith("text/event-stream")
    ]
    assert len(streams) > 100
    for number, stream in enumerate(streams):
        expected = oracle(stream)
        assert parse([stream], limit=len(stream)) == expected
        assert parse(at_random(stream, seed=number), limit=len(stream)) == expected


def test_events_come_with_the_chunk_that_completes_them() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\n") == [("", b"a")]
    assert parser.feed(b"data: b\r") == []
    assert parser.feed(b"\r") == [("", b"b")]
    assert parser.feed(b"\n") == []
    assert parser.feed(b"data: c\n\n") == [("", b"c")]
    assert parser.feed(b"event: x\n") == []
    assert parser.feed(b"data: d\n\n") == [("x", b"d")]
    assert parser.finish() == []


# 100 bytes of data in all: "data: " is not charged but by the line that is being read.
AT_LIMIT = {
    "one line": b"data: " + b"x" * 94 + b"\n\n",
    "two events": (b"data: " + b"x" * 94 + b"\n\n") * 3,
    "comments are not gathered": (b": " + b"x" * 90 + b"\n") * 5 + b"data: a\n\n",
    "two lines": b"data: " + b"x" * 42 + b"\ndata: " + b"x" * 50 + b"\n\n",
}
OVER_LIMIT = {
    "one line": b"data: " + b"x" * 95 + b"\n\n",
    "second event": b"data: a\n\ndata: " + b"x" * 95 + b"\n\n",
    "a comment": b": " + b"x" * 99 + b"\n\n",
    "no line end": b"x" * 101,
    "two lines": b"data: " + b"x" * 42 + b"\ndata: " + b"x" * 51 + b"\n\n",
    "empty data lines": b"data\n" * 101 + b"\n",
    "a name": b"event: " + b"x" * 94 + b"\n\n",
}


@pytest.mark.parametrize("name", AT_LIMIT)
def test_at_the_limit(name: str) -> None:
    stream = AT_LIMIT[name]
    for way, pieces in every_way(stream):
        assert parse(pieces, limit=100) == oracle(stream), way


@pytest.mark.parametrize("name", OVER_LIMIT)
def test_over_the_limit(name: str) -> None:
    for way, pieces in every_way(OVER_LIMIT[name]):
        with pytest.raises(UpstreamError) as caught:
            parse(pieces, limit=100)
        assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, way
        assert "xxx" not in caught.value.message


def test_an_endless_line_is_refused_before_it_ends() -> None:
    parser = SseParser(1000)
    pieces = byte_by_byte(b"data: " + b"x" * 2000)
    for piece in pieces[:1000]:
        assert parser.feed(piece) == []
    with pytest.raises(UpstreamError):
        parser.feed(pieces[1000])
