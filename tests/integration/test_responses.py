"""The Responses API through the router, with the simulator that OpenAI's SDK is content with."""

import json
from collections.abc import AsyncGenerator

import grpc
import pytest

from tests.support.router import PATIENCE, Router, router
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.simulator.app import Simulator

THINK = v1.GenerationConfig(
    reasoning=v1.ReasoningConfig(effort=v1.REASONING_EFFORT_HIGH, include_reasoning=True)
)
CLOCK = v1.Tool(name="get_time", parameters_json='{"type": "object", "properties": {}}')
SEARCH = v1.Tool(builtin=v1.BuiltinTool(type="web_search"))


@pytest.fixture
async def simulator() -> AsyncGenerator[Simulator]:
    async with Simulator(port=0) as running:
        yield running


@pytest.fixture
async def trunkline(simulator: Simulator) -> AsyncGenerator[Router]:
    """A router that knows OpenAI and Anthropic, both simulated."""
    config = f"""
providers:
  openai: {{base_url: '{simulator.url}/openai/v1', api_key: 'env:TEST_KEY'}}
  anthropic: {{base_url: '{simulator.url}/anthropic', api_key: 'env:TEST_KEY'}}
deployments:
  - {{provider: openai, model: gpt-5-pro, capabilities: {{add: [streaming]}}}}
  - {{provider: openai, model: gpt-5}}
  - {{provider: openai, model: gpt-5, name: other, dialect: openai_responses}}
models:
  chatty: {{deployments: [openai-gpt-5]}}
  answering: {{deployments: [other]}}
"""
    async with router(config) as serving:
        yield serving


def user(text: str) -> v1.Message:
    return v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text=text)])


async def streamed(
    trunkline: Router, request: v1.GenerateRequest
) -> tuple[v1.Message, v1.StreamEnd]:
    assembler, end = MessageAssembler(), v1.StreamEnd()
    async for event in trunkline.stub.StreamGenerate(request, timeout=PATIENCE):
        if event.HasField("delta"):
            assembler.add(event.delta)
        elif event.HasField("end"):
            end = event.end
    return assembler.message(), end


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_reasoning_is_returned_turn_after_turn(trunkline: Router, stream: bool) -> None:
    """The simulator refuses reasoning that it did not encrypt, that comes without its item, or
    that it would have to have stored."""
    request = v1.GenerateRequest(
        model="gpt-5-pro", config=THINK, tools=[CLOCK], messages=[user("Please call get_time.")]
    )
    for turn in range(3):
        if stream:
            message, _ = await streamed(trunkline, request)
        else:
            message = (await trunkline.stub.Generate(request, timeout=PATIENCE)).message
        reasoning = message.parts[0].reasoning
        assert reasoning.id
        assert reasoning.redacted_data
        assert "Simulated reasoning" in reasoning.text
        calls = [part.tool_call for part in message.parts if part.HasField("tool_call")]
        request.messages.append(message)
        if calls:
            assert turn == 0
            result = v1.ToolResult(tool_call_id=calls[0].id, parts=[v1.Part(text="noon")])
            request.messages.append(
                v1.Message(role=v1.ROLE_TOOL, parts=[v1.Part(tool_result=result)])
            )
        else:
            assert turn > 0
            request.messages.append(user("And now?"))
    # What was changed on its way is found out.
    request.messages[1].parts[0].reasoning.redacted_data = "AAAA"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await trunkline.stub.Generate(request, timeout=PATIENCE)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "could not be verified" in (caught.value.details() or "")


async def test_a_vendors_search_is_told_cited_and_returned(trunkline: Router) -> None:
    request = v1.GenerateRequest(
        model="gpt-5-pro", tools=[SEARCH], messages=[user("Please search for emus.")]
    )
    request.provider_options.update({"include": ["web_search_call.action.sources"]})
    whole = await trunkline.stub.Generate(request, timeout=PATIENCE)
    message, end = await streamed(trunkline, request)
    for told in (whole.message, message):
        search, text = told.parts
        assert search.vendor_item.type == "web_search_call"
        assert json.loads(search.vendor_item.json)["action"]["query"] == "Please search for emus."
        assert [source.uri for source in told.sources] == ["https://example.com/simulated"]
        (citation,) = told.citations
        assert text.text[citation.start : citation.end].startswith("Simulated answer")
        assert list(citation.source_indexes) == [0]
    assert whole.usage.search_units == end.usage.search_units == 1
    request.messages.extend([whole.message, user("And how tall?")])
    again = await trunkline.stub.Generate(request, timeout=PATIENCE)
    assert again.finish_reason == v1.FINISH_REASON_STOP
    # Another vendor takes the same conversation, without the first one's items.
    del request.tools[:]
    request.ClearField("provider_options")
    request.model = "anthropic/sim-large"
    other = await trunkline.stub.Generate(request, timeout=PATIENCE)
    assert other.finish_reason == v1.FINISH_REASON_STOP


async def test_the_dialect_is_the_models_the_deployments_or_the_providers(
    trunkline: Router,
) -> None:
    for model, dialect in (
        ("gpt-5-pro", "openai_responses"),
        ("openai/gpt-5.1-codex", "openai_responses"),
        ("answering", "openai_responses"),
        ("chatty", ""),
        ("openai/gpt-5", ""),
    ):
        request = v1.GenerateRequest(model=model, messages=[user("hi")])
        answer = await trunkline.stub.Generate(request, timeout=PATIENCE)
        # Of the two dialects of this vendor one signs what it says.
        assert answer.message.parts[0].signature.dialect == dialect, model


async def test_a_builtin_tool_that_nobody_has_is_refused_by_name(trunkline: Router) -> None:
    for model in ("chatty", "anthropic/sim-large"):
        tool = v1.Tool(builtin=v1.BuiltinTool(type="telepathy"))
        request = v1.GenerateRequest(model=model, tools=[tool], messages=[user("hi")])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await trunkline.stub.Generate(request, timeout=PATIENCE)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert (caught.value.details() or "").startswith("tools[0].builtin:")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("sim-error-quota", grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("sim-error-context", grpc.StatusCode.INVALID_ARGUMENT),
        ("sim-error-midstream", grpc.StatusCode.UNAVAILABLE),
        ("sim-end-midstream", grpc.StatusCode.UNAVAILABLE),
        ("sim-garbage-midstream", grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_failures_are_told_as_such(simulator: Simulator, fault: str, code: object) -> None:
    config = (
        f"providers: {{openai: {{base_url: '{simulator.url}/openai/v1', "
        "api_key: 'env:TEST_KEY', dialect: openai_responses}}\n"
        "routing: {attempts: {retries: 0}}"
    )
    async with router(config) as serving:
        request = v1.GenerateRequest(model=f"openai/{fault}", messages=[user("hi")])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await streamed(serving, request)
    assert caught.value.code() == code


async def test_a_filtered_answer_ends_as_one(simulator: Simulator) -> None:
    config = (
        f"providers: {{openai: {{base_url: '{simulator.url}/openai/v1', "
        "api_key: 'env:TEST_KEY', dialect: openai_responses}}"
    )
    async with router(config) as serving:
        request = v1.GenerateRequest(model="openai/sim-filter", messages=[user("hi")])
        whole = await serving.stub.Generate(request, timeout=PATIENCE)
        message, end = await streamed(serving, request)
    assert whole.finish_reason == end.finish_reason == v1.FINISH_REASON_CONTENT_FILTER
    assert whole.vendor_finish_reason == end.vendor_finish_reason == "content_filter"
    assert [part.text for part in message.parts] == [part.text for part in whole.message.parts]
