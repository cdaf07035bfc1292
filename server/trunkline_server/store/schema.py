"""Whether a database has the schema that this build was written for; cheap enough for every start.

The files of `migrations/DATABASE/` are the schema's revisions, in the order of their names;
`migrate.py` applies them.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from trunkline_server.store.database import Database, Dialect, Reader

_MIGRATIONS = Path(__file__).with_name("migrations")

# The table in which Alembic notes the revision; the name is its default.
VERSION_TABLE = "alembic_version"

_LIST_TABLES = {
    Dialect.POSTGRES: "SELECT relname AS name FROM pg_class "
    "WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace",
    Dialect.SQLITE: "SELECT name FROM sqlite_schema WHERE type = 'table'",
}
# Two that tell a database of ours from an empty one and from another program's.
_OURS = frozenset({"resources", "usage_events"})


class SchemaError(Exception):
    """A database whose schema this build cannot work on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the schema; `name` is its file's, without the number and the ending."""

    number: str
    name: str
    path: Path


@cache
def revisions(dialect: Dialect) -> tuple[Revision, ...]:
    """Every revision this build knows, oldest first."""
    paths = sorted((_MIGRATIONS / dialect).glob("*.sql"))
    parts = [path.stem.partition("_") for path in paths]
    return tuple(
        Revision(number, name, path) for (number, _, name), path in zip(parts, paths, strict=True)
    )


async def check(database: Database) -> None:
    """Raises SchemaError unless the database has exactly this build's schema.

    Raises StoreUnavailableError as every query does.
    """
    number = await current(database, database)
    newest = revisions(database.dialect)[-1].number
    if number is None:
        raise SchemaError(f"{_place(database)} has no schema yet: run `trunkline migrate`")
    if number != newest:
        raise SchemaError(
            f"{_place(database)} has schema {number}, which is older than this build's {newest}: "
            "run `trunkline migrate`"
        )


async def current(database: Database, reader: Reader) -> str | None:
    """The revision that the database is at, one of this build's; None if it is empty.

    `reader` runs the queries: the database itself, or a transaction on it.
    Raises SchemaError for every state that no build leaves behind, or that only a newer one does.
    """
    tables = {row["name"] for row in await reader.fetch(_LIST_TABLES[database.dialect])}
    stamps: list[str] = []
    if VERSION_TABLE in tables:
        rows = await reader.fetch(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 # Fixed.
        stamps = [row["version_num"] for row in rows]
    if len(stamps) > 1:
        raise SchemaError(
            f"{_place(database)} claims {len(stamps)} schema versions at once "
            f"({', '.join(sorted(stamps))}): restore a backup"
        )
    if not stamps:
        if tables & _OURS:
            raise SchemaError(
                f"{_place(database)} has tables of Trunkline and no schema version: it was "
                "copied or migrated in part; restore a backup, or begin with an empty database"
            )
        return None
    _known(database, stamps[0])
    return stamps[0]


def _known(database: Database, number: str) -> None:
    known = [each.number for each in revisions(database.dialect)]
    if number in known:
        return
    if number.isdigit() and number > known[-1]:
        raise SchemaError(
            f"{_place(database)} has schema {number}, which is newer than this build's "
            f"{known[-1]}: use the build that migrated it; a schema is never downgraded"
        )
    raise SchemaError(
        f"{_place(database)} has schema {number!r}, which no build of Trunkline has: "
        "is it another program's database?"
    )


def _place(database: Database) -> str:
    return f"the {database.dialect.capitalize()} database at {database.address}"
