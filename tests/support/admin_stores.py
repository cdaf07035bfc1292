"""Small stores that keep what the control plane keeps, in memory."""

import asyncio
import hashlib
from bisect import insort
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.governance.audit.chain import Act
from trunkline_server.governance.audit.checkpoints import (
    Checkpoint,
    CheckpointFile,
    read_checkpoints,
)
from trunkline_server.governance.audit.ports import AuditQuery, Head, Link, Record
from trunkline_server.ledger.queries import (
    Dimension,
    UsageFilter,
    UsagePage,
    UsageQuery,
    UsageRow,
)
from trunkline_server.rpc.admin.calls import missing, stale, taken
from trunkline_server.rpc.admin.ports import (
    Balance,
    Canary,
    Change,
    HealthRow,
    SecretInfo,
    SecretText,
    SecretVersion,
)


class MissingError(Exception):
    """There is no such resource."""


@dataclass(frozen=True)
class Stored:
    """A resource."""

    kind: str
    name: str
    tenant: str
    etag: str
    revision: int
    body: bytes
    created_at: int
    updated_at: int


@dataclass(frozen=True)
class StoredPage:
    resources: tuple[Stored, ...]
    next_page_token: str


@dataclass(frozen=True)
class StoredSnapshot:
    revision: int
    resources: tuple[Stored, ...]


@dataclass(frozen=True)
class StoredDelta:
    revision: int
    changed: tuple[Stored, ...]
    deleted: tuple[tuple[str, str], ...]


Rows = dict[tuple[str, str], Stored]


class MemoryResources:
    """Documents by kind and name. `before_change` runs ahead of every change, as another
    replica's doings would; `acts` are those recorded with changes that hold."""

    def __init__(self) -> None:
        self.rows: Rows = {}
        self.revision = 0
        # What was deleted, and at which revision; what changed before `forgotten` is not known.
        self.deleted: dict[tuple[str, str], int] = {}
        self.forgotten = 0
        self.acts: list[Act] = []
        self.before_change: Callable[[], Awaitable[None]] | None = None
        self._numbers = count(1)
        self._lock = asyncio.Lock()

    async def get(self, kind: str, name: str) -> Stored:
        return found(self.rows, kind, name)

    async def list(
        self,
        kind: str,
        *,
        prefix: str = "",
        tenant: str | None = None,
        page_size: int = 100,
        page_token: str = "",
    ) -> StoredPage:
        asked = f"{kind}|{prefix}|{tenant}|"
        if page_token and not page_token.startswith(asked):
            raise invalid("page_token", "is not one that this list gave")
        after = page_token.removeprefix(asked)
        names: list[str] = []
        for (of_kind, name), row in self.rows.items():
            wanted = of_kind == kind and name.startswith(prefix) and name > after
            if wanted and tenant in {None, row.tenant}:
                insort(names, name)
        page = names[:page_size]
        token = asked + page[-1] if len(names) > page_size else ""
        return StoredPage(tuple(self.rows[kind, name] for name in page), token)

    async def read_all(self, kinds: Iterable[str]) -> StoredSnapshot:
        wanted = set(kinds)
        return StoredSnapshot(
            self.revision, tuple(row for row in self.rows.values() if row.kind in wanted)
        )

    async def read_since(self, revision: int, kinds: Iterable[str]) -> StoredDelta | None:
        if revision < self.forgotten:
            return None
        wanted = set(kinds)
        changed = [row for row in self.rows.values() if row.revision > revision]
        gone = [key for key, at in self.deleted.items() if at > revision and key not in self.rows]
        return StoredDelta(
            self.revision,
            tuple(row for row in changed if row.kind in wanted),
            tuple(key for key in gone if key[0] in wanted),
        )

    @asynccontextmanager
    async def change(self) -> AsyncGenerator["MemoryChange"]:
        if self.before_change is not None:
            await self.before_change()
        async with self._lock:
            change = MemoryChange(dict(self.rows), self.revision + 1, self._numbers)
            yield change
            for key in self.rows.keys() - change.rows.keys():
                self.deleted[key] = change.revision
            self.rows, self.revision = change.rows, change.revision
            self.acts += change.transaction


class MemoryChange:
    """Changes to a copy of the rows. Its transaction is a list of the acts that go with it."""

    def __init__(self, rows: Rows, revision: int, numbers: Any) -> None:
        self.rows = rows
        self.revision = revision
        self.transaction: list[Act] = []
        self._numbers = numbers

    async def create(self, kind: str, name: str, body: bytes, *, tenant: str = "") -> Stored:
        if (kind, name) in self.rows:
            raise KeyError(name)
        number = next(self._numbers)
        at = number * 1_000_000
        row = Stored(kind, name, tenant, f"e{number}", self.revision, body, at, at)
        self.rows[kind, name] = row
        return row

    async def update(self, kind: str, name: str, body: bytes) -> Stored:
        row = found(self.rows, kind, name)
        number = next(self._numbers)
        row = replace(
            row,
            etag=f"e{number}",
            revision=self.revision,
            body=body,
            updated_at=number * 1_000_000,
        )
        self.rows[kind, name] = row
        return row

    async def delete(self, kind: str, name: str) -> None:
        found(self.rows, kind, name)
        del self.rows[kind, name]


def found(rows: Rows, kind: str, name: str) -> Stored:
    try:
        return rows[kind, name]
    except KeyError:
        raise MissingError from None


@dataclass
class MemoryFiles:
    """A configuration file that owns some kinds: those of which it has documents."""

    path: str = "trunkline.yaml"
    owned: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def owns(self, kind: str) -> bool:
        return kind in self.owned

    def documents(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        return self.owned[kind]


class MemoryTrail:
    """Acts in a list; those of changes go with the change."""

    def __init__(self) -> None:
        self.acts: list[Act] = []

    def record(self, act: Act) -> None:
        self.acts.append(act)

    async def record_within(self, change: Change, act: Act) -> None:
        change.transaction.append(act)


@dataclass
class MemoryTable:
    """A routing table, as it is seen from outside."""

    replica: str = "replica-1"
    rows: list[HealthRow] = field(default_factory=list)
    charged: list[admin.EffectivePrice] = field(default_factory=list)

    def health(self) -> Sequence[HealthRow]:
        return self.rows

    def prices(self) -> Sequence[admin.EffectivePrice]:
        return self.charged


@dataclass
class MemoryBalances:
    """Balances by budget."""

    kept: dict[str, list[Balance]] = field(default_factory=dict)

    async def balances(
        self,
        budget: str,
        *,
        tenant: str | None,
        subject: str | None,
        after: tuple[str, str],
        limit: int,
    ) -> Sequence[Balance]:
        return sorted(
            (
                each
                for each in self.kept.get(budget, [])
                if (each.tenant, each.subject) > after
                and tenant in {None, each.tenant}
                and subject in {None, each.subject}
            ),
            key=lambda each: (each.tenant, each.subject),
        )[:limit]


class MemoryCredentials:
    """Secrets by name. `tried` says what became of a value at its provider."""

    def __init__(self, tried: Callable[[str], Canary] = lambda _: Canary("skipped")) -> None:
        self.tried = tried
        self.values: dict[str, list[str]] = {}
        self._infos: dict[str, SecretInfo] = {}
        self._numbers = count(1)

    async def list(self, *, prefix: str, after: str, limit: int) -> Sequence[SecretInfo]:
        names = sorted(name for name in self._infos if name.startswith(prefix) and name > after)
        return [self._infos[name] for name in names[:limit]]

    async def get(self, name: str) -> SecretInfo:
        if name not in self._infos:
            raise missing("credentials", name)
        return self._infos[name]

    async def create(
        self, name: str, *, reference: str, canary_provider: str, value: SecretText | None
    ) -> tuple[SecretInfo, Canary]:
        if name in self._infos:
            raise taken("credentials", name)
        text = value.text if value is not None else f"what {reference} holds"
        canary = self.tried(text) if canary_provider else Canary("skipped")
        if canary.verdict == "refused":
            raise TrunklineError(v1.ERROR_REASON_PROVIDER_CREDENTIALS, "the provider refused it")
        self.values[name] = [text]
        blank = SecretInfo(
            name=name,
            etag="",
            reference=reference,
            canary_provider=canary_provider,
            created_at=1_000_000,
            updated_at=1_000_000,
            versions=(),
        )
        return self._keep(blank, None), canary

    async def update(
        self,
        name: str,
        *,
        reference: str | None,
        canary_provider: str | None,
        etag: str | None,
    ) -> SecretInfo:
        info = await self._current(name, etag)
        if reference is not None:
            info = replace(info, reference=reference)
        if canary_provider is not None:
            info = replace(info, canary_provider=canary_provider)
        return self._keep(info, None)

    async def rotate(
        self, name: str, *, value: SecretText | None, grace: float, etag: str | None
    ) -> tuple[SecretInfo, Canary]:
        info = await self._current(name, etag)
        text = value.text if value is not None else f"what {info.reference} holds now"
        canary = self.tried(text) if info.canary_provider else Canary("skipped")
        if canary.verdict in {"refused", "unreachable"}:
            return info, canary
        self.values[name] = [text, *(self.values[name][:1] if grace else [])]
        return self._keep(info, round(grace * 1e6)), canary

    async def delete(self, name: str, *, etag: str | None) -> None:
        await self._current(name, etag)
        del self._infos[name], self.values[name]

    async def _current(self, name: str, etag: str | None) -> SecretInfo:
        info = await self.get(name)
        if etag not in {None, info.etag}:
            raise stale("credentials", name)
        return info

    def _keep(self, info: SecretInfo, grace_us: int | None) -> SecretInfo:
        versions = tuple(
            SecretVersion(
                version=str(place),
                fingerprint=hashlib.sha256(b"salt" + text.encode()).hexdigest()[:12],
                state="grace" if place else "active",
                grace_until=grace_us if place else None,
            )
            for place, text in enumerate(self.values[info.name])
        )
        kept = replace(info, etag=f"c{next(self._numbers)}", versions=versions)
        self._infos[info.name] = kept
        return kept


class AwayUsage:
    """A ledger that cannot be reached."""

    async def summarize(self, query: UsageQuery) -> list[UsageRow]:
        raise away()

    async def spent(
        self, where: Mapping[Dimension, str], start_us: int, end_us: int | None = None
    ) -> int:
        raise away()

    async def page(self, where: UsageFilter, size: int, token: str = "") -> UsagePage:
        raise away()

    async def scan(self, where: UsageFilter) -> AsyncGenerator[Sequence[admin.UsageEvent]]:
        yield await self._nothing()

    async def _nothing(self) -> Sequence[admin.UsageEvent]:
        raise away()

    async def delete_before(self, end_us: int, limit: int) -> int:
        raise away()


class MemoryAudit:
    """An audit trail's table."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    async def append(self, link: Link) -> Sequence[Record]:
        added = link(await self.head())
        self.records += added
        return added

    async def head(self) -> Head:
        if not self.records:
            return Head()
        return Head(self.records[-1].seq, self.records[-1].hash)

    async def find(self, query: AuditQuery) -> Sequence[Record]:
        return [
            each
            for each in reversed(self.records)
            if each.seq < query.before_seq
            and query.since <= each.at < query.until
            and query.tenant in {"", each.tenant}
            and query.actor in {"", each.actor}
            and each.action.startswith(query.action)
            and each.resource.startswith(query.resource)
        ][: query.limit]

    async def stream(self, *, since: int = 0) -> AsyncGenerator[Record]:
        for each in list(self.records):
            if each.at >= since:
                yield each


@dataclass
class FileCheckpoints:
    """A file of checkpoints."""

    path: Path
    key: bytes = b""

    def add(self, head: Head, at: int) -> Checkpoint:
        return CheckpointFile(self.path, self.key).add(head, at)

    def read(self) -> Sequence[Checkpoint]:
        with self.path.open("rb") as lines:
            return read_checkpoints(lines, self.key)


def away() -> TrunklineError:
    """What a store that cannot be reached raises."""
    return TrunklineError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, "the database is away")
