"""Whole answers of the Anthropic dialect that are odd or broken."""

import json
from typing import Any

import pytest

from tests.unit.providers.anthropic_events import opening
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.anthropic_messages import AnthropicMessagesCodec

CODEC = AnthropicMessagesCodec()


def answer(**fields: Any) -> bytes:
    message = opening()["message"] | {"stop_reason": "end_turn", **fields}
    return json.dumps({name: value for name, value in message.items() if value != "gone"}).encode()


def block(**fields: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": "kept"}, fields]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff",
        b"<html></html>",
        answer(content=None),
        answer(content="gone"),
        answer(content={"a": 1}),
        answer(content=["x"]),
        answer(content=[{}]),
        answer(model="gone"),
        answer(model=7),
        answer(stop_reason=7),
        answer(usage=[1]),
        answer(usage={"input_tokens": "7"}),
        answer(usage={"input_tokens": -7}),
        answer(usage={"output_tokens": 7.5}),
        answer(usage={"output_tokens": True}),
        answer(usage={"output_tokens": 2**63}),
        answer(usage={"input_tokens": 2**62, "cache_read_input_tokens": 2**62}),
        answer(content=block(type="text")),
        answer(content=block(type="text", text=None)),
        answer(content=block(type=["text"], text="x")),
        answer(content=block(type="thinking", thinking=1, signature="")),
        answer(content=block(type="thinking", thinking="x", signature=1)),
        answer(content=block(type="redacted_thinking")),
        answer(content=block(type="tool_use", id="a", name="f")),
        answer(content=block(type="tool_use", id=None, name="f", input={})),
    ],
)
def test_an_answer_that_makes_no_sense_leaves_nothing_behind(body: bytes) -> None:
    response = v1.GenerateResponse(id="kept")
    with pytest.raises(UpstreamError) as caught:
        CODEC.decode_generate(body, response)
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
    assert caught.value.http_status == 200
    assert caught.value.__cause__ is None
    assert response == v1.GenerateResponse(id="kept")


def test_deeply_nested_arguments_are_kept() -> None:
    nested = "[" * 300 + "]" * 300
    body = answer(content=[{"type": "tool_use", "id": "a", "name": "f", "input": {}}])
    response = v1.GenerateResponse()
    CODEC.decode_generate(
        body.replace(b'"input": {}', f'"input": {{"a":{nested}}}'.encode()), response
    )
    assert response.message.parts[0].tool_call.arguments_json == f'{{"a":{nested}}}'


@pytest.mark.parametrize(
    ("vendor", "reason"),
    [
        ("end_turn", v1.FINISH_REASON_STOP),
        ("stop_sequence", v1.FINISH_REASON_STOP),
        ("max_tokens", v1.FINISH_REASON_LENGTH),
        ("model_context_window_exceeded", v1.FINISH_REASON_LENGTH),
        ("tool_use", v1.FINISH_REASON_TOOL_CALLS),
        ("refusal", v1.FINISH_REASON_REFUSAL),
        ("pause_turn", v1.FINISH_REASON_OTHER),
        ("quantum", v1.FINISH_REASON_OTHER),
        (None, v1.FINISH_REASON_UNSPECIFIED),
    ],
)
def test_finish_reasons(vendor: str | None, reason: v1.FinishReason.ValueType) -> None:
    response = v1.GenerateResponse()
    CODEC.decode_generate(answer(stop_reason=vendor), response)
    assert response.finish_reason == reason
    assert response.vendor_finish_reason == (vendor or "")
