"""Answers that take several requests: asked for in turn, and called off when nobody waits."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.support.plain_dialect import Answer, PlainCodec
from tests.support.virtual_time import run
from tests.unit.engine.world import World
from trunkline import v1
from trunkline_server.engine.sites import Sites, sites_of
from trunkline_server.engine.table import Following
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.providers.codec import CodecTarget, WireRequest
from trunkline_server.providers.exchange import LAST_REPLY, Ask

CANCEL = "http://alpha/cancel"


class StepExchange:
    """Each reply names the next step: `look`, `stream`, `elsewhere`, `failed`, or its answer."""

    def __init__(self) -> None:
        self._known = False

    def first(self, wire: WireRequest, seconds: float) -> WireRequest:
        return wire._replace(headers=(("time-left", f"{seconds:g}"),))

    def follow(self, body: bytes) -> Ask | None:
        self._known = True
        if body == b"look":
            return Ask("http://alpha/look", after=2.0)
        if body == b"stream":
            return Ask("http://alpha/stream", streamed=True)
        if body == b"elsewhere":
            return Ask("http://169.254.169.254/latest/meta-data")
        self._known = False
        if body == b"failed":
            raise UpstreamError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, "it failed after start")
        return None

    def rest(self) -> Ask | None:
        return Ask("http://alpha/rest")

    def abandon(self) -> Ask | None:
        return Ask(CANCEL, "POST") if self._known else None


class StepDecoder:
    """One delta for each event; the reply after the stream ends it."""

    def __init__(self) -> None:
        self.model = "steps"
        self.response_id = ""
        self.usage = v1.Usage()

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        if event == LAST_REPLY:
            self.usage = v1.Usage(
                input_tokens=int(data), output_tokens=1, source=v1.USAGE_SOURCE_PROVIDER
            )
            return ()
        return (v1.StreamDelta(text=data.decode()),)

    def finish(self) -> v1.StreamEnd:
        return v1.StreamEnd(finish_reason=v1.FINISH_REASON_STOP, usage=self.usage)


class StepCodec(PlainCodec):
    """A dialect whose answers take an exchange."""

    def exchange(self, target: CodecTarget, *, stream: bool) -> StepExchange:
        return StepExchange()

    def stream_decoder(self) -> StepDecoder:  # type: ignore[override]  # its own decoder
        return StepDecoder()


def world(*answers: Answer, **others: Sequence[Answer]) -> World:
    """A world whose first provider takes an exchange for each answer."""
    made = World({"alpha": answers, **others})
    codec = StepCodec()
    endpoint = made.table.endpoints["alpha"]
    made.table.endpoints = {
        **made.table.endpoints,
        "alpha": replace(
            endpoint, codec=codec, following=Following(codec, sites_of("http://alpha"))
        ),
    }
    return made


def paths(made: World) -> list[str]:
    return [request.url.removeprefix("http://alpha") for request in made.http.requests]


async def errands_done() -> None:
    """Lets what calls have left behind be done."""
    await asyncio.sleep(120)


def test_asks_until_the_answer_is_there() -> None:
    async def main() -> None:
        made = world(Answer(b"look"), Answer(b"look"), Answer(b"the answer"))
        began = made.clock.monotonic()
        response = await made.generate(patience=60)
        assert response.message.parts[0].text == "the answer"
        assert paths(made) == ["/generate", "/look", "/look"]
        assert made.clock.monotonic() - began == 4.0
        (attempt,) = response.attempts
        assert attempt.outcome == v1.ATTEMPT_OUTCOME_SUCCEEDED
        assert attempt.duration_us == 4_000_000
        assert ("time-left", "60") in made.http.requests[0].headers
        assert [request.method for request in made.http.requests] == ["POST", "GET", "GET"]
        await errands_done()
        assert len(made.http.requests) == 3

    run(main)


def test_failing_after_start_is_one_failed_attempt_and_falls_back() -> None:
    async def main() -> None:
        made = world(Answer(b"look"), Answer(b"failed"), beta=[Answer()])
        response = await made.generate()
        assert response.provider == "beta"
        failed, answered = response.attempts
        assert failed.message == "it failed after start"
        assert failed.outcome == v1.ATTEMPT_OUTCOME_FAILED
        assert answered.outcome == v1.ATTEMPT_OUTCOME_SUCCEEDED
        await errands_done()
        assert CANCEL not in [request.url for request in made.http.requests]

    run(main)


def test_a_lost_reply_is_asked_for_again_and_does_not_begin_anew() -> None:
    gone = UpstreamError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, "reset")

    async def main() -> None:
        made = world(
            Answer(b"look"),
            Answer(error=gone),
            Answer(b"busy", status=429, headers={"retry-after": "7"}),
            Answer(b"the answer"),
        )
        began = made.clock.monotonic()
        response = await made.generate()
        assert len(response.attempts) == 1
        assert paths(made) == ["/generate", "/look", "/look", "/look"]
        assert made.clock.monotonic() - began == 2 + 2 + 7

    run(main)


def test_lost_too_often_is_called_off() -> None:
    gone = UpstreamError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, "reset")

    async def main() -> None:
        made = world(Answer(b"look"), *[Answer(error=gone)] * 5, Answer(b""), beta=[Answer()])
        assert (await made.generate()).provider == "beta"
        await errands_done()
        assert paths(made)[-1] in {CANCEL.removeprefix("http://alpha"), "http://beta/generate"}
        assert CANCEL in [request.url for request in made.http.requests]

    run(main)


@pytest.mark.parametrize(
    ("when", "answers"),
    [
        (0.5, [Answer(b"look", delay=1.0), Answer(b"")]),
        (1.5, [Answer(b"look"), Answer(b"")]),
        (3.0, [Answer(b"look"), Answer(b"look", delay=5.0), Answer(b"")]),
    ],
    ids=["before the first reply", "while it waits", "while it asks"],
)
@pytest.mark.parametrize("by", ["caller", "deadline"])
def test_what_nobody_waits_for_is_called_off(when: float, answers: list[Answer], by: str) -> None:
    async def main() -> None:
        made = world(*answers)
        if by == "caller":
            task = asyncio.create_task(made.generate())
            await asyncio.sleep(when)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with pytest.raises(TrunklineError) as caught:
                await made.generate(patience=when)
            assert caught.value.reason == v1.ERROR_REASON_TIMEOUT
        await errands_done()
        last = made.http.requests[-1]
        assert (last.method, last.url) == ("POST", CANCEL)
        assert ("authorization", "Bearer top-secret-credential") in last.headers
        ((call, _),) = made.observer.ended
        assert len(call.attempts) == 1
        # What the vendor may bill by then is in the books.
        assert call.attempts[0].usage.source == v1.USAGE_SOURCE_ESTIMATE

    run(main)


def test_nothing_is_called_off_that_was_refused() -> None:
    async def main() -> None:
        made = world(Answer(b"no", status=400))
        with pytest.raises(TrunklineError):
            await made.generate()
        await errands_done()
        assert paths(made) == ["/generate"]

    run(main)


def test_a_stream_is_followed_by_the_reply_that_completes_it() -> None:
    chunks = [(1.0, b"data: Hel\n\n"), (1.0, b"data: lo\n\n")]

    async def main() -> None:
        made = world(Answer(b"stream"), Answer(chunks=chunks), Answer(b"17"))
        events = await made.stream()
        assert "".join(event.delta.text for event in events) == "Hello"
        assert events[-1].end.usage.input_tokens == 17
        assert paths(made) == ["/stream", "/stream", "/rest"]
        await errands_done()
        assert len(made.http.requests) == 3

    run(main)


@pytest.mark.parametrize("when", [0.5, 1.5, 2.5])
def test_a_stream_that_is_left_is_called_off(when: float) -> None:
    chunks = [(1.0, b"data: Hel\n\n"), (9.0, b"data: lo\n\n")]

    async def main() -> None:
        made = world(Answer(b"stream", delay=1.0), Answer(chunks=chunks), Answer(b""))
        task = asyncio.create_task(made.stream())
        await asyncio.sleep(when)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await errands_done()
        assert made.http.requests[-1].url == CANCEL
        assert all(stream.aborted for stream in made.http.streams)

    run(main)


def test_an_address_elsewhere_is_not_followed() -> None:
    async def main() -> None:
        made = world(Answer(b"elsewhere"), Answer(b""), beta=[Answer()])
        response = await made.generate()
        assert response.attempts[0].reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
        assert response.provider == "beta"
        await errands_done()
        assert {request.url.split("/")[2] for request in made.http.requests} == {"alpha", "beta"}

    run(main)


SITES = sites_of("https://api.example.com/v1", ("stream.example.com", "*.example.net"))


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://api.example.com/v1/predictions/1", True),
        ("https://api.example.com:443/x", True),
        ("https://API.example.com/x", True),
        ("https://stream.example.com/x?y=1", False),
        ("https://a.b.example.net/x", False),
    ],
)
def test_sites_that_are_followed(url: str, own: bool) -> None:
    assert SITES.own(url) is own


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com/v1",
        "https://api.example.com:8443/v1",
        "https://api.example.com.evil.org/",
        "https://api.example.com@evil.org/",
        "https://evil.org#@api.example.com/",
        "https://evil.org\\@api.example.com/",
        "https://api.example.com\\.evil.org/",
        "https://example.net/",
        "https://evilexample.net/",
        "http://stream.example.com/",
        "https://stream.example.com:444/",
        "https://api.example.com:99999/",
        "https://[::1/",
        "https://api.example.com/\r\nx-injected: 1",
        "https://api.example.com/ a",
        "file:///etc/passwd",
        "//api.example.com/",
        "/v1/predictions",
        "",
    ],
)
def test_sites_that_are_not(url: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        SITES.own(url)
    assert caught.value.reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE
    assert json.dumps(url)[1:-1] not in caught.value.message or not url


def test_sites_of_a_test_server() -> None:
    assert sites_of("http://127.0.0.1:8080/v1") == Sites(("http", "127.0.0.1", 8080))
