"""Golden cases of the Cohere dialect: request to body, and reply, whole and streamed, to answer.

Requests and replies are valid by the types of the vendor's own SDK, too.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from tests.golden.cohere import sdk_oracle
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.providers.codec import Codec, CodecTarget
from trunkline_server.providers.cohere import CohereCodec

CODEC: Codec = CohereCodec()
FOLDER = Path(__file__).parent
TARGET = CodecTarget("vendor-model")


def cases(kind: str) -> list[Any]:
    paths = sorted((FOLDER / kind).glob("*.json"))
    assert paths, f"no cases of {kind}"
    return [pytest.param(json.loads(path.read_text("utf-8")), id=path.stem) for path in paths]


@pytest.mark.parametrize("case", cases("requests"))
def test_request(case: dict[str, Any]) -> None:
    request = json_format.ParseDict(case["request"], v1.GenerateRequest())
    before = request.SerializeToString(deterministic=True)
    wire = CODEC.encode_generate(request, TARGET, stream=case["stream"])
    body = json.loads(wire.body)
    assert json.dumps(body, sort_keys=True) == json.dumps(case["body"], sort_keys=True)
    assert (wire.method, wire.path, wire.headers) == ("POST", case["path"], ())
    assert request.SerializeToString(deterministic=True) == before
    sdk_oracle.check_chat(body)


@pytest.mark.parametrize("case", cases("replies"))
def test_whole_reply(case: dict[str, Any]) -> None:
    response = v1.GenerateResponse()
    CODEC.decode_generate(json.dumps(case["whole"]).encode(), response)
    assert response == json_format.ParseDict(case["response"], v1.GenerateResponse())
    sdk_oracle.read_chat(case["whole"])


@pytest.mark.parametrize("case", cases("replies"))
def test_streamed_reply(case: dict[str, Any]) -> None:
    decoder = CODEC.stream_decoder()
    assembler = MessageAssembler()
    for event in case["events"]:
        sdk_oracle.read_event(event)
        for delta in decoder.feed(event["type"], json.dumps(event).encode()):
            assembler.add(delta)
    end = decoder.finish()
    wanted = json_format.ParseDict(case["response"], v1.GenerateResponse())
    assert assembler.message() == wanted.message
    assert (end.finish_reason, end.vendor_finish_reason) == (
        wanted.finish_reason,
        wanted.vendor_finish_reason,
    )
    assert end.HasField("usage") == wanted.HasField("usage")
    assert end.usage == wanted.usage == decoder.usage
    assert decoder.response_id == "r-1"


@pytest.mark.parametrize("case", cases("embeddings"))
def test_embeddings(case: dict[str, Any]) -> None:
    request = json_format.ParseDict(case["request"], v1.EmbedRequest())
    wire = CODEC.encode_embed(request, TARGET)
    assert (wire.path, json.loads(wire.body)) == (case["path"], case["body"])
    sdk_oracle.check_embed(case["body"])
    response = v1.EmbedResponse()
    CODEC.decode_embed(json.dumps(case["reply"]).encode(), response)
    assert response == json_format.ParseDict(case["response"], v1.EmbedResponse())


@pytest.mark.parametrize("case", cases("orders"))
def test_orders(case: dict[str, Any]) -> None:
    codec = CohereCodec()
    request = json_format.ParseDict(case["request"], v1.RerankRequest())
    wire = codec.encode_rerank(request, TARGET)
    assert (wire.path, json.loads(wire.body)) == (case["path"], case["body"])
    sdk_oracle.check_order(case["body"])
    response = v1.RerankResponse()
    codec.decode_rerank(json.dumps(case["reply"]).encode(), request, response)
    assert response == json_format.ParseDict(case["response"], v1.RerankResponse())


ERRORS = json.loads((FOLDER / "errors.json").read_text("utf-8"))["cases"]


@pytest.mark.parametrize("case", ERRORS.values(), ids=ERRORS.keys())
def test_errors_as_documented(case: dict[str, Any]) -> None:
    body = json.dumps(case["body"]).encode()
    error = CODEC.decode_error(case["status"], case.get("headers", {}), body)
    assert v1.ErrorReason.Name(error.reason) == f"ERROR_REASON_{case['reason']}"
    assert error.http_status == case["status"]
    assert [violation.field for violation in error.violations] == (
        [case["field"]] if "field" in case else []
    )
    assert error.retry_after == case.get("retry_after")
    assert error.provider_request_id == case.get("request_id", "")


# What the vendor says inside a stream, as its SDK's types have it; nothing of it was recorded.
FAILED_STREAMS: dict[str, tuple[dict[str, Any], str]] = {
    "ended by a failure": (
        {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "internal error"}},
        "SERVICE_UNAVAILABLE",
    ),
    "ended by a failure without words": (
        {"type": "message-end", "delta": {"finish_reason": "ERROR"}},
        "SERVICE_UNAVAILABLE",
    ),
    "out of time": ({"type": "message-end", "delta": {"finish_reason": "TIMEOUT"}}, "TIMEOUT"),
    "not an event": ({"message": "internal server error"}, "SERVICE_UNAVAILABLE"),
}


@pytest.mark.parametrize("event", FAILED_STREAMS.values(), ids=FAILED_STREAMS.keys())
def test_failures_inside_a_stream(event: tuple[dict[str, Any], str]) -> None:
    body, reason = event
    decoder = CODEC.stream_decoder()
    with pytest.raises(UpstreamError) as caught:
        decoder.feed("", json.dumps(body).encode())
    assert v1.ErrorReason.Name(caught.value.reason) == f"ERROR_REASON_{reason}"
    assert caught.value.http_status == 200


def test_a_stream_without_its_end_is_cut() -> None:
    decoder = CODEC.stream_decoder()
    decoder.feed("message-start", b'{"id":"r-1","type":"message-start"}')
    decoder.feed("", b"[DONE]")
    with pytest.raises(UpstreamError) as caught:
        decoder.finish()
    assert caught.value.reason == v1.ERROR_REASON_STREAM_INTERRUPTED


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "BAD_PROVIDER_RESPONSE"),
        (b"[]", "BAD_PROVIDER_RESPONSE"),
        (b'{"message": "internal error"}', "BAD_PROVIDER_RESPONSE"),
        (b'{"message": {"tool_calls": [{"id": "a"}]}}', "BAD_PROVIDER_RESPONSE"),
        (b'{"message": {"content": []}, "finish_reason": "ERROR"}', "SERVICE_UNAVAILABLE"),
    ],
)
def test_answers_that_are_none(body: bytes, reason: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.decode_generate(body, v1.GenerateResponse())
    assert v1.ErrorReason.Name(caught.value.reason) == f"ERROR_REASON_{reason}"


def _user(**part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "ROLE_USER", "parts": [part]}]}


HI = _user(text="Hi")
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "sound": (
        _user(audio={"data": "AAAA", "media_type": "audio/wav"}),
        "messages[0].parts[0].audio",
    ),
    "a document that is no text": (
        _user(file={"data": "AAAA", "media_type": "application/pdf"}),
        "messages[0].parts[0].file.media_type",
    ),
    "a document by reference": (
        _user(file={"uri": "https://example.com/a.txt"}),
        "messages[0].parts[0].file",
    ),
    "a picture elsewhere": (
        _user(image={"uri": "gs://bucket/a.png"}),
        "messages[0].parts[0].image.uri",
    ),
    "too many stop texts": ({**HI, "config": {"stop": list("abcdef")}}, "config.stop"),
    "a penalty below zero": ({**HI, "config": {"presence_penalty": -1}}, "config.presence_penalty"),
    "one tool demanded": (
        {
            **HI,
            "tools": [{"name": "a"}],
            "tool_choice": {"mode": "TOOL_CHOICE_MODE_REQUIRED", "name": "a"},
        },
        "tool_choice.name",
    ),
    "one call at a time": (
        {**HI, "tools": [{"name": "a"}], "tool_choice": {"disable_parallel": True}},
        "tool_choice.disable_parallel",
    ),
    "some schemas strict": (
        {**HI, "tools": [{"name": "a", "strict": True}, {"name": "b"}]},
        "tools",
    ),
    "a tool of the vendor's": (
        {**HI, "tools": [{"builtin": {"type": "search"}}]},
        "tools[0].builtin",
    ),
    "a schema that is none": (
        {**HI, "response_format": {"json_schema": {"schema_json": "[]"}}},
        "response_format.json_schema.schema_json",
    ),
    "another model": ({**HI, "provider_options": {"model": "x"}}, "provider_options.model"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_what_the_dialect_cannot_carry_is_refused_by_its_field(
    case: tuple[dict[str, Any], str],
) -> None:
    request, field = case
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_generate(
            json_format.ParseDict(request, v1.GenerateRequest()), TARGET, stream=False
        )
    assert caught.value.reason == v1.ERROR_REASON_INVALID_REQUEST
    assert [violation.field for violation in caught.value.violations] == [field]


def test_too_many_inputs_are_refused() -> None:
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_embed(v1.EmbedRequest(inputs=["a"] * 97), TARGET)
    assert [violation.field for violation in caught.value.violations] == ["inputs"]


@pytest.mark.parametrize(
    "results",
    [
        [{"index": 2, "relevance_score": 0.5}],
        [{"index": 0, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.4}],
        [{"index": True, "relevance_score": 0.5}],
        [{"index": 0, "relevance_score": "high"}],
        [None],
        None,
    ],
)
def test_an_order_of_other_documents_is_none(results: Any) -> None:
    body = json.dumps({"results": results}).encode()
    with pytest.raises(UpstreamError) as caught:
        CohereCodec().decode_rerank(
            body, v1.RerankRequest(documents=["a", "b"]), v1.RerankResponse()
        )
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
