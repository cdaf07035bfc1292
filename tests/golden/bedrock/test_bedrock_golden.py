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
