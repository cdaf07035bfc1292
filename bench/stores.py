"""The stores that routers share: a real Redis and a real Postgres, started for the bench."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.support.postgres_server import PostgresServer, postgres_programs
from tests.support.redis_server import RedisServer, redis_program

from bench.common.child import Running

# As an operator would have it: commits reach the disk, and the log is not tiny.
_POSTGRES = {
    "fsync": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
    "wal_level": "replica",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
}
_COUNT_EVENTS = "SELECT count(*) FROM usage_events"


@dataclass(frozen=True, slots=True)
class Redis:
    """A Redis that serves. Each router counts in a database of its own."""

    server: RedisServer
    _databases: Iterator[int]

    def database(self) -> str:
        """The URL of a database that nobody has used; there are sixteen."""
        return f"redis://{self.server.address}/{next(self._databases)}"

    def counter(self, name: str) -> int:
        """A number of INFO's section stats, such as total_commands_processed."""
        for line in self.server.ask("INFO", "stats").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.partition(":")[2])
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Postgres:
    """A Postgres that serves. Each router writes to a database of its own."""

    server: PostgresServer
    _numbers: Iterator[int]

    def database(self) -> str:
        """The DSN of an empty database."""
        name = f"bench_{next(self._numbers)}"
        asyncio.run(self.server.execute(f"CREATE DATABASE {name}"))
        return self.server.dsn(name)

    def number(self, question: str, dsn: str) -> int:
        """What a query with one number as its answer gives, in the database of `dsn`."""
        rows = asyncio.run(self.server.execute(question, dsn.rpartition("/")[2]))
        return int(rows[0][0])

    def statements(self) -> int:
        """The statements that clients have sent so far, where log_statement is "all"."""
        log = self.server.log
        return log.count("LOG:  statement: ") + log.count("LOG:  execute ")

    def events(self, dsn: str) -> int:
        """The usage events in the database of `dsn`."""
        return self.number(_COUNT_EVENTS, dsn)


def sqlite_events(path: Path) -> int:
    """The usage events in a SQLite file."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(_COUNT_EVENTS).fetchone()[0])


@dataclass(frozen=True, slots=True)
class Stores:
    """What could be started, and why the rest could not."""

    redis: Redis | None
    postgres: Postgres | None
    missing: tuple[str, ...]


@contextmanager
def started(**postgres_settings: str) -> Iterator[Stores]:
    """Starts what is installed, and ends it."""
    missing = []
    redis: Redis | None = None
    postgres: Postgres | None = None
    with ExitStack() as ending:
        program, programs = redis_program(), postgres_programs()
        if program is None:
            missing.append("redis-server was not found")
        else:
            server = RedisServer(program)
            ending.callback(server.close)
            server.start()
            redis = Redis(server, count())
        if programs is None:
            missing.append("postgres and initdb were not found")
        else:
            database = PostgresServer(programs, {**_POSTGRES, **postgres_settings})
            ending.callback(database.close)
            database.start()
            postgres = Postgres(database, count())
        yield Stores(redis, postgres, tuple(missing))


def spender(store: RedisServer | PostgresServer, router: Running) -> Running:
    """The router's address with the store's process: what is sent there is then accounted to
    the store."""
    return Running(router.name, store.pid, router.address, 0.0)
