"""Damaged answers of the OpenAI dialect fail as UpstreamError and in no other way."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.openai_chat import OpenAIChatCodec
from trunkline_server.upstream.sse import SseParser

CODEC = OpenAIChatCodec()
GOLDEN = Path(__file__).parents[2] / "golden" / "openai"
ROUNDS = 60
STRANGE: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 2**70, "", "x", "data:;base64,*", [], {}, [None], [[]], [{}],
    {"": None}, {"code": []}, {"type": {}}, {"text": 1}, [1, "a", {}],
)  # fmt: skip


def replies() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((GOLDEN / "replies").glob("*.json"))]


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a few of them changed, removed, doubled or cut off."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(damaged) or 1)
        match rng.randrange(4):
            case 0:
                damaged[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del damaged[at : at + rng.randint(1, 9)]
            case 2:
                damaged[at:at] = damaged[at : at + rng.randint(1, 30)]
            case _:
                del damaged[at:]
    return bytes(damaged)


def damage_value(value: Any, rng: random.Random) -> Any:
    """The JSON value with one value in it, at any depth, replaced by something strange."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        return {**value, name: damage_value(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], damage_value(value[at], rng), *value[at + 1 :]]
    return rng.choice(STRANGE)


def damaged(document: Any, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return damage_bytes(json.dumps(document).encode(), rng)
    for _ in range(rng.randint(1, 3)):
        document = damage_value(document, rng)
    return json.dumps(document).encode()


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
                run_stream(damaged_stream(reply["chunks"], rng))
                seen["answers"] += 1
            except UpstreamError:
                seen["failures"] += 1
    assert min(seen["answers"], seen["failures"]) > 100, seen


def damaged_stream(chunks: list[Any], rng: random.Random) -> bytes:
    lines = [
        chunk.encode() if chunk == "[DONE]" else json.dumps(chunk).encode() for chunk in chunks
    ]
    at = rng.randrange(len(chunks))
    lines[at] = damaged(chunks[at], rng).replace(b"\n", b" ")
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


def test_embeddings() -> None:
    rng = random.Random(4)
    paths = sorted((GOLDEN / "embeddings").glob("*.json"))
    bodies = [json.loads(path.read_text())["reply"] for path in paths]
    failures = 0
    for body in bodies * 300:
        try:
            CODEC.decode_embed(damaged(body, rng), v1.EmbedResponse())
        except UpstreamError:
            failures += 1
    assert failures > 100


def test_failures_never_raise() -> None:
    rng = random.Random(5)
    wrapped = {
        "error": {"message": "m", "code": 400, "metadata": {"raw": '{"error": {"code": 1}}'}}
    }
    bodies: tuple[Any, ...] = (
        {"error": {"message": "m", "type": "t", "param": "messages[0]", "code": "c"}},
        {"detail": [{"loc": ["body", 1], "msg": "m"}]},
        {**wrapped, "innererror": {"code": "x"}},
        [wrapped],
    )
    for _ in range(1500):
        status = rng.choice((400, 401, 403, 404, 413, 422, 429, 500, 503, 529, 302))
        headers = {"retry-after": damage_bytes(b"120", rng).decode("latin-1")}
        error = CODEC.decode_error(status, headers, damaged(rng.choice(bodies), rng))
        assert isinstance(error, UpstreamError)
        assert error.message
        assert len(error.message) <= 500
