"""The simulated Bedrock runtime on the wire: frames, refusals, faults and signatures."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer

from tests.golden.bedrock.botocore_oracle import packaged_model
from tests.unit.simulator.raw import Received, exchange
from trunkline_server.simulator.app import Simulator
from trunkline_server.simulator.bedrock_access import SECRET_KEY
from trunkline_server.simulator.known_fields import BEDROCK_CONVERSE, BEDROCK_INFERENCE

KEY = {"authorization": "Bearer k"}
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}
USE = {"toolUse": {"toolUseId": "t1", "name": "f", "input": {}}}
TOOLS = {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}}]}


async def call(
    simulator: Simulator,
    model: str = "sim-large",
    body: object = HELLO,
    operation: str = "converse",
    **more: Any,
) -> Received:
    path = f"/bedrock/model/{quote(model, safe='')}/{operation}"
    return await exchange(simulator.url, path, body, **{"headers": KEY, **more})


async def test_an_answer(simulator: Simulator) -> None:
    got = await call(simulator, "arn:aws:bedrock:us-east-1:1:inference-profile/us.x-v1:0")
    assert got.status == 200
    assert got.json["stopReason"] == "end_turn"
    usage = got.json["usage"]
    assert usage["inputTokens"] + usage["outputTokens"] == usage["totalTokens"]


async def test_a_stream_of_frames_whose_checksums_hold(simulator: Simulator) -> None:
    got = await call(simulator, operation="converse-stream")
    assert got.headers["content-type"] == "application/vnd.amazon.eventstream"
    buffer = EventStreamBuffer()
    buffer.add_data(got.text)
    names = [each.headers[":event-type"] for each in buffer]
    assert names[:2] == ["messageStart", "contentBlockDelta"]
    assert names[-3:] == ["contentBlockStop", "messageStop", "metadata"]


@pytest.mark.parametrize("fault", ["garbage", "empty"])
async def test_streams_that_are_none(simulator: Simulator, fault: str) -> None:
    got = await call(simulator, f"sim-{fault}", operation="converse-stream")
    assert got.headers["content-type"] == "application/vnd.amazon.eventstream"


async def test_an_exception_inside_a_stream(simulator: Simulator) -> None:
    got = await call(simulator, "sim-error-midstream?at_chunk=2", operation="converse-stream")
    buffer = EventStreamBuffer()
    buffer.add_data(got.text)
    last = list(buffer)[-1]
    assert last.headers[":exception-type"] == "serviceUnavailableException"
    assert json.loads(last.payload)["message"]


async def test_a_frame_that_was_changed_on_its_way(simulator: Simulator) -> None:
    got = await call(simulator, "sim-garbage-midstream?at_chunk=2", operation="converse-stream")
    buffer = EventStreamBuffer()
    buffer.add_data(got.text)
    with pytest.raises(ChecksumMismatch):
        list(buffer)


@pytest.mark.parametrize(
    ("model", "status", "name"),
    [
        ("sim-error-429", 429, "ThrottlingException"),
        ("sim-error-quota", 400, "ServiceQuotaExceededException"),
        ("sim-error-context", 400, "ValidationException"),
        ("sim-error-filter", 400, "ValidationException"),
        ("sim-error-model", 400, "ValidationException"),
        ("sim-error-overloaded", 503, "ServiceUnavailableException"),
        ("sim-error-500", 500, "InternalServerException"),
        ("sim-error-408", 408, "ModelTimeoutException"),
    ],
)
async def test_errors(simulator: Simulator, model: str, status: int, name: str) -> None:
    got = await call(simulator, model)
    assert got.status == status
    assert got.headers["x-amzn-errortype"].startswith(f"{name}:")
    assert got.json["message"]


def message(role: str, *blocks: object) -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


def document(name: str) -> dict[str, Any]:
    return {"document": {"format": "pdf", "name": name, "source": {"bytes": "AQID"}}}


TEXT = {"text": "hi"}
RESULT = {"toolResult": {"toolUseId": "t1", "content": [{"text": "r"}]}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": []}, "must start with a user message"),
        ({"messages": [message("assistant", TEXT)]}, "must start with a user message"),
        ({"messages": [message("user", TEXT), message("user", TEXT)]}, "alternate"),
        ({"messages": [message("user", {"text": " "})]}, "is blank"),
        ({"messages": [message("user", {"smell": {}})]}, "not allowed"),
        ({"messages": [message("user", {})]}, "exactly one kind"),
        ({"messages": [message("robot", TEXT)]}, "messages.0.role"),
        ({"messages": [message("user", TEXT), message("assistant", USE)]}, "toolConfig"),
        (
            {"messages": [message("user", TEXT), message("assistant", USE)], "toolConfig": TOOLS},
            "Expected toolResult",
        ),
        ({"messages": [message("user", RESULT)], "toolConfig": TOOLS}, "no toolUse block"),
        ({"messages": [message("user", document("a.pdf"), TEXT)]}, "document file name"),
        (
            {"messages": [message("user", document("a"), document("a"), TEXT)]},
            "duplicate document names",
        ),
        (
            {
                "messages": [
                    message("user", {"image": {"format": "tiff", "source": {"bytes": "AQID"}}})
                ]
            },
            "image.format",
        ),
        (
            {"messages": [message("user", {"image": {"format": "png", "source": {"bytes": "%"}}})]},
            "base64",
        ),
        ({"inferenceConfig": {"temperature": 1.5}}, "inferenceConfig.temperature"),
        ({"inferenceConfig": {"maxTokens": 10**6}}, "exceeds the model limit"),
        ({"inferenceConfig": {"topK": 5}}, "inferenceConfig"),
        ({"toolConfig": {"tools": []}}, "toolConfig.tools"),
        ({"toolConfig": {**TOOLS, "toolChoice": {"none": {}}}}, "toolChoice"),
        ({"top_k": 5}, "top_k"),
        (
            {"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1}}},
            "budget_tokens",
        ),
        (
            {
                "messages": [
                    message("user", TEXT),
                    message(
                        "assistant",
                        {"reasoningContent": {"reasoningText": {"text": "a", "signature": "b"}}},
                    ),
                    message("user", TEXT),
                ]
            },
            "Invalid signature",
        ),
    ],
)
async def test_refusals(simulator: Simulator, body: dict[str, Any], words: str) -> None:
    got = await call(simulator, body={**HELLO, **body})
    assert (got.status, got.headers["x-amzn-errortype"].partition(":")[0]) == (
        400,
        "ValidationException",
    )
    assert words in got.json["message"]


def signed(simulator: Simulator, model: str, secret: str, **more: str) -> dict[str, str]:
    """The headers that botocore signs the call with."""
    url = f"http://simulator/bedrock/model/{quote(model, safe='')}/converse"
    credentials = ReadOnlyCredentials(more.get("key", "AKIDSIM"), secret, more.get("token"))
    asked = AWSRequest("POST", url, {}, json.dumps(HELLO).encode())
    SigV4Auth(credentials, "bedrock", "us-east-1").add_auth(asked)
    return {name: str(value) for name, value in asked.headers.items()}


async def test_a_signature_that_holds(simulator: Simulator) -> None:
    model = "arn:aws:bedrock:us-east-1:1:provisioned-model/a b"
    headers = signed(simulator, model, SECRET_KEY, token="t")
    assert (await call(simulator, model, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("secret", "more", "name"),
    [
        ("another", {}, "InvalidSignatureException"),
        (SECRET_KEY, {"key": "invalid"}, "UnrecognizedClientException"),
        (SECRET_KEY, {"token": "expired"}, "ExpiredTokenException"),
    ],
)
async def test_callers_that_are_not_believed(
    simulator: Simulator, secret: str, more: dict[str, str], name: str
) -> None:
    got = await call(simulator, headers=signed(simulator, "sim-large", secret, **more))
    assert got.status == 403
    assert got.headers["x-amzn-errortype"].startswith(f"{name}:")


async def test_a_body_that_was_not_signed(simulator: Simulator) -> None:
    headers = signed(simulator, "sim-large", SECRET_KEY)
    other = {"messages": [message("user", {"text": "other"})]}
    got = await call(simulator, body=other, headers=headers)
    assert got.headers["x-amzn-errortype"].startswith("InvalidSignatureException:")


async def test_no_credentials_at_all(simulator: Simulator) -> None:
    got = await call(simulator, headers={})
    assert got.status == 403
    assert got.headers["x-amzn-errortype"].startswith("MissingAuthenticationTokenException:")


def test_known_fields_are_those_of_the_service() -> None:
    shape = packaged_model().operation_model("Converse").input_shape
    assert shape.members.keys() == BEDROCK_CONVERSE | {"modelId"}
    assert shape.members["inferenceConfig"].members.keys() == BEDROCK_INFERENCE
