"""Postgres away, silent, cut off, refusing: one typed error, soon, and well again after."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

import pytest
import trustme

from tests.integration.store.conftest import Open
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres_server import PASSWORD, QUOTED_PASSWORD, PostgresServer
from trunkline_server.clock import SystemClock
from trunkline_server.store.database import Database, Limits, StoreUnavailableError
from trunkline_server.store.migrate import upgrade
from trunkline_server.store.resources import ResourceStore

LIMITS = Limits(acquire=0.4, statement=0.4, connections=3)
# What the limits allow in all, with room for a loaded machine.
SOON = 3.0


@pytest.fixture
async def proxy(postgres_server: PostgresServer) -> AsyncGenerator[FaultProxy]:
    async with FaultProxy(postgres_server.host, postgres_server.port) as proxy:
        yield proxy


@pytest.fixture
async def through(
    proxy: FaultProxy, postgres_server: PostgresServer, postgres_dsn: str, opened: Open
) -> Database:
    """A migrated database, reached through the proxy."""
    await upgrade(postgres_dsn, "dsn")
    name = postgres_dsn.rpartition("/")[2]
    return await opened(postgres_server.dsn(name, port=proxy.port), LIMITS)


async def unavailable(database: Database) -> str:
    """What a query says that must fail, and soon."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError) as caught:
        await database.fetch("SELECT 1")
    assert time.monotonic() - began < SOON
    error: BaseException | None = caught.value
    while error is not None:
        for secret in (PASSWORD, QUOTED_PASSWORD):
            assert secret not in str(error)
            assert secret not in repr(error)
        error = error.__cause__ or error.__context__
    assert database.address in caught.value.message
    return caught.value.message


async def answers(database: Database) -> bool:
    return [row["one"] for row in await database.fetch("SELECT 1 AS one")] == [1]


async def test_nobody_listens(through: Database, proxy: FaultProxy) -> None:
    await proxy.refuse()
    assert "Connect call failed" in await unavailable(through)
    await proxy.accept()
    assert await answers(through)
    await proxy.refuse()
    assert "unavailable" in await unavailable(through)
    await proxy.accept()
    assert await answers(through)


async def test_a_silent_network_before_the_connection(through: Database, proxy: FaultProxy) -> None:
    proxy.stall()
    assert "no connection within 0.4 s" in await unavailable(through)
    proxy.flow()
    assert await answers(through)


async def test_a_silent_network_under_a_connection(through: Database, proxy: FaultProxy) -> None:
    assert await answers(through)
    proxy.stall()
    for _ in range(LIMITS.connections + 1):
        assert "within 0.4 s" in await unavailable(through)
    proxy.flow()
    assert await answers(through)


async def test_a_silent_network_in_a_transaction_costs_one_limit(
    proxy: FaultProxy, postgres_server: PostgresServer, opened: Open
) -> None:
    """Neither the rollback nor the connection's return is waited for besides."""
    database = await opened(postgres_server.dsn(port=proxy.port), Limits(acquire=1, statement=1))

    async def ask() -> None:
        async with database.transaction() as transaction:
            await transaction.fetch("SELECT 1")
            proxy.stall()
            await transaction.fetch("SELECT 1")

    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="no answer within 1 s"):
        await ask()
    assert time.monotonic() - began < 1.9


async def test_a_network_that_forgot_the_connection(through: Database, proxy: FaultProxy) -> None:
    assert await answers(through)
    proxy.drop()
    assert "no answer within 0.4 s" in await unavailable(through)
    assert await answers(through)


async def test_a_silent_network_in_a_cancelled_query(through: Database, proxy: FaultProxy) -> None:
    assert await answers(through)
    proxy.stall()
    asking = asyncio.create_task(through.fetch("SELECT 1"))
    await asyncio.wait([asking], timeout=0.05)
    asking.cancel()
    began = time.monotonic()
    await asyncio.gather(asking, return_exceptions=True)
    assert time.monotonic() - began < SOON
    proxy.flow()
    assert await answers(through)


async def test_replies_that_come_slowly(through: Database, proxy: FaultProxy) -> None:
    assert await answers(through)
    proxy.delay = 5.0
    assert "no answer within 0.4 s" in await unavailable(through)
    proxy.delay = 0.0
    assert await answers(through)


async def test_closing_is_bounded_on_a_silent_network(through: Database, proxy: FaultProxy) -> None:
    assert await answers(through)
    proxy.stall()
    began = time.monotonic()
    await through.close()
    assert time.monotonic() - began < SOON


async def test_a_cut_in_a_transaction_undoes_it(through: Database, proxy: FaultProxy) -> None:
    store = ResourceStore(through, SystemClock())

    async def cut_off() -> None:
        async with store.change() as change:
            await change.create("keys", "one", b"{}")
            proxy.cut()
            await change.create("keys", "two", b"{}")

    with pytest.raises(StoreUnavailableError) as caught:
        await cut_off()
    assert not caught.value.in_doubt
    assert (await store.list("keys")).resources == ()
    assert await store.revision() == 0


async def test_a_connection_that_ends_between_two_statements(
    through: Database, proxy: FaultProxy
) -> None:
    async def lose_it() -> None:
        async with through.transaction() as transaction:
            await transaction.fetch("SELECT 1")
            await proxy.refuse()
            # The reset is in our socket already; the loop is to find it there.
            for _ in range(10):
                await asyncio.sleep(0)
            await transaction.fetch("SELECT 1")

    with pytest.raises(StoreUnavailableError):
        await lose_it()
    await proxy.accept()
    assert await answers(through)


async def test_a_commit_whose_answer_is_lost_is_in_doubt(
    through: Database, proxy: FaultProxy
) -> None:
    store = ResourceStore(through, SystemClock())

    async def commit_into_silence() -> None:
        async with through.transaction() as transaction:
            await transaction.execute("UPDATE meta SET value = 5 WHERE key = 'revision'")
            proxy.stall()

    with pytest.raises(StoreUnavailableError, match="is not known") as caught:
        await commit_into_silence()
    assert caught.value.in_doubt
    proxy.flow()
    assert await store.revision() in {0, 5}


async def test_connections_that_the_server_ends(
    through: Database, postgres_server: PostgresServer
) -> None:
    async def hold(ready: asyncio.Event) -> None:
        async with through.transaction() as transaction:
            await transaction.fetch("SELECT 1")
            ready.set()
            await transaction.fetch("SELECT pg_sleep(60)")

    ready = asyncio.Event()
    holding = asyncio.create_task(hold(ready))
    await ready.wait()
    await postgres_server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'trunkline'"
    )
    with pytest.raises(StoreUnavailableError):
        await holding
    assert await answers(through)


async def test_the_server_is_killed_and_comes_back(
    new_postgres: Callable[..., PostgresServer], opened: Open
) -> None:
    server = new_postgres()
    await upgrade(server.dsn(), "dsn")
    database = await opened(server.dsn(), LIMITS)
    store = ResourceStore(database, SystemClock())
    made = await store.create("keys", "one", b"{}")
    await asyncio.to_thread(server.kill)
    await unavailable(database)
    with pytest.raises(StoreUnavailableError):
        await store.create("keys", "two", b"{}")
    server.launch()
    await asyncio.to_thread(server.wait)
    assert await store.get("keys", "one") == made
    await store.create("keys", "two", b"{}")


async def test_a_server_without_a_free_connection(
    new_postgres: Callable[..., PostgresServer], opened: Open
) -> None:
    """Exhaustion is an outage, and nothing else: never a refusal of who asks."""
    server = new_postgres(max_connections="5", superuser_reserved_connections="1")
    greedy = await opened(server.dsn(), Limits(connections=5))
    late = await opened(server.dsn(), LIMITS)

    async def hold(release: asyncio.Event) -> None:
        async with greedy.transaction() as transaction:
            await transaction.fetch("SELECT 1")
            held.release()
            await release.wait()

    release, held = asyncio.Event(), asyncio.Semaphore(0)
    holders = [asyncio.create_task(hold(release)) for _ in range(5)]
    for _ in holders:
        await held.acquire()
    assert "too many clients" in await unavailable(late)
    release.set()
    await asyncio.gather(*holders)
    await greedy.close()
    assert await answers(late)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("postgres://trunkline:wr0ng@{address}/postgres", "password authentication failed"),
        ("postgres://nobody:wr0ng@{address}/postgres", "authentication failed"),
        ("{dsn}-no-such", 'database "postgres-no-such" does not exist'),
    ],
)
async def test_a_dsn_that_the_server_refuses(
    postgres_server: PostgresServer, opened: Open, wrong: str, words: str
) -> None:
    dsn = wrong.format(address=postgres_server.address, dsn=postgres_server.dsn())
    message = await unavailable(await opened(dsn, LIMITS))
    assert words in message
    assert "wr0ng" not in message


async def test_tls_as_the_dsn_says(
    new_postgres: Callable[..., PostgresServer], opened: Open
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    server = new_postgres()
    server.stop()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(server.directory / "server.key")
    certificate.cert_chain_pems[0].write_to_path(server.directory / "server.crt")
    for name in ("server.key", "server.crt"):
        server.own(server.directory / name)
    authority.cert_pem.write_to_path(server.directory / "authority.pem")
    stranger.cert_pem.write_to_path(server.directory / "stranger.pem")
    server.settings |= {
        "ssl": "on",
        "ssl_key_file": str(server.directory / "server.key"),
        "ssl_cert_file": str(server.directory / "server.crt"),
    }
    server.start()

    def tls(root: str) -> str:
        return f"{server.dsn()}?sslmode=verify-full&sslrootcert={server.directory / root}"

    good = await opened(tls("authority.pem"), LIMITS)
    rows = await good.fetch("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    assert rows[0]["ssl"] is True
    assert "certificate verify failed" in await unavailable(
        await opened(tls("stranger.pem"), LIMITS)
    )
