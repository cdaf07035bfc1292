"""Live events: who watches gets what it wants, and is told what it was too slow for."""

import asyncio

from tests.unit.ledger.world import payload
from trunkline.admin import v1 as admin
from trunkline_server.ledger.live import LiveEvents, Watcher


def number(event: admin.UsageEvent) -> int:
    return int(event.event_id, 16)


async def take(watcher: Watcher, count: int) -> list[tuple[int, int]]:
    """The numbers of the next events, each with how many were dropped before it."""
    taken = [await anext(watcher) for _ in range(count)]
    return [(number(each.event), each.dropped) for each in taken]


async def test_each_watcher_gets_what_it_wants_from_then_on() -> None:
    live = LiveEvents()
    live.publish(payload(0))
    with live.watch(lambda _: True) as all_of_them, live.watch(lambda e: number(e) > 2) as some:
        for each in range(1, 5):
            live.publish(payload(each))
        assert await take(all_of_them, 4) == [(1, 0), (2, 0), (3, 0), (4, 0)]
        assert await take(some, 2) == [(3, 0), (4, 0)]


async def test_a_slow_watcher_is_told_how_many_it_missed() -> None:
    live = LiveEvents()
    with live.watch(lambda _: True, size=3) as slow, live.watch(lambda _: True) as fast:
        for each in range(10):
            live.publish(payload(each))
        assert await take(slow, 3) == [(0, 0), (1, 0), (2, 0)]
        live.publish(payload(10))
        live.publish(payload(11))
        assert await take(slow, 2) == [(10, 7), (11, 0)]
        assert len(await take(fast, 12)) == 12


async def test_a_watcher_waits_for_the_next_event() -> None:
    live = LiveEvents()
    with live.watch(lambda _: True) as watcher:
        waiting = asyncio.create_task(take(watcher, 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        live.publish(payload(7))
        assert await waiting == [(7, 0)]


async def test_nothing_is_parsed_for_nobody() -> None:
    live = LiveEvents()
    with live.watch(lambda _: True):
        pass
    live.publish(b"\xff\xff no event")
