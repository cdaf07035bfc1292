"""What the answer cache keeps of recorded traffic, at several sizes and by several policies.

`python -m tests.perf.test_cache_replay` prints two tables. The first takes the 288,500 block
references of the Mooncake trace for requests, since few of its requests repeat exactly: real
popularity, of blocks. The second sends the 19,366 requests of the Azure trace, with their times
and sizes, through the cache; which of them ask the same is drawn by Zipf's law, for the trace
does not tell.
"""

import asyncio
import csv
import json
import random
from bisect import bisect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from gzip import open as open_gzip
from itertools import accumulate

import pytest

from tests.support.corpus import corpus_dir
from tests.support.virtual_time import VirtualClock, run
from tests.unit.cache.samples import ACME, SOURCE, Waiter, answer, ask
from trunkline import v1
from trunkline_server.cache.cache import AnswerCache, Bounds, Flight
from trunkline_server.cache.memory import ENTRY_OVERHEAD, SHELF_OVERHEAD, Memory

# Nanos per token: GPT-5's list prices, 1.25 USD and 10 USD per million.
INPUT, OUTPUT = 1_250, 10_000


def references() -> list[int]:
    """The blocks of all requests in order."""
    path = corpus_dir() / "traces" / "mooncake_conversation.jsonl.gz"
    with open_gzip(path, "rt") as lines:
        return [block for line in lines for block in json.loads(line)["hash_ids"]]


def second_chance(blocks: Sequence[int], capacity: int) -> float:
    """The cache's own memory, with room for so many entries."""
    memory: Memory[bool] = Memory(capacity * ENTRY_OVERHEAD + SHELF_OVERHEAD)
    hits = 0
    for block in blocks:
        key = block.to_bytes(4, "big")
        if memory.get("s", key, 0.0):
            hits += 1
        else:
            memory.put("s", key, True, 0, expires=1.0, now=0.0)
    return hits / len(blocks)


def least_recently_used(blocks: Sequence[int], capacity: int) -> float:
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for block in blocks:
        hits += block in held
        held[block] = None
        held.move_to_end(block)
        if len(held) > capacity:
            held.popitem(last=False)
    return hits / len(blocks)


def s3_fifo(blocks: Sequence[int], capacity: int) -> float:
    """Yang et al., FIFO queues are all you need for cache eviction, SOSP 2023."""
    small: OrderedDict[int, int] = OrderedDict()
    main: OrderedDict[int, int] = OrderedDict()
    ghost: OrderedDict[int, None] = OrderedDict()
    room = max(capacity // 10, 1)
    hits = 0
    for block in blocks:
        queue = small if block in small else main
        if block in queue:
            queue[block] = min(queue[block] + 1, 3)
            hits += 1
            continue
        while len(small) + len(main) >= capacity:
            if len(small) >= room:
                old, used = small.popitem(last=False)
                if used > 1:
                    main[old] = 0
                    continue
                ghost[old] = None
                if len(ghost) > capacity - room:
                    ghost.popitem(last=False)
            else:
                old, used = main.popitem(last=False)
                if used:
                    main[old] = used - 1
        if block in ghost:
            del ghost[block]
            main[block] = 0
        else:
            small[block] = 0
    return hits / len(blocks)


POLICIES: dict[str, Callable[[Sequence[int], int], float]] = {
    "second chance (ours)": second_chance,
    "least recently used": least_recently_used,
    "S3-FIFO": s3_fifo,
}


def calls() -> Iterator[tuple[float, int, int]]:
    """Seconds since the first, input tokens and output tokens of each request of the trace."""
    path = corpus_dir() / "traces" / "AzureLLMInferenceTrace_conv.csv.gz"
    with open_gzip(path, "rt") as lines:
        first: datetime | None = None
        for row in csv.DictReader(lines):
            # Microseconds are as fine as datetime reads.
            at = datetime.fromisoformat(row["TIMESTAMP"][:26])
            first = first or at
            yield (
                (at - first).total_seconds(),
                int(row["ContextTokens"]),
                int(row["GeneratedTokens"]),
            )


def replay(memory_bytes: int, skew: float) -> tuple[float, float, float]:
    """Hits by calls, the saved part of the cost, and the largest use of memory in MiB.

    Prompts are drawn from as many as there are calls, the n-th with a weight of n ** -skew;
    each is as long, and is answered at as great a length, as when it first came.
    """
    rows = list(calls())
    rng = random.Random(11)
    weights = list(accumulate(rank**-skew for rank in range(1, len(rows) + 1)))
    sizes: dict[int, tuple[int, int]] = {}
    spent = full = hits = 0
    most = 0

    async def main() -> None:
        nonlocal spent, full, hits, most
        loop = asyncio.get_running_loop()
        cache = AnswerCache(Bounds(memory_bytes=memory_bytes), VirtualClock())
        pending = []

        async def one(prompt: int) -> None:
            nonlocal spent, full, hits
            given, written = sizes[prompt]
            cost = given * INPUT + written * OUTPUT
            full += cost

            async def work() -> v1.GenerateResponse:
                nonlocal spent
                spent += cost
                await asyncio.sleep(0.2 + written / 50)
                return answer("word" * written)

            found = cache.lookup(ask(f"{prompt}: " + "word" * given), ACME, SOURCE)
            if not isinstance(found, Flight):
                hits += 1
                return
            told = await found.answer(Waiter("w", loop.time(), loop.time() + 900.0), work)
            hits += not isinstance(told, v1.GenerateResponse)

        for at, given, written in rows:
            prompt = bisect(weights, rng.random() * weights[-1])
            sizes.setdefault(prompt, (given, written))
            await asyncio.sleep(at - loop.time())
            pending.append(asyncio.create_task(one(prompt)))
            most = max(most, cache.memory_bytes)
            assert most <= memory_bytes
        await asyncio.gather(*pending)
        assert cache.stats.misses + hits == len(rows)

    run(main)
    return hits / len(rows), 1 - spent / full, most / 2**20


@pytest.mark.parametrize("part", [0.01, 0.1, 0.3])
def test_ours_keeps_as_much_as_least_recently_used(part: float) -> None:
    blocks = references()
    capacity = int(len(set(blocks)) * part)
    assert second_chance(blocks, capacity) > least_recently_used(blocks, capacity) - 0.003


def test_repeats_are_hits_and_cost_nothing() -> None:
    rate, saved, _ = replay(64 * 2**20, skew=1.0)
    assert rate > 0.4
    assert saved > 0.35


def main() -> None:
    """Prints the tables."""
    blocks = references()
    distinct = len(set(blocks))
    print(f"| policy | {' | '.join(f'{part:.1%}' for part in (0.005, 0.01, 0.05, 0.1, 0.3))} |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, policy in POLICIES.items():
        rates = [policy(blocks, int(distinct * part)) for part in (0.005, 0.01, 0.05, 0.1, 0.3)]
        print(f"| {name} | {' | '.join(f'{rate:.3f}' for rate in rates)} |")
    print("\n| memory | skew | hit rate | cost saved | used at most |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for skew in (0.8, 1.0, 1.2):
        for mebibytes in (1, 4, 64):
            rate, saved, most = replay(mebibytes * 2**20, skew)
            cells = f"{skew} | {rate:.3f} | {saved:.3f} | {most:.1f} MiB"
            print(f"| {mebibytes} MiB | {cells} |")


if __name__ == "__main__":
    main()
