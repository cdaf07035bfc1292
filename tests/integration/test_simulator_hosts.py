"""The SDKs of Cohere, and of hosts that speak the OpenAI dialect, against the simulator: they
must be content with it, as those in test_simulator_sdks.py are."""

import base64
import inspect
from collections.abc import Iterator
from typing import Any

import cohere
import groq
import httpx
import httpx2
import pytest
from cohere.v2.client import V2Client
from groq import Groq
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from tests.integration.test_simulator_sdks import ADD_SCHEMA, PNG, TLS, Running
from trunkline_server.simulator import known_fields

TOOLS: Any = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}
    for name, schema in (("add", ADD_SCHEMA), ("now", {"type": "object"}))
]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with Running() as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[Any]:
    """Any, for its types leave open of every field whether it is there."""
    with httpx.Client(verify=TLS) as http:
        yield cohere.ClientV2(
            "any-key", base_url=f"{server.url}/cohere", httpx_client=http, max_retries=0
        )


def text_of(response: Any) -> str:
    return "".join(piece.text for piece in response.message.content if piece.type == "text")


def test_cohere_chat(client: Any) -> None:
    response = client.chat(
        model="sim-large",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello there."},
        ],
        max_tokens=500,
        temperature=0.3,
        stop_sequences=["END"],
    )
    assert "Simulated answer from sim-large" in text_of(response)
    assert response.finish_reason == "COMPLETE"
    assert response.usage.tokens.input_tokens > response.usage.billed_units.input_tokens > 0


def test_cohere_stream_says_what_the_whole_answer_says(client: Any) -> None:
    asked: Any = {
        "model": "sim-large",
        "messages": [{"role": "user", "content": "Tell me of emus."}],
        "documents": [{"id": "a", "data": {"title": "Emus", "text": "Emus run."}}, "Kiwis walk."],
        "thinking": {"type": "enabled", "token_budget": 200},
    }
    whole = client.chat(**asked)
    events = list(client.chat_stream(**asked))
    contents = [event.delta.message.content for event in events if event.type == "content-delta"]
    assert "".join(content.text or "" for content in contents) == text_of(whole)
    thought = [piece.thinking for piece in whole.message.content if piece.type == "thinking"]
    assert "".join(content.thinking or "" for content in contents) == "".join(thought)
    assert thought[0]
    cited = [event.delta.message.citations for event in events if event.type == "citation-start"]
    assert cited == whole.message.citations
    assert [source.id for citation in cited for source in citation.sources] == ["a", "doc:1"]
    for citation in cited:
        assert text_of(whole)[citation.start : citation.end] == citation.text
    assert events[-1].type == "message-end"
    assert events[-1].delta.finish_reason == "COMPLETE"
    assert events[-1].delta.usage.billed_units == whole.usage.billed_units


def test_cohere_tools_and_their_results(client: Any) -> None:
    messages: Any = [{"role": "user", "content": "call add and now"}]
    first = client.chat(model="sim-large", messages=messages, tools=TOOLS, strict_tools=True)
    assert first.finish_reason == "TOOL_CALL"
    assert first.message.tool_plan == "I will call add and now."
    calls = first.message.tool_calls
    assert [call.function.name for call in calls] == ["add", "now"]
    messages.append(
        {"role": "assistant", "tool_calls": calls, "tool_plan": first.message.tool_plan}
    )
    messages += [
        {"role": "tool", "tool_call_id": call.id, "content": [{"type": "text", "text": "five"}]}
        for call in calls
    ]
    second = client.chat(model="sim-large", messages=messages, tools=TOOLS)
    assert "Tool results: add: five; now: five." in text_of(second)
    with pytest.raises(cohere.BadRequestError, match="lack results"):
        client.chat(model="sim-large", messages=messages[:-1], tools=TOOLS)


def test_cohere_json_and_pictures(client: Any) -> None:
    wanted: Any = {"type": "json_object", "json_schema": ADD_SCHEMA}
    messages: Any = [{"role": "user", "content": "Give JSON."}]
    response = client.chat(model="sim-large", messages=messages, response_format=wanted)
    assert text_of(response).startswith('{"a":')
    picture = "data:image/png;base64," + base64.b64encode(PNG).decode()
    looked: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look."},
                {"type": "image_url", "image_url": {"url": picture}},
            ],
        }
    ]
    assert "Saw 1 image" in text_of(client.chat(model="sim-large", messages=looked))
    with pytest.raises(cohere.BadRequestError, match="not supported"):
        client.chat(model="sim-small", messages=looked)


def test_cohere_embeddings_and_orders(client: Any) -> None:
    vectors = client.embed(
        model="sim-embed",
        texts=["an emu", "a kiwi"],
        input_type="search_document",
        embedding_types=["float"],
        output_dimension=8,
    )
    assert vectors.embeddings.float_ is not None
    assert [len(vector) for vector in vectors.embeddings.float_] == [8, 8]
    order = client.rerank(
        model="sim-rerank", query="who runs", documents=["it walks", "who runs"], top_n=1
    )
    assert [(result.index, result.relevance_score) for result in order.results] == [(1, 1.0)]


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("sim-error-401", cohere.UnauthorizedError),
        ("sim-error-model", cohere.NotFoundError),
        ("sim-error-429", cohere.TooManyRequestsError),
        ("sim-error-filter", cohere.InvalidTokenError),
        ("sim-error-503", cohere.ServiceUnavailableError),
        ("sim-error-504", cohere.GatewayTimeoutError),
    ],
)
def test_cohere_errors(client: Any, model: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        client.chat(model=model, messages=[{"role": "user", "content": "Hi"}])


def test_known_fields_are_those_of_the_sdk() -> None:
    def fields(method: Any) -> set[str]:
        return set(inspect.signature(method).parameters) - {"self", "request_options"}

    assert fields(V2Client.chat) | {"stream"} == known_fields.COHERE_CHAT
    assert fields(V2Client.embed) == known_fields.COHERE_EMBED
    assert fields(V2Client.rerank) == known_fields.COHERE_RERANK


def test_groq(server: Running) -> None:
    """Its SDK adds `/openai/v1` itself."""
    with (
        httpx.Client(verify=TLS) as http,
        Groq(api_key="any-key", base_url=server.url, http_client=http, max_retries=0) as client,
    ):
        asked: Any = {"model": "sim-large", "messages": [{"role": "user", "content": "call add"}]}
        whole = client.chat.completions.create(**asked, tools=TOOLS)
        call = whole.choices[0].message.tool_calls
        assert call is not None
        assert call[0].function.name == "add"
        assert whole.usage is not None
        chunks = list(client.chat.completions.create(**asked, tools=TOOLS, stream=True))
        pieces = [piece for chunk in chunks for piece in chunk.choices[0].delta.tool_calls or ()]
        written = "".join(piece.function.arguments or "" for piece in pieces if piece.function)
        assert written == call[0].function.arguments
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        with pytest.raises(groq.RateLimitError):
            client.chat.completions.create(**{**asked, "model": "sim-error-429"})


def test_mistral(server: Running) -> None:
    with (
        httpx2.Client(verify=TLS) as http,
        Mistral(api_key="any-key", server_url=f"{server.url}/openai", client=http) as client,
    ):
        messages: Any = [{"role": "user", "content": "Hello there."}]
        whole = client.chat.complete(model="sim-large", messages=messages, max_tokens=500)
        assert whole.choices[0].message is not None
        text = whole.choices[0].message.content
        assert isinstance(text, str)
        assert "Simulated answer from sim-large" in text
        assert whole.usage.prompt_tokens
        with client.chat.stream(model="sim-large", messages=messages, max_tokens=500) as events:
            deltas = [event.data.choices[0].delta.content for event in events]
        assert "".join(delta for delta in deltas if isinstance(delta, str)) == text
        with pytest.raises(SDKError) as caught:
            client.chat.complete(model="sim-error-429", messages=messages)
        assert caught.value.status_code == 429
