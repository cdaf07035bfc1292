"""OpenAI's SDK against the simulated Responses API: it must be content with it."""

import ssl
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import openai
import orjson
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response, response_create_params
from pydantic import BaseModel

from trunkline_server.simulator import known_fields
from trunkline_server.simulator.app import Simulator

# Reading the machine's certificates takes longer than any test here: read them once.
TLS = ssl.create_default_context()
MODEL = "sim-large"
TOOLS: Any = [
    {
        "type": "function",
        "name": name,
        "description": name,
        "strict": False,
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
        },
    }
    for name in ("add", "look")
]
KEPT: Any = {"store": False, "include": ["reasoning.encrypted_content"]}


class Country(BaseModel):
    name: str
    code: str


class City(BaseModel):
    """A shape with nesting, a list and a boolean."""

    name: str
    people: int
    country: Country
    rivers: list[str]
    coastal: bool


@pytest.fixture
async def client() -> AsyncGenerator[AsyncOpenAI]:
    async with Simulator() as simulator, httpx2.AsyncClient(verify=TLS) as http:
        yield AsyncOpenAI(
            base_url=f"{simulator.url}/openai/v1", api_key="k", max_retries=0, http_client=http
        )


def valid(response: Response) -> Response:
    """The response, once its every field is what the SDK's types say: its client looks at none."""
    return Response.model_validate_json(response.model_dump_json(warnings="error"))


async def test_unary(client: AsyncOpenAI) -> None:
    answer = valid(
        await client.responses.create(
            model=MODEL, input="hello there", instructions="Be brief.", temperature=0
        )
    )
    assert answer.status == "completed"
    assert "hello there" in answer.output_text
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    again = await client.responses.create(
        model=MODEL, input="hello there", instructions="Be brief.", temperature=0
    )
    assert again.output_text == answer.output_text


@pytest.mark.parametrize("text", ["just talk", "please call add and look", "search the web"])
async def test_a_stream_ends_as_the_whole_answer(client: AsyncOpenAI, text: str) -> None:
    fields: Any = {
        "model": MODEL,
        "input": text,
        "tools": [*TOOLS, {"type": "web_search"}],
        "reasoning": {"effort": "high", "summary": "auto"},
        **KEPT,
    }
    whole = valid(await client.responses.create(**fields))
    kinds, written = [], {"response.output_text.delta": "", "response.refusal.delta": ""}
    async with client.responses.stream(**fields) as stream:
        async for event in stream:
            kinds.append(event.type)
            if event.type == "response.output_text.delta":
                written[event.type] += event.delta
        final = await stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert written["response.output_text.delta"] == whole.output_text == final.output_text
    plain = [
        item.model_dump(exclude={"parsed_arguments", "id", "call_id"}) for item in final.output
    ]
    wanted = [item.model_dump(exclude={"id", "call_id"}) for item in whole.output]
    for item in plain:
        for piece in item.get("content") or []:
            piece.pop("parsed", None)
    assert plain == wanted
    assert final.usage == whole.usage


async def test_tools_and_reasoning_over_turns(client: AsyncOpenAI) -> None:
    items: list[Any] = [{"role": "user", "content": "please call add and look"}]
    fields: Any = {"model": MODEL, "tools": TOOLS, "reasoning": {"effort": "low"}, **KEPT}
    answer = valid(await client.responses.create(input=items, **fields))
    calls = [item for item in answer.output if item.type == "function_call"]
    assert [call.name for call in calls] == ["add", "look"]
    assert isinstance(orjson.loads(calls[0].arguments)["a"], int)
    assert answer.output[0].type == "reasoning"
    items += [item.model_dump(exclude_none=True) for item in answer.output]
    unanswered = [*items]
    for call, output in zip(calls, ("42", "sunny"), strict=True):
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": output})
    final = await client.responses.create(input=items, **fields)
    assert "add: 42" in final.output_text
    assert "look: sunny" in final.output_text
    with pytest.raises(openai.BadRequestError, match="No tool output found"):
        await client.responses.create(input=unanswered, **fields)


async def test_reasoning_that_is_not_the_vendors_is_refused(client: AsyncOpenAI) -> None:
    reasoning: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": []}
    turn = [{"role": "assistant", "content": "so"}, {"role": "user", "content": "and?"}]
    with pytest.raises(openai.NotFoundError, match="Items are not persisted"):
        await client.responses.create(model=MODEL, input=[reasoning, *turn])  # type: ignore[list-item]  # dicts
    forged: Any = [{**reasoning, "encrypted_content": "AAAA"}, *turn]
    with pytest.raises(openai.BadRequestError, match="could not be verified"):
        await client.responses.create(model=MODEL, input=forged)


@pytest.mark.parametrize("streamed", [False, True])
async def test_structured_output(client: AsyncOpenAI, streamed: bool) -> None:
    if streamed:
        async with client.responses.stream(model=MODEL, input="a city", text_format=City) as stream:
            answer = await stream.get_final_response()
    else:
        answer = await client.responses.parse(model=MODEL, input="a city", text_format=City)
    city = answer.output_parsed
    assert isinstance(city, City)
    assert city.rivers


async def test_limits_and_filters_leave_it_incomplete(client: AsyncOpenAI) -> None:
    cut = valid(await client.responses.create(model=MODEL, input="hi", max_output_tokens=16))
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    filtered = valid(await client.responses.create(model="sim-filter", input="hi"))
    assert filtered.incomplete_details is not None
    assert filtered.incomplete_details.reason == "content_filter"


async def test_senses(client: AsyncOpenAI) -> None:
    content = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw==", "detail": "auto"},
        {
            "type": "input_file",
            "filename": "a.pdf",
            "file_data": "data:application/pdf;base64,JVA=",
        },
    ]
    message: Any = [{"role": "user", "content": content}]
    answer = await client.responses.create(model=MODEL, input=message)
    assert "Saw 1 image (image/png, 4 bytes)" in answer.output_text
    assert "Saw 1 file" in answer.output_text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_output_tokens": 15}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"include": ["everything"]}, "include"),
        ({"tools": [{"type": "telepathy"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "name": "a b", "parameters": {}}]}, "tools[0].name"),
        ({"reasoning": {"effort": "mild"}}, "reasoning.effort"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"input": []}, "input"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "novelty"}]}, "input[0].type"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            "input",
        ),
        ({"background": True}, "background"),
        ({"extra_body": {"stop": ["x"]}}, "stop"),
    ],
)
async def test_what_the_vendor_refuses(
    client: AsyncOpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(**{"model": MODEL, "input": "in json", **fields})
    assert caught.value.param == param


async def test_failures_have_their_types(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError):
        await client.responses.create(model="sim-error-quota", input="hi")
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model=MODEL, input="hi", previous_response_id="resp_1")
    with pytest.raises(openai.APIError):
        async for _ in await client.responses.create(
            model="sim-error-midstream", input="hi", stream=True
        ):
            pass


def test_the_known_fields_are_those_of_the_sdk() -> None:
    fields = set(response_create_params.ResponseCreateParamsBase.__annotations__)
    assert fields | {"stream"} == known_fields.OPENAI_RESPONSES
