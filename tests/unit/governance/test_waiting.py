"""Callers that wait for room: in order, bounded, and never past their deadline."""

import asyncio
from collections.abc import Awaitable

import pytest

from tests.support.virtual_time import VirtualClock, run
from tests.unit.governance.world import Heard, demand
from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.quotas.governor import Governor, Grant
from trunkline_server.governance.quotas.rules import Demand, Limit, Measure


def door(*limits: Limit) -> Governor:
    return Governor(limits, [], clock=VirtualClock(), audience=Heard())


async def enter(governor: Governor, wish: Demand) -> Grant:
    grant = governor.admit(wish)
    return grant if isinstance(grant, Grant) else await grant


def rate(**changes: object) -> Limit:
    fields: dict[str, object] = {"amount": 1, "per": "second", "max_wait": 10.0} | changes
    return Limit(name="l", measure=Measure.REQUESTS, scope="key", **fields)  # type: ignore[arg-type]


def test_waiting_callers_pass_in_order_of_arrival_and_none_overtakes() -> None:
    async def main() -> None:
        governor = door(rate())
        clock = VirtualClock()
        passed: list[tuple[int, float]] = []

        async def caller(number: int) -> None:
            await enter(governor, demand())
            passed.append((number, round(clock.monotonic(), 3)))

        async def latecomer() -> None:
            # Room comes free at 2.0 for the second in line, not for who asks just then.
            await asyncio.sleep(2.0)
            await caller(9)

        await asyncio.gather(*(caller(number) for number in range(4)), latecomer())
        assert passed == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (9, 4.0)]

    run(main)


def test_who_cannot_be_served_in_time_is_refused_at_once() -> None:
    async def main() -> None:
        governor = door(rate(max_wait=0.5))
        await enter(governor, demand())
        with pytest.raises(TrunklineError) as caught:
            await enter(governor, demand())
        assert caught.value.retry_after == pytest.approx(1.0)
        assert VirtualClock().monotonic() == 0.0

    run(main)


def test_nobody_waits_past_the_deadline() -> None:
    async def main() -> None:
        governor = door(rate())
        await enter(governor, demand())
        first = asyncio.create_task(enter(governor, demand(deadline=30.0)))
        second = asyncio.create_task(enter(governor, demand(deadline=1.5)))
        third = asyncio.create_task(enter(governor, demand(deadline=30.0)))
        await first
        with pytest.raises(TrunklineError) as caught:
            await second
        assert caught.value.reason == v1.ERROR_REASON_RATE_LIMIT
        assert VirtualClock().monotonic() <= 1.5
        await third
        assert VirtualClock().monotonic() == pytest.approx(2.0)

    run(main)


def test_the_number_of_waiting_callers_is_bounded() -> None:
    async def main() -> None:
        governor = door(rate(max_waiting=2))
        await enter(governor, demand())
        waiting = [asyncio.create_task(enter(governor, demand())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TrunklineError) as caught:
            await enter(governor, demand())
        # Those before it take a second each.
        assert caught.value.retry_after == pytest.approx(2.0)
        await asyncio.gather(*waiting)

    run(main)


def test_who_would_wait_too_long_behind_others_is_refused_at_once() -> None:
    async def main() -> None:
        governor = door(rate())
        await enter(governor, demand())
        waiting = [asyncio.create_task(enter(governor, demand())) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(TrunklineError) as caught:
            await enter(governor, demand(deadline=2.5))
        assert caught.value.retry_after == pytest.approx(3.0)
        assert VirtualClock().monotonic() == 0.0
        await asyncio.gather(*waiting)

    run(main)


def test_who_has_waited_in_vain_is_told_what_is_left() -> None:
    async def main() -> None:
        governor = door(rate(amount=1, per="minute", max_wait=90.0))
        await enter(governor, demand())
        first = asyncio.create_task(enter(governor, demand()))
        second = asyncio.create_task(enter(governor, demand()))
        await first
        with pytest.raises(TrunklineError) as caught:
            await second
        assert VirtualClock().monotonic() == pytest.approx(60.0, abs=31.0)
        assert caught.value.retry_after == pytest.approx(60.0)

    run(main)


def test_a_freed_slot_wakes_the_first_in_line() -> None:
    async def main() -> None:
        limit = Limit(name="l", measure=Measure.CONCURRENCY, scope="key", amount=1, max_wait=60.0)
        governor = door(limit)
        grant = await enter(governor, demand())
        order: list[int] = []

        async def caller(number: int) -> None:
            held = await enter(governor, demand())
            order.append(number)
            await asyncio.sleep(1.0)
            held.settle(0, 0)

        callers = [asyncio.create_task(caller(number)) for number in range(3)]
        await asyncio.sleep(5.0)
        assert order == []
        grant.settle(0, 0)
        await asyncio.gather(*callers)
        assert order == [0, 1, 2]
        assert VirtualClock().monotonic() == pytest.approx(8.0, abs=0.01)

    run(main)


def test_a_cancelled_waiter_leaves_the_line_in_order() -> None:
    async def main() -> None:
        governor = door(rate())
        await enter(governor, demand())
        first = asyncio.create_task(enter(governor, demand()))
        second = asyncio.create_task(enter(governor, demand()))
        await asyncio.sleep(0.2)
        first.cancel()
        await second
        assert VirtualClock().monotonic() == pytest.approx(1.0)
        # The line is gone: who comes when there is room is served at once.
        await asyncio.sleep(1.0)
        outcome: Grant | Awaitable[Grant] = governor.admit(demand())
        assert isinstance(outcome, Grant)

    run(main)
