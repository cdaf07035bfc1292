"""What budgets have left, over all replicas, by a real Redis and by a cluster of three."""

import pytest

from tests.integration.redis.replicas import Replica, replicas
from tests.integration.redis.test_governor import budget, drained
from tests.unit.governance.world import demand
from trunkline_server.governance.quotas.leases import LeasePolicy
from trunkline_server.governance.quotas.rules import Mode, Period


async def told(one: Replica, name: str = "b") -> dict[tuple[str, str], tuple[int, int]]:
    found = await one.governor.balances(name, tenant=None, subject=None, after=("", ""), limit=1000)
    return {(each.tenant, each.subject): (each.spent, each.reserved) for each in found}


@pytest.fixture(params=["single", "cluster"])
def anywhere(request: pytest.FixtureRequest) -> str:
    if request.param == "single":
        url: str = request.getfixturevalue("redis_url")
        return url
    cluster: str = request.getfixturevalue("redis_cluster_url")
    return cluster.replace("redis://", "redis+cluster://")


@pytest.mark.parametrize("period", [Period.MONTHLY, Period.ROLLING])
async def test_every_replica_tells_the_same_balances(anywhere: str, period: Period) -> None:
    window = 3600 if period is Period.ROLLING else 0
    rules = [budget(scope="project", period=period, window=window), budget(name="b2")]
    async with replicas(2, anywhere, rules) as (one, two):
        for number in range(20):
            wish = demand(tenant=f"t:{number}", project="p/1 {x}", cost=100)
            (await one.enter(wish)).settle(0, number)
        held = await two.enter(demand(tenant="t:3", project="p/1 {x}", cost=50))
        await drained([one, two])
        expected = {(f"t:{number}", "p/1 {x}"): (number, 0) for number in range(1, 20)}
        expected["t:3", "p/1 {x}"] = (3, 50)
        assert await told(one) == await told(two) == expected
        held.cancel()


async def test_orphans_count_no_longer_though_nobody_asks(redis_url: str) -> None:
    async with replicas(1, redis_url, [budget()]) as (one,):
        (await one.enter(demand(cost=10))).settle(0, 4)
        await one.enter(demand(cost=500))
        await drained([one])
        assert await told(one) == {("t1", "t1"): (4, 500)}
        keys = await one.client.scan(b"trunkline:*:live")
        members = await one.client.execute(keys[0], b"ZRANGE", keys[0], b"0", b"-1")
        assert isinstance(members, list)
        assert isinstance(members[0], bytes)
        # As if its lease were over.
        await one.client.execute(keys[0], b"ZADD", keys[0], b"1", members[0])
        assert await told(one) == {("t1", "t1"): (4, 0)}


async def test_shares_taken_ahead_count_as_reserved(redis_url: str) -> None:
    rules = [budget(mode=Mode.LEASED)]
    async with replicas(2, redis_url, rules, leases=LeasePolicy(60.0, 0.05)) as (one, two):
        (await one.enter(demand(cost=1000))).settle(0, 400)
        ((spent, reserved),) = (await told(two)).values()
        assert spent + reserved >= 400
