"""Compressed bodies, unpacked piece by piece."""

import zlib

# The most that one step unpacks, so that a few bytes cannot become gigabytes at once.
_PIECE = 64 * 1024

_GZIP = 16 + zlib.MAX_WBITS
# What content-encoding says when the body is as it is.
_PLAIN = frozenset({"", "identity"})
_PACKED = frozenset({"gzip", "deflate"})


class InflateError(Exception):
    """The body is not compressed as its headers say."""


class Inflater:
    """Unpacks one body: `feed` what came, then take `piece` after piece until it is empty."""

    __slots__ = ("_deflate", "_engine", "_input", "_pending")

    def __init__(self, *, deflate: bool) -> None:
        self._deflate = deflate
        self._engine: zlib._Decompress | None = None
        self._input = b""
        # True when the engine may hold back output although it has taken all input.
        self._pending = False

    def feed(self, block: bytes) -> None:
        """Takes what the previous pieces left over, and this."""
        self._input = self._input + block if self._input else block

    def piece(self) -> bytes:
        """The next of the unpacked bytes, or nothing when more input is needed."""
        while self._input or self._pending:
            if self._engine is None or self._engine.eof:
                self._begin()
            engine = self._engine
            assert engine is not None  # noqa: S101 (made just above)
            try:
                out = engine.decompress(self._input, _PIECE)
            except zlib.error:
                raise InflateError from None
            self._input = engine.unused_data if engine.eof else engine.unconsumed_tail
            self._pending = len(out) == _PIECE and not engine.eof
            if out:
                return out
        return b""

    @property
    def complete(self) -> bool:
        """True when a body that ends here is whole; an empty one is."""
        return self._engine is None or self._engine.eof

    def _begin(self) -> None:
        """A gzip body may have several members (RFC 1952, 2.2); a deflate body is one."""
        if not self._deflate:
            self._engine = zlib.decompressobj(_GZIP)
        elif self._engine is not None:
            raise InflateError
        else:
            # By RFC 9110, 8.4.1.2 a zlib stream, whose first byte says so; some send it bare.
            bare = self._input[0] & 0x0F != 8
            self._engine = zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS)


def is_packed(encoding: str) -> bool:
    """True unless the body is as it is; by its content-encoding."""
    return encoding.lower() not in _PLAIN


def inflater(encoding: str) -> Inflater | None:
    """The inflater for a content-encoding; None when nothing is to be done.

    Raises InflateError for one that this client does not know and never asks for.
    """
    encoding = encoding.lower()
    if encoding in _PLAIN:
        return None
    if encoding not in _PACKED:
        raise InflateError
    return Inflater(deflate=encoding == "deflate")
