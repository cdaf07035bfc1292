"""The audit trail of one worker, from its settings: the writer, its spool, its checkpoints."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from functools import lru_cache
from hashlib import sha256
from typing import Literal

from trunkline_server.app.bookkeeping import DATABASE
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.audit.chain import Act
from trunkline_server.governance.audit.checkpoints import CheckpointFile
from trunkline_server.governance.audit.decisions import DecisionAudit, Level
from trunkline_server.governance.audit.ports import Head
from trunkline_server.governance.audit.writer import AuditWriter, WriterOptions
from trunkline_server.privacy.redact import redact
from trunkline_server.settings import AuditSettings, ConfigError, Problem, Settings
from trunkline_server.store.address import InvalidDsnError, open_database
from trunkline_server.store.audit import SqlAuditStore
from trunkline_server.store.database import Database, Limits
from trunkline_server.store.schema import SchemaError, check
from trunkline_server.telemetry.audit import AuditLog
from trunkline_server.telemetry.metrics import Metrics

# The writer writes one batch at a time, and reads where it does not know what was written.
_LIMITS = Limits(connections=2)
# What waits when the process ends has so long to reach the database. Seconds.
_LAST_WRITES = 5.0

# Models come again and again, and request ids never. Texts.
_MOST_NAMES = 1_024

_LEVELS: dict[str, Level] = {"none": "none", "denied": "denied", "all": "all"}


class Audit:
    """What the worker records."""

    def __init__(
        self, writer: AuditWriter, clock: Clock, level: Level, checkpoints: CheckpointFile | None
    ) -> None:
        self.writer = writer
        # None: they are kept in the log alone.
        self.checkpoints = checkpoints
        self._clock = clock
        # None: no decisions are asked for.
        names = lru_cache(_MOST_NAMES)(redact)
        self.decisions = None if level == "none" else DecisionAudit(writer, clock, level, names)

    def taken_over(self, before: Settings | None, after: Settings, snapshot: str) -> None:
        """Records that a configuration is in force, the one `before` no more."""
        changed = [] if before is None else _changed(before, after)
        self._record(
            "config.load" if before is None else "config.reload",
            "config",
            before=before,
            after=after,
            details={"changed": ",".join(changed), "snapshot": snapshot},
        )

    def refused(self, before: Settings, problems: str) -> None:
        """Records that a new configuration was wrong, and that the old one stays."""
        details = {"problems": problems}
        self._record("config.reload", "config", before=before, details=details, outcome="failed")

    def secret(self, action: str, name: str, detail: Mapping[str, str]) -> None:
        """Records a read or a change of a secret; a secrets.ports.SecretAudit."""
        self._record(action, name, details=detail)

    def _record(
        self,
        action: str,
        resource: str,
        *,
        before: Settings | None = None,
        after: Settings | None = None,
        details: Mapping[str, str],
        outcome: Literal["ok", "failed"] = "ok",
    ) -> None:
        process = f"{socket.gethostname()}:{os.getpid()}"
        act = Act(
            at=round(self._clock.wall() * 1e6),
            actor="trunkline",
            action=action,
            resource=resource,
            outcome=outcome,
            before=None if before is None else digest_of(before),
            after=None if after is None else digest_of(after),
            details={"process": process, **details},
        )
        # A full trail does not keep an operator from taking a key away.
        self.writer.record(act, expendable=True)


def _changed(before: Settings, after: Settings) -> list[str]:
    """The sections in which configurations differ."""
    return [
        row.name
        for row in fields(Settings)
        if row.compare and getattr(before, row.name) != getattr(after, row.name)
    ]


def digest_of(settings: Settings) -> bytes:
    """What tells configurations apart; it says nothing of the secrets in them."""
    return sha256(repr(settings).encode()).digest()


@asynccontextmanager
async def audit_kept(
    settings: Settings, clock: Clock, metrics: Metrics, *, last_writes: float = _LAST_WRITES
) -> AsyncGenerator[Audit | None]:
    """The audit trail, while it is kept; None if the settings want none. In the end, what waits
    has `last_writes` seconds to reach the database.

    Raises ConfigError for an address that is none, and OSError when the spool cannot be used or
    the database's schema is not this build's. A database that is away is no hindrance: entries
    wait.
    """
    wanted, secret = settings.audit, settings.state.database
    if wanted is None or secret is None:
        yield None
        return
    try:
        database = await open_database(secret.reveal(), DATABASE, _LIMITS)
    except InvalidDsnError as error:
        raise ConfigError(DATABASE, [Problem(0, DATABASE, str(error))]) from None
    log = AuditLog(metrics)
    try:
        await _check_schema(database, log)
        checkpoints = _checkpoints(wanted)
        writer = _writer(wanted, database, clock, log, checkpoints)
        try:
            await writer.recover()
            running = asyncio.create_task(writer.run())
            running.add_done_callback(lambda task: _ended(task, log))
            try:
                yield Audit(writer, clock, _LEVELS[wanted.decisions], checkpoints)
            finally:
                writer.stop()
                await asyncio.wait([running], timeout=last_writes)
                running.cancel()
                await asyncio.wait([running])
        finally:
            writer.close()
    finally:
        await database.close()


def _checkpoints(wanted: AuditSettings) -> CheckpointFile | None:
    if wanted.checkpoints is None:
        return None
    key = wanted.checkpoint_key
    return CheckpointFile(wanted.checkpoints, b"" if key is None else key.reveal().encode())


def _writer(
    wanted: AuditSettings,
    database: Database,
    clock: Clock,
    log: AuditLog,
    checkpoints: CheckpointFile | None,
) -> AuditWriter:
    def checkpoint(head: Head, at: int) -> None:
        if checkpoints is not None:
            checkpoints.add(head, at)
        log.checkpoint(head.count, head.hash.hex())

    return AuditWriter(
        SqlAuditStore(database),
        clock,
        log,
        WriterOptions(
            max_waiting=wanted.max_waiting,
            on_full="drop" if wanted.on_full == "drop" else "deny",
            spool=wanted.spool,
        ),
        checkpoint,
    )


async def _check_schema(database: Database, log: AuditLog) -> None:
    try:
        await check(database)
    except SchemaError as error:
        raise OSError(str(error)) from error
    except TrunklineError as error:
        log.audit_delayed(0, error.message)


def _ended(task: "asyncio.Task[None]", log: AuditLog) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.stopped(error)
