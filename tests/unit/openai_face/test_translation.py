"""OpenAI's JSON to the contract and back: field by field, and in its SDK's own types."""

import base64
import json
from typing import Any, get_type_hints

import openai
import pytest
from openai._models import construct_type_unchecked
from openai.types.chat import ChatCompletion, ChatCompletionChunk, completion_create_params

from tests.unit.openai_face.samples import SAMPLES
from trunkline import v1
from trunkline_server.errors import CODES, TrunklineError, to_status
from trunkline_server.openai_face.chat_answer import completion
from trunkline_server.openai_face.chat_request import _HANDED_ON, read_chat
from trunkline_server.openai_face.chat_stream import ChunkWriter
from trunkline_server.openai_face.failures import failure, openai_path
from trunkline_server.openai_face.reading import Fields

HELLO = [{"role": "user", "content": "Hello"}]


def generate(**fields: Any) -> v1.GenerateRequest:
    return read_chat(Fields({"model": "m", "messages": HELLO, **fields})).generate


@pytest.mark.parametrize(("given", "wanted"), SAMPLES, ids=lambda value: str(value)[:30])
def test_a_field_of_openai_is_one_of_the_contract(given: Any, wanted: v1.GenerateRequest) -> None:
    asked = generate(**given)
    if "messages" not in given:
        wanted = v1.GenerateRequest.FromString(wanted.SerializeToString())
        wanted.messages.add(role=v1.ROLE_USER).parts.add(text="Hello")
    wanted.model = "m"
    assert asked == wanted


def test_every_parameter_of_the_sdk_is_judged() -> None:
    """Each is translated, handed on, or refused by its name: none is dropped."""
    params = set(get_type_hints(completion_create_params.CompletionCreateParamsNonStreaming))
    params |= set(get_type_hints(completion_create_params.CompletionCreateParamsStreaming))
    assert len(params) > 30
    refused: dict[str, TrunklineError] = {}
    for name in params - {"model", "messages"}:
        try:
            # An object is nothing that JSON has: who reads it refuses it.
            generate(**{name: object()})
        except TrunklineError as refusal:
            refused[name] = refusal
        except (TypeError, ValueError):
            assert name in _HANDED_ON, name
    for name, error in refused.items():
        assert "is not known" not in error.message, name
        assert error.violations[0].field.startswith(name), (name, error.message)
    assert refused.keys() | _HANDED_ON | {"model", "messages"} >= params


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"content": "Hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": "a", "tool_calls": []}]},
            "messages[0].tool_calls",
        ),
        ({"messages": [{"role": "function", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages[0].content[0].image_url",
        ),
        ({"temperature": "0"}, "temperature"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"max_completion_tokens": 2**40}, "max_completion_tokens"),
        ({"stop": ["a", 7]}, "stop[1]"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools[0].type"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"functions": []}, "functions"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"trunkline": {"model": "x"}}, "trunkline.model"),
    ],
)
def test_what_is_wrong_is_named(fields: Any, field: str) -> None:
    with pytest.raises(TrunklineError) as error:
        generate(**fields)
    assert error.value.reason == v1.ERROR_REASON_INVALID_REQUEST
    assert error.value.violations[0].field == field


ANSWER = v1.GenerateResponse(
    id="c1",
    model="vendor-model",
    provider="p",
    deployment="d",
    finish_reason=v1.FINISH_REASON_TOOL_CALLS,
    usage=v1.Usage(input_tokens=10, output_tokens=5, cached_input_tokens=4, reasoning_tokens=2),
    cost=v1.Cost(total=70),
)
ANSWER.message.role = v1.ROLE_ASSISTANT
ANSWER.message.parts.add(reasoning=v1.Reasoning(text="hm"))
ANSWER.message.parts.add(text="ab")
ANSWER.message.parts.add(text="cdef")
ANSWER.message.parts.add(tool_call=v1.ToolCall(id="t1", name="look", arguments_json='{"a":1}'))
ANSWER.message.parts.add(image=v1.Image(data=b"\x00", media_type="image/png"))
ANSWER.message.sources.add(uri="https://example.com", title="E")
ANSWER.message.citations.add(part_index=2, start=1, end=3, source_indexes=[0])


def test_an_answer_in_the_sdks_types() -> None:
    made = completion(ANSWER, "asked", 1_790_000_000)
    read = construct_type_unchecked(value=json.loads(json.dumps(made)), type_=ChatCompletion)
    ChatCompletion.model_validate(made)
    (choice,) = read.choices
    assert (read.id, read.model, read.created) == ("chatcmpl-c1", "vendor-model", 1_790_000_000)
    assert choice.message.content == "abcdef"
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].function.arguments == '{"a":1}'  # type: ignore[union-attr] # There are no others.
    assert choice.message.annotations is not None
    cited = choice.message.annotations[0].url_citation
    # The part begins after the two characters of the one before.
    assert (cited.start_index, cited.end_index, cited.url) == (3, 5, "https://example.com")
    assert read.usage is not None
    assert read.usage.prompt_tokens_details is not None
    assert read.usage.prompt_tokens_details.cached_tokens == 4
    extra = choice.message.model_extra
    assert extra is not None
    assert extra["reasoning_content"] == "hm"
    url = extra["images"][0]["image_url"]["url"]
    assert base64.b64decode(url.removeprefix("data:image/png;base64,")) == b"\x00"


def test_a_refusal_is_one() -> None:
    answer = v1.GenerateResponse(finish_reason=v1.FINISH_REASON_REFUSAL)
    answer.message.parts.add(text="I would rather not.")
    message = completion(answer, "m", 0)["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "I would rather not.")


def test_pieces_of_parallel_calls_keep_their_index() -> None:
    writer = ChunkWriter("asked", 0, include_usage=False)
    events = [
        v1.StreamGenerateResponse(start=v1.StreamStart(id="c1", model="vendor-model")),
        piece(0, text="ab"),
        piece(1, tool_call=v1.ToolCallDelta(id="t1", name="look")),
        piece(2, tool_call=v1.ToolCallDelta(id="t2", name="hear", arguments_json="{")),
        piece(1, tool_call=v1.ToolCallDelta(arguments_json="{}")),
        piece(2, tool_call=v1.ToolCallDelta(arguments_json="}")),
        piece(0, source=v1.Source(uri="https://example.com")),
        piece(0, citation=v1.Citation(part_index=0, start=0, end=2, source_indexes=[0])),
        piece(3, signature=v1.Signature(dialect="x", value="y")),
        v1.StreamGenerateResponse(end=v1.StreamEnd(finish_reason=v1.FINISH_REASON_TOOL_CALLS)),
    ]
    made = [chunk for event in events for chunk in writer.chunks(event)]
    chunks = [ChatCompletionChunk.model_validate(chunk) for chunk in made]
    assert {chunk.id for chunk in chunks} == {"chatcmpl-c1"}
    calls = [
        (call.index, call.id, call.function.name, call.function.arguments)
        for chunk in chunks
        for call in chunk.choices[0].delta.tool_calls or ()
        if call.function is not None
    ]
    assert calls == [
        (0, "t1", "look", ""),
        (1, "t2", "hear", "{"),
        (0, None, None, "{}"),
        (1, None, None, "}"),
    ]
    assert "annotations" in made[-2]["choices"][0]["delta"]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def piece(index: int, **kind: Any) -> v1.StreamGenerateResponse:
    return v1.StreamGenerateResponse(delta=v1.StreamDelta(part_index=index, **kind))


@pytest.mark.parametrize("reason", CODES, ids=v1.ErrorReason.Name)
def test_every_reason_has_a_shape(reason: v1.ErrorReason.ValueType) -> None:
    told = failure(to_status(TrunklineError(reason, "told", retry_after=0.25)), "c1")
    error = told.body["error"]
    assert told.http_status in range(400, 600)
    assert error["message"] == "told"
    assert error["reason"] == v1.ErrorReason.Name(reason)
    assert isinstance(error["type"], str)
    assert told.headers["x-request-id"] == "c1"
    assert (told.headers["retry-after"], told.headers["retry-after-ms"]) == ("1", "250")


def test_statuses_become_the_sdks_exceptions() -> None:
    client = openai.OpenAI(api_key="k", base_url="http://127.0.0.1:9")
    kinds = {
        v1.ERROR_REASON_AUTHENTICATION: openai.AuthenticationError,
        v1.ERROR_REASON_AUTHORIZATION: openai.PermissionDeniedError,
        v1.ERROR_REASON_MODEL_NOT_FOUND: openai.NotFoundError,
        v1.ERROR_REASON_INVALID_REQUEST: openai.BadRequestError,
        v1.ERROR_REASON_RATE_LIMIT: openai.RateLimitError,
        v1.ERROR_REASON_QUOTA_EXCEEDED: openai.RateLimitError,
        v1.ERROR_REASON_ABORTED: openai.ConflictError,
        v1.ERROR_REASON_OVERLOADED: openai.InternalServerError,
        v1.ERROR_REASON_TIMEOUT: openai.InternalServerError,
    }
    import httpx2  # noqa: PLC0415 - the SDK's own

    for reason, kind in kinds.items():
        told = failure(to_status(TrunklineError(reason, "told")))
        response = httpx2.Response(
            told.http_status, request=httpx2.Request("POST", "http://a"), json=told.body
        )
        error = client._make_status_error("told", body=told.body, response=response)
        assert type(error) is kind
    client.close()


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        ("config.max_output_tokens", "max_completion_tokens"),
        ("config.temperature", "temperature"),
        ("config.reasoning.effort", "reasoning_effort"),
        ("messages[3].parts[1].image.uri", "messages[3].content[1].image.uri"),
        ("tools[0].parameters_json", "tools[0].function.parameters"),
        ("response_format.json_schema.schema_json", "response_format.json_schema.schema"),
        ("context.labels", "metadata"),
        ("routing.denied_providers[0]", "trunkline.routing.denied_providers[0]"),
        ("inputs[1]", "input[1]"),
        ("model", "model"),
    ],
)
def test_paths_are_openais(field: str, wanted: str) -> None:
    assert openai_path(field) == wanted
