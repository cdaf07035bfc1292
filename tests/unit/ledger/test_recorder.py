"""Events as the engine's own calls make them: answered, retried, hedged, cancelled, broken."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.plain_dialect import USAGE, Answer
from tests.support.virtual_time import EPOCH, VirtualClock, run
from tests.unit.engine.world import SECRET, World, ask, event_of
from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.engine.attempt import Services
from trunkline_server.engine.call import Call
from trunkline_server.engine.engine import Engine
from trunkline_server.engine.ports import Caller
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.ledger.recorder import NO_FACTS, CallFacts, Origin, Owner, Recorder
from trunkline_server.routing.snapshot import AttemptPolicy, HedgePolicy

CALL = admin.USAGE_EVENT_KIND_CALL
ATTEMPT = admin.USAGE_EVENT_KIND_ATTEMPT
OK, FAILED, CANCELLED = (
    admin.USAGE_OUTCOME_SUCCEEDED,
    admin.USAGE_OUTCOME_FAILED,
    admin.USAGE_OUTCOME_CANCELLED,
)
ROOT = Path(__file__).parents[3]
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Key:
    """A caller."""

    def __init__(self, name: str = "team-a") -> None:
        self.name = self.account = self.group = name

    def permits(self, model: str) -> bool:
        return True


class Safe:
    """An engine.ports.Books that notes how many events there were when they had to be safe."""

    def __init__(self, events: Sequence[admin.UsageEvent]) -> None:
        self._events = events
        self.commits: list[int] = []
        self.fails = False

    def admit(self) -> None:
        pass

    async def committed(self) -> None:
        self.commits.append(len(self._events))
        if self.fails:
            raise TrunklineError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, "the disk is full")


class Books:
    """A world whose calls leave events."""

    def __init__(
        self,
        script: Mapping[str, Sequence[Answer]],
        policy: AttemptPolicy | None = None,
        *,
        facts: CallFacts | None = None,
        priced: bool = True,
    ) -> None:
        self.world = world = World(script, policy or AttemptPolicy(retries=0), priced=priced)
        self.events: list[admin.UsageEvent] = []
        self.asked: list[Caller] = []
        self.key = Key()
        self.recorder = Recorder(
            lambda raw: self.events.append(admin.UsageEvent.FromString(raw)),
            world.clock,
            Origin("replica-1", "2", "0.9"),
            owner_of=self.owner_of,
            facts_of=(lambda _: NO_FACTS) if facts is None else (lambda _: facts),
        )
        self.safe = Safe(self.events)
        services = Services(
            world.http, world.clock, self.recorder, world.budget, world.rng, books=self.safe
        )
        self.engine = Engine(services, world.table)

    def owner_of(self, caller: Caller) -> Owner:
        self.asked.append(caller)
        return Owner("acme", "search", "gold", "frontend")

    def call(self, request: v1.GenerateRequest, operation: str, patience: float) -> Call:
        call = self.world.call(request, patience)
        call.operation = operation
        call.caller = self.key
        call.traceparent = f"00-{TRACE}-b7ad6b7169203331-01"
        return call

    async def generate(self, patience: float = 60.0, **fields: object) -> v1.GenerateResponse:
        request = ask(**fields)
        response = await self.engine.generate(self.call(request, "generate", patience), request)
        assert isinstance(response, v1.GenerateResponse)
        return response

    async def stream(self, patience: float = 60.0) -> list[v1.StreamGenerateResponse]:
        request = ask()
        sent: list[v1.StreamGenerateResponse] = []

        async def send(event: v1.StreamGenerateResponse | bytes) -> None:
            sent.append(event_of(event))

        call = self.call(request, "stream_generate", patience)
        await self.engine.stream_generate(call, request, send)
        return sent

    def take(self) -> tuple[admin.UsageEvent, list[admin.UsageEvent]]:
        """The event of the one call since the last time, and those of its attempts."""
        (call,) = (event for event in self.events if event.kind == CALL)
        attempts = [event for event in self.events if event.kind == ATTEMPT]
        assert len(attempts) + 1 == len(self.events)
        assert self.events[-1] is call, "a call's event comes after those of its attempts"
        assert {event.call_id for event in self.events} == {call.event_id}
        assert len({event.event_id for event in self.events}) == len(self.events)
        self.events.clear()
        return call, attempts


def with_books(make: Callable[[], Books], main: Callable[[Books], Awaitable[None]]) -> None:
    async def go() -> None:
        await main(make())

    run(go)


def micros(seconds: float) -> int:
    return round(seconds * 1e6)


def test_an_answered_call_leaves_every_field_it_has() -> None:
    async def main(books: Books) -> None:
        await asyncio.sleep(7)
        context = v1.CallContext(
            agent_id="planner", workflow_id="w-7", user_id="u-9", labels={"team": "search"}
        )
        response = await books.generate(context=context)
        call, (attempt,) = books.take()
        common: dict[str, Any] = {
            "call_id": call.event_id,
            "request_id": "id-1",
            "trace_id": TRACE,
            "tenant": "acme",
            "project": "search",
            "key_name": "team-a",
            "tier": "gold",
            "service": "frontend",
            "user_id": "u-9",
            "agent_id": "planner",
            "workflow_id": "w-7",
            "labels": {"team": "search"},
            "operation": "generate",
            "requested_model": "large",
            "model": "large",
            "strategy": v1.STRATEGY_PRIORITY,
            "route": "large",
            "snapshot_version": "v-test",
            "candidate_count": 3,
            "provider": "alpha",
            "deployment": "alpha-large",
            "provider_model": "large",
            "replica": "replica-1",
            "worker": "2",
            "usage": USAGE,
            # 10 tokens at 2 and 5 at 8 dollars a million, in nanos.
            "cost": v1.Cost(input=20_000, output=40_000, total=60_000),
            "start_time_unix_us": micros(EPOCH + 7),
            "end_time_unix_us": micros(EPOCH + 9.5),
            "duration_us": 2_500_000,
            "upstream_us": 2_500_000,
            "outcome": OK,
            "http_status": 200,
            "router_version": "0.9",
            "schema_version": 1,
        }
        assert attempt == admin.UsageEvent(
            event_id=f"{call.event_id}-1", kind=ATTEMPT, attempt_number=1, **common
        )
        assert call == admin.UsageEvent(
            event_id=call.event_id,
            kind=CALL,
            answered_model="plain-1",
            finish_reason=v1.FINISH_REASON_STOP,
            expected_cost_nanos=response.decision.estimated_cost.total,
            attempt_count=1,
            **common,
        )
        assert re.fullmatch("[0-9a-f]{32}", call.event_id)
        assert response.cost == call.cost

    with_books(lambda: Books({"alpha": [Answer(delay=2.5)]}), main)


def test_a_stream_says_when_its_first_words_came() -> None:
    async def main(books: Books) -> None:
        await books.stream()
        call, (attempt,) = books.take()
        assert call.operation == attempt.operation == "stream_generate"
        assert call.streamed
        assert attempt.streamed
        assert call.first_token_us == attempt.first_token_us == 400_000
        assert call.duration_us == 2_100_000
        assert call.usage == USAGE
        # The end of an answer brings the caller nothing.
        assert call.chunk_count == attempt.chunk_count == 3
        assert call.inter_chunk_mean_us == attempt.inter_chunk_mean_us == 650_000
        assert call.inter_chunk_max_us == attempt.inter_chunk_max_us == 900_000

    chunks = [
        (0.4, b"data: one\n\n"),
        (0.4, b"data: two\n\n"),
        (0.9, b"data: three\n\n"),
        (0.4, b"data: [end]\n\n"),
    ]
    with_books(lambda: Books({"alpha": [Answer(chunks=chunks)]}), main)


def test_retries_and_fallbacks_each_leave_an_event_and_the_call_adds_them_up() -> None:
    async def main(books: Books) -> None:
        response = await books.generate()
        call, attempts = books.take()
        assert [event.attempt_number for event in attempts] == [1, 2, 3]
        assert [event.deployment for event in attempts] == [
            "alpha-large", "alpha-large", "beta-large",
        ]  # fmt: skip
        assert [event.outcome for event in attempts] == [FAILED, FAILED, OK]
        assert [event.error_reason for event in attempts] == [
            v1.ERROR_REASON_SERVICE_UNAVAILABLE,
            v1.ERROR_REASON_SERVICE_UNAVAILABLE,
            v1.ERROR_REASON_UNSPECIFIED,
        ]
        assert [event.http_status for event in attempts] == [503, 503, 200]
        assert [event.HasField("usage") for event in attempts] == [False, False, True]
        assert call.outcome == OK
        assert call.attempt_count == 3
        assert (call.retry_count, call.fallback_count, call.hedge_count) == (1, 1, 0)
        assert call.deployment == response.deployment == "beta-large"
        assert call.cost == response.cost
        assert call.upstream_us == sum(event.upstream_us for event in attempts)
        starts = [event.start_time_unix_us for event in attempts]
        assert starts == sorted(starts)
        assert call.start_time_unix_us <= starts[0]
        assert attempts[-1].end_time_unix_us <= call.end_time_unix_us + 1

    busy = Answer(b"busy", status=503, delay=1)
    script = {"alpha": [busy, busy], "beta": [Answer(delay=1)]}
    with_books(lambda: Books(script, AttemptPolicy(retries=1)), main)


def test_a_hedge_that_wins_leaves_the_loser_s_cost_in_the_call() -> None:
    async def main(books: Books) -> None:
        for _ in range(20):
            await books.generate()
        books.events.clear()
        response = await books.generate()
        call, attempts = books.take()
        by_number = {event.attempt_number: event for event in attempts}
        assert by_number[1].outcome == CANCELLED
        assert by_number[1].error_reason == v1.ERROR_REASON_CANCELLED
        assert by_number[1].usage.source == v1.USAGE_SOURCE_ESTIMATE
        assert by_number[1].cost.estimated
        assert not by_number[1].hedged
        assert by_number[2].outcome == OK
        assert by_number[2].hedged
        assert call.deployment == "beta-large"
        assert (call.retry_count, call.fallback_count, call.hedge_count) == (0, 0, 1)
        assert call.hedged
        assert call.cost == response.cost
        assert call.cost.total == sum(event.cost.total for event in attempts)
        assert call.usage.input_tokens == sum(event.usage.input_tokens for event in attempts)
        # They ran side by side.
        assert call.upstream_us > call.duration_us

    policy = AttemptPolicy(retries=0, hedge=HedgePolicy(percentile=0.9, min_delay=0.5))
    script = {"alpha": [Answer(delay=1)] * 20 + [Answer(delay=100)], "beta": [Answer(delay=1)]}
    with_books(lambda: Books(script, policy), main)


def test_a_caller_that_goes_away_is_billed_for_what_was_sent() -> None:
    async def main(books: Books) -> None:
        going = asyncio.create_task(books.generate())
        await asyncio.sleep(3)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        call, (attempt,) = books.take()
        assert call.outcome == attempt.outcome == CANCELLED
        assert call.error_reason == attempt.error_reason == v1.ERROR_REASON_CANCELLED
        assert call.usage == attempt.usage
        assert call.usage.source == v1.USAGE_SOURCE_ESTIMATE
        assert call.cost.estimated
        assert call.cost.total > 0
        assert call.duration_us == 3_000_000
        assert call.deployment == "alpha-large"

    with_books(lambda: Books({"alpha": [Answer(delay=30)]}), main)


def test_a_broken_stream_is_billed_for_what_came() -> None:
    async def main(books: Books) -> None:
        with pytest.raises(TrunklineError) as caught:
            await books.stream()
        call, (attempt,) = books.take()
        assert call.outcome == attempt.outcome == FAILED
        assert call.error_reason == caught.value.reason == v1.ERROR_REASON_STREAM_INTERRUPTED
        assert attempt.error_reason == v1.ERROR_REASON_STREAM_INTERRUPTED
        assert call.first_token_us == attempt.first_token_us == 100_000
        assert (call.chunk_count, call.inter_chunk_mean_us, call.inter_chunk_max_us) == (1, 0, 0)
        assert call.cost.estimated
        assert call.cost.total > 0

    broken = UpstreamError(v1.ERROR_REASON_STREAM_INTERRUPTED, "connection reset")
    answer = Answer(chunks=[(0.1, b"data: one\n\n")], stream_error=broken)
    with_books(lambda: Books({"alpha": [answer]}), main)


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_failure_tells_of_costs_is_safe_before_it_is_told(fails: bool) -> None:
    async def main(books: Books) -> None:
        books.safe.fails = fails
        with pytest.raises(TrunklineError) as caught:
            await books.stream()
        # A journal that cannot be written does not hide what went wrong.
        assert caught.value.reason == v1.ERROR_REASON_STREAM_INTERRUPTED
        assert books.safe.commits == [2]

    broken = UpstreamError(v1.ERROR_REASON_STREAM_INTERRUPTED, "connection reset")
    answer = Answer(chunks=[(0.1, b"data: one\n\n")], stream_error=broken)
    with_books(lambda: Books({"alpha": [answer]}), main)


def test_a_deadline_that_passes_is_a_failure_with_its_attempt_on_the_bill() -> None:
    async def main(books: Books) -> None:
        with pytest.raises(TrunklineError):
            await books.generate(patience=2.0)
        call, (attempt,) = books.take()
        assert call.outcome == attempt.outcome == FAILED
        assert call.error_reason == attempt.error_reason == v1.ERROR_REASON_TIMEOUT
        assert call.duration_us == 2_000_000
        assert call.cost.total == attempt.cost.total > 0

    with_books(lambda: Books({"alpha": [Answer(delay=30)]}), main)


def test_a_call_that_reached_nobody_leaves_an_event_all_the_same() -> None:
    async def main(books: Books) -> None:
        with pytest.raises(TrunklineError):
            await books.generate(model="unknown")
        call, attempts = books.take()
        assert attempts == []
        assert call.outcome == FAILED
        assert call.error_reason == v1.ERROR_REASON_MODEL_NOT_FOUND
        assert call.requested_model == "unknown"
        assert call.model == call.deployment == call.snapshot_version == ""
        assert call.attempt_count == 0
        assert not call.HasField("usage")
        assert not call.HasField("cost")

    with_books(lambda: Books({}), main)


def test_an_unknown_price_is_said_and_never_zero_dollars_in_silence() -> None:
    async def main(books: Books) -> None:
        await books.generate()
        call, (attempt,) = books.take()
        assert call.cost.unpriced
        assert attempt.cost.unpriced

    with_books(lambda: Books({"alpha": [Answer()]}, priced=False), main)


def test_what_others_know_of_a_call_stands_in_its_event() -> None:
    facts = CallFacts(
        reservation_id="r-1",
        cache_status=v1.CACHE_STATUS_MISS,
        saved_cost_nanos=5,
    )

    async def main(books: Books) -> None:
        await books.generate()
        call, (attempt,) = books.take()
        for name in ("reservation_id", "cache_status", "saved_cost_nanos"):
            assert getattr(call, name) == getattr(facts, name)
            assert not getattr(attempt, name)

    with_books(lambda: Books({"alpha": [Answer()]}, facts=facts), main)


def test_an_owner_is_asked_for_once_and_a_memo_never_mixes_callers_up() -> None:
    async def main(books: Books) -> None:
        for _ in range(3):
            await books.generate()
        assert books.asked == [books.key]
        for number in range(5000):
            # Each is gone before the next is made, and may stand at the same address.
            books.key = Key(f"key-{number}")
            call = books.call(ask(), "generate", 1.0)
            books.recorder.call_started(call)
            books.recorder.call_ended(call, None)
            assert books.events[-1].key_name == f"key-{number}"

    with_books(lambda: Books({"alpha": [Answer()] * 3}), main)


def test_two_recorders_never_give_one_id_twice() -> None:
    async def main(books: Books) -> None:
        await books.generate()
        again = Books({"alpha": [Answer()]})
        await again.generate()
        assert books.take()[0].event_id != again.take()[0].event_id

    with_books(lambda: Books({"alpha": [Answer()]}), main)


class Adjusted(VirtualClock):
    """A clock that somebody sets."""

    set_by = 0.0

    def wall(self) -> float:
        return super().wall() + self.set_by


@pytest.mark.parametrize("by", [-86_400.0, 86_400.0])
def test_a_clock_that_is_set_during_a_call_spoils_neither_its_times_nor_its_id(by: float) -> None:
    async def main() -> None:
        books = Books({"alpha": [Answer(delay=2.0), Answer(delay=2.0)]})
        clock = Adjusted()
        events: list[admin.UsageEvent] = []

        def write(raw: bytes) -> None:
            events.append(admin.UsageEvent.FromString(raw))
            if len(events) == 1:
                # Between the attempt's end and its call's.
                clock.set_by = by

        for _ in range(2):
            recorder = Recorder(write, clock, Origin())
            world = books.world
            services = Services(world.http, clock, recorder, world.budget, world.rng)
            engine = Engine(services, world.table)
            request = ask()
            await engine.generate(books.call(request, "generate", 60.0), request)
        for event in events:
            assert event.duration_us == 2_000_000
            assert event.end_time_unix_us - event.start_time_unix_us == event.duration_us
        first, second = events[0], events[2]
        assert events[1].start_time_unix_us == first.start_time_unix_us
        assert second.start_time_unix_us - first.start_time_unix_us == micros(by + 2.0)
        # A recorder that begins when the clock says so again gives no id twice.
        assert len({event.event_id for event in events}) == 4

    run(main)


def test_no_secret_and_no_payload_is_in_any_event() -> None:
    async def main(books: Books) -> None:
        with pytest.raises(TrunklineError):
            await books.generate()
        for event in books.events:
            raw = event.SerializeToString()
            assert SECRET.encode() not in raw
            assert b"hi there" not in raw
            assert b"echo" not in raw

    told = f"echo: Bearer {SECRET}: hi there".encode()
    with_books(lambda: Books({"alpha": [Answer(told, status=400)]}), main)


def test_every_field_of_the_contract_is_documented_and_there_are_fifty() -> None:
    source = (ROOT / "proto/trunkline/admin/v1/usage_event.proto").read_text()
    body = source[source.index("message UsageEvent {") : source.index("\n}\n")]
    lines = [line.strip() for line in body.splitlines()]
    documented = sum(
        lines[place - 1].startswith("//")
        for place, line in enumerate(lines)
        if re.fullmatch(r"[\w.<>, ]+ = \d+;", line)
    )
    assert documented == len(admin.UsageEvent.DESCRIPTOR.fields) >= 50
