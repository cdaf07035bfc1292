"""Checkpoints: what the chain was at a time, kept where its database's master cannot reach.

A chain alone cannot tell that its end was cut off, or that all of it was written anew. Whoever
holds a checkpoint can, back to that checkpoint. They are lines of JSON in a file of each replica,
and in its log; signed, they cannot be made up by whoever can write that file but lacks the key.
"""

import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson

from trunkline_server.governance.audit.ports import Head

# No line is longer.
_TAIL_BYTES = 1024
_FIELDS = ("count", "hash", "at", "signature")


class CheckpointError(ValueError):
    """A line that is no checkpoint, or whose signature is missing or wrong; the message names
    it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The chain's end at a time, in microseconds since the Unix epoch. `signature` is HMAC-SHA256
    over the other fields, or empty."""

    head: Head
    at: int
    signature: bytes = b""

    def signed(self, key: bytes) -> "Checkpoint":
        """The same, signed."""
        return Checkpoint(self.head, self.at, self._mac(key))

    def genuine(self, key: bytes) -> bool:
        """Whether the signature is the key's."""
        return hmac.compare_digest(self.signature, self._mac(key))

    def line(self) -> bytes:
        """As it is kept, with its line's end."""
        values = (self.head.count, self.head.hash.hex(), self.at, self.signature.hex())
        return orjson.dumps(dict(zip(_FIELDS, values, strict=True))) + b"\n"

    def _mac(self, key: bytes) -> bytes:
        text = f"trunkline audit checkpoint 1\n{self.head.count}\n{self.head.hash.hex()}\n{self.at}"
        return hmac.digest(key, text.encode(), "sha256")


class CheckpointFile:
    """A file of checkpoints, to which lines are only added."""

    def __init__(self, path: Path, key: bytes = b"") -> None:
        """`key` signs them; empty leaves them unsigned."""
        self._path = path
        self._key = key

    def add(self, head: Head, at: int) -> Checkpoint:
        """Adds a checkpoint and returns when the disk has it. Blocks; raises OSError."""
        checkpoint = Checkpoint(head, at)
        if self._key:
            checkpoint = checkpoint.signed(self._key)
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            _cut_torn_line(descriptor)
            os.write(descriptor, checkpoint.line())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return checkpoint

    def read(self) -> list[Checkpoint]:
        """All of them, the oldest first; none if there is no file yet. Blocks; raises OSError,
        and CheckpointError for a file that is damaged."""
        try:
            with self._path.open("rb") as lines:
                return read_checkpoints(lines, self._key)
        except FileNotFoundError:
            return []


def _cut_torn_line(descriptor: int) -> None:
    """Takes away a last line that was not written to its end."""
    size = os.fstat(descriptor).st_size
    tail_from = max(0, size - _TAIL_BYTES)
    tail = os.pread(descriptor, _TAIL_BYTES, tail_from)
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(descriptor, tail_from + tail.rfind(b"\n") + 1)


def read_checkpoints(lines: Iterable[bytes], key: bytes = b"") -> list[Checkpoint]:
    """Reads a file of checkpoints; with a key, every one must be signed by it.

    A last line without its end was being written when the machine stopped, and is left out.
    Raises CheckpointError.
    """
    found = []
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break
        checkpoint = _read(line, number)
        if key and not checkpoint.genuine(key):
            raise CheckpointError(f"line {number}: the signature is missing or wrong")
        found.append(checkpoint)
    return found


def _read(line: bytes, number: int) -> Checkpoint:
    try:
        count, digest, at, signature = (orjson.loads(line)[name] for name in _FIELDS)
        head = Head(int(count), bytes.fromhex(digest))
        return Checkpoint(head, int(at), bytes.fromhex(signature))
    except (ValueError, TypeError, KeyError):
        raise CheckpointError(f"line {number}: this is no checkpoint") from None
