"""The audit trail in real databases: one chain for all, and every tampering found."""

import asyncio
from contextlib import aclosing

import pytest

from tests.support.tampering import TAMPERINGS, Tamper, acts, tamper_with
from trunkline_server.clock import SystemClock
from trunkline_server.governance.audit.chain import linking
from trunkline_server.governance.audit.checkpoints import Checkpoint
from trunkline_server.governance.audit.export import from_lines, to_line
from trunkline_server.governance.audit.ports import AuditQuery, Head, Record
from trunkline_server.governance.audit.verify import Finding, verify, verify_lines
from trunkline_server.store.audit import SqlAuditStore
from trunkline_server.store.database import (
    Database,
    StoreUnavailableError,
)
from trunkline_server.store.resources import ResourceExistsError, ResourceStore


async def all_of(trail: SqlAuditStore) -> list[Record]:
    async with aclosing(trail.stream()) as records:
        return [record async for record in records]


async def test_what_is_written_is_what_is_read(trail: SqlAuditStore) -> None:
    assert await trail.head() == Head()
    first = await trail.append(linking(acts(3)))
    second = await trail.append(linking(acts(2)))
    written = [*first, *second]
    assert await all_of(trail) == written
    assert await trail.head() == Head(5, written[-1].hash)
    result = await verify(trail.stream)
    assert (result.sound, result.head.count) == (True, 5)
    exported = [to_line(record) for record in await all_of(trail)]
    assert verify_lines(lambda: from_lines(exported)).sound


async def test_replicas_that_write_together_make_one_chain(
    trail: SqlAuditStore, other: Database
) -> None:
    elsewhere = SqlAuditStore(other)

    async def write(store: SqlAuditStore, actor: str) -> None:
        for _ in range(15):
            await store.append(linking(acts(2, actor)))

    await asyncio.gather(
        write(trail, "a"), write(elsewhere, "b"), write(trail, "c"), write(elsewhere, "d")
    )
    result = await verify(trail.stream)
    assert (result.sound, result.head.count) == (True, 120)
    counts = dict.fromkeys("abcd", 0)
    for record in await all_of(trail):
        counts[record.actor] += 1
    assert counts == dict.fromkeys("abcd", 30)


async def test_a_change_and_its_entry_are_true_together(
    database: Database, trail: SqlAuditStore
) -> None:
    resources = ResourceStore(database, SystemClock())

    async def create(name: str) -> None:
        async with resources.change() as change:
            await trail.append_within(change.transaction, linking(acts(1)))
            await change.create("providers", name, b"{}")

    await create("p")
    assert (await trail.head()).count == 1
    with pytest.raises(ResourceExistsError):
        await create("p")
    assert (await trail.head()).count == 1
    assert (await verify(trail.stream)).sound


async def test_an_entry_written_without_the_lock_costs_another_try(
    database: Database, trail: SqlAuditStore
) -> None:
    stale = linking(acts(1))(Head())
    await trail.append(linking(acts(1)))
    with pytest.raises(StoreUnavailableError, match="took no entry"):
        await trail.append(lambda _: stale)
    assert (await verify(trail.stream)).head.count == 1


async def test_entries_are_found_by_what_they_say(trail: SqlAuditStore) -> None:
    await trail.append(linking(acts(10)))
    await trail.append(linking(acts(2, "issuers[corp]")))

    async def found(**fields: object) -> list[int]:
        query = AuditQuery(**fields)  # type: ignore[arg-type] # Fields by name.
        return [record.seq for record in await trail.find(query)]

    assert await found() == list(range(12, 0, -1))
    assert await found(limit=3) == [12, 11, 10]
    assert await found(limit=3, before_seq=10) == [9, 8, 7]
    assert await found(actor="issuers[corp]") == [12, 11]
    assert await found(tenant="acme", limit=2) == [12, 10]
    assert await found(resource="providers/p9") == [10]
    assert await found(resource="providers/") == await found()
    assert await found(action="admin.providers.") == await found()
    assert await found(action="admin.keys.") == []
    start = 1_767_225_600_000_000
    assert await found(since=start + 2, until=start + 4) == [4, 3]


async def test_the_table_itself_refuses_changes(database: Database, trail: SqlAuditStore) -> None:
    await trail.append(linking(acts(2)))
    for statement in ("UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log"):
        with pytest.raises(Exception, match="takes new entries only"):
            async with database.transaction() as transaction:
                await transaction.execute(statement)
    assert (await verify(trail.stream)).sound


@pytest.mark.parametrize(("tamper", "finding"), TAMPERINGS)
async def test_tampering_is_found(
    database: Database, trail: SqlAuditStore, tamper: Tamper, finding: Finding
) -> None:
    checkpoints = []
    for _ in range(2):
        records = await trail.append(linking(acts(5)))
        checkpoints.append(Checkpoint(Head(records[-1].seq, records[-1].hash), 0))
    whole = await all_of(trail)
    assert (await verify(trail.stream, checkpoints)).sound
    await tamper_with(database, tamper, whole)
    assert (await verify(trail.stream, checkpoints)).finding == finding
    exported = [to_line(record) for record in await all_of(trail)]
    assert verify_lines(lambda: from_lines(exported), checkpoints).finding == finding
