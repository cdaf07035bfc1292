"""Limits and budgets of calls and of their attempts, through the engine, on virtual time."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from tests.support.plain_dialect import Answer
from tests.support.virtual_time import run
from tests.unit.engine.world import World
from tests.unit.governance.world import Heard
from trunkline import v1
from trunkline_server.app.quotas import Quotas
from trunkline_server.engine.budget import RetryBudget
from trunkline_server.engine.engine import Engine
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.quotas.governor import Governor
from trunkline_server.governance.quotas.rules import Budget, Limit, Measure
from trunkline_server.routing.query import Query
from trunkline_server.routing.snapshot import AttemptPolicy, HedgePolicy

OK = Answer(b"hello")
DOWN = Answer(b"down", status=503)
STALLED = Answer(delay=1000)
FIVE = v1.GenerationConfig(max_output_tokens=5)
# 24 tokens read at most at 2 USD a million, and five written at 8: what the world's question
# may cost, and what an answer of ten and five tokens does.
WORST, TRUTH = 88_000, 60_000
# What an attempt that was given up after its question was sent is taken to cost.
ABANDONED = 4_000


def budget(amount: int, scope: str = "key", **fields: object) -> Budget:
    return Budget(name="b", scope=scope, amount=amount, **fields)  # type: ignore[arg-type]


def limit(measure: Measure, amount: int, scope: str = "provider", **fields: object) -> Limit:
    return Limit(name="l", measure=measure, scope=scope, amount=amount, per="hour", **fields)  # type: ignore[arg-type]


class Gated(World):
    """A world whose calls are limited."""

    def limited(self, *rules: Limit | Budget) -> "Gated":
        self.governor = Governor(
            [one for one in rules if isinstance(one, Limit)],
            [one for one in rules if isinstance(one, Budget)],
            clock=self.clock,
            audience=Heard(),
        )
        quotas = Quotas(self.governor, self.clock, active=True)
        services = replace(self.engine._services, admission=quotas)
        self.engine = Engine(services, self.table)
        return self

    async def balance(self) -> tuple[int, int]:
        """Spent and reserved of the one subject of the budget."""
        found = await self.governor.balances(
            "b", tenant=None, subject=None, after=("", ""), limit=9
        )
        return (found[0].spent, found[0].reserved) if found else (0, 0)


def gated(
    script: Mapping[str, Sequence[Answer]],
    rules: Sequence[Limit | Budget],
    main: Callable[[Gated], Awaitable[None]],
    policy: AttemptPolicy | None = None,
) -> None:
    async def go() -> None:
        world = Gated(script, policy or AttemptPolicy(retries=0), RetryBudget(10.0, 100.0))
        await main(world.limited(*rules))

    run(go)


async def refusal(call: Awaitable[object]) -> TrunklineError:
    with pytest.raises(TrunklineError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("streamed", [False, True])
def test_a_provider_without_room_is_passed_over_and_the_last_one_is_named(streamed: bool) -> None:
    async def main(world: Gated) -> None:
        call = world.stream if streamed else world.generate
        for _ in range(3):
            await call(config=FIVE)
        assert world.http.hosts == ["alpha", "beta", "gamma"]
        assert [name for name, _ in world.observer.attempts] == [
            "alpha-large",
            "beta-large",
            "gamma-large",
        ]
        error = await refusal(call(config=FIVE))
        assert error.reason == v1.ERROR_REASON_RATE_LIMIT
        assert error.metadata["limit"] == "l"
        assert error.metadata["provider"] == error.metadata["subject"] == "alpha"
        assert error.retry_after == pytest.approx(3600, abs=5)
        assert len(world.http.hosts) == 3

    answer = Answer(chunks=[(0.1, b"data: hi\n\n"), (0.1, b"data: [end]\n\n")])
    script = {name: [answer] for name in ("alpha", "beta", "gamma")}
    gated(script, [limit(Measure.REQUESTS, 1)], main)


def test_a_provider_has_room_again_when_its_attempt_is_over() -> None:
    async def main(world: Gated) -> None:
        calls = [asyncio.create_task(world.generate(config=FIVE)) for _ in range(3)]
        answers = await asyncio.gather(*calls)
        assert sorted(answer.provider for answer in answers) == ["alpha", "beta", "gamma"]
        assert (await world.generate(config=FIVE)).provider == "alpha"

    slow = Answer(delay=5)
    script = {"alpha": [slow, OK], "beta": [slow], "gamma": [slow]}
    gated(script, [limit(Measure.CONCURRENCY, 1)], main)


def test_a_budget_of_a_provider_counts_what_its_own_attempts_cost() -> None:
    async def main(world: Gated) -> None:
        # Alpha's budget has room for a worst case only while it has spent one answer at most.
        providers = [(await world.generate(config=FIVE)).provider for _ in range(4)]
        assert providers == ["alpha", "alpha", "beta", "beta"]
        found = await world.governor.balances(
            "b", tenant=None, subject=None, after=("", ""), limit=9
        )
        assert {one.subject: (one.spent, one.reserved) for one in found} == {
            "alpha": (2 * TRUTH, 0),
            "beta": (2 * TRUTH, 0),
        }

    rules = [budget(TRUTH + WORST, "provider")]
    gated({name: [OK, OK] for name in ("alpha", "beta", "gamma")}, rules, main)


def test_tokens_of_a_failed_attempt_are_given_back_to_its_provider() -> None:
    async def main(world: Gated) -> None:
        assert (await world.generate(config=FIVE)).provider == "beta"
        assert (await world.generate(config=FIVE)).provider == "alpha"

    script = {"alpha": [DOWN, OK], "beta": [OK]}
    gated(script, [limit(Measure.TOKENS, 29)], main)


def test_of_several_refusals_the_one_that_passes_first_is_told() -> None:
    async def main(world: Gated) -> None:
        for _ in range(2):
            await world.generate(config=FIVE)
        error = await refusal(world.generate(config=FIVE))
        assert (error.metadata["limit"], error.metadata["provider"]) == ("fast", "beta")
        assert error.retry_after is not None
        assert error.retry_after <= 60

    slow = replace(limit(Measure.REQUESTS, 1), match={"provider": ("alpha", "gamma")})
    fast = replace(slow, name="fast", per="minute", match={"provider": ("beta",)})
    none = Limit(
        name="none",
        measure=Measure.TOKENS,
        scope="provider",
        amount=1,
        match={"provider": ("gamma",)},
    )
    gated({"alpha": [OK], "beta": [OK]}, [slow, fast, none], main)


def test_a_failure_that_is_more_hopeful_than_a_lack_of_money_is_told() -> None:
    async def main(world: Gated) -> None:
        error = await refusal(world.generate(config=FIVE))
        assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
        assert world.http.hosts == ["alpha"]

    rules = [budget(1, "provider", match={"provider": ("beta", "gamma")})]
    gated({"alpha": [DOWN]}, rules, main)


def test_without_rules_of_providers_no_first_attempt_is_asked_for() -> None:
    async def main(world: Gated) -> None:
        request = v1.GenerateRequest(model="large", config=FIVE)
        call = world.call(request)
        course = world.engine._work.plan_for(call, Query("large"))
        admission = world.engine._services.admission
        assert admission is not None
        call.grant = await admission.admit(call, course.plan)
        assert not call.grant.asks(course.plan.targets[0])
        # A failed attempt that cost nothing leaves the reservation whole.
        call.attempts.append(v1.Attempt(outcome=v1.ATTEMPT_OUTCOME_FAILED))
        assert not call.grant.asks(course.plan.targets[1])
        call.attempts[0].cost.total = 1
        assert call.grant.asks(course.plan.targets[1])

    gated({}, [budget(10**9)], main)


@pytest.mark.parametrize(("amount", "hosts"), [(WORST, 1), (WORST + ABANDONED, 2)])
def test_what_a_vendor_may_charge_for_a_timeout_is_reserved_before_the_next_attempt(
    amount: int, hosts: int
) -> None:
    async def main(world: Gated) -> None:
        if hosts == 1:
            error = await refusal(world.generate(config=FIVE))
            assert error.reason == v1.ERROR_REASON_TIMEOUT
        else:
            await world.generate(config=FIVE)
        assert len(world.http.hosts) == hosts
        spent = ABANDONED if hosts == 1 else ABANDONED + TRUTH
        assert await world.balance() == (spent, 0)

    policy = AttemptPolicy(retries=0, attempt_timeout=2.0)
    gated({"alpha": [STALLED], "beta": [OK]}, [budget(amount)], main, policy)


HEDGED = AttemptPolicy(retries=0, hedge=HedgePolicy(percentile=0.9, min_delay=0.5))


@pytest.mark.parametrize("room", [False, True])
def test_a_hedge_needs_room_for_two(room: bool) -> None:
    async def main(world: Gated) -> None:
        for _ in range(20):
            await world.generate(config=FIVE)
        world.http.requests.clear()
        response = await world.generate(config=FIVE)
        if room:
            assert (world.http.hosts, response.provider) == (["alpha", "beta"], "beta")
            assert await world.balance() == (21 * TRUTH + ABANDONED, 0)
        else:
            # The first attempt goes on as if nobody had thought of a second.
            assert (world.http.hosts, response.provider) == (["alpha"], "alpha")
            assert await world.balance() == (21 * TRUTH, 0)

    quick = Answer(delay=1)
    script = {"alpha": [quick] * 20 + [Answer(delay=20)], "beta": [quick]}
    rules = [budget(20 * TRUTH + (2 if room else 1) * WORST)]
    gated(script, rules, main, HEDGED)


def test_what_a_call_waits_is_told() -> None:
    async def main(world: Gated) -> None:
        first, second = await asyncio.gather(
            world.generate(9000.0, config=FIVE), world.generate(9000.0, config=FIVE)
        )
        assert first.timing.queue_us == 0
        assert second.timing.queue_us == pytest.approx(3_600_000_000, rel=0.01)
        assert second.timing.total_us >= second.timing.queue_us
        one, two = [call.queued for call, _ in world.observer.ended]
        assert one == 0.0
        assert two == pytest.approx(3600, rel=0.01)

    rules = [limit(Measure.REQUESTS, 1, "key", max_wait=3600.0)]
    gated({"alpha": [OK, OK]}, rules, main)


@pytest.mark.parametrize("seed", range(3))
def test_a_cap_holds_whatever_the_providers_do(seed: int) -> None:
    """Two hundred callers at once, with failures, timeouts, retries, hedges and cancellations."""
    rng = random.Random(seed)
    cap = 60 * WORST

    def answer() -> Answer:
        return rng.choice(
            [
                OK,
                Answer(delay=rng.uniform(0.1, 5)),
                Answer(b"uncounted", delay=rng.uniform(0, 2)),
                DOWN,
                STALLED,
                Answer(b"garbage"),
            ]
        )

    async def main(world: Gated) -> None:
        refused = 0

        async def caller() -> None:
            nonlocal refused
            for _ in range(6):
                await asyncio.sleep(rng.uniform(0, 3))
                hedge = v1.RoutingOptions(hedge=True)
                try:
                    async with asyncio.timeout(rng.choice([0.5, 60, 60, 60])):
                        await world.generate(config=FIVE, routing=hedge)
                except TimeoutError:
                    continue
                except TrunklineError as error:
                    refused += error.reason == v1.ERROR_REASON_QUOTA_EXCEEDED

        await asyncio.gather(*(caller() for _ in range(200)))
        calls = [call for call, _ in world.observer.ended]
        cost = sum(attempt.cost.total for call in calls for attempt in call.attempts)
        assert len(calls) == 1200
        assert refused
        assert sum(len(call.attempts) for call in calls) > 100
        assert cap - 2 * WORST < cost <= cap
        assert await world.balance() == (cost, 0)

    policy = AttemptPolicy(retries=2, attempt_timeout=4.0, hedge=HedgePolicy(0.5, 0.1))
    script = {name: [answer() for _ in range(3000)] for name in ("alpha", "beta", "gamma")}
    gated(script, [budget(cap)], main, policy)
