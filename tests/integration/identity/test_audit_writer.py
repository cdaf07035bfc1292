"""The audit trail's writer: in order, each act once, whatever happens on the way."""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.postgres_server import PostgresServer
from trunkline import v1
from trunkline_server.clock import SystemClock
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.access.access import Access
from trunkline_server.governance.addresses import IpAddress
from trunkline_server.governance.audit.chain import Act, linking
from trunkline_server.governance.audit.checkpoints import CheckpointFile, read_checkpoints
from trunkline_server.governance.audit.decisions import DecisionAudit
from trunkline_server.governance.audit.ports import Link, Record
from trunkline_server.governance.audit.spool import Spool
from trunkline_server.governance.audit.verify import verify
from trunkline_server.governance.audit.writer import AuditWriter, WriterOptions
from trunkline_server.governance.identity.principal import Kind, Principal
from trunkline_server.store.address import open_database
from trunkline_server.store.audit import SqlAuditStore
from trunkline_server.store.database import Limits
from trunkline_server.store.migrate import upgrade

CLOCK = SystemClock()


@dataclass
class Watch:
    """Counts, and wakes whoever waits for a delay."""

    written: int = 0
    lost: int = 0
    delays: list[str] = field(default_factory=list)
    delayed: asyncio.Event = field(default_factory=asyncio.Event)

    def audit_delayed(self, waiting: int, problem: str) -> None:
        self.delays.append(problem)
        self.delayed.set()

    def audit_written(self, count: int) -> None:
        self.written += count

    def audit_lost(self, count: int) -> None:
        self.lost += count


def act(number: int) -> Act:
    return Act(at=round(CLOCK.wall() * 1e6), actor="keys[root]", action=f"act.{number}")


def numbers(count: int) -> list[str]:
    return [f"act.{number}" for number in range(count)]


async def recorded(trail: SqlAuditStore) -> list[Record]:
    async with aclosing(trail.stream()) as records:
        return [record async for record in records]


async def actions(trail: SqlAuditStore) -> list[str]:
    return [record.action for record in await recorded(trail)]


def spooled(directory: Path) -> list[Path]:
    """The files of a spool."""
    return list(directory.glob("*.acts"))


@asynccontextmanager
async def running(writer: AuditWriter) -> AsyncGenerator[AuditWriter]:
    """Runs a writer; at the end it writes what is left."""
    task = asyncio.create_task(writer.run())
    yield writer
    writer.stop()
    await task
    writer.close()


async def test_a_stop_in_order_loses_nothing(trail: SqlAuditStore, tmp_path: Path) -> None:
    watch = Watch()
    file = CheckpointFile(tmp_path / "checkpoints", b"key")
    async with running(AuditWriter(trail, CLOCK, watch, checkpointer=file.add)) as writer:
        for number in range(1200):
            writer.record(act(number))
    assert await actions(trail) == numbers(1200)
    assert (watch.written, writer.waiting) == (1200, 0)
    with (tmp_path / "checkpoints").open("rb") as lines:
        checkpoints = read_checkpoints(lines, b"key")
    assert checkpoints[-1].head == await trail.head()
    assert (await verify(trail.stream, checkpoints)).sound


class Doubtful:
    """A store whose answers to some appends are lost, after the entries are written or before."""

    def __init__(self, trail: SqlAuditStore, lost: dict[int, bool]) -> None:
        """`lost` says of an append, counted from 1, whether its entries are written all the
        same."""
        self._trail = trail
        self._lost = lost
        self.head = trail.head
        self.find = trail.find
        self.stream = trail.stream
        self.appends = 0

    async def append(self, link: Link) -> Any:
        self.appends += 1
        if self._lost.get(self.appends) is not False:
            records = await self._trail.append(link)
        if self.appends in self._lost:
            raise TrunklineError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, "the answer was lost")
        return records


async def test_an_append_in_doubt_is_made_once(trail: SqlAuditStore) -> None:
    store = Doubtful(trail, {1: True, 2: False, 4: False, 5: True})
    watch = Watch()
    async with running(AuditWriter(store, CLOCK, watch)) as writer:
        for number in range(1300):
            writer.record(act(number))
    assert await actions(trail) == numbers(1300)
    assert len(watch.delays) == 4
    assert (await verify(trail.stream)).sound


async def test_what_waits_is_bounded_and_refused_beyond(trail: SqlAuditStore) -> None:
    writer = AuditWriter(trail, CLOCK, Watch(), WriterOptions(max_waiting=3))
    for number in range(3):
        writer.record(act(number))
    with pytest.raises(TrunklineError, match="too many entries wait") as caught:
        writer.record(act(3))
    assert caught.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    async with running(writer):
        pass
    assert await actions(trail) == numbers(3)


async def test_what_strangers_can_make_takes_half_of_the_room(trail: SqlAuditStore) -> None:
    watch = Watch()
    writer = AuditWriter(trail, CLOCK, watch, WriterOptions(max_waiting=6))
    for number in range(10):
        writer.record(act(number), expendable=True)
    assert watch.lost == 7
    for number in range(10, 13):
        writer.record(act(number))
    with pytest.raises(TrunklineError, match="too many entries wait"):
        writer.record(act(13))
    async with running(writer):
        pass
    *written, loss = await actions(trail)
    assert written == [*numbers(3), "act.10", "act.11", "act.12"]
    assert loss == "audit.lost"


async def test_what_is_dropped_is_recorded(trail: SqlAuditStore) -> None:
    watch = Watch()
    writer = AuditWriter(trail, CLOCK, watch, WriterOptions(max_waiting=3, on_full="drop"))
    for number in range(10):
        writer.record(act(number))
    assert watch.lost == 7
    async with running(writer):
        pass
    *written, loss = await recorded(trail)
    assert [record.action for record in written] == numbers(3)
    assert loss.action == "audit.lost"
    assert orjson.loads(loss.details)["count"] == "7"


async def test_an_outage_delays_and_loses_nothing(
    new_postgres: Callable[..., PostgresServer],
) -> None:
    server = new_postgres()
    await upgrade(server.dsn(), "state.database")
    limits = Limits(acquire=1.0, statement=1.0)
    database = await open_database(server.dsn(), "state.database", limits)
    trail = SqlAuditStore(database)
    watch = Watch()
    async with running(AuditWriter(trail, CLOCK, watch)) as writer:
        for number in range(5):
            writer.record(act(number))
        server.kill()
        for number in range(5, 10):
            writer.record(act(number))
        await watch.delayed.wait()
        server.start()
    assert await actions(trail) == numbers(10)
    assert (await verify(trail.stream)).sound
    await database.close()


_DYING = """
    import os, sys
    from pathlib import Path
    from trunkline_server.governance.audit.chain import Act
    from trunkline_server.governance.audit.spool import Spool
    spool = Spool(Path(sys.argv[1]))
    for number in range(4):
        spool.add(Act(at=number, actor="a", action=f"act.{number}", id=f"id-{number}",
                      after=bytes(32), details={"k": "v"}))
    os.kill(os.getpid(), 9)
"""


async def test_what_a_killed_process_left_is_written_once(
    trail: SqlAuditStore, tmp_path: Path
) -> None:
    """Two of its four acts were in the trail already, which it did not live to note."""
    died = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", textwrap.dedent(_DYING), str(tmp_path)],
        check=False,
    )
    assert died.returncode == -9
    (left,) = spooled(tmp_path)
    # A line that was being written.
    with left.open("ab") as file:
        file.write(b'0badc0de {"at":')
    done = [
        Act(at=number, actor="a", action=f"act.{number}", id=f"id-{number}", after=bytes(32))
        for number in range(2)
    ]
    await trail.append(linking(done))
    options = WriterOptions(spool=tmp_path)
    # A process that lives keeps its own.
    living = Spool(tmp_path)
    living.add(act(99))
    async with running(AuditWriter(trail, CLOCK, Watch(), options)) as writer:
        writer.record(act(4))
    assert await actions(trail) == numbers(5)
    entry = (await recorded(trail))[3]
    assert (entry.at, entry.after) == (3, bytes(32))
    assert orjson.loads(entry.details)["k"] == "v"
    assert len(spooled(tmp_path)) == 1
    living.close()


async def test_a_writer_that_is_cut_off_leaves_its_acts_to_the_next(
    trail: SqlAuditStore, tmp_path: Path
) -> None:
    options = WriterOptions(spool=tmp_path)
    stuck = AuditWriter(
        Doubtful(trail, dict.fromkeys(range(1, 99), False)), CLOCK, (watch := Watch()), options
    )
    task = asyncio.create_task(stuck.run())
    for number in range(7):
        stuck.record(act(number))
    await watch.delayed.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    stuck.close()
    async with running(AuditWriter(trail, CLOCK, Watch(), options)):
        pass
    assert await actions(trail) == numbers(7)
    assert spooled(tmp_path) == []


@dataclass
class Facts:
    at: str = "10.0.0.1"

    def address(self) -> IpAddress | None:
        return ip_address(self.at) if self.at else None

    def label(self, name: str) -> str:
        return ""


@pytest.mark.parametrize(
    ("level", "expected"),
    [("none", []), ("denied", ["denied", "denied"]), ("all", ["ok", "denied", "denied"])],
)
async def test_decisions_are_recorded_as_asked(
    trail: SqlAuditStore, level: Any, expected: list[str]
) -> None:
    who = Principal(kind=Kind.KEY, name="team", source="keys[team]", tenant="acme", models=("a",))
    access = Access()
    async with running(AuditWriter(trail, CLOCK, Watch())) as writer:
        audit = DecisionAudit(writer, CLOCK, level)
        for model in ("a", "b"):
            facts = Facts()
            try:
                access.decide(who, "inference.generate", model, CLOCK.wall(), facts)
            except TrunklineError as error:
                audit.denied(error, who, "inference.generate", model, facts=facts, request_id="r")
            else:
                audit.granted(who, "inference.generate", model, facts=facts, request_id="r")
        unknown = TrunklineError(v1.ERROR_REASON_AUTHENTICATION, "the key is not known")
        audit.denied(unknown, None, "inference.generate", "a", facts=Facts(""), request_id="")
    found = await recorded(trail)
    details = [orjson.loads(record.details) for record in found]
    assert [one["outcome"] for one in details] == expected
    if expected:
        assert (found[-2].actor, found[-2].tenant, found[-2].resource) == (
            "keys[team]",
            "acme",
            "b",
        )
        assert {**details[-2], "id": ""} == {
            "id": "",
            "outcome": "denied",
            "address": "10.0.0.1",
            "request_id": "r",
            "caller": "team",
            "rule": "keys[team].models",
        }
        assert (found[-1].actor, details[-1]["rule"]) == ("unknown", "the key is not known")


async def test_what_callers_name_is_redacted(trail: SqlAuditStore) -> None:
    who = Principal(kind=Kind.KEY, name="team", source="keys[team]", tenant="acme", models=("a",))
    async with running(AuditWriter(trail, CLOCK, Watch())) as writer:
        audit = DecisionAudit(writer, CLOCK, "all", lambda text: text.replace("ann", "[NAME]"))
        audit.granted(who, "inference.generate", "of ann", facts=Facts(), request_id="for ann")
        unknown = TrunklineError(v1.ERROR_REASON_AUTHENTICATION, "the key is not known")
        for caller in (who, None):
            audit.denied(
                unknown, caller, "inference.embed", "of ann", facts=Facts(), request_id="for ann"
            )
    found = await recorded(trail)
    assert len(found) == 3
    for record in found:
        assert record.resource == "of [NAME]"
        assert orjson.loads(record.details)["request_id"] == "for [NAME]"
