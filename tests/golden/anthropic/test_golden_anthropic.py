"""Golden cases of the Anthropic dialect, written by hand from the vendor's documentation."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from tests.golden.anthropic.sdk_oracle import check_request
from trunkline import v1
from trunkline_server.providers.anthropic_messages import AnthropicMessagesCodec
from trunkline_server.providers.codec import CodecTarget

HERE = Path(__file__).parent
CODEC = AnthropicMessagesCodec()


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
    assert call.method == "POST"
    assert request.SerializeToString(deterministic=True) == before
    assert CODEC.encode_generate(request, target, stream=case["stream"]) == call

    judged = json.loads(call.body)
    if judged.pop("anthropic_version", None):  # A cloud's way to say it; the model is in the path.
        judged["model"] = case["target"]["provider_model"]
    check_request(judged)


@pytest.mark.parametrize("case", _cases("replies"))
def test_reply(case: dict[str, Any]) -> None:
    response = v1.GenerateResponse()
    CODEC.decode_generate(json.dumps(case["reply"]).encode(), response)
    expected = json_format.ParseDict(case["result"], v1.GenerateResponse())
    assert response == expected
