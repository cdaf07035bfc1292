"""Golden cases of the Responses API: request to body, and reply, whole and streamed, to answer.

Cases of OpenAI's own are also valid by the types of its SDK.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from openai.types import responses
from openai.types.responses import response_create_params
from pydantic import TypeAdapter

from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.providers.codec import Codec, CodecTarget
from trunkline_server.providers.openai_responses import OpenAIResponsesCodec

CODEC: Codec = OpenAIResponsesCodec()
FOLDER = Path(__file__).parent


def cases(kind: str) -> list[Any]:
    paths = sorted((FOLDER / kind).glob("*.json"))
    assert paths, f"no cases of {kind}"
    return [pytest.param(json.loads(path.read_text()), id=path.stem) for path in paths]


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def exhaust(value: Any) -> None:
    """Reads lazy lists to their end, which validates them."""
    if isinstance(value, dict):
        for inner in value.values():
            exhaust(inner)
    elif isinstance(value, list | tuple | Iterator):
        for inner in value:
            exhaust(inner)


def encoded(case: dict[str, Any], *, stream: bool | None = None) -> Any:
    request = json_format.ParseDict(case["request"], v1.GenerateRequest())
    target = CodecTarget("vendor-model", flags=case["flags"], reasons=case["reasons"])
    before = request.SerializeToString(deterministic=True)
    wire = CODEC.encode_generate(
        request, target, stream=case["stream"] if stream is None else stream
    )
    assert request.SerializeToString(deterministic=True) == before
    return wire


@pytest.mark.parametrize("case", cases("requests"))
def test_request(case: dict[str, Any]) -> None:
    wire = encoded(case)
    body = json.loads(wire.body)
    assert json.dumps(body, sort_keys=True) == json.dumps(case["body"], sort_keys=True)
    assert (wire.method, wire.path, wire.headers) == ("POST", case["path"], ())


# What OpenAI's own API does not take, or its SDK not know, but hosts and models do.
FOREIGN_REQUESTS = {"host_openrouter", "recording"}


@pytest.mark.parametrize("case", [p for p in cases("requests") if p.id not in FOREIGN_REQUESTS])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_request_is_valid_by_the_vendors_types(case: dict[str, Any], stream: bool) -> None:
    kind: Any = response_create_params.ResponseCreateParamsNonStreaming
    if stream:
        kind = response_create_params.ResponseCreateParamsStreaming
    body = json.loads(encoded(case, stream=stream).body)
    exhaust(adapter(kind).validate_python(body, extra="forbid"))


def test_the_vendors_types_refuse_what_is_wrong() -> None:
    kind = response_create_params.ResponseCreateParamsNonStreaming
    good = {"model": "m", "input": [{"role": "user", "content": "hi"}]}
    exhaust(adapter(kind).validate_python(good, extra="forbid"))
    for wrong in (
        {**good, "stop": ["x"]},
        {**good, "input": [{"role": "user", "content": [{"type": "image"}]}]},
        {**good, "input": [{"type": "function_call", "arguments": "no id"}]},
    ):
        with pytest.raises(ValueError, match="validation error"):
            exhaust(adapter(kind).validate_python(wrong, extra="forbid"))


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
    for event in case["events"]:
        for delta in decoder.feed(event["type"], json.dumps(event).encode()):
            assembler.add(delta)
            kind = delta.WhichOneof("kind")
            if kind not in {"source", "citation"} and delta.part_index not in first_seen:
                first_seen.append(delta.part_index)
                call = delta.tool_call
                assert kind != "tool_call" or (call.id and call.name)
    end = decoder.finish()
    wanted = expected(case)
    assert assembler.message() == wanted.message
    assert sorted(first_seen) == list(range(len(wanted.message.parts)))
    assert end.finish_reason == wanted.finish_reason
    assert end.vendor_finish_reason == wanted.vendor_finish_reason
    assert end.usage == wanted.usage == decoder.usage
    assert (end.model, decoder.model) == (wanted.model, wanted.model)
    assert list(end.filter_findings) == list(wanted.filter_findings)
    assert decoder.response_id == "resp_1"


@pytest.mark.parametrize("case", cases("replies"))
def test_replies_are_such_as_the_vendor_sends(case: dict[str, Any]) -> None:
    responses.Response.model_validate(case["whole"])
    for event in case["events"]:
        adapter(responses.ResponseStreamEvent).validate_python(event)


@pytest.mark.parametrize("case", cases("replies"))
def test_what_was_answered_goes_back_as_it_came(case: dict[str, Any]) -> None:
    request = v1.GenerateRequest(messages=[expected(case).message])
    wire = CODEC.encode_generate(request, CodecTarget("vendor-model"), stream=False)
    returned = json.loads(wire.body)["input"]
    items = json.loads(json.dumps(case["whole"]["output"]))
    for item in (*items, *returned):
        if item.get("status") == "completed":
            del item["status"]
        for piece in item.get("content", []):
            if "annotations" in piece:
                piece["annotations"] = []
    assert returned == items
