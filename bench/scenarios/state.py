"""What limits, budgets and the ledger add to a call, in each of the stores that may keep them."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from bench.common.child import BenchError, Running
from bench.common.compare import Case, Measured, compare
from bench.common.load import Load
from bench.configs import BEARER, STATELESS, Setup, State
from bench.payloads import chat_json, generate_request
from bench.queueing import StoreUse, store_capacity
from bench.scenarios.base import Result, Scenario, Table, comparison
from bench.scenarios.check import check_generate
from bench.scenarios.unary import ON, UNKEPT
from bench.stores import Postgres, Redis, Stores, spender, sqlite_events, started
from bench.subjects import Bench

_FLOOR = "bare pass-through"
EXACT, LEASED = "all on, Redis exact, Postgres", "all on, Redis leased, Postgres"
# A call's event and its attempt's.
_EVENTS_OF_A_CALL = 2
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class _Kept:
    """A router under measurement and how it keeps its state."""

    name: str
    state: State
    server: Running


def state(bench: Bench) -> Result:
    """Generate, with each kind of state alone and with all of it."""
    load = Load(
        calls=bench.options.calls(4_000),
        body=bench.file("generate.bin", generate_request().SerializeToString()),
        method="Generate",
        headers=BEARER,
    )
    send = bench.generators.send_grpc
    with ExitStack() as stack:
        start = stack.enter_context
        stores = start(started())
        cases = [
            Case(_FLOOR, start(bench.floor("forward", body=chat_json())), send, load),
            Case(UNKEPT, start(bench.router(STATELESS)), send, load),
        ]
        kept = [
            _Kept(name, each, start(bench.router(Setup(state=each))))
            for name, each in _variants(stores).items()
        ]
        cases += [Case(each.name, each.server, send, load) for each in kept]
        for each in kept:
            check_generate(each.server, generate_request())
        measured = compare(cases, bench.options.rounds)
        for each in kept:
            _check_events(bench, each, stores, 1 + _sent(load, bench.options.rounds))
        used, uses = _stores_use(bench, stores, kept, load)
    table, figures = comparison(measured, [_FLOOR, UNKEPT])
    tables = [table]
    if used:
        tables += [_use_table(used, uses), store_capacity(uses)]
        figures["stores"] = {name: use.as_json() for name, use in uses.items()}
    notes = [f"Rows are missing: {reason}." for reason in stores.missing]
    notes.append(
        "CPU is the router's own, what it does for calls after they are answered included. Redis "
        "keeps nothing on disk; commits of Postgres and SQLite reach it."
    )
    return Result(tables, figures, notes=notes)


def _variants(stores: Stores) -> dict[str, State]:
    """The kinds of state that can be kept here, by their rows' names."""
    alone = {
        "a limit, in memory": State(budget="", ledger=False),
        "a budget, in memory": State(limit="", ledger=False),
        "the ledger, SQLite": State(limit="", budget=""),
        ON: State(),
    }
    redis, postgres = stores.redis, stores.postgres
    if redis is not None:
        for mode in ("exact", "leased"):
            alone[f"a limit, {mode} on Redis"] = State(
                limit=mode, budget="", ledger=False, redis=redis.database()
            )
            alone[f"a budget, {mode} on Redis"] = State(
                limit="", budget=mode, ledger=False, redis=redis.database()
            )
    if postgres is not None:
        alone["the ledger, Postgres"] = State(limit="", budget="", postgres=postgres.database())
    if redis is not None and postgres is not None:
        for name, mode in ((EXACT, "exact"), (LEASED, "leased")):
            alone[name] = State(
                limit=mode,
                budget=mode,
                redis=redis.database(),
                postgres=postgres.database(),
            )
    return alone


def _sent(load: Load, rounds: int) -> int:
    """The calls that `compare` sends to each case."""
    return load.calls * rounds + max(load.calls // 5, 1)


def _check_events(bench: Bench, kept: _Kept, stores: Stores, calls: int) -> None:
    """Raises BenchError unless the ledger has two events of each call, once they have arrived."""
    if not kept.state.ledger:
        return
    wanted = calls * _EVENTS_OF_A_CALL
    until = time.monotonic() + _PATIENCE
    while (found := _events(bench, kept, stores)) != wanted:
        if found > wanted or time.monotonic() > until:
            raise BenchError(f"{kept.name}: {found} events of {calls} calls in the ledger")
        time.sleep(0.1)


def _events(bench: Bench, kept: _Kept, stores: Stores) -> int:
    if kept.state.postgres and stores.postgres is not None:
        return stores.postgres.events(kept.state.postgres)
    return sqlite_events(bench.database_of(kept.server))


def _stores_use(
    bench: Bench, stores: Stores, kept: list[_Kept], load: Load
) -> tuple[dict[str, Measured], dict[str, StoreUse]]:
    """What the stores themselves spend on a call, for the routers that have all of it."""
    redis, postgres = stores.redis, stores.postgres
    if redis is None or postgres is None:
        return {}, {}
    full = {each.name: each for each in kept if each.name in (EXACT, LEASED)}
    places: dict[str, tuple[Redis | Postgres, _Kept]] = {
        "Redis, exact": (redis, full[EXACT]),
        "Redis, leased": (redis, full[LEASED]),
        "Postgres": (postgres, full[LEASED]),
    }
    send, rounds = bench.generators.send_grpc, bench.options.rounds
    measured: dict[str, Measured] = {}
    uses: dict[str, StoreUse] = {}
    for name, (store, each) in places.items():
        case = Case(name, spender(store.server, each.server), send, load)
        before = _written(store, each)
        measured |= compare([case], rounds)
        if isinstance(store, Postgres):
            # Its rows arrive in batches, of which the last may be on its way.
            time.sleep(1.0)
        work, volume = (
            (after - earlier) / _sent(load, rounds)
            for after, earlier in zip(_written(store, each), before, strict=True)
        )
        uses[name] = StoreUse(measured[name].cpu_us.median, work, volume)
    return measured, uses


def _written(store: Redis | Postgres, kept: _Kept) -> tuple[int, int]:
    """Redis: commands, those of scripts included, and bytes received. Postgres: rows, and bytes
    of its write-ahead log."""
    if isinstance(store, Redis):
        commands = store.counter("total_commands_processed")
        return commands, store.counter("total_net_input_bytes")
    log = store.number("SELECT pg_current_wal_lsn() - '0/0'", kept.state.postgres)
    return store.events(kept.state.postgres), log


def _use_table(measured: Mapping[str, Measured], uses: Mapping[str, StoreUse]) -> Table:
    rows = [
        [
            name,
            each.cpu_us.show(1),
            f"{uses[name].work:.2f}",
            f"{uses[name].volume:,.0f}",
        ]
        for name, each in measured.items()
    ]
    columns = ["case", "CPU µs/call", "commands or rows per call", "bytes per call"]
    return Table(
        columns,
        rows,
        "What the stores themselves spend: Redis' commands, those within scripts included, and "
        "what it receives; Postgres' rows and its write-ahead log",
    )


SCENARIOS = (
    Scenario(
        name="state",
        title="Limits, budgets and the ledger, in each store",
        config="as generate, with the state that the row names; real servers, started for it",
        payload="as generate",
        expected="every call OK; two events of each call in the ledger's database",
        run=state,
    ),
)
