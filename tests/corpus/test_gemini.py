"""Every recorded answer in the Gemini dialect, of any host, loses nothing."""

import base64
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest

from tests.corpus.gemini_reader import FINISH_NAMES, Call, Reading, leaves, read_json, read_replies
from tests.corpus.outcome import Outcome, Result
from tests.support.corpus import Exchange, corpus_dir, exchanges
from tests.support.splits import every_way
from tests.support.sse_oracle import read_events
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.codec import CodecTarget, StreamDecoder
from trunkline_server.providers.gemini import GeminiCodec
from trunkline_server.upstream.sse import SseParser

CODEC = GeminiCodec()

# The recorded words and what they must mean; a STOP with calls is told apart in the check.
FINISH_REASONS = {
    "STOP": v1.FINISH_REASON_STOP,
    "MAX_TOKENS": v1.FINISH_REASON_LENGTH,
    "": v1.FINISH_REASON_UNSPECIFIED,
}

# What is not of this dialect as the router asks for it. Counted in the table, and held to be
# refused rather than misread.
ARRAY_STREAMS = "streams asked for without alt=sse: JSON arrays, which the router never asks for"
NOT_THE_DIALECT = {
    "/google/src/interactions/": "the Interactions API",
    "/google/src/speech-translation/": "the Live API, over WebSocket",
    "google-vertex-embedding.json": "no content: test_clouds.py reads it",
}

# Recordings that are refused or read otherwise, by origin, with the reason why that is right.
EXCEPTIONS: dict[str, str] = {}

# What each recorded failure means, read off by hand from its message.
ERRORS = {
    "test_generate_content_invalid_role.yaml#0": v1.ERROR_REASON_INVALID_REQUEST,
    "test_generate_content_invalid_temperature.yaml#0": v1.ERROR_REASON_INVALID_REQUEST,
    "test_generate_content_missing_model.yaml#0": v1.ERROR_REASON_MODEL_NOT_FOUND,
    # The caller sent no key at all.
    "TestGoogleAIErrorHandling.httprr#0": v1.ERROR_REASON_AUTHENTICATION,
    # A quota per minute, whatever the message says of plans.
    "google-429-retry-info.json": v1.ERROR_REASON_RATE_LIMIT,
}


@dataclass(frozen=True)
class Recording:
    """One recorded answer; `kind` is "json", "sse" or "array"."""

    origin: str
    host: str
    kind: str
    status: int
    headers: dict[str, str]
    body: bytes


@cache
def recordings() -> tuple[Recording, ...]:
    return (*_exchanges(), *_fixtures())


def _exchanges() -> Iterator[Recording]:
    for exchange in exchanges():
        if "enerateContent" in exchange.path:
            yield Recording(
                exchange.origin,
                exchange.host,
                _kind(exchange),
                exchange.status,
                exchange.headers,
                exchange.response,
            )


def _kind(exchange: Exchange) -> str:
    if not exchange.stream:
        return "json"
    return "array" if exchange.response.startswith(b"[") else "sse"


def _fixtures() -> Iterator[Recording]:
    """Answers of a public test suite: JSON, and streams of one event's data a line."""
    with tarfile.open(corpus_dir() / "wire" / "vercel-ai_fixtures.tar.gz") as archive:
        for member in archive:
            named = re.search(r"/(google|google-vertex)/src/.*__fixtures__/", member.name)
            if named is None or any(mark in member.name for mark in NOT_THE_DIALECT):
                continue
            file = archive.extractfile(member)
            assert file is not None
            body = file.read()
            if member.name.endswith(".json"):
                status = json.loads(body).get("error", {}).get("code", 200)
                yield Recording(member.name, "fixtures", "json", status, {}, body)
            else:
                lines = [line for line in body.splitlines() if line.strip()]
                framed = b"".join(b"data: %b\r\n\r\n" % line for line in lines)
                yield Recording(member.name, "fixtures", "sse", 200, {}, framed)


def _expected(recording: Recording) -> Reading:
    if recording.kind == "json":
        return read_replies([read_json(recording.body)])
    return read_replies([json.loads(data) for _, data in read_events(recording.body)])


def _decoded(recording: Recording) -> Iterator[tuple[str, v1.Message, v1.StreamEnd]]:
    """What the codec makes of the recording, in each way its bytes may arrive."""
    if recording.kind == "json":
        response = v1.GenerateResponse()
        CODEC.decode_generate(recording.body, response)
        end = v1.StreamEnd(
            finish_reason=response.finish_reason,
            vendor_finish_reason=response.vendor_finish_reason,
            usage=response.usage,
            model=response.model,
        )
        yield "whole", response.message, end
        return
    for way, pieces in every_way(recording.body):
        parser = SseParser()
        events = [event for piece in pieces for event in parser.feed(piece)]
        yield way, *_streamed([*events, *parser.finish()])


def _streamed(events: list[tuple[str, bytes]]) -> tuple[v1.Message, v1.StreamEnd]:
    decoder: StreamDecoder = CODEC.stream_decoder()
    assembler = MessageAssembler()
    highest = -1
    for name, data in events:
        for delta in decoder.feed(name, data):
            assert highest <= delta.part_index <= highest + 1, "part indexes leave a gap or return"
            highest = max(highest, delta.part_index)
            assembler.add(delta)
    end = decoder.finish()
    assert decoder.model == end.model
    return assembler.message(), end


def _reading(message: v1.Message, end: v1.StreamEnd) -> Reading:
    """The codec's result in the reader's terms."""
    assert message.role == v1.ROLE_ASSISTANT
    calls = [part for part in message.parts if part.HasField("tool_call")]
    _check_finish(end, calls=bool(calls))
    _check_ids([part.tool_call.id for part in calls])
    parts = message.parts
    assert all(part.signature.dialect == "gemini" for part in parts if part.HasField("signature"))
    usage = end.usage
    return Reading(
        model=end.model,
        finish=end.vendor_finish_reason,
        kinds=_kinds(message),
        text="".join(part.text for part in parts),
        items=tuple(
            json.loads(part.vendor_item.json) for part in parts if part.HasField("vendor_item")
        ),
        sources=tuple(source.uri for source in message.sources),
        cited=tuple(message.parts[c.part_index].text[c.start : c.end] for c in message.citations),
        thoughts="".join(part.reasoning.text for part in parts),
        calls=tuple(_call(part) for part in calls),
        media=tuple(_media(part) for part in parts if _kind_of(part) == "media"),
        signatures=tuple(part.signature.value for part in parts if part.HasField("signature")),
        usage=(
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.reasoning_tokens,
        )
        if usage.source == v1.USAGE_SOURCE_PROVIDER
        else (),
    )


def _check_finish(end: v1.StreamEnd, *, calls: bool) -> None:
    word = end.vendor_finish_reason
    expected = FINISH_REASONS[FINISH_NAMES[int(word)] if word.isdigit() else word]
    if calls and expected == v1.FINISH_REASON_STOP:
        expected = v1.FINISH_REASON_TOOL_CALLS
    assert end.finish_reason == expected


def _check_ids(ids: list[str]) -> None:
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,40}", call_id) for call_id in ids)


def _kinds(message: v1.Message) -> tuple[str, ...]:
    kinds: list[str] = []
    for part in message.parts:
        kind = _kind_of(part)
        if kind == "call" or kinds[-1:] != [kind]:
            kinds.append(kind)
    return tuple(kinds)


def _kind_of(part: v1.Part) -> str:
    names = {"text": "text", "reasoning": "thought", "tool_call": "call", "vendor_item": "item"}
    return names.get(part.WhichOneof("kind") or "", "media")


def _call(part: v1.Part) -> Call:
    arguments = leaves(json.loads(part.tool_call.arguments_json))
    call = part.tool_call
    return Call(call.id, call.name, tuple(arguments), part.signature.value)


def _media(part: v1.Part) -> tuple[str, str]:
    media = part.image if part.HasField("image") else part.audio
    return media.media_type, base64.b64encode(media.data).decode()


def _with_made_ids(expected: Reading, found: Reading) -> Reading:
    """The expected reading, with the made ids where the vendor gave none."""
    calls = tuple(
        Call(call.id or made.id, call.name, call.arguments, call.signature)
        for call, made in zip(expected.calls, found.calls, strict=True)
    )
    return Reading(**{**expected.__dict__, "calls": calls})


def _problem(recording: Recording) -> str:
    """What differs from the independent reading; empty when nothing does."""
    expected = _expected(recording)
    first: v1.Message | None = None
    try:
        for way, message, end in _decoded(recording):
            found = _reading(message, end)
            if len(found.calls) != len(expected.calls):
                return f"{way}: {len(found.calls)} calls, not {len(expected.calls)}"
            if found != _with_made_ids(expected, found):
                return f"{way}: {found} is not {expected}"
            first = first or message
            if message != first:
                return f"{way}: differs from the first way"
    except UpstreamError as error:
        return f"refused: {error.message}"
    return ""


def test_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    columns = ("exchanges", "lossless", "streamed", "errors", "arrays")
    table: dict[str, Counter[str]] = {}
    failures: dict[str, str] = {}
    for recording in recordings():
        row = table.setdefault(recording.host, Counter())
        row["exchanges"] += 1
        if recording.status != 200:
            row["errors"] += 1
        elif recording.kind == "array":
            row["arrays"] += 1
        elif problem := _problem(recording):
            failures[recording.origin] = problem
        else:
            row["lossless"] += 1
            row["streamed"] += recording.kind == "sse"
    with capsys.disabled():
        print(f"\n{'host':45}" + "".join(f"{column:>11}" for column in columns))
        for host in sorted(table):
            print(f"{host:45}" + "".join(f"{table[host][column]:11}" for column in columns))
        print(f"arrays are {ARRAY_STREAMS}")
    total: Counter[str] = sum(table.values(), Counter())
    assert total["lossless"] >= 290
    assert total["streamed"] >= 80
    assert failures.keys() == EXCEPTIONS.keys(), failures


def outcomes() -> Iterator[Outcome]:
    """What became of every recording, for the table over all providers."""
    for recording in recordings():
        if recording.status != 200:
            error = CODEC.decode_error(recording.status, recording.headers, recording.body)
            mapped = error.reason == ERRORS.get(_short(recording.origin))
            yield Outcome(recording.origin, "mapped" if mapped else "unmapped")
        elif recording.kind == "array":
            # Refused as they are, and read whole once framed as the router would have asked.
            yield Outcome(recording.origin, "listed", note=ARRAY_STREAMS)
        elif recording.origin in EXCEPTIONS:
            yield Outcome(recording.origin, "listed", note=EXCEPTIONS[recording.origin])
        else:
            result: Result = "lost" if _problem(recording) else "lossless"
            yield Outcome(recording.origin, result, recording.kind == "sse")


def test_array_streams_do_not_pass_for_answers() -> None:
    for recording in _arrays():
        parser = SseParser()
        events = [*parser.feed(recording.body), *parser.finish()]
        with pytest.raises(UpstreamError) as caught:
            _streamed([*events])
        assert caught.value.reason == v1.ERROR_REASON_STREAM_INTERRUPTED, recording.origin


def test_nothing_is_lost_of_array_streams_sent_as_events() -> None:
    """Their replies are those of an event stream, so framed as one they must be read whole."""
    for recording in _arrays():
        replies = json.loads(recording.body)
        framed = b"".join(b"data: %b\n\n" % json.dumps(reply).encode() for reply in replies)
        assert not _problem(replace(recording, kind="sse", body=framed)), recording.origin


def _arrays() -> list[Recording]:
    arrays = [recording for recording in recordings() if recording.kind == "array"]
    assert len(arrays) >= 10
    return arrays


def test_recorded_errors_are_classified() -> None:
    found = _failed()
    assert {_short(recording.origin) for recording in found} == ERRORS.keys()
    for recording in found:
        error = CODEC.decode_error(recording.status, recording.headers, recording.body)
        assert error.reason == ERRORS[_short(recording.origin)], recording.origin
        assert error.http_status == recording.status
        assert error.message == json.loads(recording.body)["error"]["message"]


def _failed() -> list[Recording]:
    return [recording for recording in recordings() if recording.status != 200]


def _short(origin: str) -> str:
    return origin.rpartition("/")[2]


def test_recorded_pause_is_kept() -> None:
    (limited,) = (recording for recording in _failed() if recording.status == 429)
    error = CODEC.decode_error(limited.status, limited.headers, limited.body)
    assert error.retry_after == pytest.approx(34.4)


def test_calls_go_back_as_recorded_clients_sent_them() -> None:
    """The vendor accepted what its clients returned to it after an answer with calls: the same
    calls, with the same signatures on them, as the codec makes of that answer."""
    accepted = {
        exchange.origin: exchange
        for exchange in exchanges()
        if "enerateContent" in exchange.path and exchange.status == 200
    }
    compared = signed = 0
    for recording in recordings():
        file, _, number = recording.origin.rpartition("#")
        following = accepted.get(f"{file}#{int(number) + 1}") if number.isdigit() else None
        if following is None or recording.kind == "array":
            continue
        _, message, _ = next(_decoded(recording))
        request = v1.GenerateRequest(messages=[message])
        wire = CODEC.encode_generate(request, CodecTarget("any"), stream=False)
        ours = _sent_calls(wire.body)
        theirs = _sent_calls(following.request)
        if ours and theirs:  # Some clients hand over to another model without the calls.
            assert theirs[-len(ours) :] == ours, recording.origin
            compared += 1
            signed += any(signature for _, _, signature in ours)
    assert compared >= 35
    assert signed >= 25


def _sent_calls(body: bytes | str) -> list[tuple[str, Any, bytes]]:
    """Name, arguments and signature of each call in a request; some clients spell base64 with
    the other alphabet."""
    return [
        (
            part["functionCall"]["name"],
            part["functionCall"].get("args", {}),
            base64.urlsafe_b64decode(part.get("thoughtSignature", "").translate(_URL_SAFE)),
        )
        for content in json.loads(body)["contents"]
        for part in content["parts"]
        if "functionCall" in part
    ]


_URL_SAFE = str.maketrans("+/", "-_")
