"""Encrypted records in either database, and word of their changes to every replica."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress

from trunkline_server.clock import Clock
from trunkline_server.secrets.ports import SealedRecord
from trunkline_server.store.changes import POLL_SECONDS
from trunkline_server.store.database import Database, Row, StoreUnavailableError

# What watchers listen to.
CHANNEL = "trunkline_sealed"

_GET = "SELECT kind, name, sealed, etag FROM sealed_records WHERE kind = $1 AND name = $2"
_NEXT = (
    "SELECT kind, name, sealed, etag FROM sealed_records "
    "WHERE kind > $1 OR (kind = $1 AND name > $2) ORDER BY kind, name LIMIT $3"
)
_ETAGS = "SELECT name, etag FROM sealed_records WHERE kind = $1 ORDER BY name"
_INSERT = (
    "INSERT INTO sealed_records (kind, name, sealed, etag, updated_at) "
    "VALUES ($1, $2, $3, $4, $5) ON CONFLICT (kind, name) DO NOTHING"
)
_UPDATE = (
    "UPDATE sealed_records SET sealed = $1, etag = $2, updated_at = $3 "
    "WHERE kind = $4 AND name = $5 AND etag = $6"
)
_UPSERT = (
    "INSERT INTO sealed_records (kind, name, sealed, etag, updated_at) "
    "VALUES ($1, $2, $3, $4, $5) ON CONFLICT (kind, name) "
    "DO UPDATE SET sealed = excluded.sealed, etag = excluded.etag, updated_at = excluded.updated_at"
)


def _nobody(_: StoreUnavailableError | None) -> None:
    """Hears of outages and does nothing."""


class SqlSealedStore:
    """A secrets.ports.SealedStore."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def get(self, kind: str, name: str) -> SealedRecord | None:
        """As SealedStore.get."""
        row = await self._database.fetch_one(_GET, kind, name)
        return None if row is None else _record(row)

    async def etags(self, kind: str) -> Mapping[str, str]:
        """As SealedStore.etags."""
        rows = await self._database.fetch(_ETAGS, kind)
        return {row["name"]: row["etag"] for row in rows}

    async def put(self, kind: str, name: str, sealed: bytes, etag: str | None) -> str | None:
        """As SealedStore.put."""
        # Not derived from the content, which may come back.
        written = secrets.token_hex(8)
        now = round(self._clock.wall() * 1_000_000)
        async with self._database.transaction() as transaction:
            if etag:
                done = await transaction.execute(_UPDATE, sealed, written, now, kind, name, etag)
            else:
                statement = _UPSERT if etag is None else _INSERT
                done = await transaction.execute(statement, kind, name, sealed, written, now)
            if done:
                await transaction.notify(CHANNEL)
        return written if done else None

    async def delete(self, kind: str, name: str, etag: str | None = None) -> bool:
        """As SealedStore.delete."""
        async with self._database.transaction() as transaction:
            gone = await transaction.execute(
                "DELETE FROM sealed_records WHERE kind = $1 AND name = $2 AND (etag = $3 OR $4)",
                *(kind, name, etag or "", etag is None),
            )
            if gone:
                await transaction.notify(CHANNEL)
        return bool(gone)

    async def scan(self, batch: int) -> AsyncIterator[list[SealedRecord]]:
        """As SealedStore.scan."""
        # Page by page: whoever reads a page may write to it before asking for the next.
        after = ("", "")
        while rows := await self._database.fetch(_NEXT, *after, batch):
            yield [_record(row) for row in rows]
            after = rows[-1]["kind"], rows[-1]["name"]

    async def watch(
        self,
        kind: str,
        *,
        poll_seconds: float = POLL_SECONDS,
        heard: Callable[[StoreUnavailableError | None], None] = _nobody,
    ) -> AsyncGenerator[Mapping[str, str]]:
        """Yields the etags of a kind at first, and then whenever they are others, for ever.

        Writes are told at once where the database notifies, and otherwise found within
        `poll_seconds`. `heard` is called with the error when the database goes away, and with
        None when it is back; it must not raise.
        """
        last: Mapping[str, str] | None = None
        away = False
        async with self._database.listening(CHANNEL) as bell:
            while True:
                # Before the look, so that what comes after it rings.
                bell.clear()
                try:
                    etags = await self.etags(kind)
                except StoreUnavailableError as error:
                    if not away:
                        away = True
                        heard(error)
                else:
                    if away:
                        away = False
                        heard(None)
                    if etags != last:
                        last = etags
                        yield etags
                with suppress(TimeoutError):
                    async with asyncio.timeout(poll_seconds):
                        await bell.wait()


def _record(row: Row) -> SealedRecord:
    return SealedRecord(row["kind"], row["name"], bytes(row["sealed"]), row["etag"])
