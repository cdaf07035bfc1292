"""The attempt loop of unary calls, on virtual time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.plain_dialect import Answer
from tests.support.virtual_time import run
from tests.unit.engine.world import SECRET, World, ask
from trunkline import v1
from trunkline_server.engine.budget import RetryBudget
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.routing.snapshot import AttemptPolicy, HedgePolicy

OK = Answer(b"hello")
DOWN = Answer(b"down", status=503)


def limited(seconds: str) -> Answer:
    return Answer(b"slow down", status=429, headers={"retry-after": seconds})


def in_world(world: Callable[[], World], main: Callable[[World], Awaitable[None]]) -> None:
    """Builds the world inside a virtual loop and runs the test there."""

    async def go() -> None:
        await main(world())

    run(go)


async def failure(attempt: Awaitable[object]) -> TrunklineError:
    with pytest.raises(TrunklineError) as caught:
        await attempt
    return caught.value


def test_an_answer_is_complete() -> None:
    async def main(world: World) -> None:
        response = await world.generate()
        assert response.id == "id-1"
        assert response.message.parts[0].text == "hello"
        assert (response.provider, response.deployment) == ("alpha", "alpha-large")
        assert response.model == "plain-1"
        # 10 tokens at 2 USD and 5 at 8 USD a million: 20 + 40 micro-USD.
        assert response.cost == v1.Cost(input=20_000, output=40_000, total=60_000)
        assert response.decision.snapshot_version == "v-test"
        assert response.decision.strategy == v1.STRATEGY_PRIORITY
        assert [attempt.outcome for attempt in response.attempts] == [v1.ATTEMPT_OUTCOME_SUCCEEDED]
        assert response.timing.total_us == 250_000
        assert response.timing.upstream_us == 250_000
        assert world.observer.ended[0][1] is None

    in_world(lambda: World({"alpha": [Answer(b"hello", delay=0.25)]}), main)


def test_a_failed_target_is_followed_by_the_next() -> None:
    async def main(world: World) -> None:
        response = await world.generate()
        assert response.provider == "gamma"
        assert world.http.hosts == ["alpha", "beta", "gamma"]
        assert [a.reason for a in response.attempts] == [
            v1.ERROR_REASON_SERVICE_UNAVAILABLE,
            v1.ERROR_REASON_AUTHENTICATION,
            v1.ERROR_REASON_UNSPECIFIED,
        ]
        assert [a.http_status for a in response.attempts] == [503, 401, 200]
        # Only what was answered is paid for.
        assert response.cost.total == 60_000

    in_world(
        lambda: World({"alpha": [DOWN], "beta": [Answer(b"no", status=401)], "gamma": [OK]}), main
    )


def test_the_same_target_is_retried_within_its_policy() -> None:
    async def main(world: World) -> None:
        response = await world.generate()
        assert world.http.hosts == ["alpha", "alpha", "alpha"]
        assert response.provider == "alpha"
        assert len(response.attempts) == 3

    policy = AttemptPolicy(retries=2)
    in_world(lambda: World({"alpha": [DOWN, DOWN, OK]}, policy), main)


def test_backoff_is_jittered_and_bounded() -> None:
    async def main(world: World) -> None:
        await failure(world.generate(patience=600))
        stamps = world.clock.monotonic()
        # Full jitter: the pauses are drawn from [0, 1], [0, 2] and [0, 2] seconds.
        assert 0 < stamps <= 5
        assert len(set(world.http.hosts)) == 3

    policy = AttemptPolicy(retries=3, backoff_base=1.0, backoff_max=2.0)
    every = dict.fromkeys(("alpha", "beta", "gamma"), [DOWN] * 4)
    in_world(
        lambda: World(
            {"alpha": every["alpha"], "beta": [DOWN], "gamma": [DOWN]}, policy, RetryBudget(0, 0.3)
        ),
        main,
    )


def test_retry_after_is_waited_for_when_short_and_fled_when_long() -> None:
    async def short(world: World) -> None:
        await world.generate()
        assert world.http.hosts == ["alpha", "alpha"]
        assert world.clock.monotonic() >= 1.5

    async def long(world: World) -> None:
        await world.generate()
        assert world.http.hosts == ["alpha", "beta"]
        assert world.clock.monotonic() == 0
        assert world.health.cooldown_remaining(0, 0.0) == 30

    policy = AttemptPolicy(retries=1, backoff_max=2.0)
    in_world(lambda: World({"alpha": [limited("1.5"), OK]}, policy), short)
    in_world(lambda: World({"alpha": [limited("30")], "beta": [OK]}, policy), long)


def test_a_rate_limited_deployment_is_left_alone_by_the_next_call() -> None:
    async def main(world: World) -> None:
        await world.generate()
        await world.generate()
        assert world.http.hosts == ["alpha", "beta", "beta"]

    in_world(lambda: World({"alpha": [limited("30")], "beta": [OK, OK]}), main)


def test_the_callers_own_mistake_is_told_at_once() -> None:
    async def main(world: World) -> None:
        error = await failure(world.generate())
        assert error.reason == v1.ERROR_REASON_INVALID_REQUEST
        assert world.http.hosts == ["alpha"]
        # It says nothing against the deployment.
        assert world.health.success_rate(0) == 1.0

    in_world(lambda: World({"alpha": [Answer(b"bad field", status=400)]}), main)


def test_a_configured_model_that_is_gone_is_soon_left_alone() -> None:
    async def main(world: World) -> None:
        for _ in range(8):
            assert (await world.generate()).provider == "beta"
        assert world.http.hosts.count("alpha") == 5

    gone = Answer(b"no such model", status=404)
    in_world(lambda: World({"alpha": [gone] * 5, "beta": [OK] * 8}), main)


def test_no_fallback_stops_after_the_first_target() -> None:
    async def main(world: World) -> None:
        error = await failure(world.generate(routing=v1.RoutingOptions(no_fallback=True)))
        assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
        assert world.http.hosts == ["alpha"]

    in_world(lambda: World({"alpha": [DOWN]}), main)


@pytest.mark.parametrize(
    ("answers", "reason", "retry_after"),
    [
        ([503, 503, 503], v1.ERROR_REASON_SERVICE_UNAVAILABLE, None),
        ([401, 401, 403], v1.ERROR_REASON_PROVIDER_CREDENTIALS, None),
        ([429, 401, 503], v1.ERROR_REASON_RATE_LIMIT, 30.0),
        ([402, 404, 401], v1.ERROR_REASON_QUOTA_EXCEEDED, None),
        ([418, 401, 404], v1.ERROR_REASON_UNKNOWN, None),
    ],
)
def test_of_several_failures_the_most_hopeful_is_told(
    answers: list[int], reason: v1.ErrorReason.ValueType, retry_after: float | None
) -> None:
    async def main(world: World) -> None:
        error = await failure(world.generate())
        assert error.reason == reason
        assert error.metadata["attempts"] == "3"
        assert error.retry_after == retry_after
        call, told = world.observer.ended[0]
        assert told is error
        assert [attempt.http_status for attempt in call.report().attempts] == answers

    def answer(status: int) -> Answer:
        return limited("30") if status == 429 else Answer(b"x", status=status)

    hosts = ("alpha", "beta", "gamma")
    in_world(
        lambda: World(dict(zip(hosts, ([answer(status)] for status in answers), strict=True))), main
    )


def test_what_a_dialect_cannot_carry_goes_to_one_that_can() -> None:
    async def main(world: World) -> None:
        response = await world.generate()
        assert response.provider == "beta"
        assert world.http.hosts == ["beta"]
        assert len(response.attempts) == 1

    in_world(lambda: World({"beta": [OK]}, flags={"alpha": {"refuse": True}}), main)


def test_what_no_dialect_can_carry_is_the_callers_error() -> None:
    async def main(world: World) -> None:
        error = await failure(world.generate())
        assert error.reason == v1.ERROR_REASON_INVALID_REQUEST
        assert error.violations[0].field == "messages[0].parts[0]"
        assert world.http.requests == []

    refuse = {"refuse": True}
    in_world(lambda: World({}, flags={"alpha": refuse, "beta": refuse, "gamma": refuse}), main)


def test_a_hanging_attempt_is_cut_at_its_own_timeout() -> None:
    async def main(world: World) -> None:
        response = await world.generate()
        assert response.provider == "beta"
        assert world.clock.monotonic() == 2.0
        first = response.attempts[0]
        assert first.reason == v1.ERROR_REASON_TIMEOUT
        # What the vendor may have read by then is booked, and marked as estimated.
        assert first.usage.source == v1.USAGE_SOURCE_ESTIMATE
        assert first.cost.estimated
        assert response.cost.estimated
        assert response.cost.total == 60_000 + first.cost.total

    policy = AttemptPolicy(retries=0, attempt_timeout=2.0)
    in_world(lambda: World({"alpha": [Answer(delay=100)], "beta": [OK]}, policy), main)


def test_the_deadline_ends_everything() -> None:
    async def main(world: World) -> None:
        error = await failure(world.generate(patience=1.0))
        assert error.reason == v1.ERROR_REASON_TIMEOUT
        assert world.clock.monotonic() == 1.0
        assert world.http.hosts == ["alpha"]
        assert world.http.cancelled == 1

    in_world(lambda: World({"alpha": [Answer(delay=100)], "beta": [OK]}), main)


def test_an_impatient_caller_says_nothing_against_a_deployment() -> None:
    async def main(world: World) -> None:
        for _ in range(20):
            await failure(world.generate(patience=0.01))
        assert world.health.state(0, world.clock.monotonic()) == v1.CIRCUIT_STATE_CLOSED

    in_world(lambda: World({"alpha": [Answer(delay=100)] * 20}), main)


def test_an_attempt_that_cannot_finish_is_not_begun() -> None:
    async def main(world: World) -> None:
        await world.generate()  # Teaches that alpha and beta take 8 seconds.
        await world.generate(routing=v1.RoutingOptions(allowed_providers=["beta"]))
        error = await failure(world.generate(patience=5.0))
        assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
        # Beta would have needed 8 of the remaining 3 seconds; gamma is not known to be slow.
        assert world.http.hosts == ["alpha", "beta", "alpha", "gamma"]

    slow = Answer(delay=8)
    in_world(
        lambda: World(
            {"alpha": [slow, Answer(status=503, delay=2)], "beta": [slow], "gamma": [DOWN]}
        ),
        main,
    )


def test_the_retry_budget_bounds_extra_attempts_in_an_outage() -> None:
    async def main(world: World) -> None:
        for _ in range(400):
            await failure(world.generate(routing=v1.RoutingOptions(allowed_providers=["alpha"])))
        extra = len(world.http.requests) - 400
        # A hundred deposits at the start and a fifth of a token for each call, nothing per
        # second: 20 + 80, where an unbounded policy would have added 1,200.
        assert 95 <= extra <= 100

    policy = AttemptPolicy(retries=3, backoff_base=0.0, backoff_max=0.0)
    in_world(lambda: World({"alpha": [DOWN] * 600}, policy, RetryBudget(0.2, 0.0)), main)


def test_a_fallback_to_a_sound_deployment_needs_no_budget() -> None:
    async def main(world: World) -> None:
        for _ in range(4):
            assert (await world.generate()).provider == "beta"

    broke = RetryBudget(0.0, 0.0)
    in_world(lambda: World({"alpha": [DOWN] * 4, "beta": [OK] * 4}, budget=broke), main)


def test_garbage_with_status_200_is_a_failure() -> None:
    async def main(world: World) -> None:
        response = await world.generate()
        assert response.provider == "beta"
        assert response.attempts[0].reason == v1.ERROR_REASON_BAD_PROVIDER_RESPONSE

    in_world(lambda: World({"alpha": [Answer(b"garbage")], "beta": [OK]}), main)


def test_an_answer_its_vendor_did_not_count_is_estimated() -> None:
    async def main(world: World) -> None:
        response = await world.generate()
        assert response.usage.source == v1.USAGE_SOURCE_ESTIMATE
        assert response.usage.input_tokens == 2  # "hi there"
        assert response.usage.output_tokens > 0
        assert response.cost.estimated

    in_world(lambda: World({"alpha": [Answer(b"uncounted")]}), main)


def test_an_unknown_price_is_flagged_and_never_zero() -> None:
    async def main(world: World) -> None:
        assert (await world.generate()).cost == v1.Cost(unpriced=True)

    in_world(lambda: World({"alpha": [OK]}, priced=False), main)


def test_a_cancelled_call_cancels_its_upstream() -> None:
    async def main(world: World) -> None:
        task = asyncio.create_task(world.generate())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.http.cancelled == 1
        call, error = world.observer.ended[0]
        assert error is not None
        assert error.reason == v1.ERROR_REASON_CANCELLED
        assert call.attempts[0].outcome == v1.ATTEMPT_OUTCOME_CANCELLED
        assert call.cost is not None
        assert call.cost.estimated
        assert world.health.in_flight(0) == 0

    in_world(lambda: World({"alpha": [Answer(delay=100)]}), main)


def test_only_a_cached_answer_is_refused_without_a_cache() -> None:
    async def main(world: World) -> None:
        policy = v1.CachePolicy(mode=v1.CACHE_MODE_ONLY_IF_CACHED)
        error = await failure(world.generate(cache=policy))
        assert error.reason == v1.ERROR_REASON_CACHE_MISS
        assert world.http.requests == []

    in_world(lambda: World({}), main)


def test_the_vendors_quote_of_a_secret_is_struck_out() -> None:
    async def main(world: World) -> None:
        error = await failure(world.generate(routing=v1.RoutingOptions(no_fallback=True)))
        assert SECRET not in error.message
        assert "[redacted]" in error.message
        assert SECRET not in str(world.observer.ended[0][0].report())

    body = f"no such key: {SECRET}".encode()
    in_world(lambda: World({"alpha": [Answer(body, status=401)]}), main)


def test_trace_context_and_credentials_travel_upstream() -> None:
    async def main(world: World) -> None:
        request = ask()
        call = world.call(request)
        call.traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
        call.tracestate = "vendor=1"
        await world.engine.generate(call, request)
        headers = dict(world.http.requests[0].headers)
        assert headers["traceparent"] == call.traceparent
        assert headers["tracestate"] == "vendor=1"
        assert headers["authorization"] == f"Bearer {SECRET}"

    in_world(lambda: World({"alpha": [OK]}), main)


class TestHedging:
    POLICY = AttemptPolicy(retries=0, hedge=HedgePolicy(percentile=0.9, min_delay=0.5))

    @staticmethod
    async def teach(world: World) -> None:
        """Twenty calls of one second: enough to know what is slow."""
        for _ in range(20):
            await world.generate()
        world.http.requests.clear()

    def test_the_faster_answer_wins_and_the_slower_is_cancelled(self) -> None:
        async def main(world: World) -> None:
            await self.teach(world)
            begun = world.clock.monotonic()
            response = await world.generate()
            assert world.http.hosts == ["alpha", "beta"]
            assert response.provider == "beta"
            assert world.http.cancelled == 1
            assert world.clock.monotonic() - begun < 5
            assert [a.hedged for a in response.attempts] == [False, True]
            assert response.attempts[0].outcome == v1.ATTEMPT_OUTCOME_CANCELLED
            assert response.cost.estimated
            assert response.cost.total > 60_000

        quick = Answer(delay=1)
        script = {"alpha": [quick] * 20 + [Answer(delay=100)], "beta": [quick]}
        in_world(lambda: World(script, self.POLICY), main)

    def test_nothing_is_hedged_before_the_usual_latency_is_known(self) -> None:
        async def main(world: World) -> None:
            await world.generate()
            assert world.http.hosts == ["alpha"]

        in_world(lambda: World({"alpha": [Answer(delay=30)]}, self.POLICY), main)

    def test_the_request_may_decline(self) -> None:
        async def main(world: World) -> None:
            await self.teach(world)
            await world.generate(routing=v1.RoutingOptions(hedge=False))
            assert world.http.hosts == ["alpha"]

        script = {"alpha": [Answer(delay=1)] * 20 + [Answer(delay=30)]}
        in_world(lambda: World(script, self.POLICY), main)

    def test_an_empty_budget_does_not_hedge(self) -> None:
        async def main(world: World) -> None:
            await self.teach(world)
            await world.generate()
            assert world.http.hosts == ["alpha"]

        script = {"alpha": [Answer(delay=1)] * 20 + [Answer(delay=30)]}
        in_world(lambda: World(script, self.POLICY, RetryBudget(0.0, 0.0)), main)

    def test_both_failing_falls_back_once_more(self) -> None:
        async def main(world: World) -> None:
            await self.teach(world)
            response = await world.generate()
            assert response.provider == "gamma"
            assert world.http.hosts == ["alpha", "beta", "gamma"]
            assert len(response.attempts) == 3

        script = {
            "alpha": [Answer(delay=1)] * 20 + [Answer(status=503, delay=10)],
            "beta": [Answer(status=503, delay=1)],
            "gamma": [OK],
        }
        in_world(lambda: World(script, self.POLICY), main)


def test_an_upstream_error_without_a_status_counts_too() -> None:
    async def main(world: World) -> None:
        response = await world.generate()
        assert response.provider == "beta"
        assert response.attempts[0].http_status == 0

    refused = UpstreamError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, "refused", sent=False)
    in_world(lambda: World({"alpha": [Answer(error=refused)], "beta": [OK]}), main)


def test_embeddings_follow_the_same_loop() -> None:
    async def main(world: World) -> None:
        request = v1.EmbedRequest(model="large", inputs=["one", "two"])
        response = await world.engine.embed(world.call(request), request)
        assert isinstance(response, v1.EmbedResponse)
        assert list(response.embeddings[0].values) == [1.0, 2.0]
        assert response.provider == "beta"
        assert response.usage.source == v1.USAGE_SOURCE_ESTIMATE

    in_world(lambda: World({"alpha": [DOWN], "beta": [Answer(b"1 2")]}), main)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_vendor_that_says_nothing_is_left_is_not_asked_again(streamed: bool) -> None:
    left = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"}
    chunks = [(0.0, b"data: hi\n\n"), (0.0, b"data: [end]\n\n")]

    async def main(world: World) -> None:
        call = world.stream if streamed else world.generate
        for _ in range(2):
            await call()
        assert world.http.hosts == ["alpha", "beta"]
        await asyncio.sleep(31)
        await call()
        assert world.http.hosts == ["alpha", "beta", "alpha"]

    answers = [Answer(headers=left, chunks=chunks), Answer(chunks=chunks)]
    in_world(lambda: World({"alpha": answers, "beta": [Answer(chunks=chunks)]}), main)
