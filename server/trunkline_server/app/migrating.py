"""Brings a SQLite file's tables up to date, as a process of its own.

usage: python -m trunkline_server.app.migrating sqlite:///FILE
"""

import asyncio
import logging
import sys

from trunkline_server.errors import TrunklineError
from trunkline_server.store.address import InvalidDsnError
from trunkline_server.store.migrate import upgrade
from trunkline_server.store.schema import SchemaError


def main(dsn: str) -> int:
    """Returns the exit code; why it is not 0 is the last line of what it writes to stderr."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        asyncio.run(upgrade(dsn, "state.database"))
    except (InvalidDsnError, SchemaError) as error:
        print(error, file=sys.stderr)
        return 1
    except TrunklineError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
