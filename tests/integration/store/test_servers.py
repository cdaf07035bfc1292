"""The servers that other tests rest on are real, fresh for each test, and survive being killed."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.support.mortal import mortal
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisSentinel, RedisServer
from tests.support.server_process import START_SECONDS
from tests.support.servers import missing


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_database_is_fresh(
    postgres_server: PostgresServer, postgres_dsn: str, turn: int
) -> None:
    database = postgres_dsn.rpartition("/")[2]
    await postgres_server.execute("CREATE TABLE once (number int)", database)
    assert await postgres_server.execute("SELECT count(*) FROM once", database) == [(0,)]


async def test_a_killed_postgres_comes_back_with_what_was_committed(
    new_postgres: Callable[..., PostgresServer],
) -> None:
    server = new_postgres(max_connections="10")
    await server.execute("CREATE TABLE kept AS SELECT 7 AS number")
    for end in (server.kill, server.stop):
        end()
        with pytest.raises(OSError, match="Connect call failed"):
            await server.execute("SELECT 1")
        server.start()
        assert await server.execute("SELECT number FROM kept") == [(7,)]
    assert await server.execute("SHOW max_connections") == [("10",)]


def test_what_is_missing_is_skipped_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="redis-server is not installed"):
        missing("redis-server")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="redis-server is not installed"):
        missing("redis-server")


@pytest.mark.parametrize("frozen", [False, True])
def test_servers_end_with_the_process_that_started_them(redis_home: Path, frozen: bool) -> None:
    program = (
        "import os, sys; from pathlib import Path; "
        "from tests.support.redis_server import RedisServer; "
        "server = RedisServer(Path(sys.argv[1])); server.start(); "
        "sys.argv[2:] and server.pause(); "
        "print(server.port, server.directory, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", program, str(redis_home), *(["frozen"] if frozen else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    port, directory = done.stdout.split()
    deadline = time.monotonic() + START_SECONDS
    while connects(int(port)):
        assert time.monotonic() < deadline, "the server outlives its parent"
    shutil.rmtree(directory)


def test_a_server_whose_parent_is_gone_already_does_not_begin() -> None:
    command = mortal(["echo", "begun"])
    parent = command.index(str(os.getpid()))
    command[parent] = "1"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "the parent ended before this began" in done.stderr


async def test_a_router_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import asyncio, os\n"
        "from tests.support.process import router_process\n"
        "async def main():\n"
        "    async with router_process() as router:\n"
        "        print(router.address, flush=True)\n"
        "        os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], stdout=subprocess.PIPE, check=False
    )
    port = int(done.stdout.decode().rpartition(":")[2])
    deadline = time.monotonic() + START_SECONDS
    while connects(port):
        assert time.monotonic() < deadline, "the router outlives its parent"
        await asyncio.sleep(0.01)


def connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_redis_is_empty(redis_url: str, turn: int) -> None:
    async with Redis.from_url(redis_url) as client:
        assert await client.set("once", turn, nx=True)


async def test_a_redis_of_ones_own_takes_options_and_can_be_frozen(
    new_redis: Callable[..., RedisServer],
) -> None:
    server = new_redis("--requirepass", "secret")
    once = Retry(NoBackoff(), 0)
    async with Redis(port=server.port, password="secret", socket_timeout=0.2, retry=once) as client:
        assert await client.ping()
        server.pause()
        with pytest.raises(RedisTimeoutError):
            await client.ping()
        server.resume()
        assert await client.ping()
    server.kill()
    server.start()


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_cluster_serves_every_slot(redis_cluster_url: str, turn: int) -> None:
    async with RedisCluster.from_url(redis_cluster_url) as client:
        for number in range(50):
            assert await client.set(f"key:{number}", turn, nx=True)
        assert len(client.get_primaries()) == 3


async def test_a_sentinel_names_its_primary(
    new_redis: Callable[..., RedisServer], new_sentinel: Callable[[RedisServer], RedisSentinel]
) -> None:
    primary = new_redis()
    sentinel = new_sentinel(primary)
    client = Sentinel([(sentinel.host, sentinel.port)])  # type: ignore[no-untyped-call] # Its own.
    assert await client.discover_master("primary") == (primary.host, primary.port)
    for each in client.sentinels:
        await each.aclose()
