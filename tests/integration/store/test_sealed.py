"""Encrypted records: one contract for memory and both databases, and word of every write."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.integration.store.conftest import FIELD, Open
from tests.unit.secrets.test_envelope import NEW, OLD, ring
from tests.unit.secrets.world import Ears, MemoryStore
from trunkline_server.clock import SystemClock
from trunkline_server.secrets.ports import SealedStore
from trunkline_server.secrets.records import EncryptedRecords
from trunkline_server.store.migrate import upgrade
from trunkline_server.store.sealed import SqlSealedStore

PATIENCE = 20.0
NEVER = 3600.0
KIND = "credential"
# Neither text nor JSON, and a zero byte.
SEALED = bytes(range(256))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The DSN of an empty database, or nothing for memory."""
    if request.param == "postgres":
        dsn: str = request.getfixturevalue("postgres_dsn")
        return dsn
    return f"sqlite:///{tmp_path / 'state.db'}" if request.param == "sqlite" else ""


@pytest.fixture
async def store(place: str, opened: Open) -> SealedStore:
    if not place:
        return MemoryStore()
    await upgrade(place, FIELD)
    return SqlSealedStore(await opened(place), SystemClock())


async def test_what_is_put_is_got(store: SealedStore) -> None:
    assert await store.get(KIND, "openai") is None
    etag = await store.put(KIND, "openai", SEALED, None)
    found = await store.get(KIND, "openai")
    assert found is not None
    assert (found.kind, found.name, found.sealed, found.etag) == (KIND, "openai", SEALED, etag)
    assert await store.get("other", "openai") is None


async def test_a_write_asks_for_the_etag_it_names(store: SealedStore) -> None:
    first = await store.put(KIND, "a", b"1", "")
    assert first
    assert await store.put(KIND, "a", b"2", "") is None
    second = await store.put(KIND, "a", b"2", first)
    assert second
    assert second != first
    assert await store.put(KIND, "a", b"3", first) is None
    assert await store.put(KIND, "b", b"3", first) is None
    found = await store.get(KIND, "a")
    assert found is not None
    assert (found.sealed, found.etag) == (b"2", second)
    assert await store.put(KIND, "a", b"2", None) not in {None, first, second}


async def test_of_many_who_write_over_one_etag_one_does(store: SealedStore) -> None:
    etag = await store.put(KIND, "a", b"", "")
    written = await asyncio.gather(
        *(store.put(KIND, "a", bytes([number]), etag) for number in range(8))
    )
    (winner,) = [number for number, done in enumerate(written) if done]
    found = await store.get(KIND, "a")
    assert found is not None
    assert (found.sealed, found.etag) == (bytes([winner]), written[winner])


async def test_a_removal_asks_for_the_etag_it_names(store: SealedStore) -> None:
    etag = await store.put(KIND, "a", SEALED, None)
    assert not await store.delete(KIND, "a", "another")
    assert not await store.delete("other", "a", etag)
    assert await store.delete(KIND, "a", etag)
    assert not await store.delete(KIND, "a")
    assert await store.get(KIND, "a") is None


async def test_etags_are_those_of_a_kind(store: SealedStore) -> None:
    made = {name: await store.put(KIND, name, SEALED, None) for name in ("b", "a", "a.b")}
    await store.put("other", "c", SEALED, None)
    assert list((await store.etags(KIND)).items()) == sorted(made.items())
    assert await store.etags("none") == {}


@pytest.mark.parametrize("batch", [1, 2, 100])
async def test_a_scan_gives_every_record_once(store: SealedStore, batch: int) -> None:
    names = {(kind, f"n{number}") for kind in ("x", "y") for number in range(5)}
    for kind, name in names:
        await store.put(kind, name, SEALED, None)
    batches = [records async for records in store.scan(batch)]
    assert all(len(records) <= batch for records in batches)
    found = [(each.kind, each.name) for records in batches for each in records]
    assert sorted(found) == sorted(names)


async def test_records_are_sealed_anew_in_place(store: SealedStore) -> None:
    records = EncryptedRecords(store, ring(old=OLD), Ears())
    for number in range(5):
        await records.write(KIND, f"n{number}", b"sk-%d" % number)
    rekeyed = EncryptedRecords(store, ring(new=NEW, old=OLD), Ears())
    done = await rekeyed.rekey(batch=2)
    assert (done.sealed, done.kept, done.overtaken, done.unreadable) == (5, 0, 0, [])
    only_new = EncryptedRecords(store, ring(new=NEW), Ears())
    found = await only_new.read(KIND, "n3")
    assert found is not None
    assert found[0] == b"sk-3"


class Watching:
    """Follows a store's etags, from another connection."""

    def __init__(self, store: SqlSealedStore, poll_seconds: float) -> None:
        self._told: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
        self._feed = store.watch(KIND, poll_seconds=poll_seconds)
        self._task = asyncio.create_task(self._follow(self._feed))

    async def _follow(self, feed: AsyncGenerator[Mapping[str, str]]) -> None:
        async with aclosing(feed):
            async for etags in feed:
                self._told.put_nowait(etags)

    async def next(self) -> Mapping[str, str]:
        async with asyncio.timeout(PATIENCE):
            return await self._told.get()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_every_replica_hears_of_a_write(dsn: str, opened: Open) -> None:
    # Postgres tells at once; SQLite has to be asked.
    poll_seconds = NEVER if dsn.startswith("postgres") else 0.05
    writer = SqlSealedStore(await opened(dsn), SystemClock())
    watching = Watching(SqlSealedStore(await opened(dsn), SystemClock()), poll_seconds)
    try:
        assert await watching.next() == {}
        first = await writer.put(KIND, "a", SEALED, None)
        assert await watching.next() == {"a": first}
        second = await writer.put(KIND, "a", SEALED, first)
        assert await watching.next() == {"a": second}
        await writer.delete(KIND, "a")
        assert await watching.next() == {}
    finally:
        await watching.close()
