"""The router in front of the simulated Bedrock runtime, which boto3 is content with
(test_simulator_bedrock.py) and which computes every signature anew. Wrong secrets and expired
tokens are in secrets/test_cloud_credentials.py."""

from collections.abc import AsyncGenerator, Awaitable

import grpc
import pytest

from tests.adversity.test_providers import settled
from tests.support.replica import Replica, replica
from tests.support.router import PATIENCE, Router, ask, detail, reason, router
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.simulator.app import Simulator
from trunkline_server.simulator.bedrock_access import SECRET_KEY

ENV = {
    "BEDROCK_KEY": "a-bearer-key",
    "AWS_ID": "AKIDSIMULATED",
    "AWS_SECRET": SECRET_KEY,
    "AWS_TOKEN": "a-session",
}
_KEYS = "access_key_id: 'env:AWS_ID', secret_access_key: 'env:AWS_SECRET'"
AUTH = {
    "bearer": "api_key: 'env:BEDROCK_KEY'",
    "keys": f"auth: {{aws: {{{_KEYS}}}}}",
    "temporary keys": f"auth: {{aws: {{{_KEYS}, session_token: 'env:AWS_TOKEN'}}}}",
}
ARN = "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdef012345"


@pytest.fixture
async def simulator() -> AsyncGenerator[Simulator]:
    async with Simulator(port=0) as running:
        yield running


def config(url: str, auth: str = AUTH["bearer"]) -> str:
    """Two models, `large` of provisioned throughput and `vectors`, and any by name."""
    flags = "flags: {embed_as: titan, family: claude, cache_points: true}"
    return "\n".join(
        [
            "providers:",
            f"  aws: {{kind: bedrock, base_url: '{url}/bedrock', {auth}, {flags}}}",
            "deployments:",
            f"  - {{name: large, provider: aws, model: '{ARN}'}}",
            "  - {name: vectors, provider: aws, model: sim-embed, capabilities: [embedding]}",
            "models:",
            "  large: {deployments: [large], attempts: {retries: 0}}",
            "  vectors: {deployments: [vectors], attempts: {retries: 0}}",
            "",
        ]
    )


@pytest.fixture(params=sorted(AUTH))
async def trunkline(
    simulator: Simulator, request: pytest.FixtureRequest
) -> AsyncGenerator[Replica]:
    async with replica(config(simulator.url, AUTH[request.param]), ENV) as running:
        yield running


async def streamed(
    running: Router | Replica, request: v1.GenerateRequest
) -> tuple[v1.Message, v1.StreamEnd]:
    assembler, end = MessageAssembler(), v1.StreamEnd()
    async for event in running.stub.StreamGenerate(request, timeout=PATIENCE):
        if event.HasField("delta"):
            assembler.add(event.delta)
        elif event.HasField("end"):
            end = event.end
    return assembler.message(), end


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_answers_streams_and_vectors(trunkline: Replica, simulator: Simulator) -> None:
    request = ask("hello bedrock")
    whole = await trunkline.stub.Generate(request, timeout=PATIENCE)
    assert "hello bedrock" in whole.message.parts[0].text
    assert whole.usage.source == v1.USAGE_SOURCE_PROVIDER
    message, end = await streamed(trunkline, request)
    assert message.parts[0].text == whole.message.parts[0].text
    assert end.usage == whole.usage
    assert end.finish_reason == whole.finish_reason == v1.FINISH_REASON_STOP
    embed = v1.EmbedRequest(model="vectors", inputs=["hello"], dimensions=8)
    vectors = await trunkline.stub.Embed(embed, timeout=PATIENCE)
    assert [len(each.values) for each in vectors.embeddings] == [8]
    assert vectors.usage.source == v1.USAGE_SOURCE_PROVIDER
    assert simulator.counters.statuses[200] == 3


async def test_a_cancel_closes_the_upstream(trunkline: Replica, simulator: Simulator) -> None:
    request = ask(model="aws/sim-large?chunk_ms=50;tokens=4000")
    call = trunkline.stub.StreamGenerate(request, timeout=PATIENCE)
    seen = 0
    while seen < 3:
        event = await call.read()
        assert isinstance(event, v1.StreamGenerateResponse)
        seen += event.HasField("delta")
    assert simulator.counters.active == 1
    call.cancel()
    await settled(lambda: simulator.counters.active == 0)
    assert simulator.counters.cancelled["bedrock"].total() == 1


async def test_a_guardrail_s_stop_and_finding(trunkline: Replica) -> None:
    request = ask("something longer than a word", model="aws/sim-filter")
    whole = await trunkline.stub.Generate(request, timeout=PATIENCE)
    _, end = await streamed(trunkline, request)
    for answer in (whole, end):
        assert answer.finish_reason == v1.FINISH_REASON_CONTENT_FILTER
        assert answer.vendor_finish_reason == "guardrail_intervened"
        (finding,) = answer.filter_findings
        assert finding.subject == v1.FILTER_SUBJECT_ANSWER
        assert (finding.category, finding.severity) == ("MISCONDUCT", "HIGH")
        assert finding.filtered


async def test_cached_tokens_are_counted_in(trunkline: Replica) -> None:
    request = ask("again")
    system = v1.Message(role=v1.ROLE_SYSTEM)
    system.parts.add(text="long " * 2000, cache_breakpoint=True)
    request.messages.insert(0, system)
    first = await trunkline.stub.Generate(request, timeout=PATIENCE)
    second = await trunkline.stub.Generate(request, timeout=PATIENCE)
    assert first.usage.cache_write_tokens == second.usage.cached_input_tokens > 0
    assert first.usage.input_tokens == second.usage.input_tokens
    assert second.usage.input_tokens > second.usage.cached_input_tokens


@pytest.mark.parametrize(
    ("model", "code", "why"),
    [
        ("sim-error-429", "RESOURCE_EXHAUSTED", v1.ERROR_REASON_RATE_LIMIT),
        ("sim-error-quota", "RESOURCE_EXHAUSTED", v1.ERROR_REASON_QUOTA_EXCEEDED),
        ("sim-error-context", "INVALID_ARGUMENT", v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED),
        ("sim-error-filter", "FAILED_PRECONDITION", v1.ERROR_REASON_CONTENT_FILTER),
        ("sim-error-overloaded", "UNAVAILABLE", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        ("sim-error-403", "FAILED_PRECONDITION", v1.ERROR_REASON_PROVIDER_CREDENTIALS),
    ],
)
async def test_errors(
    simulator: Simulator, model: str, code: str, why: v1.ErrorReason.ValueType
) -> None:
    policy = "routing: {attempts: {retries: 0}}\n"
    async with router(policy + config(simulator.url), env=ENV) as trunkline:
        request = ask(model=f"aws/{model}")
        error = await refusal(trunkline.stub.Generate(request, timeout=PATIENCE))
        assert error.code().name == code
        assert reason(error) == why
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await streamed(trunkline, request)
        assert reason(caught.value) == why


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("error-midstream", "ERROR_REASON_SERVICE_UNAVAILABLE"),
        # A frame whose checksum is wrong.
        ("garbage-midstream", "ERROR_REASON_BAD_PROVIDER_RESPONSE"),
        ("end-midstream", "ERROR_REASON_STREAM_INTERRUPTED"),
        ("reset-midstream", "ERROR_REASON_STREAM_INTERRUPTED"),
    ],
)
async def test_streams_that_break(simulator: Simulator, fault: str, cause: str) -> None:
    policy = "routing: {attempts: {retries: 0}}\n"
    async with router(policy + config(simulator.url), env=ENV) as trunkline:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await streamed(trunkline, ask(model=f"aws/sim-{fault}"))
    assert reason(caught.value) == v1.ERROR_REASON_STREAM_INTERRUPTED
    report = detail(caught.value, v1.CallReport)
    assert v1.ErrorReason.Name(report.attempts[0].reason) == cause


async def test_an_exception_before_the_first_words_is_answered_elsewhere(
    simulator: Simulator,
) -> None:
    model = "sim-error-midstream?at_chunk=1"
    rows = (
        f"  - {{name: broken, provider: aws, model: '{model}', priority: 0}}\n"
        "  - {name: sound, provider: aws, model: sim-large, priority: 1}\n"
        "models: {both: {deployments: [broken, sound], attempts: {retries: 0}}}\n"
    )
    text = config(simulator.url).partition("deployments:\n")[0] + "deployments:\n" + rows
    async with router(text, env=ENV) as trunkline:
        message, end = await streamed(trunkline, ask("hello", model="both"))
    assert "hello" in message.parts[0].text
    assert [attempt.reason for attempt in end.attempts] == [
        v1.ERROR_REASON_SERVICE_UNAVAILABLE,
        v1.ERROR_REASON_UNSPECIFIED,
    ]
