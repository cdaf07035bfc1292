"""Whole answers of the OpenAI dialect: counts made inclusive, and bodies that make no sense."""

import json
import struct
from base64 import b64encode
from typing import Any

import pytest

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.openai_chat import OpenAIChatCodec

CODEC = OpenAIChatCodec()


def decode(body: Any) -> v1.GenerateResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = v1.GenerateResponse()
    CODEC.decode_generate(data, response)
    return response


def answer(message: Any, finish: Any = "stop", **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], **fields}


def usage(**counts: Any) -> dict[str, Any]:
    return answer({"content": "x"}, usage=counts)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param(
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 80, "audio_tokens": 10},
                "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 5},
            },
            {
                "input_tokens": 100,
                "output_tokens": 50,
                "cached_input_tokens": 80,
                "reasoning_tokens": 30,
                "input_audio_tokens": 10,
                "output_audio_tokens": 5,
            },
            id="inclusive",
        ),
        pytest.param(
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 45,
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            {"input_tokens": 10, "output_tokens": 35, "reasoning_tokens": 30},
            id="reasoning outside, counted",
        ),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 45},
            {"input_tokens": 10, "output_tokens": 35, "reasoning_tokens": 30},
            id="reasoning outside, not counted",
        ),
        pytest.param(
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "completion_tokens_details": {"reasoning_tokens": 7},
            },
            {"input_tokens": 10, "output_tokens": 5, "reasoning_tokens": 5},
            id="reasoning counted by another tokenizer",
        ),
        pytest.param(
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_tokens_details": {"cached_tokens": 90},
                "cache_creation_input_tokens": 20,
            },
            {
                "input_tokens": 120,
                "output_tokens": 5,
                "cached_input_tokens": 90,
                "cache_write_tokens": 20,
            },
            id="cache outside, by size",
        ),
        pytest.param(
            {
                "prompt_tokens": 100,
                "completion_tokens": 5,
                "total_tokens": 135,
                "prompt_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 20},
            },
            {
                "input_tokens": 130,
                "output_tokens": 5,
                "cached_input_tokens": 10,
                "cache_write_tokens": 20,
            },
            id="cache outside, by total",
        ),
        pytest.param(
            {"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 8},
            {"input_tokens": 9, "output_tokens": 2, "cached_input_tokens": 8},
            id="cache beside the totals",
        ),
        pytest.param(
            {
                "prompt_tokens": 9,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 0, "cache_creation_input_tokens": 7},
            },
            {"input_tokens": 9, "output_tokens": 2, "cache_write_tokens": 7},
            id="cache written, among the details",
        ),
        pytest.param(
            {"prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 8},
            {"input_tokens": 9, "output_tokens": 2, "cached_input_tokens": 8},
            id="cached tokens beside the totals",
        ),
        pytest.param(
            {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 3},
            {"input_tokens": 9, "output_tokens": 2},
            id="total that is too small",
        ),
        pytest.param(
            {"prompt_tokens": -1, "completion_tokens": "2", "total_tokens": True},
            {},
            id="no counts",
        ),
        pytest.param(
            {"prompt_tokens": 3.0, "completion_tokens": 1, "prompt_tokens_details": None},
            {"input_tokens": 3, "output_tokens": 1},
            id="whole floats",
        ),
    ],
)
def test_usage(counts: dict[str, Any], expected: dict[str, Any]) -> None:
    assert decode(usage(**counts)).usage == v1.Usage(source=v1.USAGE_SOURCE_PROVIDER, **expected)


def test_usage_that_is_missing_is_not_made_up() -> None:
    assert not decode(answer({"content": "x"})).HasField("usage")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", v1.FINISH_REASON_STOP),
        ("length", v1.FINISH_REASON_LENGTH),
        ("tool_calls", v1.FINISH_REASON_TOOL_CALLS),
        ("function_call", v1.FINISH_REASON_TOOL_CALLS),
        ("content_filter", v1.FINISH_REASON_CONTENT_FILTER),
        ("model_length", v1.FINISH_REASON_LENGTH),
        ("eos", v1.FINISH_REASON_STOP),
        ("anything else", v1.FINISH_REASON_OTHER),
        (None, v1.FINISH_REASON_UNSPECIFIED),
    ],
)
def test_finish_reasons(word: str | None, reason: v1.FinishReason.ValueType) -> None:
    response = decode(answer({"content": "x"}, word))
    assert response.finish_reason == reason
    assert response.vendor_finish_reason == (word or "")


def test_arguments_are_kept_exactly() -> None:
    text = '{ "b": 1.0, "a" : "\u00e9\\u00e9", "b": 2 } trailing'
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": text}}
    response = decode(answer({"tool_calls": [call]}, "tool_calls"))
    assert response.message.parts[0].tool_call.arguments_json == text


def test_arguments_sent_as_an_object_become_text() -> None:
    call = {"function": {"name": "f", "arguments": {"b": 1, "a": 2}}}
    response = decode({**answer({"tool_calls": [call, call]}, "tool_calls"), "id": "c-1"})
    calls = [part.tool_call for part in response.message.parts]
    assert [call.arguments_json for call in calls] == ['{"b":1,"a":2}'] * 2
    assert len({call.id for call in calls} - {""}) == 2


def test_content_and_refusal_together() -> None:
    response = decode(answer({"content": "Well.", "refusal": "No."}))
    assert [part.text for part in response.message.parts] == ["Well.", "No."]
    assert response.finish_reason == v1.FINISH_REASON_REFUSAL


def test_custom_tool_call() -> None:
    call = {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    part = decode(answer({"tool_calls": [call]})).message.parts[0]
    assert (part.tool_call.name, part.tool_call.arguments_json) == ("sql", "SELECT 1")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        {},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{"index": 0}]},
        answer("text"),
        answer({"audio": {"data": "***"}}),
        answer({"images": [{"image_url": {"url": "data:image/png;base64,***"}}]}),
    ],
)
def test_bodies_that_make_no_sense(body: Any) -> None:
    with pytest.raises(UpstreamError) as caught:
        decode(body)
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
    assert caught.value.http_status == 200


def test_error_of_status_200() -> None:
    with pytest.raises(UpstreamError) as caught:
        decode({"error": {"code": "content_filter", "message": "Filtered.", "status": 400}})
    assert caught.value.reason == v1.ERROR_REASON_CONTENT_FILTER


def test_answer_withheld_by_the_filter() -> None:
    response = decode({"choices": [{"index": 0, "finish_reason": "content_filter"}]})
    assert response.finish_reason == v1.FINISH_REASON_CONTENT_FILTER
    assert not response.message.parts
    assert response.message.role == v1.ROLE_ASSISTANT


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"index": 0, "embedding": []}],
        [{"index": 0, "embedding": ["1"]}],
        [{"index": 0, "embedding": [True]}],
        [{"index": 0, "embedding": "AAA="}],
        [{"index": 0, "embedding": "?"}],
        [{"index": 0}],
        [{"index": 1, "embedding": [1]}],
        [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}],
        ["x"],
    ],
)
def test_embeddings_that_make_no_sense(data: list[Any]) -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.decode_embed(json.dumps({"data": data}).encode(), v1.EmbedResponse())
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


@pytest.mark.parametrize("size", [1, 31, 32, 1_536, 5_000])
def test_packed_embeddings(size: int) -> None:
    """Whatever the length, which protobuf writes in one, two or three bytes."""
    floats = [number / 8 for number in range(size)]
    packed = b64encode(struct.pack(f"<{size}f", *floats)).decode()
    listed = {"data": [{"index": 1, "embedding": floats}, {"index": 0, "embedding": packed}]}
    into = v1.EmbedResponse()
    CODEC.decode_embed(json.dumps(listed).encode(), into)
    assert [list(embedding.values) for embedding in into.embeddings] == [floats, floats]
