"""Changes are judged by the whole that they would make, and not by what was wrong before."""

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from trunkline_server.app.sources import Overrides, read_source
from trunkline_server.app.stored import StoredState
from trunkline_server.app.validator import StartValidator
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.clock import SystemClock
from trunkline_server.rpc.admin.ports import Proposal
from trunkline_server.store.address import open_database
from trunkline_server.store.migrate import upgrade
from trunkline_server.telemetry.control import StoreLog
from trunkline_server.telemetry.metrics import Metrics

LOCAL = {"dialect": "openai", "base_url": "http://127.0.0.1:9/v1"}
FILE = (
    "state: {database: 'sqlite:///state.db', owns: [providers, deployments, keys]}\n"
    "models: {m: {deployments: [d]}}\n"
)
Documents = Mapping[str, Mapping[str, Mapping[str, Any]]]
GOOD: Documents = {
    "providers": {"p": LOCAL},
    "deployments": {"d": {"provider": "p", "model": "x"}},
}


@pytest.fixture
async def state(tmp_path: Path) -> AsyncGenerator[StoredState]:
    """A state whose store holds what FILE needs."""
    path = tmp_path / "trunkline.yaml"
    path.write_text(FILE)
    dsn = f"sqlite:///{tmp_path / 'state.db'}"
    await upgrade(dsn, "dsn")
    database = await open_database(dsn, "dsn")
    try:
        overrides = Overrides(config=path)
        log = StoreLog(Metrics(CollectorRegistry()))
        state = StoredState(read_source(overrides), overrides, database, SystemClock(), log)
        await state.resources.create(
            "providers", "p", b'{"dialect": "openai", "base_url": "http://127.0.0.1:9/v1"}'
        )
        await state.resources.create("deployments", "d", b'{"provider": "p", "model": "x"}')
        await state.start()
        yield state
    finally:
        await database.close()


async def judged(state: StoredState, documents: Documents) -> list[tuple[str, str, str]]:
    """Where a change to these documents would be wrong."""
    validator = StartValidator(state, PriceBook(), SystemClock())
    found = await validator.check(Proposal("providers", "p", None, documents))
    return [(each.kind, each.name, each.field) for each in found]


async def test_the_whole_is_judged(state: StoredState) -> None:
    assert await judged(state, GOOD) == []
    wrong = {**GOOD, "providers": {"p": {**LOCAL, "dialect": "opnai"}}}
    assert await judged(state, wrong) == [("providers", "p", "dialect")]
    assert await judged(state, {**GOOD, "providers": {}}) == [("deployments", "d", "provider")]
    # What the file says of what the store has.
    assert await judged(state, {"providers": {"p": LOCAL}}) == [("models", "m", "deployments[0]")]


async def test_what_only_compiling_finds_is_found(state: StoredState) -> None:
    key = {"hash": f"sha256:{'0' * 64}"}
    keys = {"keys": {"one": key, "two": key}}
    assert [kind for kind, _, _ in await judged(state, {**GOOD, **keys})] == ["keys"]


async def test_a_mistake_that_was_there_before_stands_in_nobody_s_way(
    state: StoredState, tmp_path: Path
) -> None:
    path = tmp_path / "trunkline.yaml"
    path.write_text(FILE + "routing: {max_targets: 0}\n")
    more = {**GOOD, "providers": {"p": LOCAL, "q": LOCAL}}
    assert await judged(state, more) == []
    wrong = {**GOOD, "providers": {"p": LOCAL, "q": {**LOCAL, "region": ""}}}
    assert await judged(state, wrong) == [("providers", "q", "region")]
