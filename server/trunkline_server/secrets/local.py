"""Secrets of this machine: environment variables, mounted files, our own encrypted records."""

import asyncio
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from trunkline_server.secrets.ports import (
    SecretRefusedError,
    SecretUnavailableError,
    SecretValue,
)
from trunkline_server.secrets.records import EncryptedRecords
from trunkline_server.secrets.references import Reference

_MAX_BYTES = 64 * 1024
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
RECORD_KIND = "secret"


class EnvSource:
    """`env:NAME`. A process's environment does not change, so its version never does."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    async def fetch(self, reference: str) -> SecretValue:
        """As SecretSource.fetch."""
        name = Reference.parse(reference).path
        if not _VARIABLE.match(name):
            raise SecretRefusedError("env: is followed by the name of a variable")
        value = self._env.get(name, "").strip()
        if not value:
            raise SecretRefusedError(f"the environment variable {name} is not set or empty")
        return SecretValue(value, "environment")


class FileSource:
    """`file:PATH`, read anew each time; a relative path starts at `base`.

    The version is the file's identity, size and time of change. Kubernetes swaps a symbolic
    link to a new folder when it updates a mounted secret, so that the path leads to another
    file at once and whole: another version even where size and time are the same.
    """

    def __init__(self, base: Path) -> None:
        self._base = base

    async def fetch(self, reference: str) -> SecretValue:
        """As SecretSource.fetch."""
        path = Reference.parse(reference).path
        # In a thread: a network file system may hang.
        value, version = await asyncio.to_thread(_read, reference, self._base, path)
        if not value:
            raise SecretRefusedError(f"{reference}: the file is empty")
        return SecretValue(value, version)


def _read(reference: str, base: Path, name: str) -> tuple[str, str]:
    path = base / Path(name).expanduser()
    try:
        with path.open("rb") as file:
            # Of the open file, which a swap of links does not change under our hands.
            status = os.fstat(file.fileno())
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise SecretRefusedError(f"{reference}: there is no such file") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SecretUnavailableError(f"{reference}: cannot be read: {reason}") from None
    if len(data) > _MAX_BYTES:
        raise SecretRefusedError(f"{reference}: the file is larger than 64 KiB")
    try:
        value = data.decode().strip()
    except UnicodeDecodeError:
        raise SecretRefusedError(f"{reference}: the file is not UTF-8 text") from None
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return value, hashlib.sha256(repr(identity).encode()).hexdigest()[:16]


class StoreSource:
    """`store:NAME`: our own encrypted records; the version is the record's etag."""

    def __init__(self, records: EncryptedRecords) -> None:
        self._records = records

    async def fetch(self, reference: str) -> SecretValue:
        """As SecretSource.fetch; raises EnvelopeError too."""
        name = Reference.parse(reference).path
        found = await self._records.read(RECORD_KIND, name)
        if found is None:
            raise SecretRefusedError(f"{reference}: there is no such secret")
        content, etag = found
        return SecretValue(content.decode(), etag)
