"""Responses as no vendor should send them: seeded, malformed, oddly cut.

Each oddity has a name, so that a test can say of which it expects what.
"""

import gzip
import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")

OK = b"HTTP/1.1 200 OK\r\n"
STATUS_LINES = {
    "status: no reason": b"HTTP/1.1 200\r\n",
    "status: empty reason": b"HTTP/1.1 200 \r\n",
    "status: HTTP/1.0": b"HTTP/1.0 200 OK\r\n",
    "status: 201": b"HTTP/1.1 201 Made\r\n",
    "status: 204": b"HTTP/1.1 204 No Content\r\n",
    "status: 304": b"HTTP/1.1 304 Not Modified\r\n",
    "status: latin reason": b"HTTP/1.1 429 Slow\xe9 Down\r\n",
    "status: 500": b"HTTP/1.1 500 \r\n",
    "status: 999": b"HTTP/1.1 999 Odd\r\n",
    "status: 099": b"HTTP/1.1 099 Odd\r\n",
    "status: two digits": b"HTTP/1.1 20 OK\r\n",
    "status: four digits": b"HTTP/1.1 2000 OK\r\n",
    "status: two blanks": b"HTTP/1.1  200 OK\r\n",
    "status: tab": b"HTTP/1.1\t200 OK\r\n",
    "status: NUL in the reason": b"HTTP/1.1 200 O\x00K\r\n",
    "status: long reason": b"HTTP/1.1 200 " + b"y" * 40_000 + b"\r\n",
    "status: LF only": b"HTTP/1.1 200 OK\n",
    "status: CR only": b"HTTP/1.1 200 OK\r",
    "status: HTTP/1.2": b"HTTP/1.2 200 OK\r\n",
    "status: HTTP/2.0": b"HTTP/2.0 200 OK\r\n",
    "status: HTTP/0.9": b"HTTP/0.9 200 OK\r\n",
    "status: HTTP/11": b"HTTP/11 200 OK\r\n",
    "status: http/1.1": b"http/1.1 200 OK\r\n",
    "status: RTSP": b"RTSP/1.0 200 OK\r\n",
    "status: ICE": b"ICE/1.0 200 OK\r\n",
    "status: blank before": b" HTTP/1.1 200 OK\r\n",
    "status: empty line before": b"\r\nHTTP/1.1 200 OK\r\n",
    "status: empty lines before": b"\r\n\r\nHTTP/1.1 200 OK\r\n",
    "status: 101": b"HTTP/1.1 101 Switching Protocols\r\n",
}
INTERIM = {
    "interim: 100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "interim: two": b"HTTP/1.1 102 Processing\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
    "interim: with length 0": b"HTTP/1.1 100 Continue\r\ncontent-length: 0\r\n\r\n",
    "interim: with length 3": b"HTTP/1.1 100 Continue\r\ncontent-length: 3\r\n\r\n",
    "interim: chunked": b"HTTP/1.1 100 Continue\r\ntransfer-encoding: chunked\r\n\r\n",
    "interim: with a body": b"HTTP/1.1 100 Continue\r\ncontent-length: 3\r\n\r\nabc",
    "interim: 199": b"HTTP/1.1 199 Odd\r\n\r\n",
}
USUAL_FIELDS = (
    b"x-plain: a\r\n",
    b"x-empty:\r\n",
    b"content-type: text/plain\r\n",
    b"X-Twice: a\r\nx-twice: b\r\n",
    b"x-blanks: \t a \t \r\n",
    b"x-latin: \xe9\xff\r\n",
    b"x-utf: \xc3\xa9\r\n",
    b"x-long: " + b"y" * 9000 + b"\r\n",
    b"keep-alive: timeout=5\r\n",
    b"connection: close\r\n",
    b"connection: keep-alive\r\n",
)
FIELDS = {
    "field: too long": b"x-too-long: " + b"y" * 40_000 + b"\r\n",
    "field: many": b"x-many: z\r\n" * 300,
    "field: long together": b"x-long: " + (b"y" * 9000 + b"\r\nx-longer: ") * 4 + b"\r\n",
    "field: folded": b"x-folded: a\r\n b\r\n",
    "field: folded by tab": b"x-folded: a\r\n\tb\r\n",
    "field: NUL": b"x-nul: a\x00b\r\n",
    "field: control": b"x-control: a\x01b\r\n",
    "field: delete": b"x-delete: a\x7fb\r\n",
    "field: CR inside": b"x-cr: a\rb\r\n",
    "field: LF only": b"x-lf: a\n",
    "field: blank before the colon": b"x-space : a\r\n",
    "field: blank before the name": b" x-leading: a\r\n",
    "field: no colon": b"x-no-colon\r\n",
    "field: no name": b": no name\r\n",
    "field: name no token": b"x(odd): a\r\n",
    "field: name not ASCII": b"x-\xe9: a\r\n",
    "field: keep-alive and close": b"connection: keep-alive, close\r\n",
    "field: upgraded": b"Connection: upgrade\r\nupgrade: h2c\r\n",
    "field: upgrade offered": b"upgrade: websocket\r\n",
    "field: trailer": b"trailer: x-sum\r\n",
}


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


USUAL_ENCODINGS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"gzip", _gzip),
    (b"GZip", _gzip),
    (b"deflate", zlib.compress),
    (b"identity", bytes),
)
ENCODINGS: Mapping[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "encoding: x-gzip": (b"x-gzip", _gzip),
    "encoding: two members": (b"gzip", lambda body: _gzip(body) + _gzip(body)),
    "encoding: gzip cut": (b"gzip", lambda body: _gzip(body)[:-6]),
    "encoding: gzip and more": (b"gzip", lambda body: _gzip(body) + b"rest"),
    "encoding: not gzip": (b"gzip", bytes),
    "encoding: zlib as gzip": (b"gzip", zlib.compress),
    "encoding: bare deflate": (b"deflate", lambda body: zlib.compress(body)[2:-4]),
    "encoding: deflate cut": (b"deflate", lambda body: zlib.compress(body)[:-3]),
    "encoding: deflate and more": (b"deflate", lambda body: zlib.compress(body) + b"rest"),
    "encoding: deflate of nothing": (b"deflate", lambda body: b""),
    "encoding: br": (b"br", bytes),
    "encoding: zstd": (b"zstd", bytes),
    "encoding: empty": (b"", bytes),
    "encoding: unheard of": (b"unheard-of", bytes),
    "encoding: twice": (b"gzip, gzip", lambda body: _gzip(_gzip(body))),
}
CHUNKED = b"transfer-encoding: chunked\r\n"
CODINGS = {
    "coding: capital": b"Transfer-Encoding: Chunked\r\n",
    "coding: repeated": CHUNKED + CHUNKED,
    "coding: gzip, chunked": b"transfer-encoding: gzip, chunked\r\n",
    "coding: chunked, gzip": b"transfer-encoding: chunked, gzip\r\n",
    "coding: chunked, chunked": b"transfer-encoding: chunked, chunked\r\n",
    "coding: identity": b"transfer-encoding: identity\r\n",
    "coding: xchunked": b"transfer-encoding: xchunked\r\n",
    "coding: with parameter": b"transfer-encoding: chunked;q=1\r\n",
    "coding: empty": b"transfer-encoding:\r\n",
    "coding: control": b"transfer-encoding: \x0bchunked\r\n",
    "coding: gzip": b"transfer-encoding: gzip\r\n",
}
LENGTHS: Mapping[str, Callable[[int], bytes]] = {
    "length: repeated": lambda size: b"content-length: %d\r\n" % size * 2,
    "length: two": lambda size: b"content-length: %d\r\ncontent-length: %d\r\n" % (size, size + 1),
    "length: list": lambda size: b"content-length: %d, %d\r\n" % (size, size),
    "length: plus": lambda size: b"content-length: +%d\r\n" % size,
    "length: minus": lambda size: b"content-length: -%d\r\n" % size,
    "length: hexadecimal": lambda size: b"content-length: 0x%x\r\n" % size,
    "length: zeros before": lambda size: b"content-length: 00%d\r\n" % size,
    "length: blank behind": lambda size: b"content-length: %d \r\n" % size,
    "length: two numbers": lambda size: b"content-length: %d 1\r\n" % size,
    "length: fraction": lambda size: b"content-length: %d.0\r\n" % size,
    "length: empty": lambda size: b"content-length:\r\n",
    "length: beyond 64 bits": lambda size: b"content-length: 99999999999999999999999\r\n",
    "length: too long": lambda size: b"content-length: %d\r\n" % (size + 3),
    "length: too short": lambda size: b"content-length: %d\r\n" % max(0, size - 1),
    "length: not ASCII": lambda size: b"content-length: \xb2\r\n",
}
CHUNK_SIZES: Mapping[str, Callable[[int], bytes]] = {
    "chunk: capitals": lambda size: b"%X" % size,
    "chunk: zeros before": lambda size: b"00%x" % size,
    "chunk: extension": lambda size: b"%x;a=b" % size,
    "chunk: quoted extension": lambda size: b'%x;a="b;c"' % size,
    "chunk: empty extension": lambda size: b"%x;" % size,
    "chunk: blank before extension": lambda size: b"%x ;a" % size,
    "chunk: blank behind": lambda size: b"%x " % size,
    "chunk: 0x": lambda size: b"0x%x" % size,
    "chunk: plus": lambda size: b"+%x" % size,
    "chunk: minus": lambda size: b"-%x" % size,
    "chunk: LF in extension": lambda size: b"%x;a=\nb" % size,
    "chunk: long extension": lambda size: b"%x;" % size + b"e" * 40_000,
    "chunk: size too large": lambda size: b"%x" % (size + 1),
    "chunk: size beyond 64 bits": lambda size: b"fffffffffffffffff",
    "chunk: no size": lambda size: b"",
    "chunk: no number": lambda size: b"g",
}
CHUNK_ENDS = {
    "chunk: ended by LF": b"\n",
    "chunk: ended by CR": b"\r",
    "chunk: not ended": b"",
    "chunk: ended twice": b"\r\n\r\n",
}
LAST_CHUNKS = {
    "last chunk: missing": b"",
    "last chunk: 00": b"00\r\n",
    "last chunk: extension": b"0;e\r\n",
    "last chunk: ended by LF": b"0\n",
}
TRAILERS = {
    "trailer: one": b"x-sum: 1\r\n\r\n",
    "trailer: two": b"x-sum: 1\r\nx-other: 2\r\n\r\n",
    "trailer: length": b"content-length: 5\r\n\r\n",
    "trailer: coding": b"transfer-encoding: chunked\r\n\r\n",
    "trailer: no colon": b"no colon\r\n\r\n",
    "trailer: not ended": b"x-sum: 1",
    "trailer: ended by LF": b"\n",
    "trailer: too long": b"x-long: " + b"y" * 40_000 + b"\r\n\r\n",
    "trailer: many": b"x-many: z\r\n" * 300 + b"\r\n",
}
LEFT_OVER = {
    "left over: empty line": b"\r\n",
    "left over: a letter": b"x",
    "left over: a response": b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nsmuggled",
    "left over: part of one": b"HTTP/1.1 2",
}
# Oddities that have no bytes of their own.
BOTH_FRAMINGS = "length and coding"
MUTATED = "bytes changed at random"
CUT = "cut"


def _usual_length(size: int) -> bytes:
    return b"content-length: %d\r\n" % size


def _usual_chunk_size(size: int) -> bytes:
    return b"%x" % size


@dataclass(frozen=True)
class Case:
    """One response: what is sent, in pieces, and how the connection ends after it."""

    seed: int
    pieces: tuple[bytes, ...]
    oddities: frozenset[str]
    reset: bool


class _Maker:
    """Makes one case."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.oddities: set[str] = set()

    def odd(self, table: Mapping[str, T], usual: T, chance: float = 0.1) -> T:
        """What is usual or, by chance, one of the table, whose name is noted."""
        if self.rng.random() >= chance:
            return usual
        name = self.rng.choice(list(table))
        self.oddities.add(name)
        return table[name]

    def response(self) -> bytes:
        rng = self.rng
        count = rng.choice((0, 1, 2, 3))
        fields = [self.odd(FIELDS, rng.choice(USUAL_FIELDS)) for _ in range(count)]
        body = rng.randbytes(rng.choice((0, 1, 10, 300))) + b"a" * rng.choice((0, 5, 2000))
        if rng.random() < 0.3:
            encoding, pack = self.odd(ENCODINGS, rng.choice(USUAL_ENCODINGS), 0.3)
            body = pack(body)
            fields.append(b"content-encoding: " + encoding + b"\r\n")
        framing = rng.random()
        if framing < 0.45:
            fields.append(self.length(len(body)))
        elif framing < 0.9:
            if rng.random() < 0.03:
                self.oddities.add(BOTH_FRAMINGS)
                fields.append(self.length(len(body)))
            fields.append(self.odd(CODINGS, CHUNKED))
            body = self.chunked(body)
        rng.shuffle(fields)
        head = self.odd(INTERIM, b"") + self.odd(STATUS_LINES, OK, 0.2) + b"".join(fields)
        return head + b"\r\n" + body + self.odd(LEFT_OVER, b"")

    def length(self, size: int) -> bytes:
        return self.odd(LENGTHS, _usual_length)(size)

    def chunked(self, body: bytes) -> bytes:
        wire = b""
        while body:
            size = self.rng.choice((1, 2, 7, 100, 5000))
            chunk, body = body[:size], body[size:]
            wire += self.odd(CHUNK_SIZES, _usual_chunk_size, 0.05)(len(chunk))
            wire += b"\r\n" + chunk + self.odd(CHUNK_ENDS, b"\r\n", 0.02)
        return wire + self.odd(LAST_CHUNKS, b"0\r\n", 0.05) + self.odd(TRAILERS, b"\r\n")

    def mutated(self, wire: bytes) -> bytes:
        rng = self.rng
        self.oddities.add(MUTATED)
        changed = bytearray(wire)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            # Most of what can go wrong stands at the start.
            at = rng.randrange(min(len(changed), rng.choice((20, 100, 10_000))) or 1)
            kind = rng.randrange(4)
            if kind == 0:
                changed[at : at + 1] = rng.randbytes(1)
            elif kind == 1:
                del changed[at : at + rng.choice((1, 2, 5))]
            elif kind == 2:
                odd = (b"\r\n", b"\n", b"\r", b"\x00", b" ", b":", b"\r\n\r\n")
                changed[at:at] = rng.choice(odd)
            else:
                changed[at:at] = changed[at : at + rng.choice((1, 10, 50))]
        return bytes(changed)

    def split(self, wire: bytes) -> tuple[bytes, ...]:
        rng = self.rng
        cuts = {rng.randint(0, len(wire)) for _ in range(rng.choice((0, 0, 1, 3, 10)))}
        # The places where parsers stumble: beside line ends.
        if rng.random() < 0.3:
            ends = [at for at in range(min(len(wire), 2000)) if wire[at] in b"\r\n"]
            cuts |= set(rng.sample(ends, min(len(ends), 6)))
        bounds = sorted(cuts | {0, len(wire)})
        return tuple(wire[start:end] for start, end in pairwise(bounds))


def make_case(seed: int) -> Case:
    """The case of a seed, the same on every machine."""
    maker = _Maker(seed)
    wire = maker.response()
    if maker.rng.random() < 0.15:
        wire = maker.mutated(wire)
    if maker.rng.random() < 0.1:
        maker.oddities.add(CUT)
        wire = wire[: maker.rng.randint(0, len(wire))]
    pieces = maker.split(wire)
    return Case(seed, pieces, frozenset(maker.oddities), maker.rng.random() < 0.2)
