"""Redis dead, slow and back: the declared mode holds, and nothing that was spent is lost."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tests.integration.redis.replicas import Replica
from tests.integration.redis.test_governor import budget, drained, limit, settled, until
from tests.support.fault_proxy import FaultProxy
from tests.support.redis_server import RedisServer
from tests.unit.governance.world import demand
from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.quotas.governor import Grant
from trunkline_server.governance.quotas.outage import OutageModes
from trunkline_server.governance.quotas.rules import Budget, Limit, Measure, Mode, OnOutage
from trunkline_server.store.redis import ChannelPolicy

BRISK = ChannelPolicy(timeout=0.2, connect_timeout=1.0, failures=3, retry_seconds=0.05)


@pytest.fixture
async def proxy(redis_url: str, redis_server: RedisServer) -> AsyncGenerator[FaultProxy]:
    async with FaultProxy(redis_server.host, redis_server.port) as made:
        yield made


async def replica(proxy: FaultProxy, *rules: Limit | Budget, **modes: OnOutage) -> Replica:
    made = Replica(f"redis://{proxy.address}", rules, policy=BRISK, modes=OutageModes(**modes))
    await made.start()
    assert made.client.available
    return made


async def fall(proxy: FaultProxy, one: Replica) -> None:
    """Redis dies."""
    await proxy.refuse()
    await until(lambda: not one.client.available)


async def recover(proxy: FaultProxy, one: Replica) -> None:
    """Redis is back, and what was owed is paid."""
    await proxy.accept()
    await until(lambda: one.client.available)
    await drained([one])


@pytest.mark.parametrize("mode", list(Mode))
async def test_locally_each_replica_enforces_its_share(proxy: FaultProxy, mode: Mode) -> None:
    rules = [limit(Measure.REQUESTS, amount=100, per="day", mode=mode)]
    other = await replica(proxy, *rules)
    one = await replica(proxy, *rules)
    await fall(proxy, one)
    admitted = sum([await one.admits(demand()) for _ in range(120)])
    # The last census counted two replicas.
    assert admitted == 50
    await one.close()
    await other.close()


async def test_local_decisions_need_no_waiting_once_the_outage_is_known(
    proxy: FaultProxy,
) -> None:
    one = await replica(proxy, limit(Measure.REQUESTS), budget())
    await fall(proxy, one)
    async with asyncio.timeout(0):  # Fails at the first real wait.
        assert await one.admits(demand(cost=1))
    await one.close()


@pytest.mark.parametrize("mode", list(Mode))
async def test_denying_says_unavailable(proxy: FaultProxy, mode: Mode) -> None:
    one = await replica(
        proxy,
        limit(Measure.REQUESTS, mode=mode),
        budget(mode=mode),
        limits=OnOutage.DENY,
        budgets=OnOutage.DENY,
    )
    await fall(proxy, one)
    refusal = await one.enter_or_not(demand(cost=1))
    assert isinstance(refusal, TrunklineError)
    assert refusal.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    await recover(proxy, one)
    assert await one.admits(demand(cost=1))
    await one.close()


async def test_allowing_counts_what_is_spent(proxy: FaultProxy) -> None:
    one = await replica(
        proxy,
        limit(Measure.REQUESTS, amount=1),
        budget(amount=100),
        limits=OnOutage.ALLOW,
        budgets=OnOutage.ALLOW,
    )
    await fall(proxy, one)
    for _ in range(5):
        assert await one.admits(demand(cost=60))
    await recover(proxy, one)
    refusal = await one.enter_or_not(demand(cost=1))
    assert isinstance(refusal, TrunklineError)
    assert refusal.reason == v1.ERROR_REASON_QUOTA_EXCEEDED
    assert await settled(one) == 300
    await one.close()


async def test_a_local_budget_goes_on_from_what_was_spent_and_pays_later(
    proxy: FaultProxy,
) -> None:
    one = await replica(proxy, budget(amount=1000))
    (await one.enter(demand(cost=600))).settle(0, 600)
    await drained([one])
    await fall(proxy, one)
    assert await one.admits(demand(cost=300))
    assert not await one.admits(demand(cost=101))
    await recover(proxy, one)
    assert await settled(one) == 900
    assert not await one.admits(demand(cost=101))
    assert await one.admits(demand(cost=100))
    await one.close()


async def test_what_was_reserved_before_is_settled_after(proxy: FaultProxy) -> None:
    slots = limit(Measure.CONCURRENCY, name="s", amount=1)
    one = await replica(proxy, budget(amount=1000), slots)
    grant = await one.enter(demand(cost=1000))
    await fall(proxy, one)
    grant.settle(0, 250)
    grant.settle(0, 250)
    await recover(proxy, one)
    assert await settled(one) == 250
    assert await one.admits(demand(cost=750))
    await one.close()


async def test_a_slow_redis_costs_at_most_its_timeout_until_the_breaker_opens(
    proxy: FaultProxy,
) -> None:
    one = await replica(proxy, limit(Measure.REQUESTS, amount=10_000), budget())
    assert await one.admits(demand(cost=1))
    # An hour: whoever waited for a reply would never return.
    proxy.delay = 3600.0
    asked = 0
    for _ in range(50):
        asked += one.client.available
        assert await one.admits(demand(cost=1))
    assert 0 < asked <= BRISK.failures + 1
    assert one.heard.outages == [(True, "local")]
    proxy.delay = 0.0
    await until(lambda: one.client.available)
    assert one.heard.outages == [(True, "local"), (False, "local")]
    await drained([one])
    # Each call counts once, whether Redis or this process had decided it.
    assert await settled(one) == 51
    await one.close()


async def test_a_granted_claim_whose_reply_is_lost_is_taken_back(proxy: FaultProxy) -> None:
    slots = limit(Measure.CONCURRENCY, name="s", amount=1)
    one = await replica(proxy, budget(amount=1000), slots)
    proxy.delay = 0.6  # Requests arrive; replies come too late.
    grant = await one.enter(demand(cost=1000))
    assert isinstance(grant, Grant)
    grant.cancel()
    proxy.delay = 0.0
    await until(lambda: one.client.available)
    await drained([one])
    assert await one.admits(demand(cost=1000))
    await one.close()


async def test_a_caller_that_goes_away_while_it_is_admitted_leaves_nothing(
    proxy: FaultProxy,
) -> None:
    slots = limit(Measure.CONCURRENCY, name="s", amount=1)
    one = await replica(proxy, budget(amount=1000), slots)
    for turns in range(6):
        call = asyncio.create_task(one.enter(demand(cost=1000)))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        if not call.cancelled():
            call.result().cancel()
        await drained([one])
        assert await one.admits(demand(cost=1))
        await drained([one])
    await one.close()


async def test_corrections_that_wait_are_bounded(proxy: FaultProxy) -> None:
    one = await replica(proxy, budget())
    grants = [await one.enter(demand(cost=1)) for _ in range(30)]
    assert one.governor._desk is not None
    one.governor._desk.settler._max_pending = 10
    await fall(proxy, one)
    for grant in grants:
        grant.settle(0, 1)
    assert 0 < one.heard.lost <= 20
    await one.close()


async def test_a_refused_correction_does_not_hold_up_the_others(proxy: FaultProxy) -> None:
    one = await replica(proxy, budget(amount=1000))
    broken = await one.enter(demand(cost=10, tenant="t2"))
    sound = await one.enter(demand(cost=10))
    # Somebody has put something else where a counter was.
    live = b"trunkline:{t=t2}:b:b:t2:*:live"
    keys = await one.client.execute(b"k", b"KEYS", live)
    assert isinstance(keys, list)
    assert isinstance(keys[0], bytes)
    await one.client.execute(keys[0], b"SET", keys[0], b"not a set")
    broken.settle(0, 7)
    sound.settle(0, 7)
    await drained([one])
    assert one.heard.lost == 1
    spent = await one.client.execute(b"k", b"HGET", keys[0].replace(b"t2", b"t1")[:-5], b"u")
    assert spent == b"7"
    await one.close()


async def test_short_outages_do_not_admit_a_share_each(proxy: FaultProxy) -> None:
    one = await replica(proxy, limit(Measure.REQUESTS, amount=40, per="day"))
    admitted = sum([await one.admits(demand()) for _ in range(50)])
    for _ in range(3):
        await fall(proxy, one)
        admitted += sum([await one.admits(demand()) for _ in range(50)])
        await recover(proxy, one)
        admitted += await one.admits(demand())
    # Once by the shared counters, and once by this replica's share, which is all of it.
    assert admitted == 80
    await one.close()
