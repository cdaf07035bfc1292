"""Golden cases of the OpenAI dialect: request to body, and reply, whole and streamed, to answer.

A case without flags is also a valid request by the types of OpenAI's own SDK.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from openai.types import chat, embedding_create_params
from openai.types.chat import completion_create_params
from pydantic import TypeAdapter

from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.catalogue.rows import built_in_rows as provider_rows
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.codec import Codec, CodecTarget
from trunkline_server.providers.openai_chat import OpenAIChatCodec

CODEC: Codec = OpenAIChatCodec()
FOLDER = Path(__file__).parent


def cases(kind: str) -> list[Any]:
    paths = sorted((FOLDER / kind).glob("*.json"))
    assert paths, f"no cases of {kind}"
    return [pytest.param(json.loads(path.read_text()), id=path.stem) for path in paths]


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def validate(kind: Any, document: Any) -> None:
    """Checks the document against an SDK type, every field known; lists too, which are lazy."""
    exhaust(adapter(kind).validate_python(document, extra="forbid"))


def exhaust(value: Any) -> None:
    if isinstance(value, dict):
        for inner in value.values():
            exhaust(inner)
    elif isinstance(value, list | tuple | Iterator):
        for inner in value:
            exhaust(inner)


def target(case: dict[str, Any]) -> CodecTarget:
    """The case's flags; those of a row of the catalogue where it names one."""
    flags = case["flags"]
    if isinstance(flags, str):
        flags = provider_rows()[flags].flags
    return CodecTarget("vendor-model", flags=flags)


@pytest.mark.parametrize("case", cases("requests"))
def test_request(case: dict[str, Any]) -> None:
    request = json_format.ParseDict(case["request"], v1.GenerateRequest())
    before = request.SerializeToString(deterministic=True)
    wire = CODEC.encode_generate(request, target(case), stream=case["stream"])
    body = json.loads(wire.body)
    assert body == case["body"]
    assert json.dumps(body, sort_keys=True) == json.dumps(case["body"], sort_keys=True)
    assert (wire.method, wire.path, wire.headers) == ("POST", case["path"], ())
    assert request.SerializeToString(deterministic=True) == before


SDK_CASES = [
    param
    for param in cases("requests")
    if isinstance(flags := param.values[0]["flags"], dict)
    and not flags.keys() - {"system_role", "user_field", "azure_api_version"}
]


@pytest.mark.parametrize("case", SDK_CASES)
def test_request_is_valid_by_the_vendors_types(case: dict[str, Any]) -> None:
    request = json_format.ParseDict(case["request"], v1.GenerateRequest())
    for stream, kind in (
        (False, completion_create_params.CompletionCreateParamsNonStreaming),
        (True, completion_create_params.CompletionCreateParamsStreaming),
    ):
        wire = CODEC.encode_generate(request, target(case), stream=stream)
        validate(kind, json.loads(wire.body))


def test_the_vendors_types_refuse_what_is_wrong() -> None:
    kind = completion_create_params.CompletionCreateParamsNonStreaming
    good = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    validate(kind, good)
    for wrong in (
        {**good, "top_k": 3},
        {**good, "messages": [{"role": "user", "content": [{"type": "image"}]}]},
        {**good, "messages": [{"role": "tool", "content": "no id"}]},
    ):
        with pytest.raises(ValueError, match="validation error"):
            validate(kind, wrong)


def expected(case: dict[str, Any]) -> v1.GenerateResponse:
    return json_format.ParseDict(case["response"], v1.GenerateResponse())


@pytest.mark.parametrize("case", cases("replies"))
def test_whole_reply(case: dict[str, Any]) -> None:
    response = v1.GenerateResponse()
    CODEC.decode_generate(json.dumps(case["whole"]).encode(), response)
    assert response == expected(case)


@pytest.mark.parametrize("case", cases("replies"))
def test_streamed_reply(case: dict[str, Any]) -> None:
    decoder = CODEC.stream_decoder()
    assembler = MessageAssembler()
    first_seen: list[int] = []
    for chunk in case["chunks"]:
        data = chunk if chunk == "[DONE]" else json.dumps(chunk)
        for delta in decoder.feed("", data.encode()):
            assembler.add(delta)
            if delta.part_index not in first_seen:
                first_seen.append(delta.part_index)
                call = delta.tool_call
                assert delta.WhichOneof("kind") != "tool_call" or (call.id and call.name)
    end = decoder.finish()
    wanted = expected(case)
    assert assembler.message() == wanted.message
    assert sorted(first_seen) == list(range(len(wanted.message.parts)))
    assert end.finish_reason == wanted.finish_reason
    assert end.vendor_finish_reason == wanted.vendor_finish_reason
    assert list(end.filter_findings) == list(wanted.filter_findings)
    assert end.HasField("usage") == wanted.HasField("usage")
    assert end.usage == wanted.usage == decoder.usage
    assert (end.model, decoder.model) == (wanted.model, wanted.model)
    assert decoder.response_id == "chatcmpl-1"


# What no reply of OpenAI holds, but hosts send.
HOST_REPLIES = {
    "calls_without_index",
    "filter_findings",
    "call_whose_name_comes_late",
    "pictures",
    "reasoning_in_content_chunks",
    "recording",
    "word_without_a_name",
}


@pytest.mark.parametrize("case", [p for p in cases("replies") if p.id not in HOST_REPLIES])
def test_replies_are_such_as_the_vendor_sends(case: dict[str, Any]) -> None:
    chat.ChatCompletion.model_validate(case["whole"])
    for chunk in case["chunks"]:
        if chunk != "[DONE]":
            chat.ChatCompletionChunk.model_validate(chunk)


@pytest.mark.parametrize("case", cases("embeddings"))
def test_embeddings(case: dict[str, Any]) -> None:
    request = json_format.ParseDict(case["request"], v1.EmbedRequest())
    wire = CODEC.encode_embed(request, target(case))
    assert json.loads(wire.body) == case["body"]
    assert wire.path == case["path"]
    if case["flags"].get("dimensions_field", "dimensions") in {"", "dimensions"}:
        validate(embedding_create_params.EmbeddingCreateParams, case["body"])
    response = v1.EmbedResponse()
    CODEC.decode_embed(json.dumps(case["reply"]).encode(), response)
    assert response == json_format.ParseDict(case["response"], v1.EmbedResponse())


HOST_ERRORS = json.loads((FOLDER / "host_errors.json").read_text("utf-8"))["cases"]


@pytest.mark.parametrize("case", HOST_ERRORS.values(), ids=HOST_ERRORS.keys())
def test_errors_of_hosts_as_documented(case: dict[str, Any]) -> None:
    body = case["body"] if isinstance(case["body"], str) else json.dumps(case["body"])
    error = CODEC.decode_error(case["status"], case.get("headers", {}), body.encode())
    assert v1.ErrorReason.Name(error.reason) == f"ERROR_REASON_{case['reason']}"
    assert error.http_status == case["status"]
    assert [violation.field for violation in error.violations] == (
        [case["field"]] if "field" in case else []
    )
    assert error.retry_after == case.get("retry_after")


HOST_STREAMS = json.loads((FOLDER / "host_errors.json").read_text("utf-8"))["streams"]
BEGUN = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}],
}


@pytest.mark.parametrize("case", HOST_STREAMS.values(), ids=HOST_STREAMS.keys())
def test_errors_of_hosts_inside_a_stream_as_documented(case: dict[str, Any]) -> None:
    decoder = CODEC.stream_decoder()
    assert decoder.feed("", json.dumps(BEGUN).encode())
    with pytest.raises(UpstreamError) as caught:
        decoder.feed(case["event"], json.dumps(case["last"]).encode())
    assert v1.ErrorReason.Name(caught.value.reason) == f"ERROR_REASON_{case['reason']}"
    assert caught.value.http_status == 200


def test_errors_are_of_rows_of_the_catalogue() -> None:
    hosts = {name.partition(":")[0] for name in [*HOST_ERRORS, *HOST_STREAMS]}
    assert hosts <= provider_rows().keys()
