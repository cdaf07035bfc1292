"""The client of Redis: addresses, secrets, hard timeouts, its breaker, and failovers."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.integration.redis.test_governor import until
from tests.support.fault_proxy import FaultProxy
from tests.support.ports import free_port
from tests.support.redis_server import RedisSentinel, RedisServer
from trunkline_server.store.redis import (
    ChannelPolicy,
    RedisClient,
    RedisUnavailableError,
    Script,
)

PATIENT = ChannelPolicy(timeout=5.0, connect_timeout=5.0)
BRISK = ChannelPolicy(timeout=0.2, connect_timeout=1.0, failures=3, retry_seconds=0.05)
SECRET = "s3cr3t:/@word"
QUOTED = "s3cr3t%3A%2F%40word"


@pytest.fixture
async def client(redis_url: str) -> AsyncGenerator[RedisClient]:
    made = RedisClient(redis_url, policy=PATIENT)
    assert await made.start()
    yield made
    await made.close()


@pytest.fixture
async def proxied(redis_server: RedisServer) -> AsyncGenerator[tuple[RedisClient, FaultProxy]]:
    async with FaultProxy(redis_server.host, redis_server.port) as proxy:
        made = RedisClient(f"redis://{proxy.address}", policy=BRISK)
        assert await made.start()
        yield made, proxy
        await made.close()


async def test_replies_come_to_whom_they_belong(client: RedisClient) -> None:
    async def echo(number: int) -> None:
        key, value = b"key-%d" % number, b"value-%d\r\n" % number
        assert await client.execute(key, b"SET", key, value) == b"OK"
        assert await client.execute(key, b"GET", key) == value
        assert await client.execute(key, b"GET", key + b"-none") is None
        assert await client.execute(key, b"STRLEN", key) == len(value)

    await asyncio.gather(*(echo(number) for number in range(300)))


async def test_a_cancelled_caller_does_not_shift_the_replies(client: RedisClient) -> None:
    for number in range(50):
        task = asyncio.create_task(client.execute(b"k", b"ECHO", b"lost"))
        await asyncio.sleep(0)
        task.cancel()
        word = b"%d" % number
        assert await client.execute(b"k", b"ECHO", word) == word


async def test_a_script_is_loaded_when_it_is_missing(client: RedisClient) -> None:
    script = Script(b"return {KEYS[1], ARGV[1]}")
    for _ in range(2):
        assert await client.run(script, [b"k"], b"a") == [b"k", b"a"]
        await client.execute(b"k", b"SCRIPT", b"FLUSH")


async def test_scripts_learn_which_run_of_the_server_they_reach(
    new_redis: Callable[..., RedisServer],
) -> None:
    server = new_redis()
    client = RedisClient(server.url, policy=PATIENT)
    assert await client.start()
    script = Script(b"return ARGV[#ARGV]")
    before = await client.run(script, [b"k"])
    assert await client.run(script, [b"k"]) == before
    server.kill()
    server.start()
    after: object = None
    async with asyncio.timeout(10.0):
        while after is None:
            try:
                after = await client.run(script, [b"k"])
            except RedisUnavailableError:
                await asyncio.sleep(0.02)
    assert after not in {before, b""}
    await client.close()


async def test_a_stalled_server_costs_the_timeout_and_then_nothing(
    proxied: tuple[RedisClient, FaultProxy],
) -> None:
    client, proxy = proxied
    proxy.stall()
    for _ in range(BRISK.failures):
        assert client.available
        with pytest.raises(RedisUnavailableError, match="answers too late"):
            await client.execute(b"k", b"PING")
    assert not client.available
    assert not client.reachable(b"k")
    with pytest.raises(RedisUnavailableError):
        async with asyncio.timeout(0):
            await client.execute(b"k", b"PING")
    proxy.flow()
    await until(lambda: client.available)
    assert await client.execute(b"k", b"PING") == b"PONG"


async def test_a_slow_server_is_given_up_and_taken_back(
    proxied: tuple[RedisClient, FaultProxy],
) -> None:
    client, proxy = proxied
    # An hour: whoever waited for a reply would never return.
    proxy.delay = 3600.0
    outcomes = await asyncio.gather(
        *(client.execute(b"k", b"PING") for _ in range(100)), return_exceptions=True
    )
    assert all(isinstance(one, RedisUnavailableError) for one in outcomes)
    assert not client.available
    probes = proxy.accepted
    await until(lambda: proxy.accepted >= probes + 3)
    # Each found it slow still.
    assert not client.available
    proxy.delay = 0.0
    await until(lambda: client.available)
    assert await client.execute(b"k", b"PING") == b"PONG"


async def test_a_cut_connection_is_replaced_without_an_outage(
    proxied: tuple[RedisClient, FaultProxy],
) -> None:
    client, proxy = proxied
    assert await client.execute(b"k", b"PING") == b"PONG"
    proxy.cut()
    async with asyncio.timeout(5.0):
        while True:
            try:
                assert await client.execute(b"k", b"PING") == b"PONG"
                break
            except RedisUnavailableError:
                await asyncio.sleep(0.01)
    assert client.available


async def test_a_dead_server_is_known_to_be_dead(
    proxied: tuple[RedisClient, FaultProxy],
) -> None:
    client, proxy = proxied
    await proxy.refuse()
    await until(lambda: not client.available)
    await proxy.accept()
    await until(lambda: client.available)
    assert await client.execute(b"k", b"PING") == b"PONG"


async def test_commands_in_flight_are_bounded(redis_server: RedisServer) -> None:
    policy = ChannelPolicy(timeout=5.0, max_pending=10)
    client = RedisClient(redis_server.url, policy=policy)
    assert await client.start()
    outcomes = await asyncio.gather(
        *(client.execute(b"k", b"PING") for _ in range(15)), return_exceptions=True
    )
    assert outcomes[:10] == [b"PONG"] * 10
    assert all(isinstance(one, RedisUnavailableError) for one in outcomes[10:])
    await client.close()


async def test_the_password_is_used_and_never_told(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis("--requirepass", SECRET)
    client = RedisClient(f"redis://:{QUOTED}@{server.address}", policy=PATIENT)
    assert await client.start()
    assert await client.execute(b"k", b"PING") == b"PONG"
    assert "s3cr3t" not in repr(client)
    await client.close()


async def test_a_wrong_password_is_not_told_either(new_redis: Callable[..., RedisServer]) -> None:
    server = new_redis("--requirepass", "other")
    heard: list[tuple[bool, str]] = []
    client = RedisClient(
        f"redis://user:{QUOTED}@{server.address}",
        policy=PATIENT,
        on_change=lambda up, name: heard.append((up, name)),
    )
    assert not await client.start()
    with pytest.raises(RedisUnavailableError) as caught:
        await client.execute(b"k", b"PING")
    assert heard
    told = f"{caught.value!r} {client!r} {heard!r}"
    assert "s3cr3t" not in told
    assert server.address in told
    await client.close()


@pytest.fixture
def papers() -> Iterator[Path]:
    """Certificates, in a directory that the server's user may read: pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(path / "cert")
        issued.private_key_pem.write_to_path(path / "key")
        authority.cert_pem.write_to_path(path / "ca")
        trustme.CA().cert_pem.write_to_path(path / "stranger")
        path.chmod(0o755)
        for file in path.iterdir():
            file.chmod(0o644)
        yield path


async def test_tls_checks_the_server(new_redis: Callable[..., RedisServer], papers: Path) -> None:
    port = free_port()
    new_redis(
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(papers / "cert"), "--tls-key-file", str(papers / "key")),
    )
    good = RedisClient(f"rediss://127.0.0.1:{port}?ca_file={papers / 'ca'}", policy=PATIENT)
    assert await good.start()
    assert await good.execute(b"k", b"PING") == b"PONG"
    await good.close()
    bad = RedisClient(f"rediss://127.0.0.1:{port}?ca_file={papers / 'stranger'}", policy=PATIENT)
    assert not await bad.start()
    await bad.close()


async def test_a_sentinel_tells_the_primary_and_its_successor(
    new_redis: Callable[..., RedisServer], new_sentinel: Callable[[RedisServer], RedisSentinel]
) -> None:
    first = new_redis("--repl-diskless-sync-delay", "0")
    second = new_redis("--replicaof", first.host, str(first.port))
    await until(lambda: "connected_slaves:1" in first.ask("INFO", "replication"))
    sentinel = new_sentinel(first)
    await until(lambda: "slaves=1" in sentinel.ask("INFO", "sentinel"))
    policy = ChannelPolicy(timeout=1.0, connect_timeout=1.0, retry_seconds=0.1)
    client = RedisClient(f"redis+sentinel://{sentinel.address}/primary", policy=policy)
    assert await client.start()
    assert await client.execute(b"k", b"SET", b"k", b"1") == b"OK"
    first.kill()
    async with asyncio.timeout(30.0):
        while True:
            try:
                assert await client.execute(b"k", b"SET", b"k", b"2") == b"OK"
                break
            except RedisUnavailableError:
                await asyncio.sleep(0.1)
    assert second.ask("GET", "k") == "2"
    await client.close()
