"""Acts on the local disk until the database has them, so that the end of the process loses none.

A file for each process, a line of JSON for each act. What a process that died left behind is
found by its lock, which died with it. The lines are not synced: the end of the machine may lose
the last of them.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson

from trunkline_server.governance.audit.chain import Act

_SUFFIX = ".acts"
# Bytes from which on what is done with is worth leaving behind.
_LARGE = 8 << 20


class Spool:
    """This process's file. Blocks for as long as a write into the page cache takes."""

    def __init__(self, directory: Path) -> None:
        """Makes the file; raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._path, self._file = _new_file(directory)
        self._size = 0

    def add(self, act: Act) -> None:
        """Keeps an act; raises OSError."""
        self._size += os.write(self._file, _line(act))

    def keep(self, acts: Sequence[Act]) -> None:
        """Says which acts are still needed. The others go if that is cheap, which is when none
        are needed or the file has grown large. Raises OSError, and then has kept all."""
        if not acts:
            os.ftruncate(self._file, 0)
            self._size = 0
        elif self._size > _LARGE:
            # Into another file first: at no moment are they in none.
            path, descriptor = _new_file(self._directory)
            try:
                size = os.write(descriptor, b"".join(map(_line, acts)))
            except OSError:
                os.close(descriptor)
                path.unlink()
                raise
            self._path.unlink()
            os.close(self._file)
            self._path, self._file, self._size = path, descriptor, size

    def close(self) -> None:
        """Lets go of the file, and removes it if nothing is in it."""
        if os.fstat(self._file).st_size == 0:
            self._path.unlink(missing_ok=True)
        os.close(self._file)


def _new_file(directory: Path) -> tuple[Path, int]:
    """A file of this process's own, locked."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
    while True:
        path = directory / f"{os.getpid()}-{os.urandom(4).hex()}{_SUFFIX}"
        descriptor = os.open(path, flags, 0o600)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():
                return path, descriptor
        # Another process took it for a dead one's before it was locked.
        os.close(descriptor)


def leftovers(directory: Path) -> Iterator[tuple[Path, list[Act]]]:
    """What processes that are no more have left behind, file by file.

    A file is this process's own until the iteration goes on; by then its acts are safe elsewhere
    or it stays. Whoever takes over the acts removes it. Raises OSError.
    """
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Under the lock, and still there: another process may have been faster.
            if path.exists():
                yield path, list(_read(path.read_bytes()))
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)


def _line(act: Act) -> bytes:
    fields = {name: getattr(act, name) for name in Act.__slots__}
    fields["details"] = dict(act.details)
    for name in ("before", "after"):
        if fields[name] is not None:
            fields[name] = fields[name].hex()
    text = orjson.dumps(fields)
    return b"%08x %b\n" % (crc32(text), text)


def _read(data: bytes) -> Iterator[Act]:
    """The acts whose lines are whole."""
    for line in data.splitlines():
        checksum, _, text = line.partition(b" ")
        if len(checksum) != 8 or checksum != b"%08x" % crc32(text):
            continue
        fields: dict[str, Any] = orjson.loads(text)
        for name in ("before", "after"):
            if fields[name] is not None:
                fields[name] = bytes.fromhex(fields[name])
        yield Act(**fields)
