"""Every recorded answer of the Bedrock runtime loses nothing."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from botocore.model import ServiceModel

from tests.corpus.bedrock_invoke_reader import Invoked, read_invoked
from tests.corpus.bedrock_reader import Reading, read_answer, read_stream
from tests.corpus.outcome import Outcome, Result
from tests.golden import bedrock as golden
from tests.golden.bedrock.botocore_oracle import check_call
from tests.support.corpus import Exchange, corpus_dir, exchanges
from tests.support.splits import every_way
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.bedrock import BedrockCodec
from trunkline_server.providers.bedrock_invoke import BedrockInvokeCodec
from trunkline_server.providers.codec import Codec, WireRequest
from trunkline_server.upstream.eventstream import EventStreamParser

CODEC = BedrockCodec()
INVOKE = BedrockInvokeCodec()

# The vendor's words and what they must mean, from the contract's comments.
FINISH_REASONS = {
    "end_turn": v1.FINISH_REASON_STOP,
    "stop_sequence": v1.FINISH_REASON_STOP,
    "max_tokens": v1.FINISH_REASON_LENGTH,
    "tool_use": v1.FINISH_REASON_TOOL_CALLS,
    "guardrail_intervened": v1.FINISH_REASON_CONTENT_FILTER,
    "content_filtered": v1.FINISH_REASON_CONTENT_FILTER,
}


# Recordings that are not read, with the reason why.
EXCEPTIONS: dict[str, str] = {}

_KINDS = {
    "converse": "json",
    "converse-stream": "frames",
    "invoke": "json",
    "invoke-with-response-stream": "frames",
}


@dataclass(frozen=True)
class Recording:
    """One recorded answer; `kind` is "json" or "frames"."""

    origin: str
    operation: str
    model: str
    kind: str
    status: int
    headers: dict[str, str]
    body: bytes


@cache
def recordings() -> tuple[Recording, ...]:
    """Every recorded answer of the runtime."""
    return tuple(_recording(each) for each in exchanges() if each.provider == "bedrock")


def _recording(exchange: Exchange) -> Recording:
    model, _, operation = unquote(exchange.path).removeprefix("/model/").rpartition("/")
    return Recording(
        exchange.origin,
        operation,
        model,
        _KINDS[operation],
        exchange.status,
        exchange.headers,
        exchange.response,
    )


Answer = v1.GenerateResponse | v1.StreamEnd


def _decoded(codec: Codec, recording: Recording) -> Iterator[tuple[str, Answer, v1.Message]]:
    """What a codec makes of an answer, in each way its bytes may arrive."""
    if recording.kind == "json":
        response = v1.GenerateResponse()
        codec.decode_generate(recording.body, response)
        yield "whole", response, response.message
        return
    for way, pieces in every_way(recording.body):
        parser = EventStreamParser()
        decoder = codec.stream_decoder()
        assembler = MessageAssembler()
        highest = -1
        events = [event for piece in pieces for event in parser.feed(piece)]
        for name, data in [*events, *parser.finish()]:
            for delta in decoder.feed(name, data):
                assert delta.part_index <= highest + 1, "a part index that leaves a gap"
                highest = max(highest, delta.part_index)
                assembler.add(delta)
        end = decoder.finish()
        assert decoder.usage == end.usage
        yield way, end, assembler.message()


def _reading(answer: Answer, message: v1.Message) -> Reading:
    assert message.role == v1.ROLE_ASSISTANT
    assert answer.finish_reason == FINISH_REASONS[answer.vendor_finish_reason]
    usage = answer.usage
    assert answer.HasField("usage") == (usage.source == v1.USAGE_SOURCE_PROVIDER)
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
    )
    calls = [part.tool_call for part in message.parts if part.HasField("tool_call")]
    return Reading(
        stop_reason=answer.vendor_finish_reason,
        parts=tuple(_part(part) for part in message.parts),
        argument_texts=tuple(call.arguments_json for call in calls),
        usage=counts if answer.HasField("usage") else (),
        findings=frozenset(
            (
                found.subject == v1.FILTER_SUBJECT_PROMPT,
                found.category,
                found.severity,
                found.detected,
                found.filtered,
            )
            for found in answer.filter_findings
        ),
    )


def _part(part: v1.Part) -> tuple[Any, ...]:
    kind = part.WhichOneof("kind")
    if kind == "text":
        return ("text", part.text)
    if kind == "tool_call":
        call = part.tool_call
        try:
            arguments = json.loads(call.arguments_json)
        except ValueError:
            arguments = None
        return ("tool", call.id, call.name, arguments)
    assert kind == "reasoning"
    if part.reasoning.redacted_data:
        return ("redacted", part.reasoning.redacted_data)
    return ("reasoning", part.reasoning.text, part.signature.value)


def _problem(recording: Recording) -> str:
    """What differs from the independent reading; empty when nothing does."""
    try:
        if recording.operation.startswith("invoke"):
            return _problem_of_invoked(recording)
        read = read_answer if recording.kind == "json" else read_stream
        expected = read(recording.body)
        for way, answer, message in _decoded(CODEC, recording):
            reading = _reading(answer, message)
            texts = zip_longest(reading.argument_texts, expected.argument_texts)
            unspelled = tuple(text if spelled else "" for text, spelled in texts)
            if replace(reading, argument_texts=unspelled) != expected:
                return f"{way}: {reading} is not {expected}"
    except UpstreamError as error:
        return f"refused: {error.message}"
    return ""


def _problem_of_invoked(recording: Recording) -> str:
    expected = read_invoked(recording.body, frames=recording.kind == "frames")
    for way, answer, message in _decoded(INVOKE, recording):
        filtered = answer.finish_reason == v1.FINISH_REASON_CONTENT_FILTER
        usage = (answer.usage.input_tokens, answer.usage.output_tokens)
        reading = Invoked(
            text="".join(part.text for part in message.parts),
            calls=tuple(
                (part.tool_call.name, json.loads(part.tool_call.arguments_json))
                for part in message.parts
                if part.HasField("tool_call")
            ),
            word=answer.vendor_finish_reason,
            usage=usage if answer.usage.source else (),
            intervened=filtered,
        )
        if reading != expected:
            return f"{way}: {reading} is not {expected}"
        if not filtered and answer.finish_reason == v1.FINISH_REASON_OTHER:
            return f"{way}: {answer.vendor_finish_reason} has no meaning"
    return ""


def test_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    seen: Counter[str] = Counter()
    lossless: Counter[str] = Counter()
    streamed: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    failures: dict[str, str] = {}
    for recording in recordings():
        row = f"{_family(recording.model)} {recording.operation}"
        seen[row] += 1
        if recording.status != 200:
            errors[row] += 1
            continue
        streamed[row] += recording.kind == "frames"
        problem = _problem(recording)
        if problem:
            failures[recording.origin] = problem
        else:
            lossless[row] += 1
    with capsys.disabled():
        print(f"\n{'model and operation':50} exchanges lossless streamed errors")
        for row in sorted(seen):
            counts = f"{seen[row]:9} {lossless[row]:8} {streamed[row]:8} {errors[row]:6}"
            print(f"{row:50} {counts}")
    assert seen.total() > 200
    assert failures.keys() == EXCEPTIONS.keys(), failures


def outcomes() -> Iterator[Outcome]:
    """What became of every recording in this dialect, for the table over all providers."""
    for recording in recordings():
        if recording.status != 200:
            error = CODEC.decode_error(recording.status, recording.headers, recording.body)
            kind = recording.headers["x-amzn-errortype"].partition(":")[0]
            mapped = error.reason == ERRORS.get(kind)
            yield Outcome(recording.origin, "mapped" if mapped else "unmapped")
        elif recording.origin in EXCEPTIONS:
            yield Outcome(recording.origin, "listed", note=EXCEPTIONS[recording.origin])
        else:
            result: Result = "lost" if _problem(recording) else "lossless"
            yield Outcome(recording.origin, result, recording.kind == "frames")


def _family(model: str) -> str:
    """The vendor's name in a model's id, which may stand behind a region or in an ARN."""
    name = model.rpartition("/")[2]
    for vendor in ("amazon", "anthropic", "ai21", "cohere", "meta", "mistral", "openai"):
        if f"{vendor}." in name:
            return vendor
    return "unknown"


# Only these were ever recorded; their meaning is read off by hand.
ERRORS = {
    "ValidationException": v1.ERROR_REASON_MODEL_NOT_FOUND,  # "model identifier is invalid"
    "AccessDeniedException": v1.ERROR_REASON_AUTHORIZATION,
    "InvalidSignatureException": v1.ERROR_REASON_AUTHENTICATION,
}


def test_recorded_errors_are_classified() -> None:
    found = [recording for recording in recordings() if recording.status != 200]
    assert len(found) > 10
    for recording in found:
        kind = recording.headers["x-amzn-errortype"].partition(":")[0]
        error = CODEC.decode_error(recording.status, recording.headers, recording.body)
        assert error.reason == ERRORS[kind], recording.origin
        assert error.http_status == recording.status
        assert error.message == json.loads(recording.body)["message"]
        assert error.provider_request_id == recording.headers["x-amzn-requestid"]


def test_golden_requests_follow_the_published_model() -> None:
    """What the golden files pin is allowed by the service's model as it was published, too, and
    is what botocore makes of the same parameters by that model."""
    path = corpus_dir() / "specs" / "bedrock__service-2.json.gz"
    model = ServiceModel(json.loads(gzip.decompress(path.read_bytes())))
    paths = sorted((Path(golden.__file__).parent / "requests").glob("*.json"))
    assert len(paths) > 20
    for path in paths:
        call = json.loads(path.read_text())["call"]
        check_call(WireRequest(call["path"], json.dumps(call["body"]).encode()), model)
