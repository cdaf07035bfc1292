"""Encoding for Gemini: what is refused, and what earlier gateways dropped on the way."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf import json_format

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.gemini import GeminiCodec

CODEC = GeminiCodec()
TARGET = CodecTarget("gemini-2.5-flash")
SECRET = "do-not-quote-me"  # Stands for the caller's payload.


def hello(messages: Sequence[dict[str, Any]] = (), **fields: Any) -> v1.GenerateRequest:
    """A greeting, followed by the messages; all in the JSON form of the contract."""
    greeting = {"role": "ROLE_USER", "parts": [{"text": "Hi"}]}
    fields["messages"] = [greeting, *messages]
    return json_format.ParseDict(fields, v1.GenerateRequest())


def body_of(request: v1.GenerateRequest) -> Any:
    return json.loads(CODEC.encode_generate(request, TARGET, stream=False).body)


def with_parts(role: str, *parts: dict[str, Any]) -> v1.GenerateRequest:
    return hello(messages=[{"role": role, "parts": list(parts)}])


def refusal(request: v1.GenerateRequest) -> TrunklineError:
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_generate(request, TARGET, stream=False)
    return caught.value


CALL = {"id": "c1", "name": "f"}
REFUSED = [
    ({"toolChoice": {"disableParallel": True}}, "tool_choice.disable_parallel"),
    ({"toolChoice": {"name": "f"}}, "tool_choice.name"),
    ({"config": {"stop": ["a", "b", "c", "d", "e", "f"]}}, "config.stop"),
    ({"config": {"seed": str(2**31)}}, "config.seed"),
    ({"config": {"reasoning": {"effort": 99}}}, "config.reasoning.effort"),
    ({"tools": [{"name": "a"}, {"name": "f", "parametersJson": f"[{SECRET}"}]},
     "tools[1].parameters_json"),
    ({"tools": [{"name": "f", "parametersJson": f'["{SECRET}"]'}]}, "tools[0].parameters_json"),
    ({"responseFormat": {"jsonSchema": {"schemaJson": SECRET}}},
     "response_format.json_schema.schema_json"),
    ({"providerOptions": {"contents": SECRET}}, "provider_options.contents"),
    ({"providerOptions": {"model": SECRET}}, "provider_options.model"),
    ({"providerOptions": {"system_instruction": {}}}, "provider_options.system_instruction"),
    ({"providerOptions": {"generationConfig": {"candidateCount": 2}}},
     "provider_options.generationConfig.candidateCount"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "path"), REFUSED, ids=[path for _, path in REFUSED])
def test_refuses_what_it_cannot_carry(fields: dict[str, Any], path: str) -> None:
    error = refusal(hello(**fields))
    assert error.reason == v1.ERROR_REASON_INVALID_REQUEST
    assert [violation.field for violation in error.violations] == [path]
    assert SECRET not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


REFUSED_PARTS = [
    ("ROLE_SYSTEM", {"image": {"uri": "gs://b/a"}}, "messages[1].parts[0]"),
    ("ROLE_USER", {"toolCall": CALL}, "messages[1].parts[0]"),
    ("ROLE_USER", {"reasoning": {}}, "messages[1].parts[0]"),
    ("ROLE_USER", {}, "messages[1].parts[0]"),
    ("ROLE_ASSISTANT", {"toolResult": {"toolCallId": "c1"}}, "messages[1].parts[0]"),
    ("ROLE_TOOL", {"text": SECRET}, "messages[1].parts[0]"),
    ("ROLE_UNSPECIFIED", {"text": SECRET}, "messages[1].role"),
    ("ROLE_TOOL", {"toolResult": {"toolCallId": SECRET}},
     "messages[1].parts[0].tool_result.tool_call_id"),
    ("ROLE_TOOL", {"toolResult": {"name": "f", "parts": [{"toolCall": CALL}]}},
     "messages[1].parts[0].tool_result.parts[0]"),
    ("ROLE_TOOL", {"toolResult": {"name": "f", "parts": [{"text": "a"}, {"image": {}}]}},
     "messages[1].parts[0].tool_result.parts[1].image"),
    ("ROLE_USER", {"image": {"data": "AQID"}}, "messages[1].parts[0].image.media_type"),
    ("ROLE_USER", {"audio": {"data": "AQID"}}, "messages[1].parts[0].audio.media_type"),
    ("ROLE_USER", {"file": {"filename": "a"}}, "messages[1].parts[0].file"),
    ("ROLE_USER", {"image": {"uri": "data:image/png"}}, "messages[1].parts[0].image.uri"),
    ("ROLE_USER", {"image": {"uri": "data:image/png;base64,A"}}, "messages[1].parts[0].image.uri"),
    ("ROLE_USER", {"image": {"uri": "gs://b/a", "detail": 9}}, "messages[1].parts[0].image.detail"),
    ("ROLE_ASSISTANT", {"toolCall": {**CALL, "argumentsJson": f'{{"{SECRET}'}},
     "messages[1].parts[0].tool_call.arguments_json"),
    ("ROLE_ASSISTANT", {"toolCall": {**CALL, "argumentsJson": f'"{SECRET}"'}},
     "messages[1].parts[0].tool_call.arguments_json"),
]  # fmt: skip


@pytest.mark.parametrize(("role", "part", "path"), REFUSED_PARTS)
def test_refuses_misplaced_parts(role: str, part: dict[str, Any], path: str) -> None:
    error = refusal(with_parts(role, part))
    assert error.reason == v1.ERROR_REASON_INVALID_REQUEST
    assert [violation.field for violation in error.violations] == [path]
    assert SECRET not in str(error)


def test_a_result_does_not_answer_a_later_call() -> None:
    request = hello(
        messages=[
            {"role": "ROLE_TOOL", "parts": [{"toolResult": {"toolCallId": "c1"}}]},
            {"role": "ROLE_ASSISTANT", "parts": [{"toolCall": CALL}]},
        ]
    )
    assert refusal(request).violations[0].field == "messages[1].parts[0].tool_result.tool_call_id"


def test_zero_is_sent_and_nothing_is_not() -> None:
    zeros = {"temperature": 0, "presencePenalty": 0, "frequencyPenalty": 0, "seed": "0"}
    sent = body_of(hello(config=zeros))["generationConfig"]
    assert sent == {"temperature": 0, "presencePenalty": 0, "frequencyPenalty": 0, "seed": 0}
    assert "generationConfig" not in body_of(hello(config={}))


def test_json_texts_go_out_as_written() -> None:
    """The order of properties, big numbers and repeated keys are the caller's own."""
    schema = '{"properties":{"z":{},"a":{"maximum":12345678901234567890123}},"type":"object"}'
    arguments = '{"z":1.50,"a":2,"z":3}'
    request = hello(
        tools=[{"name": "f", "parametersJson": schema}],
        responseFormat={"jsonSchema": {"schemaJson": schema}},
        messages=[
            {
                "role": "ROLE_ASSISTANT",
                "parts": [{"toolCall": {**CALL, "argumentsJson": arguments}}],
            }
        ],
    )
    body = CODEC.encode_generate(request, TARGET, stream=False).body.decode()
    assert body.count(schema) == 2
    assert arguments in body


def test_parallel_calls_of_one_name_keep_their_order_and_ids() -> None:
    calls = [{"toolCall": {"id": f"c{n}", "name": "f", "argumentsJson": f'{{"n":{n}}}'}}
             for n in range(3)]  # fmt: skip
    results = [{"toolResult": {"toolCallId": f"c{n}", "parts": [{"text": str(n)}]}}
               for n in (2, 0, 1)]  # fmt: skip
    request = hello(
        messages=[
            {"role": "ROLE_ASSISTANT", "parts": calls},
            *({"role": "ROLE_TOOL", "parts": [result]} for result in results),
        ]
    )
    _, asked, answered = body_of(request)["contents"]
    assert [part["functionCall"]["id"] for part in asked["parts"]] == ["c0", "c1", "c2"]
    responses = [part["functionResponse"] for part in answered["parts"]]
    assert [(r["id"], r["name"], r["response"]["output"]) for r in responses] == [
        ("c2", "f", "2"), ("c0", "f", "0"), ("c1", "f", "1"),
    ]  # fmt: skip


def test_the_latest_call_names_a_reused_id() -> None:
    turn = [
        {"role": "ROLE_ASSISTANT", "parts": [{"toolCall": {"id": "c1", "name": name}}]}
        for name in ("old", "new")
    ]
    result = {"role": "ROLE_TOOL", "parts": [{"toolResult": {"toolCallId": "c1"}}]}
    contents = body_of(hello(messages=[turn[0], result, turn[1], result]))["contents"]
    names = [content["parts"][0]["functionResponse"]["name"] for content in contents[2::2]]
    assert names == ["old", "new"]


def test_whole_numbers_of_options_stay_whole() -> None:
    options = {
        "generationConfig": {"logprobs": 5, "speed": 0.5},
        "labels": {"a": None, "b": [True]},
    }
    body = CODEC.encode_generate(hello(providerOptions=options), TARGET, stream=False).body
    assert b'"logprobs":5,' in body or b'"logprobs":5}' in body
    assert json.loads(body)["generationConfig"]["speed"] == 0.5
    assert json.loads(body)["labels"] == {"a": None, "b": [True]}


def test_options_without_tools_of_the_request() -> None:
    body = body_of(hello(providerOptions={"tools": [{"googleSearch": {}}]}))
    assert body["tools"] == [{"googleSearch": {}}]


def test_embedding_options_cannot_replace_the_inputs() -> None:
    for name in ("content", "model", "requests"):
        request = v1.EmbedRequest(inputs=["a"])
        request.provider_options.update({name: SECRET})
        with pytest.raises(TrunklineError) as caught:
            CODEC.encode_embed(request, TARGET)
        assert caught.value.violations[0].field == f"provider_options.{name}"
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_embed(json_format.ParseDict({"task": 99}, v1.EmbedRequest()), TARGET)
    assert caught.value.violations[0].field == "task"


@pytest.mark.parametrize("collection", ["", "models/", "tunedModels/"])
@pytest.mark.parametrize("model", ["a/../b", "a?x=1", "a#b", "a:countTokens", "ä b", "..", "a%2f"])
def test_no_model_id_leaves_its_place_in_the_path(collection: str, model: str) -> None:
    wire = CODEC.encode_generate(hello(), CodecTarget(collection + model), stream=True)
    path, _, query = wire.path.partition("?")
    assert query == "alt=sse"
    empty, name, segment = path.split("/")
    assert (empty, name) == ("", (collection or "models/").rstrip("/"))
    encoded, verb = segment.split(":")
    assert verb == "streamGenerateContent"
    assert "#" not in path
    assert path.isascii()
    assert bytes.fromhex("".join(_hex(encoded))).decode() == model


def _hex(encoded: str) -> list[str]:
    """Percent-decoding by hand: each character's or escape's byte in hexadecimal."""
    found = []
    while encoded:
        if encoded[0] == "%":
            found.append(encoded[1:3])
            encoded = encoded[3:]
        else:
            found.append(encoded[0].encode().hex())
            encoded = encoded[1:]
    return found
