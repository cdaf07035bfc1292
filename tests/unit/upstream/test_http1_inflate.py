"""Compressed bodies, however the bytes are cut."""

import gzip
import zlib

import pytest

from tests.support.splits import every_way
from trunkline_server.upstream.http1.inflate import InflateError, Inflater, inflater

TEXT = b"".join(b"%d squared is %d\n" % (n, n * n) for n in range(5_000))
BARE = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)

PACKED = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "gzip of two members": ("gzip", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])),
    "deflate": ("deflate", zlib.compress(TEXT)),
    "deflate without its header": ("deflate", BARE.compress(TEXT) + BARE.flush()),
}


def unpack(subject: Inflater, blocks: list[bytes]) -> bytes:
    text = b""
    for block in blocks:
        subject.feed(block)
        while piece := subject.piece():
            assert len(piece) <= 64 * 1024
            text += piece
    return text


def make(encoding: str) -> Inflater:
    subject = inflater(encoding)
    assert subject is not None
    return subject


@pytest.mark.parametrize("name", PACKED)
def test_whole_cut_and_byte_by_byte(name: str) -> None:
    encoding, packed = PACKED[name]
    for way, blocks in every_way(packed):
        subject = make(encoding)
        assert unpack(subject, blocks) == TEXT, way
        assert subject.complete


@pytest.mark.parametrize("name", PACKED)
def test_cut_short_is_not_complete(name: str) -> None:
    encoding, packed = PACKED[name]
    for size in (1, 5, 20, len(packed) // 2, len(packed) - 1):
        subject = make(encoding)
        assert TEXT.startswith(unpack(subject, [packed[:size]]))
        assert not subject.complete


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_nothing_is_complete(encoding: str) -> None:
    assert make(encoding).complete


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", b"plain text, not gzip"),
        ("gzip", zlib.compress(TEXT)),
        ("gzip", gzip.compress(TEXT) + b"rest"),
        ("gzip", gzip.compress(TEXT)[:-8] + bytes(8)),
        ("deflate", zlib.compress(TEXT) + b"rest"),
        ("deflate", b"\xff\xff\xff\xff"),
    ],
)
def test_what_is_not_so_compressed(encoding: str, packed: bytes) -> None:
    subject = make(encoding)
    with pytest.raises(InflateError):
        unpack(subject, [packed])


def test_a_bomb_comes_in_pieces() -> None:
    subject = make("gzip")
    subject.feed(gzip.compress(bytes(100 * 1024 * 1024), 9))
    for _ in range(10):
        assert len(subject.piece()) <= 64 * 1024


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
def test_plain(encoding: str) -> None:
    assert inflater(encoding) is None


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "unheard-of"])
def test_encodings_that_were_not_asked_for(encoding: str) -> None:
    with pytest.raises(InflateError):
        inflater(encoding)
