"""The Python client's methods for pictures, sound, order, counts and lists, blocking and asyncio,
and what of their calls is kept: masked where that is demanded, and in the ledger."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_ledger import arrived
from tests.support.process import router_process
from tests.support.router import router
from trunkline import AsyncClient, Client, InvalidRequestError, v1
from trunkline_server.simulator.app import Simulator
from trunkline_server.simulator.media import wav

KEY = {"TEST_KEY": "sk-test"}
SPEC = v1.TranscribeSpec(model="hear", media_type="audio/wav")
ORDER = v1.RerankRequest(model="sort", query="wide river", documents=["hill", "wide river"])


@pytest.fixture
async def simulator() -> AsyncGenerator[Simulator]:
    async with Simulator(port=0) as running:
        yield running


def config(simulator: Simulator) -> str:
    rows = {
        "draw": ("gpt-image-1", "image_generation", "image: '0.04'"),
        "hear": ("whisper-1", "transcription", "input_audio_hour: '0.36'"),
        "speak": ("tts-1", "speech", "input_characters: '15'"),
        "sort": ("sim-rerank", "rerank", "search_unit: '0.002', input: '0.05'"),
        "talk": ("sim-large", "chat, streaming", "input: '1', output: '2'"),
    }
    deployments = "\n".join(
        f"  - {{name: d-{name}, provider: a, model: {model}, capabilities: [{can}], "
        f"price: {{{price}}}}}"
        for name, (model, can, price) in rows.items()
    )
    models = ", ".join(f"{name}: {{deployments: [d-{name}]}}" for name in rows)
    return (
        f"providers: {{a: {{kind: openai, base_url: '{simulator.url}/openai/v1', "
        f"api_key: 'env:TEST_KEY'}}}}\ndeployments:\n{deployments}\nmodels: {{{models}}}\n"
    )


async def pieces() -> AsyncIterator[bytes]:
    sound = wav(2_000)
    yield sound[:1000]
    yield sound[1000:]


async def test_asyncio(simulator: Simulator) -> None:
    async with router(config(simulator)) as trunkline, AsyncClient(trunkline.address) as client:
        drawn = await client.generate_image("a lighthouse", model="draw")
        heard = await client.transcribe(SPEC, pieces())
        whole = await client.transcribe(SPEC, wav(1_000))
        speech = client.synthesize("good morning", model="speak", voice="alloy")
        sound = b"".join([piece async for piece in speech.audio()])
        again = client.synthesize("good morning", model="speak", voice="alloy")
        assert await again.sound() == sound
        order = await client.rerank(ORDER)
        count = await client.count_tokens("how many?", model="talk")
        listed = [model.name async for model in client.list_models(capabilities=["speech"])]
        (health,) = await client.provider_health()
        with pytest.raises(InvalidRequestError) as caught:
            await client.generate_image("")
    assert drawn.images
    assert "2000 milliseconds" in heard.text
    assert "1000 milliseconds" in whole.text
    assert speech.start is not None
    assert speech.start.media_type == "audio/mpeg"
    assert speech.end is not None
    assert speech.end.cost.total == 12 * 15_000
    assert order.results[0].index == 1
    assert count.method == v1.TOKEN_COUNT_METHOD_ESTIMATE
    assert listed == ["speak"]
    assert health.provider == "a"
    assert caught.value.field_violations[0].field == "prompt"


def all_of_it(address: str) -> dict[str, Any]:
    with Client(address) as client:
        speech = client.synthesize("good morning", model="speak", voice="alloy")
        with client.synthesize("x " * 400, model="speak", voice="alloy") as left:
            next(left.audio())
        return {
            "drawn": client.generate_image("a lighthouse", model="draw"),
            "heard": client.transcribe(SPEC, iter([wav(2_000)])),
            "sound": speech.sound(),
            "end": speech.end,
            "order": client.rerank(ORDER),
            "count": client.count_tokens("how many?", model="talk"),
            "listed": [model.name for model in client.list_models()],
            "health": client.provider_health("a"),
        }


async def test_blocking(simulator: Simulator) -> None:
    async with router(config(simulator)) as trunkline:
        told = await asyncio.to_thread(all_of_it, trunkline.address)
    assert told["drawn"].images
    assert "2000 milliseconds" in told["heard"].text
    assert told["sound"]
    assert told["end"].usage.input_characters == 12
    assert told["order"].results[0].index == 1
    assert told["count"].input_tokens > 0
    assert told["listed"] == ["draw", "hear", "sort", "speak", "talk"]
    assert len(told["health"]) == 1


async def test_what_is_kept(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "trunkline.yaml"
    path.write_text(
        config(simulator) + "state: {database: 'sqlite:///usage.db'}\nledger: {journal: journal}\n"
    )
    async with router_process("--config", str(path), env=KEY) as process:
        async with AsyncClient(process.address) as client:
            drawn = await client.generate_image("a lighthouse", model="draw")
            heard = await client.transcribe(SPEC, wav(2_000))
            speech = client.synthesize("good morning", model="speak", voice="alloy")
            await speech.sound()
            await client.rerank(ORDER)
            await client.count_tokens("how many?", model="talk")
        kept = {event.operation: event for event in await arrived(tmp_path / "usage.db", 5)}
    assert kept.keys() == {"generate_image", "transcribe", "synthesize", "rerank", "count_tokens"}
    assert kept["generate_image"].usage == drawn.usage
    assert kept["generate_image"].cost == drawn.cost
    assert kept["transcribe"].usage.input_audio_ms == 2_000
    assert kept["transcribe"].cost.total == heard.cost.total == 200_000
    assert kept["synthesize"].streamed
    assert kept["synthesize"].usage.input_characters == 12
    assert kept["rerank"].cost.total > 0
    assert kept["count_tokens"].cost.total == 0
    assert kept["count_tokens"].deployment == ""


async def test_what_is_masked(simulator: Simulator) -> None:
    privacy = (
        "privacy: {detect: [EMAIL_ADDRESS], default_label: secret, "
        "labels: [{name: secret, mask: true}]}\n"
    )
    prompt = "send it to jane.doe@example.com"
    masking = config(simulator) + privacy
    async with router(masking) as trunkline, AsyncClient(trunkline.address) as client:
        drawn = await client.generate_image(prompt, model="draw")
        masked = trunkline.metric("trunkline_masked_calls_total", label="secret")
        spec = v1.TranscribeSpec(model="hear", media_type="audio/wav", prompt=prompt)
        heard = await client.transcribe(spec, wav(1_000))
    # The vendor repeats what it was told: that it comes back whole shows that it was restored.
    assert masked == 1
    assert drawn.images[0].revised_prompt == f"Simulated: {prompt}"
    assert heard.text.endswith(prompt)
