"""Pictures, transcripts, speech, orders and counts through a whole router, before the simulated
providers: each answered, retried, fallen back, refused by field, priced and counted."""

import asyncio
import struct
from collections.abc import AsyncGenerator, Callable
from typing import Any, NamedTuple

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.support.router import PATIENCE, Router, detail, reason, router
from trunkline import v1
from trunkline_server.simulator.app import Simulator

SECOND = b"\0\0" * 8_000


def wave(seconds: int) -> bytes:
    data = SECOND * seconds
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1,
                       8_000, 16_000, 2, 16, b"data", len(data))  # fmt: skip
    return head + data


@pytest.fixture
async def simulator() -> AsyncGenerator[Simulator]:
    async with Simulator(port=0) as running:
        yield running


def config(simulator: Simulator, *rows: tuple[str, str, str, str], retries: int = 0) -> str:
    """One model, `m`: rows are provider, vendor's model, capability and price, tried in order."""
    deployments = [
        f"  - {{name: d{place}, provider: {provider}, model: '{model}', priority: {place}, "
        f"capabilities: [{capability}], price: {{{price}}}}}"
        for place, (provider, model, capability, price) in enumerate(rows)
    ]
    names = ", ".join(f"d{place}" for place in range(len(rows)))
    base = simulator.url
    return "\n".join(
        [
            "providers:",
            f"  a: {{kind: openai, base_url: '{base}/openai/v1', api_key: 'env:TEST_KEY'}}",
            f"  g: {{kind: gemini, base_url: '{base}/gemini/v1beta', api_key: 'env:TEST_KEY'}}",
            f"  c: {{kind: anthropic, base_url: '{base}/anthropic', api_key: 'env:TEST_KEY'}}",
            "deployments:",
            *deployments,
            f"models: {{m: {{deployments: [{names}], strategy: priority, "
            f"attempts: {{retries: {retries}, backoff_base: 1ms}}}}}}",
        ]
    )


class Kind(NamedTuple):
    """One unary method: what it is called with, and what a deployment needs for it."""

    name: str
    model: str
    capability: str
    price: str
    unit: str
    call: Callable[[Router], Any]
    answered: Callable[[Any], bool]


def recording(spec: v1.TranscribeSpec, *pieces: bytes) -> list[v1.TranscribeRequest]:
    return [v1.TranscribeRequest(spec=spec), *(v1.TranscribeRequest(audio=p) for p in pieces)]


def transcribe(trunkline: Router, **fields: Any) -> Any:
    spec = v1.TranscribeSpec(**{"model": "m", "media_type": "audio/wav", **fields})
    whole = wave(3)
    messages = recording(spec, whole[:10_000], whole[10_000:])
    return trunkline.stub.Transcribe(iter(messages), timeout=PATIENCE)


KINDS = [
    Kind(
        "generate_image",
        "sim-image",
        "image_generation, vision",
        "image: '0.04'",
        "output_images",
        lambda t: t.stub.GenerateImage(
            v1.GenerateImageRequest(model="m", prompt="a lighthouse"), timeout=PATIENCE
        ),
        lambda r: r.images[0].image.data.startswith(b"\x89PNG"),
    ),
    Kind(
        "transcribe",
        "sim-transcribe",
        "transcription",
        "input_audio_hour: '0.36'",
        "input_audio_ms",
        transcribe,
        lambda r: "3000 milliseconds" in r.text,
    ),
    Kind(
        "rerank",
        "sim-rerank",
        "rerank",
        "input: '0.05'",
        "",
        lambda t: t.stub.Rerank(
            v1.RerankRequest(model="m", query="big river", documents=["a hill", "a big river"]),
            timeout=PATIENCE,
        ),
        lambda r: [each.index for each in r.results] == [1, 0],
    ),
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def fields_of(error: grpc.aio.AioRpcError) -> list[str]:
    bad = detail(error, error_details_pb2.BadRequest)
    return [violation.field for violation in bad.field_violations]


@each_kind
async def test_it_is_answered_priced_and_counted(kind: Kind, simulator: Simulator) -> None:
    rows = config(simulator, ("a", kind.model, kind.capability, kind.price))
    async with router(rows) as trunkline:
        response = await kind.call(trunkline)
        assert kind.answered(response)
        assert response.provider == "a"
        assert response.deployment == response.decision.deployment == "d0"
        assert response.id
        assert response.timing.total_us >= response.timing.upstream_us > 0
        (attempt,) = response.attempts
        assert attempt.outcome == v1.ATTEMPT_OUTCOME_SUCCEEDED
        assert attempt.cost == response.cost
        assert response.cost.total > 0
        assert not response.cost.unpriced
        if kind.unit:
            used = trunkline.metric(
                "trunkline_units_total", provider="a", deployment="d0", unit=kind.unit
            )
            assert used == getattr(response.usage, kind.unit) > 0
        spent = trunkline.metric("trunkline_cost_usd_total", provider="a", deployment="d0")
        assert spent == response.cost.total / 1e9
        assert (
            trunkline.metric(
                "trunkline_calls_total", operation=kind.name, caller="anonymous", reason="ok"
            )
            == 1
        )


@each_kind
async def test_what_fails_is_tried_again(kind: Kind, simulator: Simulator) -> None:
    model = f"{kind.model}?status=503;fail_first=1"
    async with router(
        config(simulator, ("a", model, kind.capability, kind.price), retries=1)
    ) as trunkline:
        response = await kind.call(trunkline)
    assert kind.answered(response)
    assert [attempt.http_status for attempt in response.attempts] == [503, 200]


@each_kind
async def test_another_deployment_takes_over(kind: Kind, simulator: Simulator) -> None:
    rows = config(
        simulator,
        ("a", f"{kind.model}?error=overloaded", kind.capability, kind.price),
        ("a", kind.model, kind.capability, kind.price),
    )
    async with router(rows) as trunkline:
        response = await kind.call(trunkline)
    assert kind.answered(response)
    assert response.deployment == "d1"
    assert [attempt.deployment for attempt in response.attempts] == ["d0", "d1"]


@each_kind
async def test_a_deployment_without_the_capability_is_passed_over(
    kind: Kind, simulator: Simulator
) -> None:
    rows = config(
        simulator,
        ("a", "sim-large", "chat, streaming", "input: '1'"),
        # Its dialect has no way to ask for it, whatever the configuration says.
        ("c", kind.model, kind.capability, kind.price),
        ("a", kind.model, kind.capability, kind.price),
    )
    async with router(rows) as trunkline:
        response = await kind.call(trunkline)
    assert response.deployment == "d2"
    assert len(response.attempts) == 1


@each_kind
async def test_a_model_that_cannot_do_it_is_named(kind: Kind, simulator: Simulator) -> None:
    async with router(
        config(simulator, ("a", "sim-large", "chat, streaming", "input: '1'"))
    ) as trunkline:
        error = await failure(kind.call(trunkline))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert fields_of(error) == ["model"]
    assert simulator.counters.calls == {}


@each_kind
async def test_no_price_is_told_and_is_not_nothing(kind: Kind, simulator: Simulator) -> None:
    rows = config(simulator, ("a", kind.model, kind.capability, "")).replace(", price: {}", "")
    async with router(rows) as trunkline:
        response = await kind.call(trunkline)
        assert response.cost.unpriced
        assert (
            trunkline.metric("trunkline_unpriced_attempts_total", provider="a", deployment="d0")
            == 1
        )


@each_kind
async def test_a_vendors_failure_is_told_as_of_generate(kind: Kind, simulator: Simulator) -> None:
    rows = config(simulator, ("a", f"{kind.model}?error=quota", kind.capability, kind.price))
    async with router(rows) as trunkline:
        error = await failure(kind.call(trunkline))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason(error) == v1.ERROR_REASON_QUOTA_EXCEEDED
    report = detail(error, v1.CallReport)
    assert len(report.attempts) == 1


IMAGE = ("a", "sim-image", "image_generation, vision", "image: '0.04'")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"count": 0}, "count"),
        ({"count": 11}, "count"),
        ({"size": "large"}, "size"),
        ({"media_type": "audio/wav"}, "media_type"),
        ({"quality": "x" * 65}, "quality"),
        ({"style": "a\nb"}, "style"),
        ({"images": [v1.Image()]}, "images[0]"),
        ({"images": [v1.Image(data=b"x")]}, "images[0].media_type"),
        ({"images": [v1.Image(uri="https://a.test/a.png")] * 17}, "images"),
        ({"mask": v1.Image(data=b"x", media_type="image/png")}, "mask"),
        ({"request_id": "\n"}, "request_id"),
        # What the chosen dialect has no word for.
        ({"style": "vivid"}, "style"),
        ({"size": "16:9"}, "size"),
        ({"seed": 1}, "seed"),
        ({"images": [v1.Image(uri="https://a.test/a.png")]}, "images[0]"),
        ({"media_type": "image/tiff"}, "media_type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_request_for_pictures(
    change: dict[str, Any], field: str, simulator: Simulator
) -> None:
    request = v1.GenerateImageRequest(**{"model": "m", "prompt": "a lighthouse", **change})
    async with router(config(simulator, IMAGE)) as trunkline:
        error = await failure(trunkline.stub.GenerateImage(request, timeout=PATIENCE))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert fields_of(error) == [field]
    assert simulator.counters.calls == {}


async def test_what_one_dialect_lacks_another_does(simulator: Simulator) -> None:
    rows = config(simulator, IMAGE, ("g", *IMAGE[1:]))
    request = v1.GenerateImageRequest(model="m", prompt="a lighthouse", size="16:9")
    async with router(rows) as trunkline:
        response = await trunkline.stub.GenerateImage(request, timeout=PATIENCE)
    assert response.deployment == "d1"
    assert response.usage.output_image_tokens == 1290


async def test_a_picture_is_changed(simulator: Simulator) -> None:
    dall_e = ("a", "dall-e-2", "image_generation", "image: '0.02'")
    rows = config(simulator, dall_e, (*IMAGE[:3], "input: '5', input_image: '10', output: '40'"))
    before = v1.Image(data=b"\x89PNG\r\n", media_type="image/png")
    request = v1.GenerateImageRequest(model="m", prompt="red", images=[before], count=2)
    async with router(rows) as trunkline:
        response = await trunkline.stub.GenerateImage(request, timeout=PATIENCE)
    # The first cannot see.
    assert response.deployment == "d1"
    assert len(response.images) == response.usage.output_images == 2
    assert response.images[0].revised_prompt == "Simulated: red"
    assert response.usage.image_variant == "medium/1024x1024"
    usage = response.usage
    assert usage.input_image_tokens == 765
    read = (usage.input_tokens - 765) * 5_000 + 765 * 10_000
    assert response.cost.total == read + usage.output_tokens * 40_000


async def test_pictures_are_priced_by_quality_and_size(simulator: Simulator) -> None:
    price = "image: '0.04', images: {hd: '0.08', hd/1024x1792: '0.12'}"
    rows = config(simulator, ("a", "dall-e-3", "image_generation", price))
    request = v1.GenerateImageRequest(
        model="m", prompt="a lighthouse", count=2, quality="hd", size="1024x1792", style="vivid"
    )
    async with router(rows) as trunkline:
        response = await trunkline.stub.GenerateImage(request, timeout=PATIENCE)
    assert response.cost.total == 240_000_000
    assert response.decision.estimated_cost.total == 240_000_000
    assert response.usage.source == v1.USAGE_SOURCE_COUNTED
    assert not response.cost.estimated


SPOKEN = ("a", "sim-speech", "speech", "input_characters: '15'")


def speak(trunkline: Router, **fields: Any) -> Any:
    request = {"model": "m", "text": "good morning " * 40, "voice": "alloy", **fields}
    return trunkline.stub.Synthesize(v1.SynthesizeRequest(**request), timeout=PATIENCE)


async def test_speech_has_one_start_then_sound_then_one_end(simulator: Simulator) -> None:
    async with router(config(simulator, SPOKEN)) as trunkline:
        events = [event async for event in speak(trunkline, media_type="audio/wav")]
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds[0] == "start"
        assert kinds[-1] == "end"
        assert set(kinds[1:-1]) == {"audio"}
        assert len(kinds) > 4
        start, end = events[0].start, events[-1].end
        assert (start.deployment, start.media_type) == ("d0", "audio/wav")
        sound = b"".join(event.audio for event in events)
        assert sound.startswith(b"RIFF")
        assert struct.unpack_from("<I", sound, 4)[0] + 8 == len(sound)
        assert end.usage.input_characters == 520
        assert end.usage.source == v1.USAGE_SOURCE_COUNTED
        assert end.cost.total == 520 * 15_000
        assert [attempt.deployment for attempt in end.attempts] == ["d0"]
        assert end.timing.first_token_us > 0
        unit = {"provider": "a", "deployment": "d0", "unit": "input_characters"}
        assert trunkline.metric("trunkline_units_total", **unit) == 520


async def test_speech_in_events_tells_its_tokens(simulator: Simulator) -> None:
    rows = config(simulator, ("a", "gpt-4o-mini-tts", "speech", "input: '0.6', output: '12'"))
    async with router(rows) as trunkline:
        events = [event async for event in speak(trunkline, instructions="cheerful")]
    end = events[-1].end
    assert events[0].start.media_type == "audio/mpeg"
    assert b"".join(event.audio for event in events).startswith(b"\xff\xfb")
    assert end.usage.source == v1.USAGE_SOURCE_PROVIDER
    assert end.cost.total == end.usage.input_tokens * 600 + end.usage.output_tokens * 12_000


async def test_speech_of_gemini(simulator: Simulator) -> None:
    rows = config(simulator, ("g", "sim-speech", "speech", "input: '0.5', output: '10'"))
    async with router(rows) as trunkline:
        events = [event async for event in speak(trunkline)]
    assert events[0].start.media_type.startswith("audio/L16")
    assert events[0].start.model == "sim-speech"
    assert events[-1].end.usage.output_audio_tokens > 0


async def test_speech_falls_back_before_its_first_piece(simulator: Simulator) -> None:
    rows = config(simulator, (SPOKEN[0], "sim-speech?error=overloaded", *SPOKEN[2:]), SPOKEN)
    async with router(rows) as trunkline:
        events = [event async for event in speak(trunkline)]
    assert events[0].start.deployment == "d1"
    assert [attempt.deployment for attempt in events[-1].end.attempts] == ["d0", "d1"]


async def take(call: Any, into: list[str | None]) -> None:
    async for event in call:
        into += [event.WhichOneof("event")]


@pytest.mark.parametrize("fault", ["reset-midstream", "close-midstream"])
async def test_speech_that_breaks_off_ends_as_a_failure(fault: str, simulator: Simulator) -> None:
    rows = config(
        simulator, (SPOKEN[0], f"sim-speech?fault={fault};at_chunk=2", *SPOKEN[2:]), SPOKEN
    )
    events: list[str | None] = []
    async with router(rows) as trunkline:
        call = speak(trunkline, media_type="audio/pcm")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await take(call, events)
    assert events[:2] == ["start", "audio"]
    assert "end" not in events
    assert reason(caught.value) == v1.ERROR_REASON_STREAM_INTERRUPTED
    report = detail(caught.value, v1.CallReport)
    # What was spoken by then may be billed.
    assert report.cost.total == 520 * 15_000


async def test_events_without_their_end_mark_are_no_recording(simulator: Simulator) -> None:
    model = "gpt-4o-mini-tts?fault=end-midstream;at_chunk=2"
    rows = config(simulator, ("a", model, "speech", "input: '0.6', output: '12'"))
    async with router(rows) as trunkline:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in speak(trunkline):
                pass
    assert reason(caught.value) == v1.ERROR_REASON_STREAM_INTERRUPTED


async def test_a_cancelled_speech_closes_the_upstream(simulator: Simulator) -> None:
    rows = config(simulator, (SPOKEN[0], "sim-speech?chunk_ms=60000", *SPOKEN[2:]))
    async with router(rows) as trunkline:
        call = speak(trunkline, media_type="audio/pcm")
        async for event in call:
            if event.audio:
                break
        call.cancel()
        async with asyncio.timeout(PATIENCE):
            # The simulator hears of it through its own socket, and tells nobody.
            while not simulator.counters.cancelled:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            calls = {"operation": "synthesize", "caller": "anonymous", "reason": "cancelled"}
            while not trunkline.metric("trunkline_calls_total", **calls):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        where = {"provider": "a", "deployment": "d0"}
        assert trunkline.metric("trunkline_cost_usd_total", **where) == pytest.approx(520 * 15e-6)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"text": ""}, "text"),
        ({"speed": 5}, "speed"),
        ({"media_type": "image/png"}, "media_type"),
        ({"voice": ""}, "voice"),
        ({"media_type": "audio/midi"}, "media_type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_request_for_speech(
    change: dict[str, Any], field: str, simulator: Simulator
) -> None:
    async with router(config(simulator, SPOKEN)) as trunkline:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in speak(trunkline, **change):
                pass
    assert fields_of(caught.value) == [field]


HEARD = ("a", "sim-transcribe", "transcription", "input_audio_hour: '0.36'")


async def test_a_transcript_with_times(simulator: Simulator) -> None:
    async with router(config(simulator, HEARD)) as trunkline:
        words = await transcribe(trunkline, timestamps=v1.TIMESTAMP_DETAIL_WORD, language="en")
        whole = await transcribe(trunkline, timestamps=v1.TIMESTAMP_DETAIL_SEGMENT)
        translated = await transcribe(trunkline, translate=True, prompt="Zuerich")
    assert [each.text for each in words.segments] == words.text.split()
    assert words.segments[-1].end_ms == words.duration_ms == 3000
    assert [each.text for each in whole.segments] == [whole.text]
    assert words.language == "english"
    assert (words.usage.input_audio_ms, words.cost.total) == (3000, 300_000)
    assert translated.text.startswith("Simulated translation")
    assert translated.text.endswith("Zuerich")


async def test_a_transcript_priced_by_tokens(simulator: Simulator) -> None:
    price = "input: '2.5', input_audio: '6', output: '10'"
    rows = config(simulator, ("a", "gpt-4o-transcribe", "transcription", price))
    async with router(rows) as trunkline:
        response = await transcribe(trunkline)
    usage = response.usage
    assert usage.input_audio_tokens == usage.input_tokens == 30
    assert response.cost.total == 30 * 6_000 + usage.output_tokens * 10_000


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "spec"),
        ([v1.TranscribeRequest(audio=b"x")], "spec"),
        (recording(v1.TranscribeSpec(model="m")), "media_type"),
        (recording(v1.TranscribeSpec(model="m", media_type="image/png"), b"x"), "media_type"),
        (recording(v1.TranscribeSpec(model="m", media_type="audio/wav")), "audio"),
        (
            recording(v1.TranscribeSpec(model="m", media_type="audio/wav", language="eng"), b"x"),
            "language",
        ),
        (
            recording(v1.TranscribeSpec(model="m", media_type="audio/wav", temperature=2), b"x"),
            "temperature",
        ),
        ([*recording(v1.TranscribeSpec(model="m", media_type="audio/wav"), b"x")] * 2, "spec"),
        (
            recording(
                v1.TranscribeSpec(model="m", media_type="audio/wav"),
                *[b"x" * 4_000_000] * 7,
            ),
            "audio",
        ),
        # What the chosen dialect does not take.
        (recording(v1.TranscribeSpec(model="m", media_type="audio/midi"), b"x"), "media_type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_recording(
    messages: list[v1.TranscribeRequest], field: str, simulator: Simulator
) -> None:
    async with router(config(simulator, HEARD)) as trunkline:
        error = await failure(trunkline.stub.Transcribe(iter(messages), timeout=PATIENCE))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert fields_of(error) == [field]
    assert simulator.counters.calls == {}


async def test_a_recording_that_does_not_come_in_time(simulator: Simulator) -> None:
    spec = v1.TranscribeSpec(model="m", media_type="audio/wav")
    async with router(config(simulator, HEARD), default_deadline="50ms") as trunkline:
        call = trunkline.stub.Transcribe(timeout=PATIENCE)
        await call.write(v1.TranscribeRequest(spec=spec, audio=b"x"))
        error = await failure(call)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert reason(error) == v1.ERROR_REASON_TIMEOUT


CHAT = [
    ("a", "sim-large", "chat, streaming, tools", "input: '1', output: '2'"),
    ("c", "sim-large", "chat, streaming, tools", "input: '1', output: '2'"),
    ("g", "sim-large", "chat, streaming, tools", "input: '1', output: '2'"),
]


def conversation(**fields: Any) -> v1.CountTokensRequest:
    message = v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text="how many rivers are there?")])
    return v1.CountTokensRequest(**{"model": "m", "messages": [message], **fields})


@pytest.mark.parametrize(
    ("place", "method"),
    [
        (0, v1.TOKEN_COUNT_METHOD_ESTIMATE),
        (1, v1.TOKEN_COUNT_METHOD_PROVIDER),
        (2, v1.TOKEN_COUNT_METHOD_PROVIDER),
    ],
    ids=["openai", "anthropic", "gemini"],
)
async def test_tokens_are_counted_by_whoever_can(
    place: int, method: v1.TokenCountMethod.ValueType, simulator: Simulator
) -> None:
    tool = v1.Tool(name="look", description="looks", parameters_json='{"type":"object"}')
    async with router(config(simulator, CHAT[place])) as trunkline:
        response = await trunkline.stub.CountTokens(conversation(), timeout=PATIENCE)
        more = await trunkline.stub.CountTokens(conversation(tools=[tool]), timeout=PATIENCE)
        assert trunkline.metric("trunkline_cost_usd_total", provider=response.provider,
                                deployment="d0") == 0  # fmt: skip
    assert response.method == method
    assert 0 < response.input_tokens < more.input_tokens
    assert response.deployment == response.decision.deployment == "d0"
    assert len(response.attempts) == (method == v1.TOKEN_COUNT_METHOD_PROVIDER)


async def test_a_count_that_fails_is_estimated_and_says_so(simulator: Simulator) -> None:
    rows = config(simulator, (CHAT[1][0], "sim-large?error=overloaded", *CHAT[1][2:]))
    async with router(rows) as trunkline:
        response = await trunkline.stub.CountTokens(conversation(), timeout=PATIENCE)
    assert response.method == v1.TOKEN_COUNT_METHOD_ESTIMATE
    assert response.input_tokens > 0
    (attempt,) = response.attempts
    assert attempt.outcome == v1.ATTEMPT_OUTCOME_FAILED


@pytest.mark.parametrize(
    ("change", "field"),
    [({"model": ""}, "model"), ({"messages": []}, "messages")],
)
async def test_a_wrong_count(change: dict[str, Any], field: str, simulator: Simulator) -> None:
    async with router(config(simulator, CHAT[0])) as trunkline:
        call = trunkline.stub.CountTokens(conversation(**change), timeout=PATIENCE)
        assert fields_of(await failure(call)) == [field]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"query": ""}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": ["a", ""]}, "documents[1]"),
        ({"documents": ["a"] * 1001}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"max_tokens_per_document": 0}, "max_tokens_per_document"),
        ({"max_tokens_per_document": 10}, "max_tokens_per_document"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_request_for_an_order(
    change: dict[str, Any], field: str, simulator: Simulator
) -> None:
    rows = config(simulator, ("a", "sim-rerank", "rerank", "input: '1'"))
    request = v1.RerankRequest(**{"model": "m", "query": "q", "documents": ["a"], **change})
    async with router(rows) as trunkline:
        error = await failure(trunkline.stub.Rerank(request, timeout=PATIENCE))
    assert fields_of(error) == [field]
    assert simulator.counters.calls == {}


async def test_the_best_documents_alone(simulator: Simulator) -> None:
    rows = config(simulator, ("a", "sim-rerank", "rerank", "input: '0.05'"))
    documents = ["x", "wide river", "river", "y"]
    request = v1.RerankRequest(model="m", query="wide river", documents=documents, top_n=2)
    async with router(rows) as trunkline:
        response = await trunkline.stub.Rerank(request, timeout=PATIENCE)
    assert [(each.index, each.relevance) for each in response.results] == [(1, 1.0), (2, 0.5)]
    assert response.usage.source == v1.USAGE_SOURCE_PROVIDER
    assert response.cost.total == response.usage.input_tokens * 50
