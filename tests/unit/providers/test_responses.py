"""The Responses API's codec beyond the golden cases: refusals, failures, and broken streams."""

import json
from typing import Any

import pytest

from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.openai_responses import OpenAIResponsesCodec

CODEC = OpenAIResponsesCodec()
TARGET = CodecTarget("m")
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello.", "annotations": []}],
}
CALL = {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}


def ask(**fields: Any) -> v1.GenerateRequest:
    said = v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text="hi")])
    return v1.GenerateRequest(messages=[said], **fields)


def refused(request: v1.GenerateRequest, target: CodecTarget = TARGET) -> str:
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_generate(request, target, stream=False)
    assert caught.value.reason == v1.ERROR_REASON_INVALID_REQUEST
    return caught.value.violations[0].field


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (v1.GenerationConfig(stop=["x"]), "config.stop"),
        (v1.GenerationConfig(seed=0), "config.seed"),
        (v1.GenerationConfig(top_k=1), "config.top_k"),
        (v1.GenerationConfig(presence_penalty=0.5), "config.presence_penalty"),
        (v1.GenerationConfig(frequency_penalty=-1), "config.frequency_penalty"),
        (
            v1.GenerationConfig(reasoning=v1.ReasoningConfig(budget_tokens=9)),
            "config.reasoning.budget_tokens",
        ),
    ],
)
def test_knobs_that_the_api_lacks_are_refused_by_name(
    config: v1.GenerationConfig, field: str
) -> None:
    assert refused(ask(config=config)) == field


def test_parts_that_have_no_place_are_refused_by_name() -> None:
    video = v1.Part(audio=v1.Audio(uri="https://example.com/a.wav", media_type="audio/wav"))
    request = ask()
    request.messages[0].parts.append(video)
    assert refused(request) == "messages[0].parts[1].audio"
    spoken = v1.Message(role=v1.ROLE_ASSISTANT, parts=[video])
    assert refused(v1.GenerateRequest(messages=[spoken])) == "messages[0].parts[0].audio"
    pictured = v1.Message(
        role=v1.ROLE_SYSTEM,
        parts=[v1.Part(text="x"), v1.Part(image=v1.Image(uri="https://example.com/a.png"))],
    )
    assert refused(v1.GenerateRequest(messages=[pictured])) == "messages[0].parts[1].image"


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (v1.VendorItem(dialect="openai_responses", type="x", json="[]"), "json"),
        (v1.VendorItem(dialect="openai_responses", type="x", json="{"), "json"),
        (v1.VendorItem(dialect="openai_responses", type="x", json='{"type":"y"}'), "type"),
    ],
)
def test_vendor_items_that_are_none_are_refused_by_name(item: v1.VendorItem, field: str) -> None:
    said = v1.Message(role=v1.ROLE_ASSISTANT, parts=[v1.Part(vendor_item=item)])
    where = refused(v1.GenerateRequest(messages=[said]))
    assert where == f"messages[0].parts[0].vendor_item.{field}"


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        (v1.BuiltinTool(type="function"), "tools[0].builtin"),
        (v1.BuiltinTool(type="mcp", options_json="[]"), "tools[0].builtin.options_json"),
        (v1.BuiltinTool(type="mcp", options_json='{"type":"x"}'), "tools[0].builtin.options_json"),
    ],
)
def test_builtin_tools_that_are_none_are_refused_by_name(tool: v1.BuiltinTool, field: str) -> None:
    assert refused(ask(tools=[v1.Tool(builtin=tool)])) == field


@pytest.mark.parametrize("name", ["background", "input", "model", "stream"])
def test_what_the_router_sets_cannot_be_replaced(name: str) -> None:
    request = ask()
    request.provider_options.update({name: True})
    assert refused(request) == f"provider_options.{name}"


def test_tampered_signatures_do_no_harm() -> None:
    values = ("[]", "{", '{"summary":"x"}', '{"summary":[-5,true]}', '{"id":7,"phase":[]}')
    for value in values:
        signature = v1.Signature(dialect="openai_responses", value=value)
        parts = [
            v1.Part(
                reasoning=v1.Reasoning(id="r", text="abc", redacted_data="e"), signature=signature
            ),
            v1.Part(text="said", signature=signature),
            v1.Part(tool_call=v1.ToolCall(id="c", name="f"), signature=signature),
        ]
        request = v1.GenerateRequest(messages=[v1.Message(role=v1.ROLE_ASSISTANT, parts=parts)])
        items = json.loads(CODEC.encode_generate(request, TARGET, stream=False).body)["input"]
        assert items[0]["summary"] == [{"type": "summary_text", "text": "abc"}]
        assert items[1] == {"role": "assistant", "content": "said"}
        assert items[2]["call_id"] == "c"


def body(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": "r1", "model": "m", "status": "completed", "output": list(items), **fields}


def decoded(document: Any) -> v1.GenerateResponse:
    response = v1.GenerateResponse()
    CODEC.decode_generate(json.dumps(document).encode(), response)
    return response


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"code": "server_error", "message": "x"}, v1.ERROR_REASON_SERVICE_UNAVAILABLE),
        ({"code": "rate_limit_exceeded", "message": "x"}, v1.ERROR_REASON_RATE_LIMIT),
        ({"code": "invalid_prompt", "message": "x"}, v1.ERROR_REASON_INVALID_REQUEST),
        (
            {"code": "invalid_prompt", "message": "Your prompt was flagged as violating a policy"},
            v1.ERROR_REASON_CONTENT_FILTER,
        ),
        ({"code": "image_too_large", "message": "x"}, v1.ERROR_REASON_INVALID_REQUEST),
        ({"code": "vector_store_timeout", "message": "x"}, v1.ERROR_REASON_TIMEOUT),
        (None, v1.ERROR_REASON_SERVICE_UNAVAILABLE),
    ],
)
def test_a_failed_response_is_a_failure_with_its_reason(
    error: dict[str, str] | None, reason: v1.ErrorReason.ValueType
) -> None:
    document = body(status="failed", error=error)
    with pytest.raises(UpstreamError) as caught:
        decoded(document)
    assert caught.value.reason == reason
    decoder = CODEC.stream_decoder()
    with pytest.raises(UpstreamError) as streamed:
        decoder.feed("", json.dumps({"type": "response.failed", "response": document}).encode())
    assert streamed.value.reason == reason


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_response_that_is_not_over_makes_no_sense(status: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        decoded(body(status=status))
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


@pytest.mark.parametrize("document", [{}, {"output": {}}, [], "x", {"output": None}])
def test_bodies_that_make_no_sense(document: Any) -> None:
    with pytest.raises(UpstreamError) as caught:
        decoded(document)
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        # Flat, as OpenAI documents it; with an object, as it sends it; as proxies send it.
        (
            {"type": "error", "code": "rate_limit_exceeded", "message": "slow"},
            v1.ERROR_REASON_RATE_LIMIT,
        ),
        (
            {"type": "error", "error": {"code": "insufficient_quota", "message": "no"}},
            v1.ERROR_REASON_QUOTA_EXCEEDED,
        ),
        ({"error": {"type": "server_error", "message": "x"}}, v1.ERROR_REASON_SERVICE_UNAVAILABLE),
    ],
)
def test_errors_within_a_stream(event: dict[str, Any], reason: v1.ErrorReason.ValueType) -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.stream_decoder().feed("", json.dumps(event).encode())
    assert caught.value.reason == reason
    assert caught.value.http_status == 200


def run(*events: dict[str, Any]) -> tuple[v1.Message, v1.StreamEnd]:
    decoder = CODEC.stream_decoder()
    assembler = MessageAssembler()
    for event in events:
        for delta in decoder.feed(event["type"], json.dumps(event).encode()):
            assembler.add(delta)
    return assembler.message(), decoder.finish()


def completed(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "response.completed", "response": body(*items, **fields)}


def added(item: dict[str, Any], at: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": at, "item": item}


def done(item: dict[str, Any], at: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": at, "item": item}


def text(delta: str) -> dict[str, Any]:
    at = {"output_index": 0, "content_index": 0}
    return {"type": "response.output_text.delta", **at, "delta": delta}


def test_a_stream_without_its_end_is_interrupted() -> None:
    for events in ([], [added(MESSAGE), text("Hel")], [done(MESSAGE)]):
        with pytest.raises(UpstreamError) as caught:
            run(*events)
        assert caught.value.reason == v1.ERROR_REASON_STREAM_INTERRUPTED


@pytest.mark.parametrize(
    "events",
    [
        # Whatever a host leaves out, the rest holds the whole.
        [completed(MESSAGE)],
        [done(MESSAGE), completed()],
        [text("Hello."), done(MESSAGE), completed(MESSAGE)],
        [added({**MESSAGE, "content": []}), text("Hel"), completed(MESSAGE)],
        [added({**MESSAGE, "content": []}), text("Hel"), text("lo."), done(MESSAGE), completed()],
        [{"type": "response.novelty", "output_index": 9}, done(MESSAGE), completed(MESSAGE)],
    ],
)
def test_what_deltas_leave_out_comes_with_the_end(events: list[dict[str, Any]]) -> None:
    message, end = run(*events)
    assert message == decoded(body(MESSAGE)).message
    assert end.finish_reason == v1.FINISH_REASON_STOP
    assert not end.HasField("usage")


def test_what_was_sent_stands_where_the_end_says_otherwise() -> None:
    message, _ = run(text("Hullo"), done(MESSAGE), completed(MESSAGE))
    assert message.parts[0].text == "Hullo"


def test_calls_that_are_cut_short_are_told_as_far_as_they_came() -> None:
    begun = {**CALL, "arguments": "", "status": "in_progress"}
    more = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"a'}
    cut = {
        "type": "response.incomplete",
        "response": body(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
    }
    message, end = run(added(begun), more, cut)
    assert message.parts[0].tool_call.arguments_json == '{"a'
    assert end.finish_reason == v1.FINISH_REASON_LENGTH
    assert end.vendor_finish_reason == "max_output_tokens"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{}"},
        {"type": "response.output_item.added", "output_index": 0},
        {"type": "response.output_item.done", "output_index": 0, "item": []},
        {"type": "response.output_text.delta", "output_index": "x", "delta": "a"},
        {"type": "response.output_text.delta", "output_index": -1, "delta": "a"},
        {"type": "response.completed"},
        {"type": "response.created", "response": 7},
    ],
)
def test_events_that_make_no_sense(event: dict[str, Any]) -> None:
    with pytest.raises(UpstreamError) as caught:
        run(event)
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (["computer_call"], v1.FINISH_REASON_TOOL_CALLS),
        (["local_shell_call", "local_shell_call_output"], v1.FINISH_REASON_STOP),
        (["shell_call"], v1.FINISH_REASON_TOOL_CALLS),
        (["shell_call", "shell_call_output"], v1.FINISH_REASON_STOP),
        (["mcp_approval_request"], v1.FINISH_REASON_TOOL_CALLS),
        (["mcp_call"], v1.FINISH_REASON_STOP),
        (["code_interpreter_call"], v1.FINISH_REASON_STOP),
    ],
)
def test_what_the_model_waits_for(items: list[str], reason: v1.FinishReason.ValueType) -> None:
    output = [{"type": kind, "id": f"i{at}", "call_id": "c1"} for at, kind in enumerate(items)]
    assert decoded(body(*output)).finish_reason == reason
    _, end = run(completed(*output))
    assert end.finish_reason == reason


def test_a_call_without_an_id_gets_one() -> None:
    nameless = {"type": "function_call", "name": "f", "arguments": "{}"}
    whole = decoded(body(nameless)).message
    streamed, _ = run({"type": "response.created", "response": body()}, completed(nameless))
    assert whole.parts[0].tool_call.id.startswith("call_")
    assert streamed == whole


def test_a_wrong_parameter_is_named_in_the_contracts_words() -> None:
    for param, field in (
        ("input[3].content", "messages"),
        ("max_output_tokens", "config.max_output_tokens"),
        ("text.format.schema", "response_format"),
        ("reasoning.effort", "config.reasoning"),
        ("tools[0].parameters", "tools"),
    ):
        error = {"message": "x", "type": "invalid_request_error", "param": param, "code": None}
        failure = CODEC.decode_error(400, {}, json.dumps({"error": error}).encode())
        assert failure.reason == v1.ERROR_REASON_INVALID_REQUEST
        assert failure.violations[0].field == field


def test_embeddings_are_those_of_the_other_openai_dialect() -> None:
    wire = CODEC.encode_embed(v1.EmbedRequest(inputs=["a"]), TARGET)
    assert wire.path == "/embeddings"
    response = v1.EmbedResponse()
    CODEC.decode_embed(b'{"data":[{"index":0,"embedding":[1.0]}],"model":"m"}', response)
    assert list(response.embeddings[0].values) == [1.0]
