"""Whole conversations through the router, in each dialect, with the simulated providers that the
vendors' own SDKs are content with (test_simulator_sdks.py)."""

import base64
import json
from collections.abc import AsyncGenerator

import pytest

from tests.support.router import PATIENCE, Router, router
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.simulator.app import Simulator

PATHS = {
    "openai": "openai/v1",
    "openai_responses": "openai/v1",
    "anthropic": "anthropic",
    "gemini": "gemini/v1beta",
    "bedrock": "bedrock",
}
# What the catalogue would say of a vendor's own model.
FLAGS = {"bedrock": "family: claude"}

# The smallest PNG there is: one transparent pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5E"
    "rkJggg=="
)

WEATHER = v1.Tool(
    name="get_weather",
    description="The weather in a city.",
    parameters_json=json.dumps(
        {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        }
    ),
)
CLOCK = v1.Tool(
    name="get_time",
    description="The time in a zone.",
    parameters_json=json.dumps(
        {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
    ),
)


@pytest.fixture(params=sorted(PATHS))
def kind(request: pytest.FixtureRequest) -> str:
    """A dialect."""
    return str(request.param)


@pytest.fixture
async def dialect(kind: str) -> AsyncGenerator[Router]:
    """A router whose model `vendor/...` is simulated in one dialect."""
    async with Simulator(port=0) as simulator:
        config = (
            f"providers: {{vendor: {{kind: {kind.partition('_')[0]}, dialect: {kind}, "
            f"base_url: '{simulator.url}/{PATHS[kind]}', api_key: 'env:TEST_KEY', "
            f"flags: {{{FLAGS.get(kind, '')}}}}}}}"
        )
        async with router(config) as trunkline:
            yield trunkline


def user(*parts: v1.Part) -> v1.Message:
    return v1.Message(role=v1.ROLE_USER, parts=parts)


def conversation(*messages: v1.Message, **fields: object) -> v1.GenerateRequest:
    request = v1.GenerateRequest(model="vendor/sim-large", messages=messages)
    request.MergeFrom(v1.GenerateRequest(**fields))  # type: ignore[arg-type]  # fields by name
    return request


async def both_ways(trunkline: Router, request: v1.GenerateRequest) -> v1.GenerateResponse:
    """The answer in one piece, which the streamed answer must equal."""
    whole = await trunkline.stub.Generate(request, timeout=PATIENCE)
    assembler = MessageAssembler()
    end = v1.StreamEnd()
    async for event in trunkline.stub.StreamGenerate(request, timeout=PATIENCE):
        if event.HasField("delta"):
            assembler.add(event.delta)
        elif event.HasField("end"):
            end = event.end
    assert shape(assembler.message()) == shape(whole.message)
    assert end.finish_reason == whole.finish_reason
    assert end.usage == whole.usage
    assert end.cost == whole.cost
    return whole


def shape(message: v1.Message) -> list[tuple[object, ...]]:
    """What a message says; ids, which each answer has of its own, left out."""
    return [
        (
            part.WhichOneof("kind"),
            part.text,
            part.reasoning.text,
            part.tool_call.name,
            json.loads(part.tool_call.arguments_json or "null"),
            bool(part.signature.value),
        )
        for part in message.parts
    ]


def calls_of(message: v1.Message) -> list[v1.ToolCall]:
    return [part.tool_call for part in message.parts if part.HasField("tool_call")]


async def test_parallel_tools_are_called_and_their_results_read(dialect: Router) -> None:
    question = user(v1.Part(text="Please call get_weather and get_time."))
    request = conversation(question, tools=[WEATHER, CLOCK])
    asked = await both_ways(dialect, request)
    assert asked.finish_reason == v1.FINISH_REASON_TOOL_CALLS
    calls = calls_of(asked.message)
    assert [call.name for call in calls] == ["get_weather", "get_time"]
    assert len({call.id for call in calls}) == 2
    assert set(json.loads(calls[0].arguments_json)) == {"city", "days"}
    assert isinstance(json.loads(calls[0].arguments_json)["days"], int)

    results = [
        v1.Part(tool_result=v1.ToolResult(tool_call_id=call.id, parts=[v1.Part(text=text)]))
        for call, text in zip(calls, ("snow in May", "a quarter to nine"), strict=True)
    ]
    request.messages.extend([asked.message, v1.Message(role=v1.ROLE_TOOL, parts=results)])
    answered = await both_ways(dialect, request)
    assert answered.finish_reason == v1.FINISH_REASON_STOP
    text = "".join(part.text for part in answered.message.parts)
    assert "snow in May" in text
    assert "a quarter to nine" in text


async def test_a_tool_may_be_demanded(dialect: Router) -> None:
    choice = v1.ToolChoice(mode=v1.TOOL_CHOICE_MODE_REQUIRED, name="get_time")
    request = conversation(
        user(v1.Part(text="What now?")), tools=[WEATHER, CLOCK], tool_choice=choice
    )
    answer = await both_ways(dialect, request)
    assert [call.name for call in calls_of(answer.message)] == ["get_time"]


async def test_a_picture_is_seen(dialect: Router) -> None:
    picture = v1.Part(image=v1.Image(data=PIXEL, media_type="image/png"))
    answer = await both_ways(dialect, conversation(user(v1.Part(text="What is it?"), picture)))
    text = answer.message.parts[0].text
    assert "image/png" in text
    assert str(len(PIXEL)) in text


async def test_an_answer_follows_its_schema(dialect: Router) -> None:
    schema = {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "stars": {"type": "integer"},
            "mood": {"type": "string", "enum": ["glad", "sad"]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["title", "stars", "mood", "tags"],
        "additionalProperties": False,
    }
    wanted = v1.JsonSchema(name="review", schema_json=json.dumps(schema), strict=True)
    request = conversation(
        user(v1.Part(text="Review it.")), response_format=v1.ResponseFormat(json_schema=wanted)
    )
    answer = await both_ways(dialect, request)
    review = json.loads("".join(part.text for part in answer.message.parts))
    assert set(review) == {"title", "stars", "mood", "tags"}
    assert isinstance(review["stars"], int)
    assert review["mood"] in {"glad", "sad"}
    assert all(isinstance(tag, str) for tag in review["tags"])


async def test_reasoning_is_told_and_taken_back(kind: str, dialect: Router) -> None:
    reasoning = v1.ReasoningConfig(
        effort=v1.REASONING_EFFORT_HIGH,
        # OpenAI's chat completions take no such wish, and the codec refuses it by name.
        include_reasoning=kind != "openai",
    )
    config = v1.GenerationConfig(max_output_tokens=4096, reasoning=reasoning)
    request = conversation(user(v1.Part(text="Think.")), config=config)
    thought = await both_ways(dialect, request)
    assert any(part.reasoning.text for part in thought.message.parts)
    # Bedrock does not count them apart.
    assert (thought.usage.reasoning_tokens > 0) == (kind != "bedrock")
    assert thought.usage.output_tokens >= thought.usage.reasoning_tokens
    # The simulators of the dialects that sign refuse a signature that is not theirs.
    request.messages.extend([thought.message, user(v1.Part(text="And then?"))])
    again = await both_ways(dialect, request)
    assert again.finish_reason == v1.FINISH_REASON_STOP


async def test_stops_limits_and_system_prompts_arrive(kind: str, dialect: Router) -> None:
    system = v1.Message(role=v1.ROLE_SYSTEM, parts=[v1.Part(text="Be brief.")])
    question = user(v1.Part(text="Speak."))
    full = await both_ways(dialect, conversation(system, question))
    # The Responses API takes no limit below 16, and no stop texts.
    limit = 16 if kind == "openai_responses" else 3
    cut = await both_ways(
        dialect,
        conversation(system, question, config=v1.GenerationConfig(max_output_tokens=limit)),
    )
    assert cut.finish_reason == v1.FINISH_REASON_LENGTH
    assert cut.usage.output_tokens <= limit
    if kind == "openai_responses":
        return
    word = full.message.parts[0].text.split()[2]
    stopped = await both_ways(
        dialect, conversation(system, question, config=v1.GenerationConfig(stop=[word]))
    )
    assert stopped.finish_reason == v1.FINISH_REASON_STOP
    assert word not in stopped.message.parts[0].text
    assert full.message.parts[0].text.startswith(stopped.message.parts[0].text)
