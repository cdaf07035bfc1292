"""Fixtures that start real servers; `tests/conftest.py` makes them known to every test.

Fresh for each test, on one server for the whole run:

    postgres_dsn        the DSN of an empty database
    redis_url           the URL of an empty Redis
    redis_cluster_url   the URL of a node of an empty cluster of three

The servers behind them, to look at but not to stop: `postgres_server`, `redis_server`,
`redis_cluster`. A test that stops, kills or configures a server takes one of its own:

    server = new_postgres(max_connections="5")    running; ends with the test
    server = new_redis("--requirepass", "secret")
    sentinel = new_sentinel(server)

What is not installed is skipped with its name, and fails where CI=true.
"""

import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support import portkey
from tests.support.postgres_server import PostgresServer, postgres_programs
from tests.support.redis_server import RedisCluster, RedisSentinel, RedisServer, redis_program


def missing(what: str) -> NoReturn:
    """Skips the test for want of a program; fails it in CI, where nothing may be skipped."""
    reason = f"{what} is not installed: not on PATH nor where packages put it"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def portkey_gateway() -> Iterator[portkey.PortkeyServer]:
    """The run's Portkey gateway."""
    if lacking := portkey.installed():
        missing(lacking)
    server = portkey.PortkeyServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres_home() -> Path:
    """The directory of Postgres' programs."""
    home = postgres_programs()
    if home is None:
        missing("PostgreSQL's server (postgres, initdb)")
    return home


@pytest.fixture(scope="session")
def redis_home() -> Path:
    """Redis' server program."""
    home = redis_program()
    if home is None:
        missing("Redis' server (redis-server)")
    return home


@pytest.fixture(scope="session")
def postgres_template(postgres_home: Path) -> Iterator[Path]:
    """An initialised data directory, which every server copies."""
    made = PostgresServer(postgres_home)
    yield made.data
    made.close()


@pytest.fixture(scope="session")
def postgres_server(postgres_home: Path, postgres_template: Path) -> Iterator[PostgresServer]:
    """The run's Postgres."""
    server = PostgresServer(postgres_home, template=postgres_template)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
async def postgres_dsn(postgres_server: PostgresServer) -> AsyncGenerator[str]:
    """The DSN of a database that is empty and this test's own."""
    async with postgres_server.database() as name:
        yield postgres_server.dsn(name)


@pytest.fixture
def new_postgres(
    postgres_home: Path, postgres_template: Path
) -> Iterator[Callable[..., PostgresServer]]:
    """Starts Postgres servers of the test's own; its named arguments are their settings."""
    with ExitStack() as ending:

        def start(**settings: str) -> PostgresServer:
            server = PostgresServer(postgres_home, settings, postgres_template)
            ending.callback(server.close)
            server.start()
            return server

        yield start


@pytest.fixture(scope="session")
def redis_server(redis_home: Path) -> Iterator[RedisServer]:
    """The run's Redis."""
    server = RedisServer(redis_home)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of a Redis with nothing in it."""
    redis_server.ask("FLUSHALL")
    redis_server.ask("SCRIPT", "FLUSH")
    return redis_server.url


@pytest.fixture
def new_redis(redis_home: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts Redis servers of the test's own, with these options of the command line."""
    with ExitStack() as ending:

        def start(*options: str) -> RedisServer:
            server = RedisServer(redis_home, *options)
            ending.callback(server.close)
            server.start()
            return server

        yield start


@pytest.fixture
def new_sentinel(redis_home: Path) -> Iterator[Callable[[RedisServer], RedisSentinel]]:
    """Starts sentinels, each over one primary, which it knows as "primary"."""
    with ExitStack() as ending:

        def start(primary: RedisServer) -> RedisSentinel:
            sentinel = RedisSentinel(redis_home, primary)
            ending.callback(sentinel.close)
            sentinel.start()
            return sentinel

        yield start


@pytest.fixture(scope="session")
def redis_cluster(redis_home: Path) -> Iterator[RedisCluster]:
    """The run's Redis Cluster."""
    cluster = RedisCluster(redis_home)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def redis_cluster_url(redis_cluster: RedisCluster) -> str:
    """The URL of a cluster with nothing in it."""
    redis_cluster.flush()
    return redis_cluster.url
