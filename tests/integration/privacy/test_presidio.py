"""The analyzer out of process, over real HTTP with its documented shape."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, ClientTimeout, web

from trunkline import v1
from trunkline_server.clock import SystemClock
from trunkline_server.errors import TrunklineError
from trunkline_server.privacy.detect import Detector
from trunkline_server.privacy.presidio import Presidio, PresidioSettings
from trunkline_server.privacy.request import mask_request, texts_of

ANN = "ann@example.org"


class Analyzer:
    """Finds the name Ann Smith, as the analyzer's API reference has its questions and answers."""

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []
        self.status = 200
        self.body: object = None

    async def analyze(self, request: web.Request) -> web.Response:
        question = await request.json()
        self.asked.append(question)
        if self.status != 200 or self.body is not None:
            return web.json_response(self.body or {"error": "no"}, status=self.status)
        text = question["text"]
        found = [
            {
                "entity_type": kind,
                "start": text.index(value),
                "end": text.index(value) + len(value),
                "score": score,
                "analysis_explanation": None,
            }
            for kind, value, score in (
                ("PERSON", "Ann Smith", 0.85),
                ("URL", "example.org", 0.5),
                ("DATE_TIME", "today", 0.2),
            )
            if value in text
        ]
        return web.json_response(found)


class Ears:
    def __init__(self) -> None:
        self.outages: list[tuple[bool, str]] = []

    def analyzer_outage(self, entered: bool, mode: str) -> None:
        self.outages.append((entered, mode))


class SetClock(SystemClock):
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class World:
    def __init__(self, url: str, session: ClientSession, analyzer: Analyzer) -> None:
        self.url = url
        self.session = session
        self.analyzer = analyzer
        self.ears = Ears()
        self.clock = SetClock()

    async def post(self, url: str, body: bytes, limit: float) -> tuple[int, bytes]:
        headers = {"content-type": "application/json"}
        total = ClientTimeout(total=limit)
        async with self.session.post(url, data=body, headers=headers, timeout=total) as reply:
            return reply.status, await reply.read()

    def presidio(self, **changes: object) -> Presidio:
        settings = PresidioSettings(self.url, **{"timeout": 5.0, **changes})  # type: ignore[arg-type] # Of mixed types.
        return Presidio(settings, self.post, self.clock, self.ears, Detector().spans)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    analyzer = Analyzer()
    app = web.Application()
    app.router.add_post("/analyze", analyzer.analyze)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with ClientSession() as session:
        yield World(f"http://127.0.0.1:{runner.addresses[0][1]}/", session, analyzer)
    await runner.cleanup()


async def test_names_are_masked_beside_what_patterns_find(world: World) -> None:
    said = f"“Ann Smith” <{ANN}> wrote today"
    request = v1.EmbedRequest(inputs=[said, " "])
    find = await world.presidio(entities=("PERSON", "URL")).finder(texts_of(request))
    masked, map_ = mask_request(request, find, texts_of(request))
    assert isinstance(masked, v1.EmbedRequest)
    text = masked.inputs[0]
    # The pattern's address stands against the analyzer's URL in the midst of it.
    assert text == "“[PERSON_1]” <[EMAIL_ADDRESS_1]> wrote today"
    assert map_.restore(text) == said
    assert world.analyzer.asked == [
        {
            "text": said,
            "language": "en",
            "score_threshold": 0.5,
            "entities": ["PERSON", "URL"],
        }
    ]


@pytest.mark.parametrize(
    ("status", "body"), [(500, None), (200, {"no": "list"}), (200, [{"start": 1}]), (200, [3])]
)
async def test_an_analyzer_that_fails_is_away(world: World, status: int, body: object) -> None:
    world.analyzer.status, world.analyzer.body = status, body
    presidio = world.presidio(on_outage="inline", rest=5.0)
    find = await presidio.finder([f"Ann Smith {ANN}"])
    assert [span.kind for span in find(f"Ann Smith {ANN}")] == ["EMAIL_ADDRESS"]
    assert world.ears.outages == [(True, "inline")]
    # It rests: no further question, no further word of it.
    await presidio.finder([f"Ann Smith {ANN}"])
    assert len(world.analyzer.asked) == 1
    world.clock.now = 5.1
    world.analyzer.status, world.analyzer.body = 200, None
    find = await presidio.finder([f"Ann Smith {ANN}"])
    assert [span.kind for span in find(f"Ann Smith {ANN}")] == ["PERSON", "EMAIL_ADDRESS"]
    assert world.ears.outages == [(True, "inline"), (False, "inline")]


async def test_without_an_answer_nothing_passes_where_that_is_the_mode(world: World) -> None:
    world.analyzer.status = 503
    presidio = world.presidio(on_outage="deny")
    for _ in range(2):
        with pytest.raises(TrunklineError) as refused:
            await presidio.finder(["Ann Smith"])
        assert refused.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
        assert "Ann" not in refused.value.message
    assert world.ears.outages == [(True, "deny")]


async def test_an_analyzer_that_does_not_answer_costs_no_more_than_its_time() -> None:
    never = World("http://127.0.0.1:1", None, Analyzer())  # type: ignore[arg-type] # Unused.

    async def post(url: str, body: bytes, limit: float) -> tuple[int, bytes]:

        await asyncio.Event().wait()
        raise AssertionError

    settings = PresidioSettings(never.url, timeout=0.01, on_outage="inline")
    presidio = Presidio(settings, post, never.clock, never.ears, Detector().spans)
    find = await presidio.finder([ANN])
    assert [span.kind for span in find(ANN)] == ["EMAIL_ADDRESS"]
    assert never.ears.outages == [(True, "inline")]


async def test_one_long_prompt_takes_the_analyzer_from_nobody_else() -> None:
    asked: list[str] = []

    async def post(url: str, body: bytes, limit: float) -> tuple[int, bytes]:
        asked.append(url)
        if len(body) > 40_000:
            await asyncio.Event().wait()
        return 200, b"[]"

    ears = Ears()
    settings = PresidioSettings("http://a", timeout=0.01, on_outage="deny")
    presidio = Presidio(settings, post, SetClock(), ears, Detector().spans)
    with pytest.raises(TrunklineError) as refused:
        await presidio.finder(["long " * 10_000])
    assert refused.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    await presidio.finder(["short"])
    assert len(asked) == 2
    assert ears.outages == []
