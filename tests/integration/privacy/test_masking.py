"""Masking in a running router: vendors get placeholders, callers get what they stand for."""

import json
from collections.abc import AsyncGenerator

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from tests.integration.privacy.vendor import Vendor, vendor
from tests.support.router import PATIENCE, Router, ask, openai_at, reason, router
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.simulator.app import Simulator

ANN, BOB, CARD, SSN = "ann@example.org", "bob@example.com", "4111 1111 1111 1111", "536-22-1234"
SECRETS = (ANN, BOB, CARD, SSN)
MASKED = {"data_classification": "confidential"}
PLAIN = {"data_classification": "internal"}


@pytest.fixture
async def upstream() -> AsyncGenerator[Vendor]:
    async with vendor() as running:
        yield running


@pytest.fixture
async def trunkline(upstream: Vendor) -> AsyncGenerator[Router]:
    async with router(openai_at(upstream.url) + "\nprivacy: {}") as running:
        yield running


def asked(text: str, labels: dict[str, str], **fields: object) -> v1.GenerateRequest:
    request = ask(text)
    request.MergeFrom(v1.GenerateRequest(**fields))  # type: ignore[arg-type] # Fields by name.
    request.context.labels.update(labels)
    return request


def conversation() -> v1.GenerateRequest:
    """Personal data in every place that a vendor would see."""
    request = v1.GenerateRequest(model="large", request_id=f"for {ANN}")
    message = request.messages.add
    message(role=v1.ROLE_SYSTEM, parts=[v1.Part(text=f"You serve {ANN}.")])
    message(role=v1.ROLE_USER, parts=[v1.Part(text=f"Write to {BOB}.")])
    call = v1.ToolCall(id="t0", name="send", arguments_json=json.dumps({"to": BOB, "card": CARD}))
    message(role=v1.ROLE_ASSISTANT, parts=[v1.Part(tool_call=call)])
    result = v1.ToolResult(tool_call_id="t0", parts=[v1.Part(text=f"sent, SSN {SSN}")])
    message(role=v1.ROLE_TOOL, parts=[v1.Part(tool_result=result)])
    message(role=v1.ROLE_USER, parts=[v1.Part(text=f"Now to {BOB} and {ANN}, card {CARD}")])
    request.tools.add(
        name="send",
        description=f"Sends in the name of {ANN}",
        parameters_json=json.dumps({"type": "object", "properties": {"to": {"default": BOB}}}),
    )
    request.config.stop.append(f"-- {ANN}")
    request.provider_options.CopyFrom(Struct())
    request.provider_options.update({"metadata": {"who": ANN, "list": [f"x {SSN}", 3, True]}})
    request.context.user_id = ANN
    request.context.labels.update(MASKED)
    return request


async def streamed(router: Router, request: v1.GenerateRequest) -> tuple[v1.Message, v1.StreamEnd]:
    """The message that the deltas make, and the end, which comes last."""
    assembler = MessageAssembler()
    end = None
    async for event in router.stub.StreamGenerate(request, timeout=PATIENCE):
        assert end is None
        if event.HasField("delta"):
            assembler.add(event.delta)
        elif event.HasField("end"):
            end = event.end
    assert end is not None
    return assembler.message(), end


async def test_nothing_of_a_masked_call_reaches_the_vendor(
    upstream: Vendor, trunkline: Router
) -> None:
    answer = await trunkline.stub.Generate(conversation(), timeout=PATIENCE)
    for secret in SECRETS:
        assert secret not in upstream.received
        assert secret.replace(" ", "") not in upstream.received
    (body,) = map(json.loads, upstream.bodies)
    assert body["messages"][-1]["content"] == (
        "Now to [EMAIL_ADDRESS_2] and [EMAIL_ADDRESS_1], card [CREDIT_CARD_1]"
    )
    assert body["stop"] == ["-- [EMAIL_ADDRESS_1]"]
    assert body["metadata"] == {"who": "[EMAIL_ADDRESS_1]", "list": ["x [US_SSN_1]", 3, True]}
    (call,) = (part.tool_call for part in answer.message.parts)
    assert json.loads(call.arguments_json) == {"to": [BOB, ANN, CARD], "n": [1, 2]}
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (21, 9)
    assert answer.cost.total == 21 * 2_000 + 9 * 8_000
    assert trunkline.worker.engine.privacy is not None


async def test_a_label_that_does_not_mask_sends_the_text_as_it_is(
    upstream: Vendor, trunkline: Router
) -> None:
    answer = await trunkline.stub.Generate(asked(f"I am {ANN}", PLAIN), timeout=PATIENCE)
    assert answer.message.parts[0].text == f"You said: I am {ANN}"
    answer = await trunkline.stub.Generate(asked(f"I am {ANN}", {}), timeout=PATIENCE)
    assert upstream.received.count(ANN) == 2


@pytest.mark.parametrize("seed", range(12))
async def test_a_stream_is_restored_at_every_cut(
    upstream: Vendor, trunkline: Router, seed: int
) -> None:
    upstream.seed = seed
    text = f"{ANN}, [{BOB}] [x] {CARD}{ANN} and [EMAIL_ADDRESS_7] ["
    message, end = await streamed(trunkline, asked(text, MASKED))
    assert message.parts[0].text == f"You said: {text}"
    assert not any(secret in upstream.received for secret in SECRETS)
    assert (end.usage.input_tokens, end.usage.output_tokens) == (21, 9)
    message, _ = await streamed(trunkline, conversation())
    (call,) = (part.tool_call for part in message.parts)
    assert (call.id, call.name) == ("t1", "send")
    assert json.loads(call.arguments_json) == {"to": [BOB, ANN, CARD], "n": [1, 2]}


async def test_texts_to_embed_are_masked(upstream: Vendor, trunkline: Router) -> None:
    request = v1.EmbedRequest(model="large", inputs=[f"I am {ANN}", "plain", f"{BOB} {ANN}"])
    request.context.labels.update(MASKED)
    answer = await trunkline.stub.Embed(request, timeout=PATIENCE)
    (body,) = map(json.loads, upstream.bodies)
    assert body["input"] == [
        "I am [EMAIL_ADDRESS_1]",
        "plain",
        "[EMAIL_ADDRESS_2] [EMAIL_ADDRESS_1]",
    ]
    assert len(answer.embeddings) == 3


async def test_a_long_prompt_is_masked_in_a_thread(upstream: Vendor, trunkline: Router) -> None:
    text = "word " * 20_000 + ANN
    answer = await trunkline.stub.Generate(asked(text, MASKED), timeout=PATIENCE)
    assert ANN not in upstream.received
    assert answer.message.parts[0].text == f"You said: {text}"


async def test_a_label_that_is_not_configured_is_refused_by_its_field(
    upstream: Vendor, trunkline: Router
) -> None:
    labels = {"data_classification": f"secret of {ANN}"}
    calls = (
        trunkline.stub.Generate(asked("hi", labels), timeout=PATIENCE),
        trunkline.stub.Route(
            v1.RouteRequest(model="large", context=v1.CallContext(labels=labels)),
            timeout=PATIENCE,
        ),
        trunkline.stub.Embed(
            v1.EmbedRequest(model="large", inputs=["a"], context=v1.CallContext(labels=labels)),
            timeout=PATIENCE,
        ),
    )
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason(refused.value) == v1.ERROR_REASON_INVALID_REQUEST
        assert "context.labels[data_classification]" in str(refused.value.details())
        assert ANN not in str(refused.value.details())
    assert upstream.bodies == []


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini", "bedrock"])
async def test_every_dialect_gives_back_what_it_was_given(dialect: str) -> None:
    async with Simulator(port=0) as simulator:
        base = {
            "openai": "/openai/v1",
            "anthropic": "/anthropic",
            "gemini": "/gemini/v1beta",
            "bedrock": "/bedrock",
        }
        config = (
            f"providers: {{vendor: {{kind: {dialect}, base_url: '{simulator.url}{base[dialect]}', "
            "api_key: 'env:TEST_KEY'}}\nprivacy: {}"
        )
        async with router(config) as running:
            request = asked(f"I am {ANN}.", MASKED)
            request.model = "vendor/sim-large"
            answer = await running.stub.Generate(request, timeout=PATIENCE)
            message, _ = await streamed(running, request)
    assert f"I am {ANN}." in answer.message.parts[0].text
    assert f"I am {ANN}." in message.parts[0].text
