"""The compiled upstream and loader, and the floors' HTTP client, against one another."""

import asyncio
import base64
import io
import json
import shutil
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench.common import tools
from bench.common.child import BenchError, Running, child
from bench.common.load import Generators, Load, delimited
from bench.floors.lean_http import LeanClient
from bench.payloads import chat_json, embed_json, generate_request
from bench.subjects import upstream
from google.protobuf import proto

# Built once; later builds find Go's cache.
pytestmark = pytest.mark.skipif(shutil.which("go") is None, reason="needs Go, to build the bench")


@pytest.fixture(scope="module")
def programs() -> tuple[Path, Path]:
    return tools.build()


@pytest.fixture(scope="module")
def serving(programs: tuple[Path, Path]) -> Iterator[Running]:
    with upstream(programs[0], None) as running:
        yield running


def post(serving: Running, path: str, body: bytes) -> bytes:
    with urllib.request.urlopen(f"http://{serving.address}{path}", data=body, timeout=20) as answer:
        content: bytes = answer.read()
    return content


def events(body: bytes) -> list[Any]:
    """The data of a whole event stream, by the letter of the format."""
    blocks = body.decode().split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") for block in blocks)
    texts = [block.removeprefix("data: ") for block in blocks]
    assert texts.pop() == "[DONE]"
    return [json.loads(text) for text in texts]


def test_an_answer_has_the_tokens_that_its_path_asks_for(serving: Running) -> None:
    answer = json.loads(post(serving, "/tokens=7/v1/chat/completions", chat_json()))
    assert answer["choices"][0]["message"]["content"] == "token " * 7
    assert answer["usage"]["completion_tokens"] == 7
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_the_models_name_counts_more_than_the_path(serving: Running) -> None:
    answer = json.loads(post(serving, "/tokens=7/v1/chat/completions", chat_json("m:tokens=2")))
    assert answer["usage"]["completion_tokens"] == 2
    assert answer["model"] == "m"


@pytest.mark.parametrize(("chunk", "texts"), [(1, 5), (2, 3), (9, 1)])
def test_a_stream_has_its_tokens_in_chunks(serving: Running, chunk: int, texts: int) -> None:
    path = f"/tokens=5,chunk={chunk}/v1/chat/completions"
    *pieces, final, usage = events(post(serving, path, chat_json(stream=True)))
    contents = [piece["choices"][0]["delta"]["content"] for piece in pieces]
    assert len(contents) == texts
    assert "".join(contents) == "token " * 5
    assert final["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("path", ["/nonsense/v1/chat/completions", "/chunk=0/v1/chat/completions"])
def test_a_knob_that_is_none_is_refused(serving: Running, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(serving, path, chat_json())
    with caught.value as refusal:
        assert refusal.code == 400


def test_vectors_are_the_same_in_both_encodings(serving: Running) -> None:
    plain = json.loads(post(serving, "/dims=8/v1/embeddings", embed_json(3)))
    packed_request = {**json.loads(embed_json(3)), "encoding_format": "base64"}
    packed = json.loads(post(serving, "/dims=8/v1/embeddings", json.dumps(packed_request).encode()))
    assert [row["index"] for row in plain["data"]] == [0, 1, 2]
    raw = base64.b64decode(packed["data"][1]["embedding"])
    assert list(struct.unpack("<8f", raw)) == pytest.approx(plain["data"][1]["embedding"], rel=1e-5)


@pytest.fixture
def generators(programs: tuple[Path, Path]) -> Generators:
    return Generators(Path("unused"), programs[1], Path("unused"))


@pytest.fixture
def chat(tmp_path: Path) -> Load:
    body = tmp_path / "chat.json"
    body.write_bytes(chat_json())
    return Load(calls=40, body=body, method="/v1/chat/completions", concurrency=4)


def test_failures_come_at_their_rate_and_are_counted(
    serving: Running, generators: Generators, chat: Load
) -> None:
    found = generators.send_http(
        serving.address, replace(chat, method="/fail=0.25,status=503/v1/chat/completions")
    )
    assert found.ok == 30
    assert sum(found.errors.values()) == 10
    assert all("503" in error for error in found.errors)


def test_a_rate_is_kept_whatever_the_latency(
    serving: Running, generators: Generators, chat: Load
) -> None:
    """Forty calls of 200 ms, one at a time, would take 8 s; begun 200 a second they take 0.4."""
    timed = replace(chat, rate=200.0, method="/latency=200ms/v1/chat/completions")
    found = generators.send_http(serving.address, timed)
    assert found.ok == 40
    assert found.seconds < 4.0
    assert found.latency["p50"] >= 200.0
    assert list(found.quantiles) == sorted(found.quantiles)
    assert len(found.quantiles) == 101


def test_the_first_token_is_timed_apart_from_the_end(
    serving: Running, generators: Generators, chat: Load, tmp_path: Path
) -> None:
    body = tmp_path / "stream.json"
    body.write_bytes(chat_json(stream=True))
    path = "/tokens=6,interval=30ms/v1/chat/completions"
    streamed = replace(chat, calls=5, body=body, method=path, stream=True)
    found = generators.send_http(serving.address, streamed)
    assert (found.ok, found.chunks) == (5, 30)
    # Five or six pauses lie between the first token and the end.
    assert found.latency["p50"] - found.first_token["p50"] >= 120.0


async def test_the_lean_client_reads_what_others_read(serving: Running) -> None:
    path = "/tokens=50/v1/chat/completions"
    client = LeanClient(serving.address, path)
    whole = await asyncio.to_thread(post, serving, path, chat_json())
    answers = await asyncio.gather(*(client.post(chat_json()) for _ in range(8)))
    assert set(answers) == {whole}
    pieces: list[bytes] = []
    streamed = await asyncio.to_thread(post, serving, path, chat_json(stream=True))
    assert await client.post(chat_json(stream=True), pieces.append) == b""
    assert b"".join(pieces) == streamed
    client.close()


@pytest.mark.parametrize("size", [0, 1, 100, 127, 300, 20_000, 2_100_000])
def test_a_message_is_delimited_as_protobuf_does_it(tmp_path: Path, size: int) -> None:
    message = generate_request(size=size)
    path = tmp_path / "request.bin"
    path.write_bytes(message.SerializeToString())
    expected = io.BytesIO()
    proto.serialize_length_prefixed(message, expected)
    assert delimited(path).read_bytes() == expected.getvalue()


def test_a_server_that_ends_as_it_starts_is_an_error_with_its_words() -> None:
    command = ["sh", "-c", "echo no such option >&2; exit 3"]
    with (
        pytest.raises(BenchError, match="no such option"),
        child("thing", command, "nowhere", lambda: False),
    ):
        raise AssertionError("it never served")
