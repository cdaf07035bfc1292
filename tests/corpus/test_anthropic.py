"""Every recorded answer in the Messages API's dialect, of any host, loses nothing."""

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import pytest

from tests.corpus.anthropic_reader import (
    Reading,
    read_answer,
    read_frames,
    read_stream,
    read_stream_events,
)
from tests.corpus.outcome import Outcome, Result
from tests.support.corpus import Exchange, corpus_dir, exchanges
from tests.support.splits import every_way
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.anthropic_messages import AnthropicMessagesCodec
from trunkline_server.providers.codec import StreamDecoder
from trunkline_server.upstream.sse import SseParser

CODEC = AnthropicMessagesCodec()

# The vendor's words and what they must mean, from the contract's comments.
FINISH_REASONS = {
    "end_turn": v1.FINISH_REASON_STOP,
    "stop_sequence": v1.FINISH_REASON_STOP,
    "max_tokens": v1.FINISH_REASON_LENGTH,
    "tool_use": v1.FINISH_REASON_TOOL_CALLS,
    "refusal": v1.FINISH_REASON_REFUSAL,
    "": v1.FINISH_REASON_UNSPECIFIED,
}

# What the recorded failures mean, by status.
ERRORS = {403: v1.ERROR_REASON_AUTHORIZATION}

# Recordings that are refused, with the reason why that is right.
EXCEPTIONS: dict[str, str] = {
    "vercel-ai/packages/anthropic/src/__fixtures__/spliced-message-start.chunks.txt#0": (
        "a second message begins inside the first, half of whose tool call is out by then"
    ),
}


@dataclass(frozen=True)
class Recording:
    """One recorded answer; `kind` is "json", "sse" or "frames"."""

    origin: str
    host: str
    kind: str
    status: int
    headers: dict[str, str]
    body: bytes


def recordings() -> Iterator[Recording]:
    for exchange in exchanges():
        host = _host(exchange)
        if host:
            yield Recording(
                exchange.origin,
                host,
                _kind(exchange),
                exchange.status,
                exchange.headers,
                exchange.response,
            )
    yield from _fixtures()


def _host(exchange: Exchange) -> str:
    """The host's name in the table; empty for an exchange in another dialect."""
    path = exchange.path.partition("?")[0]
    if path.endswith("/v1/messages"):
        return exchange.host
    if "/publishers/anthropic/" in path:
        return "vertex " + exchange.host
    if "anthropic." in path and "/invoke" in path and '"messages"' in exchange.request:
        return "bedrock " + exchange.host.partition(":")[0]
    return ""


def _kind(exchange: Exchange) -> str:
    if "eventstream" in exchange.headers.get("content-type", ""):
        return "frames"
    return "sse" if exchange.stream else "json"


def _fixtures() -> Iterator[Recording]:
    """Answers of a public test suite: JSON, and streams of one event's data a line."""
    with tarfile.open(corpus_dir() / "wire" / "vercel-ai_fixtures.tar.gz") as archive:
        for member in archive:
            if "/anthropic/src/__fixtures__/" not in member.name:
                continue
            file = archive.extractfile(member)
            assert file is not None
            body = file.read()
            if member.name.endswith(".json"):
                yield Recording(member.name, "fixtures", "json", 200, {}, body)
                continue
            for number, lines in enumerate(_answers(body)):
                framed = b"".join(b"data: %b\n\n" % line for line in lines)
                yield Recording(f"{member.name}#{number}", "fixtures", "sse", 200, {}, framed)


def _answers(body: bytes) -> Iterator[list[bytes]]:
    """The lines of each answer of a file, which holds those of several requests in turn."""
    lines = []
    for line in body.splitlines():
        if not line.strip():
            continue
        lines.append(line)
        if json.loads(line)["type"] == "message_stop":
            yield lines
            lines = []
    if lines:
        yield lines


def _read(recording: Recording) -> Reading:
    if recording.kind == "json":
        return read_answer(recording.body)
    if recording.kind == "sse":
        return read_stream(recording.body)
    return read_stream_events(read_frames(recording.body))


def _decoded(recording: Recording) -> Iterator[tuple[str, Reading]]:
    """What the codec makes of the recording, in each way its bytes may arrive."""
    if recording.kind == "json":
        response = v1.GenerateResponse()
        CODEC.decode_generate(recording.body, response)
        yield "whole", _reading(response, response.message)
    elif recording.kind == "sse":
        for way, pieces in every_way(recording.body):
            parser = SseParser()
            events = [event for piece in pieces for event in parser.feed(piece)]
            yield way, _streamed([*events, *parser.finish()])
    else:
        yield (
            "frames",
            _streamed(
                [("chunk", json.dumps(event).encode()) for event in read_frames(recording.body)]
            ),
        )


def _streamed(events: list[Any]) -> Reading:
    decoder: StreamDecoder = CODEC.stream_decoder()
    assembler = MessageAssembler()
    highest = -1
    for name, data in events:
        for delta in decoder.feed(name, data):
            if delta.WhichOneof("kind") in {"source", "citation"}:
                assembler.add(delta)
                continue
            assert delta.part_index <= highest + 1, "a part index that leaves a gap"
            highest = max(highest, delta.part_index)
            assembler.add(delta)
    end = decoder.finish()
    assert decoder.usage == end.usage
    return _reading(end, assembler.message())


def _reading(answer: v1.GenerateResponse | v1.StreamEnd, message: v1.Message) -> Reading:
    assert message.role == v1.ROLE_ASSISTANT
    for citation in message.citations:
        # Each is of the whole text, and names a source that the text's own account names.
        part = message.parts[citation.part_index]
        assert (citation.start, citation.end) == (0, len(part.text))
        assert all(message.sources[i].uri in part.signature.value for i in citation.source_indexes)
    assert answer.finish_reason == FINISH_REASONS[answer.vendor_finish_reason]
    usage = answer.usage
    assert answer.HasField("usage") == (usage.source == v1.USAGE_SOURCE_PROVIDER)
    texts = [part.tool_call.arguments_json for part in message.parts if part.HasField("tool_call")]
    return Reading(
        model=answer.model,
        stop_reason=answer.vendor_finish_reason,
        parts=tuple(_part(part) for part in message.parts),
        argument_texts=tuple(texts),
        usage=_counts(usage) if answer.HasField("usage") else (),
    )


def _counts(usage: v1.Usage) -> tuple[int, ...]:
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.cache_write_1h_tokens,
        usage.reasoning_tokens,
    )


def _part(part: v1.Part) -> tuple[Any, ...]:
    kind = part.WhichOneof("kind")
    if kind == "text":
        kept = json.loads(part.signature.value) if part.HasField("signature") else {}
        return ("text", part.text, kept.get("citations", []))
    if kind == "vendor_item":
        block = json.loads(part.vendor_item.json)
        assert part.vendor_item.type == block["type"]
        return ("vendor", block)
    if kind == "tool_call":
        call = part.tool_call
        try:
            arguments = json.loads(call.arguments_json)
        except ValueError:
            arguments = None
        return ("tool_use", call.id, call.name, arguments)
    assert kind == "reasoning"
    if part.reasoning.redacted_data:
        return ("redacted_thinking", part.reasoning.redacted_data)
    return ("thinking", part.reasoning.text, part.signature.value)


def test_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    seen: Counter[str] = Counter()
    lossless: Counter[str] = Counter()
    streamed: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    failures: dict[str, str] = {}
    for recording in recordings():
        seen[recording.host] += 1
        if recording.status != 200:
            errors[recording.host] += 1
            continue
        streamed[recording.host] += recording.kind != "json"
        problem = _problem(recording)
        if problem:
            failures[recording.origin] = problem
        else:
            lossless[recording.host] += 1
    with capsys.disabled():
        print(f"\n{'host':50} exchanges lossless streamed errors")
        for host in sorted(seen):
            print(
                f"{host:50} {seen[host]:9} {lossless[host]:8} {streamed[host]:8} {errors[host]:6}"
            )
    assert seen.total() > 500
    assert failures.keys() == EXCEPTIONS.keys(), failures


def outcomes() -> Iterator[Outcome]:
    """What became of every recording, for the table over all providers."""
    for recording in recordings():
        if recording.status != 200:
            error = CODEC.decode_error(recording.status, recording.headers, recording.body)
            mapped = error.reason == ERRORS.get(recording.status)
            yield Outcome(recording.origin, "mapped" if mapped else "unmapped")
        elif recording.origin in EXCEPTIONS:
            yield Outcome(recording.origin, "listed", note=EXCEPTIONS[recording.origin])
        else:
            result: Result = "lost" if _problem(recording) else "lossless"
            yield Outcome(recording.origin, result, recording.kind != "json")


def _problem(recording: Recording) -> str:
    """What differs from the independent reading; empty when nothing does."""
    try:
        expected = _read(recording)
    except ValueError as error:
        expected = None
        reading_error = str(error)
    try:
        for way, reading in _decoded(recording):
            if expected is None:
                return f"{way}: decoded, though {reading_error}"
            if _unspelled(reading, expected) != expected:
                return f"{way}: {reading} is not {expected}"
    except UpstreamError as error:
        return f"refused: {error.message}"
    return ""


def _unspelled(reading: Reading, expected: Reading) -> Reading:
    """The reading without the texts of arguments that came as JSON values."""
    texts = zip_longest(reading.argument_texts, expected.argument_texts)
    return replace(
        reading, argument_texts=tuple(text if spelled else "" for text, spelled in texts)
    )


def test_recorded_errors_are_classified() -> None:
    """Only refusals of access were ever recorded; their meaning is read off by hand."""
    found = [recording for recording in recordings() if recording.status != 200]
    assert found
    for recording in found:
        error = CODEC.decode_error(recording.status, recording.headers, recording.body)
        assert error.reason == ERRORS[recording.status], recording.origin
        assert error.http_status == recording.status
        assert error.message == json.loads(recording.body)["message"]
