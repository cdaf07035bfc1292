"""Decoding of Gemini's streams: parts over events, ends, and failures on the way."""

import json
from typing import Any

import pytest

from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.gemini import GeminiCodec

CODEC = GeminiCodec()
COUNTS = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}


def event(*parts: dict[str, Any], finish: str | None = None, **fields: Any) -> bytes:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}}
    if finish:
        candidate["finishReason"] = finish
    return json.dumps({"candidates": [candidate], "responseId": "r1", **fields}).encode()


LAST = event(finish="STOP", usageMetadata=COUNTS, modelVersion="gemini-x")


def text(value: str, signature: str = "", *, thought: bool = False) -> dict[str, Any]:
    part: dict[str, Any] = {"text": value}
    if signature:
        part["thoughtSignature"] = signature
    if thought:
        part["thought"] = True
    return part


def call(**fields: Any) -> dict[str, Any]:
    return {"functionCall": fields}


def run(*events: bytes) -> tuple[list[v1.Part], v1.StreamEnd]:
    decoder = CODEC.stream_decoder()
    assembler = MessageAssembler()
    for data in events:
        for delta in decoder.feed("", data):
            assembler.add(delta)
    return list(assembler.message().parts), decoder.finish()


def signed(part: v1.Part, value: str) -> v1.Part:
    part.signature.dialect = "gemini"
    part.signature.value = value
    return part


JOINED = [
    ([[text("a")], [text("b")]], [v1.Part(text="ab")]),
    ([[text("a", thought=True)], [text("b", thought=True)], [text("c")]],
     [v1.Part(reasoning=v1.Reasoning(text="ab")), v1.Part(text="c")]),
    # The signature may come first, last with nothing, or last with the end of the text.
    ([[text("a", "s1")], [text("b")]], [signed(v1.Part(text="ab"), "s1")]),
    ([[text("a")], [text("b")], [text("", "s1")]], [signed(v1.Part(text="ab"), "s1")]),
    ([[text("a")], [text("b", "s1")]], [signed(v1.Part(text="ab"), "s1")]),
    # A second signature begins a second part, with text or without.
    ([[text("a", "s1")], [text("b", "s2")], [text("c")]],
     [signed(v1.Part(text="a"), "s1"), signed(v1.Part(text="bc"), "s2")]),
    ([[text("a", "s1")], [text("", "s2")], [text("b")]],
     [signed(v1.Part(text="a"), "s1"), signed(v1.Part(reasoning=v1.Reasoning()), "s2"),
      v1.Part(text="b")]),
    # Parts of one event are parts of their own; the first may go on from the event before.
    ([[text("a")], [text("b"), text("c")], [text("d")]], [v1.Part(text="ab"), v1.Part(text="cd")]),
    # Empty texts say nothing and end nothing.
    ([[text("a")], [text("")], [{}], [text("b")]], [v1.Part(text="ab")]),
    # A call or what is not known ends the text.
    ([[text("a")], [call(name="f", id="k1")], [text("b")]],
     [v1.Part(text="a"),
      v1.Part(tool_call=v1.ToolCall(id="k1", name="f", arguments_json="{}")), v1.Part(text="b")]),
    ([[text("a")], [{"toolCall": {"id": "s"}}], [text("b")]],
     [v1.Part(text="a"),
      v1.Part(vendor_item=v1.VendorItem(
          dialect="gemini", type="toolCall", json='{"toolCall":{"id":"s"}}')),
      v1.Part(text="b")]),
    # A signature without a text before it has a hidden thought of its own.
    ([[call(name="f", id="k1")], [text("", "s1")]],
     [v1.Part(tool_call=v1.ToolCall(id="k1", name="f", arguments_json="{}")),
      signed(v1.Part(reasoning=v1.Reasoning()), "s1")]),
]  # fmt: skip


@pytest.mark.parametrize(("events", "expected"), JOINED)
def test_parts_over_events(events: list[list[dict[str, Any]]], expected: list[v1.Part]) -> None:
    parts, _ = run(*(event(*parts) for parts in events), LAST)
    assert parts == expected


def test_sources_are_told_with_the_end_and_cite_the_joined_text() -> None:
    grounding = {
        "webSearchQueries": ["q"],
        "groundingChunks": [{"web": {"uri": "https://example.com", "title": "x"}}],
        "groundingSupports": [
            # Bytes of the joined text; of another part, which the text tells; of no text at all.
            {
                "segment": {"startIndex": 3, "endIndex": 8, "text": "b cd "},
                "groundingChunkIndices": [0],
            },
            {
                "segment": {"partIndex": 3, "endIndex": 1, "text": "cd"},
                "groundingChunkIndices": [0, 7],
            },
            {"segment": {"startIndex": 90, "endIndex": 99}, "groundingChunkIndices": [0]},
        ],
    }
    ratings = [
        {"category": 7, "probability": 1},
        {"category": 10, "probability": 4, "blocked": True},
    ]
    events = [
        event(text("é")),
        event(
            text(" b "),
        ),
        event(text("cd ")),
    ]
    last = json.loads(LAST)
    last["candidates"][0].update(groundingMetadata=grounding, safetyRatings=ratings)
    decoder, assembler = CODEC.stream_decoder(), MessageAssembler()
    for data in (*events, json.dumps(last).encode()):
        for delta in decoder.feed("", data):
            assembler.add(delta)
    end, message = decoder.finish(), assembler.message()
    assert [source.uri for source in message.sources] == ["https://example.com"]
    words = [message.parts[0].text[c.start : c.end] for c in message.citations]
    assert words == ["b cd ", "cd", ""]
    assert [list(c.source_indexes) for c in message.citations] == [[0], [0], [0]]
    assert [(f.category, f.severity, f.filtered) for f in end.filter_findings] == [
        ("HARM_CATEGORY_HARASSMENT", "NEGLIGIBLE", False),
        ("HARM_CATEGORY_DANGEROUS_CONTENT", "HIGH", True),
    ]


def test_a_cut_stream_is_no_success() -> None:
    decoder = CODEC.stream_decoder()
    decoder.feed("", event(text("Hel"), usageMetadata=COUNTS, modelVersion="gemini-x"))
    with pytest.raises(UpstreamError) as caught:
        decoder.finish()
    assert caught.value.reason == v1.ERROR_REASON_STREAM_INTERRUPTED
    assert (decoder.model, decoder.response_id) == ("gemini-x", "r1")
    assert decoder.usage.input_tokens == 5


def test_an_empty_stream_is_no_success() -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.stream_decoder().finish()
    assert caught.value.reason == v1.ERROR_REASON_STREAM_INTERRUPTED


def test_the_end_outlives_events_after_it() -> None:
    """Some hosts send the counts in an event of their own, after the finish reason."""
    counts = json.dumps({"usageMetadata": COUNTS, "modelVersion": "gemini-x"}).encode()
    parts, end = run(event(text("a"), finish="MAX_TOKENS"), counts)
    assert parts == [v1.Part(text="a")]
    assert end.finish_reason == v1.FINISH_REASON_LENGTH
    assert end.vendor_finish_reason == "MAX_TOKENS"
    assert end.usage.output_tokens == 2
    assert end.model == "gemini-x"


def test_the_last_counts_count() -> None:
    """Counts grow with the stream; an event without any leaves the earlier ones standing."""
    first = event(text("a"), usageMetadata={"promptTokenCount": 5, "candidatesTokenCount": 1})
    _, end = run(first, LAST, event(usageMetadata={"trafficType": "ON_DEMAND"}))
    assert (end.usage.input_tokens, end.usage.output_tokens) == (5, 2)
    _, end = run(event(text("a"), finish="STOP"))
    assert not end.HasField("usage")


def test_names_outlast_events_that_leave_them_out() -> None:
    decoder = CODEC.stream_decoder()
    decoder.feed("", event(text("a"), responseId="r9", modelVersion="gemini-y"))
    decoder.feed("", b'{"candidates":[{"finishReason":"STOP"}]}')
    assert decoder.finish().model == decoder.model == "gemini-y"
    assert decoder.response_id == "r9"


def test_stop_with_calls_means_tool_calls() -> None:
    _, end = run(event(call(name="f")), LAST)
    assert end.finish_reason == v1.FINISH_REASON_TOOL_CALLS
    _, end = run(event(text("a")), LAST)
    assert end.finish_reason == v1.FINISH_REASON_STOP


def test_parallel_calls_of_one_name_keep_their_order_and_ids() -> None:
    parts, _ = run(
        event(call(name="f", args={"n": 0}), call(name="f", args={"n": 1})),
        event(call(name="f", args={"n": 2}, id="k9")),
        LAST,
    )
    assert [part.tool_call.arguments_json for part in parts] == ['{"n":0}', '{"n":1}', '{"n":2}']
    ids = [part.tool_call.id for part in parts]
    assert len(set(ids)) == 3
    assert ids[2] == "k9"


def test_error_inside_the_stream() -> None:
    decoder = CODEC.stream_decoder()
    decoder.feed("", event(text("a")))
    document = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Slow down."}}
    with pytest.raises(UpstreamError) as caught:
        decoder.feed("", json.dumps(document).encode())
    assert caught.value.reason == v1.ERROR_REASON_RATE_LIMIT
    assert caught.value.http_status == 200


def test_error_inside_the_stream_without_a_status_word() -> None:
    """The stream's own 200 says nothing, so the code in the body does."""
    with pytest.raises(UpstreamError) as caught:
        CODEC.stream_decoder().feed("", b'{"error":{"code":503,"message":"Busy."}}')
    assert caught.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE


def test_blocked_prompt_in_a_stream() -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.stream_decoder().feed("", b'{"promptFeedback":{"blockReason":"SAFETY"}}')
    assert caught.value.reason == v1.ERROR_REASON_CONTENT_FILTER
    assert caught.value.http_status == 200


@pytest.mark.parametrize("data", [b"", b"[DONE]", b"{", b"[]", b'{"candidates":1}'])
def test_senseless_events(data: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.stream_decoder().feed("", data)
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


def leaf(path: str, **value: Any) -> dict[str, Any]:
    return {"jsonPath": path, **value}


def pieces(*leaves: dict[str, Any], more: bool = True) -> dict[str, Any]:
    return call(partialArgs=list(leaves), willContinue=more)


def test_a_call_in_pieces() -> None:
    parts, end = run(
        event({**call(name="f", willContinue=True), "thoughtSignature": "s1"}),
        event(pieces(leaf("$.b", stringValue="Hel", willContinue=True))),
        event(pieces(leaf("$.b", stringValue="lo"), leaf("$.a[0].x", numberValue=1.5))),
        event(pieces(leaf("$.a[0].y", boolValue=False), leaf("$.a[1]", nullValue="NULL_VALUE"))),
        event(pieces(leaf("$['a b']['it\\'s']", stringValue=""))),
        event(call()),
        event(call(name="g")),
        LAST,
    )
    first, second = parts
    assert first.tool_call.name == "f"
    assert json.loads(first.tool_call.arguments_json) == {
        "b": "Hello", "a": [{"x": 1.5, "y": False}, None], "a b": {"it's": ""},
    }  # fmt: skip
    assert first.signature.value == "s1"
    assert (second.tool_call.name, second.tool_call.arguments_json) == ("g", "{}")
    assert end.finish_reason == v1.FINISH_REASON_TOOL_CALLS


@pytest.mark.parametrize(
    "following", [event(call(name="g", args={}), finish="STOP"), event(text(""), finish="STOP")]
)
def test_a_call_in_pieces_without_its_end_mark(following: bytes) -> None:
    parts, _ = run(
        event(call(name="f", willContinue=True)),
        event(pieces(leaf("$.a", numberValue=1))),
        following,
    )
    assert parts[0].tool_call.arguments_json == '{"a":1}'


def test_a_text_inside_a_call_in_pieces_takes_nothing_from_either() -> None:
    parts, _ = run(
        event(text("a")),
        event(call(name="f", willContinue=True)),
        event(text("b")),
        event(pieces(leaf("$.a", numberValue=1), more=False)),
        LAST,
    )
    assert [part.text for part in parts] == ["a", "b", ""]
    assert parts[2].tool_call.arguments_json == '{"a":1}'


def test_more_of_a_call_that_has_ended() -> None:
    decoder = CODEC.stream_decoder()
    decoder.feed("", event(call(name="f")))
    assert decoder.feed("", event(call())) == []
    with pytest.raises(UpstreamError) as caught:
        decoder.feed("", event(pieces(leaf("$.a", numberValue=1))))
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


@pytest.mark.parametrize(
    "path", ["", "a", "$", "$.", "$.a[", "$[x]", "$.a..b", "$.a[1]", "$[0]", "$.s.x", "$.s[0]"]
)
def test_senseless_paths(path: str) -> None:
    decoder = CODEC.stream_decoder()
    decoder.feed("", event(call(name="f", args={"s": "text"}, willContinue=True)))
    with pytest.raises(UpstreamError) as caught:
        decoder.feed("", event(pieces(leaf(path, numberValue=1))))
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
