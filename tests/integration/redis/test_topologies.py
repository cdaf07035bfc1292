"""Sentinel and Cluster: counters and answers after a failover, and while slots move."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from tests.integration.redis.replicas import PATIENT, Replica, replicas
from tests.integration.redis.test_governor import budget, limit, until
from tests.support.redis_server import RedisCluster, RedisSentinel, RedisServer
from tests.unit.governance.world import demand
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.quotas.governor import Grant
from trunkline_server.governance.quotas.outage import OutageModes
from trunkline_server.governance.quotas.rules import Budget, Limit, Measure, OnOutage
from trunkline_server.store.cache_redis import RedisAnswers
from trunkline_server.store.redis import ChannelPolicy, RedisClient

DENY = OutageModes(limits=OnOutage.DENY, budgets=OnOutage.DENY)
DIGEST = bytes(range(32))


@pytest.fixture
def own_cluster(redis_home: Path) -> Iterator[RedisCluster]:
    made = RedisCluster(redis_home)
    try:
        made.start()
        yield made
    finally:
        made.close()


async def admitted(one: Replica, cost: int) -> Grant:
    """The grant, once the counters are back."""
    async with asyncio.timeout(60.0):
        while True:
            grant = await one.enter_or_not(demand(cost=cost))
            if not isinstance(grant, TrunklineError):
                return grant
            await asyncio.sleep(0.05)


async def test_counters_and_answers_go_on_after_a_failover(
    new_redis: Callable[..., RedisServer], new_sentinel: Callable[[RedisServer], RedisSentinel]
) -> None:
    first = new_redis("--repl-diskless-sync-delay", "0")
    second = new_redis("--replicaof", first.host, str(first.port))
    await until(lambda: "connected_slaves:1" in first.ask("INFO", "replication"))
    sentinel = new_sentinel(first)
    await until(lambda: "slaves=1" in sentinel.ask("INFO", "sentinel"))
    url = f"redis+sentinel://{sentinel.address}/primary"
    policy = ChannelPolicy(timeout=1.0, connect_timeout=1.0, retry_seconds=0.1)
    rules: list[Limit | Budget] = [
        limit(Measure.REQUESTS, amount=100, per="day"),
        budget(amount=1000),
    ]
    async with replicas(2, url, rules, policy=policy, modes=DENY) as (one, two):
        cached = RedisClient(url, policy=policy)
        assert await cached.start()
        answers = RedisAnswers(cached)
        (await one.enter(demand(cost=600))).settle(0, 600)
        await answers.put_many("acme", [(DIGEST, b"answer", 600.0)])
        assert one.governor._desk is not None
        await one.governor._desk.settler.drain(10.0)
        await until(lambda: _offset(first, "master_repl_offset") == _offset(second, "slave_repl"))
        first.kill()
        grant = await admitted(one, 300)
        # What was spent before is not forgotten: the successor had it.
        assert not await two.admits(demand(cost=101))
        grant.settle(0, 300)
        await until(lambda: cached.available)
        assert await answers.get("acme", DIGEST) == b"answer"
        await cached.close()


def _offset(server: RedisServer, name: str) -> str:
    lines = server.ask("INFO", "replication").splitlines()
    return next(line.partition(":")[2] for line in lines if line.startswith(name))


async def test_counters_and_answers_follow_a_slot_that_moves(own_cluster: RedisCluster) -> None:
    url = own_cluster.url.replace("redis://", "redis+cluster://")
    rules: list[Limit | Budget] = [
        limit(Measure.REQUESTS, amount=3, per="day"),
        budget(amount=1000),
    ]
    async with replicas(2, url, rules, modes=DENY) as (one, two):
        cached = RedisClient(url, policy=PATIENT)
        assert await cached.start()
        answers = RedisAnswers(cached)
        assert await one.admits(demand(cost=100))
        await answers.put_many("acme", [(DIGEST, b"answer", 600.0)])
        move, move_answer = (
            _Move(own_cluster, key_slot(tag)) for tag in (b"t=t1", DIGEST.hex().encode())
        )
        move.begin()
        # Keys that do not exist yet make Redis refuse a script while its slot is on its way:
        # the mode of an outage holds.
        assert not await one.admits(demand(cost=100))
        move.end()
        # The new node has not seen the scripts.
        assert await two.admits(demand(cost=100))
        assert await one.admits(demand(cost=100))
        move_answer.begin()
        assert await answers.get("acme", DIGEST) == b"answer"
        move_answer.end()
        assert not await two.admits(demand(cost=100))
        assert await answers.get("acme", DIGEST) == b"answer"
        await cached.close()


class _Move:
    """Moves a slot with its keys from its node to another, as an operator's tools do."""

    def __init__(self, cluster: RedisCluster, slot: int) -> None:
        place = slot // -(-16384 // len(cluster.nodes))
        self._nodes, self._slot = cluster.nodes, str(slot)
        self._source = cluster.nodes[place]
        self._target = cluster.nodes[(place + 1) % len(cluster.nodes)]
        self._id = self._target.ask("CLUSTER", "MYID")

    def begin(self) -> None:
        source, target = self._source, self._target
        source_id = source.ask("CLUSTER", "MYID")
        target.ask("CLUSTER", "SETSLOT", self._slot, "IMPORTING", source_id)
        source.ask("CLUSTER", "SETSLOT", self._slot, "MIGRATING", self._id)
        for key in source.ask_many("CLUSTER", "GETKEYSINSLOT", self._slot, "1000"):
            source.ask("MIGRATE", target.host, str(target.port), key, "0", "5000")

    def end(self) -> None:
        for node in (self._target, self._source, *self._nodes):
            node.ask("CLUSTER", "SETSLOT", self._slot, "NODE", self._id)


async def test_one_call_of_a_script_touches_one_slot(redis_url: str) -> None:
    """Every rule of a tenant's call, its settlements and marks; models and providers apart."""
    rules: list[Limit | Budget] = [
        *(limit(measure, name=f"l{measure.value}:{{x}}") for measure in Measure),
        limit(Measure.TOKENS, name="model", scope="model"),
        budget(name="b 1", thresholds=(0.1,)),
        budget(name="b2", scope="project"),
        budget(name="b3", scope="service"),
    ]
    async with replicas(1, redis_url, rules) as (one,):
        for tenant in ("t1", "a}b{c", "Zürich"):
            wish = demand(tenant=tenant, project="p}{", model="m/{1}", tokens=1, cost=500_000)
            (await one.enter(wish)).settle(1, 500_000)
        assert one.governor._desk is not None
        for _ in range(2):
            await one.governor._desk.settler.drain(10.0)
        keys = await one.client.scan(b"trunkline:*")
    tags: dict[str, set[int]] = {}
    for key in keys:
        if b"replicas" not in key:
            text = key.decode()
            tags.setdefault(text[: text.index("}")], set()).add(key_slot(key))
    assert sorted(map(len, tags.values())) == [1, 1, 1, 1]
    assert len(keys) > 4 * 3 + 3
