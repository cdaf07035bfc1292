"""Brings a database to this build's schema. Alembic plans; the database's own port carries it out.

Alembic runs in its offline mode: it writes the SQL of the steps between two revisions, the notes
in its version table included, and connects to nothing. So all steps are one transaction, under
the lock and with the errors of every other statement. Whoever serves does not import this module.
"""

import io
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionMap

from trunkline_server.store.address import parse_dsn
from trunkline_server.store.database import (
    Database,
    Dialect,
    Limits,
    StoreReadOnlyError,
    StoreUnavailableError,
    Transaction,
)
from trunkline_server.store.postgres import PostgresDatabase
from trunkline_server.store.schema import Revision, SchemaError, current, revisions
from trunkline_server.store.sqlite import SqliteDatabase

# Any number does that all builds share; this one reads "trunklin" in ASCII.
_LOCK = 0x7472756E6B6C696E
# A replica waits so long for another one's migration.
_WAIT_SECONDS = 300.0

_ALEMBIC_NAMES = {Dialect.POSTGRES: "postgresql", Dialect.SQLITE: "sqlite"}


async def upgrade(dsn: str, name: str, *, to: str | None = None) -> list[str]:
    """Applies what is missing, up to revision `to` or the newest, and gives its names.

    `name` is the field that holds the DSN. A SQLite file is created. Several at once do it once.
    Raises InvalidDsnError, StoreUnavailableError, and SchemaError when the database is newer,
    unknown, or refuses a step; then nothing was changed.
    """
    address = parse_dsn(dsn, name)
    limits = Limits(acquire=_WAIT_SECONDS, statement=_WAIT_SECONDS, connections=1)
    database: Database
    if address.dialect is Dialect.SQLITE:
        database = SqliteDatabase(Path(address.display), limits, create=True)
    else:
        # Only waits for others are long: whoever does not answer at all is told of soon.
        patient = Limits(acquire=Limits().acquire, statement=_WAIT_SECONDS, connections=1)
        database = await PostgresDatabase.open(dsn, address.display, patient)
    try:
        return await _upgrade(database, to)
    finally:
        await database.close()


async def _upgrade(database: Database, to: str | None) -> list[str]:
    known = revisions(database.dialect)
    target = to or known[-1].number
    try:
        # SQLite's transaction holds its write lock from the start.
        async with database.transaction() as transaction:
            if database.dialect is Dialect.POSTGRES:
                await transaction.fetch("SELECT pg_advisory_xact_lock($1)", _LOCK)
            at = await current(database, transaction)
            if at is not None and at > target:
                raise SchemaError(
                    f"{database.address} has schema {at}: it is not downgraded to {target}"
                )
            steps = [each for each in known if (at or "") < each.number <= target]
            for step in steps:
                await _apply(database, transaction, step)
    except StoreReadOnlyError as error:
        raise SchemaError(
            f"{error.message}; migrate with a user and a server that may write"
        ) from error
    return [f"{step.number}_{step.name}" for step in steps]


async def _apply(database: Database, transaction: Transaction, step: Revision) -> None:
    known = revisions(database.dialect)
    before = known[known.index(step) - 1].number if step is not known[0] else None
    try:
        await transaction.script(plan(database.dialect, before, step.number))
    except StoreUnavailableError:
        raise
    except Exception as error:
        # Whatever the driver raises for a statement that the server refuses.
        raise SchemaError(
            f"{database.address} refuses migration {step.path.name}, nothing was changed: {error}"
        ) from error


def plan(dialect: Dialect, before: str | None, to: str) -> str:
    """The SQL that brings a database from one revision to another, as Alembic writes it."""
    written = io.StringIO()
    directory = _SqlDirectory(dialect, written)
    context = MigrationContext.configure(
        dialect_name=_ALEMBIC_NAMES[dialect],
        opts={
            "as_sql": True,
            "output_buffer": written,
            "starting_rev": before,
            "script": directory,
            "fn": directory.steps_to(to),
            # The transaction is ours.
            "transactional_ddl": False,
        },
    )
    with Operations.context(context):
        context.run_migrations()
    return written.getvalue()


class _SqlDirectory(ScriptDirectory):
    """Alembic's directory of scripts, whose scripts are plain SQL files in a row."""

    def __init__(self, dialect: Dialect, written: io.StringIO) -> None:
        known = revisions(dialect)
        super().__init__(known[0].path.parent)
        scripts: list[Script] = []
        before: str | None = None
        for each in known:
            module = _module(each, before, written)
            scripts.append(Script(module, each.number, each.path))
            before = each.number
        self.revision_map = RevisionMap(lambda: scripts)

    def steps_to(self, to: str) -> Callable[[Any, MigrationContext], Iterable[RevisionStep]]:
        """The function by which Alembic asks for the steps of an upgrade."""

        def steps(at: Any, _: MigrationContext) -> Iterable[RevisionStep]:
            found: Iterable[RevisionStep] = self._upgrade_revs(to, at)
            return found

        return steps


def _module(revision: Revision, before: str | None, written: io.StringIO) -> types.ModuleType:
    """What Alembic wants of a revision: a module."""

    def upgrade() -> None:
        written.write(revision.path.read_text(encoding="utf-8") + "\n")

    module = types.ModuleType(f"trunkline_migration_{revision.number}", revision.name)
    vars(module).update(revision=revision.number, down_revision=before, upgrade=upgrade)
    return module
