"""What somebody might do to an audit trail whose database they are masters of."""

from collections.abc import Awaitable, Callable, Mapping

from trunkline_server.governance.audit.chain import Act, linking, seal
from trunkline_server.governance.audit.ports import Head, Record
from trunkline_server.governance.audit.verify import Fault, Finding
from trunkline_server.store.database import Database, Dialect, Transaction

# What stops mistakes; whoever tampers takes it off first.
_TRIGGERS: Mapping[Dialect, tuple[str, ...]] = {
    Dialect.POSTGRES: ("DROP TRIGGER audit_log_no_change ON audit_log",),
    Dialect.SQLITE: ("DROP TRIGGER audit_log_no_update", "DROP TRIGGER audit_log_no_delete"),
}
COLUMNS = (
    "seq, at, tenant, actor, action, resource, before_digest, after_digest, details, prev_hash, "
    "hash"
)


def acts(count: int, actor: str = "keys[root]") -> list[Act]:
    return [
        Act(
            at=1_767_225_600_000_000 + number,
            actor=actor,
            action="admin.providers.update",
            resource=f"providers/p{number}",
            tenant="acme" if number % 2 else "",
            before=None if number == 0 else bytes([number] * 32),
            after=bytes([number + 1] * 32),
            details={"note": "naïve café \u2603"},
        )
        for number in range(count)
    ]


Tamper = Callable[[Transaction, list[Record]], Awaitable[object]]


async def edit(transaction: Transaction, _: list[Record]) -> None:
    await transaction.execute("UPDATE audit_log SET actor = 'keys[nobody]' WHERE seq = 5")


async def edit_the_time(transaction: Transaction, _: list[Record]) -> None:
    await transaction.execute("UPDATE audit_log SET at = at + 1 WHERE seq = 5")


async def edit_details(transaction: Transaction, _: list[Record]) -> None:
    await transaction.execute("""UPDATE audit_log SET details = '{"id":"x"}' WHERE seq = 5""")


async def edit_digest(transaction: Transaction, _: list[Record]) -> None:
    await transaction.execute("UPDATE audit_log SET before_digest = NULL WHERE seq = 5")


async def edit_and_rehash(transaction: Transaction, records: list[Record]) -> None:
    forged = seal(acts(1, "keys[nobody]")[0], Head(4, records[3].hash))
    await transaction.execute("DELETE FROM audit_log WHERE seq = 5")
    await insert(transaction, forged)


async def insert(transaction: Transaction, record: Record) -> None:
    await transaction.execute(
        f"INSERT INTO audit_log ({COLUMNS}) "  # noqa: S608 - A constant.
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        *(record.seq, record.at, record.tenant, record.actor, record.action, record.resource),
        *(record.before, record.after, record.details, record.prev_hash, record.hash),
    )


async def delete(transaction: Transaction, _: list[Record]) -> None:
    await transaction.execute("DELETE FROM audit_log WHERE seq = 5")


async def delete_and_close(transaction: Transaction, _: list[Record]) -> None:
    await transaction.execute("DELETE FROM audit_log WHERE seq = 5")
    await shift(transaction, 5, -1)


async def shift(transaction: Transaction, start: int, by: int) -> None:
    """Gives entries other numbers; by way of negative ones, which clash with none."""
    await transaction.execute("UPDATE audit_log SET seq = -(seq + $1) WHERE seq >= $2", by, start)
    await transaction.execute("UPDATE audit_log SET seq = -seq WHERE seq < 0")


async def insert_forged(transaction: Transaction, records: list[Record]) -> None:
    await shift(transaction, 5, 1)
    await insert(transaction, seal(acts(1, "keys[mallory]")[0], Head(4, records[3].hash)))


async def reorder(transaction: Transaction, _: list[Record]) -> None:
    for old, new in ((5, -1), (6, 5), (-1, 6)):
        await transaction.execute("UPDATE audit_log SET seq = $1 WHERE seq = $2", new, old)


async def truncate(transaction: Transaction, _: list[Record]) -> None:
    await transaction.execute("DELETE FROM audit_log WHERE seq > 7")


async def truncate_all(transaction: Transaction, _: list[Record]) -> None:
    await transaction.execute("DELETE FROM audit_log")


async def truncate_and_go_on(transaction: Transaction, records: list[Record]) -> None:
    await transaction.execute("DELETE FROM audit_log WHERE seq > 7")
    for record in linking(acts(5, "keys[mallory]"))(Head(7, records[6].hash)):
        await insert(transaction, record)


# Done to ten entries with checkpoints after five and ten: what is found.
TAMPERINGS: list[tuple[Tamper, Finding]] = [
    (edit, Finding(Fault.EDITED, 5)),
    (edit_the_time, Finding(Fault.EDITED, 5)),
    (edit_details, Finding(Fault.EDITED, 5)),
    (edit_digest, Finding(Fault.EDITED, 5)),
    (edit_and_rehash, Finding(Fault.EDITED, 5)),
    (delete, Finding(Fault.DELETED, 5)),
    (delete_and_close, Finding(Fault.DELETED, 5)),
    (insert_forged, Finding(Fault.INSERTED, 5)),
    (reorder, Finding(Fault.REORDERED, 5)),
    (truncate, Finding(Fault.TRUNCATED, 8)),
    (truncate_all, Finding(Fault.TRUNCATED, 1)),
    # The checkpoint of five still holds, that of ten does not.
    (truncate_and_go_on, Finding(Fault.REWRITTEN, 6)),
]


async def tamper_with(database: Database, tamper: Tamper, records: list[Record]) -> None:
    """Does it, after taking off what stops mistakes; `records` are the trail's entries."""
    async with database.transaction() as transaction:
        for statement in _TRIGGERS[database.dialect]:
            await transaction.execute(statement)
        await tamper(transaction, records)
