"""Golden cases of the Replicate dialect: request to body, and prediction, whole and streamed, to
answer. The predictions are valid by the type of the vendor's own SDK."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from replicate.prediction import Prediction

from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.providers.codec import Codec, CodecTarget
from trunkline_server.providers.exchange import LAST_REPLY
from trunkline_server.providers.replicate import ReplicateCodec

CODEC: Codec = ReplicateCodec()
FOLDER = Path(__file__).parent


def cases(kind: str) -> list[Any]:
    paths = sorted((FOLDER / kind).glob("*.json"))
    assert paths, f"no cases of {kind}"
    return [pytest.param(json.loads(path.read_text()), id=path.stem) for path in paths]


@pytest.mark.parametrize("case", cases("requests"))
def test_request(case: dict[str, Any]) -> None:
    request = json_format.ParseDict(case["request"], v1.GenerateRequest())
    before = request.SerializeToString(deterministic=True)
    target = CodecTarget(case["model"], flags=case["flags"])
    wire = CODEC.encode_generate(request, target, stream=case["stream"])
    body = json.loads(wire.body)
    assert json.dumps(body, sort_keys=True) == json.dumps(case["body"], sort_keys=True)
    assert (wire.method, wire.path) == ("POST", case["path"])
    assert [list(header) for header in wire.headers] == case["headers"]
    assert request.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("case", cases("replies"))
def test_whole_reply(case: dict[str, Any]) -> None:
    response = v1.GenerateResponse()
    CODEC.decode_generate(json.dumps(case["whole"]).encode(), response)
    assert response == json_format.ParseDict(case["response"], v1.GenerateResponse())


@pytest.mark.parametrize("case", [case for case in cases("replies") if "events" in case.values[0]])
def test_streamed_reply(case: dict[str, Any]) -> None:
    decoder = CODEC.stream_decoder()
    assembler = MessageAssembler()
    for name, data in case["events"]:
        for delta in decoder.feed(name, data.encode()):
            assembler.add(delta)
    assert not decoder.feed(LAST_REPLY, json.dumps(case["whole"]).encode())
    end = decoder.finish()
    wanted = json_format.ParseDict(case["response"], v1.GenerateResponse())
    assert assembler.message().parts == wanted.message.parts
    assert end.finish_reason == wanted.finish_reason
    assert end.vendor_finish_reason == wanted.vendor_finish_reason
    assert (end.usage, end.model) == (wanted.usage, wanted.model)
    assert decoder.response_id == case["whole"]["id"]


@pytest.mark.parametrize("case", cases("replies"))
def test_replies_are_such_as_the_vendor_sends(case: dict[str, Any]) -> None:
    Prediction(**case["whole"])
