"""The control plane's documents: JSON text by kind and name, each change under a revision."""

import secrets
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from trunkline_server.clock import Clock
from trunkline_server.errors import invalid
from trunkline_server.pages import read_token, write_token
from trunkline_server.store.database import (
    Database,
    Reader,
    Row,
    StoreUnavailableError,
    Transaction,
)

# What watchers listen to.
CHANNEL = "trunkline_changes"
# So many revisions back, readers can ask what changed since.
HISTORY = 10_000
MAX_PAGE = 1000

_SELECT = (
    "SELECT kind, name, tenant, etag, revision, body, created_at, updated_at FROM resources "
    "WHERE kind = $1 "
)
_LIST = (
    _SELECT + "AND name >= $2 AND name < $3 AND name > $4 AND (tenant = $5 OR $6) "
    "ORDER BY name LIMIT $7"
)
_CHANGED = _SELECT + "AND revision > $2 ORDER BY name"
_DELETED = (
    "SELECT DISTINCT name FROM changes WHERE kind = $1 AND revision > $2 AND NOT EXISTS "
    "(SELECT 1 FROM resources WHERE resources.kind = changes.kind "
    "AND resources.name = changes.name) ORDER BY name"
)
_INSERT = (
    "INSERT INTO resources (kind, name, tenant, etag, revision, body, created_at, updated_at) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (kind, name) DO NOTHING"
)
_UPDATE = (
    "UPDATE resources SET body = $1, etag = $2, revision = $3, updated_at = $4 "
    "WHERE kind = $5 AND name = $6 AND (etag = $7 OR $8) "
    "RETURNING kind, name, tenant, etag, revision, body, created_at, updated_at"
)
# Above every character, so that PREFIX <= name < PREFIX + _LAST is all that begins with PREFIX.
_LAST = "\U0010ffff"


class ResourceError(Exception):
    """A change or a question that does not fit what is stored."""

    def __init__(self, kind: str, name: str, problem: str) -> None:
        super().__init__(f"{kind} {name!r} {problem}")
        self.kind = kind
        self.name = name


class ResourceNotFoundError(ResourceError):
    """There is none of this kind and name."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(kind, name, "does not exist")


class ResourceExistsError(ResourceError):
    """There is one of this kind and name already."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(kind, name, "exists already")


class EtagMismatchError(ResourceError):
    """Someone else changed it since it was read."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(kind, name, "was changed meanwhile: read it again")


@dataclass(frozen=True, slots=True)
class Resource:
    """A stored document.

    `tenant` is whose it is, or empty; `body` is JSON, as it was given; `etag` is another one
    after every change and `revision` the store's, at the last change. Times are microseconds
    since the Unix epoch.
    """

    kind: str
    name: str
    tenant: str
    etag: str
    revision: int
    body: bytes
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a list, in the order of names; an empty token means that nothing follows."""

    resources: tuple[Resource, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All resources of some kinds, as they were at one revision, by kind and name."""

    revision: int
    resources: tuple[Resource, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """What became of what changed between two revisions, as it is at the later one.

    `deleted` holds kinds and names. What was created and deleted again is among them.
    """

    revision: int
    changed: tuple[Resource, ...]
    deleted: tuple[tuple[str, str], ...]


class ResourceStore:
    """Reads and changes resources. Every method raises StoreUnavailableError."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def get(self, kind: str, name: str) -> Resource:
        """One resource; raises ResourceNotFoundError."""
        return await _get(self._database, kind, name)

    async def list(
        self,
        kind: str,
        *,
        prefix: str = "",
        tenant: str | None = None,
        page_size: int = 100,
        page_token: str = "",
    ) -> Page:
        """Those whose names begin with the prefix, of one tenant or of all, by name.

        A page holds at most `page_size`, or MAX_PAGE. Pages stay in order while others change
        what is listed: nothing is listed twice, and nothing that stays is left out.
        Raises TrunklineError with INVALID_REQUEST for a size below 1, and for a token that this
        same list did not give.
        """
        if page_size < 1:
            raise invalid("page_size", "must be at least 1")
        size = min(page_size, MAX_PAGE)
        question = (kind, prefix, tenant)
        after = read_token(page_token, *question) or ""
        rows = await self._database.fetch(
            _LIST,
            *(kind, prefix, prefix + _LAST, after, tenant or "", tenant is None, size + 1),
        )
        found = tuple(_resource(row) for row in rows[:size])
        more = len(rows) > size
        return Page(found, write_token(found[-1].name, *question) if more else "")

    async def revision(self) -> int:
        """The revision of the last change; 0 before the first."""
        return await _revision(self._database)

    async def read_all(self, kinds: Iterable[str]) -> Snapshot:
        """Every resource of these kinds, and the revision they are true for."""
        async with self._database.transaction(read_only=True) as transaction:
            revision = await _revision(transaction)
            found: list[Resource] = []
            for kind in sorted(set(kinds)):
                rows = await transaction.fetch(_SELECT + "ORDER BY name", kind)
                found.extend(map(_resource, rows))
        return Snapshot(revision, tuple(found))

    async def read_since(self, revision: int, kinds: Iterable[str]) -> Delta | None:
        """What changed of these kinds after a revision.

        None when that is not known any more, more than HISTORY revisions back, or when the
        revision has not been reached, as after a restored backup: read all again.
        """
        async with self._database.transaction(read_only=True) as transaction:
            now = await _revision(transaction)
            if not now - HISTORY <= revision <= now:
                return None
            changed: list[Resource] = []
            deleted: list[tuple[str, str]] = []
            for kind in sorted(set(kinds)):
                rows = await transaction.fetch(_CHANGED, kind, revision)
                changed.extend(map(_resource, rows))
                rows = await transaction.fetch(_DELETED, kind, revision)
                deleted.extend((kind, row["name"]) for row in rows)
        return Delta(now, tuple(changed), tuple(deleted))

    @asynccontextmanager
    async def change(self) -> AsyncGenerator["ResourceChange"]:
        """Changes that are made together, under one revision, or not at all.

        Others' changes wait meanwhile: hold it briefly.
        """
        async with self._database.transaction() as transaction:
            # First, for its lock: whoever changes anything comes here, one at a time.
            revision = await _number(
                transaction,
                "UPDATE meta SET value = value + 1 WHERE key = 'revision' RETURNING value",
            )
            now = round(self._clock.wall() * 1_000_000)
            yield ResourceChange(transaction, revision, now)
            await transaction.execute(
                "DELETE FROM changes WHERE revision <= $1", revision - HISTORY
            )
            await transaction.notify(CHANNEL)

    async def create(self, kind: str, name: str, body: bytes, *, tenant: str = "") -> Resource:
        """Stores a new resource; raises ResourceExistsError."""
        async with self.change() as change:
            return await change.create(kind, name, body, tenant=tenant)

    async def update(
        self, kind: str, name: str, body: bytes, *, etag: str | None = None
    ) -> Resource:
        """Replaces a body, if the etag, when one is given, is still the resource's.

        Raises ResourceNotFoundError and EtagMismatchError.
        """
        async with self.change() as change:
            return await change.update(kind, name, body, etag=etag)

    async def delete(self, kind: str, name: str, *, etag: str | None = None) -> int:
        """Removes a resource and gives the revision without it; raises as update does."""
        async with self.change() as change:
            await change.delete(kind, name, etag=etag)
            return change.revision


class ResourceChange:
    """Changes under one revision. `transaction` takes what is to be true with them."""

    def __init__(self, transaction: Transaction, revision: int, now: int) -> None:
        self.transaction = transaction
        self.revision = revision
        self._now = now

    async def get(self, kind: str, name: str) -> Resource:
        """One resource, as it is now; raises ResourceNotFoundError."""
        return await _get(self.transaction, kind, name)

    async def create(self, kind: str, name: str, body: bytes, *, tenant: str = "") -> Resource:
        """As ResourceStore.create."""
        made = Resource(kind, name, tenant, _new_etag(), self.revision, body, self._now, self._now)
        created = await self.transaction.execute(
            _INSERT,
            *(kind, name, tenant, made.etag, made.revision, body.decode(), self._now, self._now),
        )
        if not created:
            raise ResourceExistsError(kind, name)
        await self._note(kind, name)
        return made

    async def update(
        self, kind: str, name: str, body: bytes, *, etag: str | None = None
    ) -> Resource:
        """As ResourceStore.update."""
        rows = await self.transaction.fetch(
            _UPDATE,
            *(body.decode(), _new_etag(), self.revision, self._now, kind, name),
            *(etag or "", etag is None),
        )
        if not rows:
            await self._refuse(kind, name)
        await self._note(kind, name)
        return _resource(rows[0])

    async def delete(self, kind: str, name: str, *, etag: str | None = None) -> None:
        """As ResourceStore.delete."""
        deleted = await self.transaction.execute(
            "DELETE FROM resources WHERE kind = $1 AND name = $2 AND (etag = $3 OR $4)",
            *(kind, name, etag or "", etag is None),
        )
        if not deleted:
            await self._refuse(kind, name)
        await self._note(kind, name)

    async def _refuse(self, kind: str, name: str) -> None:
        """Raises why nothing was there to change."""
        await self.get(kind, name)
        raise EtagMismatchError(kind, name)

    async def _note(self, kind: str, name: str) -> None:
        await self.transaction.execute(
            "INSERT INTO changes (revision, kind, name, changed_at) VALUES ($1, $2, $3, $4) "
            "ON CONFLICT (revision, kind, name) DO NOTHING",
            *(self.revision, kind, name, self._now),
        )


async def _revision(reader: Reader) -> int:
    return await _number(reader, "SELECT value FROM meta WHERE key = 'revision'")


async def _number(reader: Reader, statement: str) -> int:
    row = await reader.fetch_one(statement)
    if row is None:
        raise StoreUnavailableError("the store has lost its revision: restore a backup")
    number: int = row["value"]
    return number


async def _find(reader: Reader, kind: str, name: str) -> Resource | None:
    row = await reader.fetch_one(_SELECT + "AND name = $2", kind, name)
    return None if row is None else _resource(row)


async def _get(reader: Reader, kind: str, name: str) -> Resource:
    found = await _find(reader, kind, name)
    if found is None:
        raise ResourceNotFoundError(kind, name)
    return found


def _resource(row: Row) -> Resource:
    kind, name, tenant, etag, revision, body, created_at, updated_at = (
        row[position] for position in range(8)
    )
    return Resource(kind, name, tenant, etag, revision, body.encode(), created_at, updated_at)


def _new_etag() -> str:
    # Not derived from the revision, which a restored backup counts anew.
    return secrets.token_hex(8)
