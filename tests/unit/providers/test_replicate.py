"""The Replicate dialect beyond its golden cases: what it refuses, failures, and its exchange."""

import json
import random
from typing import Any

import pytest

from tests.support.splits import every_way
from trunkline import v1
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.exchange import LAST_REPLY, Ask
from trunkline_server.providers.replicate import FLAGS, ReplicateCodec
from trunkline_server.upstream.sse import SseParser

CODEC = ReplicateCodec()
TARGET = CodecTarget("owner/name")
API = "https://api.replicate.com/v1/predictions/p1"


def message(role: v1.Role.ValueType = v1.ROLE_USER, **part: Any) -> v1.Message:
    return v1.Message(role=role, parts=[v1.Part(**part)])


PICTURE: dict[str, Any] = {"image": v1.Image(uri="https://example.com/a.png")}


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("tools", {"tools": [v1.Tool(name="f")]}),
        ("tool_choice", {"tool_choice": v1.ToolChoice(mode=v1.TOOL_CHOICE_MODE_AUTO)}),
        ("response_format", {"response_format": v1.ResponseFormat()}),
        (
            "config.reasoning",
            {
                "config": v1.GenerationConfig(
                    reasoning=v1.ReasoningConfig(effort=v1.REASONING_EFFORT_LOW)
                )
            },
        ),
        ("config.stop[1]", {"config": v1.GenerationConfig(stop=["a", "b,c"])}),
        ("messages[0].role", {"messages": [message(v1.ROLE_TOOL, text="x")]}),
        ("messages[0].role", {"messages": [message(v1.ROLE_UNSPECIFIED, text="x")]}),
        ("messages[0].parts[0].audio", {"messages": [message(audio=v1.Audio(data=b"x"))]}),
        ("messages[0].parts[0].file", {"messages": [message(file=v1.File(data=b"x"))]}),
        ("messages[0].parts[0].image", {"messages": [message(v1.ROLE_ASSISTANT, **PICTURE)]}),
        ("messages[0].parts[0].image.media_type", {"messages": [message(image={"data": b"x"})]}),
        ("messages[1].parts[0].image", {"messages": [message(**PICTURE), message(**PICTURE)]}),
        ("messages[0].parts[0]", {"messages": [message()]}),
        (
            "messages[0].parts[0].tool_call",
            {"messages": [message(v1.ROLE_ASSISTANT, tool_call=v1.ToolCall(id="1", name="f"))]},
        ),
    ],
)
def test_what_no_prompt_can_carry_is_refused_by_its_field(
    field: str, fields: dict[str, Any]
) -> None:
    request = v1.GenerateRequest(**{"messages": [message(text="hi")], **fields})
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_generate(request, TARGET, stream=False)
    assert caught.value.reason == v1.ERROR_REASON_INVALID_REQUEST
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize("model", ["llama", "a/b/c", "owner/name:latest", "deployments/x", ""])
def test_a_model_that_is_none_is_refused(model: str) -> None:
    request = v1.GenerateRequest(messages=[message(text="hi")])
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_generate(request, CodecTarget(model), stream=False)
    assert caught.value.violations[0].field == "model"


@pytest.mark.parametrize(
    ("flag", "field", "fields"),
    [
        ("image_field", "messages[0].parts[0].image", {"messages": [message(**PICTURE)]}),
        ("stop_field", "config.stop", {"config": v1.GenerationConfig(stop=["a"])}),
    ],
)
def test_models_without_an_input_refuse_what_would_go_there(
    flag: str, field: str, fields: dict[str, Any]
) -> None:
    request = v1.GenerateRequest(**{"messages": [message(text="hi")], **fields})
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_generate(request, CodecTarget("o/n", flags={flag: ""}), stream=False)
    assert caught.value.violations[0].field == field


def test_hints_are_left_out() -> None:
    turn = message(v1.ROLE_ASSISTANT, reasoning=v1.Reasoning(text="hm"))
    turn.parts.add().text = "4"
    request = v1.GenerateRequest(messages=[message(text="2+2?"), turn, message(text="sure?")])
    body = json.loads(CODEC.encode_generate(request, TARGET, stream=False).body)
    assert "hm" not in body["input"]["prompt"]


def test_embeddings_are_refused() -> None:
    with pytest.raises(TrunklineError) as caught:
        CODEC.encode_embed(v1.EmbedRequest(inputs=["a"]), TARGET)
    assert caught.value.violations[0].field == "model"


def test_every_flag_is_documented() -> None:
    assert all(f"`{name}`" in (ReplicateCodec.__doc__ or "") for name in FLAGS)


def prediction(status: str, **fields: Any) -> bytes:
    urls = {"get": API, "cancel": f"{API}/cancel", "stream": "https://stream.replicate.com/p1"}
    return json.dumps({"id": "p1", "status": status, "urls": urls, **fields}).encode()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("The input or output was flagged as sensitive. (E005)", "CONTENT_FILTER"),
        ("NSFW content detected. Try again", "CONTENT_FILTER"),
        ("Service is currently unavailable due to high demand (E003)", "SERVICE_UNAVAILABLE"),
        ("Invalid input (E006)", "INVALID_REQUEST"),
        ("This model's maximum context length is 8192 tokens", "CONTEXT_LENGTH_EXCEEDED"),
        ("Prediction took too long and was stopped", "TIMEOUT"),
        ("CUDA out of memory", "SERVICE_UNAVAILABLE"),
        ("", "SERVICE_UNAVAILABLE"),
    ],
)
def test_failing_after_start(error: str, reason: str) -> None:
    """Written from the vendor's documented codes; no recording holds one."""
    exchange = CODEC.exchange(TARGET, stream=False)
    assert exchange.follow(prediction("processing")) is not None
    with pytest.raises(UpstreamError) as caught:
        exchange.follow(prediction("failed", error=error))
    assert v1.ErrorReason.Name(caught.value.reason) == f"ERROR_REASON_{reason}"
    assert caught.value.message
    assert exchange.abandon() is None


@pytest.mark.parametrize("status", ["canceled", "aborted"])
def test_called_off_by_others(status: str) -> None:
    with pytest.raises(UpstreamError, match=status):
        CODEC.decode_generate(prediction(status), v1.GenerateResponse())


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b"not json", b'{"status": "new word"}', b'{"status": []}'],
)
def test_what_is_no_prediction_makes_no_sense(body: bytes) -> None:
    exchange = CODEC.exchange(TARGET, stream=False)
    with pytest.raises(UpstreamError) as caught:
        exchange.follow(body)
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
    assert exchange.abandon() is None


@pytest.mark.parametrize("urls", [None, [], {}, {"get": 5}, {"stream": None}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_prediction_without_addresses_makes_no_sense(urls: Any, stream: bool) -> None:
    exchange = CODEC.exchange(TARGET, stream=stream)
    body = json.dumps({"status": "starting", "urls": urls}).encode()
    with pytest.raises(UpstreamError) as caught:
        exchange.follow(body)
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE


def test_the_course_of_a_prediction() -> None:
    exchange = CODEC.exchange(CodecTarget("o/n", flags={"poll_ms": 250}), stream=False)
    assert exchange.abandon() is None
    assert exchange.follow(prediction("starting")) == Ask(API, after=0.25)
    assert exchange.abandon() == Ask(f"{API}/cancel", "POST")
    assert exchange.follow(prediction("processing")) == Ask(API, after=0.25)
    assert exchange.follow(prediction("succeeded", output="x")) is None
    assert exchange.abandon() is None


def test_the_course_of_a_streamed_prediction() -> None:
    exchange = CODEC.exchange(TARGET, stream=True)
    ask = exchange.follow(prediction("starting"))
    assert ask is not None
    assert (ask.url, ask.streamed) == ("https://stream.replicate.com/p1", True)
    assert ("accept", "text/event-stream") in ask.headers
    assert exchange.abandon() == Ask(f"{API}/cancel", "POST")
    assert exchange.rest() == Ask(API)
    assert exchange.follow(prediction("processing")) == Ask(API, after=0.5)
    assert exchange.follow(prediction("succeeded")) is None
    assert exchange.abandon() is None


@pytest.mark.parametrize(("seconds", "told"), [(0.2, "5s"), (12.01, "13s"), (1e9, "86400s")])
def test_the_vendor_knows_the_time_limit(seconds: float, told: str) -> None:
    request = v1.GenerateRequest(messages=[message(text="hi")])
    wire = CODEC.encode_generate(request, TARGET, stream=False)
    first = CODEC.exchange(TARGET, stream=False).first(wire, seconds)
    assert dict(first.headers) == {"prefer": "wait=5", "cancel-after": told}


STREAM = (
    b"event: output\nid: 1:0\ndata: Hel\n\n"
    b"event: logs\nid: 2:0\ndata: loading\n\n"
    b"event: output\nid: 3:0\ndata:  lo\ndata: \xe2\x82\xac\n\n"
    b"event: output\nid: 4:0\ndata: \n\n"
    b"event: done\nid: 5:0\ndata: {}\n\n"
)


@pytest.mark.parametrize(("_way", "chunks"), [*every_way(STREAM)])
def test_a_stream_however_it_is_cut(_way: str, chunks: list[bytes]) -> None:
    decoder, parser, text = CODEC.stream_decoder(), SseParser(), ""
    for chunk in chunks:
        for name, data in parser.feed(chunk):
            text += "".join(delta.text for delta in decoder.feed(name, data))
    assert text == "Hel lo\n€"
    last = prediction("succeeded", metrics={"input_token_count": 3, "output_token_count": 4})
    decoder.feed(LAST_REPLY, last)
    assert decoder.finish().usage.output_tokens == 4


@pytest.mark.parametrize(
    ("event", "data", "reason"),
    [
        ("error", b'{"detail": "flagged as sensitive (E005)"}', "CONTENT_FILTER"),
        ("error", b"something broke", "SERVICE_UNAVAILABLE"),
        ("done", b'{"reason": "error"}', "SERVICE_UNAVAILABLE"),
        ("done", b'{"reason": "canceled"}', "SERVICE_UNAVAILABLE"),
        ("output", b"\xff", "BAD_PROVIDER_RESPONSE"),
        (LAST_REPLY, b'{"status": "failed", "error": "boom"}', "SERVICE_UNAVAILABLE"),
    ],
)
def test_failures_inside_a_stream(event: str, data: bytes, reason: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.stream_decoder().feed(event, data)
    assert v1.ErrorReason.Name(caught.value.reason) == f"ERROR_REASON_{reason}"


def test_a_stream_without_its_end_is_interrupted() -> None:
    decoder = CODEC.stream_decoder()
    decoder.feed("output", b"Hel")
    decoder.feed(LAST_REPLY, prediction("succeeded"))
    with pytest.raises(UpstreamError) as caught:
        decoder.finish()
    assert caught.value.reason == v1.ERROR_REASON_STREAM_INTERRUPTED


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, {"title": "Unauthenticated", "detail": "key r8_secret is bad"}, "AUTHENTICATION"),
        (402, {"title": "Insufficient credit", "detail": "Add credit"}, "QUOTA_EXCEEDED"),
        (404, {"detail": "The requested resource could not be found."}, "MODEL_NOT_FOUND"),
        (422, {"title": "Invalid version or not permitted", "detail": "x"}, "MODEL_NOT_FOUND"),
        (422, {"title": "Input validation failed", "detail": "- input"}, "INVALID_REQUEST"),
        (429, {"detail": "Request was throttled."}, "RATE_LIMIT"),
        (500, "oops", "SERVICE_UNAVAILABLE"),
        (503, None, "SERVICE_UNAVAILABLE"),
    ],
)
def test_refusals(status: int, body: Any, reason: str) -> None:
    error = CODEC.decode_error(status, {}, json.dumps(body).encode())
    assert v1.ErrorReason.Name(error.reason) == f"ERROR_REASON_{reason}"
    assert error.http_status == status
    assert "r8_secret" not in error.message


def test_a_refused_input_names_its_field() -> None:
    body = {
        "title": "Input validation failed",
        "detail": "- input.temperature: Must be less than or equal to 5\n",
        "status": 422,
        "invalid_fields": [
            {"type": "number_lte", "field": "input.temperature", "description": "too high"},
            {"type": "required", "field": "input", "description": "prompt is required"},
            {"type": "unknown", "field": "input.own_knob", "description": "no"},
        ],
    }
    error = CODEC.decode_error(422, {}, json.dumps(body).encode())
    assert [violation.field for violation in error.violations] == [
        "config.temperature",
        "messages",
    ]


@pytest.mark.parametrize(
    ("headers", "detail", "seconds"),
    [
        ({"retry-after": "3"}, "", 3.0),
        ({}, "Expected available in 12 seconds.", 12.0),
        ({}, "", None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], detail: str, seconds: float | None) -> None:
    error = CODEC.decode_error(429, headers, json.dumps({"detail": detail}).encode())
    assert error.retry_after == seconds


def test_random_bodies_never_break_it() -> None:
    rng = random.Random(3)
    for _ in range(2_000):
        body = rng.randbytes(rng.randrange(40))
        CODEC.decode_error(rng.choice([400, 422, 500]), {}, body)
        with pytest.raises(UpstreamError):
            CODEC.decode_generate(body, v1.GenerateResponse())
