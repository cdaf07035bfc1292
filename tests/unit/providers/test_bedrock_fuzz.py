"""Damaged answers may fail a call or change its words, and do nothing else to the router."""

import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.unit.providers.bedrock_events import CODEC, answer, as_data, blocks, events_of, streamed
from tests.unit.providers.test_anthropic_fuzz import damaged, replaced
from trunkline import v1
from trunkline_server.errors import UpstreamError

ROUNDS = 300
# Where most of an answer is text, damage does not always break the JSON around it.
LONG = "and so on " * 300

TRACE = {
    "promptRouter": {"invokedModelId": "arn:x"},
    "guardrail": {
        "inputAssessment": {
            "g": {"contentPolicy": {"filters": [{"type": "HATE", "confidence": "HIGH"}]}}
        },
        "outputAssessments": {
            "g": [
                {
                    "contextualGroundingPolicy": {
                        "filters": [{"type": "GROUNDING", "score": 0.5, "action": "NONE"}]
                    },
                    "automatedReasoningPolicy": {"findings": [{"valid": {}}]},
                }
            ]
        },
    },
}
USAGE = {
    "inputTokens": 10,
    "outputTokens": 5,
    "totalTokens": 115,
    "cacheReadInputTokens": 80,
    "cacheWriteInputTokens": 20,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 20}],
}


def whole(text: str = "x") -> dict[str, Any]:
    made = [{"text": text}, *blocks(0, random.Random(1))]
    return {**answer(made), "usage": USAGE, "trace": TRACE}


def failure(decode: Callable[[], object]) -> UpstreamError | None:
    """How the decoding failed; anything but an UpstreamError fails the test."""
    try:
        decode()
    except UpstreamError as error:
        return error
    return None


def test_every_value_of_an_answer_may_be_wrong() -> None:
    failed = 0
    for wrong in replaced(whole()):
        response = v1.GenerateResponse()
        error = failure(partial(CODEC.decode_generate, json.dumps(wrong).encode(), response))
        failed += error is not None
        if error is not None:
            assert error.http_status == 200
            assert response == v1.GenerateResponse()
        response.SerializeToString()
    assert failed > 100


def test_every_value_of_a_stream_may_be_wrong() -> None:
    events = [[name, body] for name, body in events_of(whole(), random.Random(1))]
    events[-1][1]["trace"] = TRACE  # type: ignore[index]  # a list of a name and a body
    failed = 0
    for wrong in replaced(events):
        named = [
            (each[0] if isinstance(each[0], str) else "messageStop", each[1])
            for each in wrong
            if isinstance(each, list) and len(each) == 2
        ]
        error = failure(partial(streamed, as_data(iter(named))))
        failed += error is not None
        assert error is None or error.http_status == 200
    assert failed > 100


@pytest.mark.parametrize("seed", range(5))
def test_damaged_answers(seed: int) -> None:
    rng = random.Random(seed)
    document = json.dumps(whole(LONG)).encode()
    outcomes = {True: 0, False: 0}
    for _ in range(ROUNDS):
        response = v1.GenerateResponse()
        error = failure(partial(CODEC.decode_generate, damaged(document, rng), response))
        outcomes[error is None] += 1
        response.SerializeToString()
    assert all(outcomes.values()), outcomes


@pytest.mark.parametrize("seed", range(5))
def test_damaged_streams(seed: int) -> None:
    rng = random.Random(seed)
    outcomes = {True: 0, False: 0}
    for _ in range(ROUNDS):
        events = as_data(events_of(whole(), rng))
        at = rng.randrange(len(events))
        events[at] = (events[at][0], damaged(events[at][1], rng))
        outcomes[failure(partial(streamed, events)) is None] += 1
    assert all(outcomes.values()), outcomes


def test_every_value_of_an_error_may_be_wrong() -> None:
    for wrong in replaced(
        [{"__type": "ModelErrorException", "message": "m", "originalStatusCode": 4}]
    ):
        for status in (400, 424):
            found = CODEC.decode_error(status, {}, json.dumps(wrong[0] if wrong else 0).encode())
            assert found.message
            assert found.reason


def test_every_value_of_vectors_may_be_wrong() -> None:
    for document in (
        {"embedding": [0.5, 1], "inputTextTokenCount": 3},
        {"embeddings": [[0.5], [1]]},
        {"embeddings": {"float": [[0.5]]}},
    ):
        failed = 0
        for wrong in replaced(document):
            response = v1.EmbedResponse()
            error = failure(partial(CODEC.decode_embed, json.dumps(wrong).encode(), response))
            failed += error is not None
            if error is not None:
                assert response == v1.EmbedResponse()
        assert failed


def test_every_value_of_pictures_may_be_wrong() -> None:
    request = v1.GenerateImageRequest(prompt="p")
    failed = 0
    for wrong in replaced({"images": ["AQID", "AQID"], "finish_reasons": [None, "no"]}):
        response = v1.GenerateImageResponse()
        decode = partial(CODEC.decode_image, json.dumps(wrong).encode(), request, response)
        error = failure(decode)
        failed += error is not None
        if error is not None:
            assert response == v1.GenerateImageResponse()
    assert failed


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"images": [], "error": "It was blocked."}, "It was blocked."),
        (
            {"images": ["AQID"], "finish_reasons": ["Filter reason: prompt"]},
            "Filter reason: prompt",
        ),
    ],
)
def test_pictures_that_were_all_held_back(answer: dict[str, Any], words: str) -> None:
    request, response = v1.GenerateImageRequest(prompt="p"), v1.GenerateImageResponse()
    with pytest.raises(UpstreamError) as caught:
        CODEC.decode_image(json.dumps(answer).encode(), request, response)
    assert caught.value.reason == v1.ERROR_REASON_CONTENT_FILTER
    assert caught.value.message == words


def test_every_value_of_an_order_may_be_wrong() -> None:
    request = v1.RerankRequest(documents=["a"])
    failed = 0
    for wrong in replaced({"results": [{"index": 0, "relevance_score": 0.5}]}):
        response = v1.RerankResponse()
        error = failure(partial(CODEC.decode_rerank, json.dumps(wrong).encode(), request, response))
        failed += error is not None
        if error is not None:
            assert response == v1.RerankResponse()
    assert failed


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"inputTokens": -1}', b'{"inputTokens": "1"}']
)
def test_counts_that_make_no_sense(body: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.decode_token_count(body)
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
