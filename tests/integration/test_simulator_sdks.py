"""The vendors' own SDKs against the simulated providers: they must be content with it."""

import asyncio
import base64
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import openai
import orjson
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import message_create_params as anthropic_params
from google import genai
from google.genai import errors as gemini_errors
from google.genai import types
from openai import AsyncOpenAI, OpenAI
from openai.types import embedding_create_params
from openai.types.chat import completion_create_params as openai_params
from pydantic import BaseModel
from replicate.client import Client as Replicate
from replicate.exceptions import ModelError, ReplicateError

from trunkline_server.simulator import known_fields
from trunkline_server.simulator.app import Simulator

# Reading the machine's certificates takes longer than any test here: read them once.
TLS = ssl.create_default_context()
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ADD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "minimum": 5}},
    "required": ["a", "b"],
}
LOOK_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]}},
    "required": ["city", "unit"],
}
OPENAI_TOOLS: Any = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}
    for name, schema in (("add", ADD_SCHEMA), ("look", LOOK_SCHEMA))
]
ANTHROPIC_TOOLS: Any = [
    {"name": name, "description": name, "input_schema": schema}
    for name, schema in (("add", ADD_SCHEMA), ("look", LOOK_SCHEMA))
]
GEMINI_TOOLS: Any = [
    types.Tool(
        function_declarations=[
            types.FunctionDeclaration(name="add", parameters_json_schema=ADD_SCHEMA),
            types.FunctionDeclaration(name="look", parameters_json_schema=LOOK_SCHEMA),
        ]
    )
]

MODELS = {"sim-large", "sim-small", "sim-embed", "sim-image", "sim-transcribe", "sim-speech"} | {
    "sim-rerank"
}


class Country(BaseModel):
    name: str
    code: str


class City(BaseModel):
    """A shape with nesting, a list and a boolean, for structured answers."""

    name: str
    people: int
    country: Country
    rivers: list[str]
    coastal: bool


class Running:
    """A simulator in a thread with a loop of its own, so that blocking SDKs can call it."""

    def __init__(self) -> None:
        self.url = ""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Running":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        async with Simulator() as simulator:
            self.url = simulator.url
            self._ready.set()
            await self._stop.wait()

    def calls(self) -> dict[str, Any]:
        with httpx2.Client(verify=TLS) as client:
            found: dict[str, Any] = client.get(f"{self.url}/sim/calls").json()
            return found


@pytest.fixture(scope="module")
def started() -> Iterator[Running]:
    with Running() as running:
        yield running


@pytest.fixture
def server(started: Running) -> Running:
    with httpx2.Client(verify=TLS) as client:
        assert client.post(f"{started.url}/sim/reset").status_code == 200
    return started


@dataclass
class Clients:
    """One vendor's SDK in both of its forms, retries off."""

    openai: OpenAI
    openai_async: AsyncOpenAI
    anthropic: Anthropic
    anthropic_async: AsyncAnthropic
    gemini: genai.Client


def _gemini(url: str, key: str, blocking: httpx2.Client, http: httpx2.AsyncClient) -> genai.Client:
    # Given clients of its own, the SDK does not build one on aiohttp, which would warn.
    options = types.HttpOptions(
        base_url=f"{url}/gemini",
        api_version="v1beta",
        httpx_client=blocking,
        httpx_async_client=http,
    )
    return genai.Client(api_key=key, http_options=options)


@pytest.fixture
async def clients(server: Running) -> AsyncIterator[Clients]:
    async with httpx2.AsyncClient(verify=TLS) as http:
        with httpx2.Client(verify=TLS) as blocking:
            a: Any = {"base_url": f"{server.url}/openai/v1", "api_key": "k", "max_retries": 0}
            b: Any = {**a, "base_url": f"{server.url}/anthropic"}
            yield Clients(
                OpenAI(http_client=blocking, **a),
                AsyncOpenAI(http_client=http, **a),
                Anthropic(http_client=blocking, **b),
                AsyncAnthropic(http_client=http, **b),
                _gemini(server.url, "k", blocking, http),
            )


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for another thread's doing, ten seconds at most."""
    for _ in range(1000):
        if await asyncio.to_thread(condition):
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"never came: {what}")


class TestOpenAI:
    async def test_unary(self, clients: Clients) -> None:
        answer = await clients.openai_async.chat.completions.create(
            model="sim-large", messages=user("hello there"), temperature=0
        )
        assert answer.model == "sim-large"
        assert answer.choices[0].finish_reason == "stop"
        text = answer.choices[0].message.content
        assert text is not None
        assert "simulated" in text.lower()
        assert "hello there" in text
        assert answer.usage is not None
        assert answer.usage.total_tokens == (
            answer.usage.prompt_tokens + answer.usage.completion_tokens
        )
        again = clients.openai.chat.completions.create(
            model="sim-large", messages=user("hello there"), temperature=0
        )
        assert again.choices[0].message.content == text
        assert again.usage == answer.usage

    async def test_stream_equals_unary(self, clients: Clients) -> None:
        api = clients.openai_async.chat.completions
        whole = await api.create(model="gpt-4o", messages=user("hello"), reasoning_effort="low")
        stream = await api.create(
            model="gpt-4o",
            messages=user("hello"),
            reasoning_effort="low",
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert {chunk.model for chunk in chunks} == {"sim-gpt-4o"} == {whole.model}
        assert chunks[-1].usage == whole.usage
        assert all(chunk.usage is None for chunk in chunks[:-1])
        deltas = [chunk.choices[0] for chunk in chunks[:-1]]
        text = "".join(choice.delta.content or "" for choice in deltas)
        assert text == whole.choices[0].message.content
        assert [choice.finish_reason for choice in deltas if choice.finish_reason] == ["stop"]
        reasoning = "".join(
            (choice.delta.model_extra or {}).get("reasoning_content", "") for choice in deltas
        )
        extra = whole.choices[0].message.model_extra
        assert extra is not None
        assert reasoning == extra["reasoning_content"] != ""
        assert whole.usage is not None
        assert whole.usage.completion_tokens_details is not None
        assert whole.usage.completion_tokens_details.reasoning_tokens

    def test_blocking_stream_without_usage(self, clients: Clients) -> None:
        stream = clients.openai.chat.completions.create(
            model="sim-large", messages=user("hello"), stream=True
        )
        chunks = list(stream)
        assert all(chunk.usage is None and chunk.choices for chunk in chunks)
        assert "hello" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_tool_conversation(self, clients: Clients, streamed: bool) -> None:
        api = clients.openai_async.chat.completions
        messages = user("please call add and look")
        if streamed:
            async with api.stream(
                model="sim-large", messages=messages, tools=OPENAI_TOOLS
            ) as stream:
                answer: Any = await stream.get_final_completion()
        else:
            answer = await api.create(model="sim-large", messages=messages, tools=OPENAI_TOOLS)
        assert answer.choices[0].finish_reason == "tool_calls"
        calls = answer.choices[0].message.tool_calls
        assert [call.function.name for call in calls] == ["add", "look"]
        assert len({call.id for call in calls}) == 2
        arguments = [orjson.loads(call.function.arguments) for call in calls]
        assert arguments[0].keys() == {"a", "b"}
        assert isinstance(arguments[0]["a"], int)
        assert arguments[0]["b"] >= 5
        assert arguments[1]["unit"] in {"C", "F"}
        sent = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in calls
        ]
        messages += [{"role": "assistant", "content": None, "tool_calls": sent}]
        messages += [
            {"role": "tool", "tool_call_id": calls[0].id, "content": "the sum is 42"},
            {"role": "tool", "tool_call_id": calls[1].id, "content": "sunny"},
        ]
        final = await api.create(model="sim-large", messages=messages, tools=OPENAI_TOOLS)
        assert final.choices[0].finish_reason == "stop"
        assert "add: the sum is 42" in (final.choices[0].message.content or "")
        assert "look: sunny" in (final.choices[0].message.content or "")

    async def test_vision(self, clients: Clients) -> None:
        url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
        content = [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}},
        ]
        message: Any = {"role": "user", "content": content}
        api = clients.openai_async.chat.completions
        answer = await api.create(model="sim-large", messages=[message])
        text = answer.choices[0].message.content or ""
        assert "Saw 2 image" in text
        assert f"image/png, {len(PNG)} bytes" in text
        with pytest.raises(openai.BadRequestError) as caught:
            await api.create(model="sim-small", messages=[message])
        assert caught.value.param == "messages[0].content[1].type"

    async def test_structured_output(self, clients: Clients) -> None:
        answer = await clients.openai_async.chat.completions.parse(
            model="sim-large", messages=user("a city"), response_format=City
        )
        city = answer.choices[0].message.parsed
        assert isinstance(city, City)
        assert city.rivers
        with pytest.raises(openai.LengthFinishReasonError):
            clients.openai.chat.completions.parse(
                model="sim-large",
                messages=user("a city"),
                response_format=City,
                max_completion_tokens=3,
            )

    def test_json_object(self, clients: Clients) -> None:
        def ask(text: str) -> Any:
            return clients.openai.chat.completions.create(
                model="sim-large",
                messages=user(text),
                response_format={"type": "json_object"},
            )

        assert isinstance(orjson.loads(ask("in json").choices[0].message.content), dict)
        with pytest.raises(openai.BadRequestError):
            ask("in xml")

    @pytest.mark.parametrize("dimensions", [None, 16])
    async def test_embeddings(self, clients: Clients, dimensions: int | None) -> None:
        more: Any = {} if dimensions is None else {"dimensions": dimensions}
        texts = ["the cat sat", "the cat sat down", "quantum chromodynamics"]
        # The SDK asks for base64 unless told otherwise: both must give the same numbers.
        coded = await clients.openai_async.embeddings.create(model="sim-embed", input=texts, **more)
        plain = clients.openai.embeddings.create(
            model="sim-embed", input=texts, encoding_format="float", **more
        )
        assert coded.usage == plain.usage
        for one, other in zip(coded.data, plain.data, strict=True):
            assert len(one.embedding) == (dimensions or 256)
            assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
            assert sum(x * x for x in one.embedding) == pytest.approx(1.0, abs=1e-5)
        a, b, c = (item.embedding for item in plain.data)
        assert _dot(a, b) > _dot(a, c)

    def test_models(self, clients: Clients) -> None:
        assert {model.id for model in clients.openai.models.list()} == MODELS
        assert clients.openai.models.retrieve("sim-large").owned_by == "trunkline-simulator"
        with pytest.raises(openai.NotFoundError):
            clients.openai.models.retrieve("sim-none")

    @pytest.mark.parametrize(
        ("model", "error", "code"),
        [
            ("sim-error-400", openai.BadRequestError, None),
            ("sim-error-401", openai.AuthenticationError, "invalid_api_key"),
            ("sim-error-403", openai.PermissionDeniedError, None),
            ("sim-error-model", openai.NotFoundError, "model_not_found"),
            ("sim-error-429", openai.RateLimitError, "rate_limit_exceeded"),
            ("sim-error-quota", openai.RateLimitError, "insufficient_quota"),
            ("sim-error-context", openai.BadRequestError, "context_length_exceeded"),
            ("sim-error-filter", openai.BadRequestError, "content_filter"),
            ("sim-error-500", openai.InternalServerError, None),
            ("sim-error-529", openai.InternalServerError, None),
            ("sim-html", openai.InternalServerError, None),
            ("sim-reset", openai.APIConnectionError, None),
        ],
    )
    async def test_errors(
        self, clients: Clients, model: str, error: type[openai.APIError], code: str | None
    ) -> None:
        with pytest.raises(error) as caught:
            await clients.openai_async.chat.completions.create(model=model, messages=user("x"))
        assert caught.value.code == code

    def test_retry_after(self, clients: Clients) -> None:
        with pytest.raises(openai.RateLimitError) as caught:
            clients.openai.chat.completions.create(
                model="sim-large",
                messages=user("x"),
                extra_headers={"x-sim-script": "status=429;retry_after=2.5"},
            )
        assert caught.value.response.headers["retry-after"] == "2.5"
        assert caught.value.request_id

    def test_error_inside_a_stream(self, clients: Clients) -> None:
        stream = clients.openai.chat.completions.create(
            model="sim-error-midstream?at_chunk=2", messages=user("x"), stream=True
        )
        seen: list[Any] = []
        with pytest.raises(openai.APIError, match="overloaded"):
            seen.extend(chunk for chunk in stream)

    def test_bad_key(self, clients: Clients) -> None:
        with pytest.raises(openai.AuthenticationError):
            clients.openai.with_options(api_key="invalid").models.list()

    def test_the_sdk_recovers_from_early_failures(self, server: Running, clients: Clients) -> None:
        answer = clients.openai.with_options(max_retries=2).chat.completions.create(
            model="sim-large?status=429;retry_after=0.01;fail_first=2", messages=user("x")
        )
        assert answer.model == "sim-large"
        assert server.calls()["calls"] == {"openai": {"sim-large": 3}}


class TestAnthropic:
    async def test_unary(self, clients: Clients) -> None:
        ask: Any = {"model": "sim-large", "max_tokens": 500, "messages": user("hello there")}
        answer = await clients.anthropic_async.messages.create(system="be brief", **ask)
        assert answer.model == "sim-large"
        assert answer.stop_reason == "end_turn"
        assert answer.content[0].type == "text"
        assert "hello there" in answer.content[0].text
        blocking = clients.anthropic.messages.create(system="be brief", **ask)
        assert blocking.content == answer.content
        assert blocking.usage == answer.usage

    async def test_stream_equals_unary(self, clients: Clients) -> None:
        ask: Any = {
            "model": "claude-x",
            "max_tokens": 5000,
            "messages": user("call look and add"),
            "tools": ANTHROPIC_TOOLS,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        }
        whole = clients.anthropic.messages.create(**ask)
        async with clients.anthropic_async.messages.stream(**ask) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_message()
        assert kinds[0] == "message_start"
        assert kinds[-1] == "message_stop"
        assert {"thinking", "signature", "input_json"} <= set(kinds)
        assert final.stop_reason == whole.stop_reason == "tool_use"
        assert final.usage == whole.usage
        assert final.model == "sim-claude-x"
        assert _without_ids(final) == _without_ids(whole)

    def test_raw_stream_has_every_event(self, clients: Clients) -> None:
        with clients.anthropic.messages.with_streaming_response.create(
            model="sim-large", max_tokens=50, messages=user("hi"), stream=True
        ) as response:
            events = [line[7:] for line in response.iter_lines() if line.startswith("event: ")]
        assert events[:3] == ["message_start", "ping", "content_block_start"]
        assert events[-3:] == ["content_block_stop", "message_delta", "message_stop"]
        assert set(events[3:-3]) == {"content_block_delta"}

    async def test_tool_and_thinking_round_trip(self, clients: Clients) -> None:
        create = clients.anthropic_async.messages.create
        messages = user("call add")
        ask: Any = {
            "model": "sim-large",
            "max_tokens": 5000,
            "tools": ANTHROPIC_TOOLS,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        }
        first = await create(messages=messages, **ask)
        assert [block.type for block in first.content] == ["thinking", "tool_use"]
        thought, call = first.content
        assert thought.type == "thinking"
        assert call.type == "tool_use"
        assert call.input["b"] >= 5
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "42"}
        turns = [*messages, first.to_param(), {"role": "user", "content": [result]}]
        final = await create(messages=turns, **ask)
        assert final.stop_reason == "end_turn"
        assert "add: 42" in _text(final)

        forged = {"type": "thinking", "thinking": thought.thinking + "!", "signature": "x"}
        forged["signature"] = thought.signature
        turns[1] = {"role": "assistant", "content": [forged, call]}
        with pytest.raises(anthropic.BadRequestError, match="Invalid `signature`"):
            await create(messages=turns, **ask)
        turns[1] = {"role": "assistant", "content": [call]}
        with pytest.raises(anthropic.BadRequestError, match="Expected `thinking`"):
            await create(messages=turns, **ask)

    async def test_redacted_thinking_round_trip(self, clients: Clients) -> None:
        create = clients.anthropic_async.messages.create
        ask: Any = {
            "model": "sim-large?redacted=1",
            "max_tokens": 5000,
            "thinking": {"type": "adaptive"},
        }
        first = await create(messages=user("hi"), **ask)
        assert first.content[0].type == "redacted_thinking"
        turns = [*user("hi"), first.to_param(), *user("and now?")]
        assert (await create(messages=turns, **ask)).stop_reason == "end_turn"
        turns[1] = {
            "role": "assistant",
            "content": [{"type": "redacted_thinking", "data": "forged"}],
        }
        with pytest.raises(anthropic.BadRequestError, match="redacted_thinking"):
            await create(messages=turns, **ask)

    def test_vision(self, clients: Clients) -> None:
        source = {
            "type": "base64",
            "media_type": "image/png",
            "data": base64.b64encode(PNG).decode(),
        }
        content = [{"type": "image", "source": source}, {"type": "text", "text": "what?"}]
        message: Any = {"role": "user", "content": content}
        answer = clients.anthropic.messages.create(
            model="sim-large", max_tokens=99, messages=[message]
        )
        assert f"Saw 1 image (image/png, {len(PNG)} bytes)" in _text(answer)

    async def test_structured_output(self, clients: Clients) -> None:
        answer = await clients.anthropic_async.messages.parse(
            model="sim-large", max_tokens=999, messages=user("a city"), output_format=City
        )
        assert isinstance(answer.parsed_output, City)

    def test_cache_marks(self, clients: Clients) -> None:
        mark = {"type": "ephemeral", "ttl": "1h"}
        system: Any = [{"type": "text", "text": "rule " * 2000, "cache_control": mark}]

        def ask(text: str) -> Any:
            return clients.anthropic.messages.create(
                model="sim-large", max_tokens=99, system=system, messages=user(text)
            ).usage

        first, second = ask("one"), ask("two")
        assert first.cache_creation_input_tokens == second.cache_read_input_tokens == 2500
        assert first.cache_creation.ephemeral_1h_input_tokens == 2500
        assert first.cache_read_input_tokens == second.cache_creation_input_tokens == 0
        assert first.input_tokens == second.input_tokens < 10

    def test_stop_and_length(self, clients: Clients) -> None:
        create = clients.anthropic.messages.create
        stopped = create(
            model="sim-large",
            max_tokens=99,
            messages=user("one END two"),
            stop_sequences=["END"],
        )
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "END")
        assert _text(stopped).endswith("one ")
        short = create(model="sim-large", max_tokens=3, messages=user("hello"))
        assert short.stop_reason == "max_tokens"
        assert short.usage.output_tokens == 3

    def test_models_and_token_count(self, clients: Clients) -> None:
        listed = {model.id: model for model in clients.anthropic.models.list()}
        assert listed["sim-large"].max_tokens == 16384
        counted = clients.anthropic.messages.count_tokens(model="sim-large", messages=user("hi"))
        answer = clients.anthropic.messages.create(
            model="sim-large", max_tokens=9, messages=user("hi")
        )
        assert counted.input_tokens == answer.usage.input_tokens

    @pytest.mark.parametrize(
        ("model", "error", "kind"),
        [
            ("sim-error-400", anthropic.BadRequestError, "invalid_request_error"),
            ("sim-error-401", anthropic.AuthenticationError, "authentication_error"),
            ("sim-error-403", anthropic.PermissionDeniedError, "permission_error"),
            ("sim-error-model", anthropic.NotFoundError, "not_found_error"),
            ("sim-error-429", anthropic.RateLimitError, "rate_limit_error"),
            ("sim-error-quota", anthropic.APIStatusError, "billing_error"),
            ("sim-error-context", anthropic.BadRequestError, "invalid_request_error"),
            ("sim-error-filter", anthropic.BadRequestError, "invalid_request_error"),
            ("sim-error-500", anthropic.InternalServerError, "api_error"),
            ("sim-error-529", anthropic.InternalServerError, "overloaded_error"),
            ("sim-error-overloaded", anthropic.InternalServerError, "overloaded_error"),
        ],
    )
    async def test_errors(
        self, clients: Clients, model: str, error: type[anthropic.APIStatusError], kind: str
    ) -> None:
        with pytest.raises(error) as caught:
            await clients.anthropic_async.messages.create(
                model=model, max_tokens=9, messages=user("x")
            )
        assert caught.value.type == kind
        assert caught.value.request_id

    def test_retry_after(self, clients: Clients) -> None:
        with pytest.raises(anthropic.RateLimitError) as caught:
            clients.anthropic.messages.create(
                model="sim-error-429?retry_after=7", max_tokens=9, messages=user("x")
            )
        assert caught.value.response.headers["retry-after"] == "7"

    def test_error_inside_a_stream(self, clients: Clients) -> None:
        stream = clients.anthropic.messages.create(
            model="sim-error-midstream", max_tokens=9, messages=user("x"), stream=True
        )
        with pytest.raises(anthropic.APIStatusError) as caught:
            list(stream)
        assert caught.value.type == "overloaded_error"


class TestGemini:
    async def test_unary(self, clients: Clients) -> None:
        config = types.GenerateContentConfig(system_instruction="be brief", temperature=0)
        ask: Any = {"model": "sim-large", "contents": "hello there", "config": config}
        answer = await clients.gemini.aio.models.generate_content(**ask)
        assert answer.model_version == "sim-large"
        assert "hello there" in (answer.text or "")
        assert answer.candidates
        assert answer.candidates[0].finish_reason == types.FinishReason.STOP
        blocking = clients.gemini.models.generate_content(**ask)
        assert blocking.text == answer.text
        assert blocking.usage_metadata == answer.usage_metadata

    async def test_stream_equals_unary(self, clients: Clients) -> None:
        config = types.GenerateContentConfig(
            thinking_config=types.ThinkingConfig(include_thoughts=True)
        )
        ask: Any = {"model": "sim-large", "contents": "hello there", "config": config}
        whole = clients.gemini.models.generate_content(**ask)
        chunks = [
            chunk async for chunk in await clients.gemini.aio.models.generate_content_stream(**ask)
        ]
        assert _thoughts(chunks) == _thoughts([whole]) != ("", "")
        assert chunks[-1].usage_metadata == whole.usage_metadata
        assert whole.usage_metadata is not None
        assert whole.usage_metadata.thoughts_token_count
        blocking = list(clients.gemini.models.generate_content_stream(**ask))
        assert _thoughts(blocking) == _thoughts(chunks)

    async def test_tool_conversation(self, clients: Clients) -> None:
        generate = clients.gemini.aio.models.generate_content
        config = types.GenerateContentConfig(
            tools=GEMINI_TOOLS,
            thinking_config=types.ThinkingConfig(include_thoughts=True),
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )
        contents: Any = [types.UserContent("call add and look")]
        first = await generate(model="sim-large", contents=contents, config=config)
        calls = first.function_calls or []
        assert [call.name for call in calls] == ["add", "look"]
        assert (calls[0].args or {})["b"] >= 5
        assert first.candidates
        said = first.candidates[0].content
        assert said is not None
        results = [
            types.Part.from_function_response(name=name, response={"result": value})
            for name, value in (("add", 42), ("look", "sunny"))
        ]
        contents += [said, types.Content(role="user", parts=results)]
        final = await generate(model="sim-large", contents=contents, config=config)
        assert 'add: {"result":42}' in (final.text or "")
        assert 'look: {"result":"sunny"}' in (final.text or "")

        signed = [part for part in said.parts or [] if part.thought_signature]
        assert len(signed) == 1
        signed[0].thought_signature = b"forged"
        with pytest.raises(gemini_errors.ClientError, match="Thought signature is not valid"):
            await generate(model="sim-large", contents=contents, config=config)
        contents[-1] = types.Content(role="user", parts=results[:1])
        signed[0].thought_signature = None
        with pytest.raises(gemini_errors.ClientError, match="function response parts is equal"):
            await generate(model="sim-large", contents=contents, config=config)

    def test_vision(self, clients: Clients) -> None:
        picture = types.Part.from_bytes(data=PNG, mime_type="image/png")
        answer = clients.gemini.models.generate_content(
            model="sim-large", contents=[picture, "what is this?"]
        )
        assert f"Saw 1 image (image/png, {len(PNG)} bytes)" in (answer.text or "")

    async def test_structured_output(self, clients: Clients) -> None:
        config = types.GenerateContentConfig(
            response_mime_type="application/json", response_schema=City
        )
        answer = await clients.gemini.aio.models.generate_content(
            model="sim-large", contents="a city", config=config
        )
        assert isinstance(answer.parsed, City)

    async def test_embeddings(self, clients: Clients) -> None:
        config = types.EmbedContentConfig(output_dimensionality=8, task_type="RETRIEVAL_QUERY")
        answer = await clients.gemini.aio.models.embed_content(
            model="sim-embed", contents=["a cat", "a dog"], config=config
        )
        found = [item.values or [] for item in answer.embeddings or []]
        assert [len(values) for values in found] == [8, 8]
        assert found[0] != found[1]

    def test_models_and_token_count(self, clients: Clients) -> None:
        names = {model.name for model in clients.gemini.models.list()}
        assert names == {f"models/{name}" for name in MODELS}
        assert clients.gemini.models.get(model="sim-large").input_token_limit == 128_000
        counted = clients.gemini.models.count_tokens(model="sim-large", contents="hello")
        answer = clients.gemini.models.generate_content(model="sim-large", contents="hello")
        assert answer.usage_metadata is not None
        assert counted.total_tokens == answer.usage_metadata.prompt_token_count

    @pytest.mark.parametrize(
        ("model", "error", "code", "status"),
        [
            ("sim-error-400", gemini_errors.ClientError, 400, "INVALID_ARGUMENT"),
            ("sim-error-401", gemini_errors.ClientError, 401, "UNAUTHENTICATED"),
            ("sim-error-403", gemini_errors.ClientError, 403, "PERMISSION_DENIED"),
            ("sim-error-model", gemini_errors.ClientError, 404, "NOT_FOUND"),
            ("sim-error-429", gemini_errors.ClientError, 429, "RESOURCE_EXHAUSTED"),
            ("sim-error-quota", gemini_errors.ClientError, 429, "RESOURCE_EXHAUSTED"),
            ("sim-error-context", gemini_errors.ClientError, 400, "INVALID_ARGUMENT"),
            ("sim-error-500", gemini_errors.ServerError, 500, "INTERNAL"),
            ("sim-error-overloaded", gemini_errors.ServerError, 503, "UNAVAILABLE"),
        ],
    )
    async def test_errors(
        self,
        clients: Clients,
        model: str,
        error: type[gemini_errors.APIError],
        code: int,
        status: str,
    ) -> None:
        with pytest.raises(error) as caught:
            await clients.gemini.aio.models.generate_content(model=model, contents="x")
        assert (caught.value.code, caught.value.status) == (code, status)

    def test_retry_after_stands_in_the_details(self, clients: Clients) -> None:
        options = types.HttpOptions(headers={"x-sim-script": "status=429;retry_after=2"})
        config = types.GenerateContentConfig(http_options=options)
        with pytest.raises(gemini_errors.ClientError) as caught:
            clients.gemini.models.generate_content(model="sim-large", contents="x", config=config)
        details = caught.value.details["error"]["details"]
        assert {
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": "2s",
        } in details

    async def test_blocked_prompt(self, clients: Clients) -> None:
        blocked = clients.gemini.models.generate_content(model="sim-error-filter", contents="x")
        assert blocked.prompt_feedback is not None
        assert blocked.prompt_feedback.block_reason == types.BlockedReason.SAFETY
        assert blocked.model_version == "sim-error-filter"
        stream = await clients.gemini.aio.models.generate_content_stream(
            model="sim-error-filter", contents="x"
        )
        assert [chunk.prompt_feedback async for chunk in stream] == [blocked.prompt_feedback]

    async def test_bad_key(self, server: Running) -> None:
        async with httpx2.AsyncClient(verify=TLS) as http:
            with httpx2.Client(verify=TLS) as blocking:
                client = _gemini(server.url, "invalid", blocking, http)
                with pytest.raises(gemini_errors.ClientError, match="API key not valid"):
                    await client.aio.models.generate_content(model="sim-large", contents="x")


class TestCancel:
    """A caller that goes away in the midst of an answer is noticed at once."""

    SLOW = "sim-large?chunk_ms=50;tokens=100000"

    async def test_openai(self, server: Running, clients: Clients) -> None:
        stream = await clients.openai_async.chat.completions.create(
            model=self.SLOW, messages=user("x"), stream=True
        )
        await anext(aiter(stream))
        assert server.calls()["active"] == 1
        await stream.response.aclose()
        await self._noticed(server, "openai")

    async def test_anthropic(self, server: Running, clients: Clients) -> None:
        async with clients.anthropic_async.messages.stream(
            model=self.SLOW, max_tokens=16000, messages=user("x")
        ) as stream:
            await anext(aiter(stream))
            assert server.calls()["active"] == 1
        await self._noticed(server, "anthropic")

    async def test_gemini(self, server: Running, clients: Clients) -> None:
        options = types.HttpOptions(headers={"x-sim-script": "chunk_ms=50;tokens=100000"})
        config = types.GenerateContentConfig(http_options=options)
        stream = await clients.gemini.aio.models.generate_content_stream(
            model="sim-large", contents="x", config=config
        )
        await anext(stream)
        assert server.calls()["active"] == 1
        rest = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        rest.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rest
        await self._noticed(server, "gemini")

    async def test_before_the_headers(self, server: Running, clients: Clients) -> None:
        call = asyncio.create_task(
            clients.openai_async.chat.completions.create(model="sim-hang", messages=user("x"))
        )
        await until(lambda: server.calls()["active"] == 1, "the call")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await self._noticed(server, "openai", "sim-hang")

    async def _noticed(self, server: Running, dialect: str, model: str = "sim-large") -> None:
        await until(lambda: server.calls()["active"] == 0, "the end of the call")
        assert server.calls()["cancelled_calls"] == {dialect: {model: 1}}


def test_known_fields_are_those_of_the_sdks() -> None:
    """Oracle: the parameter types that the vendors publish."""
    chat = set(openai_params.CompletionCreateParamsBase.__annotations__)
    assert chat | {"stream"} == known_fields.OPENAI_CHAT
    embeddings = embedding_create_params.EmbeddingCreateParams.__annotations__
    assert set(embeddings) == known_fields.OPENAI_EMBEDDINGS
    messages = set(anthropic_params.MessageCreateParamsBase.__annotations__)
    older = {"temperature", "top_k", "top_p"}
    assert messages | {"stream"} | older == known_fields.ANTHROPIC_MESSAGE
    parts = {field.alias or name for name, field in types.Part.model_fields.items()}
    assert parts == known_fields.GEMINI_PART
    config = {field.alias or name for name, field in types.GenerationConfig.model_fields.items()}
    assert config <= known_fields.GEMINI_CONFIG


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _text(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def _without_ids(message: Any) -> list[dict[str, Any]]:
    wanted = ("type", "thinking", "signature", "text", "name", "input")
    return [
        {name: value for name, value in block.model_dump().items() if name in wanted}
        for block in message.content
    ]


def _thoughts(chunks: list[types.GenerateContentResponse]) -> tuple[str, str]:
    """The thoughts and the text of an answer in pieces."""
    thoughts, text = "", ""
    for chunk in chunks:
        assert chunk.candidates
        content = chunk.candidates[0].content
        assert content is not None
        for part in content.parts or []:
            if part.thought:
                thoughts += part.text or ""
            else:
                text += part.text or ""
    return thoughts, text


@contextmanager
def replicate_at(running: Running, token: str = "r8_test") -> Iterator[Replicate]:
    """The SDK's client, which leaves its connections to whoever made it."""
    client = Replicate(api_token=token, base_url=f"{running.url}/replicate", verify=TLS)
    try:
        yield client
    finally:
        client._client.close()


class TestReplicate:
    """The vendor's SDK makes, follows, streams and cancels simulated predictions."""

    @pytest.fixture
    def client(self, started: Running) -> Iterator[Replicate]:
        with replicate_at(started) as client:
            yield client

    def test_run(self, client: Replicate) -> None:
        output = client.run("sim/sim-large", input={"prompt": "Say hi."})
        assert "Say hi." in "".join(output)

    def test_a_prediction_without_waiting(self, client: Replicate) -> None:
        made = client.models.predictions.create("sim/sim-large", input={"prompt": "hi"}, wait=False)
        assert made.status != "failed"
        made.wait()
        assert made.status == "succeeded"
        assert made.metrics is not None
        assert made.metrics["output_token_count"] > 0
        assert client.predictions.get(made.id).output == made.output

    def test_a_version(self, client: Replicate) -> None:
        made = client.predictions.create(version="a" * 64, input={"prompt": "hi"}, wait=True)
        assert (made.status, made.version) == ("succeeded", "a" * 64)

    def test_a_stream(self, client: Replicate) -> None:
        events = list(client.stream("sim/sim-large", input={"prompt": "Say hi."}))
        kinds = [event.event.value for event in events]
        assert kinds[-1] == "done"
        assert kinds.count("output") > 3
        assert "Say hi." in "".join(str(event) for event in events)

    def test_a_cancel(self, client: Replicate) -> None:
        made = client.models.predictions.create(
            "sim/sim-hang-midstream", input={"prompt": "hi"}, wait=False
        )
        made.cancel()
        assert client.predictions.get(made.id).status == "canceled"

    def test_failing_after_start(self, client: Replicate) -> None:
        with pytest.raises(ModelError, match="E1001"):
            client.run("sim/sim-error-midstream", input={"prompt": "hi"})

    @pytest.mark.parametrize(
        ("model", "token", "status"),
        [
            ("sim/sim-large", "invalid", 401),
            ("sim/sim-error-quota", "r8_test", 402),
            ("sim/sim-error-model", "r8_test", 404),
            ("sim/sim-error-context", "r8_test", 422),
        ],
    )
    def test_refusals(self, started: Running, model: str, token: str, status: int) -> None:
        with replicate_at(started, token) as client, pytest.raises(ReplicateError) as caught:
            client.run(model, input={"prompt": "hi"})
        assert caught.value.status == status
