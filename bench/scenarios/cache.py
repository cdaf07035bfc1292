"""Answers from the cache, against echoes: from memory, from Redis, and missed."""

from contextlib import ExitStack
from typing import Any

from google.protobuf.duration_pb2 import Duration

from bench.common.compare import Case, compare
from bench.common.load import Load
from bench.configs import BEARER, STATELESS, Setup
from bench.payloads import generate_request
from bench.scenarios.base import Result, Scenario, Table, comparison
from bench.scenarios.check import check_generate, check_hit
from bench.scenarios.unary import UNKEPT
from bench.stores import started
from bench.subjects import Bench
from trunkline import v1

BYTES, PROTOBUF = "bare echo, bytes", "bare echo, protobuf"
HIT, HIT_UNKEPT = "hit in memory, all on", "hit in memory, without limits, budget, ledger"
SHARED, MISS = "hit in Redis", "miss"

_ON: dict[str, Any] = {"use": "on"}
# No answer has room in a hundredth of this.
_NO_MEMORY: dict[str, Any] = {"memory": "64KiB", "tenant_share": 0.01, "max_entry": "16KiB"}


def cache(bench: Bench) -> Result:
    """The same request again and again, then one after another what memory does not answer."""
    request = generate_request()
    load = Load(
        calls=bench.options.calls(10_000),
        body=bench.file("cached.bin", request.SerializeToString()),
        method="Generate",
        headers=BEARER,
    )
    send = bench.generators.send_ghz
    with ExitStack() as stack:
        start = stack.enter_context
        cases = [
            Case(BYTES, start(bench.floor("echo-raw")), send, load),
            Case(PROTOBUF, start(bench.floor("echo")), send, load),
            Case(HIT_UNKEPT, start(bench.router(Setup(state=None, cache=_ON))), send, load),
            Case(HIT, start(bench.router(Setup(cache=_ON))), send, load),
        ]
        for case in cases[2:]:
            check_generate(case.server, request)
            check_hit(case.server, request, v1.CACHE_HIT_KIND_MEMORY)
        measured = compare(cases, bench.options.rounds)
    table, figures = comparison(measured, [PROTOBUF, BYTES])
    slow, found, notes = _one_by_one(bench, load)
    return Result([table, slow], figures | {"one by one": found}, notes=notes)


def _one_by_one(bench: Bench, load: Load) -> tuple[Table, dict[str, Any], list[str]]:
    """What waits: for Redis, or for the upstream. One call at a time, or others would join it."""
    missing = generate_request()
    # An answer that may not be kept is looked for, and missed each time.
    missing.cache.ttl.CopyFrom(Duration())
    calls = bench.options.calls(2_000)
    hit = Load(
        calls=calls,
        body=load.body,
        method="Generate",
        headers=BEARER,
        concurrency=1,
        connections=1,
    )
    miss = Load(
        calls=calls,
        body=bench.file("missed.bin", missing.SerializeToString()),
        method="Generate",
        headers=BEARER,
        concurrency=1,
        connections=1,
    )
    send, notes = bench.generators.send_grpc, []
    with ExitStack() as stack:
        start = stack.enter_context
        stores = start(started())
        cases = [
            Case(BYTES, start(bench.floor("echo-raw")), send, hit),
            Case(HIT_UNKEPT, start(bench.router(Setup(state=None, cache=_ON))), send, hit),
            Case(UNKEPT, start(bench.router(STATELESS)), send, hit),
            Case(MISS, start(bench.router(Setup(state=None, cache=_ON))), send, miss),
        ]
        check_generate(cases[1].server, generate_request())
        check_generate(cases[3].server, missing)
        if stores.redis is None:
            notes.append(f"Rows are missing: {'; '.join(stores.missing)}.")
        else:
            url = stores.redis.database()
            shared = {**_ON, **_NO_MEMORY, "shared": True}
            filling = start(bench.router(Setup(state=None, cache=shared, cache_redis=url)))
            check_generate(filling, generate_request())
            check_hit(filling, generate_request(), v1.CACHE_HIT_KIND_SHARED)
            cases.append(Case(SHARED, filling, send, hit))
        measured = compare(cases, bench.options.rounds)
    table, figures = comparison(measured, [BYTES, UNKEPT])
    caption = "One call after another"
    return Table(table.columns, table.rows, caption), figures, notes


SCENARIOS = (
    Scenario(
        name="cache",
        title="The answer cache: hits in memory and in Redis, and misses",
        config="as route, with the cache on; for Redis without room in memory",
        payload="as generate, the same request each time",
        expected="every call OK; the first is answered by the upstream, the next by the cache",
        run=cache,
        quick=True,
    ),
)
