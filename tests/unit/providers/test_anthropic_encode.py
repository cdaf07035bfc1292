"""What the Anthropic codec sends, and what it refuses to send."""

import base64
import json
import re
from typing import Any

import pytest

from trunkline import v1
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.providers.anthropic_messages import AnthropicMessagesCodec
from trunkline_server.providers.codec import CodecTarget

CODEC = AnthropicMessagesCodec()
TARGET = CodecTarget("claude-sonnet-4-5")


def ask(**fields: Any) -> v1.GenerateRequest:
    """A request with one user message and the given fields beside it."""
    request = v1.GenerateRequest(**fields)
    if not request.messages:
        request.messages.append(said(v1.ROLE_USER, v1.Part(text="Hi")))
    return request


def said(role: v1.Role.ValueType, *parts: v1.Part) -> v1.Message:
    return v1.Message(role=role, parts=parts)


def sent(request: v1.GenerateRequest, target: CodecTarget = TARGET) -> Any:
    return json.loads(CODEC.encode_generate(request, target, stream=False).body)


def config(**fields: Any) -> v1.GenerateRequest:
    return ask(config=v1.GenerationConfig(**fields))


def reasoning(limit: int | None = None, **fields: Any) -> v1.GenerateRequest:
    return config(reasoning=v1.ReasoningConfig(**fields), max_output_tokens=limit)


def user(*parts: v1.Part) -> v1.GenerateRequest:
    return ask(messages=[said(v1.ROLE_USER, *parts)])


def assistant(*parts: v1.Part) -> v1.GenerateRequest:
    return ask(messages=[said(v1.ROLE_USER, v1.Part(text="Hi")), said(v1.ROLE_ASSISTANT, *parts)])


def options(**fields: Any) -> v1.GenerateRequest:
    request = ask()
    request.provider_options.update(fields)
    return request


def image(**fields: Any) -> v1.Part:
    return v1.Part(image=v1.Image(**fields))


def file(**fields: Any) -> v1.Part:
    return v1.Part(file=v1.File(**fields))


def call(**fields: Any) -> v1.Part:
    return v1.Part(tool_call=v1.ToolCall(**fields))


PDF = b"%PDF-"
RESULT_WITH_AUDIO = v1.Part(
    tool_result=v1.ToolResult(
        tool_call_id="t", parts=[v1.Part(audio=v1.Audio(data=b"x", media_type="audio/wav"))]
    )
)
SIGNED = v1.Part(
    reasoning=v1.Reasoning(text="Hm."),
    signature=v1.Signature(dialect="anthropic", value="s"),
    cache_breakpoint=True,
)
EMPTY_RESULT_ID = v1.Part(tool_result=v1.ToolResult())

REFUSED = [
    (config(temperature=1.5), "config.temperature"),
    (config(seed=0), "config.seed"),
    (config(presence_penalty=0.1), "config.presence_penalty"),
    (config(frequency_penalty=-0.1), "config.frequency_penalty"),
    (reasoning(budget_tokens=1023), "config.reasoning.budget_tokens"),
    (reasoning(limit=2000, budget_tokens=2000), "config.reasoning.budget_tokens"),
    (
        reasoning(budget_tokens=2000, effort=v1.REASONING_EFFORT_NONE),
        "config.reasoning.budget_tokens",
    ),
    (ask(messages=[said(v1.ROLE_SYSTEM, v1.Part(text="x"))]), "messages"),
    (ask(messages=[said(v1.ROLE_UNSPECIFIED, v1.Part(text="x"))]), "messages[0].role"),
    (
        ask(messages=[said(v1.ROLE_SYSTEM, image(uri="https://example.com/a"))]),
        "messages[0].parts[0].image",
    ),
    (user(), "messages[0].parts"),
    (user(v1.Part(text="")), "messages[0].parts"),
    (user(v1.Part()), "messages[0].parts[0]"),
    (
        user(v1.Part(text="x"), v1.Part(audio=v1.Audio(data=b"x", media_type="audio/wav"))),
        "messages[0].parts[1].audio",
    ),
    (user(call(id="t", name="f")), "messages[0].parts[0].tool_call"),
    (user(image()), "messages[0].parts[0].image"),
    (user(image(data=b"x", media_type="image/tiff")), "messages[0].parts[0].image.media_type"),
    (user(image(uri="gs://bucket/a.png")), "messages[0].parts[0].image.uri"),
    (user(image(uri="data:image/png;base64")), "messages[0].parts[0].image.uri"),
    (user(image(uri="data:image/png;base64,?")), "messages[0].parts[0].image.uri"),
    (
        user(image(uri="https://example.com/a", detail=v1.IMAGE_DETAIL_LOW)),
        "messages[0].parts[0].image.detail",
    ),
    (user(file()), "messages[0].parts[0].file"),
    (user(file(data=PDF, media_type="application/zip")), "messages[0].parts[0].file.media_type"),
    (user(file(data=b"\xff", media_type="text/plain")), "messages[0].parts[0].file"),
    (
        user(file(uri="https://example.com/a", media_type="text/plain")),
        "messages[0].parts[0].file.media_type",
    ),
    (user(file(uri="gs://bucket/a.pdf")), "messages[0].parts[0].file.uri"),
    (assistant(image(uri="https://example.com/a")), "messages[1].parts[0].image"),
    (
        assistant(call(id="t", name="f", arguments_json='{"a":')),
        "messages[1].parts[0].tool_call.arguments_json",
    ),
    (
        assistant(call(id="t", name="f", arguments_json="[1]")),
        "messages[1].parts[0].tool_call.arguments_json",
    ),
    (assistant(call(name="f")), "messages[1].parts[0].tool_call.id"),
    (assistant(SIGNED), "messages[1].parts[0].cache_breakpoint"),
    (ask(messages=[said(v1.ROLE_TOOL)]), "messages[0].parts"),
    (ask(messages=[said(v1.ROLE_TOOL, v1.Part(text="x"))]), "messages[0].parts[0].text"),
    (
        ask(messages=[said(v1.ROLE_TOOL, EMPTY_RESULT_ID)]),
        "messages[0].parts[0].tool_result.tool_call_id",
    ),
    (
        ask(messages=[said(v1.ROLE_TOOL, RESULT_WITH_AUDIO)]),
        "messages[0].parts[0].tool_result.parts[0].audio",
    ),
    (
        ask(tools=[v1.Tool(name="f"), v1.Tool(name="g", parameters_json="{")]),
        "tools[1].parameters_json",
    ),
    (ask(tools=[v1.Tool(name="f", parameters_json="true")]), "tools[0].parameters_json"),
    (ask(tool_choice=v1.ToolChoice(mode=v1.TOOL_CHOICE_MODE_REQUIRED)), "tool_choice"),
    (
        ask(response_format=v1.ResponseFormat(json_object=v1.JsonObject())),
        "response_format.json_object",
    ),
    (
        ask(response_format=v1.ResponseFormat(json_schema=v1.JsonSchema(name="x"))),
        "response_format.json_schema.schema_json",
    ),
    (options(model="other"), "provider_options.model"),
    (options(messages=[]), "provider_options.messages"),
    (options(system="x"), "provider_options.system"),
    (options(stream=True), "provider_options.stream"),
    (options(max_tokens=1), "provider_options.max_tokens"),
    (options(anthropic_version="x"), "provider_options.anthropic_version"),
    (options(thing={"deep": [float("nan")]}), "provider_options.thing.deep[0]"),
]


@pytest.mark.parametrize(("request_", "field"), REFUSED, ids=[field for _, field in REFUSED])
def test_what_the_vendor_cannot_be_told_is_refused_by_name(
    request_: v1.GenerateRequest, field: str
) -> None:
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_generate(request_, TARGET, stream=False)
    assert caught.value.reason == v1.ERROR_REASON_INVALID_REQUEST
    assert [violation.field for violation in caught.value.violations] == [field]
    assert not isinstance(caught.value, UpstreamError)


def test_embeddings_are_not_offered() -> None:
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_embed(v1.EmbedRequest(model="m", inputs=["x"]), TARGET)
    assert caught.value.reason == v1.ERROR_REASON_INVALID_REQUEST
    assert caught.value.violations[0].field == "model"
    with pytest.raises(UpstreamError) as upstream:
        CODEC.decode_embed(b"{}", v1.EmbedResponse())
    assert upstream.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


def test_zero_is_sent_and_unset_is_not() -> None:
    assert sent(config(temperature=0.0))["temperature"] == 0
    assert sent(config(temperature=1.0))["temperature"] == 1
    assert "temperature" not in sent(config(top_p=0.5))
    assert {"seed", "presence_penalty", "frequency_penalty", "stop_sequences"}.isdisjoint(
        sent(config(presence_penalty=0.0, frequency_penalty=0.0))
    )


@pytest.mark.parametrize(
    ("limit", "model_limit", "max_tokens"),
    [(None, None, 4096), (None, 64000, 64000), (7, 64000, 7), (7, None, 7)],
)
def test_the_output_limit_is_always_sent(
    limit: int | None, model_limit: int | None, max_tokens: int
) -> None:
    target = CodecTarget("m", max_output_tokens=model_limit)
    assert sent(config(max_output_tokens=limit), target)["max_tokens"] == max_tokens


def effort(value: v1.ReasoningEffort.ValueType, limit: int | None = None) -> v1.GenerateRequest:
    return reasoning(limit=limit, effort=value)


@pytest.mark.parametrize(
    ("request_", "thinking", "word", "max_tokens"),
    [
        (effort(v1.REASONING_EFFORT_MINIMAL), {"type": "adaptive"}, "low", 4096),
        (effort(v1.REASONING_EFFORT_LOW), {"type": "adaptive"}, "low", 4096),
        (effort(v1.REASONING_EFFORT_MEDIUM), {"type": "adaptive"}, "medium", 4096),
        (effort(v1.REASONING_EFFORT_HIGH), {"type": "adaptive"}, "high", 4096),
        (effort(v1.REASONING_EFFORT_NONE), {"type": "disabled"}, None, 4096),
        (reasoning(budget_tokens=0), {"type": "disabled"}, None, 4096),
        (
            reasoning(budget_tokens=0, effort=v1.REASONING_EFFORT_LOW),
            {"type": "disabled"},
            "low",
            4096,
        ),
        (reasoning(budget_tokens=5000), {"type": "enabled", "budget_tokens": 5000}, None, 9096),
        (
            reasoning(limit=6000, budget_tokens=5000, effort=v1.REASONING_EFFORT_HIGH),
            {"type": "enabled", "budget_tokens": 5000},
            "high",
            6000,
        ),
        (
            reasoning(include_reasoning=True),
            {"type": "adaptive", "display": "summarized"},
            None,
            4096,
        ),
        (reasoning(), None, None, 4096),
    ],
)
def test_reasoning(
    request_: v1.GenerateRequest, thinking: Any, word: str | None, max_tokens: int
) -> None:
    body = sent(request_)
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == word
    assert body["max_tokens"] == max_tokens


@pytest.mark.parametrize(
    ("request_", "thinking", "max_tokens"),
    [
        (effort(v1.REASONING_EFFORT_MINIMAL), 1024, 5120),
        (effort(v1.REASONING_EFFORT_LOW), 2048, 6144),
        (effort(v1.REASONING_EFFORT_MEDIUM), 8192, 12288),
        (effort(v1.REASONING_EFFORT_HIGH), 24576, 28672),
        (effort(v1.REASONING_EFFORT_HIGH, limit=1025), 1024, 1025),
        (effort(v1.REASONING_EFFORT_HIGH, limit=2000), 1500, 2000),
        (reasoning(budget_tokens=1024, effort=v1.REASONING_EFFORT_HIGH), 1024, 5120),
        (reasoning(include_reasoning=True), None, 4096),
    ],
)
def test_effort_as_budget(
    request_: v1.GenerateRequest, thinking: int | None, max_tokens: int
) -> None:
    body = sent(request_, CodecTarget("m", flags={"effort": "budget"}))
    assert body.get("thinking", {}).get("budget_tokens") == thinking
    assert body["max_tokens"] == max_tokens
    assert "output_config" not in body


def test_a_limit_too_small_to_think_in_is_refused() -> None:
    target = CodecTarget("m", flags={"effort": "budget"})
    with pytest.raises(TrunklineError) as caught:
        sent(effort(v1.REASONING_EFFORT_LOW, limit=1024), target)
    assert caught.value.violations[0].field == "config.max_output_tokens"


def test_hosts_without_the_display_field_do_not_receive_it() -> None:
    target = CodecTarget("m", flags={"thinking_display": False})
    body = sent(reasoning(budget_tokens=1024, include_reasoning=True), target)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 1024}


AUTO, NONE, REQUIRED = (
    v1.TOOL_CHOICE_MODE_AUTO,
    v1.TOOL_CHOICE_MODE_NONE,
    v1.TOOL_CHOICE_MODE_REQUIRED,
)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (v1.ToolChoice(), {"type": "auto"}),
        (v1.ToolChoice(mode=AUTO), {"type": "auto"}),
        (v1.ToolChoice(disable_parallel=True), {"type": "auto", "disable_parallel_tool_use": True}),
        (v1.ToolChoice(mode=NONE, disable_parallel=True), {"type": "none"}),
        (v1.ToolChoice(mode=REQUIRED), {"type": "any"}),
        (
            v1.ToolChoice(mode=REQUIRED, name="f", disable_parallel=True),
            {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_tool_choice(choice: v1.ToolChoice, expected: Any) -> None:
    assert sent(ask(tools=[v1.Tool(name="f")], tool_choice=choice))["tool_choice"] == expected


def test_a_choice_that_asks_nothing_is_not_sent_without_tools() -> None:
    assert "tool_choice" not in sent(ask(tool_choice=v1.ToolChoice(mode=NONE)))
    server_tool = options(tools=[{"type": "web_search_20250305", "name": "web_search"}])
    server_tool.tool_choice.mode = REQUIRED
    assert sent(server_tool)["tool_choice"] == {"type": "any"}


def test_schemas_and_arguments_keep_their_text() -> None:
    schema = '{"type":"object","properties":{"z":{},"a":{"maximum":123456789012345678901.0}}}'
    arguments = '{"z": 1.10, "a": 123456789012345678901}'
    request = assistant(call(id="t", name="f", arguments_json=arguments))
    request.tools.add(name="f", parameters_json=schema)
    request.response_format.json_schema.schema_json = schema
    body = CODEC.encode_generate(request, TARGET, stream=False).body
    assert body.count(schema.encode()) == 2
    assert body.count(arguments.encode()) == 1


def test_different_ids_stay_different() -> None:
    ids = ["a.b", "a_b", "a:b", "a-b", "ä", "a b"]
    turn = sent(assistant(*[call(id=each, name="f") for each in ids]))["messages"][1]
    sent_ids = [block["id"] for block in turn["content"]]
    assert sent_ids[1] == "a_b"
    assert sent_ids[3] == "a-b"
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", each) for each in sent_ids)
    assert len(set(sent_ids)) == len(ids)


def test_results_come_before_the_words_of_their_turn() -> None:
    def result(call_id: str) -> v1.Message:
        return said(v1.ROLE_TOOL, v1.Part(tool_result=v1.ToolResult(tool_call_id=call_id)))

    words = said(v1.ROLE_USER, v1.Part(text="w"))
    body = sent(ask(messages=[result("1"), words, result("2"), words, result("3")]))
    (turn,) = body["messages"]
    assert [block.get("tool_use_id", "w") for block in turn["content"]] == ["1", "2", "3", "w", "w"]


def test_options_are_merged_into_the_objects_of_the_request() -> None:
    request = options(output_config={"task_budget": 9, "effort": "max"}, thinking="replaced")
    request.config.reasoning.effort = v1.REASONING_EFFORT_LOW
    request.response_format.json_schema.schema_json = "{}"
    body = sent(request)
    schema = {"type": "json_schema", "schema": {}}
    assert body["output_config"] == {"effort": "max", "format": schema, "task_budget": 9}
    assert body["thinking"] == "replaced"


def test_a_model_in_the_path_is_encoded() -> None:
    target = CodecTarget("a/b c@1?", flags={"path": "/models/{model}:rawPredict"})
    path = CODEC.encode_generate(ask(), target, stream=True).path
    assert path == "/models/a%2Fb%20c@1%3F:rawPredict"


def test_what_says_nothing_is_not_sent() -> None:
    unsigned = v1.Part(
        reasoning=v1.Reasoning(text="Hm."), signature=v1.Signature(dialect="anthropic")
    )
    request = assistant(unsigned, v1.Part(text="Yes."))
    request.response_format.SetInParent()
    body = sent(request)
    assert body["messages"][1]["content"] == [{"type": "text", "text": "Yes."}]
    assert "output_config" not in body


def test_a_file_that_is_a_picture_is_sent_as_one() -> None:
    content = [
        file(data=b"png", media_type="image/png", filename="a.png"),
        file(uri="data:image/png;base64,cG5n"),
    ]
    blocks = sent(user(*content))["messages"][0]["content"]
    source = {"type": "base64", "media_type": "image/png", "data": "cG5n"}
    assert blocks == [{"type": "image", "source": source}] * 2


def test_the_person_is_not_named_to_the_vendor() -> None:
    request = ask(context=v1.CallContext(user_id="u-1", agent_id="agent"), request_id="r-1")
    request.messages[0].name = "Ada"
    body = CODEC.encode_generate(request, TARGET, stream=False).body
    assert not any(word in body for word in (b"u-1", b"agent", b"r-1", b"Ada"))


def test_large_pictures_are_sent_whole() -> None:
    data = bytes(range(256)) * 4096
    body = sent(user(image(data=data, media_type="image/png")))
    source = body["messages"][0]["content"][0]["source"]
    assert base64.b64decode(source["data"], validate=True) == data


def test_the_user_is_named_only_where_the_provider_is_configured_to_hear() -> None:
    request = ask(context=v1.CallContext(user_id="u-1"))
    assert "metadata" not in sent(request)
    told = CodecTarget("claude-sonnet-4-5", flags={"send_user_id": True})
    assert sent(request, told)["metadata"] == {"user_id": "u-1"}
    assert "metadata" not in sent(ask(), told)
    request.provider_options["metadata"] = {"user_id": "chosen"}
    assert sent(request, told)["metadata"] == {"user_id": "chosen"}
