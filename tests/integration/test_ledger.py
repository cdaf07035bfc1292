"""The ledger of a running router: what callers were told is in the database, exactly once."""

import asyncio
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from tests.support.process import START_SECONDS, RouterProcess, router_process
from tests.support.router import PATIENCE, ask, channel_to
from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.simulator.app import Simulator

ENV = {"TEST_KEY": "sk-test"}
TRUNKLINE = str(Path(sys.executable).with_name("trunkline"))


@pytest.fixture
async def simulator() -> AsyncGenerator[Simulator]:
    async with Simulator(port=0) as running:
        yield running


def config(folder: Path, simulator: Simulator, database: str = "sqlite:///usage.db") -> Path:
    path = folder / "trunkline.yaml"
    path.write_text(
        "providers:\n"
        f"  sim: {{kind: openai, base_url: '{simulator.url}/openai/v1', api_key: 'env:TEST_KEY'}}\n"
        "deployments:\n"
        "  - {name: d, provider: sim, model: sim-large, capabilities: [chat, streaming],\n"
        "     price: {input: '2', output: '8'}}\n"
        f"state: {{database: '{database}'}}\n"
        "ledger: {journal: journal}\n"
    )
    return path


def calls_in(database: Path) -> list[admin.UsageEvent]:
    """The events of calls, oldest first."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT event FROM usage_events WHERE kind = ? ORDER BY start_time_us",
            (admin.USAGE_EVENT_KIND_CALL,),
        ).fetchall()
    return [admin.UsageEvent.FromString(event) for (event,) in rows]


async def arrived(database: Path, count: int) -> list[admin.UsageEvent]:
    """The events of calls once there are so many."""
    async with asyncio.timeout(START_SECONDS):
        # Another process fills it, and tells nobody.
        while len(found := calls_in(database)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found


async def answers_of(router: RouterProcess, count: int) -> list[v1.GenerateResponse]:
    async with channel_to(router.address) as channel:
        stub = InferenceServiceStub(channel)
        calls = [
            stub.Generate(ask(f"number {number}", model="sim-large"), timeout=PATIENCE)
            for number in range(count)
        ]
        return list(await asyncio.gather(*calls))


def same(events: Sequence[admin.UsageEvent], answers: Sequence[v1.GenerateResponse]) -> bool:
    """Whether the events say of each answer what its caller was told."""
    told = sorted(
        (answer.id, answer.usage.output_tokens, answer.cost.total, answer.deployment)
        for answer in answers
    )
    kept = sorted(
        (event.request_id, event.usage.output_tokens, event.cost.total, event.deployment)
        for event in events
    )
    return told == kept


async def test_every_answer_and_every_stream_is_kept(tmp_path: Path, simulator: Simulator) -> None:
    async with router_process("--config", str(config(tmp_path, simulator)), env=ENV) as router:
        answers = await answers_of(router, 5)
        async with channel_to(router.address) as channel:
            stream = InferenceServiceStub(channel).StreamGenerate(
                ask(model="sim-large"), timeout=PATIENCE
            )
            events = [event async for event in stream]
        kept = await arrived(tmp_path / "usage.db", 6)
        _, metrics = await router.get("/metrics")
    assert same([event for event in kept if not event.streamed], answers)
    (streamed,) = [event for event in kept if event.streamed]
    assert streamed.request_id == events[0].start.id
    assert streamed.cost.total == events[-1].end.cost.total > 0
    assert 'trunkline_ledger_events_total{fate="shipped"} 12.0' in metrics


async def under_way(router: RouterProcess, count: int) -> None:
    """Waits until so many calls are."""
    line = f"trunkline_calls_in_flight {count}.0"
    async with asyncio.timeout(PATIENCE):
        while line not in (await router.get("/metrics"))[1]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_answers_from_the_cache_are_kept_with_what_they_saved(
    tmp_path: Path, simulator: Simulator
) -> None:
    path = config(tmp_path, simulator)
    name = "sim-large?latency_ms=2000"
    lines = path.read_text().replace("model: sim-large", f"model: '{name}'")
    path.write_text(lines + "cache: {use: 'on', max_temperature: 2}\n")
    slow = ask(model=name)
    async with router_process("--config", str(path), env=ENV) as router:
        async with channel_to(router.address) as channel:
            stub = InferenceServiceStub(channel)
            # The first is given up while the other, which joined it, waits on.
            gone = stub.Generate(slow, timeout=PATIENCE)
            await under_way(router, 1)
            joined = stub.Generate(slow, timeout=PATIENCE)
            await under_way(router, 2)
            gone.cancel()
            answers = [await joined]
            answers += [await stub.Generate(slow, timeout=PATIENCE) for _ in range(2)]
            stream = [event async for event in stub.StreamGenerate(slow, timeout=PATIENCE)]
        kept = await arrived(tmp_path / "usage.db", 5)
    ended = {event.request_id: event for event in kept}
    kinds = [ended.pop(answer.id).cache_hit_kind for answer in answers]
    memory = v1.CACHE_HIT_KIND_MEMORY
    assert kinds == [v1.CACHE_HIT_KIND_JOINED, memory, memory]
    replayed = ended.pop(stream[0].start.id)
    (paid,) = ended.values()
    hits = [event for event in kept if event.cache_status == v1.CACHE_STATUS_HIT]
    assert len(hits) == 4
    assert replayed.streamed
    assert replayed in hits
    # The books of the work are those of the call that brought it.
    assert paid.cache_status == v1.CACHE_STATUS_MISS
    assert paid.outcome == admin.USAGE_OUTCOME_SUCCEEDED
    assert paid.cost.total > 0
    for event in hits:
        assert event.saved_cost_nanos == paid.cost.total
        assert event.attempt_count == 0
        assert not event.HasField("cost")
        assert event.answered_model == paid.answered_model


async def test_answers_before_a_kill_are_kept_once_after_the_next_start(
    tmp_path: Path, simulator: Simulator
) -> None:
    path = str(config(tmp_path, simulator))
    answers: list[v1.GenerateResponse] = []
    for _ in range(3):
        async with router_process("--config", path, env=ENV) as router:
            answers += await answers_of(router, 10)
            router.send(signal.SIGKILL)
            await router.process.wait()
    async with router_process("--config", path, env=ENV) as router:
        kept = await arrived(tmp_path / "usage.db", len(answers))
        router.send(signal.SIGTERM)
        await router.process.wait()
    assert same(kept, answers)
    assert len({event.event_id for event in kept}) == len(answers)
    # What has reached the database leaves nothing behind.
    assert list((tmp_path / "journal").glob("*/*.seg")) == []


async def test_workers_share_a_ledger(tmp_path: Path, simulator: Simulator) -> None:
    arguments = ("--config", str(config(tmp_path, simulator)), "--workers", "2")
    async with router_process(*arguments, env=ENV) as router:
        answers = []
        for _ in range(4):  # Connections, not calls, are spread.
            answers += await answers_of(router, 3)
        kept = await arrived(tmp_path / "usage.db", len(answers))
    assert same(kept, answers)


async def test_a_failed_call_is_kept_too(tmp_path: Path, simulator: Simulator) -> None:
    path = config(tmp_path, simulator)
    await simulator.stop()
    async with router_process("--config", str(path), env=ENV) as router:
        with pytest.raises(grpc.aio.AioRpcError):
            await answers_of(router, 1)
        (kept,) = await arrived(tmp_path / "usage.db", 1)
    assert kept.outcome == admin.USAGE_OUTCOME_FAILED
    assert kept.error_reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert kept.cost.total == 0


def run(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [TRUNKLINE, *arguments],
        env={**ENV, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
    )


async def test_postgres_is_migrated_by_command(
    tmp_path: Path, simulator: Simulator, postgres_dsn: str
) -> None:
    path = str(config(tmp_path, simulator, "env:DATABASE"))
    refused = await asyncio.to_thread(run, "serve", "--config", path, DATABASE=postgres_dsn)
    assert refused.returncode == 1
    assert "has no schema yet: run `trunkline migrate`" in refused.stderr
    first = await asyncio.to_thread(run, "migrate", path, DATABASE=postgres_dsn)
    again = await asyncio.to_thread(run, "migrate", path, DATABASE=postgres_dsn)
    assert re.findall(r"applied (\d{4})_", first.stdout)[:2] == ["0001", "0002"]
    assert again.stdout == "nothing to do\n"
    env = {**ENV, "DATABASE": postgres_dsn}
    async with router_process("--config", path, env=env) as router:
        await answers_of(router, 2)
        async with asyncio.timeout(START_SECONDS):
            shipped = 'trunkline_ledger_events_total{fate="shipped"} 4.0'
            while shipped not in (await router.get("/metrics"))[1]:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("database", "complaint"),
    [
        ("mysql://host/db", "'mysql' is no database of ours"),
        ("postgres://me:secret@host/db", "holds a password, which does not stand in this file"),
    ],
)
async def test_a_wrong_address_is_told_by_field(
    tmp_path: Path, simulator: Simulator, database: str, complaint: str
) -> None:
    path = str(config(tmp_path, simulator, database))
    refused = await asyncio.to_thread(run, "serve", "--config", path)
    assert refused.returncode == 2
    assert "state.database" in refused.stderr
    assert complaint in refused.stderr
    assert "secret@" not in refused.stderr
