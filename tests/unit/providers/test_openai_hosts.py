"""What single hosts of the OpenAI dialect want otherwise, by their flags."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from trunkline import v1
from trunkline_server.catalogue.rows import built_in_rows as provider_rows
from trunkline_server.errors import TrunklineError
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.openai_chat import OpenAIChatCodec

CODEC = OpenAIChatCodec()
NINE = re.compile(r"[a-zA-Z0-9]{9}")


def body(request: v1.GenerateRequest, kind: str) -> dict[str, Any]:
    target = CodecTarget("m", flags=provider_rows()[kind].flags)
    sent = json.loads(CODEC.encode_generate(request, target, stream=False).body)
    assert isinstance(sent, dict)
    return sent


def conversation(ids: list[str]) -> v1.GenerateRequest:
    """A turn in which the model called a tool once for each id, and the results."""
    called, answered = v1.Message(role=v1.ROLE_ASSISTANT), v1.Message(role=v1.ROLE_TOOL)
    for call_id in ids:
        called.parts.add().tool_call.CopyFrom(v1.ToolCall(id=call_id, name="now"))
        answered.parts.add().tool_result.tool_call_id = call_id
    return v1.GenerateRequest(messages=[called, answered])


CALL_IDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=64)


@given(st.lists(CALL_IDS, min_size=1, max_size=8, unique=True))
def test_calls_to_mistral_have_nine_characters_and_their_results_find_them(ids: list[str]) -> None:
    called, *answered = body(conversation(ids), "mistral")["messages"]
    sent = [call["id"] for call in called["tool_calls"]]
    assert all(NINE.fullmatch(call_id) for call_id in sent)
    assert len(set(sent)) == len(ids)
    assert [message["tool_call_id"] for message in answered] == sent
    # The same ids again, in another request and order, are made into the same.
    again = body(conversation(ids[::-1]), "mistral")["messages"][0]["tool_calls"]
    assert [call["id"] for call in again] == sent[::-1]


@given(st.from_regex(NINE, fullmatch=True))
def test_ids_that_mistral_made_go_back_as_they_came(call_id: str) -> None:
    called, answered = body(conversation([call_id]), "mistral")["messages"]
    assert called["tool_calls"][0]["id"] == answered["tool_call_id"] == call_id


def test_ids_of_many_calls_stay_apart() -> None:
    ids = [f"call_{number}" for number in range(20_000)]
    called = body(conversation(ids), "mistral")["messages"][0]
    assert len({call["id"] for call in called["tool_calls"]}) == len(ids)


def test_other_hosts_are_given_ids_as_they_are() -> None:
    called = body(conversation(["call_1"]), "groq")["messages"][0]
    assert called["tool_calls"][0]["id"] == "call_1"


def text(role: str, *texts: str) -> dict[str, Any]:
    return {"role": f"ROLE_{role}", "parts": [{"text": each} for each in texts]}


def turns(*messages: dict[str, Any]) -> list[tuple[str, Any]]:
    request = json_format.ParseDict({"messages": messages}, v1.GenerateRequest())
    sent = body(request, "perplexity")["messages"]
    return [(message["role"], message["content"]) for message in sent]


def test_turns_alternate_after_one_system_message() -> None:
    assert turns(
        text("USER", "a"), text("SYSTEM", "s"), text("USER", "b"), text("SYSTEM", "t")
    ) == [
        ("system", "s\n\nt"),
        ("user", "a\n\nb"),
    ]
    assert turns(
        text("USER", "a"), text("ASSISTANT"), text("ASSISTANT", "b"), text("USER", "c")
    ) == [
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]
    assert turns(text("USER", "a", "b"), text("USER", "c")) == [
        (
            "user",
            [
                {"type": "text", "text": "a"},
                {"type": "text", "text": "b"},
                {"type": "text", "text": "c"},
            ],
        )
    ]


@given(st.lists(st.sampled_from(["SYSTEM", "USER", "ASSISTANT"]), max_size=8))
def test_any_order_of_messages_becomes_turns_or_is_refused(roles: list[str]) -> None:
    spoken = [role for role in roles if role != "SYSTEM"]
    messages = [text(role, f"{number}.") for number, role in enumerate(roles)]
    if spoken and spoken[0] == "ASSISTANT":
        with pytest.raises(TrunklineError) as caught:
            turns(*messages)
        assert [violation.field for violation in caught.value.violations] == ["messages"]
        return
    sent = turns(*messages)
    order = [role for role, _ in sent]
    assert order[:1] == ["system"] or "SYSTEM" not in roles
    assert all(role != "system" for role in order[1:])
    assert all(one != other for one, other in pairwise(order))
    # Nothing said is lost.
    assert sorted("".join(content for _, content in sent).replace("\n", "")) == sorted(
        "".join(f"{number}." for number in range(len(roles)))
    )


IMAGE = {"image": {"uri": "https://example.com/a.png"}}
AUDIO = {"audio": {"data": "UklGRg==", "media_type": "audio/wav"}}
FILE = {"file": {"data": "JVBERg==", "media_type": "application/pdf"}}
CALL = {"tool_call": {"id": "a", "name": "now"}}
RESULT = {"tool_result": {"tool_call_id": "a", "parts": [{"text": "noon"}]}}
SCHEMA = {"json_schema": {"schema_json": "{}"}}


def said(part: dict[str, Any], role: str = "USER") -> dict[str, Any]:
    return {"messages": [{"role": f"ROLE_{role}", "parts": [part]}]}


def chosen(mode: str) -> dict[str, Any]:
    return {"tools": [{"name": "now"}], "tool_choice": {"mode": f"TOOL_CHOICE_MODE_{mode}"}}


@pytest.mark.parametrize(
    ("kind", "request_", "field"),
    [
        ("perplexity", {"tools": [{"name": "now"}]}, "tools"),
        ("perplexity", said(CALL, "ASSISTANT"), "messages[0].parts[0].tool_call"),
        ("perplexity", said(RESULT, "TOOL"), "messages[0]"),
        ("perplexity", {"config": {"seed": "1"}}, "config.seed"),
        ("ollama", said(IMAGE), "messages[0].parts[0].image.uri"),
        ("ollama", chosen("REQUIRED"), "tool_choice.mode"),
        ("ollama", chosen("NONE"), "tool_choice.mode"),
        ("moonshot", said(IMAGE), "messages[0].parts[0].image.uri"),
        ("groq", said(AUDIO), "messages[0].parts[0].audio"),
        ("groq", said(FILE), "messages[0].parts[0].file"),
        ("groq", {"config": {"top_k": 3}}, "config.top_k"),
        ("deepseek", {"response_format": SCHEMA}, "response_format.json_schema"),
        ("deepseek", {"config": {"seed": "1"}}, "config.seed"),
        ("zai", {"response_format": SCHEMA}, "response_format.json_schema"),
        ("zai", {"config": {"stop": ["a", "b"]}}, "config.stop"),
        ("mistral", {"config": {"top_k": 3}}, "config.top_k"),
    ],
)
def test_what_a_host_cannot_do_is_refused_by_its_field(
    kind: str, request_: dict[str, Any], field: str
) -> None:
    with pytest.raises(TrunklineError) as caught:
        body(json_format.ParseDict(request_, v1.GenerateRequest()), kind)
    assert caught.value.reason == v1.ERROR_REASON_INVALID_REQUEST
    assert [violation.field for violation in caught.value.violations] == [field]


def test_the_length_of_vectors_has_the_hosts_name() -> None:
    request = v1.EmbedRequest(inputs=["a"], dimensions=256)
    for kind, name in (("mistral", "output_dimension"), ("voyage", "output_dimension")):
        target = CodecTarget("m", flags=provider_rows()[kind].flags)
        sent = json.loads(CODEC.encode_embed(request, target).body)
        assert sent == {"model": "m", "input": ["a"], name: 256}
