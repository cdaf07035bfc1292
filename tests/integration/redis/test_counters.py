"""The scripts on a real Redis: rates, slots, spend, seeding, restarts, and clusters."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable

import pytest

from tests.support.redis_server import RedisServer
from tests.support.redis_time import let_pass
from trunkline_server.governance.quotas.ports import (
    NEVER,
    PERIOD_END,
    UNKNOWN,
    Admission,
    Claim,
    CountersUnavailableError,
    MarkOnce,
    RateCharge,
    RateClaim,
    SlotClaim,
    SlotRelease,
    SlotRenewal,
    SpendClaim,
    SpendRenewal,
    SpendSettlement,
)
from trunkline_server.store.redis import ChannelPolicy, RedisClient
from trunkline_server.store.redis_counters import RedisCounters

# The machine of the tests may stall for longer than a router would bear.
PATIENT = ChannelPolicy(timeout=5.0, connect_timeout=5.0)


@pytest.fixture
async def client(redis_url: str) -> AsyncGenerator[RedisClient]:
    made = RedisClient(redis_url, policy=PATIENT)
    assert await made.start()
    yield made
    await made.close()


@pytest.fixture
def counters(client: RedisClient) -> RedisCounters:
    return RedisCounters(client)


def spend(amount: int, cap: int = 100, **changes: object) -> SpendClaim:
    claim = SpendClaim("trunkline:{t=a}:b", amount, cap, lease=60.0, keep=3600, seed=())
    for name, value in changes.items():
        setattr(claim, name, value)
    return claim


def settlement(
    holder: str, amount: int, truth: int, generation: str, age: float = 0.0
) -> SpendSettlement:
    key = "trunkline:{t=a}:b"
    return SpendSettlement(key, holder, amount, 0, truth, generation, age, keep=3600)


async def used(counters: RedisCounters) -> int:
    """What the counter holds, by a claim of nothing."""
    admission = await counters.admit("probe", [spend(0, cap=10**15)])
    held = admission.spends[0][0]
    await counters.settle([settlement("probe", 0, 0, admission.generation)])
    return held


async def test_a_rate_admits_its_burst_and_then_tells_the_wait(counters: RedisCounters) -> None:
    claim = RateClaim("trunkline:{t=a}:r", cost=20e6, tolerance=60e6)
    for _ in range(3):
        assert (await counters.admit("h", [claim])).denied is None
    denial = await counters.admit("h", [claim])
    assert denial.denied == 0
    assert 15.0 < denial.wait <= 20.0


async def test_retrying_after_the_wait_succeeds(
    counters: RedisCounters, client: RedisClient
) -> None:
    claim = RateClaim("trunkline:{t=a}:r", cost=3600e6, tolerance=3600e6)
    assert (await counters.admit("h", [claim])).denied is None
    denial = await counters.admit("h", [claim])
    assert 3500.0 < denial.wait <= 3600.0
    await let_pass(client, denial.wait - 60.0)
    assert 0.0 < (await counters.admit("h", [claim])).wait <= 60.0
    await let_pass(client, 60.0)
    assert (await counters.admit("h", [claim])).denied is None


async def test_a_rate_is_corrected_both_ways(counters: RedisCounters) -> None:
    claim = RateClaim("trunkline:{t=a}:r", cost=60e6, tolerance=60e6)
    await counters.admit("h", [claim])
    await counters.settle([RateCharge(claim.key, -60e6)])
    assert (await counters.admit("h", [claim])).denied is None
    await counters.settle([RateCharge(claim.key, 30e6)])
    assert (await counters.admit("h", [claim])).wait == pytest.approx(90.0, abs=5.0)


async def test_a_claim_above_the_burst_never_passes(counters: RedisCounters) -> None:
    claim = RateClaim("trunkline:{t=a}:r", cost=61e6, tolerance=60e6)
    assert (await counters.admit("h", [claim])).wait == NEVER


async def test_a_denial_takes_nothing_of_any_claim(counters: RedisCounters) -> None:
    rate = RateClaim("trunkline:{t=a}:r", cost=60e6, tolerance=60e6)
    slot = SlotClaim("trunkline:{t=a}:s", capacity=1, lease=60.0)
    claims: list[Claim] = [rate, slot, spend(101)]
    denial = await counters.admit("h", claims)
    assert (denial.denied, denial.wait) == (2, NEVER)
    assert (await counters.admit("h", [rate, slot, spend(100)])).denied is None


async def test_slots_are_freed_by_release_and_by_expiry(
    counters: RedisCounters, client: RedisClient
) -> None:
    slot = SlotClaim("trunkline:{t=a}:s", capacity=2, lease=3600.0)
    brief = SlotClaim("trunkline:{t=a}:s", capacity=2, lease=60.0)
    assert (await counters.admit("one", [slot])).denied is None
    assert (await counters.admit("two", [brief])).denied is None
    await let_pass(client, 60.0)
    assert (await counters.admit("three", [slot])).denied is None
    denial = await counters.admit("four", [slot])
    assert (denial.denied, denial.wait) == (0, UNKNOWN)
    assert await counters.settle([SlotRelease(slot.key, "one")]) == [1]
    assert await counters.settle([SlotRelease(slot.key, "one")]) == [0]
    assert (await counters.admit("four", [slot])).denied is None


async def test_renewal_keeps_slots_and_reservations(
    counters: RedisCounters, client: RedisClient
) -> None:
    slot = SlotClaim("trunkline:{t=a}:s", capacity=1, lease=60.0)
    granted = await counters.admit("h", [slot, spend(100, lease=60.0)])
    await counters.settle([SlotRenewal(slot.key, "h", 3600.0)])
    await counters.settle([SpendRenewal("trunkline:{t=a}:b", "h", 100, 0, 3600.0)])
    await let_pass(client, 61.0)
    assert (await counters.admit("i", [slot])).denied == 0
    assert (await counters.admit("i", [spend(1)])).denied == 0
    await counters.settle([settlement("h", 100, 7, granted.generation)])
    assert await used(counters) == 7


async def test_spend_is_settled_once(counters: RedisCounters) -> None:
    granted = await counters.admit("h", [spend(60)])
    assert granted.spends == [(60, 0)]
    denial = await counters.admit("i", [spend(41)])
    assert (denial.denied, denial.wait) == (0, PERIOD_END)
    done = settlement("h", 60, 10, granted.generation)
    assert await counters.settle([done]) == [10]
    assert await counters.settle([done]) == [10]
    assert await used(counters) == 10


async def test_an_orphan_expires_and_its_late_settlement_counts_once(
    counters: RedisCounters, client: RedisClient
) -> None:
    granted = await counters.admit("h", [spend(100, lease=60.0)])
    assert await used(counters) == 100
    await let_pass(client, 60.0)
    assert await used(counters) == 0
    late = settlement("h", 100, 33, granted.generation)
    assert await counters.settle([late]) == [33]
    assert await counters.settle([late]) == [33]
    assert await used(counters) == 33


async def test_a_missing_counter_asks_for_its_seed_and_takes_it_once(
    counters: RedisCounters,
) -> None:
    assert (await counters.admit("h", [spend(1, seed=None)])).unseeded == [0]
    assert (await counters.admit("h", [spend(1, seed=[(0, 40)])])).spends == [(41, 0)]
    # Another replica asked at the same time.
    assert (await counters.admit("i", [spend(1, seed=[(0, 40)])])).spends == [(42, 0)]
    assert (await counters.admit("j", [spend(1, seed=None)])).spends == [(43, 0)]


async def test_a_stopgap_seed_is_not_remembered(counters: RedisCounters) -> None:
    assert (await counters.admit("h", [spend(1, seed=(), stopgap=True)])).spends == [(1, 0)]
    assert (await counters.admit("i", [spend(1, seed=None)])).unseeded == [0]
    assert (await counters.admit("i", [spend(1, seed=[(0, 50)])])).spends == [(52, 0)]


async def test_a_rolling_window_lets_go_of_what_is_old(
    counters: RedisCounters, client: RedisClient
) -> None:
    def claim(amount: int) -> SpendClaim:
        return spend(amount, step=3600, steps=2)

    granted = await counters.admit("h", [claim(100)])
    bucket = granted.spends[0][1]
    await counters.settle(
        [
            SpendSettlement(
                *("trunkline:{t=a}:b", "h", 100, bucket, 90, granted.generation, 0.0),
                keep=3600,
                rolling=True,
            )
        ]
    )
    denial = await counters.admit("i", [claim(20)])
    assert denial.denied == 0
    # The oldest, partly left step counts in full.
    assert 2 * 3600.0 < denial.wait <= 3 * 3600.0
    assert (await counters.admit("j", [claim(10)])).spends[0][0] == 100
    await let_pass(client, 2 * 3600.0, step=3600)
    assert (await counters.admit("i", [claim(20)])).denied == 0
    await let_pass(client, 3600.0, step=3600)
    assert (await counters.admit("k", [claim(20)])).spends[0][0] == 20


@pytest.mark.parametrize("seed", range(3))
async def test_random_schedules_keep_every_sum(counters: RedisCounters, seed: int) -> None:
    rng = random.Random(seed)
    keys = [f"trunkline:{{t=a}}:b{number}" for number in range(3)]
    settled = dict.fromkeys(keys, 0)
    held: dict[str, dict[str, int]] = {}
    closed: list[SpendSettlement] = []
    denials = 0
    for number in range(300):
        if rng.random() < 0.6:
            claims = [spend(rng.randrange(60), cap=300, key=key) for key in keys]
            claims = rng.sample(claims, rng.randrange(1, 4))
            used = {
                key: settled[key] + sum(one.get(key, 0) for one in held.values()) for key in keys
            }
            fits = all(used[claim.key] + claim.amount <= 300 for claim in claims)
            holder = f"h{number}"
            admission = await counters.admit(holder, claims)
            assert (admission.denied is None) == fits
            if fits:
                after = [(used[claim.key] + claim.amount, 0) for claim in claims]
                assert admission.spends == after
                held[holder] = {claim.key: claim.amount for claim in claims}
            denials += not fits
        elif held:
            holder = rng.choice(list(held))
            operations = []
            for key, amount in held.pop(holder).items():
                truth = rng.randrange(amount // 9 + 1)
                settled[key] += truth
                done = settlement(holder, amount, truth, "")
                done.key = key
                operations.append(done)
            assert await counters.settle(operations) == [settled[one.key] for one in operations]
            closed += operations
        if closed and rng.random() < 0.3:
            again = rng.choice(closed)
            again.generation = (await counters.admit("p", [spend(0, cap=10**9)])).generation
            assert await counters.settle([again]) == [settled[again.key]]
    assert denials


async def test_a_mark_is_new_once(counters: RedisCounters) -> None:
    mark = MarkOnce("trunkline:{t=a}:b:m50", 60)
    assert await counters.settle([mark]) == [1]
    assert await counters.settle([mark]) == [0]


async def test_amounts_are_exact_up_to_the_bound_of_doubles(counters: RedisCounters) -> None:
    cap = 2**53 - 1
    await counters.admit("h", [spend(cap - 1, cap=cap)])
    assert (await counters.admit("i", [spend(2, cap=cap)])).denied == 0
    assert (await counters.admit("i", [spend(1, cap=cap)])).spends == [(cap, 0)]


async def test_replicas_are_counted_while_they_are_heard_of(
    counters: RedisCounters, client: RedisClient
) -> None:
    assert await counters.census("one", 3600.0) == 1
    assert await counters.census("two", 60.0) == 2
    await let_pass(client, 60.0)
    assert await counters.census("one", 60.0) == 1


async def test_scripts_are_loaded_again_after_a_restart_and_counters_seeded(
    new_redis: Callable[..., RedisServer],
) -> None:
    server = new_redis()
    client = RedisClient(server.url, policy=PATIENT)
    assert await client.start()
    counters = RedisCounters(client)
    before = await counters.admit("h", [spend(30)])
    server.kill()
    server.start()
    after = await _when_back(counters, spend(1, seed=None))
    assert after.unseeded == [0]
    granted = await counters.admit("i", [spend(1, seed=[(0, 30)])])
    assert granted.generation != before.generation
    # Reserved before the loss, answered after: not in the ledger's sum, so it counts, once.
    late = settlement("h", 30, 25, before.generation)
    assert await counters.settle([late]) == [55]
    assert await counters.settle([late]) == [55]
    # Answered long before the counter was seeded: the sum has it.
    old = settlement("g", 30, 25, before.generation, age=60.0)
    assert await counters.settle([old]) == [55]
    await client.close()


async def test_a_counter_restored_from_an_old_snapshot_is_seeded(
    new_redis: Callable[..., RedisServer],
) -> None:
    server = new_redis("--save", "3600 1000000")
    client = RedisClient(server.url, policy=PATIENT)
    assert await client.start()
    counters = RedisCounters(client)
    await counters.admit("h", [spend(10)])
    server.ask("SAVE")
    await counters.admit("i", [spend(70)])
    server.kill()
    server.start()
    assert (await _when_back(counters, spend(1, seed=None))).unseeded == [0]
    # The snapshot holds the reservation of 10; the ledger knows of 60 settled.
    assert (await counters.admit("j", [spend(1, seed=[(0, 60)])])).spends == [(71, 0)]
    await client.close()


@pytest.mark.parametrize("jump", [-3600, 3600])
async def test_a_rate_survives_jumps_of_the_servers_clock(redis_url: str, jump: int) -> None:
    client = RedisClient(redis_url, policy=PATIENT)
    assert await client.start()
    counters = RedisCounters(client)
    clock = await client.execute(b"k", b"TIME")
    assert isinstance(clock, list)
    assert isinstance(clock[0], bytes)
    now = int(clock[0]) * 1_000_000
    # As written by a clock that was ahead, or behind: half of the bucket is taken.
    written = now - jump * 1_000_000
    key = "trunkline:{t=a}:r"
    state = f"{written + 30_000_000} {written}".encode()
    await client.execute(key.encode(), b"SET", key.encode(), state)
    claim = RateClaim(key, cost=31e6, tolerance=60e6)
    admission = await counters.admit("h", [claim])
    if jump < 0:
        # Set back: the level stays, and nobody waits for the hour to pass again.
        assert admission.denied == 0
        assert 0.0 < admission.wait <= 2.0
    else:
        assert admission.denied is None
    await client.close()


async def test_a_cluster_serves_each_tag_on_its_node(redis_cluster_url: str) -> None:
    client = RedisClient(redis_cluster_url.replace("redis://", "redis+cluster://"), policy=PATIENT)
    assert await client.start()
    counters = RedisCounters(client)
    assert counters.clustered
    for number in range(30):
        tag = f"trunkline:{{t={number}}}"
        claims: list[Claim] = [
            RateClaim(f"{tag}:r", cost=60e6, tolerance=60e6),
            SlotClaim(f"{tag}:s", capacity=1, lease=60.0),
            spend(1, key=f"{tag}:b"),
        ]
        assert (await counters.admit("h", claims)).denied is None
        assert (await counters.admit("i", claims)).denied is not None
    await client.close()


async def _when_back(counters: RedisCounters, claim: SpendClaim) -> Admission:
    for _ in range(200):
        try:
            admission = await counters.admit("i", [claim])
        except CountersUnavailableError:
            await asyncio.sleep(0.05)
        else:
            return admission
    raise AssertionError("Redis did not come back")
