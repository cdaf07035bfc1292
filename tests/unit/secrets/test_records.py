"""Encrypted records: what the store sees, re-keying, and what is told of trouble."""

import pytest

from tests.unit.secrets.test_envelope import NEW, OLD, ring
from tests.unit.secrets.world import Ears, MemoryStore
from trunkline_server.secrets.envelope import (
    TamperedError,
    UnknownMasterKeyError,
    WrongMasterKeyError,
)
from trunkline_server.secrets.ports import SealedRecord
from trunkline_server.secrets.records import EncryptedRecords, RecordChangedError


async def filled(store: MemoryStore, count: int = 25) -> None:
    records = EncryptedRecords(store, ring(old=OLD), Ears())
    for number in range(count):
        await records.write("secret", f"s{number:02}", f"value-{number}".encode())


async def test_the_store_sees_no_content_and_the_audit_no_value() -> None:
    store, ears = MemoryStore(), Ears()
    records = EncryptedRecords(store, ring(k=OLD), ears)
    etag = await records.write("secret", "a", b"sk-hidden")
    assert await records.read("secret", "a") == (b"sk-hidden", etag)
    assert await records.delete("secret", "a")
    assert await records.read("secret", "a") is None
    assert ears.actions() == ["secret.write", "secret.read", "secret.delete"]
    assert "sk-hidden" not in repr(ears.audited)


async def test_a_stale_write_is_refused() -> None:
    store = MemoryStore()
    records = EncryptedRecords(store, ring(k=OLD), Ears())
    etag = await records.write("secret", "a", b"1", "")
    await records.write("secret", "a", b"2", etag)
    for stale in (etag, ""):
        with pytest.raises(RecordChangedError):
            await records.write("secret", "a", b"3", stale)
    found = await records.read("secret", "a")
    assert found is not None
    assert found[0] == b"2"


@pytest.mark.parametrize("batch", [1, 7, 100])
async def test_rekeying_moves_all_records_to_the_writing_key(batch: int) -> None:
    store, ears = MemoryStore(), Ears()
    await filled(store)
    both = EncryptedRecords(store, ring(new=NEW, old=OLD), ears)
    done = await both.rekey(batch)
    assert (done.sealed, done.kept, done.overtaken, done.unreadable) == (25, 0, 0, [])
    assert await EncryptedRecords(store, ring(new=NEW), Ears()).check() == ["new"]
    found = await EncryptedRecords(store, ring(new=NEW), Ears()).read("secret", "s07")
    assert found is not None
    assert found[0] == b"value-7"
    again = await both.rekey(batch)
    assert (again.sealed, again.kept) == (0, 25)
    assert ears.actions() == ["secret.rekey", "secret.rekey"]


async def test_rekeying_leaves_what_it_cannot_open_and_what_others_wrote() -> None:
    store = MemoryStore()
    await filled(store, 4)
    broken = store.records["secret", "s01"]
    spoilt = broken.sealed[:-1] + bytes((broken.sealed[-1] ^ 1,))
    store.records["secret", "s01"] = SealedRecord("secret", "s01", spoilt, broken.etag)
    both = ring(new=NEW, old=OLD)

    class Overtaken(MemoryStore):
        async def put(self, kind: str, name: str, sealed: bytes, etag: str | None) -> str | None:
            if name == "s02" and etag is not None:
                theirs = both.seal(kind, name, b"theirs")
                self.records[kind, name] = SealedRecord(kind, name, theirs, "theirs")
            return await super().put(kind, name, sealed, etag)

    store = Overtaken(store.records, store.writes)
    records = EncryptedRecords(store, both, Ears())
    done = await records.rekey()
    assert (done.sealed, done.overtaken) == (2, 1)
    assert [line.split(":")[0] for line in done.unreadable] == ["secret/s01"]
    found = await records.read("secret", "s02")
    assert found is not None
    assert found[0] == b"theirs"


async def test_a_wrong_master_key_is_told_at_the_start() -> None:
    store = MemoryStore()
    await filled(store, 3)
    with pytest.raises(WrongMasterKeyError, match="'old'"):
        await EncryptedRecords(store, ring(old=NEW), Ears()).check()
    with pytest.raises(UnknownMasterKeyError, match="'old'"):
        await EncryptedRecords(store, ring(new=NEW), Ears()).check()


async def test_a_tampered_record_is_told_to_the_audit() -> None:
    store, ears = MemoryStore(), Ears()
    await filled(store, 2)
    other = store.records["secret", "s01"]
    store.records["secret", "s00"] = SealedRecord("secret", "s00", other.sealed, "e9")
    with pytest.raises(TamperedError):
        await EncryptedRecords(store, ring(old=OLD), ears).read("secret", "s00")
    assert ears.actions() == ["secret.unreadable"]
