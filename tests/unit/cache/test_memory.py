"""The first level: its bounds, its fairness, its time."""

import gc
import random
import tracemalloc

import pytest

from trunkline_server.cache.memory import ENTRY_OVERHEAD, SHELF_OVERHEAD, Memory

ROOM = 10 * ENTRY_OVERHEAD


def _put(
    memory: Memory[bytes],
    scope: str,
    name: object,
    size: int = 0,
    *,
    ttl: float = 100.0,
    now: float = 0.0,
) -> bool:
    key = repr(name).encode()
    return memory.put(scope, key, b"%r" % key, size, expires=now + ttl, now=now)


def _has(memory: Memory[bytes], scope: str, name: object, now: float = 0.0) -> bool:
    return memory.get(scope, repr(name).encode(), now) is not None


@pytest.mark.parametrize("seed", range(8))
def test_no_bound_is_ever_passed(seed: int) -> None:
    """Against a plain model: what is held is what was put, and sums are those of what is held."""
    rng = random.Random(seed)
    capacity, share = 60_000, rng.choice([0.3, 0.6, 1.0])
    memory: Memory[int] = Memory(capacity, share)
    model: dict[tuple[str, bytes], tuple[int, int, float]] = {}
    now = 0.0
    for step in range(6_000):
        now += rng.random()
        scope = rng.choice(["a", "b", "c", "d", "e"])
        key = b"%d" % int(rng.paretovariate(0.7))
        act = rng.random()
        if act < 0.5:
            size = rng.choice([0, 10, 500, 5_000, 30_000, 70_000])
            ttl = rng.choice([0.0, 1.0, 50.0, 5_000.0])
            kept = memory.put(scope, key, step, size, expires=now + ttl, now=now)
            fits = size + ENTRY_OVERHEAD + SHELF_OVERHEAD <= int(capacity * share)
            assert kept == (fits and ttl > 0)
            model.pop((scope, key), None)
            if kept:
                model[scope, key] = (step, size, now + ttl)
        elif act < 0.9:
            value = memory.get(scope, key, now)
            if value is None:
                model.pop((scope, key), None)
            else:
                written, _, expires = model[scope, key]
                assert value == written
                assert now < expires
        elif act < 0.98:
            memory.discard(scope, key)
            model.pop((scope, key), None)
        else:
            memory.clear(scope)
            model = {each: row for each, row in model.items() if each[0] != scope}
        held = [(each, row) for each, row in model.items() if memory.expires(*each) == row[2]]
        used = sum(row[1] + ENTRY_OVERHEAD for _, row in held)
        scopes = {each[0] for each, _ in held}
        assert memory.count == len(held)
        assert memory.used == used + SHELF_OVERHEAD * len(scopes) <= capacity
        assert all(memory.used_by(name) <= capacity * share for name in "abcde")


def test_an_entry_is_gone_at_its_time() -> None:
    memory: Memory[bytes] = Memory(ROOM)
    _put(memory, "a", 1, ttl=10.0)
    assert _has(memory, "a", 1, 9.999)
    assert not _has(memory, "a", 1, 10.0)
    assert memory.used == memory.count == 0


def test_what_is_over_goes_before_what_is_not() -> None:
    memory: Memory[bytes] = Memory(4 * ENTRY_OVERHEAD + SHELF_OVERHEAD)
    _put(memory, "a", "long", ttl=100.0)
    for name in range(3):
        _put(memory, "a", name, ttl=1.0)
    _put(memory, "a", "new", now=5.0)
    assert _has(memory, "a", "long", 5.0)
    assert memory.evicted == 0


def test_idle_scopes_lose_what_is_over() -> None:
    """A tenant that went away must not hold its share for ever."""
    memory: Memory[bytes] = Memory(ROOM)
    for name in range(3):
        _put(memory, "gone", name, ttl=1.0)
    for name in range(2):
        _put(memory, "here", name, now=5.0)
    assert memory.used_by("gone") == 0


def test_second_chance() -> None:
    memory: Memory[bytes] = Memory(3 * ENTRY_OVERHEAD + SHELF_OVERHEAD)
    for name in "abc":
        _put(memory, "s", name)
    assert _has(memory, "s", "a")
    _put(memory, "s", "d")
    assert not _has(memory, "s", "b")
    assert _has(memory, "s", "a")
    assert _has(memory, "s", "c")


def test_a_scan_does_not_push_out_what_is_used() -> None:
    memory: Memory[bytes] = Memory(20 * ENTRY_OVERHEAD + SHELF_OVERHEAD)
    for name in range(5):
        _put(memory, "s", ("hot", name))
    for turn in range(200):
        _put(memory, "s", ("once", turn))
        if turn % 5 == 0:
            assert all(_has(memory, "s", ("hot", name)) for name in range(5))


def test_who_holds_no_more_than_an_even_share_loses_nothing() -> None:
    memory: Memory[bytes] = Memory(100 * (ENTRY_OVERHEAD + 1_000) + 5 * SHELF_OVERHEAD)
    for scope in ("a", "b", "c", "d"):
        for name in range(20):
            assert _put(memory, scope, name, 1_000)
    for name in range(5_000):
        assert _put(memory, "greedy", name, 1_000)
    for scope in ("a", "b", "c", "d"):
        assert all(_has(memory, scope, name) for name in range(20))
    assert memory.used_by("greedy") >= 15 * (ENTRY_OVERHEAD + 1_000)


def test_a_lone_scope_may_have_it_all_and_gives_way() -> None:
    memory: Memory[bytes] = Memory(100 * (ENTRY_OVERHEAD + 1_000))
    for name in range(500):
        _put(memory, "first", name, 1_000)
    assert memory.used_by("first") > 0.97 * memory.capacity
    for name in range(500):
        _put(memory, "second", name, 1_000)
    assert 0.45 < memory.used_by("second") / memory.capacity < 0.55


def test_a_scope_stays_within_its_share() -> None:
    memory: Memory[bytes] = Memory(100 * (ENTRY_OVERHEAD + 1_000), share=0.25)
    for name in range(500):
        _put(memory, "first", name, 1_000)
    assert 0.22 < memory.used_by("first") / memory.capacity <= 0.25


def test_a_value_too_large_replaces_nothing_but_its_own_old_self() -> None:
    memory: Memory[bytes] = Memory(ROOM)
    _put(memory, "a", 1)
    _put(memory, "a", 2)
    assert not _put(memory, "a", 1, ROOM)
    assert not _has(memory, "a", 1)
    assert _has(memory, "a", 2)


@pytest.mark.parametrize(("capacity", "share"), [(0, 1.0), (10, 0.0), (10, 1.5)])
def test_senseless_bounds_are_refused(capacity: int, share: float) -> None:
    with pytest.raises(ValueError, match="at least 1 byte"):
        Memory(capacity, share)


@pytest.mark.parametrize("scopes", [1, 300])
def test_what_is_counted_is_what_is_taken(scopes: int) -> None:
    """Of the interpreter's own count of memory, with entries coming and going."""
    rng = random.Random(3)
    gc.collect()
    tracemalloc.start()
    try:
        memory: Memory[bytes] = Memory(3_000_000)
        for number in range(12_000):
            value = rng.randbytes(400)
            digest = rng.randbytes(32)
            scope = f"t/tenant-{number % scopes}"
            memory.put(scope, digest, value, len(value) + 33, expires=float(number), now=0.0)
            memory.get(scope, digest, 0.0)
        assert memory.used > 0.99 * memory.capacity
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.75 < taken / memory.used < 1.02
