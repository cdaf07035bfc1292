"""InvokeModel in the models' own bodies: what is sent, what is refused, and streams that break.

That recorded answers are read without loss is tested with the corpus. The bodies follow the model
parameters of the Bedrock user guide, as the recorded requests do.
"""

import base64
import json
from typing import Any

import pytest
from google.protobuf import json_format

from tests.golden.bedrock.botocore_oracle import check_call, packaged_model
from trunkline import v1
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.providers.bedrock_invoke import BedrockInvokeCodec
from trunkline_server.providers.codec import CodecTarget, StreamDecoder

CODEC = BedrockInvokeCodec()
HI = {"messages": [{"role": "ROLE_USER", "parts": [{"text": "hi"}]}]}
CONFIG = {"maxOutputTokens": 10, "temperature": 0, "topP": 0.5}


def encode(
    body: str, request: dict[str, Any], *, stream: bool = False, **flags: str | int | bool
) -> Any:
    asked = json_format.ParseDict({**HI, **request}, v1.GenerateRequest())
    target = CodecTarget("m.v1:0", None, {"body": body, **flags})
    return CODEC.encode_generate(asked, target, stream=stream)


@pytest.mark.parametrize(
    ("form", "config", "body"),
    [
        (
            "titan",
            {**CONFIG, "stop": ["|"]},
            {
                "inputText": "hi",
                "textGenerationConfig": {
                    "maxTokenCount": 10,
                    "temperature": 0,
                    "topP": 0.5,
                    "stopSequences": ["|"],
                },
            },
        ),
        ("titan", {}, {"inputText": "hi"}),
        ("llama", CONFIG, {"prompt": "hi", "max_gen_len": 10, "temperature": 0, "top_p": 0.5}),
        (
            "mistral",
            {**CONFIG, "topK": 5, "stop": ["|"]},
            {
                "prompt": "hi",
                "max_tokens": 10,
                "temperature": 0,
                "top_p": 0.5,
                "top_k": 5,
                "stop": ["|"],
            },
        ),
        (
            "cohere",
            {**CONFIG, "topK": 5},
            {"prompt": "hi", "max_tokens": 10, "temperature": 0, "p": 0.5, "k": 5},
        ),
        ("cohere_chat", {"topP": 0.5}, {"message": "hi", "p": 0.5}),
        ("ai21", CONFIG, {"prompt": "hi", "maxTokens": 10, "temperature": 0, "topP": 0.5}),
        (
            "claude_text",
            {},
            {"prompt": "\n\nHuman: hi\n\nAssistant:", "max_tokens_to_sample": 2048},
        ),
        (
            "claude",
            {"maxOutputTokens": 10},
            {
                "anthropic_version": "bedrock-2023-05-31",
                "max_tokens": 10,
                "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            },
        ),
        (
            "nova",
            {**CONFIG, "topK": 5},
            {
                "schemaVersion": "messages-v1",
                "messages": [{"role": "user", "content": [{"text": "hi"}]}],
                "inferenceConfig": {"maxTokens": 10, "temperature": 0, "topP": 0.5, "topK": 5},
            },
        ),
    ],
)
def test_bodies(form: str, config: dict[str, Any], body: dict[str, Any]) -> None:
    call = encode(form, {"config": config} if config else {}, family=form)
    assert json.loads(call.body) == body
    assert call.path == "/model/m.v1%3A0/invoke"
    check_call(call, packaged_model())


def test_chat_completions() -> None:
    body = json.loads(encode("openai", {"config": {"maxOutputTokens": 10}}).body)
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert body["max_completion_tokens"] == 10
    assert "stream" not in body


def test_streams_and_guardrails_are_asked_for_outside_the_body() -> None:
    call = encode("claude", {}, stream=True, guardrail_id="gr1", guardrail_version="2")
    assert call.path == "/model/m.v1%3A0/invoke-with-response-stream"
    assert "stream" not in json.loads(call.body)
    assert dict(call.headers) == {
        "x-amzn-bedrock-guardrailidentifier": "gr1",
        "x-amzn-bedrock-guardrailversion": "2",
        "x-amzn-bedrock-trace": "ENABLED",
    }


@pytest.mark.parametrize(
    ("form", "request_", "field"),
    [
        ("", {}, "model"),
        ("llama", {"messages": [*HI["messages"], *HI["messages"]]}, "messages"),
        ("llama", {"messages": [{"role": "ROLE_SYSTEM", "parts": [{"text": "s"}]}]}, "messages"),
        (
            "llama",
            {"messages": [{"role": "ROLE_USER", "parts": [{"image": {"data": "AQID"}}]}]},
            "messages[0].parts[0]",
        ),
        ("llama", {"tools": [{"name": "f"}]}, "tools"),
        ("llama", {"responseFormat": {"jsonObject": {}}}, "response_format"),
        ("llama", {"config": {"stop": ["x"]}}, "config.stop"),
        ("ai21", {"config": {"topK": 5}}, "config.top_k"),
        ("titan", {"config": {"seed": "0"}}, "config.seed"),
        ("titan", {"config": {"reasoning": {}}}, "config.reasoning"),
        ("titan", {"providerOptions": {"inputText": "x"}}, "provider_options.inputText"),
    ],
)
def test_what_is_refused_names_its_field(form: str, request_: dict[str, Any], field: str) -> None:
    with pytest.raises(TrunklineError) as caught:
        encode(form, request_)
    assert caught.value.metadata["field"] == field


def chunk(body: object) -> bytes:
    encoded = base64.b64encode(json.dumps(body).encode()).decode()
    return json.dumps({"bytes": encoded, "p": "abc"}).encode()


def fed(*bodies: object) -> StreamDecoder:
    decoder = CODEC.stream_decoder()
    for body in bodies:
        decoder.feed("chunk", chunk(body))
    return decoder


def test_a_guardrail_that_stepped_in() -> None:
    topic = {"name": "Finance", "type": "DENY", "action": "BLOCKED"}
    trace = {"guardrail": {"input": {"gr": {"topicPolicy": {"topics": [topic]}}}}}
    last = {
        "outputText": "Input blocked",
        "amazon-bedrock-guardrailAction": "INTERVENED",
        "amazon-bedrock-trace": trace,
    }
    end = fed(last).finish()
    response = v1.GenerateResponse()
    whole = {"results": [{"outputText": "Input blocked", "completionReason": "FINISH"}], **last}
    CODEC.decode_generate(json.dumps(whole).encode(), response)
    for answer in (end, response):
        assert answer.finish_reason == v1.FINISH_REASON_CONTENT_FILTER
        assert [found.category for found in answer.filter_findings] == ["Finance"]


@pytest.mark.parametrize(
    "bodies",
    [
        [],
        [{"generation": "a"}],
        [{"messageStart": {"role": "assistant"}}],
        [{"type": "message_start", "message": {"id": "a", "model": "m", "content": []}}],
        [{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}],
    ],
)
def test_no_end_without_its_mark(bodies: list[Any]) -> None:
    with pytest.raises(UpstreamError) as caught:
        fed(*bodies).finish()
    assert caught.value.reason == v1.ERROR_REASON_STREAM_INTERRUPTED


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b'{"bytes": "%"}', chunk([]), chunk({}), chunk({"generation": 7}), chunk("x")],
)
def test_chunks_that_make_no_sense(data: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.stream_decoder().feed("chunk", data)
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"results": []}', b'{"choices": [7]}'])
def test_answers_that_make_no_sense(body: bytes) -> None:
    response = v1.GenerateResponse()
    with pytest.raises(UpstreamError) as caught:
        CODEC.decode_generate(body, response)
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
    assert response == v1.GenerateResponse()


def test_exceptions_inside_a_stream() -> None:
    decoder = fed({"generation": "a", "stop_reason": None})
    with pytest.raises(UpstreamError) as caught:
        decoder.feed("exception:modelTimeoutException", b'{"message": "Late."}')
    assert (caught.value.reason, caught.value.message) == (v1.ERROR_REASON_TIMEOUT, "Late.")
