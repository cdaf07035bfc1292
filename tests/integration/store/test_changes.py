"""Every process learns of every change within a second, whatever happened to the database."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Self

import pytest

from tests.integration.store.conftest import FIELD, Open
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres_server import PostgresServer
from trunkline_server.clock import SystemClock
from trunkline_server.store import postgres
from trunkline_server.store.changes import ChangeFeed
from trunkline_server.store.database import Database, Limits, StoreUnavailableError
from trunkline_server.store.migrate import upgrade
from trunkline_server.store.resources import ResourceStore

# The promise, and a wait that says it is broken for good.
PROMPT = 1.0
PATIENCE = 20.0
# So rare that what is seen sooner was seen without polling.
NEVER = 3600.0


class CountingStore(ResourceStore):
    """Counts how often it is asked for the revision."""

    looks = 0

    async def revision(self) -> int:
        self.looks += 1
        return await super().revision()


class Watcher:
    """Follows a feed, and remembers what it told and when."""

    def __init__(self, database: Database, poll_seconds: float | None = None) -> None:
        self.heard: list[str] = []
        self.revisions: list[int] = []
        self._seen_at: list[float] = []
        self._changed = asyncio.Event()
        self.store = store = CountingStore(database, SystemClock())
        if poll_seconds is None:
            self._feed = ChangeFeed(database, store, heard=self._hear)
        else:
            self._feed = ChangeFeed(database, store, poll_seconds=poll_seconds, heard=self._hear)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        # Its failure is told to who waits.
        self._task.add_done_callback(lambda _: self._ring())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _hear(self, error: StoreUnavailableError | None) -> None:
        self.heard.append("back" if error is None else error.message)
        self._ring()

    async def _watch(self) -> None:
        async with aclosing(self._feed.watch()) as revisions:
            async for revision in revisions:
                self.revisions.append(revision)
                self._seen_at.append(time.monotonic())
                self._ring()

    async def saw(self, revision: int) -> float:
        """When a revision was told, by the monotonic clock."""
        await self._until(lambda: revision in self.revisions)
        return self._seen_at[self.revisions.index(revision)]

    async def missed(self, outages: int) -> None:
        """Waits until so many outages have been reported."""
        await self._until(lambda: len(self.heard) >= 2 * outages - 1)

    def _ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                if self._task.done():
                    self._task.result()
                await self._changed.wait()


@asynccontextmanager
async def watchers(
    dsn: str, opened: Open, count: int = 2, **how: float
) -> AsyncGenerator[list[Watcher]]:
    async with AsyncExitStack() as stack:
        limits = Limits(acquire=0.5, statement=0.5)
        yield [
            await stack.enter_async_context(Watcher(await opened(dsn, limits), **how))
            for _ in range(count)
        ]


async def test_every_watcher_is_told_at_first_and_of_each_change(
    dsn: str, store: ResourceStore, opened: Open
) -> None:
    await store.create("keys", "before", b"{}")
    async with watchers(dsn, opened, 3) as all_of_them:
        for each in all_of_them:
            await each.saw(1)
        for revision in range(2, 6):
            await store.create("keys", str(revision), b"{}")
            changed_at = time.monotonic()
            for each in all_of_them:
                assert await each.saw(revision) - changed_at < PROMPT
        for each in all_of_them:
            assert each.revisions == [1, 2, 3, 4, 5]
            assert each.heard == []


async def test_what_is_undone_is_not_told(dsn: str, store: ResourceStore, opened: Open) -> None:
    async def fail() -> None:
        async with store.change() as change:
            await change.create("keys", "one", b"{}")
            raise ZeroDivisionError

    async with watchers(dsn, opened, 1) as (watcher,):
        await watcher.saw(0)
        with pytest.raises(ZeroDivisionError):
            await fail()
        await store.create("keys", "two", b"{}")
        await watcher.saw(1)
        assert watcher.revisions == [0, 1]
        assert [each.name for each in (await store.list("keys")).resources] == ["two"]


async def test_a_burst_ends_with_its_last_revision(
    dsn: str, store: ResourceStore, opened: Open
) -> None:
    async with watchers(dsn, opened) as both:
        for number in range(50):
            await store.create("keys", str(number), b"{}")
        changed_at = time.monotonic()
        for each in both:
            assert await each.saw(50) - changed_at < PROMPT
            assert each.revisions == sorted(set(each.revisions))


async def test_postgres_notifies_without_polling(postgres_dsn: str, opened: Open) -> None:
    await upgrade(postgres_dsn, FIELD)
    store = ResourceStore(await opened(postgres_dsn), SystemClock())
    async with watchers(postgres_dsn, opened, poll_seconds=NEVER) as both:
        for each in both:
            await each.saw(0)
        await store.create("keys", "one", b"{}")
        for each in both:
            await each.saw(1)


async def test_sqlite_tells_its_own_process_without_polling(tmp_path: Path, opened: Open) -> None:
    dsn = f"sqlite:///{tmp_path / 'state.db'}"
    await upgrade(dsn, FIELD)
    database = await opened(dsn)
    store = ResourceStore(database, SystemClock())
    feed = ChangeFeed(database, store, poll_seconds=NEVER)
    async with aclosing(feed.watch()) as revisions:
        assert await anext(revisions) == 0
        async with asyncio.timeout(PATIENCE):
            # One that is undone rings for nobody.
            with pytest.raises(ZeroDivisionError):
                async with store.change():
                    1 / 0  # noqa: B018
            await store.create("keys", "one", b"{}")
            assert await anext(revisions) == 1


async def test_a_watcher_looks_when_it_is_told_and_then_rests(
    postgres_dsn: str, opened: Open
) -> None:
    await upgrade(postgres_dsn, FIELD)
    store = ResourceStore(await opened(postgres_dsn), SystemClock())
    async with watchers(postgres_dsn, opened, 1, poll_seconds=NEVER) as (watcher,):
        await watcher.saw(0)
        await store.create("keys", "one", b"{}")
        await watcher.saw(1)
        looks = watcher.store.looks
        # The first, the listener's start, the change; and one more if they came together.
        assert looks <= 4
        more = asyncio.create_task(watcher.saw(2))
        await asyncio.wait([more], timeout=0.1)
        more.cancel()
        assert watcher.store.looks <= looks + 1


async def test_polling_finds_what_no_notification_told(postgres_dsn: str, opened: Open) -> None:
    await upgrade(postgres_dsn, FIELD)
    database = await opened(postgres_dsn)
    async with watchers(postgres_dsn, opened) as both:
        for each in both:
            await each.saw(0)
        async with database.transaction() as transaction:
            await transaction.execute("UPDATE meta SET value = 7 WHERE key = 'revision'")
        changed_at = time.monotonic()
        for each in both:
            assert await each.saw(7) - changed_at < PROMPT


@pytest.fixture
def own_postgres(new_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    return new_postgres()


async def test_watchers_outlive_a_killed_postgres(
    own_postgres: PostgresServer, opened: Open
) -> None:
    server, dsn = own_postgres, own_postgres.dsn()
    await upgrade(dsn, FIELD)
    store = ResourceStore(await opened(dsn), SystemClock())
    async with watchers(dsn, opened) as both:
        for number, end in enumerate((server.kill, server.stop)):
            for each in both:
                await each.saw(2 * number)
            await asyncio.to_thread(end)
            for each in both:
                await each.missed(number + 1)
            server.launch()
            await asyncio.to_thread(server.wait)
            # One that is made at once, perhaps before anyone listens again ...
            await store.create("keys", f"{number} at once", b"{}")
            changed_at = time.monotonic()
            for each in both:
                assert await each.saw(2 * number + 1) - changed_at < PROMPT
            # ... and one after.
            await store.create("keys", f"{number} after", b"{}")
            changed_at = time.monotonic()
            for each in both:
                assert await each.saw(2 * number + 2) - changed_at < PROMPT
        for each in both:
            assert each.revisions == [0, 1, 2, 3, 4]
            assert each.heard[1::2] == ["back", "back"]
            assert all(server.address in words for words in each.heard[::2])


async def test_the_listener_comes_back_after_a_cut(
    postgres_server: PostgresServer, postgres_dsn: str, opened: Open
) -> None:
    """With polling all but off: the notification itself must come through again."""
    await upgrade(postgres_dsn, FIELD)
    store = ResourceStore(await opened(postgres_dsn), SystemClock())
    async with FaultProxy(postgres_server.host, postgres_server.port) as proxy:
        through = postgres_server.dsn(postgres_dsn.rpartition("/")[2], port=proxy.port)
        async with watchers(through, opened, 1, poll_seconds=NEVER) as (watcher,):
            await watcher.saw(0)
            await proxy.refuse()
            await store.create("keys", "one", b"{}")
            await proxy.accept()
            # Told by the listener's return, since the notification is lost.
            await watcher.saw(1)
            await store.create("keys", "two", b"{}")
            await watcher.saw(2)


async def test_a_silent_network_delays_watchers_no_longer_than_it_lasts(
    postgres_server: PostgresServer, postgres_dsn: str, opened: Open
) -> None:
    await upgrade(postgres_dsn, FIELD)
    store = ResourceStore(await opened(postgres_dsn), SystemClock())
    async with FaultProxy(postgres_server.host, postgres_server.port) as proxy:
        through = postgres_server.dsn(postgres_dsn.rpartition("/")[2], port=proxy.port)
        async with watchers(through, opened) as both:
            for each in both:
                await each.saw(0)
            proxy.stall()
            await store.create("keys", "one", b"{}")
            for each in both:
                await each.missed(1)
            proxy.cut()
            proxy.flow()
            flowing_at = time.monotonic()
            for each in both:
                assert await each.saw(1) - flowing_at < PROMPT
                assert each.heard[-1] == "back"


async def test_a_listener_whose_peer_vanished_finds_out(
    postgres_server: PostgresServer,
    postgres_dsn: str,
    opened: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres, "_PROOF_SECONDS", 0.1)
    await upgrade(postgres_dsn, FIELD)
    store = ResourceStore(await opened(postgres_dsn), SystemClock())
    async with FaultProxy(postgres_server.host, postgres_server.port) as proxy:
        through = postgres_server.dsn(postgres_dsn.rpartition("/")[2], port=proxy.port)
        async with watchers(through, opened, 1, poll_seconds=NEVER) as (watcher,):
            await watcher.saw(0)
            await store.create("keys", "heard", b"{}")
            await watcher.saw(1)
            proxy.drop()
            # The listener's return makes it look, on another connection that is as silent ...
            await watcher.missed(1)
            # ... and what is notified from then on arrives.
            await store.create("keys", "heard again", b"{}")
            await watcher.saw(2)


async def test_a_database_that_is_away_at_the_start_is_followed_once_it_is_there(
    own_postgres: PostgresServer, opened: Open
) -> None:
    dsn = own_postgres.dsn()
    await upgrade(dsn, FIELD)
    await asyncio.to_thread(own_postgres.stop)
    async with watchers(dsn, opened) as both:
        for each in both:
            await each.missed(1)
        own_postgres.launch()
        await asyncio.to_thread(own_postgres.wait)
        ready_at = time.monotonic()
        for each in both:
            assert await each.saw(0) - ready_at < PROMPT
