"""Golden cases of the Gemini dialect: request and vendor body, vendor reply and response."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.genai import types
from google.protobuf import json_format

from tests.golden.gemini.sdk_oracle import check_with_discovery, check_with_sdk
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.gemini import GeminiCodec

HERE = Path(__file__).parent
CODEC = GeminiCodec()


def cases(folder: str) -> list[Any]:
    found = [
        pytest.param(json.loads(path.read_text()), id=path.stem)
        for path in sorted((HERE / folder).glob("*.json"))
    ]
    assert found, f"no golden cases in {folder}"
    return found


@pytest.mark.parametrize("case", cases("requests"))
def test_request(case: dict[str, Any]) -> None:
    request = json_format.ParseDict(case["request"], v1.GenerateRequest())
    before = request.SerializeToString(deterministic=True)
    target = CodecTarget(case["model"], flags=case.get("flags", {}))
    wire = CODEC.encode_generate(request, target, stream=case["stream"])
    assert wire.method == "POST"
    assert wire.path == case["path"]
    assert json.loads(wire.body) == case["body"]
    assert request.SerializeToString(deterministic=True) == before
    assert CODEC.encode_generate(request, target, stream=case["stream"]) == wire


@pytest.mark.parametrize("case", cases("requests"))
def test_request_by_the_sdk(case: dict[str, Any]) -> None:
    check_with_sdk(case["body"])


@pytest.mark.parametrize("case", cases("requests"))
def test_request_by_the_discovery_document(case: dict[str, Any]) -> None:
    check_with_discovery(case["body"])


@pytest.mark.parametrize("case", cases("replies"))
def test_reply(case: dict[str, Any]) -> None:
    expected = json_format.ParseDict(case["response"], v1.GenerateResponse())
    response = v1.GenerateResponse()
    CODEC.decode_generate(json.dumps(case["reply"]).encode(), response)
    assert response == expected


@pytest.mark.parametrize("case", cases("replies"))
def test_reply_by_the_sdk(case: dict[str, Any]) -> None:
    """The replies, being written by hand, must be what the vendor's own SDK would take."""
    if isinstance(case["reply"]["candidates"][0]["finishReason"], int):
        # Hosts may number enums, as the recorded ones of the corpus do; the SDK knows only names.
        with pytest.raises(AttributeError):
            types.GenerateContentResponse.model_validate(case["reply"])
    else:
        types.GenerateContentResponse.model_validate(case["reply"])


@pytest.mark.parametrize("case", cases("replies"))
def test_reply_as_a_stream_of_one_event(case: dict[str, Any]) -> None:
    """A stream that comes in one event says the same as the whole answer."""
    expected = json_format.ParseDict(case["response"], v1.GenerateResponse())
    decoder = CODEC.stream_decoder()
    assembler = MessageAssembler()
    for delta in decoder.feed("", json.dumps(case["reply"]).encode()):
        assembler.add(delta)
    end = decoder.finish()
    assert assembler.message() == expected.message
    assert end.finish_reason == expected.finish_reason
    assert end.vendor_finish_reason == expected.vendor_finish_reason
    assert end.usage == expected.usage
    assert end.model == decoder.model == expected.model
    assert decoder.response_id == case["reply"]["responseId"]


@pytest.mark.parametrize("case", cases("embeds"))
def test_embed(case: dict[str, Any]) -> None:
    request = json_format.ParseDict(case["request"], v1.EmbedRequest())
    wire = CODEC.encode_embed(request, CodecTarget(case["model"]))
    assert wire.path == case["path"]
    assert json.loads(wire.body) == case["body"]
    response = v1.EmbedResponse()
    CODEC.decode_embed(json.dumps(case["reply"]).encode(), response)
    assert response == json_format.ParseDict(case["response"], v1.EmbedResponse())


@pytest.mark.parametrize("case", cases("vertex_embeds"))
def test_embed_on_vertex(case: dict[str, Any]) -> None:
    request = json_format.ParseDict(case["request"], v1.EmbedRequest())
    wire = CODEC.encode_embed(request, CodecTarget(case["model"], flags=case["flags"]))
    assert wire.path == case["path"]
    assert json.loads(wire.body) == case["body"]
    response = v1.EmbedResponse()
    CODEC.decode_embed(json.dumps(case["reply"]).encode(), response)
    assert response == json_format.ParseDict(case["response"], v1.EmbedResponse())


@pytest.mark.parametrize("case", cases("vertex_embeds"))
def test_embed_on_vertex_by_the_discovery_document(case: dict[str, Any]) -> None:
    verb = case["path"].rpartition(":")[2]
    # The document of this date knows of embedContent, and not yet of several at once.
    known = {"predict": "PredictRequest", "embedContent": "EmbedContentRequest"}
    for one in case["body"].get("requests", [case["body"]]):
        check_with_discovery(one, known.get(verb, "EmbedContentRequest"))


@pytest.mark.parametrize("case", cases("embeds"))
def test_embed_by_the_sdk(case: dict[str, Any]) -> None:
    for one in case["body"]["requests"]:
        types.Content.model_validate(one["content"])
        known = {"model", "content", *_camel(types.EmbedContentConfig.model_fields)}
        assert one.keys() <= known
    types.EmbedContentResponse.model_validate(case["reply"])


def _camel(names: Any) -> set[str]:
    words = (name.split("_") for name in names)
    return {first + "".join(word.title() for word in rest) for first, *rest in words}
