"""Generate when a provider fails, and when it is slow."""

from contextlib import ExitStack

from bench.common.child import BenchError
from bench.common.compare import Case, compare
from bench.common.load import Load, Outcome
from bench.configs import BEARER, Setup
from bench.payloads import generate_request
from bench.scenarios.base import Result, Scenario, Table, comparison
from bench.scenarios.check import check_generate
from bench.subjects import Bench
from trunkline import v1

_FAILS_FIRST = (v1.ATTEMPT_OUTCOME_FAILED, v1.ATTEMPT_OUTCOME_SUCCEEDED)


def fallback(bench: Bench) -> Result:
    """Every first attempt fails with 503; every call is answered by the second provider."""
    failing = Setup(deployments=("fail=1,status=503", ""), patient_breaker=True)
    body = bench.file("generate.bin", generate_request().SerializeToString())
    load = Load(calls=bench.options.calls(3_000), body=body, method="Generate", headers=BEARER)
    send = bench.generators.send_ghz
    with ExitStack() as stack:
        cases = [
            Case("first provider answers", stack.enter_context(bench.router(Setup())), send, load),
            Case("first provider fails", stack.enter_context(bench.router(failing)), send, load),
        ]
        check_generate(cases[1].server, generate_request(), outcomes=_FAILS_FIRST)
        before = bench.upstream_stats()["failures"]
        measured = compare(cases, bench.options.rounds)
        failures = bench.upstream_stats()["failures"] - before
    calls = bench.options.rounds * load.calls + max(load.calls // 5, 1)
    if failures != calls:
        raise BenchError(f"{calls} calls should have met as many failures, not {failures}")
    table, figures = comparison(measured, ["first provider answers"])
    note = "The breaker is told to be patient, so that no call is spared its failing attempt."
    return Result([table], figures, notes=[note])


def hedge(bench: Bench) -> Result:
    """One call in twenty is slow by 150 ms; a hedge races it after its percentile."""
    slow = ("latency=5ms,slow=0.05,slowby=150ms", "latency=5ms")
    hedging = {"percentile": 0.9, "min_delay": "10ms"}
    body = bench.file("generate.bin", generate_request().SerializeToString())
    load = Load(
        calls=bench.options.calls(1_000),
        body=body,
        method="Generate",
        headers=BEARER,
        rate=200.0,
    )
    sent: dict[str, int] = {}
    with ExitStack() as stack:

        def case(name: str, setup: Setup) -> Case:
            server = stack.enter_context(bench.router(setup))
            sent[name] = 0

            def send(address: str, load: Load) -> Outcome:
                before = bench.upstream_stats()["requests"]
                outcome = bench.generators.send_grpc(address, load)
                sent[name] += bench.upstream_stats()["requests"] - before
                return outcome

            return Case(name, server, send, load)

        cases = [
            case("without hedging", Setup(deployments=slow)),
            case("with hedging", Setup(deployments=slow, hedge=hedging)),
        ]
        check_generate(cases[1].server, generate_request())
        measured = compare(cases, bench.options.rounds)
    table, figures = comparison(measured, [])
    calls = bench.options.rounds * load.calls + max(load.calls // 5, 1)
    attempts = Table(
        ["case", "p95 ms", "upstream calls per 1,000"],
        [
            [name, each.latency["p95"].show(1), f"{sent[name] / calls * 1000:,.0f}"]
            for name, each in measured.items()
        ],
    )
    for name, count in sent.items():
        figures[name]["upstream_calls_per_1000"] = count / calls * 1000
    return Result([table, attempts], figures)


SCENARIOS = (
    Scenario(
        name="fallback",
        title="Generate with fallback",
        config="two providers, of which the first always answers 503",
        payload="as generate",
        expected="every call OK, with a failed and a successful attempt",
        run=fallback,
    ),
    Scenario(
        name="hedge",
        title="Generate with hedging",
        config="two providers; one call in twenty of the first is 150 ms late; 200 calls/s",
        payload="as generate",
        expected="every call OK",
        run=hedge,
    ),
)
