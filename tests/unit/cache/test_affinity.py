"""Prefix affinity: blocks, who saw them, and when that pays."""

import random

import pytest

from trunkline import v1
from trunkline_server.cache.affinity import (
    BLOCK_BYTES,
    PrefixAffinity,
    prefix_blocks,
)


def _words(seed: int, size: int) -> str:
    rng = random.Random(seed)
    return "".join(rng.choices("abcdefgh ", k=size))


def _conversation(*turns: str, tools: tuple[str, ...] = (), **fields: object) -> v1.GenerateRequest:
    request = v1.GenerateRequest(**fields)  # type: ignore[arg-type]  # By name.
    request.model = "gpt-5"
    request.messages.extend(
        v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text=turn)]) for turn in turns
    )
    request.tools.extend(v1.Tool(name=name) for name in tools)
    return request


def _common(one: v1.GenerateRequest, two: v1.GenerateRequest, scopes: str = "aa") -> int:
    pairs = zip(prefix_blocks(one, scopes[0]), prefix_blocks(two, scopes[1]), strict=False)
    count = 0
    for first, second in pairs:
        if first != second:
            break
        count += 1
    return count


def test_the_next_turn_shares_the_blocks_of_those_before() -> None:
    system, first, second = _words(1, 9_000), _words(2, 3_000), _words(3, 5_000)
    before = _conversation(system, first, request_id="one", config=v1.GenerationConfig(seed=1))
    after = _conversation(system, first, second, request_id="two")
    assert _common(before, after) >= 12_000 // BLOCK_BYTES - 1
    assert _common(before, _conversation(system, second)) == 9_000 // BLOCK_BYTES
    assert _common(before, _conversation(first, system)) == 0


def test_a_block_is_named_by_all_before_it() -> None:
    tail = _words(4, 10 * BLOCK_BYTES)
    one = _conversation("x" * BLOCK_BYTES + tail)
    two = _conversation("y" * BLOCK_BYTES + tail)
    assert not set(prefix_blocks(one, "a")) & set(prefix_blocks(two, "a"))


def test_tools_and_scope_come_first() -> None:
    text = _words(5, 10_000)
    plain = _conversation(text)
    assert _common(plain, _conversation(text)) == len(prefix_blocks(plain, "a")) == 4
    assert _common(plain, _conversation(text, tools=("search",))) == 0
    assert _common(plain, _conversation(text), "ab") == 0


def test_short_prompts_are_not_looked_at_and_long_ones_not_to_the_end() -> None:
    assert prefix_blocks(_conversation(_words(6, 2_000)), "a") == ()
    assert len(prefix_blocks(_conversation("x" * 3_000_000), "a")) == 512


def test_each_deployment_by_how_far_it_saw() -> None:
    seen = PrefixAffinity()
    seen.saw([1, 2, 3, 4], "a", 0.0)
    seen.saw([1, 2, 30], "b", 0.0)
    seen.saw([9, 92, 93], "c", 0.0)
    assert seen.affinity([1, 2, 3, 5], 1.0) == {"a": 3, "b": 2}
    assert seen.affinity([9, 92, 93, 94], 1.0) == {"c": 3}
    assert seen.affinity([7, 1], 1.0) == {}
    assert seen.affinity([], 1.0) == {}


def test_what_was_seen_is_forgotten_in_time() -> None:
    seen = PrefixAffinity(ttl=10.0)
    seen.saw([1, 2, 3], "a", 0.0)
    seen.saw([1], "a", 8.0)
    assert seen.affinity([1, 2, 3], 10.0) == {"a": 3}
    assert seen.affinity([1, 2, 3], 10.5) == {"a": 1}
    assert seen.affinity([1, 2, 3], 18.5) == {}


@pytest.mark.parametrize("seed", range(4))
def test_against_a_plain_model(seed: int) -> None:
    """Every answer is a prefix that the deployment saw in time; without evictions the longest."""
    rng = random.Random(seed)
    capacity = rng.choice([20, 10_000])
    seen = PrefixAffinity(capacity, ttl=50.0)
    log: list[tuple[float, str, list[int]]] = []
    for now in range(400):
        blocks: list[int] = []
        for _ in range(rng.randint(0, 8)):
            # A name stands for all before it, as those of prefix_blocks do.
            blocks.append(hash((tuple(blocks), rng.randrange(2))))
        expected: dict[str, int] = {}
        for at, name, old in log:
            if now - at <= 50.0:
                common = next(
                    (i for i, (x, y) in enumerate(zip(old, blocks, strict=False)) if x != y),
                    min(len(old), len(blocks)),
                )
                expected[name] = max(expected.get(name, 0), common)
        found = seen.affinity(blocks, float(now))
        exact = {name: count for name, count in expected.items() if count}
        if capacity > 1_000:
            assert found == exact
        else:
            assert all(count <= exact[name] for name, count in found.items())
            assert len(seen) <= capacity
        name = rng.choice("abc")
        seen.saw(blocks, name, float(now))
        log.append((float(now), name, blocks))
