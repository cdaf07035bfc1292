"""Golden cases of the Bedrock dialect, written by hand from the service's documentation.

Replies with citations, the service's own tools, cache counts and a prompt router, and all of
embeddings, were never recorded: their shapes are those that are documented.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from tests.golden.bedrock.botocore_oracle import check_call, packaged_model
from trunkline import v1
from trunkline_server.providers.bedrock import BedrockCodec
from trunkline_server.providers.codec import CodecTarget

HERE = Path(__file__).parent
CODEC = BedrockCodec()
MODEL = packaged_model()


def _cases(kind: str) -> list[Any]:
    paths = sorted((HERE / kind).glob("*.json"))
    assert paths, f"no golden {kind}"
    return [pytest.param(json.loads(path.read_text()), id=path.stem) for path in paths]


@pytest.mark.parametrize("case", _cases("requests"))
def test_request(case: dict[str, Any]) -> None:
    request = json_format.ParseDict(case["request"], v1.GenerateRequest())
    before = request.SerializeToString(deterministic=True)
    target = CodecTarget(**case["target"])

    call = CODEC.encode_generate(request, target, stream=case["stream"])

    expected = case["call"]
    assert json.loads(call.body) == expected["body"]
    assert call.path == expected["path"]
    assert dict(call.headers) == expected["headers"]
    assert request.SerializeToString(deterministic=True) == before
    assert CODEC.encode_generate(request, target, stream=case["stream"]) == call
    check_call(call, MODEL)


@pytest.mark.parametrize("case", _cases("replies"))
def test_reply(case: dict[str, Any]) -> None:
    response = v1.GenerateResponse()
    CODEC.decode_generate(json.dumps(case["reply"]).encode(), response)
    assert response == json_format.ParseDict(case["result"], v1.GenerateResponse())


@pytest.mark.parametrize("case", _cases("embeddings"))
def test_embedding(case: dict[str, Any]) -> None:
    request = json_format.ParseDict(case["request"], v1.EmbedRequest())
    call = CODEC.encode_embed(request, CodecTarget(**case["target"]))
    assert json.loads(call.body) == case["call"]["body"]
    assert call.path == case["call"]["path"]
    assert dict(call.headers) == case["call"]["headers"]
    check_call(call, MODEL)
    response = v1.EmbedResponse()
    CODEC.decode_embed(json.dumps(case["reply"]).encode(), response)
    assert response == json_format.ParseDict(case["result"], v1.EmbedResponse())


@pytest.mark.parametrize("case", _cases("images"))
def test_pictures(case: dict[str, Any]) -> None:
    request = json_format.ParseDict(case["request"], v1.GenerateImageRequest())
    call = CODEC.encode_image(request, CodecTarget(**case["target"]))
    assert json.loads(call.body) == case["call"]["body"]
    assert call.path == case["call"]["path"]
    check_call(call, MODEL)
    response = v1.GenerateImageResponse()
    CODEC.decode_image(json.dumps(case["reply"]).encode(), request, response)
    assert response == json_format.ParseDict(case["result"], v1.GenerateImageResponse())


@pytest.mark.parametrize("case", _cases("reranks"))
def test_order(case: dict[str, Any]) -> None:
    request = json_format.ParseDict(case["request"], v1.RerankRequest())
    call = CODEC.encode_rerank(request, CodecTarget(**case["target"]))
    assert json.loads(call.body) == case["call"]["body"]
    assert call.path == case["call"]["path"]
    check_call(call, MODEL)
    response = v1.RerankResponse()
    CODEC.decode_rerank(json.dumps(case["reply"]).encode(), request, response)
    assert response == json_format.ParseDict(case["result"], v1.RerankResponse())


@pytest.mark.parametrize(
    "model",
    [
        "anthropic.claude-haiku-4-5-20251001-v1:0",
        "us.anthropic.claude-haiku-4-5-20251001-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/"
        "us.anthropic.claude-haiku-4-5-20251001-v1:0",
    ],
)
def test_count_of_tokens(model: str) -> None:
    """The service counts for the foundation model, whatever profile it is reached by."""
    request = v1.CountTokensRequest(
        messages=[
            v1.Message(role=v1.ROLE_SYSTEM, parts=[v1.Part(text="Be brief.")]),
            v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text="hi")]),
        ],
        tools=[v1.Tool(name="f")],
    )
    flags: dict[str, str | int | bool] = {"counts_tokens": True, "guardrail_id": "gr1"}
    call = CODEC.encode_token_count(request, CodecTarget(model, None, flags))
    assert call is not None
    assert call.path == "/model/anthropic.claude-haiku-4-5-20251001-v1%3A0/count-tokens"
    schema = {"json": {"type": "object", "properties": {}}}
    assert json.loads(call.body) == {
        "input": {
            "converse": {
                "messages": [{"role": "user", "content": [{"text": "hi"}]}],
                "system": [{"text": "Be brief."}],
                "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": schema}}]},
            }
        }
    }
    check_call(call, MODEL)
    assert CODEC.decode_token_count(b'{"inputTokens": 25}') == 25


def test_models_that_the_service_does_not_count_for() -> None:
    assert CODEC.encode_token_count(v1.CountTokensRequest(), CodecTarget("m")) is None
