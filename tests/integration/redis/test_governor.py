"""Replicas that share limits and budgets through a real Redis."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.integration.redis.replicas import Replica, replicas
from tests.support.redis_server import RedisCluster, RedisServer
from tests.unit.governance.world import demand
from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.quotas.leases import LeasePolicy
from trunkline_server.governance.quotas.outage import OutageModes
from trunkline_server.governance.quotas.ports import Admission, Claim
from trunkline_server.governance.quotas.rules import Budget, Limit, Measure, Mode, OnOutage, Period
from trunkline_server.store.redis import ChannelPolicy
from trunkline_server.store.redis_counters import RedisCounters

CAP = 1_000_000


def budget(**changes: object) -> Budget:
    fields: dict[str, object] = {"name": "b", "scope": "tenant", "amount": CAP} | changes
    return Budget(**fields)  # type: ignore[arg-type]  # Of a test's own.


def limit(measure: Measure, **changes: object) -> Limit:
    fields: dict[str, object] = {"name": "l", "scope": "tenant", "amount": 100} | changes
    return Limit(measure=measure, **fields)  # type: ignore[arg-type]  # Of a test's own.


async def spend_all(shared: Sequence[Replica], callers: int, seed: int) -> tuple[int, int]:
    """Callers that spend until they are refused; gives what was spent and how many calls."""
    spent = calls = 0

    async def caller(number: int) -> None:
        nonlocal spent, calls
        rng = random.Random(seed * 1000 + number)
        for _ in range(30):
            worst = rng.randrange(1, 2000)
            grant = await shared[number % len(shared)].enter_or_not(demand(cost=worst))
            if isinstance(grant, TrunklineError):
                if grant.reason == v1.ERROR_REASON_QUOTA_EXCEEDED:
                    return
                assert grant.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
                await asyncio.sleep(0.01)
                continue
            await asyncio.sleep(rng.random() * 0.01)
            if rng.random() < 0.1:
                grant.cancel()
                continue
            truth = rng.randrange(worst // 2, worst + 1)
            grant.settle(0, truth)
            spent += truth
            calls += 1

    await asyncio.gather(*(caller(number) for number in range(callers)))
    return spent, calls


async def settled(replica: Replica) -> int:
    """What the shared counter holds, after all replicas have settled."""
    digits = await replica.client.execute(b"{t=t1}", b"KEYS", b"trunkline:*:b:*")
    assert isinstance(digits, list)
    counters = [key for key in digits if isinstance(key, bytes) and key.count(b":") == 5]
    assert len(counters) == 1
    used = await replica.client.execute(counters[0], b"HGET", counters[0], b"u")
    assert isinstance(used, bytes)
    return int(used)


async def drained(shared: Sequence[Replica]) -> None:
    for one in shared:
        assert one.governor._desk is not None
        assert await one.governor._desk.settler.drain(10.0)


@pytest.mark.parametrize("seed", range(2))
async def test_an_exact_budget_is_never_overspent(redis_url: str, seed: int) -> None:
    async with replicas(3, redis_url, [budget()]) as shared:
        spent, calls = await spend_all(shared, 200, seed)
        await drained(shared)
        assert calls > 500
        assert 0.9 * CAP < spent <= CAP
        assert await settled(shared[0]) == spent


async def test_a_leased_budget_is_never_overspent_while_replicas_live(redis_url: str) -> None:
    rules = [budget(mode=Mode.LEASED)]
    async with replicas(3, redis_url, rules, leases=LeasePolicy(0.2, 0.02)) as shared:
        spent, calls = await spend_all(shared, 200, 7)
        assert calls > 500
        assert 0.8 * CAP < spent <= CAP
        # Leases are given back with what was spent of them.
        for one in shared:
            for gate in one.governor._lease_gates():
                gate.close()
        await drained(shared)
        assert await settled(shared[0]) == spent


async def test_leases_decide_most_calls_without_waiting(redis_url: str) -> None:
    rules: list[Limit | Budget] = [
        limit(Measure.REQUESTS, amount=100_000, mode=Mode.LEASED),
        budget(mode=Mode.LEASED),
    ]
    async with replicas(1, redis_url, rules) as (one,):
        waited = 0
        for number in range(2000):
            grant = one.governor.admit(demand(cost=10))
            if not hasattr(grant, "settle"):
                waited += 1
                grant = await grant
            grant.settle(0, 5)
            if number % 20 == 0:
                await asyncio.sleep(0.001)
        assert waited < 200


async def test_callers_who_meet_at_an_empty_pot_fill_it_together(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules: list[Limit | Budget] = [
        limit(Measure.REQUESTS, amount=60_000, mode=Mode.LEASED),
        budget(mode=Mode.LEASED),
    ]
    asked = 0
    admit = RedisCounters.admit

    async def counted(self: RedisCounters, holder: str, claims: Sequence[Claim]) -> Admission:
        nonlocal asked
        asked += 1
        return await admit(self, holder, claims)

    monkeypatch.setattr(RedisCounters, "admit", counted)
    async with replicas(1, redis_url, rules) as (one,):
        for grant in await asyncio.gather(*(one.enter(demand(cost=10)) for _ in range(200))):
            grant.settle(0, 5)
    # Fills for all who wait at the time, and some ahead; one by one it would be hundreds.
    assert asked <= 20


async def test_a_dead_replica_takes_at_most_its_pot(redis_url: str) -> None:
    policy = LeasePolicy(0.2, 0.02)
    rules = [budget(mode=Mode.LEASED)]
    async with replicas(2, redis_url, rules, leases=policy) as shared:
        lost = Replica(redis_url, rules, leases=policy)
        await lost.start()
        for _ in range(20):
            (await lost.enter(demand(cost=1000))).settle(0, 1000)
        await lost.die()
        spent, _ = await spend_all(shared, 100, 3)
        # Its lease still stands, and counts in full.
        assert spent + 20_000 <= CAP + 0.02 * CAP


@pytest.mark.parametrize("mode", list(Mode))
async def test_request_limits_hold_over_replicas(redis_url: str, mode: Mode) -> None:
    rules = [limit(Measure.REQUESTS, amount=600, burst=50, mode=mode)]
    policy = LeasePolicy(0.2, 0.1)
    async with replicas(3, redis_url, rules, leases=policy) as shared:
        began = time.monotonic()
        admitted = 0

        async def caller(number: int) -> None:
            nonlocal admitted
            while time.monotonic() < began + 1.0:
                if await shared[number % 3].admits(demand()):
                    admitted += 1
                await asyncio.sleep(0.01)

        await asyncio.gather(*(caller(number) for number in range(60)))
        elapsed = time.monotonic() - began
        # Pots were filled within the same window, so that nothing comes on top.
        assert 50 <= admitted <= 50 + 10 * elapsed + 1


async def test_leased_rates_keep_their_declared_bound(redis_url: str) -> None:
    rules = [limit(Measure.REQUESTS, amount=6000, burst=100, mode=Mode.LEASED)]
    policy = LeasePolicy(seconds=0.3, share=0.2)
    async with replicas(3, redis_url, rules, leases=policy) as shared:
        times: list[float] = []
        began = time.monotonic()

        async def caller(number: int) -> None:
            # Busy and quiet by turns, so that pots are taken over into the next busy time.
            while (now := time.monotonic()) < began + 2.0:
                if (now - began) % 0.4 < 0.2 and await shared[number % 3].admits(demand()):
                    times.append(time.monotonic())
                await asyncio.sleep(0.004)

        await asyncio.gather(*(caller(number) for number in range(30)))
        times.sort()
        assert len(times) > 200
        for first, start in enumerate(times):
            for count, when in enumerate(times[first:], 1):
                assert count <= 100 + 100 * (when - start + 0.02) + 3 * 20


@pytest.mark.parametrize("mode", list(Mode))
async def test_concurrency_holds_over_replicas(redis_url: str, mode: Mode) -> None:
    rules = [limit(Measure.CONCURRENCY, amount=20, mode=mode)]
    async with replicas(3, redis_url, rules, leases=LeasePolicy(0.2, 0.2)) as shared:
        running = most = served = 0

        async def caller(number: int) -> None:
            nonlocal running, most, served
            rng = random.Random(number)
            for _ in range(20):
                grant = await shared[number % 3].enter_or_not(demand())
                if isinstance(grant, TrunklineError):
                    assert grant.retry_after is None
                    await asyncio.sleep(rng.random() * 0.02)
                    continue
                running += 1
                most = max(most, running)
                await asyncio.sleep(rng.random() * 0.02)
                running -= 1
                served += 1
                grant.settle(0, 0)

        await asyncio.gather(*(caller(number) for number in range(60)))
        assert most <= 20
        assert served > 200


async def test_token_limits_charge_the_truth(redis_url: str) -> None:
    rules = [limit(Measure.TOKENS, amount=1000, per="day")]
    async with replicas(2, redis_url, rules) as shared:
        for number in range(5):
            grant = await shared[number % 2].enter(demand(tokens=550))
            grant.settle(90, 0)
            await drained(shared)
        assert await shared[0].admits(demand(tokens=550))
        with pytest.raises(TrunklineError) as caught:
            await shared[1].enter(demand(tokens=10))
        assert caught.value.reason == v1.ERROR_REASON_RATE_LIMIT
        assert caught.value.retry_after == pytest.approx(864.0, rel=0.1)


async def test_waiting_callers_are_served_across_replicas(redis_url: str) -> None:
    rules = [limit(Measure.CONCURRENCY, amount=1, max_wait=10.0)]
    async with replicas(2, redis_url, rules) as shared:
        first = await shared[0].enter(demand())
        waiting = asyncio.create_task(shared[1].enter(demand()))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        first.settle(0, 0)
        (await waiting).settle(0, 0)


async def test_a_denial_of_one_tag_gives_the_other_back(redis_cluster_url: str) -> None:
    url = redis_cluster_url.replace("redis://", "redis+cluster://")
    rules: list[Limit | Budget] = [
        limit(Measure.REQUESTS, name="tenant", amount=3, per="day"),
        limit(Measure.REQUESTS, name="model", scope="model", amount=1, per="day"),
        budget(),
    ]
    async with replicas(2, url, rules) as shared:
        assert await shared[0].admits(demand(cost=5))
        for _ in range(5):
            assert not await shared[1].admits(demand(cost=5))
            await drained(shared)
        for model in ("m2", "m3"):
            assert await shared[1].admits(demand(cost=5, model=model))
        with pytest.raises(TrunklineError) as caught:
            await shared[0].enter(demand(cost=5, model="m4"))
        assert caught.value.metadata["limit"] == "tenant"


async def test_thresholds_are_announced_once_over_replicas(redis_url: str) -> None:
    async with replicas(3, redis_url, [budget(thresholds=(0.5, 0.9))]) as shared:
        await spend_all(shared, 100, 5)
        await drained(shared)
        await drained(shared)
        heard = [event for one in shared for event in one.heard.thresholds]
        assert sorted(heard) == [("b", "t1", 0.5), ("b", "t1", 0.9)]


class Sums:
    """A ledger's sums: what was settled, told to whoever asks."""

    def __init__(self) -> None:
        self.total = 0
        self.asked = 0

    async def spent(
        self,
        scope: str,
        tenant: str,
        subject: str,
        starts: Sequence[float],
        end: float,
        *,
        match: Mapping[str, Sequence[str]],
    ) -> Sequence[int]:
        self.asked += 1
        await asyncio.sleep(0.01)
        assert (scope, tenant, subject) == ("tenant", "t1", "t1")
        return [self.total] * len(starts)


async def test_counters_go_on_from_the_ledger_after_redis_lost_them(
    new_redis: Callable[..., RedisServer],
) -> None:
    server = new_redis()
    sums = Sums()
    modes = OutageModes(budgets=OnOutage.DENY)
    async with replicas(3, server.url, [budget()], source=sums, modes=modes) as shared:
        for number in range(60):
            grant = await shared[number % 3].enter(demand(cost=10_000))
            grant.settle(0, 10_000)
        await drained(shared)
        assert sums.asked == 1
        sums.total = 600_000
        server.kill()
        server.start()
        spent, _ = await spend_all(shared, 60, 1)
        await drained(shared)
        assert 0.3 * CAP < spent <= 400_000
        assert await settled(shared[0]) == 600_000 + spent


async def until(condition: Callable[[], bool]) -> None:
    """Waits until something holds, for twenty seconds at most."""
    async with asyncio.timeout(20.0):
        while not condition():  # noqa: ASYNC110 - Servers set no events.
            await asyncio.sleep(0.01)


async def test_a_rolling_budget_is_never_overspent(redis_url: str) -> None:
    async with replicas(3, redis_url, [budget(period=Period.ROLLING, window=3600)]) as shared:
        spent, _ = await spend_all(shared, 100, 11)
        await drained(shared)
        assert 0.9 * CAP < spent <= CAP


async def test_slots_of_running_calls_are_kept(redis_url: str) -> None:
    async with replicas(2, redis_url, [limit(Measure.CONCURRENCY, amount=1)]) as shared:
        grant = await shared[0].enter(demand())
        key = b"trunkline:{t=t1}:c:l:t1"
        held = await shared[0].client.execute(key, b"ZRANGE", key, b"0", b"-1")
        assert isinstance(held, list)
        assert isinstance(held[0], bytes)
        # As if its lease had nearly run out.
        await shared[0].client.execute(key, b"ZADD", key, b"1", held[0])
        assert shared[0].governor._desk is not None
        shared[0].governor._desk.renew()
        await drained(shared)
        assert not await shared[1].admits(demand())
        grant.settle(0, 0)
        await drained(shared)
        shared[0].governor._desk.renew()
        await drained(shared)
        assert await shared[1].admits(demand())


@pytest.mark.parametrize("measure", list(Measure))
async def test_idle_leases_are_given_back(redis_url: str, measure: Measure) -> None:
    rules = [limit(measure, amount=40, per="day", mode=Mode.LEASED)]
    policy = LeasePolicy(seconds=0.1, share=0.5)
    async with replicas(2, redis_url, rules, leases=policy) as shared:

        async def use(one: Replica) -> int:
            grants = []
            for _ in range(50):
                grant = await one.enter_or_not(demand(tokens=1))
                if isinstance(grant, TrunklineError):
                    break
                grants.append(grant)
            for grant in grants:
                grant.cancel()
            return len(grants)

        used = [await use(shared[0])]
        await until(lambda: not any(one.governor._lease_gates()[0]._pots for one in shared))
        await drained(shared)
        used.append(await use(shared[1]))
        # Cancelled calls give back tokens and slots; requests have been made.
        assert used == [40, 0 if measure is Measure.REQUESTS else 40]


async def test_one_node_of_a_cluster_stalls_its_own_tenants_alone(redis_home: Path) -> None:
    cluster = RedisCluster(redis_home)
    try:
        cluster.start()
        policy = ChannelPolicy(timeout=1.0, connect_timeout=1.0, failures=1)
        rules = [limit(Measure.REQUESTS, amount=2, per="day")]
        url = cluster.url.replace("redis://", "redis+cluster://")
        async with replicas(2, url, rules, policy=policy) as shared:
            tenants = [f"t{number}" for number in range(12)]
            for tenant in tenants:
                assert await shared[0].admits(demand(tenant=tenant))
            cluster.nodes[1].pause()
            await asyncio.gather(*(shared[1].admits(demand(tenant=one)) for one in tenants))
            assert not shared[1].client.available
            exact = [one for one in tenants if shared[1].client.reachable(_key(one))]
            assert 0 < len(exact) < len(tenants)
            for tenant in exact:
                assert not await shared[0].admits(demand(tenant=tenant))
            cluster.nodes[1].resume()
    finally:
        cluster.close()


def _key(tenant: str) -> bytes:
    return f"trunkline:{{t={tenant}}}:r:l:{tenant}".encode()
