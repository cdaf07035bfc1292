"""The journal on disk: a directory for each worker, its segments, its cursor and its lock.

    ROOT/w-20260101T000000-4711-9f3a/lock       held by the worker as long as it lives
                                    /cursor     how far the store has everything
                                    /00000000000000000001.seg ...
    ROOT/quarantine/                bytes that could not be read back, one file each

A directory whose lock can be had belongs to a worker that is no more: the next process takes
it over.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from zlib import crc32

_PREFIX = "w-"
_SUFFIX = ".seg"
_CURSOR = "cursor"
_LOCK = "lock"
_MODE = 0o600
_DIRECTORY_MODE = 0o700


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in a journal: a segment's number, and an offset in bytes. Everything before it
    is in the store."""

    segment: int = 0
    offset: int = 0


class JournalDirectory:
    """One worker's directory, while its lock is held."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, root: Path) -> Self:
        """A new directory under `root`. Raises OSError."""
        while True:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
            path = root / f"{_PREFIX}{stamp}-{os.getpid()}-{secrets.token_hex(2)}"
            path.mkdir(_DIRECTORY_MODE, parents=True)
            directory = cls.claim(path)
            if directory is not None:
                return directory

    @classmethod
    def claim(cls, path: Path) -> Self | None:
        """The directory, or None while another process holds it or once it has gone."""
        try:
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, _MODE)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed it between our opening and our locking.
            held = (path / _LOCK).stat().st_ino == os.fstat(lock).st_ino
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            os.close(lock)
            return None
        return cls(path, lock)

    @property
    def name(self) -> str:
        """What tells it from other workers' directories."""
        return self.path.name

    def segments(self) -> list[int]:
        """The numbers of its segments, ascending."""
        names = (entry.name for entry in os.scandir(self.path))
        return sorted(
            int(name.removesuffix(_SUFFIX))
            for name in names
            if name.endswith(_SUFFIX) and name.removesuffix(_SUFFIX).isdecimal()
        )

    def segment(self, number: int) -> Path:
        """The file of a segment."""
        return self.path / f"{number:020d}{_SUFFIX}"

    def open_new(self, number: int) -> int:
        """A file descriptor that appends to a new segment. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        return os.open(self.segment(number), flags, _MODE)

    def sync_names(self) -> None:
        """Makes new and removed names survive the machine. Raises OSError."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def cursor(self) -> Cursor:
        """How far everything is in the store.

        A cursor that is missing or damaged counts as none: all that is here is then shipped
        again, which the store notices by the event ids.
        """
        try:
            text, _, checksum = (self.path / _CURSOR).read_bytes().strip().rpartition(b" ")
            if int(checksum, 16) == crc32(text):
                segment, offset = text.split()
                return Cursor(int(segment), int(offset))
        except (FileNotFoundError, ValueError):
            pass
        return Cursor()

    def move_cursor(self, cursor: Cursor) -> None:
        """Notes that everything before `cursor` is in the store. Raises OSError.

        The end of the process does not undo it. The end of the machine may, which costs a
        second shipping and nothing else: so nothing waits for the disk here.
        """
        text = b"%d %d" % (cursor.segment, cursor.offset)
        draft = self.path / f"{_CURSOR}.new"
        draft.write_bytes(b"%b %08x\n" % (text, crc32(text)))
        draft.replace(self.path / _CURSOR)

    def remove(self) -> None:
        """Removes it with all that is in it, and lets go of it. Raises OSError."""
        for path in self.path.iterdir():
            if path.name != _LOCK:
                path.unlink()
        # The lock goes last: whoever then comes first finds an empty directory, and keeps it.
        (self.path / _LOCK).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()
        self.release()

    def release(self) -> None:
        """Lets go of the lock: whoever comes next may take the directory over."""
        os.close(self._lock)


def orphans(root: Path) -> Iterator[JournalDirectory]:
    """Takes over every directory under `root` that no living process holds."""
    if not root.is_dir():
        return
    for path in sorted(root.iterdir()):
        if path.name.startswith(_PREFIX) and path.is_dir():
            directory = JournalDirectory.claim(path)
            if directory is not None:
                yield directory


class Quarantine:
    """Keeps bytes that could not be read back, one file each, for a person to look at."""

    def __init__(self, root: Path) -> None:
        self._path = root / "quarantine"

    def keep(self, name: str, data: bytes) -> bool:
        """Keeps `data` durably; False if it has been kept before. Raises OSError."""
        path = self._path / name
        if path.exists():
            return False
        self._path.mkdir(_DIRECTORY_MODE, parents=True, exist_ok=True)
        draft = self._path / f"{name}.new"
        draft.touch(_MODE)
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
        draft.replace(path)
        return True
