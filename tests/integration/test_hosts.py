"""Hosts of a known dialect through a whole router: one that no catalogue knows, added by
configuration alone, and rows of the catalogue, each before the simulator."""

from collections.abc import AsyncIterator

import grpc
import pytest

from tests.support.router import PATIENCE, Router, ask, detail, reason, router
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.simulator.app import Simulator

CONFIG = """
providers:
  # Nobody's row: where it is, what it speaks, and how it deviates.
  garage:
    dialect: openai
    base_url: "{url}/openai/v1"
    api_key: env:TEST_KEY
    flags: {{max_tokens_field: max_tokens, tools: false, image_urls: false}}
    region: under-the-desk
  mistral: {{base_url: "{url}/openai/v1", api_key: "env:TEST_KEY"}}
  cohere: {{base_url: "{url}/cohere", api_key: "env:TEST_KEY"}}
deployments:
  - provider: cohere
    model: command-a-03-2025
    price: {{input: "2", output: "8"}}
"""


@pytest.fixture
async def served() -> AsyncIterator[Router]:
    async with Simulator() as simulator, router(CONFIG.format(url=simulator.url)) as running:
        yield running


async def generate(served: Router, request: v1.GenerateRequest) -> v1.GenerateResponse:
    return await served.stub.Generate(request, timeout=PATIENCE)


async def streamed(served: Router, request: v1.GenerateRequest) -> tuple[v1.Message, v1.StreamEnd]:
    assembler = MessageAssembler()
    end = v1.StreamEnd()
    async for event in served.stub.StreamGenerate(request, timeout=PATIENCE):
        if event.HasField("delta"):
            assembler.add(event.delta)
        elif event.HasField("end"):
            end = event.end
    return assembler.message(), end


async def test_a_host_by_configuration_alone(served: Router) -> None:
    request = ask(model="garage/sim-large")
    request.config.max_output_tokens = 400
    answer = await generate(served, request)
    assert answer.provider == "garage"
    assert "Simulated answer from sim-large" in answer.message.parts[0].text
    assert answer.cost.unpriced
    message, end = await streamed(served, request)
    assert message == answer.message
    assert end.usage == answer.usage


async def test_what_such_a_host_cannot_do_is_refused_by_its_field(served: Router) -> None:
    request = ask(model="garage/sim-large")
    request.tools.add(name="look")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await generate(served, request)
    assert reason(caught.value) == v1.ERROR_REASON_INVALID_REQUEST


async def test_ids_of_tool_calls_of_another_vendor_reach_a_mistral_model(served: Router) -> None:
    """The simulator refuses a result whose id is of no call before it."""
    request = ask("Weather?", model="mistral/sim-large")
    request.tools.add(name="look")
    called = request.messages.add(role=v1.ROLE_ASSISTANT)
    answered = request.messages.add(role=v1.ROLE_TOOL)
    for call_id in ("toolu_01A09q90qw90lq917835lq9", "call_1d8bfbb3df12a2a3f5f5c6b0"):
        called.parts.add().tool_call.CopyFrom(v1.ToolCall(id=call_id, name="look"))
        result = answered.parts.add().tool_result
        result.tool_call_id = call_id
        result.parts.add(text=f"result of {call_id}")
    answer = await generate(served, request)
    text = answer.message.parts[0].text
    assert "result of toolu_01A09q90qw90lq917835lq9; look: result of call_1d8" in text


async def test_cohere_whole_and_streamed_alike_with_its_sources(served: Router) -> None:
    request = ask("Tell me of emus.", model="command-a-03-2025")
    request.messages[0].parts.add().file.CopyFrom(
        v1.File(data=b"Emus run.", media_type="text/plain", filename="emus.txt")
    )
    request.model = "cohere/sim-large"
    answer = await generate(served, request)
    assert [(source.id, source.title) for source in answer.message.sources] == [
        ("doc:0", "emus.txt")
    ]
    (citation,) = answer.message.citations
    assert answer.message.parts[citation.part_index].text[citation.start : citation.end]
    message, end = await streamed(served, request)
    assert message == answer.message
    assert (end.finish_reason, end.usage) == (answer.finish_reason, answer.usage)


async def test_cohere_calls_tools_and_keeps_its_plan(served: Router) -> None:
    request = ask("call look", model="cohere/sim-large")
    request.tools.add(name="look")
    answer = await generate(served, request)
    plan, call = answer.message.parts
    assert plan.reasoning.text == "I will call look."
    assert (call.tool_call.name, answer.finish_reason) == ("look", v1.FINISH_REASON_TOOL_CALLS)
    message, _ = await streamed(served, request)
    assert message.parts[0] == plan
    # Each call of the simulator numbers its ids.
    assert (message.parts[1].tool_call.name, message.parts[1].tool_call.id) == (
        "look",
        call.tool_call.id.replace("1x", "2x"),
    )
    request.messages.append(answer.message)
    result = request.messages.add(role=v1.ROLE_TOOL).parts.add().tool_result
    result.tool_call_id = call.tool_call.id
    result.parts.add(text="a cat")
    assert "look: a cat" in (await generate(served, request)).message.parts[0].text


async def test_cohere_is_priced_by_what_it_bills(served: Router) -> None:
    answer = await generate(served, ask(model="command-a-03-2025"))
    usage = answer.usage
    assert usage.source == v1.USAGE_SOURCE_PROVIDER
    assert answer.cost.total == 2000 * usage.input_tokens + 8000 * usage.output_tokens


async def test_cohere_embeds(served: Router) -> None:
    request = v1.EmbedRequest(model="cohere/sim-embed", inputs=["an emu", "a kiwi"], dimensions=8)
    answer = await served.stub.Embed(request, timeout=PATIENCE)
    assert [len(vector.values) for vector in answer.embeddings] == [8, 8]
    assert answer.usage.input_tokens > 0


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("sim-error-401", v1.ERROR_REASON_AUTHENTICATION),
        ("sim-error-429", v1.ERROR_REASON_RATE_LIMIT),
        ("sim-error-quota", v1.ERROR_REASON_QUOTA_EXCEEDED),
        ("sim-error-context", v1.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED),
        ("sim-error-filter", v1.ERROR_REASON_CONTENT_FILTER),
        ("sim-error-model", v1.ERROR_REASON_MODEL_NOT_FOUND),
        ("sim-error-503", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        ("sim-garbage", v1.ERROR_REASON_BAD_PROVIDER_RESPONSE),
    ],
)
async def test_coheres_failures(
    served: Router, model: str, wanted: v1.ErrorReason.ValueType
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await generate(served, ask(model=f"cohere/{model}"))
    report = detail(caught.value, v1.CallReport)
    assert report.attempts[-1].reason == wanted


async def test_a_stream_of_coheres_that_is_cut_is_no_answer(served: Router) -> None:
    for model in ("sim-end-midstream", "sim-error-midstream", "sim-garbage-midstream"):
        with pytest.raises(grpc.aio.AioRpcError):
            await streamed(served, ask(model=f"cohere/{model}"))
