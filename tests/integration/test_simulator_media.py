"""The vendors' own SDKs against the simulated pictures, transcripts, speech and counts."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from anthropic import AsyncAnthropic
from google import genai
from google.genai import types
from openai import AsyncOpenAI
from openai.types import image_edit_params, image_generate_params
from openai.types.audio import (
    speech_create_params,
    transcription_create_params,
    translation_create_params,
)

from trunkline_server.simulator import known_fields
from trunkline_server.simulator.app import Simulator
from trunkline_server.simulator.media import png, wav

TLS = ssl.create_default_context()
PICTURE = ("before.png", png("before", 8, 8), "image/png")
RECORDING = ("words.wav", wav(2_000), "audio/wav")


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(port=0) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(verify=TLS) as client:
        yield client


@pytest.fixture
def vendor(simulator: Simulator, http: httpx2.AsyncClient) -> AsyncOpenAI:
    url = f"{simulator.url}/openai/v1"
    return AsyncOpenAI(base_url=url, api_key="k", max_retries=0, http_client=http)


@pytest.fixture
def google(simulator: Simulator, http: httpx2.AsyncClient) -> genai.Client:
    options = types.HttpOptions(
        base_url=f"{simulator.url}/gemini", api_version="v1beta", httpx_async_client=http
    )
    return genai.Client(api_key="k", http_options=options)


async def test_openai_pictures(vendor: AsyncOpenAI) -> None:
    made = await vendor.images.generate(
        model="gpt-image-1", prompt="a lighthouse", n=2, size="1024x1536", quality="high"
    )
    assert made.data is not None
    assert [bool(each.b64_json) for each in made.data] == [True, True]
    assert (made.size, made.quality) == ("1024x1536", "high")
    assert made.usage is not None
    assert made.usage.output_tokens == 2 * 4160
    linked = await vendor.images.generate(model="dall-e-3", prompt="x", response_format="url")
    assert linked.data is not None
    assert str(linked.data[0].url).startswith("https://")
    assert linked.usage is None
    changed = await vendor.images.edit(model="gpt-image-1", prompt="red", image=[PICTURE, PICTURE])
    assert changed.usage is not None
    assert changed.usage.input_tokens_details.image_tokens == 2 * 765
    with pytest.raises(openai.BadRequestError) as refused:
        await vendor.images.generate(model="gpt-image-1", prompt="x", size="large")
    assert refused.value.param == "size"


async def test_openai_transcripts(vendor: AsyncOpenAI) -> None:
    plain = await vendor.audio.transcriptions.create(model="gpt-4o-transcribe", file=RECORDING)
    assert "2000 milliseconds" in plain.text
    assert plain.usage is not None
    assert plain.usage.type == "tokens"
    timed = await vendor.audio.transcriptions.create(
        model="whisper-1",
        file=RECORDING,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert timed.duration == 2.0
    assert timed.words
    assert timed.segments
    assert [each.word for each in timed.words] == timed.text.split()
    with pytest.warns(DeprecationWarning, match="deprecated"):
        english = await vendor.audio.translations.create(model="whisper-1", file=RECORDING)
    assert "translation" in english.text
    wrong = ("words.txt", b"words", "text/plain")
    with pytest.raises(openai.BadRequestError):
        await vendor.audio.transcriptions.create(model="whisper-1", file=wrong)


async def test_openai_speech(vendor: AsyncOpenAI) -> None:
    speak = vendor.audio.speech
    whole = await speak.create(
        model="tts-1", voice="alloy", input="good morning", response_format="wav"
    )
    assert whole.read().startswith(b"RIFF")
    pieces = []
    async with speak.with_streaming_response.create(
        model="tts-1", voice="alloy", input="good morning " * 20, response_format="pcm"
    ) as response:
        assert response.headers["content-type"] == "audio/pcm"
        pieces = [piece async for piece in response.iter_bytes(4096)]
    assert len(pieces) > 4
    with pytest.raises(openai.BadRequestError):
        await speak.create(model="tts-1", voice="nobody", input="x")


async def test_gemini_pictures_and_speech(google: genai.Client) -> None:
    config = types.GenerateContentConfig(
        response_modalities=["IMAGE"], image_config=types.ImageConfig(aspect_ratio="16:9")
    )
    models = google.aio.models
    drawn = await models.generate_content(
        model="gemini-2.5-flash-image", contents="a lighthouse", config=config
    )
    (candidate,) = drawn.candidates or []
    assert candidate.content is not None
    (part,) = candidate.content.parts or []
    assert part.inline_data is not None
    assert part.inline_data.mime_type == "image/png"
    spoken = types.GenerateContentConfig(
        response_modalities=["AUDIO"],
        speech_config=types.SpeechConfig(
            voice_config=types.VoiceConfig(
                prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name="Kore")
            )
        ),
    )
    chunks = [
        chunk
        async for chunk in await models.generate_content_stream(
            model="gemini-2.5-flash-preview-tts", contents="good morning", config=spoken
        )
    ]
    assert chunks[-1].candidates
    assert str(chunks[-1].candidates[0].finish_reason) == "FinishReason.STOP"


async def test_counts(simulator: Simulator, google: genai.Client, http: Any) -> None:
    counted = await google.aio.models.count_tokens(model="gemini-2.5-flash", contents="a b c")
    assert counted.total_tokens
    claude = AsyncAnthropic(
        base_url=f"{simulator.url}/anthropic", api_key="k", max_retries=0, http_client=http
    )
    told = await claude.messages.count_tokens(
        model="claude-sonnet-4-5", messages=[{"role": "user", "content": "a b c"}]
    )
    assert told.input_tokens > 0


def test_known_fields_are_those_of_the_sdk() -> None:
    """Oracle: the parameter types that the vendor publishes."""
    made = set(image_generate_params.ImageGenerateParamsBase.__annotations__)
    assert made | {"stream"} == known_fields.OPENAI_IMAGES
    changed = set(image_edit_params.ImageEditParamsBase.__annotations__)
    assert changed | {"stream"} == known_fields.OPENAI_IMAGE_EDITS
    heard = set(transcription_create_params.TranscriptionCreateParamsBase.__annotations__)
    assert heard | {"stream"} == known_fields.OPENAI_TRANSCRIPTIONS
    translated = set(translation_create_params.TranslationCreateParams.__annotations__)
    assert translated == known_fields.OPENAI_TRANSLATIONS
    assert (
        set(speech_create_params.SpeechCreateParams.__annotations__) == known_fields.OPENAI_SPEECH
    )


async def test_a_form_that_is_cut_short_harms_nobody(
    simulator: Simulator, vendor: AsyncOpenAI
) -> None:
    host, _, port = simulator.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /openai/v1/images/edits HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\n"
        b"content-type: multipart/form-data; boundary=b\r\ncontent-length: 500\r\n\r\n--b\r\n"
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""
    assert await vendor.images.generate(model="gpt-image-1", prompt="still there")
