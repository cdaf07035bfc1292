"""Hedging: a second attempt beside a slow first one; the first to succeed wins."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from trunkline_server.engine.journey import Journey
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.routing.snapshot import Deployment

T = TypeVar("T")

# Makes one attempt at a target; the flag says that it is the second of a race.
Try = Callable[[Deployment, bool], Coroutine[Any, Any, T]]


async def race(
    attempt: Try[T],
    first: Deployment,
    delay: float,
    journey: Journey,
    discard: Callable[[T], None],
) -> tuple[Deployment, T]:
    """The first success, and where it came from.

    The second attempt begins when the first has not ended after `delay` seconds, if the
    journey has a target and the budget for it. The loser is cancelled, and has let go of
    everything when this returns; should it have succeeded all the same, `discard` gets its
    result. Raises what the last attempt raised when none succeeds.
    """
    racers = {asyncio.create_task(attempt(first, False)): first}
    try:
        done, _ = await asyncio.wait(racers, timeout=delay)
        hedge = None if done else journey.hedge()
        if hedge is not None:
            racers[asyncio.create_task(attempt(hedge, True))] = hedge
        while True:
            done, _ = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                where = racers.pop(task)
                error = task.exception()
                if error is None:
                    return where, task.result()
                if not racers or not isinstance(error, TrunklineError):
                    raise error
                if isinstance(error, UpstreamError):
                    journey.failed(where, error)
                else:
                    journey.refused(error)
    finally:
        for task in racers:
            task.cancel()
        for outcome in await asyncio.gather(*racers, return_exceptions=True):
            if not isinstance(outcome, BaseException):
                discard(outcome)
