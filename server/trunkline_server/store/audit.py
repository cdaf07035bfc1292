"""The audit trail's table, on either database."""

from collections.abc import AsyncGenerator, Sequence

from trunkline_server.governance.audit.ports import AuditQuery, Head, Link, Record
from trunkline_server.store.database import (
    ConstraintError,
    Database,
    Dialect,
    Row,
    StoreUnavailableError,
    Transaction,
)

_COLUMNS = (
    "seq, at, tenant, actor, action, resource, before_digest, after_digest, details, prev_hash, "
    "hash"
)
_INSERT = (
    f"INSERT INTO audit_log ({_COLUMNS}) "  # noqa: S608 - A constant.
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
)
_NEXT = (
    f"SELECT {_COLUMNS} FROM audit_log "  # noqa: S608 - As above.
    "WHERE seq > $1 AND at >= $2 ORDER BY seq LIMIT $3"
)
# By the index on times, which a planner that is after the least number might not choose.
_FIRST_SINCE = (
    "WITH recent AS MATERIALIZED (SELECT seq FROM audit_log WHERE at >= $1) "
    "SELECT min(seq) AS seq FROM recent"
)
_FIND = (
    f"SELECT {_COLUMNS} FROM audit_log "  # noqa: S608 - As above.
    "WHERE seq < $1 AND at >= $2 AND at < $3 "
    "AND (tenant = $4 OR $4 = '') AND (actor = $5 OR $5 = '') "
    "AND action >= $6 AND action < $7 AND resource >= $8 AND resource < $9 "
    "ORDER BY seq DESC LIMIT $10"
)
# Below every number that somebody may have written over another.
_BEFORE_ALL = -(2**62)
_PAGE = 500
# Above every character, so that PREFIX <= name < PREFIX + _LAST is all that begins with PREFIX.
_LAST = "\U0010ffff"
# Whoever adds to the chain holds this advisory lock of the database; any number of ours will do.
_CHAIN_LOCK = 7_240_581_132_900_417


class SqlAuditStore:
    """An AuditStore. One chain for the database, whichever replica adds to it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, link: Link) -> Sequence[Record]:
        async with self._database.transaction() as transaction:
            return await self.append_within(transaction, link)

    async def append_within(self, transaction: Transaction, link: Link) -> Sequence[Record]:
        """As append, in a transaction of the caller's: what is done and its entry are then true
        together. Others who add wait until it ends."""
        # SQLite has one writer at a time as it is.
        if self._database.dialect is Dialect.POSTGRES:
            await transaction.fetch_one("SELECT pg_advisory_xact_lock($1)", _CHAIN_LOCK)
        row = await transaction.fetch_one(
            "SELECT seq, hash FROM audit_log ORDER BY seq DESC LIMIT 1"
        )
        records = link(_head(row))
        try:
            await transaction.execute_many(_INSERT, [_values(record) for record in records])
        except ConstraintError as error:
            # Another one has the number: somebody added without the lock. Another try sees it.
            raise StoreUnavailableError(f"the audit trail took no entry: {error}") from error
        return records

    async def head(self) -> Head:
        return _head(
            await self._database.fetch_one(
                "SELECT seq, hash FROM audit_log ORDER BY seq DESC LIMIT 1"
            )
        )

    async def find(self, query: AuditQuery) -> Sequence[Record]:
        rows = await self._database.fetch(
            _FIND,
            *(query.before_seq, query.since, query.until, query.tenant, query.actor),
            *(query.action, query.action + _LAST, query.resource, query.resource + _LAST),
            query.limit,
        )
        return [_record(row) for row in rows]

    async def stream(self, *, since: int = 0) -> AsyncGenerator[Record]:
        after = _BEFORE_ALL
        if since:
            first = await self._database.fetch_one(_FIRST_SINCE, since)
            if first is None or first["seq"] is None:
                return
            after = first["seq"] - 1
        # Page by page: nothing keeps the database from forgetting meanwhile.
        while rows := await self._database.fetch(_NEXT, after, since, _PAGE):
            for row in rows:
                yield _record(row)
            after = rows[-1]["seq"]


def _head(row: Row | None) -> Head:
    return Head() if row is None else Head(row["seq"], bytes(row["hash"]))


def _values(record: Record) -> tuple[object, ...]:
    return (
        *(record.seq, record.at, record.tenant, record.actor, record.action, record.resource),
        *(record.before, record.after, record.details, record.prev_hash, record.hash),
    )


def _record(row: Row) -> Record:
    return Record(
        seq=row["seq"],
        at=row["at"],
        tenant=row["tenant"],
        actor=row["actor"],
        action=row["action"],
        resource=row["resource"],
        before=row["before_digest"],
        after=row["after_digest"],
        details=row["details"],
        prev_hash=row["prev_hash"],
        hash=row["hash"],
    )
