"""Encrypted records: sealed before the store sees them, opened after, re-keyed in batches."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from trunkline_server.secrets.envelope import EnvelopeError, Keyring
from trunkline_server.secrets.ports import SealedRecord, SealedStore, SecretAudit, SecretError


class RecordChangedError(SecretError):
    """Somebody else wrote the record since it was read."""


@dataclass(slots=True)
class Rekeyed:
    """What a re-keying did: records sealed anew, those that were already, those that changed
    under its hands and are sealed by whoever changed them, and those that could not be opened,
    as `kind/name: why`."""

    sealed: int = 0
    kept: int = 0
    overtaken: int = 0
    unreadable: list[str] = field(default_factory=list)

    def failed(self, record: SealedRecord, error: EnvelopeError) -> None:
        self.unreadable.append(f"{record.kind}/{record.name}: {error}")


class EncryptedRecords:
    """Records whose content only this keyring can read. Reads and changes are audited."""

    def __init__(self, store: SealedStore, keyring: Keyring, audit: SecretAudit) -> None:
        self._store = store
        self._keyring = keyring
        self._audit = audit

    async def read(self, kind: str, name: str) -> tuple[bytes, str] | None:
        """A record's content and its etag, or None. Raises EnvelopeError."""
        record = await self._store.get(kind, name)
        if record is None:
            return None
        try:
            content = self._keyring.open(kind, name, record.sealed)
        except EnvelopeError as error:
            self._audit("secret.unreadable", name, {"kind": kind, "problem": str(error)})
            raise
        self._audit("secret.read", name, {"kind": kind, "etag": record.etag})
        return content, record.etag

    async def write(self, kind: str, name: str, content: bytes, etag: str | None = None) -> str:
        """Writes a record and gives its etag; `etag` as in SealedStore.put.

        Raises RecordChangedError.
        """
        written = await self._store.put(kind, name, self._keyring.seal(kind, name, content), etag)
        if written is None:
            raise RecordChangedError(f"{kind} {name!r} was changed by somebody else")
        self._audit("secret.write", name, {"kind": kind, "etag": written})
        return written

    async def delete(self, kind: str, name: str, etag: str | None = None) -> bool:
        """Removes a record; False if there was none, or none with that etag."""
        gone = await self._store.delete(kind, name, etag)
        self._audit("secret.delete", name, {"kind": kind, "found": str(gone).lower()})
        return gone

    async def check(self, batch: int = 100) -> list[str]:
        """The ids of the master keys in use, sorted.

        Raises MasterKeyError for the first record whose key is missing or another one: to be
        called at the start, so that a wrong master key is told at once.
        """
        return sorted(
            {
                self._keyring.key_id(record.kind, record.name, record.sealed)
                async for record in self._each(batch)
            }
        )

    async def rekey(self, batch: int = 100) -> Rekeyed:
        """Seals every record under the key that writes, with a new data key.

        Records stay readable throughout; interrupted, it goes on where it is called again.
        """
        done = Rekeyed()
        async for record in self._each(batch):
            try:
                await self._rekey_one(record, done)
            except EnvelopeError as error:
                done.failed(record, error)
        self._audit(
            "secret.rekey",
            self._keyring.writes_with,
            {
                "sealed": str(done.sealed),
                "kept": str(done.kept),
                "overtaken": str(done.overtaken),
                "unreadable": str(len(done.unreadable)),
            },
        )
        return done

    async def _rekey_one(self, record: SealedRecord, done: Rekeyed) -> None:
        kind, name = record.kind, record.name
        if self._keyring.key_id(kind, name, record.sealed) == self._keyring.writes_with:
            done.kept += 1
            return
        content = self._keyring.open(kind, name, record.sealed)
        sealed = self._keyring.seal(kind, name, content)
        if await self._store.put(kind, name, sealed, record.etag) is None:
            done.overtaken += 1
        else:
            done.sealed += 1

    async def _each(self, batch: int) -> AsyncIterator[SealedRecord]:
        async for records in self._store.scan(batch):
            for record in records:
                yield record
