"""Streamed answers of the Anthropic dialect, and the faults other gateways had with them."""

import json
import random
from typing import Any

import pytest

from tests.unit.providers.anthropic_events import (
    SKIPPED,
    Event,
    closing,
    data,
    decode,
    delta,
    opening,
    random_blocks,
    start,
    stop,
    streamed,
)
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.anthropic_messages import AnthropicMessagesCodec
from trunkline_server.providers.codec import CodecTarget

CODEC = AnthropicMessagesCodec()
TEXT = {"type": "text", "text": ""}
THINKING = {"type": "thinking", "thinking": "", "signature": ""}


def tool(call_id: str, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "f", "input": {}, **fields}


def fails(*events: Event) -> UpstreamError:
    """The error that feeding the events, and then finishing, raises."""
    with pytest.raises(UpstreamError) as caught:
        decode(events)
    return caught.value


@pytest.mark.parametrize("seed", range(200))
def test_a_stream_gives_the_message_that_generate_gives(seed: int) -> None:
    rng = random.Random(seed)
    blocks = random_blocks(rng)
    usage = {"input_tokens": 3, "cache_read_input_tokens": 5, "output_tokens": 20}
    answer = opening()["message"] | {"content": blocks, "stop_reason": "end_turn", "usage": usage}
    whole = v1.GenerateResponse()
    CODEC.decode_generate(json.dumps(answer).encode(), whole)

    first = opening(usage={**usage, "output_tokens": 1})
    message, end = decode([first, *streamed(blocks, rng), *closing()])

    assert message == whole.message
    assert end.usage == whole.usage
    assert (end.finish_reason, end.vendor_finish_reason, end.model) == (
        whole.finish_reason,
        whole.vendor_finish_reason,
        whole.model,
    )


def test_arguments_of_parallel_calls_find_their_call() -> None:
    message, end = decode(
        [
            opening(),
            start(0, SKIPPED),
            start(1, tool("a")),
            start(2, tool("b")),
            delta(2, "input_json_delta", partial_json='{"b":'),
            delta(1, "input_json_delta", partial_json='{"a":'),
            delta(0, "input_json_delta", partial_json='{"query":"x"}'),
            delta(1, "input_json_delta", partial_json="1}"),
            stop(1),
            delta(2, "input_json_delta", partial_json="2}"),
            stop(2),
            stop(0),
            *closing("tool_use"),
        ]
    )
    search = {**SKIPPED, "input": {"query": "x"}}
    assert json.loads(message.parts[0].vendor_item.json) == search
    calls = [part.tool_call for part in message.parts[1:]]
    assert [(call.id, call.arguments_json) for call in calls] == [
        ("a", '{"a":1}'),
        ("b", '{"b":2}'),
    ]
    assert end.finish_reason == v1.FINISH_REASON_TOOL_CALLS


def test_a_call_is_announced_once_and_before_its_arguments() -> None:
    decoder = CODEC.stream_decoder()
    decoder.feed("", data(opening()))
    (first,) = decoder.feed("", data(start(0, tool("a"))))
    assert first.tool_call == v1.ToolCallDelta(id="a", name="f")
    assert not decoder.feed("", data(delta(0, "input_json_delta", partial_json="")))
    (second,) = decoder.feed("", data(delta(0, "input_json_delta", partial_json="{}")))
    assert second.tool_call == v1.ToolCallDelta(arguments_json="{}")
    assert not decoder.feed("", data(stop(0)))


@pytest.mark.parametrize(
    "events",
    [
        [start(0, tool("a")), stop(0)],
        [start(0, tool("a"))],
        [start(0, tool("a")), delta(0, "input_json_delta", partial_json=""), stop(0)],
        [start(0, tool("a")), delta(0, "input_json_delta", partial_json="{}"), stop(0)],
    ],
    ids=["no delta", "no stop", "empty delta", "spelled out"],
)
def test_a_call_without_arguments_has_an_empty_object(events: list[Event]) -> None:
    message, _ = decode([opening(), *events, *closing("tool_use")])
    assert [part.tool_call.arguments_json for part in message.parts] == ["{}"]


def test_arguments_that_come_with_the_start_are_not_lost() -> None:
    message, _ = decode([opening(), start(0, tool("a", input={"x": 1})), stop(0), *closing()])
    assert message.parts[0].tool_call.arguments_json == '{"x":1}'


def test_a_turn_that_comes_whole_in_its_opening() -> None:
    blocks = [{"type": "text", "text": "t"}, SKIPPED, tool("a", input={"x": 1})]
    first = opening(content=blocks, stop_reason="tool_use")
    message, end = decode([first, start(3, TEXT), stop(3), {"type": "message_stop"}])
    kinds = ["text", "vendor_item", "tool_call", "text"]
    assert [part.WhichOneof("kind") for part in message.parts] == kinds
    assert message.parts[2].tool_call.arguments_json == '{"x":1}'
    assert end.finish_reason == v1.FINISH_REASON_TOOL_CALLS


def test_redacted_thinking_comes_in_one_piece() -> None:
    redacted = {"type": "redacted_thinking", "data": "b3BhcXVl"}
    decoder = CODEC.stream_decoder()
    decoder.feed("", data(opening()))
    (piece,) = decoder.feed("", data(start(0, redacted)))
    assert piece.WhichOneof("kind") == "part"
    assert piece.part.reasoning.redacted_data == "b3BhcXVl"
    assert not decoder.feed("", data(stop(0)))


def test_thinking_goes_back_in_the_next_request() -> None:
    message, _ = decode(
        [
            opening(),
            start(0, THINKING),
            delta(0, "thinking_delta", thinking="H"),
            delta(0, "thinking_delta", thinking="m."),
            delta(0, "signature_delta", signature="c2ln"),
            stop(0),
            start(1, {"type": "redacted_thinking", "data": "b3BhcXVl"}),
            stop(1),
            start(2, THINKING),
            delta(2, "signature_delta", signature="aGlkZGVu"),
            stop(2),
            start(3, tool("toolu_1")),
            stop(3),
            *closing("tool_use"),
        ]
    )
    result = v1.Part(tool_result=v1.ToolResult(tool_call_id="toolu_1"))
    request = v1.GenerateRequest(
        messages=[
            v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text="x")]),
            message,
            v1.Message(role=v1.ROLE_TOOL, parts=[result]),
        ]
    )
    body = json.loads(CODEC.encode_generate(request, CodecTarget("m"), stream=True).body)
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "b3BhcXVl"},
        {"type": "thinking", "thinking": "", "signature": "aGlkZGVu"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
    ]


def test_counts_are_cumulative_and_not_added_up() -> None:
    first = {
        "input_tokens": 100,
        "cache_read_input_tokens": 1000,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "output_tokens": 3,
    }
    last: dict[str, Any] = {
        "input_tokens": 150,
        "cache_read_input_tokens": None,
        "cache_creation_input_tokens": 30,
        "output_tokens_details": {"thinking_tokens": 40},
    }
    decoder = CODEC.stream_decoder()
    assert decoder.usage == v1.Usage()
    decoder.feed("", data(opening(usage=first)))
    assert (decoder.usage.input_tokens, decoder.usage.output_tokens) == (1130, 3)
    known = decoder.usage
    for event in closing(output_tokens=50, **last):
        decoder.feed("", data(event))
    assert known.output_tokens == 3
    assert decoder.finish().usage == v1.Usage(
        input_tokens=1180,
        output_tokens=50,
        cached_input_tokens=1000,
        cache_write_tokens=30,
        cache_write_1h_tokens=20,
        reasoning_tokens=40,
        source=v1.USAGE_SOURCE_PROVIDER,
    )


def test_counts_of_the_opening_alone_still_count() -> None:
    _, end = decode([opening(), {"type": "message_delta", "delta": {}}, {"type": "message_stop"}])
    assert (end.usage.input_tokens, end.usage.output_tokens) == (10, 1)
    assert end.finish_reason == v1.FINISH_REASON_UNSPECIFIED


def test_a_stop_reason_once_given_stands() -> None:
    last = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 30}}
    given, end_mark = closing("max_tokens")
    _, end = decode([opening(), given, last, end_mark])
    assert end.finish_reason == v1.FINISH_REASON_LENGTH
    assert end.usage.output_tokens == 30


def test_a_stream_without_counts_leaves_them_unset() -> None:
    _, end = decode([opening(usage=None), {"type": "message_stop"}])
    assert not end.HasField("usage")


WHOLE = [opening(), start(0, TEXT), delta(0, "text_delta", text="x"), stop(0), *closing()]


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_cut_stream_never_ends_well(length: int) -> None:
    error = fails(*WHOLE[:length])
    assert error.reason == v1.ERROR_REASON_STREAM_INTERRUPTED
    assert error.http_status == 200


def test_a_cut_stream_tells_what_was_used() -> None:
    decoder = CODEC.stream_decoder()
    for event in WHOLE[:3]:
        decoder.feed(event["type"], data(event))
    assert decoder.usage.input_tokens == 10
    assert (decoder.model, decoder.response_id) == ("claude-sonnet-4-5-20250929", "msg_1")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        # As documented; none was ever recorded inside a stream.
        ("overloaded_error", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        ("api_error", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        ("rate_limit_error", v1.ERROR_REASON_RATE_LIMIT),
        ("timeout_error", v1.ERROR_REASON_TIMEOUT),
        ("invalid_request_error", v1.ERROR_REASON_INVALID_REQUEST),
        ("authentication_error", v1.ERROR_REASON_AUTHENTICATION),
        ("something_new_error", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("length", [0, 1, 3, 5])
def test_an_error_inside_a_stream(kind: str, reason: v1.ErrorReason.ValueType, length: int) -> None:
    error = fails(
        *WHOLE[:length],
        {"type": "error", "error": {"type": kind, "message": "Overloaded"}, "request_id": "req_1"},
    )
    assert error.reason == reason
    assert (error.http_status, error.message) == (200, "Overloaded")
    assert error.provider_request_id == "req_1"


@pytest.mark.parametrize(
    "events",
    [
        [delta(0, "text_delta", text="x")],
        [start(0, TEXT), start(0, TEXT)],
        [start(0, TEXT), stop(0), delta(0, "text_delta", text="x")],
        [start(0, TEXT), delta(0, "input_json_delta", partial_json="{}")],
        [start(0, tool("a")), delta(0, "text_delta", text="x")],
        [start(0, TEXT), delta(0, "text_delta", text=1)],
        [start(0, TEXT), delta(0, "text_delta")],
        [start(0, tool("a", id=None))],
        [stop(0)],
        [start("0", TEXT)],  # type: ignore[arg-type]  # Wrong on purpose.
        [opening(id="msg_2")],
        [start(0, TEXT), opening()],
        [opening(content=[TEXT]), opening(content=[TEXT])],
        [{"type": "message_delta", "delta": {"stop_reason": 1}}],
        [{"type": "message_delta", "delta": {}, "usage": {"output_tokens": -1}}],
        [{"type": "message_delta", "delta": {}, "usage": {"output_tokens": 2.5}}],
        [{"type": "message_delta", "delta": {}, "usage": {"output_tokens": 2**63}}],
        [{"type": ["error"]}],
    ],
)
def test_events_that_make_no_sense(events: list[Event]) -> None:
    error = fails(opening(), *events, *closing())
    assert error.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
    assert error.http_status == 200


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"1", b"null", b'"x"', b"\xff", b"[DONE]"])
def test_data_that_makes_no_sense(text: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.stream_decoder().feed("ping", text)
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_what_is_not_known_is_kept_or_passed_over() -> None:
    message, end = decode(
        [
            {"type": "ping"},
            opening(),
            opening(),
            {"type": "hologram"},
            start(0, {"type": "compaction", "content": None}),
            delta(0, "compaction_delta", content="x"),
            stop(0),
            start(1, {"type": "text", "text": "a", "citations": []}),
            delta(1, "citations_delta", citation={"type": "char_location"}),
            delta(1, "hologram_delta", beam=1),
            delta(1, "text_delta", text="b"),
            stop(1),
            *closing("quantum"),
        ]
    )
    compaction, text = message.parts
    assert json.loads(compaction.vendor_item.json) == {"type": "compaction", "content": "x"}
    assert text.text == "ab"
    assert json.loads(text.signature.value) == {"citations": [{"type": "char_location"}]}
    assert end.finish_reason == v1.FINISH_REASON_OTHER
    assert end.vendor_finish_reason == "quantum"


def test_citations_are_of_the_whole_text_that_they_come_with() -> None:
    cited = {
        "type": "web_search_result_location",
        "url": "https://example.com",
        "title": "x",
        "cited_text": "so it is",
        "encrypted_index": "i",
    }
    page = {"type": "page_location", "document_index": 0, "document_title": "d", "cited_text": "p"}
    found = {"type": "web_search_result", "url": "https://example.com", "title": "x"}
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [found]}
    blocks = [
        result,
        {"type": "text", "text": "It is so.", "citations": [cited, page]},
        {"type": "text", "text": "And so.", "citations": [cited]},
    ]
    whole = v1.GenerateResponse()
    AnthropicMessagesCodec().decode_generate(data(opening(content=blocks)["message"]), whole)
    message, _ = decode(
        [
            opening(),
            start(0, result),
            stop(0),
            start(1, {"type": "text", "text": "", "citations": []}),
            delta(1, "citations_delta", citation=cited),
            delta(1, "text_delta", text="It is "),
            delta(1, "text_delta", text="so."),
            delta(1, "citations_delta", citation=page),
            stop(1),
            start(2, {"type": "text", "text": "", "citations": []}),
            delta(2, "text_delta", text="And so."),
            delta(2, "citations_delta", citation=cited),
            stop(2),
            *closing(),
        ]
    )
    assert message == whole.message
    assert [source.uri or source.id for source in message.sources] == [
        "https://example.com",
        "document:0",
    ]
    told = [
        (c.part_index, c.start, c.end, list(c.source_indexes), c.quote) for c in message.citations
    ]
    assert told == [
        (1, 0, 9, [0], "so it is"),
        (1, 0, 9, [1], "p"),
        (2, 0, 7, [0], "so it is"),
    ]


def test_an_event_is_known_by_its_name_when_its_data_has_no_type() -> None:
    decoder = CODEC.stream_decoder()
    for event in WHOLE:
        bare = {name: value for name, value in event.items() if name != "type"}
        decoder.feed(event["type"], data(bare))
    assert decoder.finish().finish_reason == v1.FINISH_REASON_STOP
