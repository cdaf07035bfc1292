"""Every recorded answer in Cohere's dialect loses nothing."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from tests.corpus.cohere_reader import Reading, read_stream, read_whole
from tests.corpus.outcome import Outcome, Result
from tests.support.corpus import corpus_dir, exchanges
from tests.support.splits import every_way
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.cohere import CohereCodec
from trunkline_server.upstream.sse import SseParser

CODEC = CohereCodec()

FINISH_REASONS = {
    "COMPLETE": v1.FINISH_REASON_STOP,
    "MAX_TOKENS": v1.FINISH_REASON_LENGTH,
    "TOOL_CALL": v1.FINISH_REASON_TOOL_CALLS,
}
_FIXTURES = "/cohere/src/"


@dataclass(frozen=True)
class Recording:
    """One answer of the dialect. `kind` is "chat", "stream", "embeddings" or "order";
    `documents` is how many a reranking was given."""

    origin: str
    host: str
    kind: str
    status: int
    headers: dict[str, str]
    body: bytes
    documents: int = 0


@cache
def recordings() -> tuple[Recording, ...]:
    """All of them: the recorded exchanges, then the other project's fixtures."""
    return (*_exchanges(), *_fixtures())


def _exchanges() -> Iterator[Recording]:
    for exchange in exchanges():
        path = exchange.path.partition("?")[0]
        documents = 0
        if exchange.host != "api.cohere.com":
            continue
        if path == "/v2/chat":
            kind = "stream" if exchange.stream else "chat"
        elif path.endswith("/rerank"):
            # The first version's answer is the second's.
            kind, documents = "order", len(json.loads(exchange.request)["documents"])
        else:
            continue
        yield Recording(
            exchange.origin,
            exchange.host,
            kind,
            exchange.status,
            exchange.headers,
            exchange.response,
            documents,
        )


def _fixtures() -> Iterator[Recording]:
    """The fixtures of the vendor: a file is one body, or one event's data to a line."""
    with tarfile.open(corpus_dir() / "wire" / "vercel-ai_fixtures.tar.gz") as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is None or _FIXTURES not in member.name:
                continue
            body = stream.read()
            kind = "chat"
            if "rerank" in member.name:
                kind = "order"
            elif "embedding" in member.name:
                kind = "embeddings"
            elif member.name.endswith(".chunks.txt"):
                kind = "stream"
                body = b"".join(b"data: %s\n\n" % line for line in body.splitlines() if line)
            documents = len(json.loads(body)["results"]) if kind == "order" else 0
            yield Recording(member.name, "fixtures", kind, 200, {}, body, documents)


def decode_stream(pieces: list[bytes]) -> tuple[v1.Message, v1.StreamEnd]:
    """What a caller of StreamGenerate puts together from the bytes in these pieces."""
    parser = SseParser()
    decoder = CODEC.stream_decoder()
    assembler = MessageAssembler()
    events = [event for piece in pieces for event in parser.feed(piece)]
    for name, data in [*events, *parser.finish()]:
        for delta in decoder.feed(name, data):
            assembler.add(delta)
    end = decoder.finish()
    assert decoder.usage == end.usage
    return assembler.message(), end


def differences(
    reading: Reading, message: v1.Message, end: v1.GenerateResponse | v1.StreamEnd
) -> list[str]:
    """How the decoded answer differs from the second reading."""
    reasoning = [part for part in message.parts if part.HasField("reasoning")]
    calls = [part.tool_call for part in message.parts if part.HasField("tool_call")]
    pairs = {
        "text": ("".join(part.text for part in message.parts), reading.text),
        "thinking": (_said(reasoning, "thinking"), reading.thinking),
        "plan": (_said(reasoning, "tool_plan"), reading.plan),
        "calls": ([(c.id, c.name, c.arguments_json) for c in calls], reading.calls),
        "citations": (_citations(message), reading.citations),
        "finish_reason": (end.finish_reason, FINISH_REASONS[reading.finish]),
        "vendor_finish_reason": (end.vendor_finish_reason, reading.finish),
        "usage": ((end.usage.input_tokens, end.usage.output_tokens), reading.usage),
        "whose count": (end.usage.source, v1.USAGE_SOURCE_PROVIDER),
    }
    return [f"{name}: {a!r} != {b!r}" for name, (a, b) in pairs.items() if a != b]


def _said(parts: list[v1.Part], kind: str) -> str:
    return "".join(part.reasoning.text for part in parts if part.signature.value == kind)


def _citations(message: v1.Message) -> list[tuple[int, int, str, tuple[str, ...]]]:
    """The citations, the words being those of the part where they say to be."""
    return [
        (
            cited.start,
            cited.end,
            message.parts[cited.part_index].text[cited.start : cited.end],
            tuple(message.sources[index].id for index in cited.source_indexes),
        )
        for cited in message.citations
    ]


def check(recording: Recording) -> list[str]:
    """The differences of one recording, decoded in every way."""
    match recording.kind:
        case "chat":
            response = v1.GenerateResponse()
            CODEC.decode_generate(recording.body, response)
            return differences(read_whole(recording.body), response.message, response)
        case "embeddings":
            return _check_embeddings(recording.body)
        case "order":
            return _check_order(recording)
    reading = read_stream(recording.body)
    found: list[str] = []
    first = None
    for way, pieces in every_way(recording.body):
        message, end = decode_stream(pieces)
        if first is None:
            first = (message, end)
            found = differences(reading, message, end)
        elif first != (message, end):
            found.append(f"cut {way}, it decodes otherwise")
    return found


def _check_embeddings(body: bytes) -> list[str]:
    response = v1.EmbedResponse()
    CODEC.decode_embed(body, response)
    document = json.loads(body)
    wanted = document["embeddings"]["float"]
    found = [pytest.approx(list(vector.values), rel=1e-6) for vector in response.embeddings]
    billed = document["meta"]["billed_units"]["input_tokens"]
    return [] if found == wanted and response.usage.input_tokens == billed else ["vectors or usage"]


def _check_order(recording: Recording) -> list[str]:
    request = v1.RerankRequest(documents=["d"] * recording.documents)
    response = v1.RerankResponse()
    CODEC.decode_rerank(recording.body, request, response)
    document = json.loads(recording.body)
    wanted = [(result["index"], result["relevance_score"]) for result in document["results"]]
    found = [(result.index, result.relevance) for result in response.results]
    units = document["meta"]["billed_units"]["search_units"]
    return [] if found == wanted and response.usage.search_units == units else ["order or usage"]


def outcomes() -> Iterator[Outcome]:
    """What became of every recording, for the table over all providers."""
    for recording in recordings():
        result: Result = "lost" if check(recording) else "lossless"
        yield Outcome(recording.origin, result, recording.kind == "stream")


def test_every_answer_is_decoded_without_loss() -> None:
    failures = {
        recording.origin: found for recording in recordings() if (found := check(recording))
    }
    assert not failures
    assert len(recordings()) >= 34
    assert sum(recording.kind == "stream" for recording in recordings()) >= 13
    assert all(recording.status == 200 for recording in recordings())


def test_what_was_recorded_goes_back_as_the_vendor_took_it() -> None:
    """A recorded client sent the model's calls and its tools' results back, which the vendor
    answered: what the codec sends of the same turn is the same, with the plan besides."""
    accepted = {exchange.origin: exchange for exchange in exchanges()}
    compared = 0
    for recording in recordings():
        file, _, number = recording.origin.rpartition("#")
        following = accepted.get(f"{file}#{int(number) + 1}") if number.isdigit() else None
        if following is None or recording.kind != "chat":
            continue
        response = v1.GenerateResponse()
        CODEC.decode_generate(recording.body, response)
        request = v1.GenerateRequest(messages=[response.message])
        wire = CODEC.encode_generate(request, CodecTarget("m"), stream=False)
        (ours,) = json.loads(wire.body)["messages"]
        theirs = json.loads(following.request)["messages"][1]
        assert ours["tool_calls"] == theirs["tool_calls"]
        assert ours.get("tool_plan", "") == json.loads(recording.body)["message"].get(
            "tool_plan", ""
        )
        compared += 1
    assert compared >= 2
