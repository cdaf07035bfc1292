"""OpenAI's own SDK against the OpenAI-compatible face, unchanged."""

import asyncio
import base64
import json
from typing import Any

import httpx2
import openai
import pytest
from pydantic import BaseModel

from tests.integration.openai_face.conftest import BOUNDED_KEY, KEY, PATHS, tls
from tests.support.router import Router

DIALECTS = sorted(PATHS)
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5E"
    "rkJggg=="
)
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}
CLOCK: Any = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
    },
}


class River(BaseModel):
    name: str
    length_km: int
    countries: list[str]


def user(text: str) -> Any:
    return {"role": "user", "content": text}


@pytest.mark.parametrize("model", DIALECTS)
async def test_a_completion(client: openai.AsyncOpenAI, model: str) -> None:
    answer = await client.chat.completions.create(
        model=model,
        messages=[{"role": "developer", "content": "Be brief."}, user("Name three rivers.")],
        temperature=0,
        max_completion_tokens=50,
        stop=["never said"],
        user="u-1",
        metadata={"team": "search"},
    )
    (choice,) = answer.choices
    assert answer.object == "chat.completion"
    assert answer.model.startswith("sim-large")
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    assert "Name three rivers." in (choice.message.content or "")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens
    )
    assert answer.model_extra is not None
    assert answer.model_extra["trunkline"]["deployment"] == f"{model}-large"
    assert answer.model_extra["trunkline"]["cost_nanos"] == (
        answer.usage.prompt_tokens * 2000 + answer.usage.completion_tokens * 8000
    )
    assert answer._request_id == answer.id.removeprefix("chatcmpl-")


@pytest.mark.parametrize("model", DIALECTS)
async def test_a_stream_says_what_the_completion_says(
    client: openai.AsyncOpenAI, model: str
) -> None:
    asked: Any = {"model": model, "messages": [user("Name three rivers.")], "temperature": 0}
    whole = await client.chat.completions.create(**asked)
    stream = await client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    *pieces, last = chunks
    assert last.choices == []
    assert last.usage == whole.usage
    assert all(chunk.usage is None for chunk in pieces)
    assert pieces[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces)
    assert text == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in pieces]
    assert reasons == [None] * (len(pieces) - 1) + ["stop"]


async def test_a_stream_without_usage_has_no_chunk_for_it(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="openai", messages=[user("Hello")], stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices and "usage" not in chunk.model_fields_set for chunk in chunks)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("model", DIALECTS)
async def test_tools_are_called_and_their_results_read(
    client: openai.AsyncOpenAI, model: str, streamed: bool
) -> None:
    messages: Any = [user("Please call get_weather and get_time.")]
    asked: Any = {"model": model, "tools": [WEATHER, CLOCK], "parallel_tool_calls": True}
    if streamed:
        async with client.chat.completions.stream(**asked, messages=messages) as stream:
            answer: Any = await stream.get_final_completion()
    else:
        answer = await client.chat.completions.create(**asked, messages=messages)
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather", "get_time"]
    assert set(json.loads(calls[0].function.arguments)) == {"city", "days"}
    assert len({call.id for call in calls}) == 2

    # The answer's message goes back as the SDK dumps it.
    messages.append(choice.message.model_dump())
    for call, text in zip(calls, ("snow in May", "a quarter to nine"), strict=True):
        messages.append({"role": "tool", "tool_call_id": call.id, "content": text})
    final = await client.chat.completions.create(**asked, messages=messages)
    content = final.choices[0].message.content or ""
    assert final.choices[0].finish_reason == "stop"
    assert "a quarter to nine" in content or "snow in May" in content


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_time"}}]
)
async def test_a_tool_choice_is_kept(client: openai.AsyncOpenAI, choice: Any) -> None:
    answer = await client.chat.completions.create(
        model="openai", messages=[user("Hello")], tools=[CLOCK], tool_choice=choice
    )
    calls: Any = answer.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_time"]


@pytest.mark.parametrize("model", DIALECTS)
async def test_structured_outputs_are_parsed(client: openai.AsyncOpenAI, model: str) -> None:
    answer = await client.chat.completions.parse(
        model=model, messages=[user("The longest river of Europe?")], response_format=River
    )
    assert isinstance(answer.choices[0].message.parsed, River)


async def test_a_json_object_is_answered(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="openai",
        messages=[user("A river as JSON.")],
        response_format={"type": "json_object"},
    )
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


@pytest.mark.parametrize("model", DIALECTS)
async def test_an_image_is_seen(client: openai.AsyncOpenAI, model: str) -> None:
    image: Any = {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
    }
    text: Any = {"type": "text", "text": "What is this?"}
    bare = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": [text]}]
    )
    seen = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": [text, image]}]
    )
    assert bare.usage is not None
    assert seen.usage is not None
    # A picture costs tokens wherever it is seen.
    assert seen.usage.prompt_tokens > bare.usage.prompt_tokens


async def test_reasoning_is_counted(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="openai", messages=[user("Think.")], reasoning_effort="high"
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert (answer.usage.completion_tokens_details.reasoning_tokens or 0) > 0


async def test_the_contract_is_at_hand_by_an_extra_field(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="openai",
        messages=[user("Hello")],
        extra_body={"trunkline": {"request_id": "mine-1", "routing": {"no_fallback": True}}},
    )
    assert answer.id == "chatcmpl-mine-1"


@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_embeddings(client: openai.AsyncOpenAI, encoding: Any) -> None:
    # Without a word the SDK asks for base64 and decodes it itself.
    format_: Any = {} if encoding is None else {"encoding_format": encoding}
    answer = await client.embeddings.create(
        model="embed", input=["rain", "snow"], dimensions=3, **format_
    )
    assert [row.index for row in answer.data] == [0, 1]
    vector: Any = answer.data[0].embedding
    if encoding == "base64":
        assert len(base64.b64decode(vector)) == 3 * 4
    else:
        assert len(vector) == 3
        assert all(isinstance(value, float) for value in vector)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    single = await client.embeddings.create(
        model="embed", input="rain", dimensions=3, extra_body={"trunkline": {"request_id": "e1"}}
    )
    assert len(single.data) == 1
    assert single._request_id == "e1"


async def test_models_are_those_that_the_caller_may_use(
    client: openai.AsyncOpenAI, trunkline: Router
) -> None:
    assert [model.id async for model in client.models.list()] == [
        "anthropic",
        "embed",
        "gemini",
        "openai",
    ]
    one = await client.models.retrieve("anthropic")
    assert (one.id, one.owned_by) == ("anthropic", "sim-anthropic")
    with pytest.raises(openai.NotFoundError) as missing:
        await client.models.retrieve("no/such")
    assert missing.value.code == "model_not_found"
    bounded = client.with_options(api_key=BOUNDED_KEY)
    assert [model.id async for model in bounded.models.list()] == ["openai"]


async def test_the_blocking_client_works_too(trunkline: Router) -> None:
    def session() -> tuple[str, str, int]:
        with openai.OpenAI(
            base_url=trunkline.openai_url,
            api_key=KEY,
            http_client=httpx2.Client(verify=tls()),
        ) as client:
            whole = client.chat.completions.create(model="openai", messages=[user("Hello")])
            with client.chat.completions.create(
                model="openai", messages=[user("Hello")], stream=True
            ) as stream:
                text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            return whole.choices[0].message.content or "", text, len(client.models.list().data)

    whole, text, models = await asyncio.to_thread(session)
    assert whole == text
    assert models == 4


class TestErrors:
    """Failures are the SDK's own exceptions."""

    async def test_a_wrong_key(self, client: openai.AsyncOpenAI) -> None:
        stranger = client.with_options(api_key="tk_nobody")
        with pytest.raises(openai.AuthenticationError) as error:
            await stranger.chat.completions.create(model="openai", messages=[user("Hello")])
        assert error.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()
        with pytest.raises(openai.AuthenticationError):
            await stranger.embeddings.create(model="embed", input="rain")

    async def test_a_model_that_is_not_permitted(self, client: openai.AsyncOpenAI) -> None:
        bounded = client.with_options(api_key=BOUNDED_KEY)
        with pytest.raises(openai.PermissionDeniedError) as error:
            await bounded.chat.completions.create(model="gemini", messages=[user("Hello")])
        assert error.value.code == "insufficient_permissions"

    async def test_an_unknown_model(self, client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as error:
            await client.chat.completions.create(model="opena", messages=[user("Hello")])
        assert (error.value.code, error.value.param) == ("model_not_found", "model")

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"temperature": 3}, "temperature"),
            ({"max_completion_tokens": 0}, "max_completion_tokens"),
            ({"n": 2}, "n"),
            ({"logprobs": True}, "logprobs"),
            ({"extra_body": {"no_such_field": 1}}, "no_such_field"),
            ({"messages": [{"role": "narrator", "content": "x"}]}, "messages[0].role"),
            (
                {"messages": [user("x"), {"role": "user", "content": [{"type": "poem"}]}]},
                "messages[1].content[0].type",
            ),
            ({"tool_choice": "required"}, "tool_choice"),
            (
                {"tools": [{"type": "function", "function": {"name": "no good"}}]},
                "tools[0].function.name",
            ),
            (
                {"extra_body": {"trunkline": {"routing": {"stategy": 1}}}},
                "trunkline.routing.stategy",
            ),
        ],
    )
    async def test_a_wrong_field_is_named(
        self, client: openai.AsyncOpenAI, fields: Any, param: str
    ) -> None:
        asked = {"model": "openai", "messages": [user("Hello")], **fields}
        with pytest.raises(openai.BadRequestError) as error:
            await client.chat.completions.create(**asked)
        assert error.value.param is not None
        assert error.value.param.startswith(param)
        assert error.value.type == "invalid_request_error"

    @pytest.mark.parametrize(
        ("model", "kind", "code", "again"),
        [
            ("sim-openai/sim-error-429", openai.RateLimitError, "rate_limit_exceeded", "true"),
            ("sim-openai/sim-error-quota", openai.RateLimitError, "insufficient_quota", "false"),
            (
                "sim-openai/sim-error-context",
                openai.BadRequestError,
                "context_length_exceeded",
                "false",
            ),
            ("sim-openai/sim-error-filter", openai.BadRequestError, "content_filter", "false"),
            ("sim-openai/sim-error-503", openai.InternalServerError, "service_unavailable", "true"),
            ("sim-openai/sim-garbage", openai.InternalServerError, "bad_provider_response", "true"),
        ],
    )
    async def test_a_vendor_that_fails(
        self,
        client: openai.AsyncOpenAI,
        model: str,
        kind: type[openai.APIStatusError],
        code: str,
        again: str,
    ) -> None:
        with pytest.raises(kind) as error:
            await client.chat.completions.create(model=model, messages=[user("Hello")])
        assert error.value.code == code
        assert error.value.response.headers["x-should-retry"] == again

    async def test_a_stream_that_breaks_raises(self, client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model="sim-openai/sim-close-midstream", messages=[user("Hello")], stream=True
        )
        with pytest.raises(openai.APIError) as error:
            async for _ in stream:
                pass
        assert error.value.code == "stream_interrupted"
