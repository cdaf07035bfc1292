"""The attempt loop of streamed calls, on virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tests.support.plain_dialect import Answer
from tests.support.virtual_time import run
from tests.unit.engine.world import World, ask, event_of
from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.routing.snapshot import AttemptPolicy, HedgePolicy

BROKEN_PIPE = UpstreamError(v1.ERROR_REASON_STREAM_INTERRUPTED, "connection reset")


def in_world(world: Callable[[], World], main: Callable[[World], Awaitable[None]]) -> None:
    async def go() -> None:
        await main(world())

    run(go)


def stream(*words: str, gap: float = 0.1, error: UpstreamError | None = None) -> Answer:
    """A streamed answer of one word an event, ended in order unless there is an error."""
    events = [*words] if error else [*words, "[end]"]
    return Answer(
        chunks=[(gap, f"data: {word}\n\n".encode()) for word in events], stream_error=error
    )


def text_of(events: Sequence[v1.StreamGenerateResponse]) -> str:
    assembler = MessageAssembler()
    for event in events:
        if event.HasField("delta"):
            assembler.add(event.delta)
    return "".join(part.text for part in assembler.message().parts)


async def failure(attempt: Awaitable[object]) -> TrunklineError:
    with pytest.raises(TrunklineError) as caught:
        await attempt
    return caught.value


def test_a_stream_is_start_deltas_end() -> None:
    async def main(world: World) -> None:
        events = await world.stream()
        assert [event.WhichOneof("event") for event in events] == [
            "start", "delta", "delta", "end",
        ]  # fmt: skip
        start, end = events[0].start, events[-1].end
        assert start.decision.deployment == "alpha-large"
        assert start.id == "id-1"
        assert text_of(events) == "onetwo"
        assert end.cost.total == 60_000
        assert end.finish_reason == v1.FINISH_REASON_STOP
        assert end.attempts[0].outcome == v1.ATTEMPT_OUTCOME_SUCCEEDED
        assert end.timing.first_token_us == 100_000
        assert end.timing.total_us == 300_000
        assert world.health.first_token(0) == pytest.approx(0.1)

    in_world(lambda: World({"alpha": [stream("one", "two")]}), main)


def test_before_the_first_delta_a_failure_falls_back_unseen() -> None:
    async def main(world: World) -> None:
        events = await world.stream()
        assert text_of(events) == "fine"
        assert events[0].start.provider == "gamma"
        assert [a.provider for a in events[-1].end.attempts] == ["alpha", "beta", "gamma"]
        assert all(stream.aborted for stream in world.http.streams)

    script = {
        "alpha": [Answer(b"busy", status=503)],
        "beta": [stream(error=BROKEN_PIPE)],
        "gamma": [stream("fine")],
    }
    in_world(lambda: World(script), main)


def test_after_the_first_delta_a_failure_is_told_with_what_was_used() -> None:
    async def main(world: World) -> None:
        error = await failure(world.stream())
        assert error.reason == v1.ERROR_REASON_STREAM_INTERRUPTED
        assert error.metadata["provider"] == "alpha"
        assert world.http.hosts == ["alpha"]
        assert text_of(world.events) == "half an answer"
        assert not any(event.HasField("end") for event in world.events)
        report = world.observer.ended[0][0].report()
        assert report.usage.source == v1.USAGE_SOURCE_ESTIMATE
        assert report.usage.output_tokens > 0
        assert report.cost.estimated
        assert report.cost.total > 0

    script = {"alpha": [stream("half ", "an ", "answer", error=BROKEN_PIPE)], "beta": [stream("x")]}
    in_world(lambda: World(script), main)


def test_a_stream_cut_without_its_end_mark_is_no_success() -> None:
    async def main(world: World) -> None:
        error = await failure(world.stream())
        assert error.reason == v1.ERROR_REASON_STREAM_INTERRUPTED

    in_world(lambda: World({"alpha": [Answer(chunks=[(0.1, b"data: half\n\n")])]}), main)


def test_an_error_event_in_the_stream_is_an_error() -> None:
    async def main(world: World) -> None:
        error = await failure(world.stream())
        assert error.metadata["cause"] == "ERROR_REASON_SERVICE_UNAVAILABLE"
        assert "overloaded" in error.message

    chunks = [(0.1, b"data: a\n\n"), (0.1, b"event: error\ndata: overloaded\n\n")]
    in_world(lambda: World({"alpha": [Answer(chunks=chunks)]}), main)


def test_a_silent_first_byte_falls_back() -> None:
    async def main(world: World) -> None:
        events = await world.stream()
        assert events[0].start.provider == "beta"
        assert events[-1].end.attempts[0].reason == v1.ERROR_REASON_TIMEOUT
        assert world.clock.monotonic() == pytest.approx(3.2)

    policy = AttemptPolicy(retries=0, first_byte_timeout=3.0)
    script = {"alpha": [stream("late", gap=50)], "beta": [stream("fine")]}
    in_world(lambda: World(script, policy), main)


def test_silence_between_chunks_ends_the_stream() -> None:
    async def main(world: World) -> None:
        error = await failure(world.stream())
        assert error.reason == v1.ERROR_REASON_STREAM_INTERRUPTED
        assert "next chunk" in error.message
        assert world.clock.monotonic() == pytest.approx(5.1)
        assert world.http.streams[0].aborted

    policy = AttemptPolicy(retries=0, idle_timeout=5.0)
    chunks = [(0.1, b"data: a\n\n"), (50.0, b"data: b\n\n")]
    in_world(lambda: World({"alpha": [Answer(chunks=chunks)]}, policy), main)


def test_silence_is_measured_from_the_last_chunk() -> None:
    async def main(world: World) -> None:
        error = await failure(world.stream())
        assert "no next chunk within 5 s" in error.message
        assert world.clock.monotonic() == pytest.approx(20.1)

    policy = AttemptPolicy(retries=0, first_byte_timeout=1.0, idle_timeout=5.0)
    gaps = [(0.1, b"data: a\n\n"), *[(3.0, b"data: b\n\n")] * 5, (5.1, b"data: c\n\n")]
    in_world(lambda: World({"alpha": [Answer(chunks=gaps)]}, policy), main)


def test_silence_counts_again_after_a_slow_client() -> None:
    """The client takes 20 s for each event, in which nothing rings; then the upstream hangs."""

    async def main(world: World) -> None:
        request = ask()
        taken = 0

        async def slow_send(event: v1.StreamGenerateResponse | bytes) -> None:
            nonlocal taken
            await asyncio.sleep(20)
            taken += 1

        call = world.call(request, 600)
        error = await failure(world.engine.stream_generate(call, request, slow_send))
        assert "no next chunk within 5 s" in error.message
        assert taken == 3
        assert world.clock.monotonic() == pytest.approx(0.1 + 3 * 20 + 0.1 + 5)

    policy = AttemptPolicy(retries=0, idle_timeout=5.0)
    chunks = [(0.1, b"data: a\n\n"), (0.1, b"data: b\n\n"), (50.0, b"data: c\n\n")]
    in_world(lambda: World({"alpha": [Answer(chunks=chunks)]}, policy), main)


def test_a_slow_client_does_not_make_the_upstream_look_idle() -> None:
    async def main(world: World) -> None:
        request = ask()
        received: list[v1.StreamGenerateResponse] = []

        async def slow_send(event: v1.StreamGenerateResponse | bytes) -> None:
            await asyncio.sleep(4)
            received.append(event_of(event))

        await world.engine.stream_generate(world.call(request, 600), request, slow_send)
        assert received[-1].HasField("end")

    policy = AttemptPolicy(retries=0, idle_timeout=1.0)
    in_world(lambda: World({"alpha": [stream("a", "b", "c")]}, policy), main)


def test_the_deadline_ends_a_stream_midway() -> None:
    async def main(world: World) -> None:
        error = await failure(world.stream(patience=2.0))
        assert error.reason == v1.ERROR_REASON_TIMEOUT
        assert world.clock.monotonic() == 2.0
        assert world.observer.ended[0][0].report().usage.output_tokens > 0

    in_world(lambda: World({"alpha": [stream(*"abcdefgh", gap=0.5)]}), main)


def test_a_cancelled_stream_closes_its_upstream_and_is_settled() -> None:
    async def main(world: World) -> None:
        task = asyncio.create_task(world.stream())
        await asyncio.sleep(0.35)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.http.streams[0].aborted
        call, error = world.observer.ended[0]
        assert error is not None
        assert error.reason == v1.ERROR_REASON_CANCELLED
        assert call.attempts[0].outcome == v1.ATTEMPT_OUTCOME_CANCELLED
        assert call.cost is not None
        assert call.cost.total > 0
        assert world.health.in_flight(0) == 0

    in_world(lambda: World({"alpha": [stream(*"abcdefgh")]}), main)


def test_a_send_that_fails_closes_the_upstream() -> None:
    async def main(world: World) -> None:
        request = ask()

        async def broken_send(event: v1.StreamGenerateResponse | bytes) -> None:
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await world.engine.stream_generate(world.call(request), request, broken_send)
        assert world.http.streams[0].aborted
        assert world.health.in_flight(0) == 0

    in_world(lambda: World({"alpha": [stream("a")]}), main)


class TestHedging:
    POLICY = AttemptPolicy(retries=0, hedge=HedgePolicy(percentile=0.9, min_delay=0.5))

    @staticmethod
    async def teach(world: World) -> None:
        """Twenty streams whose first token takes a second."""
        for _ in range(20):
            await world.stream()
        world.http.requests.clear()

    def test_the_first_to_speak_wins_and_the_other_is_closed(self) -> None:
        async def main(world: World) -> None:
            await self.teach(world)
            events = await world.stream()
            assert world.http.hosts == ["alpha", "beta"]
            assert events[0].start.provider == "beta"
            assert text_of(events) == "quick words"
            outcomes = [(a.provider, a.outcome, a.hedged) for a in events[-1].end.attempts]
            assert outcomes == [
                ("alpha", v1.ATTEMPT_OUTCOME_CANCELLED, False),
                ("beta", v1.ATTEMPT_OUTCOME_SUCCEEDED, True),
            ]
            assert world.http.streams[-2].aborted
            assert events[-1].end.cost.estimated
            assert world.health.in_flight(0) == 0

        script = {
            "alpha": [stream("word", gap=1.0)] * 20 + [stream("late", gap=90)],
            "beta": [stream("quick ", "words", gap=1.0)],
        }
        in_world(lambda: World(script, self.POLICY), main)

    def test_a_stream_that_has_begun_to_speak_is_not_hedged(self) -> None:
        async def main(world: World) -> None:
            await self.teach(world)
            events = await world.stream()
            assert world.http.hosts == ["alpha"]
            assert text_of(events) == "slow after the start"

        words = [(0.5, b"data: slow \n\n"), (30.0, b"data: after the start\n\n")]
        slow = Answer(chunks=[*words, (1.0, b"data: [end]\n\n")])
        in_world(
            lambda: World({"alpha": [stream("word", gap=1.0)] * 20 + [slow]}, self.POLICY), main
        )

    def test_a_cancelled_race_leaves_nothing_open(self) -> None:
        async def main(world: World) -> None:
            await self.teach(world)
            task = asyncio.create_task(world.stream())
            await asyncio.sleep(5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert world.http.hosts == ["alpha", "beta"]
            assert all(stream.aborted for stream in world.http.streams[-2:])
            assert world.health.in_flight(0) == world.health.in_flight(1) == 0

        late = stream("late", gap=90)
        script = {"alpha": [stream("word", gap=1.0)] * 20 + [late], "beta": [late]}
        in_world(lambda: World(script, self.POLICY), main)


def test_an_empty_answer_still_starts_and_ends() -> None:
    async def main(world: World) -> None:
        events = await world.stream()
        assert [event.WhichOneof("event") for event in events] == ["start", "end"]

    in_world(lambda: World({"alpha": [stream()]}), main)


def test_explain_rides_on_the_decision() -> None:
    async def main(world: World) -> None:
        events = await world.stream(routing=v1.RoutingOptions(explain=True))
        names = [candidate.deployment for candidate in events[0].start.decision.candidates]
        assert names == ["alpha-large", "beta-large", "gamma-large"]

    in_world(lambda: World({"alpha": [stream("a")]}), main)
