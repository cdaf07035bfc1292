"""Nothing unbilled, in five rounds; `make proofs` has two hundred."""

import pytest
from bench.proofs import unbilled
from bench.proofs.base import Stage
from bench.proofs.books import judge
from bench.proofs.callers import Fate, Kind, Told

from trunkline import v1
from trunkline.admin import v1 as admin


@pytest.mark.slow
async def test_every_answer_is_in_the_books_once_whatever_is_killed(stage: Stage) -> None:
    found = await unbilled.run(stage)
    assert not found.broken
    assert found.figures["rounds"] == 5
    assert found.figures["answered"] > 50
    assert found.figures["told"] == found.figures["booked"]


def booked(**fields: int) -> list[admin.UsageEvent]:
    """A call and its one attempt, as the books hold them."""
    cost = v1.Cost(total=fields.get("cost", 70))
    usage = v1.Usage(input_tokens=3, output_tokens=fields.get("written", 4))
    call = admin.UsageEvent(
        kind=admin.USAGE_EVENT_KIND_CALL,
        request_id="a",
        outcome=admin.USAGE_OUTCOME_SUCCEEDED,
        attempt_count=1,
        usage=usage,
        cost=cost,
    )
    attempt = admin.UsageEvent(
        kind=admin.USAGE_EVENT_KIND_ATTEMPT, request_id="a", attempt_number=1, cost=cost
    )
    return [call, attempt]


ANSWERED = Told("a", Kind.WHOLE, Fate.ANSWERED, input_tokens=3, output_tokens=4, cost=70)


@pytest.mark.parametrize(
    ("told", "events", "complaint"),
    [
        (ANSWERED, [], "is booked 0 times"),
        (ANSWERED, booked() * 2, "is booked 2 times"),
        (ANSWERED, booked(cost=71), "told (3, 4, 70), booked (3, 4, 71)"),
        (ANSWERED, booked(written=5), "told (3, 4, 70), booked (3, 5, 70)"),
        (ANSWERED, booked()[:1], "1 attempts are booked as []"),
        (Told("a", Kind.LEAVES_STREAM, Fate.LEFT, begun=True), [], "is booked 0 times"),
        (Told("a", Kind.BREAKS, Fate.REFUSED, begun=True), [], "is booked 0 times"),
        (Told("a", Kind.WHOLE, Fate.HUNG), [], "hung"),
    ],
)
def test_the_judge_finds_what_is_wrong(
    told: Told, events: list[admin.UsageEvent], complaint: str
) -> None:
    assert any(complaint in each for each in judge([told], events, died=False).broken)


@pytest.mark.parametrize(
    ("told", "events"),
    [
        (ANSWERED, booked()),
        (Told("a", Kind.WHOLE, Fate.CUT), []),
        (Told("a", Kind.LEAVES, Fate.LEFT), []),
    ],
)
def test_the_judge_lets_pass_what_is_right(told: Told, events: list[admin.UsageEvent]) -> None:
    assert judge([told], events, died=False).broken == []
