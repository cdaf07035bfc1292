"""`trunkline migrate` as operators run it: what it says of every database that it finds."""

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.postgres_server import QUOTED_PASSWORD, USER, PostgresServer
from tests.support.process import PLAIN_USER, START_SECONDS
from trunkline_server.store import schema
from trunkline_server.store.database import Dialect
from trunkline_server.store.migrate import upgrade

TRUNKLINE = str(Path(sys.executable).with_name("trunkline"))
NEWEST = schema.revisions(Dialect.SQLITE)[-1].number
# No database is as new as this.
FUTURE = "9000"


def config_of(folder: Path, database: str) -> Path:
    """A configuration with this `state.database`."""
    path = folder / "trunkline.yaml"
    path.write_text(
        "providers: {local: {dialect: openai, base_url: 'http://127.0.0.1:9/v1'}}\n"
        f"state: {{database: '{database}', owns: [limits]}}\n"
    )
    return path


def run(
    command: str, config: Path, dsn: str = "", plain: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    """Runs `trunkline migrate CONFIG`, or `serve`, which must end by itself; after `plain`."""
    words = [*plain, TRUNKLINE, command]
    if command == "serve":
        words.append("--config")
    words.append(str(config))
    if command == "serve":
        words += ["--listen", f"127.0.0.1:{free_port()}", "--ops-listen", "off"]
    return subprocess.run(
        words,
        env={**os.environ, "DSN": dsn},
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * START_SECONDS,
    )


def stamp(path: Path, number: str) -> None:
    """Notes another schema in a SQLite file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (number,))


def test_a_new_sqlite_file_is_made_once(tmp_path: Path) -> None:
    config = config_of(tmp_path, "sqlite:///state.db")
    first, again = run("migrate", config), run("migrate", config)
    numbers = re.findall(r"^applied (\d+)_\w+$", first.stdout, re.MULTILINE)
    assert numbers == [each.number for each in schema.revisions(Dialect.SQLITE)]
    assert (first.returncode, again.returncode) == (0, 0)
    assert (again.stdout, first.stderr, again.stderr) == ("nothing to do\n", "", "")


@pytest.mark.parametrize(
    ("database", "complaint"),
    [
        ("mysql://host/db", "'mysql' is no database of ours"),
        ("sqlite://relative.db", "a SQLite DSN is sqlite:///FILE"),
        ("postgres://host:none/db", "host and port cannot be read"),
        ("postgres://me:pass-of-a-test@host/db", "holds a password"),
        ("env:NOT_SET_AT_ALL", "NOT_SET_AT_ALL is not set; export NOT_SET_AT_ALL"),
    ],
)
def test_a_wrong_address_names_its_field(tmp_path: Path, database: str, complaint: str) -> None:
    done = run("migrate", config_of(tmp_path, database))
    assert done.returncode == 2
    assert "state.database" in done.stderr
    assert complaint in done.stderr
    assert "pass-of-a-test@" not in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_database_there_is_nothing_to_migrate(tmp_path: Path) -> None:
    config = tmp_path / "trunkline.yaml"
    config.write_text("providers: {local: {dialect: openai, base_url: 'http://127.0.0.1:9'}}\n")
    done = run("migrate", config)
    assert (done.returncode, "state.database: is not set" in done.stderr) == (2, True)


async def test_an_old_sqlite_file_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await upgrade(f"sqlite:///{path}", "dsn", to="0001")
    done = run("migrate", config_of(tmp_path, "sqlite:///state.db"))
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith("applied 0002_")


@pytest.mark.parametrize("command", ["migrate", "serve"])
async def test_a_newer_sqlite_file_is_left_alone(tmp_path: Path, command: str) -> None:
    path = tmp_path / "state.db"
    await upgrade(f"sqlite:///{path}", "dsn")
    stamp(path, FUTURE)
    done = run(command, config_of(tmp_path, "sqlite:///state.db"))
    assert done.returncode == 1
    assert (
        f"has schema {FUTURE}, which is newer than this build's {NEWEST}: use the build that "
        "migrated it; a schema is never downgraded"
    ) in done.stderr
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [
            (FUTURE,)
        ]


def test_a_read_only_sqlite_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch(0o400)
    done = run("migrate", config_of(tmp_path, "sqlite:///state.db"), plain=PLAIN_USER)
    assert (done.returncode, "migrate with a user" in done.stderr) == (1, True)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("These are notes, and no database at all." * 100)
    done = run("migrate", config_of(tmp_path, "sqlite:///state.db"))
    assert (done.returncode, "file is not a database" in done.stderr) == (1, True)
    assert "state.db" in done.stderr


async def test_an_old_postgres_is_told_to_migrate_and_then_served(
    tmp_path: Path, postgres_dsn: str
) -> None:
    config = config_of(tmp_path, "env:DSN")
    await upgrade(postgres_dsn, "dsn", to="0001")
    refused = run("serve", config, postgres_dsn)
    assert refused.returncode == 1
    assert (
        f"has schema 0001, which is older than this build's {NEWEST}: run `trunkline migrate`"
    ) in refused.stderr
    done = run("migrate", config, postgres_dsn)
    assert (done.returncode, done.stdout.startswith("applied 0002_")) == (0, True)


async def test_a_newer_postgres_is_left_alone(
    tmp_path: Path, postgres_dsn: str, postgres_server: PostgresServer
) -> None:
    await upgrade(postgres_dsn, "dsn")
    name = postgres_dsn.rpartition("/")[2]
    await postgres_server.execute("UPDATE alembic_version SET version_num = '9000'", name)
    config = config_of(tmp_path, "env:DSN")
    for command in ("migrate", "serve"):
        done = run(command, config, postgres_dsn)
        assert done.returncode == 1
        assert f"has schema {FUTURE}, which is newer than this build's {NEWEST}" in done.stderr
        assert QUOTED_PASSWORD not in done.stderr


def test_a_read_only_postgres_is_named(
    tmp_path: Path, new_postgres: Callable[..., PostgresServer]
) -> None:
    server = new_postgres(default_transaction_read_only="on")
    done = run("migrate", config_of(tmp_path, "env:DSN"), server.dsn())
    assert done.returncode == 1
    assert "is read-only" in done.stderr
    assert "migrate with a user and a server that may write" in done.stderr
    assert QUOTED_PASSWORD not in done.stderr


@pytest.mark.parametrize(
    ("dsn", "complaint"),
    [
        (f"postgres://{USER}:wrong-of-a-test@{{address}}/postgres", "password authentication"),
        (f"postgres://{USER}:{QUOTED_PASSWORD}@{{address}}/nowhere", "does not exist"),
        ("postgres://127.0.0.1:{port}/postgres", "is unavailable"),
    ],
)
def test_a_postgres_that_lets_nobody_in_is_named(
    tmp_path: Path, postgres_server: PostgresServer, dsn: str, complaint: str
) -> None:
    address = dsn.format(address=postgres_server.address, port=free_port())
    done = run("migrate", config_of(tmp_path, "env:DSN"), address)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert "wrong-of-a-test" not in done.stderr
    assert QUOTED_PASSWORD not in done.stderr
    assert "Traceback" not in done.stderr


def test_commands_that_begin_together_migrate_once(tmp_path: Path, postgres_dsn: str) -> None:
    """The whole is said once, whoever of them says it."""
    config = config_of(tmp_path, "env:DSN")
    env = {**os.environ, "DSN": postgres_dsn}
    words = [TRUNKLINE, "migrate", str(config)]
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            )
            for _ in range(3)
        ]
        for each in running:
            # Before it is waited for.
            stack.callback(each.kill)
        said = [each.communicate(timeout=4 * START_SECONDS)[0].decode() for each in running]
    assert [each.returncode for each in running] == [0] * 3, said
    assert sorted(said)[1:] == ["nothing to do\n"] * 2
    assert min(said).count("applied") == len(schema.revisions(Dialect.POSTGRES))
