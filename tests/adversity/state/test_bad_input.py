"""Wrong, missing and refusing databases, disks and Redis under a router as operators run it.

Each time an operator learns from one line what is wrong, and nothing of the books is lost.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped] # It ships no marker of its types.
import pytest
from bench.proofs.books import events_since

from tests.support.mortal import mortal
from tests.support.postgres_server import PostgresServer
from tests.support.process import PLAIN_USER, START_SECONDS, RouterProcess, router_process
from tests.support.redis_server import RedisServer
from tests.support.router import PATIENCE, ask, channel_to
from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.ledger.frames import frame
from trunkline_server.simulator.app import Simulator
from trunkline_server.store.migrate import upgrade

TRUNKLINE = str(Path(sys.executable).with_name("trunkline"))
AWAY = "shared counters are away"
BACK = "shared counters are back"
SILENT = "ledger database does not answer"


@pytest.fixture
async def simulator() -> AsyncGenerator[Simulator]:
    async with Simulator(port=0) as running:
        yield running


class Setting:
    """A configuration in a folder, and commands that are run with it."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        self.folder = folder
        self.path = folder / "trunkline.yaml"
        self.database = f"sqlite:///{folder}/usage.db"
        self.redis = ""
        self.journal = folder / "journal"
        self._upstream = f"{simulator.url}/openai/v1"

    @property
    def env(self) -> dict[str, str]:
        return {"TEST_KEY": "sk-test", "DATABASE": self.database, "REDIS": self.redis}

    def write(self) -> str:
        """Writes the configuration; its path."""
        redis = ", redis: 'env:REDIS'" if self.redis else ""
        self.path.write_text(
            "providers:\n"
            f"  sim: {{kind: openai, base_url: '{self._upstream}', api_key: 'env:TEST_KEY'}}\n"
            "deployments:\n"
            "  - {name: d, provider: sim, model: sim-large, capabilities: [chat, streaming],\n"
            "     max_output_tokens: 500, price: {input: '2', output: '8'}}\n"
            "limits: {many: {measure: requests, scope: key, amount: 100000}}\n"
            f"state: {{database: 'env:DATABASE'{redis}}}\n"
            f"ledger: {{journal: '{self.journal}'}}\n"
        )
        return str(self.path)

    def router(self) -> Any:
        """A router that serves."""
        return router_process("--config", self.write(), env=self.env)

    async def run(self, command: str, *more: str, plain: Sequence[str] = ()) -> tuple[int, str]:
        """The exit code of a command, and what it wrote to standard error."""
        words = ["--config", self.write()] if command == "serve" else [self.write()]
        process = await asyncio.create_subprocess_exec(
            *mortal([*plain, TRUNKLINE, command, *words, *more]),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self.env},
        )
        async with asyncio.timeout(START_SECONDS):
            _, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, errors.decode()

    async def booked(self, count: int) -> list[admin.UsageEvent]:
        """The events of calls, once there are so many."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    events = await events_since(self.database, 0)
                except (OSError, asyncpg.PostgresError):
                    events = []
                calls = [each for each in events if each.kind == admin.USAGE_EVENT_KIND_CALL]
                if len(calls) >= count:
                    return calls
                # Another process fills it, and tells nobody.
                await asyncio.sleep(0.05)


@pytest.fixture
def setting(tmp_path: Path, simulator: Simulator) -> Setting:
    return Setting(tmp_path, simulator)


async def answered(router: RouterProcess, count: int) -> set[str]:
    """Makes calls, all of which must be answered; their ids."""
    async with channel_to(router.address) as channel:
        stub = InferenceServiceStub(channel)
        calls = [
            stub.Generate(ask(f"number {number}", model="sim-large"), timeout=PATIENCE)
            for number in range(count)
        ]
        answers: list[v1.GenerateResponse] = list(await asyncio.gather(*calls))
    return {answer.id for answer in answers}


def ids(events: Sequence[admin.UsageEvent]) -> list[str]:
    return sorted(event.request_id for event in events)


async def named(router: RouterProcess, problem: str) -> dict[str, Any]:
    """The log's line that names a problem. On a loaded machine another one may come first."""
    async with asyncio.timeout(START_SECONDS), router.changed:
        while True:
            for row in router.log:
                if problem in str(row.get("problem")):
                    return row
            await router.changed.wait()


def one_line(text: str) -> str:
    """The one line that a text is; grpc's own chatter aside."""
    (line,) = text.splitlines()
    return line


async def test_a_database_that_is_not_there_is_named_and_filled_once_it_is(
    setting: Setting, postgres_server: PostgresServer
) -> None:
    setting.database = postgres_server.dsn("made_later")
    code, errors = await setting.run("migrate")
    assert code == 1
    assert 'database "made_later" does not exist' in one_line(errors)
    try:
        async with setting.router() as router:
            told = await answered(router, 3)
            line = await router.logged(SILENT)
            assert 'database "made_later" does not exist' in line["problem"]
            assert postgres_server.address in line["problem"]
            await postgres_server.execute("CREATE DATABASE made_later TEMPLATE template0")
            await upgrade(setting.database, "dsn")
            assert ids(await setting.booked(3)) == sorted(told)
            await router.logged("ledger database is back")
    finally:
        await postgres_server.execute("DROP DATABASE IF EXISTS made_later WITH (FORCE)")


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
@pytest.mark.parametrize("age", ["older", "newer"])
async def test_a_schema_of_another_build_is_refused_in_one_line(
    setting: Setting, postgres_dsn: str, dialect: str, age: str
) -> None:
    if dialect == "postgres":
        setting.database = postgres_dsn
    await upgrade(setting.database, "dsn", to="0002" if age == "older" else None)
    if age == "newer":
        await note_a_later_build(setting.database)
    elif dialect == "sqlite":
        # A file of one's own is brought up to date by whoever serves from it.
        async with setting.router() as router:
            assert ids(await setting.booked(0)) == []
            await answered(router, 1)
            await setting.booked(1)
        return
    code, errors = await setting.run("serve")
    assert code == 1
    line = one_line(errors)
    if age == "newer":
        assert "9999, which is newer than this build's" in line
    else:
        assert "older than" in line
        assert "run `trunkline migrate`" in line
    assert "p%40ss" not in line


async def note_a_later_build(database: str) -> None:
    """Has the database say that a later build has migrated it."""
    statement = "UPDATE alembic_version SET version_num = '9999'"
    if database.startswith("sqlite"):
        import sqlite3  # noqa: PLC0415 - for this alone
        from contextlib import closing  # noqa: PLC0415 - likewise

        with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
            connection.execute(statement)
            connection.commit()
        return
    connection = await asyncpg.connect(database)
    await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize("what", ["database", "journal"])
async def test_a_folder_that_takes_no_files_is_named_in_one_line(
    setting: Setting, what: str
) -> None:
    barred = setting.folder / "barred"
    barred.mkdir(mode=0o555)
    if what == "database":
        setting.database = f"sqlite:///{barred}/usage.db"
    else:
        setting.journal = barred / "journal"
    code, errors = await setting.run("serve", plain=PLAIN_USER)
    assert code == 1
    assert str(barred) in one_line(errors)


async def test_a_file_that_takes_no_changes_is_named_in_one_line(setting: Setting) -> None:
    await upgrade(setting.database, "dsn", to="0002")
    os.chmod(f"{setting.folder}/usage.db", 0o444)  # noqa: PTH101 - one system call
    code, errors = await setting.run("serve", plain=PLAIN_USER)
    assert code == 1
    assert f"SQLite at {setting.folder}/usage.db is read-only" in one_line(errors)


async def test_a_postgres_that_takes_no_changes_is_named_and_filled_once_it_does(
    setting: Setting, postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    setting.database = postgres_dsn
    name = postgres_dsn.rpartition("/")[2]
    await upgrade(postgres_dsn, "dsn")
    read_only = f"ALTER DATABASE {name} SET default_transaction_read_only"
    await postgres_server.execute(f"{read_only} = on")
    async with setting.router() as router:
        told = await answered(router, 3)
        line = await router.logged(SILENT)
        assert f"Postgres at {postgres_server.address} is read-only" in line["problem"]
        await postgres_server.execute(f"{read_only} = off")
        assert ids(await setting.booked(3)) == sorted(told)


async def test_a_postgres_without_a_free_connection_is_named_and_filled_later(
    setting: Setting, new_postgres: Callable[..., PostgresServer]
) -> None:
    server = new_postgres(max_connections="4", superuser_reserved_connections="1")
    setting.database = server.dsn()
    await upgrade(setting.database, "dsn")
    async with AsyncExitStack() as stack:
        greedy = [await asyncpg.connect(setting.database) for _ in range(4)]
        for each in greedy:
            stack.push_async_callback(each.close)
        router = await stack.enter_async_context(setting.router())
        told = await answered(router, 3)
        assert "too many clients" in (await router.logged(SILENT))["problem"]
        for each in greedy[1:]:
            await each.close()
        assert ids(await setting.booked(3)) == sorted(told)


@pytest.mark.parametrize("tail", ["torn", "zeros", "flipped"])
async def test_a_spoiled_journal_costs_what_is_spoiled_and_is_told(
    setting: Setting, postgres_server: PostgresServer, tail: str
) -> None:
    # Nothing is shipped before the journal has been spoiled.
    setting.database = postgres_server.dsn("made_after_the_crash")
    async with setting.router() as router:
        told = await answered(router, 3)
        router.send(signal.SIGKILL)
        await router.process.wait()
    (segment,) = setting.journal.glob("w-*/*.seg")
    whole = segment.read_bytes()
    spoiled = {
        "torn": whole + frame(b"half of this was written")[:-5],
        "zeros": whole + bytes(4096),
        "flipped": whole + frame(b"a bit of this is another")[:-1] + b"X",
    }
    segment.write_bytes(spoiled[tail])
    await postgres_server.execute("CREATE DATABASE made_after_the_crash TEMPLATE template0")
    await upgrade(setting.database, "dsn")
    try:
        async with setting.router() as router:
            line = await router.logged("ledger segment was cut short")
            assert line["segment"] == str(segment)
            assert ids(await setting.booked(3)) == sorted(told)
        aside = [path.read_bytes() for path in setting.journal.glob("quarantine/*")]
        assert aside == [spoiled[tail][len(whole) :]]
    finally:
        await postgres_server.execute("DROP DATABASE made_after_the_crash WITH (FORCE)")


async def test_a_redis_that_refuses_the_password_is_named(
    setting: Setting, new_redis: Callable[..., RedisServer]
) -> None:
    server = new_redis("--requirepass", "the-right-one")
    setting.redis = f"redis://:the-wrong-one@{server.address}"
    async with setting.router() as router:
        await answered(router, 3)
        line = await named(router, "it refuses the user or the password")
        assert f"redis://{server.address}" in line["problem"]
        assert (await router.logged(AWAY))["mode"] == "local"
        assert "the-wrong-one" not in str(router.log)


async def test_a_redis_that_is_a_replica_is_named_and_taken_once_it_is_none(
    setting: Setting, new_redis: Callable[..., RedisServer]
) -> None:
    primary, replica = new_redis(), new_redis()
    replica.ask("REPLICAOF", primary.host, str(primary.port))
    setting.redis = replica.url
    async with setting.router() as router:
        await answered(router, 3)
        line = await named(router, "it is a replica, which takes no writes")
        assert f"redis://{replica.address}" in line["problem"]
        status, body = await router.get("/readyz")
        assert (status, "counters of limits and budgets are away" in body) == (200, True)
        # It does not come and go, however often it is tried meanwhile.
        assert not [row for row in router.log if row.get("event") == BACK]
        replica.ask("REPLICAOF", "NO", "ONE")
        await router.logged(BACK)
        await answered(router, 3)


async def test_a_primary_that_becomes_a_replica_is_named(
    setting: Setting, new_redis: Callable[..., RedisServer]
) -> None:
    server, successor = new_redis(), new_redis()
    setting.redis = server.url
    async with setting.router() as router:
        await answered(router, 3)
        server.ask("REPLICAOF", successor.host, str(successor.port))
        await answered(router, 3)
        await named(router, "it is a replica")
