"""The tables of a new SQLite file, in milliseconds: SQL that was written beforehand.

`migrations/sqlite.sql` is what Alembic writes for an empty file, so that a first start need not
load Alembic. `make generate` writes it, and a test holds it to what the migrations give.
"""

from functools import cache
from pathlib import Path

from trunkline_server.store.address import parse_dsn
from trunkline_server.store.database import Dialect, Limits
from trunkline_server.store.schema import current
from trunkline_server.store.sqlite import SqliteDatabase

SCRIPT = Path(__file__).with_name("migrations") / "sqlite.sql"

# Others may be making the same file. Seconds.
_WAIT_SECONDS = 60.0


async def create(dsn: str, name: str) -> bool:
    """Makes the tables in a SQLite file that has none, itself if need be; False for other files.

    `name` is the field that holds the DSN. Several at once do it once. Raises InvalidDsnError,
    StoreUnavailableError, StoreReadOnlyError, and SchemaError as `schema.current` does.
    """
    address = parse_dsn(dsn, name)
    if address.dialect is not Dialect.SQLITE:
        return False
    limits = Limits(acquire=_WAIT_SECONDS, statement=_WAIT_SECONDS, connections=1)
    database = SqliteDatabase(Path(address.display), limits, create=True)
    try:
        # The transaction holds the write lock from its start.
        async with database.transaction() as transaction:
            if await current(database, transaction) is not None:
                return False
            await transaction.script(_script())
    finally:
        await database.close()
    return True


@cache
def _script() -> str:
    return SCRIPT.read_text(encoding="utf-8")
