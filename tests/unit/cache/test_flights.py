"""Identical unary calls at the same time, in virtual time."""

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable

import pytest

from tests.support.virtual_time import VirtualClock, run
from trunkline import v1
from trunkline_server.cache.flights import Flights, Key, Tasks
from trunkline_server.errors import TrunklineError, UpstreamError

KEY: Key = ("t/acme", b"digest")
TOOK = 10.0


class Upstream:
    """Work that takes its time, and knows what became of it."""

    def __init__(self, took: float = TOOK, error: Exception | None = None) -> None:
        self.begun = 0
        self.done = 0
        self.cancelled_at: list[float] = []
        self._took = took
        self._error = error

    async def __call__(self) -> str:
        self.begun += 1
        try:
            await asyncio.sleep(self._took)
        except asyncio.CancelledError:
            self.cancelled_at.append(asyncio.get_running_loop().time())
            raise
        self.done += 1
        if self._error is not None:
            raise self._error
        return f"answer {self.begun}"


class Scene:
    """Flights, and calls that join them."""

    def __init__(self) -> None:
        self.tasks = Tasks()
        self.flights: Flights[str] = Flights(VirtualClock(), self.tasks)

    def call(
        self,
        work: Callable[[], Awaitable[str]],
        deadline: float = 100.0,
        key: Key = KEY,
        extend: Callable[[float], None] | None = None,
    ) -> "asyncio.Task[tuple[str, bool]]":
        return asyncio.create_task(self.flights.run(key, deadline, work, extend))

    def quiet(self) -> bool:
        """Whether nothing is left behind."""
        return not len(self.flights) and not len(self.tasks)


def test_identical_calls_share_one() -> None:
    async def main() -> None:
        scene, upstream = Scene(), Upstream()
        calls = [scene.call(upstream) for _ in range(50)]
        results = await asyncio.gather(*calls)
        assert results == [("answer 1", True)] + [("answer 1", False)] * 49
        assert scene.quiet()
        assert await scene.call(upstream) == ("answer 2", True)

    run(main)


def test_other_keys_do_not() -> None:
    async def main() -> None:
        scene, upstream = Scene(), Upstream()
        keys: list[Key] = [("t/a", b"1"), ("t/b", b"1"), ("t/a", b"2")]
        results = await asyncio.gather(*(scene.call(upstream, key=key) for key in keys))
        assert all(led for _, led in results)
        assert upstream.begun == 3

    run(main)


# When each of three callers goes away: never, before it ran, early, late, at the very end.
GOES = (None, 0.0, 3.0, 7.0, TOOK)


@pytest.mark.parametrize("leaves", list(itertools.product(GOES, repeat=3)), ids=repr)
def test_whoever_goes_the_others_get_the_answer(leaves: tuple[float | None, ...]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scene, upstream = Scene(), Upstream()
        calls = [scene.call(upstream) for _ in leaves]
        await asyncio.sleep(0)
        for call, at in zip(calls, leaves, strict=True):
            if at is not None:
                loop.call_at(at, call.cancel)
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result, at in zip(results, leaves, strict=True):
            if at is None:
                assert isinstance(result, tuple)
                assert result[0] == "answer 1"
            elif at < TOOK:
                assert isinstance(result, asyncio.CancelledError)
        gone = [at for at in leaves if at is not None and at < TOOK]
        assert upstream.begun <= 1
        if len(gone) == len(leaves):
            # The last one to go ends the work there and then.
            assert upstream.cancelled_at == ([max(gone)] if upstream.begun else [])
            assert upstream.done == 0
        elif None in leaves:
            assert (upstream.done, upstream.cancelled_at) == (1, [])
        assert scene.quiet()

    run(main)


@pytest.mark.parametrize("order", list(itertools.permutations([2.0, 5.0, 20.0])))
def test_each_has_its_own_deadline(order: tuple[float, ...]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scene, upstream = Scene(), Upstream()
        ended: dict[float, float] = {}
        calls = {deadline: scene.call(upstream, deadline) for deadline in order}

        def note(deadline: float, _: object) -> None:
            ended[deadline] = loop.time()

        for deadline, call in calls.items():
            call.add_done_callback(functools.partial(note, deadline))
        results = await asyncio.gather(*calls.values(), return_exceptions=True)
        for deadline, result in zip(order, results, strict=True):
            if deadline < TOOK:
                assert isinstance(result, TrunklineError)
                assert result.reason == v1.ERROR_REASON_TIMEOUT
            else:
                assert not isinstance(result, BaseException)
                assert result[0] == "answer 1"
        assert ended == {2.0: 2.0, 5.0: 5.0, 20.0: TOOK}
        assert upstream.begun == 1

    run(main)


def test_a_lone_deadline_ends_the_work_at_once() -> None:
    async def main() -> None:
        scene, upstream = Scene(), Upstream()
        with pytest.raises(TrunklineError) as caught:
            await scene.call(upstream, 4.0)
        assert caught.value.reason == v1.ERROR_REASON_TIMEOUT
        # The books are closed before the caller hears of it.
        assert upstream.cancelled_at == [4.0]
        assert scene.quiet()

    run(main)


def test_later_deadlines_are_told_to_the_work() -> None:
    async def main() -> None:
        scene, upstream = Scene(), Upstream()
        told: list[float] = []
        calls = [scene.call(upstream, 15.0, extend=told.append)]
        calls += [scene.call(upstream, deadline) for deadline in (12.0, 30.0, 20.0, 40.0)]
        await asyncio.gather(*calls)
        assert told == [30.0, 40.0]

    run(main)


SHARED_ERRORS = [
    TrunklineError(v1.ERROR_REASON_CONTENT_FILTER, "refused"),
    TrunklineError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, "down"),
    TrunklineError(v1.ERROR_REASON_RATE_LIMIT, "theirs", metadata={"scope": "provider"}),
    UpstreamError(v1.ERROR_REASON_BAD_PROVIDER_RESPONSE, "garbage"),
]


@pytest.mark.parametrize(
    "error", SHARED_ERRORS, ids=lambda error: v1.ErrorReason.Name(error.reason)
)
def test_a_failure_of_all_is_not_tried_again_by_each(error: TrunklineError) -> None:
    async def main() -> None:
        scene, upstream = Scene(), Upstream(error=error)
        calls = [scene.call(upstream) for _ in range(20)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[0] is error
        for result in results[1:]:
            # One's own: what a caller adds to an error must not reach another.
            assert isinstance(result, TrunklineError)
            assert result is not error
            assert (result.reason, result.message) == (error.reason, error.message)
            assert result.metadata == error.metadata
        assert upstream.begun == 1
        # Nothing of it is kept.
        assert await scene.call(Upstream()) == ("answer 1", True)

    run(main)


PERSONAL_ERRORS = [
    TrunklineError(v1.ERROR_REASON_QUOTA_EXCEEDED, "spent", metadata={"scope": "key"}),
    TrunklineError(v1.ERROR_REASON_RATE_LIMIT, "mine", metadata={"scope": "key"}),
    TrunklineError(v1.ERROR_REASON_AUTHORIZATION, "not you"),
    TrunklineError(v1.ERROR_REASON_TIMEOUT, "late"),
]


@pytest.mark.parametrize(
    "error", PERSONAL_ERRORS, ids=lambda error: v1.ErrorReason.Name(error.reason)
)
def test_a_failure_of_one_makes_the_next_one_lead(error: TrunklineError) -> None:
    async def main() -> None:
        scene, poor, rich = Scene(), Upstream(error=error), Upstream()
        calls = [scene.call(work) for work in (poor, poor, rich, poor, rich)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        # Each leads at most once and meets its own failure at most once.
        assert results == [error, error, ("answer 1", True), *[("answer 1", False)] * 2]
        assert poor.begun == 2
        assert rich.begun == 1
        assert scene.quiet()

    run(main)


def test_who_waits_in_vain_ends_at_its_own_deadline() -> None:
    async def main() -> None:
        scene = Scene()
        slow = Upstream(took=6.0, error=PERSONAL_ERRORS[0])
        calls = [scene.call(slow, deadline) for deadline in (50.0, 50.0, 8.0)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results[2], TrunklineError)
        assert results[2].reason == v1.ERROR_REASON_TIMEOUT
        assert slow.begun == 2

    run(main)


def test_a_defect_reaches_all() -> None:
    async def main() -> None:
        scene, upstream = Scene(), Upstream(error=ZeroDivisionError("defect"))
        calls = [scene.call(upstream) for _ in range(3)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, ZeroDivisionError) for result in results)

    run(main)


def test_a_timeout_of_the_work_is_not_taken_for_the_callers() -> None:
    async def main() -> None:
        scene, upstream = Scene(), Upstream(error=TimeoutError("inner"))
        with pytest.raises(TimeoutError, match="inner"):
            await scene.call(upstream)

    run(main)


def test_who_comes_after_the_last_has_gone_begins_anew() -> None:
    async def main() -> None:
        scene = Scene()
        unwinding = asyncio.Event()

        async def slow_to_end() -> str:
            try:
                await asyncio.sleep(TOOK)
            finally:
                unwinding.set()
                await asyncio.sleep(0.5)
            return "never"

        first = scene.call(slow_to_end)
        await asyncio.sleep(1.0)
        first.cancel()
        await unwinding.wait()
        second = scene.call(Upstream())
        assert await second == ("answer 1", True)
        assert first.cancelled()

    run(main)


def test_closing_ends_what_is_under_way() -> None:
    async def main() -> None:
        scene, upstream = Scene(), Upstream()
        calls = [scene.call(upstream) for _ in range(3)]
        await asyncio.sleep(1.0)
        await scene.tasks.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert upstream.cancelled_at == [1.0]
        assert scene.quiet()

    run(main)
