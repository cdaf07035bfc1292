"""The same call through other gateways, in the same rounds."""

from contextlib import ExitStack

from bench.common.child import BenchError
from bench.common.compare import Case, compare
from bench.common.load import Load
from bench.configs import BARE, BEARER, Setup
from bench.payloads import chat_json, generate_request
from bench.peers.gateways import GATEWAYS, missing
from bench.scenarios.base import Result, Scenario, Skipped, Table, comparison
from bench.scenarios.check import check_generate
from bench.scenarios.unary import OFF, ON
from bench.subjects import Bench

_FLOOR = "bare pass-through"
_FEATURES = {
    _FLOOR: "none",
    OFF: "metrics",
    ON: "key, request limit, budget, ledger in SQLite, metrics, 1 % tracing, price and usage of "
    "each call, breaker, logs at info",
}


def peers(bench: Bench) -> Result:
    """Generate, and the same as OpenAI's chat completion where a gateway speaks HTTP."""
    absent = missing()
    if all(gateway.folder in absent for gateway in GATEWAYS):
        raise Skipped("no peer is installed: run 'make bench-peers'")
    grpc = Load(
        calls=bench.options.calls(2_000),
        body=bench.file("generate.bin", generate_request().SerializeToString()),
        method="Generate",
        headers=BEARER,
    )
    chat = bench.file("chat.json", chat_json())
    slow = {"litellm": bench.options.calls(300)}
    features = dict(_FEATURES)
    with ExitStack() as stack:
        start, send = stack.enter_context, bench.generators.send_grpc
        cases = [
            Case(_FLOOR, start(bench.floor("forward", body=chat_json())), send, grpc),
            Case(OFF, start(bench.router(BARE)), send, grpc),
            Case(ON, start(bench.router(Setup())), send, grpc),
        ]
        check_generate(cases[-1].server, generate_request())
        for gateway in GATEWAYS:
            if gateway.folder in absent:
                continue
            load = Load(
                calls=slow.get(gateway.folder, grpc.calls),
                body=chat,
                method="/v1/chat/completions",
                headers=gateway.headers(bench),
            )
            try:
                server = start(gateway.start(bench))
            except BenchError as error:
                absent[gateway.name] = str(error).strip().splitlines()[-1]
                continue
            http = gateway.send or bench.generators.send_http
            cases.append(Case(gateway.name, server, http, load))
            features[gateway.name] = gateway.features
        measured = compare(cases, bench.options.rounds)
    table, figures = comparison(measured, [_FLOOR, ON])
    on = Table(["case", "features on"], list(features.items()))
    notes = [f"{name} is not in this table: {reason}" for name, reason in absent.items()]
    return Result([table, on], figures, notes=notes)


SCENARIOS = (
    Scenario(
        name="peers",
        title="Other gateways",
        config="each by its own advice for production, one process, the same upstream",
        payload="as generate; as a chat completion over HTTP where no gRPC is spoken",
        expected="every call OK",
        run=peers,
    ),
)
