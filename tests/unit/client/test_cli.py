"""`trunkline call` against a real server: what goes to stdout, to stderr, and the status."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from tests.unit.client.scripted import Context, Served, fail, start_event, text_event
from trunkline import v1
from trunkline.cli import call, format_cost

USAGE = v1.Usage(input_tokens=12, output_tokens=34)
COST = v1.Cost(total=1_250_000)
DECISION = v1.Decision(
    deployment="sim-eu",
    strategy=v1.STRATEGY_LOWEST_COST,
    snapshot_version="7f3a",
    candidate_count=2,
    candidates=[
        v1.Candidate(provider="sim", deployment="sim-eu", rank=1, score=0.5, estimated_cost=COST),
        v1.Candidate(
            provider="far",
            deployment="far-us",
            exclusion=v1.Exclusion(reason=v1.EXCLUSION_REASON_DATA_RESIDENCY, detail="us, not eu"),
        ),
    ],
)


@dataclass
class Outcome:
    status: int
    out: str
    err: str


Run = Callable[..., Any]


@pytest.fixture
def run(served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command beside the server, with no TRUNKLINE_* variable but those given."""
    for name in ("TARGET", "API_KEY", "TIMEOUT", "TLS", "CA_FILE", "CERT_FILE", "KEY_FILE"):
        monkeypatch.delenv(f"TRUNKLINE_{name}", raising=False)

    async def run(*arguments: str, target: bool = True) -> Outcome:
        where: Sequence[str] = ("--target", served.target) if target else ()
        status = await asyncio.to_thread(call, [*where, *arguments])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


async def speak(request: v1.GenerateRequest, context: Context) -> AsyncIterator[Any]:
    start = start_event()
    start.start.decision.CopyFrom(DECISION)
    yield start
    yield text_event("Hel")
    yield text_event("lo")
    yield v1.StreamGenerateResponse(end=v1.StreamEnd(usage=USAGE, cost=COST, model="gpt-5-0801"))


async def test_streams_text_and_one_line_about_it(served: Served, run: Run) -> None:
    served.router.on_stream = speak
    outcome = await run("hi", "--model", "gpt-5", "--system", "be brief", "--max-tokens", "9")

    assert outcome.status == 0
    assert outcome.out == "Hello\n"
    head, _, elapsed = outcome.err.rpartition(", ")
    assert head == "sim/gpt-5-0801: 12 in, 34 out, $0.00125"
    assert elapsed.endswith(" ms\n")
    assert served.router.calls[0].request == v1.GenerateRequest(
        model="gpt-5",
        messages=[
            v1.Message(role=v1.ROLE_SYSTEM, parts=[v1.Part(text="be brief")]),
            v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text="hi")]),
        ],
        config=v1.GenerationConfig(max_output_tokens=9),
        routing=v1.RoutingOptions(),
    )


async def test_json_streams_one_event_a_line(served: Served, run: Run) -> None:
    served.router.on_stream = speak
    outcome = await run("hi", "--json")
    events = [json.loads(line) for line in outcome.out.splitlines()]
    assert [next(iter(event)) for event in events] == ["start", "delta", "delta", "end"]
    assert events[3]["end"]["usage"]["input_tokens"] == "12"


async def answer(request: v1.GenerateRequest, context: Context) -> v1.GenerateResponse:
    return v1.GenerateResponse(
        provider="sim",
        model="gpt-5-0801",
        message=v1.Message(parts=[v1.Part(text="Hello")]),
        usage=USAGE,
        cost=v1.Cost(unpriced=True),
        decision=DECISION,
    )


async def test_answers_in_one_piece_and_explains(served: Served, run: Run) -> None:
    served.router.on_generate = answer
    outcome = await run("hi", "--no-stream", "--explain")
    assert outcome.status == 0
    assert outcome.out == "Hello\n"
    lines = outcome.err.splitlines()
    assert lines[0] == "sim-eu chosen of 2 by lowest_cost, table 7f3a"
    assert lines[1].strip() == "1 sim/sim-eu: score 0.5, $0.00125"
    assert lines[2].strip() == "- far/far-us: excluded: data_residency (us, not eu)"
    assert "unpriced" in lines[3]
    assert served.router.calls[0].request.routing.explain


async def test_json_of_the_whole_response(served: Served, run: Run) -> None:
    served.router.on_generate = answer
    outcome = await run("hi", "--no-stream", "--json")
    assert json.loads(outcome.out)["message"]["parts"] == [{"text": "Hello"}]


@pytest.mark.parametrize("arguments", [("-",), ()])
async def test_prompt_from_standard_input(
    served: Served, run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    served.router.on_stream = speak
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe"))
    assert (await run(*arguments)).status == 0
    assert served.router.calls[0].request.messages[0].parts[0].text == "from a pipe"


async def test_environment_gives_target_key_and_timeout(
    served: Served, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.router.on_stream = speak
    monkeypatch.setenv("TRUNKLINE_TARGET", served.target)
    monkeypatch.setenv("TRUNKLINE_API_KEY", "tl-secret")
    monkeypatch.setenv("TRUNKLINE_TIMEOUT", "7")
    assert (await run("hi", target=False)).status == 0
    assert (await run("hi", "--timeout", "20", target=False)).status == 0
    first, second = served.router.calls
    assert first.metadata["authorization"] == "Bearer tl-secret"
    assert first.remaining is not None
    assert first.remaining < 8
    assert second.remaining is not None
    assert 15 < second.remaining < 21


async def test_a_failure_is_one_line(served: Served, run: Run) -> None:
    async def script(request: Any, context: Context) -> None:
        info = error_details_pb2.ErrorInfo(
            reason="ERROR_REASON_RATE_LIMIT", domain="trunkline", metadata={"request_id": "c-5"}
        )
        retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3))
        await fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "slow\ndown", info, retry)

    served.router.on_generate = script
    outcome = await run("hi", "--no-stream")
    assert outcome.status == 1
    assert outcome.out == ""
    assert outcome.err == (
        "trunkline call: RATE_LIMIT: slow down; try again in 3 s (request c-5)\n"
    )


async def test_near_models_are_named(served: Served, run: Run) -> None:
    async def script(request: Any, context: Context) -> None:
        info = error_details_pb2.ErrorInfo(
            reason="ERROR_REASON_MODEL_NOT_FOUND", domain="trunkline", metadata={"near": "gpt-5"}
        )
        await fail(context, grpc.StatusCode.NOT_FOUND, "no model gpt5", info)

    served.router.on_generate = script
    outcome = await run("hi", "--no-stream")
    assert outcome.err == "trunkline call: MODEL_NOT_FOUND: no model gpt5; near: gpt-5\n"


async def test_no_router_is_said_so(served: Served, run: Run) -> None:
    await served.stop()
    outcome = await run("hi")
    assert outcome.status == 1
    assert outcome.err.startswith(f"trunkline call: no router answers at {served.target}: ")
    assert outcome.err.count("\n") == 1


async def test_misuse_gives_status_two(
    served: Served, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert (await run("--no-such-option")).status == 2
    empty = await run("  ")
    assert (empty.status, empty.err) == (2, "trunkline call: the prompt is empty\n")
    assert (await run("hi", "--timeout", "0")).status == 2
    monkeypatch.setenv("TRUNKLINE_CA_FILE", str(tmp_path / "missing.pem"))
    missing = await run("hi")
    assert missing.status == 2
    assert "missing.pem" in missing.err
    assert served.router.calls == []


async def test_help_succeeds(run: Run) -> None:
    outcome = await run("--help")
    assert outcome.status == 0
    assert "--no-stream" in outcome.out


@pytest.mark.parametrize(
    ("cost", "shown"),
    [
        (v1.Cost(total=1), "$0.000000001"),
        (v1.Cost(total=2_500_000_000), "$2.50"),
        (v1.Cost(), "$0.00"),
        (v1.Cost(total=1_234_567_890, estimated=True), "~$1.23456789"),
        (v1.Cost(unpriced=True), "unpriced"),
    ],
)
def test_costs_are_exact(cost: v1.Cost, shown: str) -> None:
    assert format_cost(cost) == shown


async def test_a_reader_that_stops_early_is_no_crash(served: Served) -> None:
    async def endless(request: Any, context: Context) -> AsyncIterator[Any]:
        yield start_event()
        while True:
            yield text_event("word " * 200)

    served.router.on_stream = endless
    command = (
        f"{sys.executable} -c 'import sys; from trunkline.cli import call; sys.exit(call())'"
        f" --target {served.target} hi | head -c 10"
    )
    shell = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(shell.communicate(), 30)
    assert out == b"word word "
    assert err == b""
