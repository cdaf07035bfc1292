"""Masking and its way back: whole, streamed at every cut, and inside JSON."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.privacy.detect import Detector
from trunkline_server.privacy.mask import Find, MaskMap
from trunkline_server.privacy.request import mask_request, texts_of
from trunkline_server.privacy.rule import Span
from trunkline_server.privacy.stream import StreamRestorer

DETECT = Detector().spans
ANN, BOB = "ann@example.org", "bob@example.org"


def mask(messages: list[v1.Message], find: Find = DETECT) -> tuple[list[v1.Message], MaskMap]:
    """The messages of a request, masked; the given ones are not changed."""
    request = v1.GenerateRequest(messages=messages)
    before = request.SerializeToString(deterministic=True)
    masked, map_ = mask_request(request, find, texts_of(request))
    assert request.SerializeToString(deterministic=True) == before
    assert (masked is None) == (len(map_) == 0)
    assert masked is None or isinstance(masked, v1.GenerateRequest)
    return list((request if masked is None else masked).messages), map_


def user(text: str) -> v1.Message:
    return v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text=text)])


def call(arguments: str) -> v1.Message:
    part = v1.Part(tool_call=v1.ToolCall(id="c1", name="send", arguments_json=arguments))
    return v1.Message(role=v1.ROLE_ASSISTANT, parts=[part])


def conversation() -> list[v1.Message]:
    result = v1.ToolResult(tool_call_id="c1", parts=[v1.Part(text=f"sent to {BOB}")])
    return [
        v1.Message(role=v1.ROLE_SYSTEM, parts=[v1.Part(text="Be kind.")]),
        user(f"I am {ANN}; write to {BOB}, then to {ANN}"),
        v1.Message(
            role=v1.ROLE_ASSISTANT,
            parts=[v1.Part(reasoning=v1.Reasoning(text=f"So {BOB} it is"))],
        ),
        call(json.dumps({"to": BOB, "card": 4111111111111111})),
        v1.Message(role=v1.ROLE_TOOL, parts=[v1.Part(tool_result=result)]),
    ]


def test_no_value_is_left_and_equal_values_have_equal_placeholders() -> None:
    given_ = conversation()
    masked, map_ = mask(given_)
    sent = b"".join(message.SerializeToString() for message in masked)
    for value in (ANN, BOB, "4111111111111111"):
        assert value.encode() not in sent
        assert value not in repr(map_)
    assert masked[0] == given_[0]
    assert masked[1].parts[0].text == (
        "I am [EMAIL_ADDRESS_1]; write to [EMAIL_ADDRESS_2], then to [EMAIL_ADDRESS_1]"
    )
    assert masked[2].parts[0].reasoning.text == "So [EMAIL_ADDRESS_2] it is"
    assert json.loads(masked[3].parts[0].tool_call.arguments_json) == {
        "to": "[EMAIL_ADDRESS_2]",
        "card": "[CREDIT_CARD_1]",
    }
    assert masked[4].parts[0].tool_result.parts[0].text == "sent to [EMAIL_ADDRESS_2]"
    assert len(map_) == 3


def test_placeholders_are_the_same_in_every_turn() -> None:
    masked, map_ = mask([user(f"I am {ANN}")])
    answer = v1.Message(role=v1.ROLE_ASSISTANT, parts=[v1.Part(text="Hello [EMAIL_ADDRESS_1]")])
    sent = answer.parts[0].text
    map_.restore_message(answer)
    assert answer.parts[0].text == f"Hello {ANN}"
    again, _ = mask([user(f"I am {ANN}"), answer, user(f"and {BOB}")])
    assert again[0] == masked[0]
    assert again[1].parts[0].text == sent
    assert again[2].parts[0].text == "and [EMAIL_ADDRESS_2]"


def test_placeholders_of_the_callers_own_come_back_as_they_were() -> None:
    masked, map_ = mask([user(f"[EMAIL_ADDRESS_1] means {ANN}")])
    text = masked[0].parts[0].text
    assert text == "[EMAIL_ADDRESS_1] means [EMAIL_ADDRESS_2]"
    assert map_.restore(text) == f"[EMAIL_ADDRESS_1] means {ANN}"


def test_unknown_placeholders_stay() -> None:
    _, map_ = mask([user(f"I am {ANN}")])
    assert map_.restore("[EMAIL_ADDRESS_2] [X_1] [1] [[EMAIL_ADDRESS_1]]") == (
        f"[EMAIL_ADDRESS_2] [X_1] [1] [{ANN}]"
    )


def test_nothing_found_nothing_copied() -> None:
    _, map_ = mask([user("hello"), user("[1, 2]")])
    assert len(map_) == 0
    assert map_.restore("[1, 2]") == "[1, 2]"


def test_signatures_and_breakpoints_stay() -> None:
    part = v1.Part(text=f"I am {ANN}", cache_breakpoint=True)
    part.signature.value = "sig"
    masked, _ = mask([v1.Message(role=v1.ROLE_ASSISTANT, name="n", parts=[part])])
    assert masked[0].name == "n"
    assert masked[0].parts[0].cache_breakpoint
    assert masked[0].parts[0].signature.value == "sig"


# JSON of tool calls: the text, and what of it must be gone.
ARGUMENTS = [
    (json.dumps({"to": [ANN, {"cc": BOB}]}), [ANN, BOB]),
    (json.dumps({"text": f'say "hi"\n to {ANN}'}), [ANN]),
    ('{"to": "ann\\u0040example.org"}', ["ann\\u0040example.org", ANN]),
    (json.dumps({ANN: 1}), [ANN]),
    ('{"ssn": "536221234"}', ["536221234"]),
    ('{"phone": 4915112345678901}', []),
    ('{"n": [4111111111111111, 5555555555554444]}', ["4111111111111111", "5555555555554444"]),
    (f'{{"to": "{ANN}"', [ANN]),
    (f"not json {ANN}", [ANN]),
    ('{"a": "b\\\\", "to": "' + ANN + '"}', [ANN]),
]


@pytest.mark.parametrize(("text", "gone"), ARGUMENTS)
def test_arguments_stay_json_and_come_back_equal(text: str, gone: list[str]) -> None:
    masked, map_ = mask([call(text)])
    sent = masked[0].parts[0].tool_call.arguments_json
    assert not [value for value in gone if value in sent]
    back = map_.restore_json(sent)
    try:
        expected = json.loads(text)
    except json.JSONDecodeError:
        assert back == text
        return
    json.loads(sent)
    # A number comes back as the text of its digits.
    assert _texts(json.loads(back)) == _texts(expected)


def _texts(value: object) -> object:
    if isinstance(value, dict):
        return {key: _texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_texts(inner) for inner in value]
    return str(value)


def test_values_are_escaped_where_they_come_back_into_json() -> None:
    nasty = 'O"Neil\\\n\x01'

    def find(text: str) -> list[Span]:
        place = text.find(nasty)
        return [Span(place, place + len(nasty), "PERSON")] if place >= 0 else []

    _, map_ = mask([user(f"I am {nasty}!")], find)
    assert json.loads(map_.restore_json('{"name": "[PERSON_1]"}')) == {"name": nasty}


@pytest.mark.parametrize("kind", ["json_object", "json_schema", ""])
def test_an_answer_that_is_json_stays_json(kind: str) -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + "A1b2" * 20 + "\n-----END PRIVATE KEY-----"
    request = v1.GenerateRequest(messages=[user(f"my key is {key}")])
    if kind:
        getattr(request.response_format, kind).SetInParent()
    masked, map_ = mask_request(request, DETECT, texts_of(request))
    assert isinstance(masked, v1.GenerateRequest)
    assert "BEGIN" not in str(masked)
    told = '{"key": "[API_KEY_1]"}'
    answer = v1.Message(parts=[v1.Part(text=told)])
    map_.restore_message(answer)
    parts = [v1.StreamDelta(text=piece) for piece in told]
    assert streamed(map_, parts).parts[0].text == answer.parts[0].text
    if kind:
        assert json.loads(answer.parts[0].text) == {"key": key}
    else:
        assert answer.parts[0].text == f'{{"key": "{key}"}}'


def test_deeply_nested_arguments_are_no_trouble() -> None:
    text = '{"a":' * 900 + f'"{ANN}"' + "}" * 900
    masked, map_ = mask([call(text)])
    sent = masked[0].parts[0].tool_call.arguments_json
    assert ANN not in sent
    assert map_.restore_json(sent) == text


def test_odd_type_names_become_placeholders_that_come_back() -> None:
    for kind in ("person", "Ärzte-Nr", "2FA", "", "X" * 80, "A_1"):

        def find(text: str, kind: str = kind) -> list[Span]:
            return [Span(0, 3, kind)] if text == "abc" else []

        masked, map_ = mask([user("abc")], find)
        sent = masked[0].parts[0].text
        assert sent != "abc"
        assert map_.restore(f"<{sent}>") == "<abc>"


def test_texts_of_tells_all_texts_once() -> None:
    assert set(texts_of(v1.GenerateRequest(messages=conversation()))) == {
        "Be kind.",
        f"I am {ANN}; write to {BOB}, then to {ANN}",
        f"So {BOB} it is",
        json.dumps({"to": BOB, "card": 4111111111111111}),
        f"sent to {BOB}",
    }


def made_map() -> MaskMap:
    _, map_ = mask([user(f"{ANN} {BOB} postgres://a:p\\w@h/")])
    return map_


def streamed(map_: MaskMap, deltas: list[v1.StreamDelta]) -> v1.Message:
    restorer, assembler = StreamRestorer(map_), MessageAssembler()
    for delta in deltas:
        for out in restorer.feed(delta):
            assembler.add(out)
    for out in restorer.finish():
        assembler.add(out)
    return assembler.message()


TEXT = "To [EMAIL_ADDRESS_1] and [EMAIL_ADDRESS_2], [[EMAIL_ADDRESS_1]] [x] [EMAIL_ADDRESS_9] [E"


@pytest.mark.parametrize("size", range(1, 30))
@pytest.mark.parametrize("kind", ["text", "reasoning"])
def test_a_streamed_answer_is_restored_at_any_cut(size: int, kind: str) -> None:
    pieces = [TEXT[start : start + size] for start in range(0, len(TEXT), size)]
    deltas = [
        v1.StreamDelta(text=piece) if kind == "text" else v1.StreamDelta(reasoning=piece)
        for piece in pieces
    ]
    part = streamed(made_map(), deltas).parts[0]
    whole = part.text if kind == "text" else part.reasoning.text
    assert whole == f"To {ANN} and {BOB}, [{ANN}] [x] [EMAIL_ADDRESS_9] [E"


def test_two_tool_calls_that_interleave_are_restored() -> None:
    rng = random.Random(5)
    arguments = [
        '{"to": "[EMAIL_ADDRESS_1]", "n": [1, 2]}',
        '{"to": ["[EMAIL_ADDRESS_2]", "[URL_CREDENTIALS_1]"]}',
    ]
    for _ in range(50):
        deltas = [
            v1.StreamDelta(part_index=i, tool_call=v1.ToolCallDelta(id=f"c{i}", name="send"))
            for i in (0, 1)
        ]
        left = list(arguments)
        while any(left):
            index = rng.choice([i for i in (0, 1) if left[i]])
            cut = rng.randint(1, 7)
            piece, left[index] = left[index][:cut], left[index][cut:]
            call_ = v1.ToolCallDelta(arguments_json=piece)
            deltas.append(v1.StreamDelta(part_index=index, tool_call=call_))
        message = streamed(made_map(), deltas)
        first, second = (part.tool_call for part in message.parts)
        assert (first.id, first.name, second.id) == ("c0", "send", "c1")
        assert json.loads(first.arguments_json) == {"to": ANN, "n": [1, 2]}
        assert json.loads(second.arguments_json) == {"to": [BOB, "a:p\\w"]}


def test_what_is_held_back_comes_before_what_follows_it() -> None:
    restorer = StreamRestorer(made_map())
    assert restorer.feed(v1.StreamDelta(text="a [EMAIL")) == [v1.StreamDelta(text="a ")]
    signature = v1.StreamDelta(signature=v1.Signature(dialect="d", value="s"))
    assert restorer.feed(signature) == [v1.StreamDelta(text="[EMAIL"), signature]
    assert restorer.finish() == []


def test_a_stream_without_placeholders_is_passed_on_untouched() -> None:
    restorer = StreamRestorer(made_map())
    delta = v1.StreamDelta(text="plain words")
    assert restorer.feed(delta)[0] is delta


def test_what_others_are_sent_too_is_not_changed() -> None:
    whole = v1.StreamDelta(part=v1.Part(audio=v1.Audio(transcript="[EMAIL_ADDRESS_1]")))
    (restored,) = StreamRestorer(made_map()).feed(whole)
    assert restored.part.audio.transcript == ANN
    assert whole.part.audio.transcript == "[EMAIL_ADDRESS_1]"


@given(st.lists(st.text(alphabet="[]EMAIL_ADRS12 x", max_size=12), max_size=30))
def test_streamed_and_whole_restoring_agree(pieces: list[str]) -> None:
    map_ = made_map()
    restorer = StreamRestorer(map_)
    out = [d for piece in pieces for d in restorer.feed(v1.StreamDelta(text=piece))]
    out += restorer.finish()
    assert "".join(delta.text for delta in out) == map_.restore("".join(pieces))
