"""What the Bedrock dialect refuses, and says of it; what it sends is pinned by golden files."""

import json
from typing import Any

import pytest
from google.protobuf import json_format

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.providers.bedrock import BedrockCodec
from trunkline_server.providers.codec import CodecTarget

CODEC = BedrockCodec()


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "ROLE_USER", "parts": list(parts)}


HI = user({"text": "hi"})
CALL = {"role": "ROLE_ASSISTANT", "parts": [{"toolCall": {"id": "a", "name": "f"}}]}
RESULT = {
    "role": "ROLE_TOOL",
    "parts": [{"toolResult": {"toolCallId": "a", "parts": [{"text": "r"}]}}],
}


def encode(
    request: dict[str, Any],
    flags: dict[str, str | int | bool] | None = None,
    *,
    stream: bool = False,
) -> Any:
    asked = json_format.ParseDict({"messages": [HI], **request}, v1.GenerateRequest())
    target = CodecTarget("model", None, flags or {})
    return json.loads(CODEC.encode_generate(asked, target, stream=stream).body)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"messages": [{"role": "ROLE_SYSTEM", "parts": [{"text": "s"}]}]}, "messages"),
        ({"messages": [{"parts": [{"text": "s"}]}]}, "messages[0].role"),
        ({"messages": [user({"text": " \n"})]}, "messages[0].parts"),
        ({"messages": [user({})]}, "messages[0].parts[0]"),
        ({"messages": [user({"toolCall": {"id": "a"}})]}, "messages[0].parts[0].tool_call"),
        ({"messages": [HI, {"role": "ROLE_TOOL", "parts": []}]}, "messages[1].parts"),
        (
            {"messages": [user({"image": {"uri": "https://x/a.png", "mediaType": "image/png"}})]},
            "messages[0].parts[0].image.uri",
        ),
        (
            {"messages": [user({"image": {"data": "AQID", "mediaType": "image/tiff"}})]},
            "messages[0].parts[0].image.media_type",
        ),
        (
            {
                "messages": [
                    user(
                        {
                            "image": {
                                "data": "AQID",
                                "mediaType": "image/png",
                                "detail": "IMAGE_DETAIL_HIGH",
                            }
                        }
                    )
                ]
            },
            "messages[0].parts[0].image.detail",
        ),
        (
            {"messages": [user({"image": {"mediaType": "image/png"}})]},
            "messages[0].parts[0].image",
        ),
        (
            {"messages": [user({"image": {"data": "", "mediaType": "image/png"}})]},
            "messages[0].parts[0].image",
        ),
        (
            {"messages": [user({"image": {"uri": "data:image/png;base64,%%"}})]},
            "messages[0].parts[0].image.uri",
        ),
        (
            {"messages": [user({"image": {"uri": "data:image/png"}})]},
            "messages[0].parts[0].image.uri",
        ),
        ({"messages": [user({"file": {"fileId": "f"}})]}, "messages[0].parts[0].file.file_id"),
        (
            {"messages": [user({"file": {"data": "AQID", "mediaType": "application/zip"}})]},
            "messages[0].parts[0].file.media_type",
        ),
        ({"messages": [user({"audio": {}})]}, "messages[0].parts[0].audio"),
        (
            {
                "messages": [
                    HI,
                    {
                        "role": "ROLE_ASSISTANT",
                        "parts": [{"toolCall": {"id": "a", "name": "f", "argumentsJson": "[1]"}}],
                    },
                ]
            },
            "messages[1].parts[0].tool_call.arguments_json",
        ),
        (
            {"messages": [HI, {"role": "ROLE_ASSISTANT", "parts": [{"toolCall": {"name": "f"}}]}]},
            "messages[1].parts[0].tool_call.id",
        ),
        (
            {
                "messages": [
                    HI,
                    CALL,
                    {
                        "role": "ROLE_TOOL",
                        "parts": [
                            {
                                "toolResult": {
                                    "toolCallId": "a",
                                    "parts": [{"audio": {"data": "AQID"}}],
                                }
                            }
                        ],
                    },
                ]
            },
            "messages[2].parts[0].tool_result.parts[0].audio",
        ),
        ({"config": {"temperature": 1.5}}, "config.temperature"),
        ({"config": {"topK": 5}}, "config.top_k"),
        ({"config": {"seed": "0"}}, "config.seed"),
        ({"config": {"presencePenalty": 1}}, "config.presence_penalty"),
        (
            {"config": {"reasoning": {"effort": "REASONING_EFFORT_LOW"}}},
            "config.reasoning.effort",
        ),
        ({"config": {"reasoning": {"budgetTokens": 2000}}}, "config.reasoning.budget_tokens"),
        ({"messages": [HI, CALL, RESULT]}, "tools"),
        (
            {
                "messages": [HI, CALL, RESULT],
                "tools": [{"name": "f"}],
                "toolChoice": {"mode": "TOOL_CHOICE_MODE_NONE"},
            },
            "tool_choice.mode",
        ),
        ({"toolChoice": {"mode": "TOOL_CHOICE_MODE_REQUIRED"}}, "tool_choice"),
        (
            {"tools": [{"name": "f"}], "toolChoice": {"disableParallel": True}},
            "tool_choice.disable_parallel",
        ),
        (
            {"tools": [{"name": "f", "parametersJson": "{"}]},
            "tools[0].parameters_json",
        ),
        (
            {"tools": [{"builtin": {"type": "t", "optionsJson": '{"a":1}'}}]},
            "tools[0].builtin.options_json",
        ),
        ({"responseFormat": {"jsonObject": {}}}, "response_format.json_object"),
        (
            {"responseFormat": {"jsonSchema": {}}},
            "response_format.json_schema.schema_json",
        ),
        (
            {"responseFormat": {"jsonSchema": {"schemaJson": "7"}}},
            "response_format.json_schema.schema_json",
        ),
        ({"providerOptions": {"messages": []}}, "provider_options.messages"),
        ({"providerOptions": {"top_k": 5}}, "provider_options.top_k"),
    ],
)
def test_what_is_refused_names_its_field(request_: dict[str, Any], field: str) -> None:
    with pytest.raises(TrunklineError) as caught:
        encode(request_)
    assert caught.value.reason == v1.ERROR_REASON_INVALID_REQUEST
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize(
    ("config", "flags", "field"),
    [
        ({"budgetTokens": 5}, {"family": "claude"}, "config.reasoning.budget_tokens"),
        (
            {"budgetTokens": 2000, "effort": "REASONING_EFFORT_NONE"},
            {"family": "claude"},
            "config.reasoning.budget_tokens",
        ),
        ({"budgetTokens": 2000}, {"family": "nova"}, "config.reasoning.budget_tokens"),
        ({"budgetTokens": 0}, {"family": "openai"}, "config.reasoning.budget_tokens"),
        ({"effort": "REASONING_EFFORT_NONE"}, {"family": "openai"}, "config.reasoning.effort"),
    ],
)
def test_reasoning_that_a_family_cannot_be_told(
    config: dict[str, Any], flags: dict[str, str | int | bool], field: str
) -> None:
    with pytest.raises(TrunklineError) as caught:
        encode({"config": {"reasoning": config}}, flags)
    assert caught.value.metadata["field"] == field


def test_budgets_and_the_output_limit_bound_each_other() -> None:
    flags: dict[str, str | int | bool] = {"family": "claude", "effort": "budget"}
    for limits, field in (
        ({"maxOutputTokens": 2000, "reasoning": {"budgetTokens": 2000}}, "budget_tokens"),
        (
            {"maxOutputTokens": 1024, "reasoning": {"effort": "REASONING_EFFORT_LOW"}},
            "max_output_tokens",
        ),
    ):
        with pytest.raises(TrunklineError) as caught:
            encode({"config": limits}, flags)
        assert caught.value.metadata["field"].endswith(field)


@pytest.mark.parametrize(
    ("family", "reasoning", "extra"),
    [
        ("claude", {"effort": "REASONING_EFFORT_NONE"}, {"thinking": {"type": "disabled"}}),
        ("claude", {"budgetTokens": 0}, {"thinking": {"type": "disabled"}}),
        (
            "claude",
            {"includeReasoning": True},
            {"thinking": {"type": "adaptive", "display": "summarized"}},
        ),
        ("nova", {"budgetTokens": 0}, {"reasoningConfig": {"type": "disabled"}}),
        ("nova", {"includeReasoning": True}, None),
        ("openai", {"includeReasoning": True}, None),
        ("", {"effort": "REASONING_EFFORT_NONE"}, None),
        ("", {"includeReasoning": True}, None),
    ],
)
def test_thinking_turned_off_or_merely_shown(
    family: str, reasoning: dict[str, Any], extra: dict[str, Any] | None
) -> None:
    body = encode({"config": {"reasoning": reasoning}}, {"family": family})
    assert body.get("additionalModelRequestFields") == extra


def test_penalties_of_zero_need_no_field() -> None:
    body = encode({"config": {"presencePenalty": 0, "frequencyPenalty": 0}})
    assert body == {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}


def test_callers_cannot_replace_the_operator_s_guardrail() -> None:
    options = {"guardrailConfig": {"guardrailIdentifier": "weak", "guardrailVersion": "1"}}
    with pytest.raises(TrunklineError) as caught:
        encode({"providerOptions": options}, {"guardrail_id": "strict"})
    assert caught.value.metadata["field"] == "provider_options.guardrailConfig"


def test_tools_of_the_options_are_joined_to_the_request_s() -> None:
    more = {"toolConfig": {"tools": [{"cachePoint": {"type": "default"}}]}}
    body = encode({"tools": [{"name": "f"}], "providerOptions": more})
    assert [list(tool) for tool in body["toolConfig"]["tools"]] == [["toolSpec"], ["cachePoint"]]


def test_a_system_prompt_before_an_assistant_s_words() -> None:
    messages = [
        {"role": "ROLE_SYSTEM", "parts": [{"text": "s"}]},
        {"role": "ROLE_ASSISTANT", "parts": [{"text": "a"}]},
        HI,
    ]
    body = encode({"messages": messages}, {"system_in_user": True})
    assert body["messages"][0] == {"role": "user", "content": [{"text": "s"}]}
    assert "system" not in body


def test_long_names_of_documents_stay_within_bounds_and_apart() -> None:
    document = {"data": "AQID", "mediaType": "application/pdf", "filename": "n" * 300 + ".pdf"}
    body = encode({"messages": [user({"file": document}, {"file": document}, {"text": "x"})]})
    names = [block["document"]["name"] for block in body["messages"][0]["content"][:2]]
    assert len(set(names)) == 2
    assert max(map(len, names)) <= 200


@pytest.mark.parametrize(
    ("request_", "flags", "field"),
    [
        ({"inputs": ["a"]}, {}, "model"),
        ({"inputs": ["a", "b"]}, {"embed_as": "titan"}, "inputs"),
        ({"inputs": ["a"] * 97}, {"embed_as": "cohere"}, "inputs"),
        ({"inputs": ["a"], "dimensions": 8}, {"embed_as": "cohere"}, "dimensions"),
        ({"inputs": ["a"], "dimensions": 8}, {"embed_as": "titan_v1"}, "dimensions"),
        (
            {"inputs": ["a"], "providerOptions": {"inputText": "b"}},
            {"embed_as": "titan"},
            "provider_options.inputText",
        ),
    ],
)
def test_vectors_that_cannot_be_asked_for(
    request_: dict[str, Any], flags: dict[str, str | int | bool], field: str
) -> None:
    request = json_format.ParseDict(request_, v1.EmbedRequest())
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_embed(request, CodecTarget("m", None, flags))
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize(
    ("request_", "form", "field"),
    [
        ({}, "", "model"),
        ({"mask": {"data": "AQID"}}, "titan", "mask"),
        ({"size": "16:9"}, "titan", "size"),
        ({"style": "x"}, "titan", "style"),
        ({"mediaType": "image/jpeg"}, "titan", "media_type"),
        ({"images": [{"uri": "https://x/a.png"}]}, "titan", "images[0].uri"),
        ({"images": [{}]}, "titan", "images[0]"),
        ({"images": [{"data": "AQID"}], "style": "x"}, "canvas", "style"),
        ({"size": "1024x1024"}, "stability", "size"),
        ({"quality": "hd"}, "stability", "quality"),
        ({"count": 2}, "stability", "count"),
        ({"mediaType": "image/gif"}, "stability", "media_type"),
        ({"images": [{"data": "AQID"}] * 2}, "stability", "images"),
        ({"providerOptions": {"prompt": "x"}}, "stability", "provider_options.prompt"),
    ],
)
def test_pictures_that_cannot_be_asked_for(request_: dict[str, Any], form: str, field: str) -> None:
    request = json_format.ParseDict({"prompt": "a cat", **request_}, v1.GenerateImageRequest())
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_image(request, CodecTarget("m", None, {"image_as": form}))
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize(
    ("request_", "form", "field"),
    [
        ({}, "", "model"),
        ({"maxTokensPerDocument": 9}, "cohere", "max_tokens_per_document"),
        ({"providerOptions": {"query": "x"}}, "amazon", "provider_options.query"),
    ],
)
def test_orders_that_cannot_be_asked_for(request_: dict[str, Any], form: str, field: str) -> None:
    request = json_format.ParseDict({"query": "q", **request_}, v1.RerankRequest())
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_rerank(request, CodecTarget("m", None, {"rerank_as": form}))
    assert caught.value.metadata["field"] == field
