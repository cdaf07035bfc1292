"""Text Generation Inference's own way with the OpenAI dialect.

The shapes are those of its sources (router/src/lib.rs, infer/mod.rs and server.rs of the released
3.x line): errors are `{"error", "error_type"}` with a status, and inside a stream
`{"error": {"message", "http_status_code"}}`. None was recorded.
"""

import json
from typing import Any

import pytest

from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.catalogue.extensions import provider_rows
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.openai_chat import OpenAIChatCodec

CODEC = OpenAIChatCodec()

TOO_LONG = "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens"


@pytest.mark.parametrize(
    ("status", "kind", "message", "reason"),
    [
        (422, "validation", "Input validation error: `temperature` must be > 0", "INVALID_REQUEST"),
        (422, "validation", f"Input validation error: {TOO_LONG}", "CONTEXT_LENGTH_EXCEEDED"),
        (
            422,
            "validation",
            "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
            "CONTEXT_LENGTH_EXCEEDED",
        ),
        (422, "template_error", "Template error: syntax error", "INVALID_REQUEST"),
        (424, "generation", "Request failed during generation: CUDA error", "SERVICE_UNAVAILABLE"),
        (429, "overloaded", "Model is overloaded", "RATE_LIMIT"),
        (500, "incomplete_generation", "Incomplete generation", "SERVICE_UNAVAILABLE"),
        (503, "healthcheck", "unhealthy", "SERVICE_UNAVAILABLE"),
    ],
)
def test_errors(status: int, kind: str, message: str, reason: str) -> None:
    body = json.dumps({"error": message, "error_type": kind}).encode()
    error = CODEC.decode_error(status, {}, body)
    assert v1.ErrorReason.Name(error.reason) == f"ERROR_REASON_{reason}"
    assert error.message == message


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (422, "INVALID_REQUEST"),
        (424, "SERVICE_UNAVAILABLE"),
        (429, "RATE_LIMIT"),
        (500, "SERVICE_UNAVAILABLE"),
    ],
)
def test_errors_inside_a_stream(status: int, reason: str) -> None:
    event = {"error": {"message": "no", "http_status_code": status}}
    with pytest.raises(UpstreamError) as caught:
        CODEC.stream_decoder().feed("", json.dumps(event).encode())
    assert v1.ErrorReason.Name(caught.value.reason) == f"ERROR_REASON_{reason}"


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    head = {"object": "chat.completion.chunk", "id": "", "created": 1, "model": "m"}
    return json.dumps({**head, "system_fingerprint": "3.0.0-sha", "choices": [choice]}).encode()


def test_a_stream_whose_tool_calls_are_no_list() -> None:
    """As the second version sends them."""
    decoder, assembler = CODEC.stream_decoder(), MessageAssembler()

    def piece(name: str | None, arguments: str) -> dict[str, Any]:
        function = {"name": name, "arguments": arguments}
        call = {"index": 0, "id": "", "type": "function", "function": function}
        return {"role": "assistant", "tool_calls": call}

    for data in (
        chunk(piece("add", "")),
        chunk(piece(None, '{"a":')),
        chunk(piece(None, "1}"), "eos_token"),
        b"[DONE]",
    ):
        for delta in decoder.feed("", data):
            assembler.add(delta)
    (part,) = assembler.message().parts
    assert (part.tool_call.name, part.tool_call.arguments_json) == ("add", '{"a":1}')
    assert decoder.finish().finish_reason == v1.FINISH_REASON_STOP


def test_a_whole_answer_whose_arguments_are_no_text() -> None:
    call = {"id": "0", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    body = {
        "object": "chat.completion",
        "id": "",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "tool_calls": [call]},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
    response = v1.GenerateResponse()
    CODEC.decode_generate(json.dumps(body).encode(), response)
    assert response.message.parts[0].tool_call.arguments_json == '{"a":1}'
    assert response.usage.input_tokens == 5


def test_what_it_is_sent() -> None:
    request = v1.GenerateRequest(
        messages=[v1.Message(role=v1.ROLE_USER, name="ann", parts=[v1.Part(text="hi")])],
        config=v1.GenerationConfig(max_output_tokens=7),
    )
    target = CodecTarget("tgi", flags=provider_rows()["tgi"].flags)
    body = json.loads(CODEC.encode_generate(request, target, stream=True).body)
    assert body == {
        "model": "tgi",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
