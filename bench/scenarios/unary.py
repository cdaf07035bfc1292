"""Route, Generate, Embed, prompts of many sizes, and TLS: unary calls against their floors."""

from contextlib import ExitStack

import trustme

from bench.common.child import Running
from bench.common.compare import Case, compare
from bench.common.load import Load
from bench.configs import BARE, BEARER, STATELESS, Setup
from bench.payloads import (
    chat_json,
    embed_json,
    embed_request,
    generate_request,
    route_request,
)
from bench.scenarios.base import Result, Scenario, Table, comparison
from bench.scenarios.check import check_embed, check_generate, check_route
from bench.subjects import Bench

ON, OFF = "trunkline, all on", "trunkline, features off"
# All but limits, budgets and the ledger, so that their price is seen.
UNKEPT = "trunkline, without limits, budget, ledger"

AIOHTTP = "bare pass-through, aiohttp"


def route(bench: Bench) -> Result:
    """A decision without a call, against echoes."""
    body = bench.file("route.bin", route_request().SerializeToString())
    calls = bench.options.calls(10_000)
    load = Load(calls=calls, body=body, method="Route", headers=BEARER)
    send = bench.generators.send_ghz
    with ExitStack() as stack:
        start = stack.enter_context
        cases = [
            Case("bare echo, bytes", start(bench.floor("echo-raw")), send, load),
            Case("bare echo, protobuf", start(bench.floor("echo")), send, load),
            Case(OFF, start(bench.router(BARE)), send, load),
            Case(ON, start(bench.router(Setup())), send, load),
        ]
        check_route(cases[-1].server, route_request())
        measured = compare(cases, bench.options.rounds)
    table, figures = comparison(measured, ["bare echo, protobuf", "bare echo, bytes"])
    return Result([table], figures)


def generate_cases(bench: Bench, start: ExitStack, size: int, calls: int) -> list[Case]:
    """The floors of Generate, then the router with features off, with most of them, with all."""
    name = f"generate-{size}.bin"
    body = bench.file(name, generate_request(size=size).SerializeToString())
    load = Load(calls=calls, body=body, method="Generate", headers=BEARER)
    send = bench.generators.send_ghz
    prepared = chat_json(size=size)

    def floor(kind: str) -> Running:
        return start.enter_context(bench.floor(kind, body=prepared))

    return [
        Case("bare pass-through, httptools", floor("forward"), send, load),
        Case(AIOHTTP, floor("forward-aiohttp"), send, load),
        Case("bare translation, httptools", floor("translate"), send, load),
        Case(OFF, start.enter_context(bench.router(BARE)), send, load),
        Case(UNKEPT, start.enter_context(bench.router(STATELESS)), send, load),
        Case(ON, start.enter_context(bench.router(Setup())), send, load),
    ]


def generate(bench: Bench) -> Result:
    """A whole call, against pass-throughs and against calling the upstream directly."""
    with ExitStack() as stack:
        cases = generate_cases(bench, stack, 1024, bench.options.calls(6_000))
        check_generate(cases[-1].server, generate_request())
        load = cases[0].load
        direct = Load(
            calls=load.calls,
            body=bench.file("chat.json", chat_json()),
            method="/v1/chat/completions",
        )
        http = bench.generators.send_http
        cases.append(Case("direct call", bench.upstream, http, direct))
        measured = compare(cases, bench.options.rounds)
    bases = ["bare pass-through, httptools", "bare translation, httptools"]
    table, figures = comparison(measured, bases)
    note = (
        "The direct call's CPU is the upstream's own; in the other rows the upstream's CPU does "
        "not count."
    )
    return Result([table], figures, notes=[note])


def prompts(bench: Bench) -> Result:
    """Generate as the prompt grows."""
    tables, figures = [], {}
    for size in (1_024, 16 * 1024, 128 * 1024, 1024 * 1024):
        calls = bench.options.calls(max(4_000 * 1024 // (1024 + size // 8), 100))
        with ExitStack() as stack:
            cases = generate_cases(bench, stack, size, calls)
            kept = [case for case in cases if case.name not in (AIOHTTP, OFF, UNKEPT)]
            check_generate(kept[-1].server, generate_request(size=size))
            measured = compare(kept, bench.options.rounds)
        bases = ["bare pass-through, httptools", "bare translation, httptools"]
        table, found = comparison(measured, bases)
        tables.append(Table(table.columns, table.rows, f"Prompt of {size // 1024} KiB"))
        figures[str(size)] = found
    return Result(tables, figures)


def embed(bench: Bench) -> Result:
    """Embed with 1 and with 256 inputs, vectors of 1,536 floats."""
    tables, figures = [], {}
    for inputs, calls in ((1, 3_000), (256, 60)):
        body = bench.file("embed.bin", embed_request(inputs).SerializeToString())
        count = bench.options.calls(calls, 20)
        load = Load(
            calls=count,
            body=body,
            method="Embed",
            headers=BEARER,
            concurrency=min(32, count // 5),
        )
        send = bench.generators.send_ghz
        prepared, path = embed_json(inputs), "/v1/embeddings"
        with ExitStack() as stack:
            floor = bench.floor("forward", body=prepared, path=path, vectors=inputs)
            cases = [
                Case("bare pass-through", stack.enter_context(floor), send, load),
                Case(ON, stack.enter_context(bench.router(Setup())), send, load),
            ]
            check_embed(cases[-1].server, embed_request(inputs), 1536)
            measured = compare(cases, bench.options.rounds)
        table, found = comparison(measured, ["bare pass-through"])
        tables.append(Table(table.columns, table.rows, f"{inputs} inputs"))
        figures[str(inputs)] = found
    note = "The floor does not read the vectors; the router turns every JSON number into a float."
    return Result(tables, figures, notes=[note])


def tls(bench: Bench) -> Result:
    """Generate with and without TLS between caller and router."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    cert = bench.file("tls.pem", chain)
    key = bench.file("tls.key", issued.private_key_pem.bytes())
    body = bench.file("generate-tls.bin", generate_request().SerializeToString())
    calls = bench.options.calls(4_000)
    plain = Load(calls=calls, body=body, method="Generate", headers=BEARER)
    secured = Load(
        calls=calls,
        body=body,
        method="Generate",
        headers=BEARER,
        tls=True,
    )
    send = bench.generators.send_ghz
    with ExitStack() as stack:
        cases = [
            Case("plain text", stack.enter_context(bench.router(Setup())), send, plain),
            Case("TLS", stack.enter_context(bench.router(Setup(tls=(cert, key)))), send, secured),
        ]
        check_generate(cases[0].server, generate_request())
        measured = compare(cases, bench.options.rounds)
    table, figures = comparison(measured, ["plain text"])
    return Result([table], figures)


SCENARIOS = (
    Scenario(
        name="route",
        title="Route: a decision without a call",
        config="one model, one deployment; keys, metrics, 1 % tracing, logs at info, a limit, "
        "a budget, the ledger in SQLite",
        payload="RouteRequest with requirements, some 40 bytes",
        expected="every call OK; the decision names bench-0",
        run=route,
        quick=True,
    ),
    Scenario(
        name="generate",
        title="Generate: one call, one provider",
        config="as route; the upstream answers 16 tokens at once",
        payload="a system message and a prompt of 1 KiB",
        expected="every call OK; 16 tokens, one attempt, usage and cost from the upstream",
        run=generate,
        quick=True,
    ),
    Scenario(
        name="prompts",
        title="Generate with prompts of 1 KiB to 1 MiB",
        config="as generate",
        payload="prompts of 1, 16, 128 and 1,024 KiB",
        expected="every call OK",
        run=prompts,
    ),
    Scenario(
        name="embed",
        title="Embed: 1 and 256 inputs, 1,536 floats each",
        config="as generate",
        payload="inputs of 80 bytes",
        expected="every call OK",
        run=embed,
    ),
    Scenario(
        name="tls",
        title="Generate over TLS",
        config="as generate, with a certificate for callers",
        payload="as generate",
        expected="every call OK",
        run=tls,
    ),
)
