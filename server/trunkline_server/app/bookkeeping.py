"""The ledger of one worker, from its settings: the database, the journal, the recorder."""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

from trunkline_server.clock import Clock
from trunkline_server.engine.call import Call
from trunkline_server.engine.ports import Caller
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.identity.principal import Principal
from trunkline_server.ledger.journal import JournalOptions
from trunkline_server.ledger.ledger import Ledger, LedgerOptions
from trunkline_server.ledger.recorder import NO_FACTS, CallFacts, Origin, Owner, Recorder
from trunkline_server.ledger.retention import Retention, RetentionOptions
from trunkline_server.settings import ConfigError, Problem, Settings
from trunkline_server.store.address import InvalidDsnError, open_database
from trunkline_server.store.database import Database, Dialect
from trunkline_server.store.fresh import create
from trunkline_server.store.schema import SchemaError, check
from trunkline_server.store.usage_sql import UsageTable
from trunkline_server.store.usage_sqlite import SqliteUsage
from trunkline_server.telemetry.ledger import LedgerLog
from trunkline_server.telemetry.metrics import Metrics

DATABASE = "state.database"

# How long a start waits for the events of workers that were killed. Seconds.
_CATCH_UP = 10.0


@dataclass(frozen=True, slots=True)
class Books:
    """What the worker needs of the ledger: who writes events, and when they are safe."""

    ledger: Ledger
    recorder: Recorder
    usage: UsageTable

    def admit(self) -> None:
        """As engine.ports.Books."""
        self.ledger.journal.admit()

    async def committed(self) -> None:
        """As engine.ports.Books."""
        await self.ledger.journal.committed()


async def prepare_database(settings: Settings) -> None:
    """Makes the tables of a SQLite file, or brings them up to date.

    Another database's are an operator's to migrate, and are checked when it is opened. Raises
    ConfigError for an address that is none, and OSError when it cannot be done.
    """
    secret = settings.state.database
    if secret is None or not secret.reveal().startswith("sqlite:"):
        return
    if not await _is_current(secret.reveal()) and not await _made(secret.reveal()):
        await _migrate_apart(secret.reveal())


async def _made(dsn: str) -> bool:
    """Whether a new file was made; what is wrong with another one, migrating tells."""
    try:
        return await create(dsn, DATABASE)
    except (InvalidDsnError, SchemaError, TrunklineError):
        return False


async def _migrate_apart(dsn: str) -> None:
    """Migrates a SQLite file in a process of its own, which takes 30 MB with it when it ends."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline_server.app.migrating", dsn),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await child.communicate()
    if child.returncode:
        raise OSError(told.decode(errors="replace").strip())


async def _is_current(dsn: str) -> bool:
    """Whether the database's schema is this build's; if not, `migrate` says what is wrong."""
    try:
        database = await open_database(dsn, DATABASE)
    except InvalidDsnError:
        return False
    try:
        await check(database)
    except (SchemaError, TrunklineError):
        return False
    finally:
        await database.close()
    return True


async def migrate(settings: Settings) -> list[str]:
    """Brings the database's tables up to date; the names of the steps that were needed.

    Raises as `prepare_database` does.
    """
    # It tells of each step at level info, which is for what the router does.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Alembic takes a third of a second to import.
    from trunkline_server.store.migrate import upgrade  # noqa: PLC0415

    secret = settings.state.database
    if secret is None:
        raise ConfigError(DATABASE, [Problem(0, DATABASE, "is not set")])
    try:
        return await upgrade(secret.reveal(), DATABASE)
    except InvalidDsnError as error:
        raise ConfigError(DATABASE, [Problem(0, DATABASE, str(error))]) from None
    except (SchemaError, TrunklineError) as error:
        raise OSError(str(error)) from error


@asynccontextmanager
async def books_kept(
    settings: Settings, clock: Clock, metrics: Metrics
) -> AsyncGenerator[Books | None]:
    """The ledger, while it is kept; None if the settings want none.

    Raises ConfigError for an address that is none, and OSError when the journal cannot be
    written or the database's schema is not this build's. A database that is away is no
    hindrance: events wait in the journal.
    """
    wanted, secret = settings.ledger, settings.state.database
    if wanted.journal is None or secret is None:
        yield None
        return
    try:
        database = await open_database(secret.reveal(), DATABASE)
    except InvalidDsnError as error:
        raise ConfigError(DATABASE, [Problem(0, DATABASE, str(error))]) from None
    log = LedgerLog(metrics)
    try:
        await _check_schema(database, log)
        usage = usage_of(database)
        ledger = Ledger(
            wanted.journal,
            usage,
            clock,
            log,
            LedgerOptions(
                JournalOptions(
                    sync="group" if wanted.sync == "group" else "none",
                    on_full="allow" if wanted.on_full == "allow" else "deny",
                    max_bytes=wanted.max_bytes,
                )
            ),
        )
        origin = Origin(socket.gethostname(), str(os.getpid()), version("trunkline-server"))
        if settings.budgets:
            # They begin with the ledger's sums, which must hold what a killed worker left.
            await ledger.catch_up(_CATCH_UP)
        ledger.start()
        retention = Retention(usage, clock, RetentionOptions(keep=wanted.retention), log)
        deleting = asyncio.create_task(retention.run()) if wanted.retention else None
        try:
            recorder = Recorder(ledger.write, clock, origin, owner_of=_owner, facts_of=_facts)
            yield Books(ledger, recorder, usage)
        finally:
            if deleting is not None:
                deleting.cancel()
            await ledger.close()
    finally:
        await database.close()


def _owner(caller: Caller) -> Owner:
    if not isinstance(caller, Principal):
        return Owner()
    return Owner(caller.tenant, caller.project, caller.tier, caller.service)


def _facts(call: Call) -> CallFacts:
    if not call.cache_status:
        return NO_FACTS
    return CallFacts(
        cache_status=call.cache_status,
        cache_hit_kind=call.cache_hit_kind,
        saved_cost_nanos=call.saved_nanos,
    )


async def _check_schema(database: Database, log: LedgerLog) -> None:
    try:
        await check(database)
    except SchemaError as error:
        raise OSError(str(error)) from error
    except TrunklineError as error:
        log.ship_failed(error.message, 0)


def usage_of(database: Database) -> UsageTable:
    """The table of usage events in a database."""
    if database.dialect is Dialect.SQLITE:
        return SqliteUsage(database)
    # As in store.address: its client takes memory.
    from trunkline_server.store.usage_postgres import PostgresUsage  # noqa: PLC0415

    return PostgresUsage(database)
