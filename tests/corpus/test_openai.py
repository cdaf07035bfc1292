"""Every recorded chat completion and embedding, of every host, against a second reading.

`python -m tests.corpus.test_openai` prints the table of what was proven.
"""

import json
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
import pytest

from tests.corpus.openai_reader import Reading, read_stream, read_whole
from tests.corpus.outcome import Outcome, Result
from tests.support.corpus import Exchange, corpus_dir, exchanges
from tests.support.splits import every_way
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.openai_chat import OpenAIChatCodec
from trunkline_server.upstream.sse import SseParser

CODEC = OpenAIChatCodec()

FINISH_REASONS = {
    "": v1.FINISH_REASON_UNSPECIFIED,
    "stop": v1.FINISH_REASON_STOP,
    "eos": v1.FINISH_REASON_STOP,
    "length": v1.FINISH_REASON_LENGTH,
    "tool_calls": v1.FINISH_REASON_TOOL_CALLS,
    "function_call": v1.FINISH_REASON_TOOL_CALLS,
    "content_filter": v1.FINISH_REASON_CONTENT_FILTER,
}

_BEEAI = (
    "openinference:python/instrumentation/openinference-instrumentation-beeai/tests/"
    "openinference/instrumentation/beeai/cassettes/test_instrumentor/"
)
_REQ_LLM = "req_llm:test/support/fixtures/"
_EMPTY = "the recording lost the body"
# Answers of status 200 that hold no answer: how each fails, and why that is right.
EXCEPTIONS: dict[str, tuple[v1.ErrorReason.ValueType, str]] = {
    f"{_BEEAI}test_agent.yaml#1": (v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, _EMPTY),
    f"{_BEEAI}test_instrumentor.yaml#1": (v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, _EMPTY),
    f"{_BEEAI}test_llm_with_tools.yaml#1": (v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, _EMPTY),
    f"{_REQ_LLM}xai/grok_4_fast/reasoning_streaming.json#0": (
        v1.ERROR_REASON_STREAM_INTERRUPTED,
        _EMPTY,
    ),
    f"{_REQ_LLM}groq/meta_llama_llama_4_scout_17b_16e_instruct/object_streaming.json#0": (
        v1.ERROR_REASON_INVALID_REQUEST,
        "the only event is an error event, of status 400",
    ),
    f"{_REQ_LLM}openrouter/google_gemini_2_5_flash_lite/object_basic.json#0": (
        v1.ERROR_REASON_SERVICE_UNAVAILABLE,
        "the choice reports an error of the provider behind, of status 502",
    ),
    f"{_REQ_LLM}openrouter/google_gemini_2_5_flash_lite/object_streaming.json#0": (
        v1.ERROR_REASON_SERVICE_UNAVAILABLE,
        "a chunk reports an error of the provider behind, of status 502",
    ),
    (
        "openllmetry:packages/opentelemetry-instrumentation-openai/tests/traces/cassettes/"
        "test_azure/test_prompt_content_filtering.yaml#0"
    ): (v1.ERROR_REASON_CONTENT_FILTER, "the body is the error of a filtered prompt"),
}

# What is right for each recorded failure, by a reading of its sentence: host, status, a piece
# of the body, the reason.
FAILURES: tuple[tuple[str, int, str, v1.ErrorReason.ValueType], ...] = (
    ("api.groq.com", 400, "tool_use_failed", v1.ERROR_REASON_INVALID_REQUEST),
    ("api.openai.com", 400, "Unsupported parameter", v1.ERROR_REASON_INVALID_REQUEST),
    ("api.openai.com", 400, "empty array", v1.ERROR_REASON_INVALID_REQUEST),
    ("api.openai.com", 400, "unsupported image", v1.ERROR_REASON_INVALID_REQUEST),
    ("api.openai.com", 400, "Error while downloading", v1.ERROR_REASON_INVALID_REQUEST),
    ("api.openai.com", 400, "less than the minimum", v1.ERROR_REASON_INVALID_REQUEST),
    ("api.openai.com", 401, "Incorrect API key", v1.ERROR_REASON_AUTHENTICATION),
    ("api.openai.com", 403, "not allowed to sample", v1.ERROR_REASON_AUTHORIZATION),
    ("api.openai.com", 404, "tools is not supported", v1.ERROR_REASON_INVALID_REQUEST),
    ("api.openai.com", 404, "not a chat model", v1.ERROR_REASON_MODEL_NOT_FOUND),
    ("api.openai.com", 404, "does not exist", v1.ERROR_REASON_MODEL_NOT_FOUND),
    ("api.x.ai", 400, "does not support parameter", v1.ERROR_REASON_INVALID_REQUEST),
    ("openrouter.ai", 400, "Unsupported parameter", v1.ERROR_REASON_INVALID_REQUEST),
    ("openrouter.ai", 400, "Required function", v1.ERROR_REASON_INVALID_REQUEST),
    ("openrouter.ai", 403, "violates usage guidelines", v1.ERROR_REASON_CONTENT_FILTER),
    ("openrouter.ai", 404, "support tool use", v1.ERROR_REASON_INVALID_REQUEST),
    ("openrouter.ai", 429, "Rate limit exceeded", v1.ERROR_REASON_RATE_LIMIT),
    ("openai.azure.com", 401, "subscription key", v1.ERROR_REASON_AUTHENTICATION),
    ("openai.azure.com", 404, "DeploymentNotFound", v1.ERROR_REASON_MODEL_NOT_FOUND),
)


# Writer's path, and the stored prompts of Portkey's gateway, whose answers are chats too.
_CHATS = re.compile(r"/v1/chat|/v1/prompts/[^/]+/completions")


@dataclass(frozen=True)
class Recording:
    """One answer of the dialect. `kind` is "chat", "stream" or "embeddings"."""

    origin: str
    host: str
    kind: str
    status: int
    headers: dict[str, str]
    body: bytes


@cache
def recordings() -> tuple[Recording, ...]:
    """All of them: the recorded exchanges, then the other project's fixtures."""
    found = [_recording(exchange) for exchange in exchanges()]
    return (*(recording for recording in found if recording is not None), *_fixtures())


def _recording(exchange: Exchange) -> Recording | None:
    path = exchange.path.partition("?")[0]
    if path.endswith("/chat/completions") or _CHATS.fullmatch(path):
        kind = "stream" if exchange.stream else "chat"
    elif path.endswith("/embeddings"):
        kind = "embeddings"
    else:
        return None
    host = exchange.host.partition(":443")[0]
    if path == "/v1/chat" and host != "api.writer.com":
        return None  # Cohere's first version has that path too.
    return Recording(
        exchange.origin, host, kind, exchange.status, exchange.headers, exchange.response
    )


def _fixtures() -> Iterator[Recording]:
    """The chat completions among the fixtures: a file is one body, or one chunk to a line."""
    with tarfile.open(corpus_dir() / "wire" / "vercel-ai_fixtures.tar.gz") as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is None or "__fixtures__" not in member.name:
                continue
            body = stream.read()
            host = "vercel-ai:" + member.name.split("/")[2]
            kind = None
            if member.name.endswith(".json"):
                kind = _kind(body)
            elif member.name.endswith(".chunks.txt") and _kind(body.split(b"\n")[0]) == "stream":
                kind = "stream"
                body = b"".join(b"data: %s\n\n" % line for line in body.splitlines() if line)
            elif member.name.endswith(".sse") and b"chat.completion.chunk" in body:
                kind = "stream"
            if kind:
                yield Recording(member.name, host, kind, 200, {}, body)


def _kind(body: bytes) -> str | None:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    if (document.get("data") or [{}])[0:1] and document.get("object") == "list":
        entry = document["data"][0] if document.get("data") else {}
        return "embeddings" if "embedding" in entry else None
    choices = document.get("choices")
    if choices == [] and "prompt_filter_results" in document:
        return "stream"
    if not choices:
        return None
    if "delta" in choices[0]:
        return "stream"
    return "chat" if "message" in choices[0] else None


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
    if recording.kind == "stream":
        decode_stream([recording.body])
    else:
        decode_whole(recording.body)


def differences(
    reading: Reading,
    message: v1.Message,
    end: v1.GenerateResponse | v1.StreamEnd,
) -> list[str]:
    """How the decoded answer differs from the second reading."""
    calls = [part.tool_call for part in message.parts if part.HasField("tool_call")]
    expected_reason = FINISH_REASONS.get(reading.finish, v1.FINISH_REASON_OTHER)
    if reading.refusal:
        expected_reason = v1.FINISH_REASON_REFUSAL
    usage = end.usage
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )
    pairs = {
        "model": (end.model, reading.model),
        "text": ("".join(part.text for part in message.parts), reading.text + reading.refusal),
        "reasoning": ("".join(p.reasoning.text for p in message.parts), reading.reasoning),
        "encrypted": (
            [p.reasoning.redacted_data for p in message.parts if p.reasoning.redacted_data],
            reading.encrypted,
        ),
        "calls": (
            # An id that the vendor did not give is made up, and never empty.
            [
                (
                    call.id if given[0] else "" if call.id else "no id",
                    call.name,
                    call.arguments_json,
                )
                for call, given in zip(calls, reading.calls, strict=False)
            ],
            reading.calls,
        ),
        "number of calls": (len(calls), len(reading.calls)),
        "finish_reason": (end.finish_reason, expected_reason),
        "vendor_finish_reason": (end.vendor_finish_reason, reading.finish),
        "usage": (counts if end.HasField("usage") else None, reading.usage),
    }
    return [f"{name}: {a!r} != {b!r}" for name, (a, b) in pairs.items() if a != b]


def check(recording: Recording) -> list[str]:
    """The differences of one successful recording, decoded in every way."""
    if recording.kind == "embeddings":
        return check_embeddings(recording.body)
    if recording.kind == "chat":
        response = decode_whole(recording.body)
        reading = read_whole(recording.body, recording.host)
        return differences(reading, response.message, response)
    reading = read_stream(recording.body, recording.host)
    found = []
    first = None
    for way, pieces in every_way(recording.body):
        message, end = decode_stream(pieces)
        if first is None:
            first = (message, end)
            found = differences(reading, message, end)
        elif first != (message, end):
            found.append(f"cut {way}, it decodes otherwise")
    return found


def check_embeddings(body: bytes) -> list[str]:
    response = v1.EmbedResponse()
    CODEC.decode_embed(body, response)
    document = json.loads(body)
    usage = document["usage"]
    found = []
    if len(response.embeddings) != len(document["data"]):
        found.append("number of embeddings")
    for decoded, entry in zip(response.embeddings, document["data"], strict=True):
        wanted = entry["embedding"]
        if isinstance(wanted, list):
            if list(decoded.values) != pytest.approx(wanted, rel=1e-6):
                found.append("values")
        elif len(decoded.values) * 4 != len(wanted.rstrip("=")) * 3 // 4:
            found.append("number of values")
    if response.usage.input_tokens != usage.get("prompt_tokens", usage["total_tokens"]):
        found.append("usage")
    if response.model != document["model"]:
        found.append("model")
    return found


def failure_label(recording: Recording) -> v1.ErrorReason.ValueType | None:
    for host, status, piece, reason in FAILURES:
        if (
            recording.status == status
            and recording.host.endswith(host)
            and piece.encode() in recording.body
        ):
            return reason
    return None


def test_every_answer_is_decoded_without_loss() -> None:
    failures = {}
    checked = 0
    for recording in recordings():
        if recording.status == 200 and recording.origin not in EXCEPTIONS:
            checked += 1
            try:
                found = check(recording)
            except UpstreamError as error:
                found = [str(error)]
            if found:
                failures[recording.origin] = found
    assert not failures
    assert checked > 1900


def test_every_exception_fails_as_listed() -> None:
    by_origin = {recording.origin: recording for recording in recordings()}
    for origin, (reason, why) in EXCEPTIONS.items():
        recording = by_origin[origin]
        with pytest.raises(UpstreamError) as caught:
            decode(recording)
        assert caught.value.reason == reason, why


def test_every_failure_has_its_reason() -> None:
    failed = [recording for recording in recordings() if recording.status != 200]
    wrong = {}
    for recording in failed:
        error = CODEC.decode_error(recording.status, recording.headers, recording.body)
        right = failure_label(recording)
        if right is None or error.reason != right:
            wrong[recording.origin] = (v1.ErrorReason.Name(error.reason), error.message)
        assert error.http_status == recording.status
        assert error.provider_request_id == (
            recording.headers.get("x-request-id") or recording.headers.get("apim-request-id") or ""
        )
    assert not wrong
    assert len(failed) > 60


def told(entry: dict[str, Any]) -> dict[str, Any]:
    """What an entry of reasoning_details tells: an unknown format and the first index do not."""
    nothing = (("format", "unknown"), ("index", 0))
    return {k: v for k, v in entry.items() if v is not None and (k, v) not in nothing}


def test_reasoning_goes_back_as_it_came() -> None:
    target = CodecTarget("model", flags={"reasoning_return": "reasoning_details"})
    checked = 0
    for recording in recordings():
        if recording.kind != "chat" or b'"reasoning_details"' not in recording.body:
            continue
        message = json.loads(recording.body)["choices"][0]["message"]
        if recording.origin in EXCEPTIONS or not message.get("reasoning_details"):
            continue
        request = v1.GenerateRequest(messages=[decode_whole(recording.body).message])
        wire = CODEC.encode_generate(request, target, stream=False)
        returned = orjson.loads(wire.body)["messages"][0]["reasoning_details"]
        given = [told(entry) for entry in message["reasoning_details"]]
        back = [told(entry) for entry in returned]
        assert back == given, recording.origin
        checked += 1
    assert checked > 200


def outcomes() -> Iterator[Outcome]:
    """What became of every recording, for the table over all providers."""
    for recording in recordings():
        if recording.status != 200:
            error = CODEC.decode_error(recording.status, recording.headers, recording.body)
            mapped = error.reason == failure_label(recording)
            yield Outcome(recording.origin, "mapped" if mapped else "unmapped")
        elif recording.origin in EXCEPTIONS:
            yield Outcome(recording.origin, "listed", note=EXCEPTIONS[recording.origin][1])
        else:
            result: Result = "lost" if check(recording) else "lossless"
            yield Outcome(recording.origin, result, recording.kind == "stream")


def report() -> str:
    """The table: host, exchanges, decoded without loss, of these streamed, failures mapped."""
    rows: dict[str, Counter[str]] = {}
    for recording in recordings():
        row = rows.setdefault(recording.host, Counter())
        if recording.status != 200:
            row["failures"] += 1
            error = CODEC.decode_error(recording.status, recording.headers, recording.body)
            row["mapped"] += error.reason == failure_label(recording)
            continue
        row["exchanges"] += 1
        row["listed"] += recording.origin in EXCEPTIONS
        if recording.origin not in EXCEPTIONS and not check(recording):
            row["lossless"] += 1
            row["streamed"] += recording.kind == "stream"
    total: Counter[str] = sum(rows.values(), Counter())
    columns = ("exchanges", "lossless", "streamed", "listed", "failures", "mapped")
    lines = [f"{'host':46}" + "".join(f"{name:>10}" for name in columns)]
    lines += [
        f"{host:46}" + "".join(f"{row[name]:>10}" for name in columns)
        for host, row in [*sorted(rows.items()), ("all", total)]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(report() + "\n")
