"""Streams of Converse give what the whole answer gives, whatever the blocks and the cuts."""

import json
import random

import pytest

from tests.support.eventstream import event
from tests.support.splits import every_way
from tests.unit.providers.bedrock_events import (
    CODEC,
    USAGE,
    answer,
    as_data,
    events_of,
    random_blocks,
    streamed,
)
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.codec import StreamDecoder
from trunkline_server.upstream.eventstream import EventStreamParser


@pytest.mark.parametrize("seed", range(40))
def test_a_stream_says_what_the_whole_answer_says(seed: int) -> None:
    rng = random.Random(seed)
    whole = answer(random_blocks(rng), rng.choice(["end_turn", "tool_use", "max_tokens"]))
    expected = v1.GenerateResponse()
    CODEC.decode_generate(json.dumps(whole).encode(), expected)

    events = as_data(events_of(whole, rng))
    body = b"".join(event(name, data) for name, data in events)
    for way, pieces in every_way(body):
        parser = EventStreamParser()
        framed = [each for piece in pieces for each in parser.feed(piece)]
        message, end = streamed([*framed, *parser.finish()])
        assert _written(message) == _written(expected.message), way
        assert end.finish_reason == expected.finish_reason
        assert end.vendor_finish_reason == expected.vendor_finish_reason
        assert end.usage == expected.usage


def _written(message: v1.Message) -> v1.Message:
    """The message, its calls' arguments read: streams spell them as the model did."""
    copy = v1.Message()
    copy.CopyFrom(message)
    for part in copy.parts:
        if part.HasField("tool_call"):
            part.tool_call.arguments_json = json.dumps(json.loads(part.tool_call.arguments_json))
    return copy


def feed(*events: tuple[str, object]) -> StreamDecoder:
    decoder = CODEC.stream_decoder()
    for name, body in events:
        decoder.feed(name, json.dumps(body).encode())
    return decoder


TEXT = ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}})
STOP = ("messageStop", {"stopReason": "end_turn"})


def test_interleaved_calls_keep_their_arguments() -> None:
    decoder = CODEC.stream_decoder()
    deltas: list[v1.StreamDelta] = []
    for name, body in (
        ("contentBlockStart", {"contentBlockIndex": 1, "start": _call("a")}),
        ("contentBlockStart", {"contentBlockIndex": 2, "start": _call("b")}),
        ("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": "{}"}}}),
        ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": "[]"}}}),
    ):
        deltas += decoder.feed(name, json.dumps(body).encode())
    assert [
        (delta.part_index, delta.tool_call.id or delta.tool_call.arguments_json) for delta in deltas
    ] == [(0, "a"), (1, "b"), (1, "{}"), (0, "[]")]


def _call(name: str) -> dict[str, object]:
    return {"toolUse": {"toolUseId": name, "name": "f"}}


def test_no_end_without_its_mark() -> None:
    with pytest.raises(UpstreamError) as caught:
        feed(TEXT).finish()
    assert caught.value.reason == v1.ERROR_REASON_STREAM_INTERRUPTED


def test_an_answer_without_counts_leaves_them_to_the_router() -> None:
    end = feed(TEXT, STOP).finish()
    assert not end.HasField("usage")
    assert end.finish_reason == v1.FINISH_REASON_STOP


def test_blocks_that_never_stop_are_closed_at_the_end() -> None:
    decoder = feed(("contentBlockStart", {"contentBlockIndex": 0, "start": _call("a")}))
    deltas = decoder.feed(STOP[0], json.dumps(STOP[1]).encode())
    assert [delta.tool_call.arguments_json for delta in deltas] == ["{}"]


def test_a_guardrail_s_stop_and_what_it_found() -> None:
    trace = {
        "guardrail": {
            "inputAssessment": {
                "gr": {
                    "contentPolicy": {
                        "filters": [{"type": "HATE", "confidence": "HIGH", "action": "BLOCKED"}]
                    }
                }
            }
        }
    }
    end = feed(
        TEXT,
        ("messageStop", {"stopReason": "guardrail_intervened"}),
        ("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}, "trace": trace}),
    ).finish()
    assert end.finish_reason == v1.FINISH_REASON_CONTENT_FILTER
    assert list(end.filter_findings) == [
        v1.FilterFinding(
            subject=v1.FILTER_SUBJECT_PROMPT,
            category="HATE",
            severity="HIGH",
            detected=True,
            filtered=True,
        )
    ]


def test_events_of_unknown_names_and_kinds_are_passed_over() -> None:
    decoder = feed(
        ("somethingNew", {"x": 1}),
        ("contentBlockStart", {"contentBlockIndex": 7, "start": {"hologram": {}}}),
        ("contentBlockDelta", {"contentBlockIndex": 7, "delta": {"hologram": {}}}),
        ("contentBlockStop", {"contentBlockIndex": 7}),
        TEXT,
        STOP,
    )
    assert decoder.finish().finish_reason == v1.FINISH_REASON_STOP


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("contentBlockDelta", {}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": 7}}),
        ("contentBlockDelta", {"contentBlockIndex": "0", "delta": {"text": "x"}}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": "x"}}}),
        ("contentBlockDelta", {"contentBlockIndex": 9, "delta": {"toolUse": {"input": "x"}}}),
        ("contentBlockStart", {"contentBlockIndex": 0, "start": _call("a")}),
        ("messageStop", {"stopReason": 7}),
        ("metadata", {"usage": {"inputTokens": -1, "outputTokens": 1}}),
        ("metadata", {"usage": {"inputTokens": 1.5, "outputTokens": 1}}),
    ],
)
def test_events_that_make_no_sense(name: str, body: object) -> None:
    decoder = feed(TEXT)
    with pytest.raises(UpstreamError) as caught:
        decoder.feed(name, json.dumps(body).encode())
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
    assert caught.value.__cause__ is None
