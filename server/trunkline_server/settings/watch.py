"""Notices when the configuration changes, and hands over the new one if it is right."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from trunkline_server.settings.known import Known
from trunkline_server.settings.parse import load
from trunkline_server.settings.problems import ConfigError
from trunkline_server.settings.schema import Settings

Sleep = Callable[[float], Awaitable[None]]


class ConfigWatcher:
    """Watches a configuration file and the files that its values come from.

    `changed` is called with new settings that are right, `refused` with what is wrong with
    the others; the owner then keeps the settings in force. The state at construction is taken
    to be the one in force. A change is told by the contents, once the file's identity, size or
    time of change gives cause to read them: touching a file is no change.
    """

    def __init__(
        self,
        path: str | Path,
        changed: Callable[[Settings], None],
        refused: Callable[[ConfigError], None],
        *,
        known: Known,
        env: Mapping[str, str] | None = None,
        read: Callable[[], Settings] | None = None,
        interval: float = 1.0,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`read` gives the new settings and raises ConfigError; None loads the file. `interval`
        is in seconds; `sleep` is what passes it."""
        self._path = Path(path)
        self._changed = changed
        self._refused = refused
        self._read = read or partial(load, self._path, env, known)
        self._interval = interval
        self._sleep = sleep
        self._forced = False
        self._files: tuple[Path, ...] = ()
        try:
            self._files = self._read().files
        except ConfigError as error:
            self._files = error.files
        self._marks = self._stat()
        self._digests = self._hash()

    async def run(self) -> None:
        """Watches until cancelled."""
        while True:
            await self._sleep(self._interval)
            self.poll()

    def reload(self) -> None:
        """Reads everything again at once, changed or not, as on SIGHUP."""
        self._forced = True
        self.poll()

    def poll(self) -> None:
        """Looks once, and calls back if there is something new."""
        marks = self._stat()
        if marks == self._marks and not self._forced:
            return
        # Marks are taken before contents: what changes in between is noticed next time.
        self._marks = marks
        digests = self._hash()
        if digests == self._digests and not self._forced:
            return
        self._digests = digests
        self._forced = False
        try:
            settings = self._read()
        except ConfigError as error:
            self._watch(error.files)
            self._refused(error)
        else:
            self._watch(settings.files)
            self._changed(settings)

    def _watch(self, files: tuple[Path, ...]) -> None:
        """Goes on with the files that the configuration names now."""
        if files != self._files:
            self._files = files
            self._marks = self._stat()
            self._digests = self._hash()

    def _stat(self) -> tuple[object, ...]:
        return tuple(_mark(file) for file in (self._path, *self._files))

    def _hash(self) -> tuple[object, ...]:
        return tuple(_digest(file) for file in (self._path, *self._files))


def _mark(file: Path) -> tuple[int, int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _digest(file: Path) -> bytes | None:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return None
