"""What faults look like on the wire, byte for byte, and what the simulator notices."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.simulator.raw import KEYS, Received, exchange, request_bytes
from trunkline_server.simulator.app import Simulator
from trunkline_server.simulator.script import Script

MESSAGES = [{"role": "user", "content": "hello"}]
DIALECTS = ("openai", "anthropic", "gemini")
LAST_MARK = {
    "openai": b"data: [DONE]\n\n",
    "anthropic": b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    "gemini": b'"finishReason":"STOP"',
}


async def call(
    simulator: Simulator, dialect: str, model: str, *, stream: bool = False, **more: Any
) -> Received:
    if dialect == "gemini":
        operation = "streamGenerateContent?alt=sse" if stream else "generateContent"
        path = f"/gemini/v1beta/models/{model.replace('?', '%3F')}:{operation}"
        body: dict[str, Any] = {"contents": [{"parts": [{"text": "hello"}]}]}
    else:
        path = "/openai/v1/chat/completions" if dialect == "openai" else "/anthropic/v1/messages"
        body = {"model": model, "messages": MESSAGES, "max_tokens": 99}
        if stream:
            body["stream"] = True
    return await exchange(simulator.url, path, body, **more)


def events(received: Received) -> list[bytes]:
    return [event for event in received.text.replace(b"\r\n", b"\n").split(b"\n\n") if event]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
class TestInEveryDialect:
    async def test_sound_answer(self, simulator: Simulator, dialect: str, stream: bool) -> None:
        got = await call(simulator, dialect, "sim-large", stream=stream)
        assert (got.status, got.end) == (200, "eof")
        if stream:
            assert got.headers["content-type"] == "text/event-stream"
            assert LAST_MARK[dialect] in got.text
        else:
            assert "hello" in json.dumps(got.json)

    async def test_reset_before_headers(
        self, simulator: Simulator, dialect: str, stream: bool
    ) -> None:
        got = await call(simulator, dialect, "sim-reset", stream=stream)
        assert got == Received(b"", "reset")

    async def test_close_before_headers(
        self, simulator: Simulator, dialect: str, stream: bool
    ) -> None:
        assert await call(simulator, dialect, "sim-close", stream=stream) == Received(b"", "eof")

    async def test_hang(self, simulator: Simulator, dialect: str, stream: bool) -> None:
        got = await call(simulator, dialect, "sim-hang", stream=stream, patience=0.1)
        assert got == Received(b"", "open")

    async def test_not_http(self, simulator: Simulator, dialect: str, stream: bool) -> None:
        got = await call(simulator, dialect, "sim-not-http", stream=stream)
        assert got.raw
        assert not got.raw.startswith(b"HTTP/")

    async def test_garbage(self, simulator: Simulator, dialect: str, stream: bool) -> None:
        got = await call(simulator, dialect, "sim-garbage", stream=stream)
        assert got.status == 200
        with pytest.raises(ValueError, match=r"."):
            json.loads(got.body)

    async def test_empty(self, simulator: Simulator, dialect: str, stream: bool) -> None:
        got = await call(simulator, dialect, "sim-empty", stream=stream)
        assert (got.status, got.body, got.end) == (200, b"", "eof")

    async def test_html(self, simulator: Simulator, dialect: str, stream: bool) -> None:
        got = await call(simulator, dialect, "sim-html", stream=stream)
        assert got.status == 502
        assert got.headers["content-type"].startswith("text/html")
        assert got.body.startswith(b"<html>")

    @pytest.mark.parametrize(("fault", "end"), [("reset", "reset"), ("close", "eof")])
    async def test_broken_midstream(
        self, simulator: Simulator, dialect: str, stream: bool, fault: str, end: str
    ) -> None:
        got = await call(simulator, dialect, f"sim-{fault}-midstream", stream=stream)
        assert got.end == end
        assert got.status == 200
        if stream:
            assert got.body
            assert not got.body.endswith(b"0\r\n\r\n")
            assert LAST_MARK[dialect] not in got.body
        else:
            assert 0 < len(got.body) < int(got.headers["content-length"])

    async def test_hang_midstream(self, simulator: Simulator, dialect: str, stream: bool) -> None:
        got = await call(simulator, dialect, "sim-hang-midstream", stream=stream, patience=0.2)
        assert (got.status, got.end) == (200, "open")
        assert got.body
        assert LAST_MARK[dialect] not in got.body

    async def test_end_midstream(self, simulator: Simulator, dialect: str, stream: bool) -> None:
        """HTTP ends in good order, the vendor's own end is missing."""
        got = await call(simulator, dialect, "sim-end-midstream?at_chunk=1", stream=stream)
        assert (got.status, got.end) == (200, "eof")
        assert got.text
        if stream:
            assert len(events(got)) == 1
            assert LAST_MARK[dialect] not in got.text
        else:
            with pytest.raises(ValueError, match=r"."):
                json.loads(got.text)

    async def test_garbage_midstream(
        self, simulator: Simulator, dialect: str, stream: bool
    ) -> None:
        got = await call(simulator, dialect, "sim-garbage-midstream?at_chunk=2", stream=stream)
        assert (got.status, got.end) == (200, "eof")
        if stream:
            found = [event.partition(b"data: ")[2] for event in events(got)]
            assert len(found) == 3
            assert all(json.loads(data) for data in found[:2])
            with pytest.raises(ValueError, match=r"."):
                json.loads(found[2])
        else:
            assert len(got.body) == int(got.headers["content-length"])
            with pytest.raises(ValueError, match=r"."):
                json.loads(got.body)

    async def test_error_midstream(self, simulator: Simulator, dialect: str, stream: bool) -> None:
        got = await call(simulator, dialect, "sim-error-midstream?at_chunk=1", stream=stream)
        assert got.end == "eof"
        if stream:
            last = json.loads(events(got)[-1].partition(b"data: ")[2])
            assert "overloaded" in last["error"]["message"].lower()
            assert LAST_MARK[dialect] not in got.text
        else:
            assert got.status in {503, 529}

    async def test_filter(self, simulator: Simulator, dialect: str, stream: bool) -> None:
        got = await call(simulator, dialect, "sim-filter", stream=stream)
        word = {"openai": b"content_filter", "anthropic": b"refusal", "gemini": b"SAFETY"}
        assert got.status == 200
        assert b'"%b"' % word[dialect] in got.body

    async def test_first_calls_fail(self, simulator: Simulator, dialect: str, stream: bool) -> None:
        model = "sim-large?fail_first=2;status=503"
        found = [(await call(simulator, dialect, model, stream=stream)).status for _ in range(3)]
        assert found == [503, 503, 200]


async def test_array_form_of_a_gemini_stream(simulator: Simulator) -> None:
    path = "/gemini/v1beta/models/sim-large:streamGenerateContent"
    body = {"contents": [{"parts": [{"text": "hello"}]}]}
    got = await exchange(simulator.url, path, body)
    chunks = json.loads(got.text)
    assert len(chunks) > 2
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    failed = await exchange(simulator.url, path.replace("large", "error-429"), body)
    assert failed.status == 429
    assert failed.json[0]["error"]["status"] == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("count", [1, 7, 64])
async def test_length_and_pieces_are_as_scripted(simulator: Simulator, count: int) -> None:
    model = f"sim-large?tokens={count};chunk_tokens=1"
    got = await call(simulator, "openai", model, stream=True)
    said = [json.loads(event[6:]) for event in events(got)[:-1]]
    contents = [chunk["choices"][0]["delta"].get("content") for chunk in said]
    assert len([content for content in contents if content]) == count


async def test_delays_are_as_scripted(simulator: Simulator) -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await call(simulator, "openai", "sim-large?latency_ms=60")
    assert loop.time() - begin >= 0.06
    begin = loop.time()
    await call(simulator, "openai", "sim-large?chunk_ms=10;tokens=5;chunk_tokens=1", stream=True)
    assert loop.time() - begin >= 0.05


async def test_script_in_header_and_query(simulator: Simulator) -> None:
    body = {"model": "sim-large", "messages": MESSAGES}
    path = "/openai/v1/chat/completions"
    headers = {**KEYS["openai"], "x-sim-script": "status=418"}
    assert (await exchange(simulator.url, path, body, headers=headers)).status == 418
    assert (await exchange(simulator.url, f"{path}?status=451", body)).status == 451
    wrong = await exchange(simulator.url, path, body, headers={**headers, "x-sim-script": "x=1"})
    assert wrong.status == 400
    assert "unknown key 'x'" in wrong.json["error"]["message"]


class TestRequestLimit:
    async def test_openai(self) -> None:
        async with Simulator(defaults=Script(rpm=1), clock=lambda: 5.0) as simulator:
            first = await call(simulator, "openai", "sim-large")
            second = await call(simulator, "openai", "sim-large")
            other = {"authorization": "Bearer another"}
            third = await call(simulator, "openai", "sim-large", headers=other)
        assert [first.status, second.status, third.status] == [200, 429, 200]
        assert first.headers["x-ratelimit-limit-requests"] == "1"
        assert second.headers["x-ratelimit-remaining-requests"] == "0"
        assert second.headers["x-ratelimit-reset-requests"] == "60.000s"
        assert second.headers["retry-after"] == "60"
        assert second.json["error"]["code"] == "rate_limit_exceeded"

    async def test_anthropic(self) -> None:
        async with Simulator(defaults=Script(rpm=1), clock=lambda: 5.0) as simulator:
            await call(simulator, "anthropic", "sim-large")
            got = await call(simulator, "anthropic", "sim-large")
        assert (got.status, got.headers["retry-after"]) == (429, "60")
        assert got.headers["anthropic-ratelimit-requests-limit"] == "1"
        assert got.headers["anthropic-ratelimit-requests-reset"].endswith("Z")

    async def test_gemini(self) -> None:
        async with Simulator(defaults=Script(rpm=1), clock=lambda: 5.0) as simulator:
            await call(simulator, "gemini", "sim-large")
            got = await call(simulator, "gemini", "sim-large")
        assert got.status == 429
        assert got.json["error"]["details"][-1]["retryDelay"] == "60s"


class TestCounters:
    async def test_calls_and_reset(self, simulator: Simulator) -> None:
        await call(simulator, "openai", "gpt-x?tokens=1")
        await call(simulator, "gemini", "sim-small")
        await call(simulator, "gemini", "sim-error-500")
        got = await exchange(simulator.url, "/sim/calls", method="GET", headers={})
        assert got.json["total"] == 3
        assert got.json["calls"] == {
            "openai": {"sim-gpt-x": 1},
            "gemini": {"sim-small": 1, "sim-error-500": 1},
        }
        assert got.json["statuses"] == {"200": 2, "500": 1}
        assert got.json["cancelled"] == got.json["active"] == got.json["open_connections"] == 0
        assert (await exchange(simulator.url, "/sim/reset", headers={})).status == 200
        got = await exchange(simulator.url, "/sim/calls", method="GET", headers={})
        assert (got.json["total"], got.json["calls"], got.json["statuses"]) == (0, {}, {})

    @pytest.mark.parametrize(
        "model", ["sim-hang", "sim-hang-midstream", "sim-large?latency_ms=60000"]
    )
    async def test_a_caller_that_goes_is_noticed(self, simulator: Simulator, model: str) -> None:
        host, port = simulator.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        body = {"model": model, "messages": MESSAGES, "stream": True}
        writer.write(request_bytes("/openai/v1/chat/completions", body, KEYS["openai"]))
        await writer.drain()
        await self._until(lambda: simulator.counters.active == 1)
        begin = asyncio.get_running_loop().time()
        writer.close()
        await self._until(lambda: simulator.counters.active == 0)
        # Promptly: at most a tenth of a second, where the answer would take a minute.
        assert asyncio.get_running_loop().time() - begin < 0.1
        name = model.partition("?")[0]
        assert simulator.counters.cancelled == {"openai": {name: 1}}

    async def test_our_own_faults_and_end_are_no_cancels(self) -> None:
        async with Simulator() as simulator:
            for model in ("sim-reset", "sim-close", "sim-reset-midstream", "sim-close-midstream"):
                await call(simulator, "openai", model, stream=True)
            counters = simulator.counters
            hanging = asyncio.create_task(call(simulator, "openai", "sim-hang"))
            await self._until(lambda: counters.active == 1)
        await hanging
        assert counters.cancelled == {}
        assert counters.faults["reset"] == counters.faults["close-midstream"] == 1

    @staticmethod
    async def _until(condition: Callable[[], bool]) -> None:
        for _ in range(10_000):
            if condition():
                return
            await asyncio.sleep(0.001)
        pytest.fail("never came to be")


async def test_an_address_in_use_is_an_error(simulator: Simulator) -> None:
    port = int(simulator.url.rpartition(":")[2])
    second = Simulator(port=port)
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    await second.stop()
