"""Kept answers, and one form made from the other."""

import pytest

from tests.unit.cache.samples import answer, events
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.cache import answers, wire
from trunkline_server.cache.answers import Answer

PARTS = {
    "text": v1.Part(text="hello"),
    "empty text": v1.Part(text=""),
    "signed text": v1.Part(text="hello", signature=v1.Signature(dialect="gemini", value="s")),
    "reasoning": v1.Part(reasoning=v1.Reasoning(text="think")),
    "signed reasoning": v1.Part(
        reasoning=v1.Reasoning(text="think"), signature=v1.Signature(dialect="anthropic", value="s")
    ),
    "redacted": v1.Part(reasoning=v1.Reasoning(redacted_data="xyz")),
    "named reasoning": v1.Part(reasoning=v1.Reasoning(text="think", id="rs_1")),
    "tool call": v1.Part(tool_call=v1.ToolCall(id="c", name="f", arguments_json='{"a": 1}')),
    "bare tool call": v1.Part(tool_call=v1.ToolCall(id="c", name="f")),
    "image": v1.Part(image=v1.Image(data=b"png", media_type="image/png")),
    "audio": v1.Part(audio=v1.Audio(data=b"wav", media_type="audio/wav", transcript="t")),
}


def _whole(parts: list[v1.Part]) -> Answer:
    response = answer()
    response.message.CopyFrom(v1.Message(role=v1.ROLE_ASSISTANT, parts=parts))
    return answers.of_response(response)


def _events(kept: Answer) -> list[v1.StreamGenerateResponse]:
    assert kept.stream is not None
    return [
        v1.StreamGenerateResponse.FromString(raw)
        for raw in (
            wire.start_hit(kept.stream.start, "id"),
            *wire.split(kept.stream.deltas),
            wire.end_hit(kept.stream.end, 5, 1, v1.CACHE_HIT_KIND_SHARED),
        )
    ]


@pytest.mark.parametrize("name", [*PARTS, "all"])
def test_a_stream_made_from_a_body_joins_to_the_same_message(name: str) -> None:
    parts = list(PARTS.values()) if name == "all" else [PARTS[name]]
    kept = _whole(parts).streamed()
    assert kept is not None
    start, *deltas, end = _events(kept)
    assembler = MessageAssembler()
    for event in deltas:
        assert event.WhichOneof("event") == "delta"
        assert event.delta.WhichOneof("kind") is not None
        assembler.add(event.delta)
    assert list(assembler.message().parts) == parts
    expected = answer()
    assert (start.start.provider, start.start.deployment) == ("openai", "openai-gpt-5")
    assert start.start.decision == expected.decision
    assert end.end.usage == expected.usage
    assert end.end.finish_reason == expected.finish_reason
    assert end.end.model == expected.model


def test_sources_citations_and_findings_are_kept_in_either_form() -> None:
    response = answer()
    response.message.parts.add(
        vendor_item=v1.VendorItem(dialect="openai_responses", type="web_search_call", json="{}")
    )
    response.message.sources.add(uri="https://example.com/a", title="A")
    response.message.sources.add(id="file-1")
    response.message.citations.add(part_index=0, end=5, source_indexes=[1])
    response.filter_findings.add(category="hate", severity="safe")
    streamed = answers.of_response(response).streamed()
    assert streamed is not None
    assert streamed.stream is not None
    end = v1.StreamEnd.FromString(streamed.stream.end)
    assert list(end.filter_findings) == list(response.filter_findings)
    start = v1.StreamStart.FromString(streamed.stream.start)
    again = answers.of_stream(start, list(wire.split(streamed.stream.deltas)), end).whole()
    assert again is not None
    assert again.body is not None
    told = v1.GenerateResponse.FromString(again.body)
    assert told.message == response.message
    assert list(told.filter_findings) == list(response.filter_findings)


@pytest.mark.parametrize(
    "message",
    [
        v1.Message(role=v1.ROLE_ASSISTANT, name="bob", parts=[v1.Part(text="x")]),
        v1.Message(role=v1.ROLE_ASSISTANT, parts=[v1.Part(text="x", cache_breakpoint=True)]),
        v1.Message(role=v1.ROLE_ASSISTANT, parts=[v1.Part()]),
        v1.Message(),
    ],
)
def test_a_message_that_no_stream_gives_is_not_streamed(message: v1.Message) -> None:
    response = answer()
    response.message.CopyFrom(message)
    assert answers.of_response(response).streamed() is None


def test_a_body_made_from_a_stream_is_what_generate_would_say() -> None:
    start, *deltas, end = events("Hel", "lo", " you")
    extra = [
        v1.StreamDelta(part_index=1, tool_call=v1.ToolCallDelta(id="c1", name="f")),
        v1.StreamDelta(part_index=2, tool_call=v1.ToolCallDelta(id="c2", name="g")),
        v1.StreamDelta(part_index=1, tool_call=v1.ToolCallDelta(arguments_json="{}")),
        v1.StreamDelta(part_index=2, tool_call=v1.ToolCallDelta(arguments_json="[]")),
    ]
    raws = [event.SerializeToString() for event in deltas]
    raws += [v1.StreamGenerateResponse(delta=each).SerializeToString() for each in extra]
    whole = answers.of_stream(start.start, raws, end.end).whole()
    assert whole is not None
    assert whole.body is not None
    told = v1.GenerateResponse.FromString(
        wire.generate_hit(whole.body, "me", 9, v1.CACHE_HIT_KIND_MEMORY)
    )
    expected = answer("Hello you", call_id="me")
    expected.message.parts.add(tool_call=v1.ToolCall(id="c1", name="f", arguments_json="{}"))
    expected.message.parts.add(tool_call=v1.ToolCall(id="c2", name="g", arguments_json="[]"))
    # What the attempt cost that succeeded, and not the one that failed before it.
    expected.saved.CopyFrom(v1.Cost(total=130))
    expected.cost.CopyFrom(v1.Cost())
    del expected.attempts[:]
    expected.cache_status = v1.CACHE_STATUS_HIT
    expected.cache_hit_kind = v1.CACHE_HIT_KIND_MEMORY
    expected.timing.CopyFrom(v1.Timing(total_us=9))
    assert told == expected


@pytest.mark.parametrize(
    "delta",
    [
        v1.StreamDelta(part_index=0),
        v1.StreamDelta(part_index=1, signature=v1.Signature(dialect="d", value="v")),
    ],
    ids=["of an unknown kind", "that leaves a part without a kind"],
)
def test_a_stream_that_cannot_be_joined_exactly_gives_no_body(delta: v1.StreamDelta) -> None:
    start, text, end = events("x")
    raws = [each.SerializeToString() for each in (text, v1.StreamGenerateResponse(delta=delta))]
    kept = answers.of_stream(start.start, raws, end.end)
    assert kept.whole() is None
    assert kept.streamed() is kept


def test_what_was_saved_is_what_the_successful_attempt_cost() -> None:
    assert answers.of_response(answer()).facts.saved == 130
    response = answer()
    del response.attempts[:]
    assert answers.of_response(response).facts.saved == 150
    start, *_, end = events("x")
    assert answers.of_stream(start.start, [], end.end).facts.saved == 130
