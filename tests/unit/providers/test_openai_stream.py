"""Streams of the OpenAI dialect that other gateways have got wrong."""

import json
import random
from typing import Any

import pytest

from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.openai_chat import OpenAIChatCodec

DONE = "[DONE]"


def chunk(delta: Any = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"id": "c-1", "model": "m-1", "choices": [choice], **fields}


def call(index: int | None, arguments: str, **fields: Any) -> dict[str, Any]:
    name = fields.pop("name", None)
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    fragment = {"function": function, **fields}
    if index is not None:
        fragment["index"] = index
    return chunk({"tool_calls": [fragment]})


class Run:
    """One stream, fed to its end or to its failure."""

    def __init__(self, *events: Any) -> None:
        self.decoder = OpenAIChatCodec().stream_decoder()
        self.assembler = MessageAssembler()
        self.deltas: list[v1.StreamDelta] = []
        for event in events:
            self.feed(event)

    def feed(self, event: Any, name: str = "") -> None:
        data = event if isinstance(event, str) else json.dumps(event)
        for delta in self.decoder.feed(name, data.encode()):
            self.deltas.append(delta)
            self.assembler.add(delta)

    def calls(self) -> list[tuple[str, str, str]]:
        parts = self.assembler.message().parts
        return [(p.tool_call.id, p.tool_call.name, p.tool_call.arguments_json) for p in parts]


USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 3,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 8},
}


def failure(*events: Any) -> UpstreamError:
    run = Run()
    with pytest.raises(UpstreamError) as caught:
        feed_all(run, events)
    assert caught.value.http_status == 200
    return caught.value


def feed_all(run: Run, events: tuple[Any, ...]) -> None:
    for event in events:
        run.feed(event)
    run.decoder.finish()


def test_parallel_calls_are_not_mixed_up() -> None:
    run = Run(
        call(0, "", id="a", name="f"),
        call(1, "", id="b", name="g"),
        call(0, '{"x":'),
        call(1, '{"y":'),
        call(0, "1}"),
        call(1, "2}"),
    )
    assert run.calls() == [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')]
    assert [delta.part_index for delta in run.deltas] == [0, 1, 0, 1, 0, 1]


def test_calls_numbered_from_elsewhere_keep_their_order_of_appearance() -> None:
    run = Run(
        chunk({"content": "Look"}),
        call(5, "{}", id="a", name="f"),
        call(2, "{}", id="b", name="g"),
    )
    assert [delta.part_index for delta in run.deltas] == [0, 1, 2]


def test_id_and_name_stand_in_the_first_piece_only() -> None:
    run = Run(
        call(0, "{", id="a", name="f"),
        call(0, "}", id="a", name="f"),
        call(0, "", id="", name=""),
    )
    first, *others = [delta.tool_call for delta in run.deltas]
    assert (first.id, first.name) == ("a", "f")
    assert [(other.id, other.name, other.arguments_json) for other in others] == [("", "", "}")]


def test_calls_with_neither_index_nor_id() -> None:
    run = Run(call(None, "{}", name="f"), call(None, '{"a":', name="g"), call(None, "1}"))
    assert [(name, arguments) for _, name, arguments in run.calls()] == [
        ("f", "{}"),
        ("g", '{"a":1}'),
    ]
    ids = [call_id for call_id, _, _ in run.calls()]
    assert all(ids)
    assert len(set(ids)) == 2


def test_made_ids_are_the_same_each_time_and_differ_between_answers() -> None:
    once, again = (Run(call(0, "{}", name="f")).calls() for _ in range(2))
    other = Run({**call(0, "{}", name="f"), "id": "c-2"}).calls()
    assert once == again
    assert once[0][0] != other[0][0]


def test_call_without_a_name_is_not_lost() -> None:
    run = Run(call(0, "{}", id="a"), chunk({}, "tool_calls"), DONE)
    assert run.calls() == [("a", "", "{}")]


def test_usage_in_a_chunk_of_its_own() -> None:
    run = Run(chunk({"content": "x"}), chunk({}, "stop"), {"choices": [], "usage": USAGE}, DONE)
    end = run.decoder.finish()
    assert end.usage.input_tokens == 9
    assert end.usage.cached_input_tokens == 8
    assert end.usage.output_tokens == 3
    assert end.usage.source == v1.USAGE_SOURCE_PROVIDER


@pytest.mark.parametrize(
    "last",
    [
        chunk({}, "stop", usage=USAGE),
        chunk({}, "stop", x_groq={"id": "r", "usage": USAGE}),
        {"model": "m-1", "choices": [{"index": 0, "finish_reason": "stop", "usage": USAGE}]},
        {"model": "m-1", "choices": None, "usage": USAGE},
    ],
)
def test_usage_in_other_places(last: dict[str, Any]) -> None:
    run = Run(chunk({"content": "x"}), last, DONE)
    assert run.decoder.finish().usage.input_tokens == 9


def test_usage_of_a_stream_that_breaks_is_known_so_far() -> None:
    run = Run(chunk({"content": "x"}, usage=USAGE))
    assert run.decoder.usage.input_tokens == 9
    assert run.decoder.model == "m-1"
    assert run.decoder.response_id == "c-1"
    with pytest.raises(UpstreamError) as caught:
        run.decoder.finish()
    assert caught.value.reason == v1.ERROR_REASON_STREAM_INTERRUPTED


def test_later_usage_replaces_earlier() -> None:
    more = {**USAGE, "completion_tokens": 7, "total_tokens": 16}
    run = Run(chunk({"content": "x"}, usage=USAGE), chunk({}, "stop", usage=more), DONE)
    assert run.decoder.finish().usage.output_tokens == 7


def test_usage_that_never_comes_is_not_made_up() -> None:
    run = Run(chunk({"content": "x"}), chunk({}, "stop"), DONE)
    assert not run.decoder.finish().HasField("usage")


def test_total_of_the_vendor_behind_a_gateway_tells_of_reasoning() -> None:
    metadata = {"google": {"usageMetadata": {"totalTokenCount": 52}}}
    delta = {"provider_metadata": metadata}
    run = Run(chunk({"content": "x"}), chunk(delta, "stop", usage=USAGE), DONE)
    usage = run.decoder.finish().usage
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (9, 43, 40)


@pytest.mark.parametrize(
    "events",
    [
        (),
        (chunk({"content": "Hel"}),),
        (call(0, '{"half', id="a", name="f"),),
        (chunk({"content": "x"}), {"choices": [], "usage": USAGE}),
    ],
)
def test_cut_streams_are_failures(events: tuple[Any, ...]) -> None:
    assert failure(*events).reason == v1.ERROR_REASON_STREAM_INTERRUPTED


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ((chunk({"content": "x"}), chunk({}, "length")), v1.FINISH_REASON_LENGTH),
        ((chunk({"content": "x"}), DONE), v1.FINISH_REASON_UNSPECIFIED),
        ((chunk({"content": "x"}), chunk({}, "brand_new"), DONE), v1.FINISH_REASON_OTHER),
        ((chunk({}, "stop"), chunk({}, "length"), DONE), v1.FINISH_REASON_STOP),
    ],
)
def test_ends(events: tuple[Any, ...], reason: v1.FinishReason.ValueType) -> None:
    assert Run(*events).decoder.finish().finish_reason == reason


def test_nothing_counts_after_the_end_mark() -> None:
    run = Run(chunk({"content": "x"}, "stop"), DONE, chunk({"content": "more"}), "garbage")
    assert run.assembler.message().parts[0].text == "x"


@pytest.mark.parametrize(
    ("event", "name", "reason"),
    [
        ({"error": {"message": "no", "code": 502}}, "", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        ({"error": {"message": "no", "type": "server_error"}}, "", 9),
        ({"error": {"message": "no", "code": "rate_limit_exceeded"}}, "", 3),
        ({"error": "no capacity"}, "", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        ({"message": "no", "code": 400}, "error", v1.ERROR_REASON_INVALID_REQUEST),
        ({"object": "error", "message": "no", "code": 429}, "", v1.ERROR_REASON_RATE_LIMIT),
        ({"error": {"message": "no", "type": "invalid_request_error"}}, "", 5),
        (chunk({}, "stop", error={"message": "no", "code": 504}), "", v1.ERROR_REASON_TIMEOUT),
        (chunk({}, x_groq={"error": "over capacity"}), "", v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        ({"choices": [{"index": 0, "error": {"code": 503}}]}, "", 9),
    ],
)
def test_errors_inside_the_stream(
    event: dict[str, Any], name: str, reason: v1.ErrorReason.ValueType
) -> None:
    run = Run(chunk({"content": "x"}))
    with pytest.raises(UpstreamError) as caught:
        run.feed(event, name)
    assert caught.value.reason == reason
    assert caught.value.http_status == 200


@pytest.mark.parametrize(
    "event",
    [
        "not JSON",
        "[]",
        '"text"',
        '{"choices": {}  , "a": ',
        '{"choices": {"0": 1}}',
        '{"choices": ["x"]}',
        '{"choices": [{"index": 0, "delta": {"content": "\\ud800"}}]}',
        '{"choices": [{"index": 0, "delta": {"audio": {"data": "?"}}}]}',
    ],
)
def test_events_that_make_no_sense(event: str) -> None:
    error = failure(event)
    assert error.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


def test_stream_without_any_choice_is_no_answer() -> None:
    assert failure(DONE).reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


def test_second_choice_does_not_mix_into_the_first() -> None:
    second = {"index": 1, "delta": {"content": "B"}, "finish_reason": "length"}
    run = Run(chunk({"content": "A"}), {"choices": [second]}, chunk({}, "stop"), DONE)
    assert [part.text for part in run.assembler.message().parts] == ["A"]
    assert run.decoder.finish().finish_reason == v1.FINISH_REASON_STOP


def test_empty_pieces_give_nothing() -> None:
    run = Run(
        chunk({"role": "assistant", "content": "", "reasoning": "", "refusal": ""}),
        chunk({"content": None, "tool_calls": None, "reasoning_details": []}),
        chunk({"reasoning_details": [{"type": "reasoning.text", "text": "", "signature": ""}]}),
        chunk({}, "stop"),
        DONE,
    )
    assert run.deltas == []


def test_reasoning_and_text_in_turn_are_two_parts() -> None:
    run = Run(
        chunk({"reasoning": "a"}),
        chunk({"content": "b"}),
        chunk({"reasoning_content": "c"}),
        chunk({"content": "d"}, "stop"),
    )
    parts = run.assembler.message().parts
    assert [(part.reasoning.text, part.text) for part in parts] == [("ac", ""), ("", "bd")]


def pieces(text: str, rng: random.Random) -> list[str]:
    cut = []
    while text:
        size = rng.randint(1, 7)
        cut.append(text[:size])
        text = text[size:]
    return cut


def random_text(rng: random.Random) -> str:
    return "".join(rng.choice('ab {}"\\é\N{GRINNING FACE}\n') for _ in range(rng.randint(1, 40)))


def split_calls(calls: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """Fragments of the calls: each begun in its turn, then continued in random order."""
    begun, rest = [], []
    for index, whole in enumerate(calls):
        function = {"name": whole["function"]["name"], "arguments": ""}
        begun.append({"index": index, "id": whole["id"], "type": "function", "function": function})
        rest.append([(index, piece) for piece in pieces(whole["function"]["arguments"], rng)])
    continued = []
    while any(rest):
        index, piece = rng.choice([left for left in rest if left]).pop(0)
        continued.append({"index": index, "function": {"arguments": piece}})
    return begun + continued


@pytest.mark.parametrize("seed", range(40))
def test_stream_and_whole_give_the_same_message(seed: int) -> None:
    rng = random.Random(seed)
    message: dict[str, Any] = {"content": None}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    details: list[dict[str, Any]] = []
    for index in range(rng.randint(0, 3)):
        about = {"index": index, "format": rng.choice(["unknown", "anthropic-claude-v1"])}
        if rng.random() < 0.5:
            # Two of the same index, as the newer models of OpenAI give them.
            for _ in range(rng.randint(1, 2)):
                details.append({**about, "type": "reasoning.encrypted", "data": random_text(rng)})
                deltas.append({"reasoning_details": [details[-1]]})
            continue
        text, kind = random_text(rng), {**about, "type": "reasoning.text"}
        details.append({**kind, "text": text, "signature": f"s{index}"})
        deltas += [{"reasoning_details": [{**kind, "text": p}]} for p in pieces(text, rng)]
        deltas.append({"reasoning_details": [{**kind, "signature": f"s{index}"}]})
    if details:
        message["reasoning_details"] = details
    for name in ("reasoning_content", "content", "refusal"):
        if rng.random() < 0.5 and not (details and name == "reasoning_content"):
            message[name] = random_text(rng)
            deltas += [{name: piece} for piece in pieces(message[name], rng)]
    calls = [
        {"id": f"id{i}", "function": {"name": "f", "arguments": random_text(rng)}}
        for i in range(rng.randint(0, 4))
    ]
    message["tool_calls"] = calls
    deltas += [{"tool_calls": [fragment]} for fragment in split_calls(calls, rng)]

    run = Run(*(chunk(delta) for delta in deltas), chunk({}, "stop"), DONE)
    body = {**chunk(), "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    response = v1.GenerateResponse()
    OpenAIChatCodec().decode_generate(json.dumps(body).encode(), response)
    end = run.decoder.finish()
    assert run.assembler.message() == response.message
    assert (end.finish_reason, end.model) == (response.finish_reason, response.model)


def test_decoders_share_nothing() -> None:
    one, other = Run(chunk({"content": "a"}, usage=USAGE)), Run(chunk({"content": "b"}))
    assert one.assembler.message().parts[0].text == "a"
    assert other.assembler.message().parts[0].text == "b"
    assert not other.decoder.usage.input_tokens
