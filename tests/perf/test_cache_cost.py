"""What the answer cache costs a call.

Counted, not timed, in the test: the function calls, Python's and C's, of a hit. The count is the
same on every machine. `python -m tests.perf.test_cache_cost` prints microseconds instead.
"""

import asyncio
import sys
import time
import timeit
from collections.abc import Callable
from types import FrameType

import uvloop

from tests.unit.cache.samples import ACME, SOURCE, Waiter, answer, ask
from trunkline import v1
from trunkline_server.cache.affinity import PrefixAffinity, prefix_blocks
from trunkline_server.cache.cache import AnswerCache, Bounds, Flight, Hit
from trunkline_server.cache.key import generate_key
from trunkline_server.clock import SystemClock

# A hit when this was written: 64, and 9 us.
MOST_CALLS_OF_A_HIT = 66


def _request(text: str = "word " * 80) -> v1.GenerateRequest:
    return ask(text, request_id="01J8ZQ4T", context=v1.CallContext(agent_id="agent"))


async def _filled(
    cache: AnswerCache, request: v1.GenerateRequest, response: v1.GenerateResponse
) -> None:
    async def work() -> v1.GenerateResponse:
        return response

    flight = cache.lookup(request, ACME, SOURCE)
    assert isinstance(flight, Flight)
    now = time.monotonic()
    await flight.answer(Waiter("first", now, now + 10.0), work)


def _hit(cache: AnswerCache, request: v1.GenerateRequest) -> bytes:
    hit = cache.lookup(request, ACME, SOURCE)
    assert isinstance(hit, Hit)
    return hit.response("01J8ZQ4T", 37)


def _calls(work: Callable[[], object]) -> int:
    count = 0

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


async def test_a_hit_takes_few_steps_whatever_its_size() -> None:
    cache = AnswerCache(Bounds(), SystemClock())
    small, large = _request(), _request("word " * 20_000)
    await _filled(cache, small, answer("word " * 100))
    await _filled(cache, large, answer("word " * 100_000))
    counts = [_calls(lambda r=request: _hit(cache, r)) for request in (small, large)]  # type: ignore[misc]  # A default is how a loop's lambda keeps its own.
    assert counts[0] == counts[1] <= MOST_CALLS_OF_A_HIT


def _best(work: Callable[[], object], number: int = 5_000) -> float:
    """Microseconds, the best of many."""
    return min(timeit.repeat(work, number=number, repeat=9)) / number * 1e6


async def _figures() -> None:
    cache = AnswerCache(Bounds(), SystemClock())
    request, response = _request(), answer("word " * 100)
    await _filled(cache, request, response)
    print(f"hit, from request to bytes     {_best(lambda: _hit(cache, request)):6.1f} us")
    print(
        f"  of that the key              {_best(lambda: generate_key(request, 't/a', SOURCE)):6.1f}"
    )
    print(f"serialising such a response    {_best(response.SerializeToString):6.1f}")
    rounds = []
    for number in range(9):
        requests = [_request(f"{number} {each} " + "word " * 80) for each in range(1_000)]
        began = time.perf_counter()
        for each in requests:
            await _filled(cache, each, response)
        rounds.append((time.perf_counter() - began) * 1e3)
    print(f"miss, shared and kept          {min(rounds):6.1f}")
    long = ask("word " * 10_000)
    blocks = prefix_blocks(long, "t/a")
    seen = PrefixAffinity()
    for number in range(8):
        seen.saw(blocks[: 3 * number + 3], f"deployment-{number}", 0.0)
    print(f"blocks of a prompt of 50 kB    {_best(lambda: prefix_blocks(long, 't/a'), 500):6.1f}")
    print(f"  who saw them, of 8           {_best(lambda: seen.affinity(blocks, 1.0)):6.1f}")
    print(f"blocks of a short prompt       {_best(lambda: prefix_blocks(request, 't/a')):6.1f}")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_figures())
