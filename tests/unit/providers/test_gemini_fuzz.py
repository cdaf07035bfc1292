"""Seeded mutations of valid Gemini bytes: the codec answers, or raises UpstreamError."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.gemini import GeminiCodec

CODEC = GeminiCodec()
ROUNDS = 1500

REPLY: dict[str, Any] = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "Thinking.", "thought": True},
                    {"text": "Hello.", "thoughtSignature": "c2ln"},
                    {"functionCall": {"id": "k1", "name": "f", "args": {"a": [1, {"b": None}]}}},
                    {"functionCall": {"name": "g", "willContinue": True}},
                    {"functionCall": {"partialArgs": [
                        {"jsonPath": "$.a[0].b", "stringValue": "x", "willContinue": True},
                        {"jsonPath": "$.c", "numberValue": 0.5}]}},
                    {"inlineData": {"mimeType": "image/png", "data": "AQID"}},
                    {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/v"}},
                    {"executableCode": {"language": "PYTHON", "code": "1"}},
                    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
                ],
            },
            "finishReason": "STOP",
        }
    ],
    "promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "No."},
    "usageMetadata": {
        "promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 3,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 5}],
    },
    "modelVersion": "gemini-x",
    "responseId": "r1",
}  # fmt: skip
VECTORS: dict[str, Any] = {
    "embeddings": [{"values": [0.5, 1]}, {"values": [2]}],
    "usageMetadata": {"promptTokenCount": 2},
}
ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 2**63, 10**30, "", "x", "$", "[]", "\u00e4",
    [], [None], {}, {"a": {}},
)  # fmt: skip


def whole(data: bytes) -> None:
    response = v1.GenerateResponse()
    CODEC.decode_generate(data, response)
    response.SerializeToString()


def streamed(data: bytes) -> None:
    decoder = CODEC.stream_decoder()
    for _ in range(2):
        for delta in decoder.feed("", data):
            delta.SerializeToString()
    decoder.finish().SerializeToString()


def vectors(data: bytes) -> None:
    CODEC.decode_embed(data, v1.EmbedResponse())


def bytes_changed(document: dict[str, Any], rng: random.Random) -> bytes:
    data = bytearray(json.dumps(document).encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randint(1, 30)]
            case 2:
                data[at:at] = data[at : at + rng.randint(1, 30)]
            case _:
                del data[at:]
        if not data:
            break
    return bytes(data)


def values_changed(document: dict[str, Any], rng: random.Random) -> bytes:
    copy = json.loads(json.dumps(document))
    for _ in range(rng.randint(1, 3)):
        holder: Any = copy
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(holder[key], dict | list) and rng.random() < 0.85:
                holder = holder[key]
                continue
            holder[key] = json.loads(json.dumps(rng.choice(ODD_VALUES)))
            break
    return json.dumps(copy).encode()


@pytest.mark.parametrize("change", [bytes_changed, values_changed])
@pytest.mark.parametrize(
    ("decode", "document"), [(whole, REPLY), (streamed, REPLY), (vectors, VECTORS)]
)
def test_only_upstream_errors(
    decode: Callable[[bytes], None],
    document: dict[str, Any],
    change: Callable[[dict[str, Any], random.Random], bytes],
) -> None:
    rng = random.Random(f"{decode.__name__} {change.__name__}")
    outcomes = {"answered": 0, "refused": 0}
    for _ in range(ROUNDS):
        try:
            decode(change(document, rng))
            outcomes["answered"] += 1
        except UpstreamError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > ROUNDS // 100, outcomes


def test_decode_error_never_raises() -> None:
    rng = random.Random("errors")
    document = {
        "error": {
            "code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota.",
            "details": [
                {"@type": "x", "violations": [{"quotaId": "PerDay", "quotaMetric": "m"}]},
                {"retryDelay": "17s"}, {"reason": "API_KEY_INVALID"},
                {"fieldViolations": [{"field": "a", "description": "b"}]},
            ],
        }
    }  # fmt: skip
    for _ in range(ROUNDS):
        change = rng.choice([bytes_changed, values_changed])
        error = CODEC.decode_error(429, {}, change(document, rng))
        assert error.reason != v1.ERROR_REASON_UNSPECIFIED
        assert error.message
