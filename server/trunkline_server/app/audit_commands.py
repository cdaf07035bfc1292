"""`trunkline audit verify` and `trunkline audit export`: the trail as it is, and as lines."""

import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from trunkline_server.app.bookkeeping import DATABASE
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.audit.checkpoints import (
    Checkpoint,
    CheckpointError,
    read_checkpoints,
)
from trunkline_server.governance.audit.export import ExportError, from_lines, to_line
from trunkline_server.governance.audit.ports import Record
from trunkline_server.governance.audit.verify import Verification, verify, verify_lines
from trunkline_server.settings import ConfigError, Problem, Settings
from trunkline_server.store.address import InvalidDsnError, open_database
from trunkline_server.store.audit import SqlAuditStore
from trunkline_server.store.schema import SchemaError, check

SOUND = 0
# The trail, or a file of checkpoints, is not as it was written.
TAMPERED = 3


async def verify_trail(
    settings: Settings, checkpoints: Path | None, key: bytes | None = None
) -> int:
    """Verifies the trail in the database, by the checkpoints of a file or of the configuration;
    prints what was found. `key` is what signed them, None the configured one. Raises OSError and
    ConfigError."""
    try:
        known = _checkpoints(settings, checkpoints, key)
    except CheckpointError as error:
        print(f"checkpoints: {error}", file=sys.stderr)
        return TAMPERED
    async with _trail(settings) as trail:
        return _told(await verify(trail.stream, known))


def verify_export(file: Path, checkpoints: Path | None, key: bytes = b"") -> int:
    """Verifies an export, without a database; prints what was found. Raises OSError."""

    def read() -> Iterator[Record]:
        with file.open("rb") as lines:
            yield from from_lines(lines)

    try:
        known = _read_checkpoints(checkpoints, key) if checkpoints is not None else []
        return _told(verify_lines(read, known))
    except CheckpointError as error:
        print(f"checkpoints: {error}", file=sys.stderr)
    except ExportError as error:
        print(f"{file}: {error}", file=sys.stderr)
    return TAMPERED


async def export_trail(settings: Settings, output: BinaryIO) -> int:
    """Writes every entry as a line; the number of them. Raises OSError and ConfigError."""
    count = 0
    async with _trail(settings) as trail, aclosing(trail.stream()) as records:
        async for record in records:
            output.write(to_line(record))
            count += 1
    output.flush()
    return count


@asynccontextmanager
async def _trail(settings: Settings) -> AsyncGenerator[SqlAuditStore]:
    secret = settings.state.database
    if secret is None:
        raise ConfigError(DATABASE, [Problem(0, DATABASE, "is not set")])
    try:
        database = await open_database(secret.reveal(), DATABASE)
    except InvalidDsnError as error:
        raise ConfigError(DATABASE, [Problem(0, DATABASE, str(error))]) from None
    try:
        await check(database)
        yield SqlAuditStore(database)
    except (SchemaError, TrunklineError) as error:
        raise OSError(str(error)) from error
    finally:
        await database.close()


def _checkpoints(settings: Settings, file: Path | None, key: bytes | None) -> Sequence[Checkpoint]:
    """Those of a file, or else those that the configuration keeps."""
    wanted = settings.audit
    if key is None:
        signs = None if wanted is None else wanted.checkpoint_key
        key = b"" if signs is None else signs.reveal().encode()
    if file is None:
        file = None if wanted is None else wanted.checkpoints
        if file is None:
            return []
        if not file.exists():
            print(f"warning: {file} is not there, so nothing tells of a cut end", file=sys.stderr)
            return []
    return _read_checkpoints(file, key)


def _read_checkpoints(file: Path, key: bytes) -> Sequence[Checkpoint]:
    with file.open("rb") as lines:
        return read_checkpoints(lines, key)


def _told(found: Verification) -> int:
    compared = f"{found.checkpoints} checkpoints compared"
    if found.finding is None:
        print(f"sound: {found.head.count} entries, {compared}, ends in {found.head.hash.hex()}")
        return SOUND
    print(found.finding, file=sys.stderr)
    print(f"sound up to entry {found.head.count}, {compared}", file=sys.stderr)
    return TAMPERED
