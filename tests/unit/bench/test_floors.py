"""The floors do what their names say: otherwise ratios to them are worth nothing."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest
from bench.common import tools
from bench.common.child import Running
from bench.common.load import Generators
from bench.payloads import (
    chat_json,
    embed_json,
    embed_request,
    generate_request,
    generate_response,
    route_request,
    route_response,
)
from bench.subjects import Bench, Options, upstream

from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub

pytestmark = pytest.mark.skipif(shutil.which("go") is None, reason="needs Go, to build the bench")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    program, loader = tools.build()
    folder = tmp_path_factory.mktemp("bench")
    with upstream(program, None) as running:
        yield Bench(Options(), Generators(Path("unused"), loader, Path("unused")), running, folder)


def asked(bench: Bench) -> int:
    return bench.upstream_stats()["requests"]


@pytest.mark.parametrize("kind", ["echo-raw", "echo"])
def test_an_echo_answers_without_the_upstream(bench: Bench, kind: str) -> None:
    before = asked(bench)
    with bench.floor(kind) as floor, grpc.insecure_channel(floor.address) as channel:
        answer = InferenceServiceStub(channel).Route(route_request(), timeout=20)
    assert answer == route_response()
    assert asked(bench) == before


@pytest.mark.parametrize("kind", ["forward", "forward-aiohttp"])
def test_a_pass_through_asks_the_upstream_once_for_each_call(bench: Bench, kind: str) -> None:
    before = asked(bench)
    starting = bench.floor(kind, body=chat_json())
    with starting as floor, grpc.insecure_channel(floor.address) as channel:
        stub = InferenceServiceStub(channel)
        answers = [stub.Generate(generate_request(), timeout=20) for _ in range(3)]
    assert answers == [generate_response()] * 3
    assert asked(bench) == before + 3


def test_a_translation_answers_what_the_upstream_said(bench: Bench) -> None:
    starting = bench.floor("translate", path="/tokens=3/v1/chat/completions")
    with starting as floor, grpc.insecure_channel(floor.address) as channel:
        answer = InferenceServiceStub(channel).Generate(generate_request(), timeout=20)
    assert answer.message.parts[0].text == "token token token "
    assert answer.usage.output_tokens == 3
    # The prompt of 1 KiB went with it: the upstream counts four bytes to a token.
    assert answer.usage.input_tokens > 256


def test_an_embedding_floor_answers_as_many_vectors(bench: Bench) -> None:
    starting = bench.floor("forward", body=embed_json(2), path="/v1/embeddings", vectors=2)
    with starting as floor, grpc.insecure_channel(floor.address) as channel:
        answer = InferenceServiceStub(channel).Embed(embed_request(2), timeout=20)
    assert [len(vector.values) for vector in answer.embeddings] == [1536, 1536]


def streaming(bench: Bench, kind: str) -> AbstractContextManager[Running]:
    body = chat_json(stream=True)
    return bench.floor(kind, body=body, path="/tokens=100/v1/chat/completions")


@pytest.mark.parametrize(("kind", "calls"), [("stream", 0), ("stream-forward", 1)])
def test_a_stream_has_its_hundred_chunks(bench: Bench, kind: str, calls: int) -> None:
    before = asked(bench)
    with streaming(bench, kind) as floor, grpc.insecure_channel(floor.address) as channel:
        events = list(InferenceServiceStub(channel).StreamGenerate(generate_request(), timeout=20))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["start", *["delta"] * 100, "end"]
    assert asked(bench) == before + calls


@pytest.mark.parametrize("kind", ["forward", "forward-aiohttp", "translate"])
def test_a_failing_call_of_a_floor_is_an_error(bench: Bench, kind: str) -> None:
    """A floor whose upstream refuses is not measured as if it had answered."""
    starting = bench.floor(kind, path="/fail=1/v1/chat/completions")
    with (
        starting as floor,
        grpc.insecure_channel(floor.address) as channel,
        pytest.raises(grpc.RpcError),
    ):
        InferenceServiceStub(channel).Generate(v1.GenerateRequest(model="bench"), timeout=20)
