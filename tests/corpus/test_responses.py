"""Every recorded response, of every host, against a second reading and the vendor's SDK.

`python -m tests.corpus.test_responses` prints the table of what was proven.
"""

import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from openai._models import construct_type
from openai.types.responses import Response

from tests.corpus.outcome import Outcome, Result
from tests.corpus.responses_reader import Reading, joined_deltas, read_stream, read_whole
from tests.support.corpus import corpus_dir, exchanges
from tests.support.splits import every_way
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.openai_responses import OpenAIResponsesCodec
from trunkline_server.upstream.sse import SseParser

CODEC = OpenAIResponsesCodec()

_FIXTURES = "vercel-ai/packages/openai/src/responses/__fixtures__/"
_CALLS = {"function_call", "custom_tool_call"}
# Tools of the vendor's that the caller carries out or allows; in these recordings no answer holds
# its own output of one of the last three.
_WAITING = {"mcp_approval_request", "local_shell_call", "apply_patch_call"}

# Answers of status 200 that hold no answer: how each fails, and why that is right.
EXCEPTIONS: dict[str, tuple[v1.ErrorReason.ValueType, str]] = {
    f"{_FIXTURES}openai-error.1.chunks.txt#0": (
        v1.ERROR_REASON_QUOTA_EXCEEDED,
        "the stream is an error event, insufficient_quota",
    ),
    f"{_FIXTURES}parallel-tool-call-wrapper.1.chunks.txt#0": (
        v1.ERROR_REASON_BAD_PROVIDER_RESPONSE,
        "the first event and the last lack their closing brace",
    ),
}
# A fixture whose authors cut its deltas short, so that its items say otherwise.
CONTRADICTORY = f"{_FIXTURES}openai-shell-container.1.chunks.txt#0"
# What is right for each recorded failure: a piece of the body, the reason, the field.
FAILURES: tuple[tuple[int, str, v1.ErrorReason.ValueType, str], ...] = (
    (400, "Unsupported parameter", v1.ERROR_REASON_INVALID_REQUEST, "config.reasoning"),
    (400, "does not exist", v1.ERROR_REASON_MODEL_NOT_FOUND, "model"),
)
# Bodies that the vendor's own SDK does not take for a response, by what xAI and LM Studio leave
# out or write otherwise; the second reading stands alone there.
NOT_OPENAIS = ("vercel-ai:xai", "vercel-ai:open-responses")


@dataclass(frozen=True)
class Recording:
    """One answer of the dialect."""

    origin: str
    host: str
    stream: bool
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        """ "stream" or "whole"."""
        return "stream" if self.stream else "whole"


@cache
def recordings() -> tuple[Recording, ...]:
    """All of them: the recorded exchanges, then the other project's fixtures."""
    found = [
        Recording(
            exchange.origin,
            exchange.host,
            exchange.stream,
            exchange.status,
            exchange.headers,
            exchange.response,
        )
        for exchange in exchanges()
        if exchange.path.partition("?")[0].endswith("/responses")
    ]
    return (*found, *_fixtures())


def _fixtures() -> Iterator[Recording]:
    """The responses among the fixtures: a file is one body, or one event to a line."""
    with tarfile.open(corpus_dir() / "wire" / "vercel-ai_fixtures.tar.gz") as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is None or "__fixtures__" not in member.name:
                continue
            body = stream.read()
            host = "vercel-ai:" + member.name.split("/")[2]
            if member.name.endswith(".json") and _is_response(body):
                yield Recording(member.name, host, False, 200, {}, body)
            elif member.name.endswith(".chunks.txt") and b'"response.created"' in body:
                for number, answer in enumerate(_streams(body)):
                    yield Recording(f"{member.name}#{number}", host, True, 200, {}, answer)


def _streams(body: bytes) -> list[bytes]:
    """The streams in a fixture, which may hold those of several calls; a line is one event."""
    streams: list[list[bytes]] = []
    for line in body.splitlines():
        if b'"type":"response.created"' in line:
            streams.append([])
        if line:
            streams[-1].append(b"data: %s\n\n" % line)
    return [b"".join(events) for events in streams]


def _is_response(body: bytes) -> bool:
    document = json.loads(body)
    return isinstance(document, dict) and document.get("object") == "response"


def decode_whole(body: bytes) -> v1.GenerateResponse:
    response = v1.GenerateResponse()
    CODEC.decode_generate(body, response)
    return response


def decode_stream(pieces: list[bytes]) -> tuple[v1.Message, v1.StreamEnd]:
    """What a caller of StreamGenerate puts together from the bytes in these pieces."""
    parser = SseParser()
    decoder = CODEC.stream_decoder()
    assembler = MessageAssembler()
    events = [event for piece in pieces for event in parser.feed(piece)]
    for name, data in [*events, *parser.finish()]:
        for delta in decoder.feed(name, data):
            assembler.add(delta)
    return assembler.message(), decoder.finish()


def decode(recording: Recording) -> None:
    if recording.stream:
        decode_stream([recording.body])
    else:
        decode_whole(recording.body)


def plain(value: Any) -> Any:
    """JSON without what says nothing: nulls, and the status of what is complete."""
    if isinstance(value, dict):
        return {
            key: plain(inner)
            for key, inner in value.items()
            if inner is not None and (key, inner) != ("status", "completed")
        }
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def comparable(item: dict[str, Any]) -> dict[str, Any]:
    """An item as far as it is to come back: annotations and log probabilities are not."""
    item = plain(item)
    if item.get("type") == "message":
        item["content"] = [
            {k: v for k, v in piece.items() if k not in {"annotations", "logprobs"}}
            for piece in item["content"]
            if piece.get("text") or piece.get("refusal")
        ]
    return item


def says_nothing(item: dict[str, Any]) -> bool:
    """Whether an item is a message without content."""
    return item.get("type") == "message" and not item["content"]


def returned(message: v1.Message) -> list[dict[str, Any]]:
    """The items that the message becomes in the next turn's request."""
    request = v1.GenerateRequest(messages=[message])
    request.provider_options.update({"store": True})
    wire = CODEC.encode_generate(request, CodecTarget("model"), stream=False)
    items: list[dict[str, Any]] = json.loads(wire.body)["input"]
    return items


def finish_reason(reading: Reading) -> v1.FinishReason.ValueType:
    kinds = {item["type"] for item in reading.items}
    if reading.finish == "max_output_tokens":
        return v1.FINISH_REASON_LENGTH
    assert reading.finish == "completed"
    searched_for = any(item.get("execution") == "client" for item in reading.items)
    open_shell = "shell_call" in kinds and "shell_call_output" not in kinds
    if kinds & (_CALLS | _WAITING) or searched_for or open_shell:
        return v1.FINISH_REASON_TOOL_CALLS
    return v1.FINISH_REASON_STOP


def cited(message: v1.Message) -> list[tuple[str, str]]:
    found = []
    for citation in message.citations:
        (place,) = citation.source_indexes
        source = message.sources[place]
        text = message.parts[citation.part_index].text
        words = text[citation.start : citation.end] if citation.end else ""
        found.append((source.uri or source.id, words))
    return found


def differences(
    reading: Reading, message: v1.Message, end: v1.GenerateResponse | v1.StreamEnd
) -> list[str]:
    """How the decoded answer differs from the second reading."""
    calls = [part.tool_call for part in message.parts if part.HasField("tool_call")]
    usage = end.usage
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.reasoning_tokens,
    )
    subjects = {v1.FILTER_SUBJECT_PROMPT: "prompt", v1.FILTER_SUBJECT_ANSWER: "completion"}
    pairs = {
        "model": (end.model, reading.model),
        "text": ("".join(part.text for part in message.parts), reading.text),
        "reasoning": (
            [part.reasoning.text for part in message.parts if part.HasField("reasoning")],
            reading.reasoning,
        ),
        "calls": ([(c.id, c.name, c.arguments_json) for c in calls], reading.calls),
        "items": (
            [comparable(item) for item in returned(message)],
            [item for item in map(comparable, reading.items) if not says_nothing(item)],
        ),
        "citations": (cited(message), reading.citations),
        "finish_reason": (end.finish_reason, finish_reason(reading)),
        "vendor_finish_reason": (end.vendor_finish_reason, reading.finish),
        "usage": (counts if end.HasField("usage") else None, reading.usage),
        "findings": (
            {(subjects[f.subject], f.category, f.filtered) for f in end.filter_findings},
            reading.findings,
        ),
    }
    return [f"{name}: {a!r} != {b!r}" for name, (a, b) in pairs.items() if a != b]


def check(recording: Recording) -> list[str]:
    """The differences of one successful recording, decoded in every way."""
    if not recording.stream:
        response = decode_whole(recording.body)
        return differences(read_whole(recording.body), response.message, response)
    reading = read_stream(recording.body)
    found = []
    first = None
    for way, pieces in every_way(recording.body):
        message, end = decode_stream(pieces)
        if first is None:
            first = (message, end)
            found = differences(reading, message, end)
            said = joined_deltas(recording.body)
            if any(not reading.pieces[place].startswith(text) for place, text in said.items()):
                found.append("the deltas say something else")
        elif first != (message, end):
            found.append(f"cut {way}, it decodes otherwise")
    return found


def test_every_answer_is_decoded_without_loss() -> None:
    failures = {}
    checked = 0
    for recording in recordings():
        if recording.status == 200 and recording.origin not in {*EXCEPTIONS, CONTRADICTORY}:
            checked += 1
            try:
                found = check(recording)
            except UpstreamError as error:
                found = [str(error)]
            if found:
                failures[recording.origin] = found
    assert not failures
    assert checked > 440


def whole_of_stream(body: bytes) -> bytes:
    """The response that a stream's last event holds, with the items that were done."""
    reading = read_stream(body)
    for line in reversed(body.splitlines()):
        if line.startswith(b"data:") and b'"response"' in line:
            response = json.loads(line.removeprefix(b"data:"))["response"]
            response["output"] = reading.items
            return json.dumps(response).encode()
    raise AssertionError("no event holds a response")


def test_a_streams_join_is_what_the_whole_response_gives() -> None:
    checked = 0
    for recording in recordings():
        if recording.stream and recording.origin not in {*EXCEPTIONS, CONTRADICTORY}:
            message, end = decode_stream([recording.body])
            response = decode_whole(whole_of_stream(recording.body))
            assert message == response.message, recording.origin
            assert (end.finish_reason, end.vendor_finish_reason, end.usage) == (
                response.finish_reason,
                response.vendor_finish_reason,
                response.usage,
            ), recording.origin
            checked += 1
    assert checked > 160


def test_the_vendors_sdk_reads_the_same() -> None:
    checked = 0
    for recording in recordings():
        if recording.stream or recording.status != 200 or recording.host in NOT_OPENAIS:
            continue
        # As the SDK's own client does: leniently, for its newest types know newer fields.
        response = construct_type(value=json.loads(recording.body), type_=Response)
        assert isinstance(response, Response)
        decoded = decode_whole(recording.body)
        assert "".join(part.text for part in decoded.message.parts) == response.output_text
        calls = [item for item in response.output if item.type == "function_call"]
        parts = [part.tool_call for part in decoded.message.parts if part.HasField("tool_call")]
        ids = {call.id for call in parts}
        assert {call.call_id for call in calls} <= ids, recording.origin
        checked += 1
    assert checked > 270


def test_every_exception_fails_as_listed() -> None:
    by_origin = {recording.origin: recording for recording in recordings()}
    for origin, (reason, why) in EXCEPTIONS.items():
        with pytest.raises(UpstreamError) as caught:
            decode(by_origin[origin])
        assert caught.value.reason == reason, why


def test_what_was_sent_stands_where_a_stream_contradicts_itself() -> None:
    (recording,) = (each for each in recordings() if each.origin == CONTRADICTORY)
    message, _ = decode_stream([recording.body])
    told = "".join(part.text for part in message.parts)
    assert told == "".join(joined_deltas(recording.body).values())
    assert told != read_stream(recording.body).text


def test_every_failure_has_its_reason_and_its_field() -> None:
    failed = [recording for recording in recordings() if recording.status != 200]
    assert len(failed) == 2
    for recording in failed:
        error = CODEC.decode_error(recording.status, recording.headers, recording.body)
        (right,) = [
            (reason, field)
            for status, piece, reason, field in FAILURES
            if status == recording.status and piece.encode() in recording.body
        ]
        assert (error.reason, error.violations[0].field) == right
        assert error.http_status == recording.status


def outcomes() -> Iterator[Outcome]:
    """What became of every recording in this dialect, for the table over all providers."""
    for recording in recordings():
        if recording.status != 200:
            error = CODEC.decode_error(recording.status, recording.headers, recording.body)
            rights = [row[2] for row in FAILURES if row[1].encode() in recording.body]
            mapped = rights == [error.reason]
            yield Outcome(recording.origin, "mapped" if mapped else "unmapped")
        elif recording.origin in EXCEPTIONS:
            yield Outcome(recording.origin, "listed", note=EXCEPTIONS[recording.origin][1])
        elif recording.origin == CONTRADICTORY:
            note = "a fixture whose deltas were cut short by its authors"
            yield Outcome(recording.origin, "listed", note=note)
        else:
            result: Result = "lost" if check(recording) else "lossless"
            yield Outcome(recording.origin, result, recording.stream)


def report() -> str:
    """The table: host, exchanges, decoded without loss, of these streamed, failures mapped."""
    rows: dict[str, Counter[str]] = {}
    for recording in recordings():
        row = rows.setdefault(recording.host, Counter())
        if recording.status != 200:
            row["failures"] += 1
            continue
        row["exchanges"] += 1
        listed = recording.origin in {*EXCEPTIONS, CONTRADICTORY}
        row["listed"] += listed
        if not listed and not check(recording):
            row["lossless"] += 1
            row["streamed"] += recording.stream
    total: Counter[str] = sum(rows.values(), Counter())
    columns = ("exchanges", "lossless", "streamed", "listed", "failures")
    lines = [f"{'host':46}" + "".join(f"{name:>10}" for name in columns)]
    lines += [
        f"{host:46}" + "".join(f"{row[name]:>10}" for name in columns)
        for host, row in [*sorted(rows.items()), ("all", total)]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(report() + "\n")
