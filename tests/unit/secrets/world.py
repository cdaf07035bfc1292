"""What tests of credentials stand on: a store in memory, ears, and sources that obey."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from trunkline_server.secrets.ports import SealedRecord, SecretError, SecretValue


@dataclass
class MemoryStore:
    """A SealedStore; its records can be got at, to spoil them."""

    records: dict[tuple[str, str], SealedRecord] = field(default_factory=dict)
    writes: int = 0

    async def get(self, kind: str, name: str) -> SealedRecord | None:
        return self.records.get((kind, name))

    async def put(self, kind: str, name: str, sealed: bytes, etag: str | None) -> str | None:
        found = self.records.get((kind, name))
        if etag is not None and etag != (found.etag if found else ""):
            return None
        self.writes += 1
        written = f"e{self.writes}"
        self.records[kind, name] = SealedRecord(kind, name, sealed, written)
        return written

    async def delete(self, kind: str, name: str, etag: str | None = None) -> bool:
        found = self.records.get((kind, name))
        if found is None or etag not in {None, found.etag}:
            return False
        del self.records[kind, name]
        return True

    async def etags(self, kind: str) -> Mapping[str, str]:
        return {
            name: record.etag
            for (kept, name), record in sorted(self.records.items())
            if kept == kind
        }

    async def scan(self, batch: int) -> AsyncIterator[list[SealedRecord]]:
        names = sorted(self.records)
        for start in range(0, len(names), batch):
            yield [self.records[name] for name in names[start : start + batch]]


@dataclass
class Ears:
    """A SecretAudit and a SecretWatch that remember."""

    audited: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    fetches: list[tuple[str, str]] = field(default_factory=list)
    failures: list[tuple[str, float]] = field(default_factory=list)

    def __call__(self, action: str, name: str, detail: Mapping[str, str]) -> None:
        self.audited.append((action, name, dict(detail)))

    def fetched(self, reference: str, version: str, seconds: float) -> None:
        self.fetches.append((reference, version))

    def fetch_failed(self, reference: str, problem: str, stale_for: float) -> None:
        self.failures.append((problem, stale_for))

    def actions(self) -> list[str]:
        return [action for action, _, _ in self.audited]


@dataclass
class ScriptedSource:
    """A SecretSource that gives what it is told to, or fails."""

    answer: SecretValue | SecretError
    asked: int = 0

    async def fetch(self, reference: str) -> SecretValue:
        self.asked += 1
        if isinstance(self.answer, SecretError):
            raise self.answer
        return self.answer
