"""A real Postgres, in a temporary directory."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped] # It ships no marker of its types.

from tests.support.server_process import ServerProcess, find_program

USER = "trunkline"
# Odd on purpose: a DSN must quote it, and no message may show it.
PASSWORD = "p@ss/w:rd-of-a-test"
QUOTED_PASSWORD = "p%40ss%2Fw%3Ard-of-a-test"

_numbers = count(1)

# Commits reach the operating system and not the disk: they survive the server's crash, which
# is all that tests bring about, and not the machine's.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "16MB",
    "max_connections": "80",
    "autovacuum": "off",
    "jit": "off",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
}


def postgres_programs() -> Path | None:
    """The directory with postgres and initdb, or None."""
    places = ("usr/lib/postgresql/*/bin", "usr/local/pgsql/bin")
    server = find_program("postgres", *places)
    # PATH may hold a link to the server and not to initdb, which stands beside the real one.
    home = server.resolve().parent if server else None
    return home if home and (home / "initdb").exists() else None


class PostgresServer(ServerProcess):
    """A Postgres with one superuser. `settings` are those of postgresql.conf.

    `template` is an initialised data directory to copy, which is faster than making one.
    """

    def __init__(
        self,
        programs: Path,
        settings: Mapping[str, str] | None = None,
        template: Path | None = None,
    ) -> None:
        super().__init__()
        self._programs = programs
        self.settings = {**_SETTINGS, **(settings or {})}
        self.data = self.directory / "data"
        if template is None:
            self._initialise()
        else:
            self.run("cp", "-R", str(template), str(self.data))

    def command(self) -> Sequence[str]:
        settings = [f"--{name}={value}" for name, value in self.settings.items()]
        program = str(self._programs / "postgres")
        return [program, "-D", str(self.data), f"--port={self.port}", *settings]

    def is_ready(self) -> bool:
        # The eighth line is the state; the first tells this run's file from a crashed one's.
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return lines[0] == str(self.pid) and len(lines) > 7 and lines[7].strip() == "ready"

    def dsn(self, database: str = "postgres", *, port: int | None = None) -> str:
        """The DSN of a database, through another port, such as a proxy's, if one is given."""
        return f"postgres://{USER}:{QUOTED_PASSWORD}@{self.host}:{port or self.port}/{database}"

    async def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Runs one statement as the superuser and gives its rows."""
        connection = await asyncpg.connect(self.dsn(database))
        try:
            rows: list[Any] = await connection.fetch(statement)
        finally:
            await connection.close()
        return rows

    @asynccontextmanager
    async def database(self) -> AsyncGenerator[str]:
        """The name of a fresh database; it goes in the end, whoever is connected."""
        name = f"test_{next(_numbers)}"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
        yield name
        await self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _initialise(self) -> None:
        password = self.directory / "password"
        password.write_text(PASSWORD)
        self.own(password)
        self.run(
            str(self._programs / "initdb"),
            *("--pgdata", str(self.data), "--username", USER, "--pwfile", str(password)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"),
            *("--wal-segsize", "1", "--no-sync", "--no-instructions"),
        )
