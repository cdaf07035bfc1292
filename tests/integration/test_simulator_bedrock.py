"""AWS's own SDK against the simulated Bedrock runtime: it must be content with it, and its
signatures, computed by botocore, must be those that the simulator computes."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from tests.integration.test_simulator_sdks import ADD_SCHEMA, PNG, Running
from trunkline_server.simulator.bedrock_access import SECRET_KEY

HELLO = [{"role": "user", "content": [{"text": "hello there"}]}]
TOOLS = {"tools": [{"toolSpec": {"name": "add", "inputSchema": {"json": ADD_SCHEMA}}}]}
ARN = "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdef012345"


@pytest.fixture(scope="module")
def started() -> Iterator[Running]:
    with Running() as running:
        yield running


def client_of(url: str, secret: str = SECRET_KEY, token: str | None = None) -> Any:
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=f"{url}/bedrock",
        region_name="us-east-1",
        aws_access_key_id="AKIDSIMULATED",
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def client(started: Running) -> Iterator[Any]:
    made = client_of(started.url)
    yield made
    made.close()


def joined(stream: Any) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """The blocks of a stream as an answer would have them, its stop and its metadata."""
    blocks: list[dict[str, Any]] = []
    stop: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for event in stream:
        ((name, body),) = event.items()
        if name == "contentBlockStart":
            blocks.append({"toolUse": {**body["start"]["toolUse"], "input": ""}})
        elif name == "contentBlockDelta":
            _add(blocks, body["contentBlockIndex"], body["delta"])
        elif name == "messageStop":
            stop = body
        elif name == "metadata":
            metadata = body
    for block in blocks:
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
            del block["toolUse"]["toolUseId"]
    return blocks, stop, metadata


def _add(blocks: list[dict[str, Any]], index: int, delta: dict[str, Any]) -> None:
    ((kind, value),) = delta.items()
    if index == len(blocks):
        empty: dict[str, Any] = {"text": ""}
        if kind == "reasoningContent":
            empty = {"reasoningContent": {"reasoningText": {"text": ""}}}
        blocks.append(empty)
    if kind == "toolUse":
        blocks[index][kind]["input"] += value["input"]
    elif kind == "reasoningContent":
        text = blocks[index][kind]["reasoningText"]
        for name, piece in value.items():
            text[name] = text.get(name, "") + piece
    else:
        blocks[index][kind] += value


def without_ids(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for block in blocks:
        block.get("toolUse", {}).pop("toolUseId", None)
    return blocks


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"system": [{"text": "Be brief."}], "inferenceConfig": {"maxTokens": 5}},
        {"toolConfig": {**TOOLS, "toolChoice": {"any": {}}}},
        {"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 2000}}},
    ],
)
@pytest.mark.parametrize("model", ["sim-large", ARN])
def test_streams_say_what_answers_say(client: Any, model: str, more: dict[str, Any]) -> None:
    whole = client.converse(modelId=model, messages=HELLO, **more)
    stream = client.converse_stream(modelId=model, messages=HELLO, **more)
    blocks, stop, metadata = joined(stream["stream"])
    assert without_ids(whole["output"]["message"]["content"]) == blocks
    assert whole["stopReason"] == stop["stopReason"]
    assert whole["usage"] == metadata["usage"]


def test_a_round_of_tools_with_reasoning(client: Any) -> None:
    asked = [{"role": "user", "content": [{"text": "call add"}]}]
    more = {
        "toolConfig": TOOLS,
        "additionalModelRequestFields": {"thinking": {"type": "adaptive"}},
    }
    answer = client.converse(modelId="sim-large", messages=asked, **more)
    assert answer["stopReason"] == "tool_use"
    message = answer["output"]["message"]
    use = message["content"][-1]["toolUse"]
    result = {"toolUseId": use["toolUseId"], "content": [{"json": {"sum": 5}}]}
    messages = [*asked, message, {"role": "user", "content": [{"toolResult": result}]}]
    again = client.converse(modelId="sim-large", messages=messages, **more)
    assert again["stopReason"] == "end_turn"
    assert '{"sum":5}' in again["output"]["message"]["content"][-1]["text"]


def test_media_travel_as_bytes(client: Any) -> None:
    picture = {"image": {"format": "png", "source": {"bytes": PNG}}}
    paper = {"document": {"format": "pdf", "name": "a paper", "source": {"bytes": b"%PDF"}}}
    content = [picture, paper, {"text": "What is it?"}]
    answer = client.converse(modelId="sim-large", messages=[{"role": "user", "content": content}])
    text = answer["output"]["message"]["content"][0]["text"]
    assert f"image/png, {len(PNG)} bytes" in text
    assert "document/pdf, 4 bytes" in text


def test_redacted_reasoning_travels_as_bytes(client: Any) -> None:
    model = "sim-large?redacted=1"
    more = {"additionalModelRequestFields": {"thinking": {"type": "adaptive"}}}
    answer = client.converse(modelId=model, messages=HELLO, **more)
    message = answer["output"]["message"]
    assert isinstance(message["content"][0]["reasoningContent"]["redactedContent"], bytes)
    messages = [*HELLO, message, *HELLO]
    assert client.converse(modelId=model, messages=messages)["stopReason"] == "end_turn"


def test_cache_points(client: Any) -> None:
    system = [{"text": "long " * 2000}, {"cachePoint": {"type": "default", "ttl": "1h"}}]
    first = client.converse(modelId="sim-large", messages=HELLO, system=system)["usage"]
    second = client.converse(modelId="sim-large", messages=HELLO, system=system)["usage"]
    assert first["cacheWriteInputTokens"] == second["cacheReadInputTokens"] > 0
    assert {"ttl": "1h", "inputTokens": first["cacheWriteInputTokens"]} in first["cacheDetails"]
    for usage in (first, second):
        parts = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
        assert sum(usage[name] for name in parts) == usage["totalTokens"]


@pytest.mark.parametrize(
    ("body", "vectors"),
    [
        ({"inputText": "a", "dimensions": 8}, lambda answer: [answer["embedding"]]),
        (
            {"texts": ["a", "b"], "input_type": "search_query"},
            lambda answer: answer["embeddings"],
        ),
        (
            {"texts": ["a"], "input_type": "clustering", "embedding_types": ["float"]},
            lambda answer: answer["embeddings"]["float"],
        ),
    ],
)
def test_vectors(client: Any, body: dict[str, Any], vectors: Any) -> None:
    answer = client.invoke_model(modelId="sim-embed", body=json.dumps(body))
    found = vectors(json.loads(answer["body"].read()))
    assert len(found) == len(body.get("texts", ["one"]))
    assert all(len(vector) == body.get("dimensions", 256) for vector in found)


def test_a_guardrail_s_stop(client: Any) -> None:
    answer = client.converse(modelId="sim-filter", messages=HELLO)
    assert answer["stopReason"] == "guardrail_intervened"
    assert answer["trace"]["guardrail"]["outputAssessments"]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("sim-error-429", "ThrottlingException"),
        ("sim-error-quota", "ServiceQuotaExceededException"),
        ("sim-error-context", "ValidationException"),
        ("sim-error-overloaded", "ServiceUnavailableException"),
        ("sim-error-permission", "AccessDeniedException"),
        ("sim-error-500", "InternalServerException"),
    ],
)
def test_errors_are_the_sdk_s_own(client: Any, model: str, name: str) -> None:
    if model == "sim-error-permission":
        model = "sim-large?error=permission"
    for ask in (client.converse, client.converse_stream):
        with pytest.raises(ClientError) as caught:
            ask(modelId=model, messages=HELLO)
        assert caught.value.response["Error"]["Code"] == name
        assert caught.value.response["Error"]["Message"]


def test_an_exception_inside_a_stream(client: Any) -> None:
    stream = client.converse_stream(modelId="sim-error-midstream", messages=HELLO)["stream"]
    with pytest.raises(EventStreamError) as caught:
        list(stream)
    assert caught.value.response["Error"]["Code"] == "serviceUnavailableException"


@pytest.mark.parametrize(
    ("secret", "token", "name"),
    [
        ("wrong", None, "InvalidSignatureException"),
        (SECRET_KEY, "expired", "ExpiredTokenException"),
    ],
)
def test_who_calls(started: Running, secret: str, token: str | None, name: str) -> None:
    client = client_of(started.url, secret, token)
    with pytest.raises(ClientError) as caught:
        client.converse(modelId="sim-large", messages=HELLO)
    assert caught.value.response["Error"]["Code"] == name
    client.close()
    good = client_of(started.url, token="a session's")
    assert good.converse(modelId="sim-large", messages=HELLO)["stopReason"] == "end_turn"
    good.close()
