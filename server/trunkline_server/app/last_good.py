"""The last stored state that was right, on disk, to start from while the store is away."""

import os
from pathlib import Path
from zlib import crc32

import orjson

from trunkline_server.settings import Stored

_VERSION = 1


class LastGood:
    """A file that is replaced as a whole. It holds what the store does, hashes of keys among it
    but no secrets, and only its owner may read it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, stored: Stored) -> None:
        """Keeps a state. Blocks; raises OSError."""
        body = orjson.dumps(
            {
                "version": _VERSION,
                "revision": stored.revision,
                "drained": sorted(stored.drained),
                "documents": stored.documents,
            }
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"%08x\n" % crc32(body) + body)
            file.flush()
            os.fsync(descriptor)
        beside.replace(self.path)

    def read(self) -> Stored:
        """What was kept. Blocks; raises OSError, and ValueError for a file that is damaged or
        another version's."""
        checksum, _, body = self.path.read_bytes().partition(b"\n")
        if checksum != b"%08x" % crc32(body):
            raise ValueError("it is damaged")
        kept = orjson.loads(body)
        if kept["version"] != _VERSION:
            raise ValueError(f"it is of version {kept['version']}, not {_VERSION}")
        return Stored(kept["documents"], frozenset(kept["drained"]), kept["revision"])
