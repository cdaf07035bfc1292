"""Damaged answers of the Responses API fail as UpstreamError and in no other way."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.unit.providers.test_openai_fuzz import damage_bytes, damaged
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.openai_responses import OpenAIResponsesCodec
from trunkline_server.upstream.sse import SseParser

CODEC = OpenAIResponsesCodec()
REPLIES = Path(__file__).parents[2] / "golden" / "openai_responses" / "replies"
ROUNDS = 60


def replies() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(REPLIES.glob("*.json"))]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whole_answers(seed: int) -> None:
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    for reply in replies():
        for _ in range(ROUNDS):
            try:
                CODEC.decode_generate(damaged(reply["whole"], rng), v1.GenerateResponse())
                seen["answers"] += 1
            except UpstreamError:
                seen["failures"] += 1
    assert min(seen["answers"], seen["failures"]) > 100, seen


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_streams(seed: int) -> None:
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    for reply in replies():
        for _ in range(ROUNDS):
            try:
                run_stream(damaged_stream(reply["events"], rng))
                seen["answers"] += 1
            except UpstreamError:
                seen["failures"] += 1
    assert min(seen["answers"], seen["failures"]) > 50, seen


def damaged_stream(events: list[Any], rng: random.Random) -> bytes:
    lines = [json.dumps(event).encode() for event in events]
    at = rng.randrange(len(events))
    lines[at] = damaged(events[at], rng).replace(b"\n", b" ")
    if rng.random() < 0.3:
        rng.shuffle(lines)
    body = b"".join(b"data: " + line + b"\n\n" for line in lines)
    return damage_bytes(body, rng) if rng.random() < 0.3 else body


def run_stream(body: bytes) -> None:
    parser, decoder = SseParser(), CODEC.stream_decoder()
    for event, data in [*parser.feed(body), *parser.finish()]:
        for delta in decoder.feed(event, data):
            assert delta.WhichOneof("kind")
    decoder.finish()
