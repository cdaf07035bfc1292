"""`trunkline audit verify` and `export` over trails that routers wrote, in both databases."""

import asyncio
import json
import signal
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from tests.support.callers import NOWHERE, key, shows
from tests.support.process import router_process
from tests.support.router import PATIENCE, ask, channel_to, openai_at
from tests.support.tampering import TAMPERINGS, Tamper, acts, tamper_with
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.__main__ import main
from trunkline_server.governance.audit.chain import linking
from trunkline_server.governance.audit.checkpoints import CheckpointFile
from trunkline_server.governance.audit.ports import Head, Record
from trunkline_server.governance.audit.verify import Fault, Finding
from trunkline_server.store.audit import SqlAuditStore
from trunkline_server.store.database import Database

SOUND, FAILED, USAGE, TAMPERED = 0, 1, 2, 3
SECRET = "key-of-the-checkpoints"


class Said(NamedTuple):
    """What a command ended with and printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def config(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration whose audit trail is in the database."""
    monkeypatch.setenv("AUDIT_DSN", dsn)
    monkeypatch.setenv("AUDIT_SECRET", SECRET)
    monkeypatch.setenv("TEST_KEY", "sk-test")
    path = tmp_path / "trunkline.yaml"
    path.write_text(
        f"""{openai_at(NOWHERE)}
state: {{database: env:AUDIT_DSN}}
audit: {{decisions: all, spool: spool, checkpoints: marks, checkpoint_key: env:AUDIT_SECRET}}
keys:
{key("team")}
{key("scoped", "models: [small]")}
"""
    )
    return path


def change(config: Path, old: str, new: str) -> None:
    """Changes a configuration that a router watches."""
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


async def said(capsys: pytest.CaptureFixture[str], arguments: Sequence[object]) -> Said:
    """Runs a command, which has an event loop of its own."""
    code = await asyncio.to_thread(main, ["audit", *map(str, arguments)])
    out, err = capsys.readouterr()
    return Said(code, out, err)


async def entries(trail: SqlAuditStore) -> list[Record]:
    async with aclosing(trail.stream()) as records:
        return [record async for record in records]


async def written(trail: SqlAuditStore, marks: Path) -> list[Record]:
    """Ten entries, with checkpoints after five and ten."""
    file = CheckpointFile(marks, SECRET.encode())
    for _ in range(2):
        records = await trail.append(linking(acts(5)))
        await asyncio.to_thread(file.add, Head(records[-1].seq, records[-1].hash), 0)
    return await entries(trail)


@pytest.mark.parametrize("done", TAMPERINGS, ids=[one.__name__ for one, _ in TAMPERINGS])
async def test_every_tampering_is_found_in_the_database_and_in_an_export(
    config: Path,
    database: Database,
    trail: SqlAuditStore,
    capsys: pytest.CaptureFixture[str],
    done: tuple[Tamper, Finding],
) -> None:
    tamper, finding = done
    marks, export = config.with_name("marks"), config.with_name("export.jsonl")
    whole = await written(trail, marks)
    good = await said(capsys, ["verify", config])
    assert good.code == SOUND
    assert good.out == (
        f"sound: 10 entries, 2 checkpoints compared, ends in {whole[-1].hash.hex()}\n"
    )
    await tamper_with(database, tamper, whole)
    found = await said(capsys, ["verify", config])
    assert (found.code, found.err.splitlines()[0]) == (TAMPERED, str(finding))
    assert found.out == ""
    assert (await said(capsys, ["export", config, "--output", export])).code == 0
    offline = ["verify", "--export", export, "--checkpoints", marks]
    again = await said(capsys, [*offline, "--checkpoint-key", "env:AUDIT_SECRET"])
    assert (again.code, again.err) == (found.code, found.err)


async def test_a_cut_end_is_found_by_checkpoints_alone(
    config: Path, database: Database, trail: SqlAuditStore, capsys: pytest.CaptureFixture[str]
) -> None:
    marks, elsewhere = config.with_name("marks"), config.with_name("elsewhere")
    whole = await written(trail, marks)
    truncate = next(one for one, what in TAMPERINGS if what == Finding(Fault.TRUNCATED, 8))
    await tamper_with(database, truncate, whole)
    marks.rename(elsewhere)
    unknown = await said(capsys, ["verify", config])
    assert (unknown.code, "warning" in unknown.err) == (SOUND, True)
    found = await said(capsys, ["verify", config, "--checkpoints", elsewhere])
    assert (found.code, found.err.splitlines()[0]) == (
        TAMPERED,
        "entry 8: this and what followed was cut off",
    )


async def test_checkpoints_that_were_made_up_are_refused(
    config: Path,
    trail: SqlAuditStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await written(trail, config.with_name("marks"))
    monkeypatch.setenv("AUDIT_SECRET", "another-key")
    found = await said(capsys, ["verify", config])
    assert (found.code, found.err) == (
        TAMPERED,
        "checkpoints: line 1: the signature is missing or wrong\n",
    )


async def test_what_keeps_it_from_being_told(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    export = config.with_name("export.jsonl")
    export.write_bytes(b'{"seq": 1}\n')
    broken = await said(capsys, ["verify", "--export", export])
    assert (broken.code, "line 1: this is no entry" in broken.err) == (TAMPERED, True)
    assert (await said(capsys, ["verify", "--export", config.with_name("nothing")])).code == FAILED
    assert (await said(capsys, ["export", config, "--output", export])).code == FAILED
    wrong = await said(capsys, ["verify", config, "--checkpoint-key", "plain"])
    assert (wrong.code, "plain" in wrong.err) == (USAGE, False)
    monkeypatch.setenv("AUDIT_DSN", "postgres://u:SECRETWORD@127.0.0.1:9/none")
    away = await said(capsys, ["verify", config])
    assert (away.code, "SECRETWORD" in away.err) == (FAILED, False)
    assert "127.0.0.1:9" in away.err


async def test_a_router_records_who_was_let_in_and_what_was_changed(
    config: Path, trail: SqlAuditStore, capsys: pytest.CaptureFixture[str]
) -> None:
    async with router_process("--config", str(config)) as router:
        async with channel_to(router.address) as channel:
            stub = InferenceServiceStub(channel)
            request = v1.RouteRequest(model="large")
            await stub.Route(request, metadata=shows("team"), timeout=PATIENCE)
            batch = v1.BatchRouteRequest(requests=[request, v1.RouteRequest(model="small")])
            await stub.BatchRoute(batch, metadata=shows("scoped"), timeout=PATIENCE)
            codes = [
                await stub.Generate(ask(), metadata=metadata, timeout=PATIENCE).code()
                for metadata in (shows("team"), shows("scoped"), shows("nobody"), None)
            ]
        change(config, "models: [small]", "models: [large]")
        await router.logged("configuration reloaded")
        change(config, "keys:", "tiers: 3\nkeys:")
        await router.logged("configuration refused; the one in force stays")
        router.send(signal.SIGTERM)
        assert await router.process.wait() == 0
    assert codes == [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNAUTHENTICATED,
    ]
    records = await entries(trail)
    # What the keys of providers went through comes first.
    assert {record.action for record in records if record.resource == "p0"} == {"credential.load"}
    told = [(record, json.loads(record.details)) for record in records if record.resource != "p0"]
    assert [
        (record.actor, record.action, record.resource, details["outcome"], details.get("rule"))
        for record, details in told
    ] == [
        ("trunkline", "config.load", "config", "ok", None),
        ("keys[team]", "inference.route", "large", "ok", None),
        ("keys[scoped]", "inference.batch_route", "large", "denied", "keys[scoped].models"),
        ("keys[scoped]", "inference.batch_route", "small", "ok", None),
        ("keys[team]", "inference.generate", "large", "ok", None),
        ("keys[scoped]", "inference.generate", "large", "denied", "keys[scoped].models"),
        ("unknown", "inference.generate", "", "denied", "the key is not known"),
        ("unknown", "inference.generate", "", "denied", "the authorization metadata is missing"),
        ("trunkline", "config.reload", "config", "ok", None),
        ("trunkline", "config.reload", "config", "failed", None),
    ]
    assert {details["address"] for record, details in told if record.actor != "trunkline"} == {
        "127.0.0.1"
    }
    assert told[4][1]["request_id"]
    assert told[8][1]["changed"] == "keys"
    assert told[8][0].before == told[0][0].after != told[8][0].after
    change(config, "tiers: 3\n", "")
    good = await said(capsys, ["verify", config])
    assert (good.code, good.out.split(",")[:2]) == (
        SOUND,
        [f"sound: {len(records)} entries", " 1 checkpoints compared"],
    )
    assert list(config.with_name("spool").iterdir()) == []


async def test_workers_share_one_chain(
    config: Path, trail: SqlAuditStore, capsys: pytest.CaptureFixture[str]
) -> None:
    async with router_process("--config", str(config), "--workers", "2") as router:
        channels = [channel_to(router.address) for _ in range(8)]
        calls = [
            InferenceServiceStub(channel).Route(
                v1.RouteRequest(model="large"), metadata=shows("team"), timeout=PATIENCE
            )
            for channel in channels
            for _ in range(5)
        ]
        assert {await call.code() for call in calls} == {grpc.StatusCode.OK}
        for channel in channels:
            await channel.close()
        router.send(signal.SIGTERM)
        assert await router.process.wait() == 0
    records = await entries(trail)
    actions = [record.action for record in records]
    assert actions.count("config.load") == 2
    assert actions.count("inference.route") == 40
    good = await said(capsys, ["verify", config])
    assert (good.code, good.out.split(",")[0]) == (SOUND, f"sound: {len(records)} entries")
