"""A time limit on one await: beside asyncio.timeout, which is the oracle of every case."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import pytest

from tests.support.virtual_time import run
from trunkline_server.engine.limit import within

Limited = Callable[[float, Awaitable[str]], Coroutine[object, object, str]]


async def by_the_book(seconds: float, work: Awaitable[str]) -> str:
    async with asyncio.timeout(seconds):
        return await work


async def answer(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "answer"


async def stubborn(seconds: float) -> str:
    """Gives an answer though it is cancelled."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        return "all the same"
    return "answer"


async def translating(seconds: float) -> str:
    """Fails in its own way when it is cancelled."""
    try:
        return await answer(seconds)
    except asyncio.CancelledError:
        raise ConnectionError("given up") from None


async def failing(seconds: float) -> str:
    await asyncio.sleep(seconds)
    raise ValueError("wrong")


async def late_by_itself(seconds: float) -> str:
    await asyncio.sleep(seconds)
    raise TimeoutError("its own")


async def at_once(seconds: float) -> str:
    return "at once"


Outcome = tuple[str, float, int, bool]


def outcome(limited: Limited, seconds: float, work: Awaitable[str], cancel_at: float) -> Outcome:
    """How it ends, when, with how many cancellations pending, and whether the task can wait
    afterwards: a cancellation that was not taken back would end that wait."""
    pending = -1
    waits = False

    async def call() -> str:
        nonlocal pending, waits
        try:
            return await limited(seconds, work)
        finally:
            task = asyncio.current_task()
            assert task is not None
            pending = task.cancelling()
            await asyncio.sleep(0)
            waits = True

    async def main() -> Outcome:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(call())
        if cancel_at >= 0:
            loop.call_at(cancel_at, task.cancel)
        (result,) = await asyncio.gather(task, return_exceptions=True)
        ended = loop.time()
        # A timer that was left behind would ring here.
        await asyncio.sleep(60)
        told = result if isinstance(result, str) else f"{type(result).__name__}: {result}"
        return told, ended, pending, waits

    return run(main)


@pytest.mark.parametrize("kind", [answer, stubborn, translating, failing, late_by_itself, at_once])
@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("takes", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("cancel_at", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_it_ends_as_under_asyncio_timeout(
    kind: Callable[[float], Awaitable[str]], seconds: float, takes: float, cancel_at: float
) -> None:
    expected = outcome(by_the_book, seconds, kind(takes), cancel_at)
    assert outcome(within, seconds, kind(takes), cancel_at) == expected


def test_what_is_late_raises_and_what_is_cancelled_does_not() -> None:
    """The oracle's own verdicts, so that the table above compares different things."""
    assert outcome(within, 1.0, answer(2.0), -1.0) == ("TimeoutError: ", 1.0, 0, True)
    assert outcome(within, 1.0, answer(2.0), 0.5) == ("CancelledError: ", 0.5, 1, True)
    assert outcome(within, 3.0, answer(2.0), -1.0) == ("answer", 2.0, 0, True)
    assert outcome(within, 1.0, stubborn(2.0), -1.0) == ("all the same", 1.0, 0, True)
