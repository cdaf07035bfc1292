"""Fields of chat completion requests, and the requests of the contract that they are."""

import base64
from typing import Any

from trunkline import v1

_BYTES = b"\x00\x01"
_BASE64 = base64.b64encode(_BYTES).decode()


def _config(**fields: Any) -> v1.GenerateRequest:
    return v1.GenerateRequest(config=v1.GenerationConfig(**fields))


def _options(**fields: Any) -> v1.GenerateRequest:
    request = v1.GenerateRequest()
    request.provider_options.update(fields)
    return request


def _conversation(*messages: v1.Message) -> v1.GenerateRequest:
    return v1.GenerateRequest(messages=messages)


def _said(*parts: v1.Part, role: v1.Role.ValueType = v1.ROLE_USER) -> v1.Message:
    return v1.Message(role=role, parts=parts)


_CALL = v1.Part(tool_call=v1.ToolCall(id="t1", name="look", arguments_json='{"a": 1}'))
_CONTENT = [
    {"type": "text", "text": "q"},
    {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "high"}},
    {"type": "image_url", "image_url": {"url": f"data:image/gif;base64,{_BASE64}"}},
    {"type": "input_audio", "input_audio": {"data": _BASE64, "format": "mp3"}},
    {"type": "file", "file": {"file_id": "file-1"}},
    {"type": "file", "file": {"file_data": f"data:text/plain;base64,{_BASE64}", "filename": "a"}},
    {"type": "file", "file": {"file_data": _BASE64}},
]

SAMPLES: list[tuple[dict[str, Any], v1.GenerateRequest]] = [
    ({"temperature": 0, "top_p": 0.5}, _config(temperature=0, top_p=0.5)),
    ({"temperature": None}, v1.GenerateRequest()),
    ({"max_tokens": 5}, _config(max_output_tokens=5)),
    ({"max_tokens": 5, "max_completion_tokens": 6}, _config(max_output_tokens=6)),
    ({"stop": "a"}, _config(stop=["a"])),
    ({"stop": ["a", "b"], "seed": 2**40}, _config(stop=["a", "b"], seed=2**40)),
    (
        {"presence_penalty": -1, "frequency_penalty": 1},
        _config(presence_penalty=-1, frequency_penalty=1),
    ),
    (
        {"reasoning_effort": "low"},
        _config(reasoning=v1.ReasoningConfig(effort=v1.REASONING_EFFORT_LOW)),
    ),
    ({"n": 1, "logprobs": False, "modalities": ["text"]}, v1.GenerateRequest()),
    ({"user": "u"}, v1.GenerateRequest(context=v1.CallContext(user_id="u"))),
    ({"metadata": {"a": "b"}}, v1.GenerateRequest(context=v1.CallContext(labels={"a": "b"}))),
    (
        {"service_tier": "flex", "logit_bias": {"5": -100}},
        _options(service_tier="flex", logit_bias={"5": -100}),
    ),
    (
        {
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "look",
                        "description": "d",
                        "strict": True,
                        "parameters": {"type": "object", "properties": {"b": {}, "a": {}}},
                    },
                }
            ],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
        },
        v1.GenerateRequest(
            tools=[
                v1.Tool(
                    name="look",
                    description="d",
                    strict=True,
                    # The order of properties is the caller's.
                    parameters_json='{"type":"object","properties":{"b":{},"a":{}}}',
                )
            ],
            tool_choice=v1.ToolChoice(mode=v1.TOOL_CHOICE_MODE_AUTO, disable_parallel=True),
        ),
    ),
    (
        {"tool_choice": {"type": "function", "function": {"name": "look"}}},
        v1.GenerateRequest(
            tool_choice=v1.ToolChoice(mode=v1.TOOL_CHOICE_MODE_REQUIRED, name="look")
        ),
    ),
    ({"response_format": {"type": "text"}}, v1.GenerateRequest()),
    (
        {"response_format": {"type": "json_object"}},
        v1.GenerateRequest(response_format=v1.ResponseFormat(json_object=v1.JsonObject())),
    ),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "r",
                    "strict": True,
                    "schema": {"type": "object"},
                },
            }
        },
        v1.GenerateRequest(
            response_format=v1.ResponseFormat(
                json_schema=v1.JsonSchema(name="r", strict=True, schema_json='{"type":"object"}')
            )
        ),
    ),
    (
        {"messages": [{"role": "user", "name": "ann", "content": _CONTENT}]},
        _conversation(
            v1.Message(
                role=v1.ROLE_USER,
                name="ann",
                parts=[
                    v1.Part(text="q"),
                    v1.Part(image=v1.Image(uri="https://a/b.png", detail=v1.IMAGE_DETAIL_HIGH)),
                    v1.Part(image=v1.Image(data=_BYTES, media_type="image/gif")),
                    v1.Part(audio=v1.Audio(data=_BYTES, media_type="audio/mpeg")),
                    v1.Part(file=v1.File(file_id="file-1")),
                    v1.Part(file=v1.File(data=_BYTES, media_type="text/plain", filename="a")),
                    v1.Part(file=v1.File(data=_BYTES, media_type="application/pdf")),
                ],
            )
        ),
    ),
    (
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "q"},
                {
                    "role": "assistant",
                    "content": None,
                    "refusal": None,
                    "annotations": [],
                    "reasoning_content": "hm",
                    "tool_calls": [
                        {
                            "id": "t1",
                            "type": "function",
                            "function": {"name": "look", "arguments": '{"a": 1}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "t1", "content": [{"type": "text", "text": "r"}]},
            ]
        },
        _conversation(
            _said(v1.Part(text="s"), role=v1.ROLE_SYSTEM),
            _said(v1.Part(text="q")),
            _said(v1.Part(reasoning=v1.Reasoning(text="hm")), _CALL, role=v1.ROLE_ASSISTANT),
            _said(
                # Some vendors match results by name: it is that of the call.
                v1.Part(
                    tool_result=v1.ToolResult(
                        tool_call_id="t1", name="look", parts=[v1.Part(text="r")]
                    )
                ),
                role=v1.ROLE_TOOL,
            ),
        ),
    ),
    (
        {
            "trunkline": {
                "request_id": "r1",
                "routing": {"no_fallback": True},
                "config": {"top_k": 5},
            },
            "temperature": 1,
        },
        v1.GenerateRequest(
            request_id="r1",
            routing=v1.RoutingOptions(no_fallback=True),
            config=v1.GenerationConfig(top_k=5, temperature=1),
        ),
    ),
]
