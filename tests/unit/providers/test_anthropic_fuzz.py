"""Damaged bytes may fail an answer or change its words, and do nothing else to the router."""

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import pytest

from tests.support.sse_oracle import read_events
from tests.unit.providers.anthropic_events import (
    closing,
    data,
    opening,
    random_blocks,
    streamed,
)
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.anthropic_messages import AnthropicMessagesCodec
from trunkline_server.providers.codec import StreamDecoder

CODEC = AnthropicMessagesCodec()
ROUNDS = 400

# Pieces of JSON that change what a document means and not only whether it can be read.
_SPLICES = [
    b"null", b"{}", b"[]", b"-1", b"1e400", b"9" * 30, b"true", b'""', b'"type"', b'"index"',
    b'"text"', b"\\ud800", b"\x00", b"\xc3", b"[" * 300, b"}", b'"error"', b'"message_stop"',
]  # fmt: skip


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def damaged(document: bytes, rng: random.Random) -> bytes:
    out = bytearray(document)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice((0, 1, 1, 4, 20)))
        match rng.randrange(4):
            case 0:
                out[at:end] = bytes([rng.randrange(256)])
            case 1:
                out[at:end] = b""
            case 2:
                out[at:end] = rng.choice(_SPLICES)
            case _:
                token = _token(out, rng)
                out[token] = rng.choice(_SPLICES)
    return bytes(out)


def _token(document: bytearray, rng: random.Random) -> slice:
    """A whole JSON string or number of the document, so that what replaces it can be read."""
    starts = [at for at, byte in enumerate(document) if byte in b'"0123456789']
    if not starts:
        return slice(0, 0)
    start = rng.choice(starts)
    if document[start] != ord('"'):
        return slice(start, start + 1)
    end = document.find(b'"', start + 1)
    return slice(start, end + 1 if end > 0 else len(document))


@pytest.mark.parametrize("seed", range(5))
def test_whole_answers(seed: int) -> None:
    rng = random.Random(seed)
    outcomes = {True: 0, False: 0}
    for _ in range(ROUNDS):
        message = opening(content=random_blocks(rng), stop_reason="end_turn")["message"]
        response = v1.GenerateResponse()
        error = _failure(partial(CODEC.decode_generate, damaged(_json(message), rng), response))
        outcomes[error is None] += 1
        response.SerializeToString()
        if error is not None:
            assert error.http_status == 200
            assert response == v1.GenerateResponse()
    assert min(outcomes.values()) > ROUNDS // 20, outcomes


@pytest.mark.parametrize("seed", range(5))
def test_streams(seed: int) -> None:
    rng = random.Random(seed)
    outcomes = {True: 0, False: 0}
    for _ in range(ROUNDS):
        events = [opening(), *streamed(random_blocks(rng), rng), *closing()]
        body = b"".join(b"data: %b\n\n" % data(event) for event in events)
        decoder = CODEC.stream_decoder()
        error = _failure(partial(_drain, decoder, damaged(body, rng)))
        outcomes[error is None] += 1
        assert error is None or error.http_status == 200
        decoder.usage.SerializeToString()
    assert min(outcomes.values()) > ROUNDS // 20, outcomes


def _failure(decode: Callable[[], None]) -> UpstreamError | None:
    """How the decoding failed; anything but an UpstreamError fails the test."""
    try:
        decode()
    except UpstreamError as error:
        return error
    return None


def _drain(decoder: StreamDecoder, body: bytes) -> None:
    # The oracle decodes event names strictly; these streams have none but by damage.
    for name, text in read_events(body.replace(b"event", b"tneve")):
        for delta in decoder.feed(name, text):
            delta.SerializeToString()
    decoder.finish()


# One value of every JSON type, and numbers and texts at the edges of theirs.
_WRONG: list[Any] = [None, True, 0, -1, 2**63, 1.5, "", "x", [], [1], {}, {"type": "text"}]


def replaced(document: Any) -> Iterator[Any]:
    """The document with each of its values, in turn, replaced by each wrong one, or gone."""
    if isinstance(document, dict | list):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            value = document[key]
            for changed in chain(replaced(value), _WRONG):
                document[key] = changed
                yield document
            document[key] = value
    if isinstance(document, dict):
        for key in list(document):
            yield {name: value for name, value in document.items() if name != key}


BLOCKS: list[dict[str, Any]] = [
    {"type": "text", "text": "t"},
    {"type": "thinking", "thinking": "t", "signature": "s"},
    {"type": "redacted_thinking", "data": "d"},
    {"type": "tool_use", "id": "i", "name": "n", "input": {"a": 1}},
]
COUNTS: dict[str, Any] = {
    "input_tokens": 1,
    "cache_creation_input_tokens": 3,
    "cache_creation": {"ephemeral_1h_input_tokens": 3},
    "output_tokens_details": {"thinking_tokens": 1},
    "iterations": [{"type": "compaction", "input_tokens": 1, "output_tokens": 1}],
}


def test_every_value_of_an_answer_may_be_wrong() -> None:
    message = opening(content=BLOCKS, stop_reason="end_turn", usage=COUNTS)["message"]
    failed = 0
    for wrong in replaced(message):
        response = v1.GenerateResponse()
        failed += _failure(partial(CODEC.decode_generate, _json(wrong), response)) is not None
        response.SerializeToString()
    assert failed > 100


def test_every_value_of_a_stream_may_be_wrong() -> None:
    events = [opening(usage=COUNTS), *streamed(BLOCKS, random.Random(1)), *closing(**COUNTS)]
    failed = 0
    for wrong in replaced(events):
        body = b"".join(b"data: %b\n\n" % _json(event) for event in wrong)
        decoder = CODEC.stream_decoder()
        failed += _failure(partial(_drain, decoder, body)) is not None
        assert isinstance(decoder.model, str)
        assert isinstance(decoder.response_id, str)
    assert failed > 100


def test_every_value_of_an_error_may_be_wrong() -> None:
    error = {"type": "api_error", "message": "m", "details": {"error_code": "c"}}
    for wrong in replaced([{"type": "error", "error": error, "request_id": "r"}]):
        for status in (400, 529):
            found = CODEC.decode_error(status, {}, _json(wrong[0]))
            assert found.message


@pytest.mark.parametrize("seed", range(5))
def test_errors(seed: int) -> None:
    rng = random.Random(seed)
    error = {"type": "invalid_request_error", "message": "tools.0.name: x", "details": {"a": 1}}
    body = _json({"type": "error", "error": error, "request_id": "req_1"})
    for _ in range(ROUNDS):
        status = rng.choice((400, 404, 429, 500, 529))
        found = CODEC.decode_error(status, {"retry-after": "x"}, damaged(body, rng))
        assert found.http_status == status
        assert found.reason != v1.ERROR_REASON_UNSPECIFIED
