"""Decoding of Gemini's whole answers, and the bugs that other gateways shipped with them."""

import json
from typing import Any

import pytest

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.gemini import GeminiCodec

CODEC = GeminiCodec()
COUNTS = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}


def reply(*parts: dict[str, Any], finish: Any = "STOP", **fields: Any) -> bytes:
    document = {
        "candidates": [
            {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish}
        ],
        "usageMetadata": COUNTS,
        "modelVersion": "gemini-x",
        "responseId": "r1",
        **fields,
    }
    return json.dumps(document).encode()


def decode(body: bytes) -> v1.GenerateResponse:
    response = v1.GenerateResponse()
    CODEC.decode_generate(body, response)
    return response


def failure(body: bytes) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        decode(body)
    assert caught.value.http_status == 200
    return caught.value


FINISHES = [
    ("STOP", v1.FINISH_REASON_STOP),
    ("MAX_TOKENS", v1.FINISH_REASON_LENGTH),
    ("CONTINUATION", v1.FINISH_REASON_LENGTH),
    *(
        (word, v1.FINISH_REASON_CONTENT_FILTER)
        for word in (
            "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR",
            "ESCALATION", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
        )
    ),
    *(
        (word, v1.FINISH_REASON_OTHER)
        for word in (
            "MALFORMED_FUNCTION_CALL", "LANGUAGE", "OTHER", "UNEXPECTED_TOOL_CALL", "NO_IMAGE",
            "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE", "A_WORD_FROM_TOMORROW",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("word", "reason"), FINISHES)
@pytest.mark.parametrize("calls", [False, True])
def test_finish_reasons(word: str, reason: v1.FinishReason.ValueType, calls: bool) -> None:
    part = {"functionCall": {"name": "f", "args": {}}} if calls else {"text": "a"}
    response = decode(reply(part, finish=word))
    if calls and word == "STOP":
        reason = v1.FINISH_REASON_TOOL_CALLS
    assert response.finish_reason == reason
    assert response.vendor_finish_reason == word


@pytest.mark.parametrize("word", [None, "FINISH_REASON_UNSPECIFIED", 0])
def test_no_finish_reason(word: Any) -> None:
    response = decode(reply({"text": "a"}, finish=word))
    assert response.finish_reason == v1.FINISH_REASON_UNSPECIFIED
    assert response.vendor_finish_reason == ""


def test_thoughts_count_as_output() -> None:
    counts = {
        "promptTokenCount": 10, "toolUsePromptTokenCount": 4, "candidatesTokenCount": 7,
        "thoughtsTokenCount": 20, "totalTokenCount": 41,
    }  # fmt: skip
    usage = decode(reply({"text": "a"}, usageMetadata=counts)).usage
    assert usage.input_tokens + usage.output_tokens == counts["totalTokenCount"]
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (14, 27, 20)
    assert usage.source == v1.USAGE_SOURCE_PROVIDER


@pytest.mark.parametrize("counts", [None, {}, {"trafficType": "ON_DEMAND"}])
def test_no_counts_are_no_report(counts: Any) -> None:
    assert not decode(reply({"text": "a"}, usageMetadata=counts)).HasField("usage")


def test_counts_without_the_prompts_do_not_pass_for_a_report() -> None:
    usage = decode(reply({"text": "a"}, usageMetadata={"candidatesTokenCount": 3})).usage
    assert usage.output_tokens == 3
    assert usage.source == v1.USAGE_SOURCE_UNSPECIFIED


def test_blocked_prompt() -> None:
    document = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "No."},
        "usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 5},
    }
    error = failure(json.dumps(document).encode())
    assert error.reason == v1.ERROR_REASON_CONTENT_FILTER
    assert "PROHIBITED_CONTENT" in error.message
    assert "No." in error.message


def test_error_in_the_answers_stead() -> None:
    body = json.dumps({"error": {"code": 503, "message": "Busy.", "status": "UNAVAILABLE"}})
    error = failure(body.encode())
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert error.message == "Busy."


SENSELESS = [
    b"", b"\xff", b"<html>", b"null", b"[]", b"{}", b'{"candidates":{}}', b'{"candidates":[]}',
    b'{"candidates":[null]}', b'{"promptFeedback":{}}', b'{"candidates":[{"content":"a"}]}',
    b'{"candidates":[{"content":{"parts":[7]}}]}', b'{"candidates":[{"content":{"parts":{}}}]}',
    b'{"candidates":[{"finishReason":[]}]}', b'{"candidates":[{"finishReason":true}]}',
    b'{"candidates":[{}],"usageMetadata":{"promptTokenCount":-1}}',
    b'{"candidates":[{}],"usageMetadata":{"promptTokenCount":9223372036854775807}}',
    b'{"candidates":[{}],"usageMetadata":{"promptTokenCount":1.5}}',
    b'{"candidates":[{}],"usageMetadata":{"promptTokenCount":true}}',
    b'{"candidates":[{}],"modelVersion":1}',
    reply({"text": 1}), reply({"functionCall": {"args": {"a": 1}}}),
    reply({"functionCall": {"name": "f", "args": []}}),
    reply({"text": "a", "thoughtSignature": {}}),
    reply({"inlineData": {"mimeType": "image/png", "data": "%"}}),
    reply({"inlineData": {"mimeType": "image/png", "data": "ä"}}),
]  # fmt: skip


@pytest.mark.parametrize("body", SENSELESS)
def test_senseless_answers(body: bytes) -> None:
    assert failure(body).reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


def test_deeply_nested_arguments_are_refused() -> None:
    """The JSON writer's limit is below the reader's."""
    nested = '{"a":' * 400 + "1" + "}" * 400
    body = reply({"functionCall": {"name": "f", "args": "X"}}).replace(b'"X"', nested.encode())
    assert failure(body).reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


def test_made_ids_differ_and_repeat() -> None:
    call = {"functionCall": {"name": "f", "args": {"a": 1}}}
    ids = _ids(reply(call, call))
    assert len(set(ids)) == 2
    assert _ids(reply(call, call)) == ids
    assert not set(_ids(reply(call, call, responseId="r2"))) & set(ids)
    unnamed = _ids(reply(call, responseId=None))
    assert unnamed == _ids(reply(call, responseId=None))
    other = {"functionCall": {"name": "f", "args": {"a": 2}}}
    assert unnamed != _ids(reply(other, responseId=None))


def _ids(body: bytes) -> list[str]:
    return [part.tool_call.id for part in decode(body).message.parts]


def test_arguments_keep_their_order() -> None:
    body = reply({"functionCall": {"name": "f", "args": {"z": 1, "a": {"y": [1.5], "b": "ä"}}}})
    (part,) = decode(body).message.parts
    assert part.tool_call.arguments_json == '{"z":1,"a":{"y":[1.5],"b":"ä"}}'


def test_signatures_survive_two_turns() -> None:
    """What the model signed comes back to it with the next turn, each on its own part."""
    parts: list[dict[str, Any]] = [
        {"text": "Thinking.", "thought": True, "thoughtSignature": "c2ln0A=="},
        {"text": "Looking.", "thoughtSignature": "c2ln0Q=="},
        {"functionCall": {"id": "k1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"id": "k2", "name": "f", "args": {"a": 2}}},
        {"inlineData": {"mimeType": "image/png", "data": "AQID"}, "thoughtSignature": "c2ln0g=="},
    ]
    answer = decode(reply(*parts)).message
    results = [
        v1.Part(tool_result=v1.ToolResult(tool_call_id=part.tool_call.id))
        for part in answer.parts
        if part.HasField("tool_call")
    ]
    request = v1.GenerateRequest(
        messages=[
            v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text="Hi")]),
            answer,
            v1.Message(role=v1.ROLE_TOOL, parts=results),
        ]
    )
    wire = CODEC.encode_generate(request, CodecTarget("gemini-x"), stream=False)
    assert json.loads(wire.body)["contents"][1] == {"role": "model", "parts": parts}
    assert all(part.signature.dialect == "gemini" for part in answer.parts if part.signature.value)


def test_embeddings_that_make_no_sense() -> None:
    for body in (b"{}", b"[]", b'{"embeddings":[1]}', b'{"embeddings":[{"values":["a"]}]}'):
        with pytest.raises(UpstreamError) as caught:
            CODEC.decode_embed(body, v1.EmbedResponse())
        assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
    with pytest.raises(UpstreamError) as caught:
        CODEC.decode_embed(b'{"error":{"status":"UNAVAILABLE"}}', v1.EmbedResponse())
    assert caught.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE


def test_one_embedding_of_embed_content() -> None:
    response = v1.EmbedResponse()
    CODEC.decode_embed(b'{"embedding":{"values":[0.5,1]}}', response)
    assert [list(embedding.values) for embedding in response.embeddings] == [[0.5, 1.0]]
    assert not response.HasField("usage")
