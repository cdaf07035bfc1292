"""The breaker against a table of what happened and what must follow."""

import pytest

from trunkline import v1
from trunkline_server.routing.breaker import Breaker, BreakerPolicy

CLOSED = v1.CIRCUIT_STATE_CLOSED
OPEN = v1.CIRCUIT_STATE_OPEN
HALF_OPEN = v1.CIRCUIT_STATE_HALF_OPEN

POLICY = BreakerPolicy(
    consecutive_failures=3, min_calls=10, open_seconds=10.0, half_open_calls=2, max_cooldown=35.0
)

# Steps are (time, what happens); then the state and whether a call is admitted, at a time.
Steps = list[tuple[float, str]]
FAILED_AT_0: Steps = [(0, "fail"), (0, "fail"), (0, "fail")]
CASES: list[tuple[str, Steps, float, v1.CircuitState.ValueType, bool]] = [
    ("new", [], 0, CLOSED, True),
    ("below the limit", [(0, "fail"), (0, "fail")], 0, CLOSED, True),
    ("a success between", [(0, "fail"), (0, "fail"), (0, "ok"), (0, "fail")], 0, CLOSED, True),
    ("consecutive failures", FAILED_AT_0, 0, OPEN, False),
    ("just before the end", FAILED_AT_0, 9.999, OPEN, False),
    ("half-open", FAILED_AT_0, 10, HALF_OPEN, True),
    ("one trial", [*FAILED_AT_0, (10, "begin")], 10, HALF_OPEN, True),
    ("all places taken", [*FAILED_AT_0, (10, "begin"), (10, "begin")], 99, HALF_OPEN, False),
    (
        "a place given back",
        [*FAILED_AT_0, (10, "begin"), (10, "begin"), (11, "neutral")],
        11,
        HALF_OPEN,
        True,
    ),
    (
        "one success is not enough, and its place stays used",
        [*FAILED_AT_0, (10, "begin"), (10, "begin"), (11, "ok")],
        11,
        HALF_OPEN,
        False,
    ),
    (
        "all trials succeed",
        [*FAILED_AT_0, (10, "begin"), (10, "begin"), (11, "ok"), (11, "ok")],
        11,
        CLOSED,
        True,
    ),
    ("a trial fails", [*FAILED_AT_0, (10, "begin"), (10, "fail")], 29.9, OPEN, False),
    ("open twice as long", [*FAILED_AT_0, (10, "begin"), (10, "fail")], 30, HALF_OPEN, True),
    (
        "growth is bounded",
        [*FAILED_AT_0, (10, "fail"), (30, "fail")],
        30 + 35,
        HALF_OPEN,
        True,
    ),
    (
        "the bound is not exceeded downwards either",
        [*FAILED_AT_0, (10, "fail"), (30, "fail")],
        30 + 34.9,
        OPEN,
        False,
    ),
    ("late failures change nothing", [*FAILED_AT_0, (5, "fail")], 10, HALF_OPEN, True),
    ("late successes change nothing", [*FAILED_AT_0, (5, "ok"), (5, "ok")], 9, OPEN, False),
    (
        "opening again soon after closing is opening for longer",
        [*FAILED_AT_0, (10, "ok"), (10, "ok"), (15, "fail"), (15, "fail"), (15, "fail")],
        34.9,
        OPEN,
        False,
    ),
    (
        "after as long a time closed as open, earlier openings are forgotten",
        [*FAILED_AT_0, (10, "ok"), (10, "ok"), (20, "fail"), (20, "fail"), (20, "fail")],
        30,
        HALF_OPEN,
        True,
    ),
    (
        "failures from before it opened do not count after it closed",
        [*FAILED_AT_0, (10, "ok"), (10, "ok"), (11, "fail"), (11, "fail")],
        11,
        CLOSED,
        True,
    ),
    ("error rate, too few calls", [(0, "ok"), (0, "fail")] * 4, 0, CLOSED, True),
    ("error rate reached", [(0, "ok"), (0, "fail")] * 5, 0, OPEN, False),
    ("error rate below", [(0, "ok"), (0, "ok"), (0, "fail")] * 20, 0, CLOSED, True),
    (
        "old failures fade",
        [*[(0.0, "ok"), (0.0, "fail")] * 4, (300, "ok"), (300, "fail")],
        300,
        CLOSED,
        True,
    ),
]


def play(breaker: Breaker, steps: Steps) -> None:
    for now, event in steps:
        match event:
            case "begin":
                breaker.begin(now)
            case "ok":
                breaker.succeed(now, POLICY)
            case "fail":
                breaker.fail(now, POLICY)
            case "neutral":
                breaker.neutral(now)
            case _:
                raise AssertionError(event)


@pytest.mark.parametrize(
    ("name", "steps", "now", "state", "admits"), CASES, ids=[case[0] for case in CASES]
)
def test_state_table(
    name: str, steps: Steps, now: float, state: v1.CircuitState.ValueType, admits: bool
) -> None:
    breaker = Breaker()
    play(breaker, steps)
    assert v1.CircuitState.Name(breaker.state(now)) == v1.CircuitState.Name(state)
    assert breaker.admits(now, POLICY) is admits


def test_open_times_double_up_to_the_bound_and_start_anew() -> None:
    breaker = Breaker()
    now = 0.0
    play(breaker, FAILED_AT_0)
    lengths = [breaker.open_until - now]
    for _ in range(4):
        now = breaker.open_until
        breaker.fail(now, POLICY)
        lengths.append(breaker.open_until - now)
    assert lengths == [10, 20, 35, 35, 35]


def test_the_error_rate_starts_anew_after_closing() -> None:
    policy = BreakerPolicy(consecutive_failures=99, min_calls=10, ewma_seconds=1e6)
    breaker = Breaker()
    for _ in range(5):
        breaker.succeed(0, policy)
        breaker.fail(0, policy)
    assert not breaker.is_closed
    breaker.succeed(10, policy)
    breaker.succeed(10, policy)
    breaker.fail(10, policy)
    assert breaker.is_closed, "one failure is not a rate"


def test_neutral_gives_back_no_more_places_than_were_taken() -> None:
    breaker = Breaker()
    play(breaker, [*FAILED_AT_0, (10, "neutral"), (10, "neutral"), (10, "begin"), (10, "begin")])
    assert not breaker.admits(10, POLICY)
