"""Writes the SQL that makes the tables of a new SQLite file, from the migrations."""

from trunkline_server.store.database import Dialect
from trunkline_server.store.fresh import SCRIPT
from trunkline_server.store.migrate import plan
from trunkline_server.store.schema import revisions


def fresh_schema() -> str:
    """The script: every step's SQL, and the notes of Alembic's version table."""
    steps = revisions(Dialect.SQLITE)
    before = [None, *(step.number for step in steps)]
    parts = [plan(Dialect.SQLITE, at, step.number) for at, step in zip(before, steps, strict=False)]
    return "-- Made by `make generate` from migrations/sqlite.\n\n" + "\n".join(parts)


if __name__ == "__main__":
    SCRIPT.write_text(fresh_schema(), encoding="utf-8")
